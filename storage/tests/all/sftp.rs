//! SFTP against OpenSSH.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use larder_storage::error::{ErrorKind, Reason, Result, StorageError};
use larder_storage::location::{Layers, Location};
use larder_storage::probe::{self, Event, Outcome, Step, StepName};
use larder_storage::{CreateExclusive, Mode, Storage, contract};

use crate::accounts::{self, PASSWORD, USER, USER_ID};
use crate::servers::{self, Server};

/// An OpenSSH server, and what a client needs to know of it.
struct Sshd {
    server: Server,
    port: u16,
}

impl Sshd {
    /// Starts one; `None` where this machine does not let tests have it.
    fn start() -> Option<Self> {
        Self::start_with("", "")
    }

    /// Starts one with further lines of its configuration, after options of its SFTP server and a `|` if
    /// there are any, and of the script that starts it.
    fn start_with(configuration: &str, script: &str) -> Option<Self> {
        if !accounts::are_there() {
            return None;
        }
        let folder = Arc::new(tempfile::tempdir().unwrap());
        for kind in ["ed25519", "ecdsa"] {
            keygen(&folder.path().join(format!("host_{kind}")), kind, "", &[]);
        }
        fs::write(folder.path().join("authorized_keys"), "").unwrap();
        let server = Server::start_in(Arc::clone(&folder), |folder, port| {
            command(folder, port, configuration, script)
        });
        let port = server.port;
        let sshd = Self { server, port };
        sshd.know("ed25519");
        Some(sshd)
    }

    fn folder(&self) -> &Path {
        self.server.folder.path()
    }

    fn file(&self, name: &str) -> String {
        self.folder().join(name).display().to_string()
    }

    /// Writes one of the server's keys as the only one to known_hosts.
    fn know(&self, kind: &str) {
        let key = fs::read_to_string(self.file(&format!("host_{kind}.pub"))).unwrap();
        let line = format!("[127.0.0.1]:{} {key}", self.port);
        fs::write(self.file("known_hosts"), line).unwrap();
    }

    /// The URL of a folder in the user's home.
    fn url(&self, folder: &str) -> String {
        format!("sftp://{USER}@127.0.0.1:{}/~/{folder}", self.port)
    }

    fn open(
        &self,
        folder: &str,
        settings: &[(&str, &str)],
        mode: Mode,
    ) -> Result<Arc<dyn Storage>> {
        let known_hosts = self.file("known_hosts");
        let mut all = vec![("agent", "false")];
        if !settings.iter().any(|(name, _)| *name == "known-hosts") {
            all.push(("known-hosts", &known_hosts));
        }
        all.extend(settings);
        servers::open(&self.url(folder), &all, mode)
    }

    fn with_password(&self, folder: &str) -> Arc<dyn Storage> {
        let password = [("password", PASSWORD)];
        self.open(folder, &password, Mode::Create).unwrap()
    }

    fn home(&self) -> PathBuf {
        self.folder().join("home")
    }

    /// Kills it and starts it again on the same port.
    fn restart(&mut self) {
        self.server
            .restart(|folder, port| command(folder, port, "", ""));
    }
}

fn command(folder: &Path, port: u16, configuration: &str, script: &str) -> Command {
    let shown = folder.display();
    let (options, configuration) = match configuration.split_once('|') {
        Some((options, rest)) => (options, rest),
        None => ("", configuration),
    };
    let text = format!(
        "Port {port}
ListenAddress 127.0.0.1
HostKey {shown}/host_ed25519
HostKey {shown}/host_ecdsa
PidFile none
AuthorizedKeysFile {shown}/authorized_keys
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
Subsystem sftp internal-sftp {options}
{configuration}
"
    );
    fs::write(folder.join("sshd_config"), text).unwrap();
    let script = format!(
        "{script}
        mkdir -p /run/sshd
        exec /usr/sbin/sshd -D -e -f {shown}/sshd_config"
    );
    accounts::with_user(folder, &script)
}

fn keygen(path: &Path, kind: &str, passphrase: &str, options: &[&str]) {
    let bits: &[&str] = if kind == "rsa" { &["-b", "2048"] } else { &[] };
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", "a test", "-f"])
        .arg(path)
        .args(bits)
        .args(options)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "ssh-keygen made no key");
}

