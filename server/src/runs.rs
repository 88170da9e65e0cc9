//! Runs: processes of the program that go on by themselves, with their log and how they came out.
//!
//! A run writes into files and not into a pipe, so it goes on if the service dies, and the next one finds it: by its process
//! while that lives, and by what it wrote once it has ended.

pub mod log;
mod process;
mod record;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use tokio::process::Child;
use tokio::sync::watch;

use crate::child::{self, BUSY, Program};
use crate::data;
use crate::problem::Problem;
use crate::tokens::random_hex;
use log::{Files, Line, Tail};
use process::{Process, Watched};
use record::{Ending, Kept};
pub use record::{Key, Outcome, Record, Shown};

/// How often what a run wrote is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How many ended runs are kept.
const KEPT_MAX: usize = 1_000;
/// A longer summary stays in the log alone, in bytes.
const SUMMARY_BYTES_MAX: usize = 1 << 20;

/// All runs of the service.
pub struct Runs {
    folder: PathBuf,
    program: Program,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    all: BTreeMap<String, Arc<Run>>,
    is_stopping: bool,
    /// How many may be under way at a time.
    running_max: Option<u64>,
    /// How runs came out since the service was started, for the metrics.
    ended: BTreeMap<(String, Outcome), u64>,
}

/// One run.
pub struct Run {
    /// Its files.
    pub files: Files,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    kept: Kept,
    /// The last status line.
    progress: Option<Value>,
}

/// What is to be run.
pub struct Wanted {
    /// What it is called.
    pub kind: &'static str,
    /// The job, if it is one's: of one job nothing is run twice at a time.
    pub job: Option<String>,
    /// The location that it works on.
    pub location: Option<String>,
    /// Why it is begun.
    pub trigger: &'static str,
    /// Who wants it.
    pub by: String,
    /// Whether it changes nothing.
    pub dry_run: bool,
    /// The command.
    pub line: child::Line,
    /// The Idempotency-Key that came with it.
    pub key: Option<Key>,
}

