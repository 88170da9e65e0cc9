//! A program that runs beside larder: its output as a stream, the end of what it says, and how it ended.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::cancel::Cancel;
use crate::clock;
use crate::error::{EngineError, Result};
use crate::storage::location::keys::{KEYS, Kind};
use crate::sync::lock;

/// Bytes that are kept of what a program says on its standard error: the last of them.
const SAID_BYTES: usize = 4 << 10;
/// The environment variables that hold a password.
const SECRET_VARIABLES: [&str; 2] = ["LARDER_PASSWORD", "LARDER_TO_PASSWORD"];
/// How often whoever waits for a program looks whether it is time to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The same for whoever waits for output, who is woken when there is some.
const LOOK_EVERY_READ: Duration = Duration::from_millis(100);
/// How long a program may take to end after it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long is waited for the last words of a program that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The process groups of the programs that run.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills every program that runs, with its process group: for a process that ends without destructors.
pub fn kill_all() {
    for group in lock(&GROUPS).iter() {
        let _ = kill_process_group(*group, Signal::KILL);
    }
}

/// A running program, the head of a process group of its own; the group is ended when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    group: Option<Pid>,
    out: ChildStdout,
    said: Arc<Mutex<Vec<u8>>>,
    said_all: Receiver<()>,
    /// What it is called in errors.
    name: String,
    cancel: Cancel,
    has_ended: bool,
}

/// The standard input of a program; writing waits for room as long as somebody wants it.
#[derive(Debug)]
pub struct Input {
    pipe: ChildStdin,
    cancel: Cancel,
}

/// Makes the command that a shell runs, with the environment of this process less larder's own secrets:
/// what the command prints is kept, in a snapshot or in a report.
#[must_use]
pub fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line);
    hide_secrets(&mut command);
    command
}

/// Takes larder's own secrets out of the environment of a command.
pub fn hide_secrets(command: &mut Command) {
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    for key in KEYS.iter().filter(|key| key.kind == Kind::Secret) {
        command.env_remove(key.variable());
    }
}