fn refused(outcome: Result<Arc<dyn Storage>>) -> StorageError {
    outcome.err().expect("the storage opened")
}

fn reason(outcome: Result<Arc<dyn Storage>>) -> (ErrorKind, Reason) {
    let error = refused(outcome);
    (error.kind, error.reason)
}

#[test]
fn openssh_keeps_the_contract() {
    let Some(sshd) = Sshd::start() else { return };
    let round = Cell::new(0);
    contract::run(&|| {
        round.set(round.get() + 1);
        let storage = sshd.with_password(&format!("deep/down/r{}", round.get()));
        let capabilities = storage.capabilities();
        assert_eq!(capabilities.create_exclusive, CreateExclusive::HardLink);
        assert!(capabilities.atomic_put);
        storage
    });
}

#[test]
fn a_server_that_allows_one_channel_a_connection_keeps_the_contract() {
    let Some(sshd) = Sshd::start_with("MaxSessions 1", "") else {
        return;
    };
    let round = Cell::new(0);
    contract::run(&|| {
        round.set(round.get() + 1);
        sshd.with_password(&format!("r{}", round.get()))
    });
}

#[test]
fn a_server_with_the_plain_protocol_alone_keeps_the_contract_as_far_as_it_can() {
    let options = "-P posix-rename,hardlink,fsync,statvfs,limits|";
    let Some(sshd) = Sshd::start_with(options, "") else {
        return;
    };
    let round = Cell::new(0);
    contract::run(&|| {
        round.set(round.get() + 1);
        let storage = sshd.with_password(&format!("r{}", round.get()));
        let capabilities = storage.capabilities();
        assert_eq!(capabilities.create_exclusive, CreateExclusive::None);
        assert!(!capabilities.atomic_put);
        storage
    });
}

#[test]
fn every_kind_of_key_opens_the_door_and_a_passphrase_has_to_be_right() {
    let Some(sshd) = Sshd::start() else { return };
    let pem: &[&str] = &["-m", "PEM"];
    let pkcs8: &[&str] = &["-m", "PKCS8"];
    let kinds = [
        ("ed25519", &[][..]),
        ("ecdsa", &[]),
        ("ecdsa", &["-b", "521"]),
        ("rsa", &[]),
        ("rsa", pem),
        ("ecdsa", pem),
        ("rsa", pkcs8),
    ];
    for (at, (kind, options)) in kinds.into_iter().enumerate() {
        for passphrase in ["", "open sesame"] {
            // OpenSSL's old form of encrypted keys is known for RSA alone.
            if !passphrase.is_empty() && options == pem && kind == "ecdsa" {
                continue;
            }
            let path = sshd.folder().join(format!("id_{at}_{}", passphrase.len()));
            keygen(&path, kind, passphrase, options);
            fs::copy(path.with_extension("pub"), sshd.file("authorized_keys")).unwrap();
            let path = path.display().to_string();
            let open = |given: &[(&str, &str)]| {
                let mut settings = vec![("identity-file", path.as_str())];
                settings.extend(given);
                sshd.open("r", &settings, Mode::Create)
            };
            let what = format!("{kind} {options:?} {passphrase:?}");
            if passphrase.is_empty() {
                let storage = open(&[]).expect(&what);
                storage.put("a/b", Bytes::from(what)).unwrap();
                continue;
            }
            open(&[("identity-passphrase", passphrase)]).expect(&what);
            let none = refused(open(&[]));
            assert_eq!(none.reason, Reason::NoCredentials, "{what}: {none}");
            assert!(none.to_string().contains("identity-passphrase"), "{none}");
            let wrong = refused(open(&[("identity-passphrase", "sesame")]));
            assert_eq!(wrong.reason, Reason::NoCredentials, "{what}: {wrong}");
            assert!(!wrong.to_string().contains("sesame"), "{wrong}");
        }
    }
}

