//! Starts servers on ports of their own, and ends them.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use larder_storage::error::Result;
use larder_storage::location::{Layers, Location};
use larder_storage::{Mode, Storage};

/// How long a server may take to listen; Ceph needs 13 s on a calm machine.
const START_MAX: Duration = Duration::from_secs(120);

/// A server that is running; dropped, it is ended with everything that it started.
pub struct Server {
    child: Child,
    /// The port that it listens on.
    pub port: u16,
    /// Its folder, which vanishes with it.
    pub folder: Arc<tempfile::TempDir>,
}

impl Server {
    /// Starts what `make` gives for a folder and a free port, and waits until it listens.
    pub fn start(make: impl Fn(&Path, u16) -> Command) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), make)
    }

    /// Starts it in a folder that is there already.
    pub fn start_in(folder: Arc<tempfile::TempDir>, make: impl Fn(&Path, u16) -> Command) -> Self {
        // Between the choice of a port and its use somebody else may take it.
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(make(folder.path(), port), folder.path());
            if listens(&mut child, port) {
                return Self {
                    child,
                    port,
                    folder,
                };
            }
            end(&mut child);
        }
        let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
        panic!("the server did not start:\n{log}");
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Ends it, and starts what `make` gives on the same port and in the same folder.
    pub fn restart(&mut self, make: impl Fn(&Path, u16) -> Command) {
        const ATTEMPTS: usize = 100;
        self.kill();
        // Children of a killed server may hold its port a moment longer than it does itself.
        for _ in 0..ATTEMPTS {
            self.child = spawn(make(self.folder.path(), self.port), self.folder.path());
            if listens(&mut self.child, self.port) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("the server did not start again:\n{}", self.log());
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Gives a port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn spawn(mut command: Command, folder: &Path) -> Child {
    use std::os::unix::process::CommandExt as _;
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("server.log"))
        .unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        // A group of its own, so that its children end with it.
        .process_group(0);
    let shown = format!("{command:?}");
    command.spawn().unwrap_or_else(|error| {
        panic!("cannot start {shown}: {error}; scripts/setup.sh installs the servers")
    })
}

fn listens(child: &mut Child, port: u16) -> bool {
    let start = Instant::now();
    while start.elapsed() < START_MAX {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

fn end(child: &mut Child) {
    if child.try_wait().unwrap().is_none() {
        let group = rustix::process::Pid::from_child(child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = child.wait();
    }
}

/// Gives the folder `tests/servers` of the project: recipes and servers of its own.
pub fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers")
}

/// Gives a program of the servers' Python environment, such as `moto_server` or `python3`.
pub fn python(program: &str) -> PathBuf {
    let venv = std::env::var_os("LARDER_SERVERS_VENV")
        .expect("LARDER_SERVERS_VENV is not set; run the tests by scripts/cargo-test.sh");
    PathBuf::from(venv).join("bin").join(program)
}

/// Gives a program that npm installed for the tests, such as `azurite-blob`.
pub fn node(program: &str) -> PathBuf {
    let folder = std::env::var_os("LARDER_SERVERS_NODE")
        .expect("LARDER_SERVERS_NODE is not set; run the tests by scripts/cargo-test.sh");
    PathBuf::from(folder)
        .join("node_modules/.bin")
        .join(program)
}

/// Opens the storage at a URL with settings as larder.toml would have them.
pub fn open(url: &str, settings: &[(&str, &str)], mode: Mode) -> Result<Arc<dyn Storage>> {
    let file = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into()))
        .collect();
    let layers = Layers {
        file: Some(&file),
        ..Layers::default()
    };
    let location = Location::new(url, &layers)?;
    larder_storage::open(&location, mode, Arc::new(AtomicBool::new(false)))
}

/// A certificate authority and a certificate for 127.0.0.1 and localhost, made by openssl.
pub struct Certificates {
    /// The folder with `ca.pem`, `srv.pem`, `srv.key` and `srv-both.pem`; vanishes with the value.
    pub folder: tempfile::TempDir,
}

impl Certificates {
    /// Makes them.
    pub fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "set -e; umask 077
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj '/CN=A test authority' \
                -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
            openssl req -newkey rsa:2048 -nodes -keyout srv.key -out srv.csr -subj /CN=localhost
            printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > srv.ext
            openssl x509 -req -in srv.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile srv.ext -out srv.pem
            cat srv.key srv.pem > srv-both.pem";
        let status = Command::new("sh")
            .args(["-c", script])
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "openssl made no certificates");
        Self { folder }
    }

    /// The path of one of the files.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}
