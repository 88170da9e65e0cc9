//! Runs: one job now, or all that are due.

use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use larder_jobs::history::{Beginning, Ending, History, HistoryError, Kind, Outcome, Trigger};
use larder_jobs::lock::{JobLock, LockError};
use larder_jobs::schedule::Next;
use serde::Serialize;

use super::notify::Notifier;
use super::{steps, usual};
use crate::context::Context;
use crate::exit::Exit;
use crate::jobs::{Job, Plan};
use crate::output;

/// What was run, and how it came out.
#[derive(Debug, Serialize)]
pub struct Step {
    /// The job.
    pub job: String,
    /// What was run.
    pub kind: Kind,
    /// Why.
    pub trigger: Trigger,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How it came out.
    pub outcome: Outcome,
    /// Its exit code.
    pub exit_code: u8,
    /// The snapshot that it made.
    pub snapshot: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

/// Something that is to be done, and why.
#[derive(Debug, Clone, Copy, Serialize)]
struct Turn {
    kind: Kind,
    trigger: Trigger,
    /// Since when it is due.
    due: Timestamp,
    /// Whether its time is over, and it is not made up for.
    missed: bool,
    #[serde(skip)]
    has_died: bool,
}

/// What a dry run tells.
#[derive(Serialize)]
struct Due {
    job: String,
    #[serde(flatten)]
    turn: Turn,
}

#[derive(Serialize)]
struct Summary<'a> {
    runs: &'a [Step],
}

#[derive(Serialize)]
struct DryRun<'a> {
    dry_run: bool,
    due: &'a [Due],
}

/// Runs one job now.
///
/// # Errors
/// When there is none, or it is being run already. What the run answers is in the exit code.
pub fn run(context: &Context, name: &str, no_hooks: bool) -> anyhow::Result<Exit> {
    if context.globals.repo.is_some() {
        bail!(
            "a job has its own location; leave -r out, or change it with `larder job edit {name} --location ...`"
        );
    }
    let runner = Runner::new(context, name, super::job(context, name)?, no_hooks)?;
    let folder = super::folder()?;
    let lock = JobLock::take(&folder, name)?;
    let now = Timestamp::now();
    // Without a history nothing is told of this run later on, and that is all.
    let history = opened(context, &folder, now).inspect_err(warn_of).ok();
    let history = history.as_ref();
    note(history, |history| history.settle(&lock));
    let manual = Turn {
        kind: Kind::Backup,
        trigger: Trigger::Manual,
        due: now,
        missed: false,
        has_died: false,
    };
    let mut steps = runner.turns(&lock, history, &[manual]);
    let due = history.map(|history| runner.due(history, Timestamp::now()));
    let due = due.and_then(|due| due.inspect_err(warn_of).ok());
    let mut due = due.unwrap_or_default();
    due.retain(|turn| turn.kind != Kind::Backup);
    steps.extend(runner.turns(&lock, history, &due));
    tell(context, &steps)?;
    Ok(exit_of(&steps))
}

/// Runs all that is due, what is due longest first.
///
/// # Errors
/// When the history, which says what is due, can be neither read nor begun anew, or one that is named is no job.
pub fn due(context: &Context, names: &[String], dry_run: bool) -> anyhow::Result<Exit> {
    for name in names {
        super::job(context, name)?;
    }
    let now = Timestamp::now();
    let folder = super::folder()?;
    let history = match dry_run {
        true => History::open(&folder)?,
        false => opened(context, &folder, now)?,
    };
    history.settle_all()?;
    let mut exit = Exit::Success;
    let mut runners = Vec::new();
    let mut all = Vec::new();
    let is_named = |name: &&String| names.is_empty() || names.contains(name);
    for name in context.settings.jobs.0.keys().filter(is_named) {
        let runner =
            super::job(context, name).and_then(|job| Runner::new(context, name, job, false));
        match runner {
            Ok(runner) => {
                let turns = runner.due(&history, now)?;
                if let Some(first) = turns.iter().map(|turn| turn.due).min() {
                    runners.push((first, runner));
                }
                let due = |turn| Due {
                    job: name.clone(),
                    turn,
                };
                all.extend(turns.into_iter().map(due));
            }
            Err(error) => {
                exit = Exit::Failure;
                crate::report(&crate::paragraph(&error), exit, context.json());
            }
        }
    }
    if dry_run {
        tell_due(context, &all)?;
        return Ok(exit);
    }
    runners.sort_by_key(|(first, _)| *first);
    let mut steps = Vec::new();
    for (_, runner) in &runners {
        match JobLock::take(&folder, runner.name) {
            Ok(lock) => {
                // Who had the lock before may have run it.
                let turns = runner.due(&history, Timestamp::now())?;
                steps.extend(runner.turns(&lock, Some(&history), &turns));
            }
            Err(LockError::Running { .. }) => {}
            Err(error) => {
                exit = Exit::Failure;
                crate::report(&crate::paragraph(&error.into()), exit, context.json());
            }
        }
    }
    if !steps.is_empty() || context.json() {
        tell(context, &steps)?;
    }
    Ok(match exit_of(&steps) {
        Exit::Success => exit,
        failed => failed,
    })
}