#[test]
fn wrong_logins_are_told_and_not_tried_again() {
    let Some(sshd) = Sshd::start() else { return };
    let denied = (ErrorKind::Denied, Reason::WrongLogin);
    let password = sshd.open("r", &[("password", "hunter2")], Mode::Create);
    let error = refused(password);
    assert_eq!((error.kind, error.reason), denied);
    assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
    let path = sshd.folder().join("id");
    keygen(&path, "ed25519", "", &[]);
    let path = path.display().to_string();
    let key = sshd.open("r", &[("identity-file", &path)], Mode::Create);
    assert_eq!(reason(key), denied);
    // The key is refused, and the password let in.
    let both = [("identity-file", path.as_str()), ("password", PASSWORD)];
    sshd.open("r", &both, Mode::Create).unwrap();
    let missing = [("identity-file", "/nowhere/id")];
    let error = refused(sshd.open("r", &missing, Mode::Create));
    assert_eq!(error.reason, Reason::NoCredentials);
    assert!(error.to_string().contains("/nowhere/id"), "{error}");
    let public = format!("{path}.pub");
    let error = refused(sshd.open("r", &[("identity-file", &public)], Mode::Create));
    assert!(error.to_string().contains("public key"), "{error}");
}

#[test]
fn unknown_and_changed_servers_are_refused_and_new_ones_remembered_when_asked() {
    let Some(sshd) = Sshd::start() else { return };
    let hosts = sshd.file("hosts");
    let open = |checking: &str| {
        let settings = [
            ("password", PASSWORD),
            ("known-hosts", hosts.as_str()),
            ("host-key-checking", checking),
        ];
        sshd.open("r", &settings, Mode::Create)
    };
    let error = refused(open("strict"));
    assert_eq!(error.reason, Reason::HostKeyUnknown);
    let shown = Command::new("ssh-keygen")
        .args(["-l", "-f", &sshd.file("host_ed25519.pub")])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let fingerprint = shown.split(' ').nth(1).unwrap();
    assert!(error.to_string().contains(fingerprint), "{error}");
    assert!(!Path::new(&hosts).exists());
    open("accept-new").unwrap();
    open("strict").unwrap();
    // OpenSSH's own tools find what was written, and hash it.
    let name = format!("[127.0.0.1]:{}", sshd.port);
    let hash = |arguments: &[&str]| {
        let outcome = Command::new("ssh-keygen").args(arguments).output().unwrap();
        assert!(outcome.status.success(), "ssh-keygen {arguments:?}");
    };
    hash(&["-F", &name, "-f", &hosts]);
    hash(&["-H", "-f", &hosts]);
    assert!(fs::read_to_string(&hosts).unwrap().starts_with("|1|"));
    open("strict").unwrap();
    // A server that is known by its other key is asked for that one.
    sshd.know("ecdsa");
    sshd.open("r", &[("password", PASSWORD)], Mode::Create)
        .unwrap();
    // Another server takes its place.
    let other = sshd.folder().join("other");
    keygen(&other, "ed25519", "", &[]);
    let key = fs::read_to_string(other.with_extension("pub")).unwrap();
    fs::write(&hosts, format!("{name} {key}")).unwrap();
    for checking in ["strict", "accept-new"] {
        assert_eq!(
            reason(open(checking)),
            (ErrorKind::Permanent, Reason::HostKeyChanged)
        );
    }
    fs::write(&hosts, format!("@cert-authority {name} {key}")).unwrap();
    assert_eq!(reason(open("strict")).1, Reason::HostKeyUnknown);
}

#[test]
fn servers_that_cannot_be_reached_are_told_apart() {
    let open = |url: &str| {
        let settings = [
            ("password", PASSWORD),
            ("connect-timeout", "5s"),
            ("retry-for", "1s"),
        ];
        refused(servers::open(url, &settings, Mode::Open))
    };
    let port = servers::free_port();
    let refused = open(&format!("sftp://{USER}@127.0.0.1:{port}/r"));
    assert_eq!(refused.reason, Reason::Refused, "{refused}");
    let nowhere = open(&format!("sftp://{USER}@nowhere.invalid/r"));
    assert_eq!(nowhere.reason, Reason::HostNotFound, "{nowhere}");
    // A server of another kind.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"220 ftp ready\r\n");
        // Until the client hangs up.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let other = open(&format!("sftp://{USER}@127.0.0.1:{port}/r"));
    assert!(
        matches!(other.reason, Reason::Protocol | Reason::Unreachable),
        "{other:?}"
    );
    server.join().unwrap();
}

