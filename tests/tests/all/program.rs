//! The built program, run as a person runs it: its own home, repository and source in one folder.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A raw key, so that no run spends time on deriving one from a passphrase.
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

/// A folder with a home, a repository and a source, which vanishes with the value.
pub struct World {
    folder: tempfile::TempDir,
    /// Variables for every run, over the usual ones.
    pub environment: Vec<(String, String)>,
}

/// How a run ended, and what it said.
#[derive(Debug)]
pub struct Run {
    /// The exit code; 128 and the signal's number if one ended it.
    pub code: i32,
    /// Standard output, lossy where it is not UTF-8.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Standard output as it came.
    pub raw: Vec<u8>,
}

impl World {
    /// Makes an empty source and no repository.
    pub fn bare() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("larder-test-")
            .tempdir()
            .unwrap();
        for name in ["home", "source", "tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("key"), KEY).unwrap();
        Self {
            folder,
            environment: Vec::new(),
        }
    }

    /// Makes an empty source, and a repository that the key file opens.
    pub fn new() -> Self {
        let world = Self::bare();
        world.ok(["init"]);
        world
    }

    /// Gives a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives the source.
    pub fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// Writes a file of the source, with a modification time long ago.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        write_old(&self.source().join(name), content.as_ref());
    }

    /// Gives the program with the world's home and nothing else in its environment: no secret.
    pub fn bare_command(&self) -> Command {
        self.bare_command_of(&program())
    }

    /// The same for the program at another place.
    pub fn bare_command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("TZ", "UTC")
            .env("LARDER_REPO", self.path("repo"))
            .env("LARDER_HOST", "desk")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Gives the program with the world's repository and key.
    pub fn command(&self) -> Command {
        self.command_of(&program())
    }

    /// The same for another program, e.g. one that starts it.
    pub fn command_of(&self, program: &Path) -> Command {
        let mut command = self.bare_command_of(program);
        command.env("LARDER_KEY_FILE", self.path("key"));
        command
    }

    /// Runs the program with these arguments.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        run(self.command().args(arguments))
    }

    /// Runs it, and fails unless its exit code is 0; gives what it printed.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        self.run(arguments).expect(0).stdout
    }

    /// Runs it with `--json`, and gives the one value that it printed.
    #[track_caller]
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Value {
        let run = run(self.command().arg("--json").args(arguments)).expect(0);
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
    }

    /// Runs a long job with `--json`, and gives its lines.
    #[track_caller]
    pub fn lines<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Vec<Value> {
        run(self.command().arg("--json").args(arguments))
            .expect(0)
            .lines()
    }

    /// Backs the source up with more arguments, and gives the summary.
    #[track_caller]
    pub fn backup(&self, arguments: &[&str]) -> Value {
        let mut command = self.command();
        command.args(["--json", "backup"]);
        run(command.args(arguments).arg(self.source()))
            .expect(0)
            .summary()
    }

    /// Restores what a spec names, of the source, into a fresh folder of this name.
    #[track_caller]
    pub fn restore(&self, snapshot: &str, target: &str) -> PathBuf {
        let target = self.path(target);
        let spec = format!("{snapshot}:{}", self.source().display());
        self.ok([
            "restore".as_ref(),
            spec.as_ref(),
            "--target".as_ref(),
            target.as_os_str(),
        ]);
        target
    }

    /// Adds the sizes of all packs up.
    pub fn pack_bytes(&self) -> u64 {
        self.objects("packs").values().sum()
    }

    /// Gives the objects below a folder of the repository (all for none), with their sizes.
    pub fn objects(&self, folder: &str) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path("repo").join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::metadata(&path).unwrap();
                if metadata.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path, metadata.len());
                }
            }
        }
        found
    }

    /// Lets everybody in, and hands all that is there over to a user without rights.
    pub fn give_to(&self, user: u32) {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let status = Command::new("chown")
            .args(["-R", &format!("{user}:{user}")])
            .arg(self.folder.path())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Run {
    /// Takes what a process that has ended left.
    pub fn of(output: Output) -> Self {
        let status = output.status;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Self {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            raw: output.stdout,
        }
    }

    /// Fails unless the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails unless standard error has this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "no {text:?} in: {}",
            self.stderr
        );
        self
    }

    /// Parses every line as JSON; without those of the status, which come by the clock.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parsed = self.stdout.lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        parsed
            .filter(|line: &Value| line["message_type"] != "status")
            .collect()
    }

    /// Gives the last line, which is the summary.
    #[track_caller]
    pub fn summary(&self) -> Value {
        let last = self.lines().pop().expect("no line at all");
        assert_eq!(last["message_type"], "summary", "{last}");
        last
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    Run::of(command.output().expect("the program cannot be started"))
}

/// Finds the program beside the folder that this test is in; `scripts/cargo-test.sh` builds it first.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("larder");
    assert!(
        program.is_file(),
        "there is no {}: build it with `cargo build --release --bin larder` first",
        program.display()
    );
    program
}

/// Writes a file, makes its folders, and dates it back so that no rule about fresh files hits it.
pub fn write_old(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    date_back(path, 1_000_000_000 + content.len() as u64);
}

/// Sets a modification time, in seconds since 1970.
pub fn date_back(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(time))
        .unwrap();
}

/// Gives bytes that look random but follow from the seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Runs one of the Python tools of tests/tools.
pub fn tool(name: &str, arguments: &[&OsStr]) -> Run {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools");
    run(Command::new("python3")
        .arg("-B")
        .arg(tools.join(name))
        .args(arguments))
}

/// Compares two trees, bytes and metadata, with a tool that shares nothing with the engine.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    let compared = tool("compare.py", &[a.as_os_str(), b.as_os_str()]);
    assert!(
        compared.code == 0 && compared.stdout.is_empty(),
        "{} and {} differ:\n{}{}",
        a.display(),
        b.display(),
        compared.stdout,
        compared.stderr
    );
}

/// Tells whether this runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