/// Opens the history for a run; after damage what was due within a day counts as not run.
fn opened(context: &Context, folder: &Path, now: Timestamp) -> Result<History, HistoryError> {
    let (history, damage) = History::open_or_begin(folder, now)?;
    if let Some(damage) = &damage {
        warn_of(damage);
        let since = now - SignedDuration::from_hours(24);
        for name in context.settings.jobs.0.keys() {
            history.knows(name, since)?;
        }
    }
    Ok(history)
}

/// Runs what a job does.
struct Runner<'a> {
    context: &'a Context,
    name: &'a str,
    job: &'a Job,
    plan: Plan,
    no_hooks: bool,
}

impl<'a> Runner<'a> {
    fn new(
        context: &'a Context,
        name: &'a str,
        job: &'a Job,
        no_hooks: bool,
    ) -> anyhow::Result<Self> {
        let plan = job.plan().map_err(|mistake| anyhow::anyhow!(mistake.why))?;
        Ok(Self {
            context,
            name,
            job,
            plan,
            no_hooks,
        })
    }

    /// Gives what is due of the job.
    fn due(&self, history: &History, now: Timestamp) -> Result<Vec<Turn>, HistoryError> {
        let mut turns = Vec::new();
        for (kind, schedule) in [
            (Kind::Backup, &self.plan.backup),
            (Kind::Prune, &self.plan.prune),
            (Kind::Check, &self.plan.check),
        ] {
            let Some(schedule) = schedule else {
                continue;
            };
            let past = history.past(self.name, kind, now)?;
            let (trigger, due, missed) = match schedule.next(self.name, &past, now) {
                Next::Wait(_) => continue,
                Next::Run(turn) => (Trigger::Schedule, turn.slot, false),
                Next::CatchUp(slot) => (Trigger::CatchUp, slot, false),
                Next::Missed(slot, _) => (Trigger::Schedule, slot, true),
            };
            turns.push(Turn {
                kind,
                trigger,
                due,
                missed,
                has_died: past.died,
            });
        }
        Ok(turns)
    }

    /// Does one after the other, and forgets snapshots once one is made.
    fn turns(&self, lock: &JobLock, history: Option<&History>, turns: &[Turn]) -> Vec<Step> {
        let mut steps = Vec::new();
        for turn in turns {
            if self.is_stopped() {
                break;
            }
            let notifier = self.notifier();
            if turn.missed {
                notifier.missed(turn.kind, turn.due, false);
                note(history, |history| {
                    history.missed(lock, turn.kind, turn.due, Timestamp::now())
                });
                continue;
            }
            if turn.trigger == Trigger::CatchUp {
                match turn.has_died {
                    true => notifier.died(turn.kind),
                    false => notifier.missed(turn.kind, turn.due, true),
                }
            }
            let step = self.step(lock, history, turn);
            let is_made = is_made(&step);
            steps.push(step);
            let forgets = turn.kind == Kind::Backup && self.plan.keep.is_some();
            if is_made && forgets && !self.is_stopped() {
                let forget = Turn {
                    kind: Kind::Forget,
                    ..*turn
                };
                steps.push(self.step(lock, history, &forget));
            }
        }
        steps
    }

    fn step(&self, lock: &JobLock, history: Option<&History>, turn: &Turn) -> Step {
        let kind = turn.kind;
        if self.context.talks() {
            let _ = output::line(&format!("{}: {}", self.name, kind.word()));
        }
        let started = Timestamp::now();
        let in_turn = turn.trigger == Trigger::Schedule;
        let beginning = Beginning {
            kind,
            trigger: turn.trigger,
            slot: in_turn.then_some(turn.due),
            started,
        };
        let before = note(history, |history| history.newest(self.name, kind, None));
        let earlier = note(history, |history| {
            history.runs(Some(self.name), usual::RUNS)
        });
        let id = note(history, |history| history.begin(lock, &beginning));
        let notifier = self.notifier();
        if kind == Kind::Backup {
            notifier.begun();
        }
        let (result, has_expired) = self.carried_out(kind);
        let step = self.judged(turn, started, &result, has_expired);
        let figures = result.map(|done| done.figures).unwrap_or_default();
        if let Some(id) = id {
            let ending = Ending {
                ended: step.ended,
                outcome: step.outcome,
                exit_code: step.exit_code,
                snapshot: step.snapshot.clone(),
                figures,
                error: step.error.clone(),
            };
            note(history, |history| history.end(id, &ending));
        }
        notifier.ended(&step, before.flatten().and_then(|run| run.outcome));
        if kind == Kind::Backup && is_made(&step) {
            let earlier = earlier.unwrap_or_default();
            let unusual = usual::unusual(&figures, step.started, step.ended, &earlier);
            if let Some(words) = unusual {
                notifier.unusual(&step, &words);
            }
        }
        step
    }

