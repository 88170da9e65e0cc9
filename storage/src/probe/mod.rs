//! Trying a location out: what a repository will need, step by step.

mod creates;
mod failure;
mod measure;
mod reach;
mod scratch;
mod steps;

pub use creates::{Creates, try_creates};
pub use failure::Failure;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Storage;
use super::error::StorageError;
use super::location::{Location, Scheme};
use super::open::{Mode, open_within};

/// How long a failed request is tried again while a location is tried out.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing that a repository needs of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepName {
    /// The host's name has an address.
    Resolve,
    /// Something listens there.
    Connect,
    /// It speaks TLS with a certificate that is trusted.
    Tls,
    /// It has the SSH key that is known.
    HostKey,
    /// It takes the credentials.
    Authenticate,
    /// The bucket or folder is there.
    Find,
    /// An object can be written.
    Write,
    /// It is read as it was written.
    ReadBack,
    /// A part of it can be read.
    RangeRead,
    /// It is listed.
    List,
    /// Of several writers of one object exactly one wins.
    CreateIfAbsent,
    /// It can be deleted.
    Delete,
    /// How long a small request takes.
    Latency,
    /// How many bytes a second are written.
    Upload,
    /// How many bytes a second are read.
    Download,
}

impl StepName {
    /// Gives its name in machine-readable output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::HostKey => "host-key",
            Self::Authenticate => "authenticate",
            Self::Find => "find",
            Self::Write => "write",
            Self::ReadBack => "read-back",
            Self::RangeRead => "range-read",
            Self::List => "list",
            Self::CreateIfAbsent => "create-if-absent",
            Self::Delete => "delete",
            Self::Latency => "latency",
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Which one.
    pub name: StepName,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took, in seconds; none where it was part of another step's request.
    pub seconds: Option<f64>,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It works; with what is worth saying about it.
    Done(Option<String>),
    /// So many seconds for one small request.
    Seconds(f64),
    /// So many bytes a second.
    BytesPerSecond(f64),
    /// It does not work.
    Failed(Failure),
    /// It was not tried, and why.
    Skipped(&'static str),
}

/// Something to tell while a location is tried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A step is over.
    Step(Step),
    /// Something is dangerous although it works.
    Warning(String),
}

/// What all steps together say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether a repository would work there.
    pub works: bool,
    /// Whether it could be pruned without its explicit flag.
    pub creates_exclusively: bool,
    /// Whether the process was asked to stop before all was tried.
    pub is_interrupted: bool,
}

/// Tries a location out, and calls `report` with each event as it comes.
///
/// Works below a name of its own, leaves nothing behind, and touches nothing that is there.
/// `stop` is set when the process is asked to end.
pub fn validate(
    location: &Location,
    mode: Mode,
    stop: &Arc<AtomicBool>,
    report: &mut dyn FnMut(Event),
) -> Verdict {
    let mut run = Run {
        scheme: location.place.scheme,
        stop: Arc::clone(stop),
        report,
        verdict: Verdict {
            works: true,
            ..Verdict::default()
        },
    };
    for warning in reach::warnings(location) {
        (run.report)(Event::Warning(warning));
    }
    match run.reach(location, mode) {
        Some(storage) => steps::run(storage.as_ref(), &mut run),
        None => run.verdict.works = false,
    }
    run.is_stopped();
    run.verdict
}

/// What the steps share.
struct Run<'a> {
    scheme: Scheme,
    stop: Arc<AtomicBool>,
    report: &'a mut dyn FnMut(Event),
    verdict: Verdict,
}

impl Run<'_> {
    /// Gets to the storage, from the host's name to the bucket or folder.
    fn reach(&mut self, location: &Location, mode: Mode) -> Option<Arc<dyn Storage>> {
        if let Err(failed) = self.reach_host(location) {
            self.skip_after(location, failed);
            return None;
        }
        let start = Instant::now();
        let opened = open_within(location, mode, Arc::clone(&self.stop), Some(PATIENCE));
        let log_in = start.elapsed();
        let start = Instant::now();
        let touched = opened.and_then(|storage| reach::touch(storage.as_ref()).map(|()| storage));
        let find = start.elapsed();
        let failed = touched.as_ref().err().map(reach::step_of);
        for name in reach::steps_of(location) {
            let seconds = match name {
                StepName::Authenticate => Some(log_in.as_secs_f64()),
                StepName::Find => Some(find.as_secs_f64()),
                _ => None,
            };
            if failed == Some(name) || failed.is_some() && name == StepName::Find {
                let error = touched.as_ref().err()?;
                let failure = self.failure(name, error);
                self.tell(name, Outcome::Failed(failure), seconds);
                self.skip_after(location, name);
                return None;
            }
            self.tell(name, Outcome::Done(None), seconds);
        }
        touched.ok()
    }

    /// Looks the host up and connects to it; the error is the step that failed.
    fn reach_host(&mut self, location: &Location) -> Result<(), StepName> {
        let Some(address) = reach::address(location) else {
            return Ok(());
        };
        let start = Instant::now();
        let found = reach::resolve(&address);
        if !address.is_numeric() {
            let told = found.as_ref().map(|found| reach::shown(found));
            self.tell_outcome(StepName::Resolve, told.map(Some), start)?;
        }
        let start = Instant::now();
        let connected = reach::connect(&address, &found.unwrap_or_default(), location);
        let told = connected.as_ref().map(|to| Some(to.to_string()));
        self.tell_outcome(StepName::Connect, told, start)
    }

    fn tell_outcome(
        &mut self,
        name: StepName,
        outcome: Result<Option<String>, &StorageError>,
        start: Instant,
    ) -> Result<(), StepName> {
        let seconds = Some(start.elapsed().as_secs_f64());
        match outcome {
            Ok(detail) => {
                self.tell(name, Outcome::Done(detail), seconds);
                Ok(())
            }
            Err(error) => {
                let failure = self.failure(name, error);
                self.tell(name, Outcome::Failed(failure), seconds);
                Err(name)
            }
        }
    }

    fn skip_after(&mut self, location: &Location, failed: StepName) {
        let reaching = reach::all_steps(location);
        let after = reaching.iter().skip_while(|name| **name != failed).skip(1);
        for name in after.chain(steps::ALL) {
            self.tell(*name, Outcome::Skipped("an earlier step failed"), None);
        }
    }

    fn failure(&self, name: StepName, error: &StorageError) -> Failure {
        failure::of(self.scheme, name, error)
    }

    fn tell(&mut self, name: StepName, outcome: Outcome, seconds: Option<f64>) {
        if let Outcome::Failed(failure) = &outcome {
            self.verdict.works &= !failure.is_fatal;
        }
        (self.report)(Event::Step(Step {
            name,
            outcome,
            seconds,
        }));
    }

    /// Tells whether the process was asked to stop, and remembers it.
    fn is_stopped(&mut self) -> bool {
        self.verdict.is_interrupted |= self.stop.load(Ordering::Relaxed);
        self.verdict.is_interrupted
    }
}

#[cfg(test)]
mod tests;