impl Running {
    /// Starts a program, called `name` in errors, that is wanted until `cancel` is requested.
    ///
    /// # Errors
    /// `Request` if it cannot be started.
    pub fn start(command: &mut Command, name: &str, cancel: &Cancel) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let failed = |error: io::Error| EngineError::Request(format!("cannot run {name}: {error}"));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        lock(&GROUPS).extend(group);
        let (Some(out), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::Error::other("it has no output")));
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let (done, said_all) = bounded(1);
        let words = Arc::clone(&said);
        let listen = move || {
            keep_last(errors, &words);
            let _ = done.send(());
        };
        // Without the thread it could stand still with a full pipe.
        let listener = thread::Builder::new().name("stderr".into()).spawn(listen);
        let running = Self {
            child,
            group,
            out,
            said,
            said_all,
            name: name.to_owned(),
            cancel: cancel.clone(),
            has_ended: false,
        };
        listener.map_err(failed)?;
        Ok(running)
    }

    /// Gives the program's standard input, once, if `command` asked for a pipe.
    ///
    /// # Errors
    /// `Internal` if there is none; what the operating system answers.
    pub fn input(&mut self) -> Result<Input> {
        let pipe = self.child.stdin.take();
        let pipe =
            pipe.ok_or_else(|| EngineError::Internal(format!("{} has no input", self.name)))?;
        ioctl_fionbio(&pipe, true).map_err(|errno| self.failure(&errno.to_string(), ""))?;
        Ok(Input {
            pipe,
            cancel: self.cancel.clone(),
        })
    }

    fn is_ready(&self, patience: Duration) -> io::Result<bool> {
        is_ready(&self.out, PollFlags::IN, patience)
    }

    /// Gives the last of what it said on its standard error so far.
    #[must_use]
    pub fn said(&self) -> String {
        let said = lock(&self.said);
        String::from_utf8_lossy(&said).trim_end().to_owned()
    }

    /// Waits for its end; gives the last of what it said.
    ///
    /// # Errors
    /// `Request` with how it ended and the last of what it said, unless it ended with 0; `Interrupted`
    /// when it is not wanted any more.
    pub fn finish(mut self) -> Result<String> {
        let cancel = self.cancel.clone();
        let status = self.wait(&|| !cancel.is_requested())?;
        let status = status.ok_or(EngineError::Interrupted)?;
        let said = self.said();
        match status.success() {
            true => Ok(said),
            false => Err(self.failure(&ended(status), &said)),
        }
    }

    /// As [`Self::finish`], where its output could not be read to the end because of `broken`.
    ///
    /// # Errors
    /// As [`Self::finish`]; `Request` with `broken`, if the program itself has nothing to say.
    pub fn finish_read(self, broken: Option<io::Error>) -> Result<String> {
        let Some(error) = broken else {
            return self.finish();
        };
        let (name, cancel) = (self.name.clone(), self.cancel.clone());
        match error.kind() {
            // It has closed its output, and how it ended says more.
            io::ErrorKind::UnexpectedEof => {
                self.finish()?;
                Err(EngineError::Request(format!(
                    "{name} ended well in the midst of its output; run it by hand to see what it writes"
                )))
            }
            _ => {
                drop(self);
                match cancel.is_requested() {
                    true => Err(EngineError::Interrupted),
                    false => Err(EngineError::Request(format!(
                        "the output of {name}: {error}"
                    ))),
                }
            }
        }
    }

    /// Runs it to its end as long as `is_wanted` answers so, and gives the last of its output, and how it
    /// ended; none if it was ended from here. What it leaves in the background is not waited for.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn run_to_end(
        &mut self,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(String, Option<ExitStatus>)> {
        let (mut output, mut buffer) = (Vec::new(), [0; 4096]);
        let mut status = None;
        while status.is_none() && is_wanted() {
            status = self.wait(&|| false)?;
            while self.is_ready(LOOK_EVERY).unwrap_or(false) {
                let count = self.out.read(&mut buffer).unwrap_or_default();
                keep(&mut output, buffer.get(..count).unwrap_or_default());
                if count == 0 {
                    status = self.wait(is_wanted)?;
                    break;
                }
                if !is_wanted() {
                    break;
                }
            }
        }
        if status.is_none() {
            self.end();
        }
        Ok((
            String::from_utf8_lossy(&output).trim_end().to_owned(),
            status,
        ))
    }

    /// Waits for its end as long as `is_wanted` answers so; none if it has not ended then.
    fn wait(&mut self, is_wanted: &dyn Fn() -> bool) -> Result<Option<ExitStatus>> {
        loop {
            let status = self.child.try_wait();
            let status = status.map_err(|error| self.failure(&error.to_string(), ""))?;
            if let Some(status) = status {
                self.has_ended = true;
                // What it left behind in the background may hold the pipe open.
                let _ = self.said_all.recv_timeout(LAST_WORDS);
                return Ok(Some(status));
            }
            if !is_wanted() {
                return Ok(None);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn failure(&self, how: &str, said: &str) -> EngineError {
        let name = &self.name;
        EngineError::Request(match said.is_empty() {
            true => format!("{name} failed ({how}); it said nothing"),
            false => format!("{name} failed ({how}); it said at the end:\n{said}"),
        })
    }

    /// Asks the whole group to end, and kills what does not.
    fn end(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::TERM);
            let until = clock::uptime() + GRACE;
            while clock::uptime() < until && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(LOOK_EVERY);
            }
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        self.has_ended = true;
    }
}

impl Read for Running {
    /// Waits for output until it ends, or is not wanted any more, which is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wait_for(&self.out, &self.cancel)?;
        self.out.read(buffer)
    }
}

impl Write for Input {
    /// Waits for room until there is some, or it is not wanted any more, which is an error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_requested() {
                return Err(io::Error::other("nobody waits for it any more"));
            }
            match self.pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    is_ready(&self.pipe, PollFlags::OUT, LOOK_EVERY_READ)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

/// Waits until a read of a pipe gives bytes, or the end, at once.
///
/// # Errors
/// When nobody wants it any more, or what the operating system answers.
pub fn wait_for(pipe: &impl AsFd, cancel: &Cancel) -> io::Result<()> {
    loop {
        if cancel.is_requested() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        if is_ready(pipe, PollFlags::IN, LOOK_EVERY_READ)? {
            return Ok(());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end();
        }
        if let Some(group) = self.group {
            lock(&GROUPS).retain(|other| *other != group);
        }
    }
}

/// Tells whether a read or write of a pipe has an answer at once; waits for it as long as `patience`.
fn is_ready(pipe: &impl AsFd, what: PollFlags, patience: Duration) -> io::Result<bool> {
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut waiting = [PollFd::new(pipe, what)];
    match poll(&mut waiting, Some(&patience)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Says how a program ended.
#[must_use]
pub fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(127), _) => "exit code 127: there is no such command".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Reads to the end and keeps the last bytes.
fn keep_last(mut from: impl Read, said: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        keep(&mut lock(said), buffer.get(..count).unwrap_or_default());
    }
}

