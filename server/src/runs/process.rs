//! A process that may have been begun by another service, which died.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::Child;

/// How often a process is looked for that is nobody's child.
const TICK: Duration = Duration::from_millis(500);

/// A process, which no other is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it began, in ticks since the machine did: numbers are used again.
    pub begun: u64,
}

/// What is waited for.
pub enum Watched {
    /// A child.
    Own(Box<Child>),
    /// A process that a service before this one began.
    Other(Process),
}

impl Process {
    /// Finds a process by its number.
    pub fn find(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let (_, begun) = look(pid).ok()??;
        Some(Self { pid, begun })
    }

    /// Tells whether it is still there, and no other in its place. What cannot be told now, as without a free file, is not
    /// taken for its end.
    pub fn is_alive(self) -> bool {
        self.is_there().unwrap_or(true)
    }

    fn is_there(self) -> std::io::Result<bool> {
        let found = look(self.pid)?;
        Ok(found.is_some_and(|(is_dead, begun)| !is_dead && begun == self.begun))
    }

    /// Asks it to stop at the next safe point.
    pub fn ask_to_stop(self) {
        self.send(Signal::TERM);
    }

    /// Ends it at once.
    pub fn kill(self) {
        self.send(Signal::KILL);
    }

    fn send(self, signal: Signal) {
        // Nothing is sent to what may be another.
        if self.is_there().unwrap_or(false)
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Watched {
    /// Waits for its end, and gives how it ended if that can be known. May be given up and begun again.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        match self {
            Self::Own(child) => child.wait().await.ok(),
            Self::Other(process) => {
                while process.is_alive() {
                    tokio::time::sleep(TICK).await;
                }
                None
            }
        }
    }
}

/// Tells of a process whether it is dead and only remembered, and when it began; none if there is none of that number.
fn look(pid: i32) -> std::io::Result<Option<(bool, u64)>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parsed(&text)),
        Err(error) if is_of_the_dead(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells whether there is no such process: none when it is looked for, or none any more when it is read.
fn is_of_the_dead(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn parsed(text: &str) -> Option<(bool, u64)> {
    // The name stands in brackets, and may have any in it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    // The state is the third field, the time of its beginning the 22nd.
    let begun = fields.nth(18)?.parse().ok()?;
    Some((is_dead, begun))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn only_a_process_that_is_not_there_is_dead() {
        let of = |errno: rustix::io::Errno| is_of_the_dead(&errno.into());
        assert!(of(rustix::io::Errno::NOENT) && of(rustix::io::Errno::SRCH));
        assert!(!of(rustix::io::Errno::MFILE) && !of(rustix::io::Errno::ACCESS));
    }

    #[test]
    fn a_process_is_known_until_it_dies() {
        let own = Process::find(std::process::id()).unwrap();
        assert!(own.is_alive() && own.begun > 0);
        let other = Process {
            begun: own.begun + 1,
            ..own
        };
        assert!(!other.is_alive());
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let process = Process::find(child.id()).unwrap();
        assert!(process.is_alive());
        process.kill();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