#[test]
fn a_missing_folder_is_told_and_made_only_when_asked() {
    let Some(sshd) = Sshd::start() else { return };
    let open = |mode| sshd.open("a/b", &[("password", PASSWORD)], mode);
    assert_eq!(
        reason(open(Mode::Open)),
        (ErrorKind::NotFound, Reason::NoFolder)
    );
    assert!(!sshd.home().join("a").exists());
    open(Mode::Create).unwrap();
    open(Mode::Open).unwrap();
    // A path from the root of the server.
    let url = format!("sftp://127.0.0.1:{}{}/x", sshd.port, sshd.home().display());
    let hosts = sshd.file("known_hosts");
    let settings = [
        ("password", PASSWORD),
        ("user", USER),
        ("known-hosts", &hosts),
    ];
    let storage = servers::open(&url, &settings, Mode::Create).unwrap();
    storage.put("config/0", Bytes::from_static(b"x")).unwrap();
    assert!(sshd.home().join("x/config/0").is_file());
    fs::write(sshd.home().join("file"), "").unwrap();
    let file = sshd.open("file", &[("password", PASSWORD)], Mode::Open);
    assert_eq!(reason(file).1, Reason::NoFolder);
}

#[test]
fn a_folder_without_the_right_to_write_is_told() {
    let Some(sshd) = Sshd::start() else { return };
    let closed = sshd.home().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("there"), "x").unwrap();
    let storage = sshd
        .open("closed", &[("password", PASSWORD)], Mode::Open)
        .unwrap();
    assert_eq!(storage.get("there", 9).unwrap(), "x");
    let bytes = || Bytes::from_static(b"x");
    for outcome in [
        storage.put("a", bytes()),
        storage.put("packs/ab/cd", bytes()),
        storage.create("a", bytes()),
        storage.delete("there"),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.kind, error.reason),
            (ErrorKind::Denied, Reason::NotPermitted)
        );
    }
    let make = sshd.open("closed/new", &[("password", PASSWORD)], Mode::Create);
    assert_eq!(reason(make), (ErrorKind::Denied, Reason::NotPermitted));
}

#[test]
fn a_full_disk_and_one_that_takes_no_writes_are_told() {
    let script = "mkdir -p home/small home/fixed
        mount -t tmpfs -o size=2m,uid=20001,mode=700 none home/small
        mount -t tmpfs -o size=2m,uid=20001,ro none home/fixed";
    let Some(sshd) = Sshd::start_with("", script) else {
        return;
    };
    let storage = sshd.with_password("small/r");
    storage
        .put("a/first", Bytes::from(vec![1; 1 << 20]))
        .unwrap();
    let full = storage
        .put("a/second", Bytes::from(vec![2; 3 << 20]))
        .unwrap_err();
    assert_eq!(full.kind, ErrorKind::Full, "{full}");
    let full = storage
        .create("a/second", Bytes::from(vec![2; 3 << 20]))
        .unwrap_err();
    assert_eq!(full.kind, ErrorKind::Full, "{full}");
    // What did not fit has left nothing behind.
    storage
        .put("a/third", Bytes::from(vec![3; 900 << 10]))
        .unwrap();
    assert_eq!(storage.size("a/first").unwrap(), 1 << 20);
    let fixed = sshd
        .open("fixed", &[("password", PASSWORD)], Mode::Open)
        .unwrap();
    let error = fixed.put("a", Bytes::from_static(b"x")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::ReadOnly, "{error}");
}