impl Runs {
    /// Reads what was run before, and goes on watching what runs still.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(folder: PathBuf, program: Program) -> std::io::Result<Arc<Self>> {
        let mut all = BTreeMap::new();
        for item in std::fs::read_dir(&folder)? {
            let path = item?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
                && let Some(kept) = read(&path)
            {
                let run = Run::new(Files::new(&folder, &kept.record.id), kept);
                all.insert(run.id(), Arc::new(run));
            }
        }
        let unended: Vec<_> = all
            .values()
            .filter(|run| !run.has_ended())
            .cloned()
            .collect();
        let inner = Mutex::new(Inner {
            all,
            ..Inner::default()
        });
        let runs = Arc::new(Self {
            folder,
            program,
            inner,
        });
        for run in unended {
            let process = run.state().kept.process;
            match process {
                Some(process) => {
                    tokio::spawn(follow(Arc::clone(&runs), run, Watched::Other(process)));
                }
                None => runs.end(&run, None, Ending::default()),
            }
        }
        Ok(runs)
    }

    /// Begins a run; a key that came before with the same request gives its run again, and `false`.
    ///
    /// # Errors
    /// When the service is ending, the job is being run, the key came with another request, or it cannot be begun.
    pub fn start(self: &Arc<Self>, wanted: Wanted) -> Result<(Arc<Run>, bool), Problem> {
        if let Some(why) = wanted.line.mistake() {
            return Err(Problem::bad(format!("this cannot be asked for: {why}")));
        }
        let mut inner = self.inner();
        if let Some(key) = &wanted.key
            && let Some(run) = inner.of_key(key)
        {
            return match run.state().kept.key.as_ref() == Some(key) {
                true => Ok((Arc::clone(&run), false)),
                false => Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "this Idempotency-Key came before with another request; choose a new one",
                )),
            };
        }
        if inner.is_stopping {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the service is ending, and begins nothing any more",
            ));
        }
        if let Some(job) = &wanted.job
            && wanted.kind == "job"
            && inner.running_job(job).is_some()
        {
            return Err(Problem {
                code: Some(BUSY),
                ..Problem::conflict(format!("the job {job} is being run already"))
            });
        }
        if let Some(max) = inner.running_max
            && inner.running() as u64 >= max
        {
            return Err(Problem::conflict(format!(
                "as many runs are under way as there may be at a time ({max}); wait for one to end"
            )));
        }
        let started = Timestamp::now();
        let id = fresh_id(started)?;
        let files = Files::new(&self.folder, &id);
        let record = Record {
            id: id.clone(),
            kind: wanted.kind.to_owned(),
            job: wanted.job,
            location: wanted.location,
            trigger: wanted.trigger.to_owned(),
            by: wanted.by,
            dry_run: wanted.dry_run,
            started,
            ended: None,
            outcome: None,
            exit_code: None,
            error: None,
            summary: None,
        };
        let kept = Kept {
            record,
            process: None,
            key: wanted.key,
        };
        let run = Arc::new(Run::new(files, kept));
        // First the record, then the process: what is begun is known, whenever the service dies.
        let written = write(&run.files, &run.state().kept);
        let begun = written.and_then(|()| self.spawn(&run, &wanted.line));
        let child = begun.map_err(|error| {
            run.files.remove();
            Problem::internal(format!("cannot begin the run: {error}"))
        })?;
        let process = child.id().and_then(Process::find);
        run.state().kept.process = process;
        write_or_warn(&run.files, &run.state().kept);
        inner.all.insert(id, Arc::clone(&run));
        let removed = inner.surplus();
        drop(inner);
        removed.iter().for_each(|run| run.files.remove());
        let watched = Watched::Own(Box::new(child));
        tokio::spawn(follow(Arc::clone(self), Arc::clone(&run), watched));
        Ok((run, true))
    }

    fn spawn(&self, run: &Run, line: &child::Line) -> std::io::Result<Child> {
        let mut command = self.program.command(line);
        command
            .stdout(Stdio::from(data::create(&run.files.out)?))
            .stderr(Stdio::from(data::create(&run.files.err)?));
        let mut child = command.spawn()?;
        child::feed(&mut child, line);
        Ok(child)
    }

    /// Finds a run.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn find(&self, id: &str) -> Result<Arc<Run>, Problem> {
        let found = self.inner().all.get(id).cloned();
        found.ok_or_else(|| Problem::missing(format!("there is no run {id}")))
    }

    /// Finds the run of a job that is under way.
    pub fn running_job(&self, job: &str) -> Option<Arc<Run>> {
        self.inner().running_job(job)
    }

    /// Gives all runs, the newest first.
    pub fn newest_first(&self) -> Vec<Arc<Run>> {
        self.inner().all.values().rev().cloned().collect()
    }

    /// Counts those that are under way.
    pub fn running(&self) -> usize {
        self.inner().running()
    }

    /// Says how many may be under way at a time.
    pub fn limit(&self, running_max: Option<u64>) {
        self.inner().running_max = running_max;
    }

    /// Begins nothing any more.
    pub fn close(&self) {
        self.inner().is_stopping = true;
    }

    /// Gives how many runs of each kind came out how since the service was started.
    pub fn counts(&self) -> BTreeMap<(String, Outcome), u64> {
        self.inner().ended.clone()
    }

    /// Begins nothing any more, asks all runs to stop, and kills those that go on for longer than that.
    pub async fn stop(&self, patience: Duration) {
        let running: Vec<Arc<Run>> = {
            let mut inner = self.inner();
            inner.is_stopping = true;
            let running = inner.all.values().filter(|run| !run.has_ended());
            running.cloned().collect()
        };
        let each = |act: &dyn Fn(Process)| {
            for run in running.iter().filter(|run| !run.has_ended()) {
                let process = run.state().kept.process;
                process.into_iter().for_each(act);
            }
        };
        each(&Process::ask_to_stop);
        let begun = Instant::now();
        let mut is_killed = false;
        while running.iter().any(|run| !run.has_ended()) {
            if begun.elapsed() >= patience && !is_killed {
                is_killed = true;
                each(&Process::kill);
            }
            if begun.elapsed() >= patience + Duration::from_secs(10) {
                return;
            }
            tokio::time::sleep(TICK / 2).await;
        }
    }

    /// Writes down how a run came out, and only then tells.
    fn end(&self, run: &Run, summary: Option<Value>, mut ending: Ending) {
        ending.told = log::error(&run.files).unwrap_or_default();
        let mut kept = run.state().kept.clone();
        kept.record.end(&ending, summary, Timestamp::now());
        write_or_warn(&run.files, &kept);
        if let Err(error) = log::make_smaller(&run.files) {
            tracing::warn!("cannot make {} smaller: {error}", run.files.out.display());
        }
        let outcome = kept.record.outcome.unwrap_or(Outcome::Died);
        let ended = (kept.record.kind.clone(), outcome);
        *self.inner().ended.entry(ended).or_default() += 1;
        {
            let mut state = run.state();
            state.kept = kept;
            state.progress = None;
        }
        run.bump();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn of_key(&self, key: &Key) -> Option<Arc<Run>> {
        let is_of = |run: &&Arc<Run>| {
            let state = run.state();
            let kept = state.kept.key.as_ref();
            kept.is_some_and(|kept| kept.token == key.token && kept.key == key.key)
        };
        self.all.values().rev().find(is_of).cloned()
    }

    fn running(&self) -> usize {
        self.all.values().filter(|run| !run.has_ended()).count()
    }

    fn running_job(&self, job: &str) -> Option<Arc<Run>> {
        let is_of = |run: &&Arc<Run>| {
            let state = run.state();
            let record = &state.kept.record;
            let is_running = record.outcome.is_none() && record.kind == "job";
            is_running && record.job.as_deref() == Some(job)
        };
        self.all.values().find(is_of).cloned()
    }

    /// Takes out the oldest of those that have ended, where there are too many.
    fn surplus(&mut self) -> Vec<Arc<Run>> {
        let ended = self.all.iter().filter(|(_, run)| run.has_ended());
        let ended: Vec<String> = ended.map(|(id, _)| id.clone()).collect();
        let surplus = ended.len().saturating_sub(KEPT_MAX);
        let oldest = ended.iter().take(surplus);
        oldest.filter_map(|id| self.all.remove(id)).collect()
    }
}