    fn carried_out(&self, kind: Kind) -> (anyhow::Result<steps::Done>, bool) {
        match self.context.interrupt.limited(self.plan.time_limit) {
            Ok((interrupt, limit)) => {
                let context =
                    steps::context(self.context, self.name, self.job, &self.plan, interrupt);
                let result = steps::carry_out(&context, self.name, self.job, kind, self.no_hooks);
                (result, limit.has_expired())
            }
            Err(error) => (Err(error), false),
        }
    }

    /// Says how a run came out, to the person at the terminal as well.
    fn judged(
        &self,
        turn: &Turn,
        started: Timestamp,
        result: &anyhow::Result<steps::Done>,
        has_expired: bool,
    ) -> Step {
        let (exit, mut error) = match result {
            Ok(done) => (done.exit, None),
            Err(error) => (Exit::of(error), Some(crate::paragraph(error))),
        };
        let outcome = match exit {
            Exit::Success => Outcome::Success,
            Exit::SourceUnreadable if result.is_ok() => Outcome::Incomplete,
            Exit::Interrupted if has_expired => {
                error = Some(steps::out_of_time(self.plan.time_limit));
                Outcome::TimeLimit
            }
            Exit::Interrupted => Outcome::Interrupted,
            _ => Outcome::Failure,
        };
        if let Some(error) = &error {
            let told = format!("{}, {}: {error}", self.name, turn.kind.word());
            crate::report(&told, exit, self.context.json());
        } else if outcome == Outcome::Failure {
            error = Some(match exit {
                Exit::DataLost => "damage was found that costs data, or may".to_owned(),
                Exit::DamageHarmless => "damage was found that costs no data".to_owned(),
                _ => "a hook behind it failed; what it printed is in the log of the run".to_owned(),
            });
        }
        Step {
            job: self.name.to_owned(),
            kind: turn.kind,
            trigger: turn.trigger,
            started,
            ended: Timestamp::now(),
            outcome,
            exit_code: exit.code(),
            snapshot: result.as_ref().ok().and_then(|done| done.snapshot.clone()),
            error,
            exit,
        }
    }

    fn notifier(&self) -> Notifier<'_> {
        Notifier {
            name: self.name,
            job: self.job,
        }
    }

    fn is_stopped(&self) -> bool {
        self.context.interrupt.flag().load(Ordering::Relaxed)
    }
}

/// Tells whether a run did what it was to do.
fn is_made(step: &Step) -> bool {
    matches!(step.outcome, Outcome::Success | Outcome::Incomplete)
}

/// Writes into the history, or reads it; what fails is told and keeps nothing from being done.
fn note<T>(
    history: Option<&History>,
    work: impl FnOnce(&History) -> Result<T, HistoryError>,
) -> Option<T> {
    work(history?).inspect_err(warn_of).ok()
}

fn warn_of(error: &HistoryError) {
    eprintln!("larder: warning: {error}");
}

fn tell(context: &Context, steps: &[Step]) -> anyhow::Result<()> {
    if context.json() {
        return output::summary(&Summary { runs: steps });
    }
    if context.talks() {
        for step in steps {
            let kind = step.kind.word();
            output::line(&format!(
                "{}: {kind} ended with {}",
                step.job,
                step.outcome.word()
            ))?;
        }
    }
    Ok(())
}

fn tell_due(context: &Context, due: &[Due]) -> anyhow::Result<()> {
    if context.json() {
        return output::summary(&DryRun { dry_run: true, due });
    }
    let zone = jiff::tz::TimeZone::system();
    for Due { job, turn } in due {
        let time = crate::render::time(turn.due, &zone);
        let what = match (turn.missed, turn.trigger) {
            (true, _) => "was missed, and is not made up for",
            (false, Trigger::CatchUp) => "was missed, and would be made up for",
            (false, _) => "would be run",
        };
        output::line(&format!("{job}: {}, due {time}, {what}", turn.kind.word()))?;
    }
    if due.is_empty() {
        output::line("nothing is due")?;
    }
    Ok(())
}

/// Gives the code of the first that did not come out well.
fn exit_of(steps: &[Step]) -> Exit {
    let failed = steps
        .iter()
        .map(|step| step.exit)
        .find(|exit| *exit != Exit::Success);
    failed.unwrap_or(Exit::Success)
}