#[test]
fn a_server_that_is_restarted_in_between_is_survived() {
    let Some(mut sshd) = Sshd::start() else {
        return;
    };
    let storage = sshd.with_password("r");
    let large = Bytes::from(vec![7; 5 << 20]);
    storage.put("packs/ab/one", large.clone()).unwrap();
    sshd.server.kill();
    let reader = Arc::clone(&storage);
    let reading = thread::spawn(move || reader.get("packs/ab/one", 9 << 20));
    sshd.restart();
    assert!(reading.join().unwrap().unwrap() == large);
    // Every connection from before is of no use; a listing retries by itself.
    sshd.restart();
    let mut names = Vec::new();
    storage
        .list("", &mut |object| {
            names.push(object.name);
            Ok(())
        })
        .unwrap();
    assert_eq!(names, ["packs/ab/one"]);
    sshd.restart();
    storage.put("packs/ab/two", large.clone()).unwrap();
    assert_eq!(storage.size("packs/ab/two").unwrap(), large.len() as u64);
}

#[test]
fn a_server_killed_during_an_upload_leaves_no_torn_object_and_sweep_removes_the_rest() {
    let Some(mut sshd) = Sshd::start() else {
        return;
    };
    let settings = [("password", PASSWORD), ("retry-for", "1s")];
    let storage = sshd.open("r", &settings, Mode::Create).unwrap();
    let size = 200 << 20;
    let writer = Arc::clone(&storage);
    let writing = thread::spawn(move || writer.put("packs/ab/cd", Bytes::from(vec![9; size])));
    let folder = sshd.home().join("r/packs/ab");
    let temporary = || {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut sizes = entries.map(|entry| entry.metadata().map_or(0, |found| found.len()));
        sizes.any(|size| size > 1 << 20)
    };
    while !temporary() && !writing.is_finished() {
        thread::yield_now();
    }
    sshd.server.kill();
    let error = writing
        .join()
        .unwrap()
        .expect_err("the upload was over before the kill");
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    assert!(!folder.join("cd").exists());
    sshd.restart();
    let storage = sshd.with_password("r");
    assert_eq!(
        storage.get("packs/ab/cd", 1).unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert_eq!(storage.sweep(Duration::from_secs(24 * 3600)).unwrap(), 0);
    assert_eq!(storage.sweep(Duration::ZERO).unwrap(), 1);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn foreign_files_are_passed_over_and_links_followed() {
    let Some(sshd) = Sshd::start() else { return };
    let storage = sshd.with_password("r");
    storage
        .put("packs/ab/cd", Bytes::from_static(b"x"))
        .unwrap();
    let root = sshd.home().join("r");
    fs::write(root.join("README.txt"), "foreign").unwrap();
    fs::write(root.join(".larder-x"), "foreign").unwrap();
    fs::create_dir(root.join("lost+found")).unwrap();
    let elsewhere = sshd.home().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("ef"), "there").unwrap();
    std::os::unix::fs::symlink(&elsewhere, root.join("packs/cd")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("packs/broken")).unwrap();
    let mut names = Vec::new();
    storage
        .list("", &mut |object| {
            names.push((object.name, object.size_bytes));
            Ok(())
        })
        .unwrap();
    names.sort();
    let expected = [("packs/ab/cd".to_owned(), 1), ("packs/cd/ef".to_owned(), 5)];
    assert_eq!(names, expected);
    // A root that vanished is no empty repository.
    fs::rename(&root, sshd.home().join("gone")).unwrap();
    assert_eq!(
        storage.list("", &mut |_| Ok(())).unwrap_err().kind,
        ErrorKind::Permanent
    );
    assert_eq!(
        storage.get("packs/ab/cd", 9).unwrap_err().kind,
        ErrorKind::Permanent
    );
    assert_eq!(
        storage.put("a/b", Bytes::new()).unwrap_err().kind,
        ErrorKind::Permanent
    );
    assert!(!root.exists());
}

#[test]
fn a_hundred_megabytes_come_back_as_they_were() {
    let Some(sshd) = Sshd::start() else { return };
    let storage = sshd.with_password("r");
    let bytes =
        Bytes::from_iter((0..100_000_000_u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8));
    storage.put("packs/ab/large", bytes.clone()).unwrap();
    assert!(storage.get("packs/ab/large", u64::MAX).unwrap() == bytes);
    let range = storage
        .get_range("packs/ab/large", 12_345_678, 30_000_001)
        .unwrap();
    assert!(range == bytes.slice(12_345_678..42_345_679));
    let written = fs::metadata(sshd.home().join("r/packs/ab/large")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&written), USER_ID);
}