impl Run {
    fn new(files: Files, kept: Kept) -> Self {
        let state = State {
            kept,
            progress: None,
        };
        Self {
            files,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        }
    }

    /// Gives its id.
    pub fn id(&self) -> String {
        self.state().kept.record.id.clone()
    }

    /// Gives what is known of it.
    pub fn record(&self) -> Record {
        self.state().kept.record.clone()
    }

    /// Gives what is known of it as JSON, with its progress.
    pub fn shown(&self) -> Value {
        let state = self.state();
        let shown = Shown {
            record: state.kept.record.clone(),
            progress: state.progress.clone(),
        };
        serde_json::to_value(shown).unwrap_or_default()
    }

    /// Tells whether it has come to its end.
    pub fn has_ended(&self) -> bool {
        self.state().kept.record.outcome.is_some()
    }

    /// Gives a number that changes whenever it wrote something, and once it has ended.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Asks it to stop at the next safe point.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cancel(&self) -> Result<(), Problem> {
        let state = self.state();
        match state.kept.process {
            Some(process) if state.kept.record.outcome.is_none() => {
                process.ask_to_stop();
                Ok(())
            }
            _ => Err(Problem::conflict("the run has ended already")),
        }
    }

    /// Waits for its end, and gives how it came out.
    pub async fn ended(&self) -> Record {
        let mut changes = self.changes();
        while !self.has_ended() {
            // Its own sender lives as long as it does.
            let _ = changes.changed().await;
        }
        self.record()
    }

    fn bump(&self) {
        self.changed
            .send_modify(|version| *version = version.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a run to its end.
async fn follow(runs: Arc<Runs>, run: Arc<Run>, mut watched: Watched) {
    let mut tail = Tail::new(&run.files.out);
    let mut summary = None;
    loop {
        let ended = tokio::select! {
            status = watched.ended() => Some(status),
            () = tokio::time::sleep(TICK) => None,
        };
        if look(&run, &mut tail, &mut summary) {
            run.bump();
        }
        let Some(status) = ended else {
            continue;
        };
        let ending = Ending {
            code: status.and_then(child::code_of),
            was_killed: status.is_some_and(|status| status.code().is_none()),
            told: None,
        };
        runs.end(&run, summary.as_deref().map(summarized), ending);
        return;
    }
}

/// Reads what a run wrote; tells whether there was anything.
fn look(run: &Run, tail: &mut Tail, summary: &mut Option<Vec<u8>>) -> bool {
    let mut is_any = false;
    let mut status = None;
    while let Ok(Some(lines)) = tail.lines() {
        is_any = true;
        for line in lines {
            match Line::of(line) {
                Line::Status(line) => status = Some(line),
                Line::Summary(line) => *summary = Some(line),
                Line::Other(_) => {}
            }
        }
    }
    if let Some(status) = status {
        run.state().progress = serde_json::from_slice(&status).ok();
    }
    is_any
}

/// Gives a summary as it is kept: of a very long one without its lists.
fn summarized(line: &[u8]) -> Value {
    let mut summary = log::message(line);
    if line.len() > SUMMARY_BYTES_MAX
        && let Some(fields) = summary.as_object_mut()
    {
        fields.retain(|_, value| !value.is_array() && !value.is_object());
    }
    summary
}

fn write(files: &Files, kept: &Kept) -> std::io::Result<()> {
    data::write(&files.record, &serde_json::to_vec(kept)?)
}

fn write_or_warn(files: &Files, kept: &Kept) {
    if let Err(error) = write(files, kept) {
        tracing::warn!("cannot write {}: {error}", files.record.display());
    }
}

/// Counts the runs in a folder whose processes live, whichever service began them.
pub fn running_in(folder: &Path) -> usize {
    let Ok(items) = std::fs::read_dir(folder) else {
        return 0;
    };
    let paths = items.flatten().map(|item| item.path());
    let records = paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    let is_running = |path: &PathBuf| {
        read(path).is_some_and(|kept| {
            let lives = kept.process.is_some_and(Process::is_alive);
            kept.record.outcome.is_none() && lives
        })
    };
    records.filter(is_running).count()
}

fn read(path: &Path) -> Option<Kept> {
    let text = data::read(path).ok()??;
    let kept: Result<Kept, _> = serde_json::from_slice(&text);
    kept.inspect_err(|error| tracing::warn!("{} tells nothing of a run: {error}", path.display()))
        .ok()
}

/// Makes an id that sorts by time.
fn fresh_id(now: Timestamp) -> Result<String, Problem> {
    let milliseconds = now.subsec_nanosecond() / 1_000_000;
    let random = random_hex::<4>()?;
    let time = now.strftime("%Y%m%dT%H%M%S");
    Ok(format!("{time}.{milliseconds:03}Z-{random}"))
}

#[cfg(test)]
mod tests;