/// Keeps the last of what was said.
fn keep(said: &mut Vec<u8>, more: &[u8]) {
    said.extend_from_slice(more);
    let superfluous = said.len().saturating_sub(SAID_BYTES);
    said.drain(..superfluous);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn run(line: &str) -> (String, Result<String>) {
        let mut running =
            Running::start(&mut shell(line), "the command", &Cancel::default()).unwrap();
        let mut out = String::new();
        running.read_to_string(&mut out).unwrap();
        (out, running.finish())
    }

    #[test]
    fn output_and_last_words_are_kept_apart() {
        let (out, said) = run("echo out; echo one >&2; echo two >&2");
        assert_eq!(out, "out\n");
        assert_eq!(said.unwrap(), "one\ntwo");
        let (out, said) = run("yes why | head -c 1000000 >&2");
        assert!(out.is_empty());
        let said = said.unwrap();
        assert!((4000..=SAID_BYTES).contains(&said.len()), "{}", said.len());
    }

    #[test]
    fn no_secret_of_larder_is_in_the_environment_of_a_command() {
        let mut command = shell("true");
        command.env("OTHER", "1");
        let removed = command.get_envs().filter(|(_, value)| value.is_none());
        let removed: Vec<&str> = removed.filter_map(|(name, _)| name.to_str()).collect();
        for name in [
            "LARDER_PASSWORD",
            "LARDER_STORAGE_PASSWORD",
            "LARDER_STORAGE_SECRET_ACCESS_KEY",
        ] {
            assert!(removed.contains(&name), "{name} of {removed:?}");
        }
        assert!(!removed.contains(&"LARDER_STORAGE_REGION"));
    }

    #[test]
    fn how_it_ended_is_told() {
        let failure = |line: &str| run(line).1.unwrap_err().to_string();
        let told = failure("echo sorry >&2; exit 7");
        assert_eq!(
            told,
            "the command failed (exit code 7); it said at the end:\nsorry"
        );
        let told = failure("kill -9 $$");
        assert!(told.contains("ended by signal 9"), "{told}");
        let told = failure("exec /no/such/program");
        assert!(told.contains("127"), "{told}");
    }

    #[test]
    fn input_is_written_whole_and_no_longer_than_it_is_wanted() {
        let start = |line: &str, cancel: &Cancel| {
            let mut command = shell(line);
            command.stdin(Stdio::piped());
            Running::start(&mut command, "the command", cancel).unwrap()
        };
        let cancel = Cancel::default();
        let mut running = start("sleep 0.2; wc -c", &cancel);
        let mut input = running.input().unwrap();
        input.write_all(&vec![7; 1 << 20]).unwrap();
        drop(input);
        let mut out = String::new();
        running.read_to_string(&mut out).unwrap();
        assert_eq!(out.trim(), "1048576");
        running.finish().unwrap();

        // Nobody reads; what waits for room ends when it is asked to.
        let mut running = start("exec sleep 600", &cancel);
        let mut input = running.input().unwrap();
        let waiting = thread::spawn(move || input.write_all(&vec![7; 1 << 20]));
        cancel.request();
        assert!(waiting.join().unwrap().is_err());
        drop(running);
    }

    #[test]
    fn what_is_not_wanted_any_more_ends_with_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let line = format!("sleep 600 & echo $! > {}; echo ready; wait", file.display());
        let cancel = Cancel::default();
        let mut running = Running::start(&mut shell(&line), "the command", &cancel).unwrap();
        let mut ready = [0; 6];
        running.read_exact(&mut ready).unwrap();
        let below = std::fs::read_to_string(&file).unwrap();
        let below = Pid::from_raw(below.trim().parse().unwrap()).unwrap();
        cancel.request();
        assert!(running.read(&mut ready).is_err());
        assert!(matches!(running.finish(), Err(EngineError::Interrupted)));
        // It is a zombie of whoever took it over, or gone; the signal takes a moment to arrive.
        let file = format!("/proc/{}/stat", below.as_raw_nonzero());
        let has_ended = || std::fs::read_to_string(&file).map_or(true, |stat| stat.contains(") Z"));
        let mut looks = 0;
        while !has_ended() {
            looks += 1;
            assert!(looks < 1000, "it goes on");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