#[test]
fn the_agent_and_the_usual_keys_are_tried_when_nothing_is_named() {
    let Some(sshd) = Sshd::start() else { return };
    let home = sshd.folder().join("client");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::copy(sshd.file("known_hosts"), home.join(".ssh/known_hosts")).unwrap();
    let open = |socket: &str| {
        let outcome = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "sftp::opens_as_the_environment_says",
            ])
            .env("LARDER_TEST_URL", sshd.url("r"))
            .env("HOME", &home)
            .env("SSH_AUTH_SOCK", socket)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
        (outcome.status.success(), said)
    };
    let (is_open, said) = open("");
    assert!(!is_open && said.contains("NoCredentials"), "{said}");
    // A key that only the agent holds.
    let socket = sshd.file("agent");
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let key = sshd.folder().join("id_agent");
    keygen(&key, "rsa", "", &[]);
    let add = || {
        Command::new("ssh-add")
            .arg(&key)
            .env("SSH_AUTH_SOCK", &socket)
            .output()
            .unwrap()
    };
    while !add().status.success() {
        assert!(agent.try_wait().unwrap().is_none(), "the agent ended");
        thread::yield_now();
    }
    fs::copy(key.with_extension("pub"), sshd.file("authorized_keys")).unwrap();
    let (is_open, said) = open(&socket);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(is_open, "{said}");
    assert!(!open(&socket).0, "the agent is gone, and the key with it");
    // One of the usual files.
    let key = home.join(".ssh/id_ecdsa");
    keygen(&key, "ecdsa", "", &[]);
    fs::copy(key.with_extension("pub"), sshd.file("authorized_keys")).unwrap();
    let (is_open, said) = open(&socket);
    assert!(is_open, "{said}");
}

/// Not a test of its own: another one runs it with an environment.
#[test]
#[ignore = "run by the_agent_and_the_usual_keys_are_tried_when_nothing_is_named"]
fn opens_as_the_environment_says() {
    let Ok(url) = std::env::var("LARDER_TEST_URL") else {
        return;
    };
    let opened = servers::open(&url, &[], Mode::Create);
    opened.map(drop).unwrap();
}

/// Tries a folder out; gives whether a repository would work, and each step that failed with its reason.
fn tried(sshd: &Sshd, settings: &[(&str, &str)]) -> (bool, Vec<(StepName, &'static str)>) {
    let known_hosts = sshd.file("known_hosts");
    let usual = [("agent", "false"), ("known-hosts", known_hosts.as_str())];
    let file = usual
        .iter()
        .chain(settings)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into()))
        .collect();
    let layers = Layers {
        file: Some(&file),
        ..Layers::default()
    };
    let location = Location::new(&sshd.url("r"), &layers).unwrap();
    let mut failed = Vec::new();
    let verdict = probe::validate(&location, Mode::Create, &Arc::default(), &mut |event| {
        if let Event::Step(Step {
            name,
            outcome: Outcome::Failed(failure),
            ..
        }) = event
        {
            failed.push((name, failure.reason));
        }
    });
    (verdict.works, failed)
}

#[test]
fn a_server_is_tried_out_and_left_as_it_was() {
    let Some(sshd) = Sshd::start() else { return };
    let password = ("password", PASSWORD);
    for _again in 0..2 {
        assert_eq!(tried(&sshd, &[password]), (true, vec![]));
        let left = fs::read_dir(sshd.home().join("r")).unwrap().count();
        assert_eq!(left, 0);
    }
    assert_eq!(
        tried(&sshd, &[("password", "wrong")]),
        (false, vec![(StepName::Authenticate, "wrong-login")])
    );
    fs::write(sshd.file("known_hosts"), "").unwrap();
    assert_eq!(
        tried(&sshd, &[password]),
        (false, vec![(StepName::HostKey, "host-key-unknown")])
    );
}

#[test]
fn a_repository_lives_on_a_server() {
    let Some(sshd) = Sshd::start() else { return };
    let known_hosts = sshd.file("known_hosts");
    let settings = [
        ("agent", "false"),
        ("known-hosts", &known_hosts),
        ("password", PASSWORD),
    ];
    crate::life::live(&sshd.url("backups/larder"), &settings);
}
