//! What is shown of jobs: list, show, history.

use std::collections::BTreeMap;
use std::io::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use larder_engine::storage::location::place;
use larder_engine::storage::secret::MASK;
use larder_jobs::history::{History, Kind, Outcome, Run};
use larder_jobs::schedule::Past;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::commands::status;
use crate::context::Context;
use crate::jobs::Job;
use crate::output::{self, Output};
use crate::render::{self, Side, Table};

/// How many times to come are shown of a job.
const UPCOMING: usize = 5;

/// A job as it stands.
#[derive(Serialize, JsonSchema)]
struct Row<'a> {
    name: &'a str,
    /// Masked where it is not understood and may have a password in it.
    location: &'a str,
    /// When it is backed up next; none if it is run by hand alone.
    next: Option<Timestamp>,
    running: bool,
    last: Option<Run>,
    last_success: Option<Timestamp>,
    last_success_age_seconds: Option<i64>,
    /// What is wrong with it: then it cannot be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    mistake: Option<&'a str>,
}

/// A job with all that it says.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ShownJob")]
pub struct Shown<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    /// The next times of each kind of run.
    upcoming: BTreeMap<&'static str, Vec<Timestamp>>,
    settings: BTreeMap<String, Value>,
}

/// A job in a list for a program.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Job")]
pub struct Listed<'a> {
    #[serde(flatten)]
    row: &'a Row<'a>,
    settings: BTreeMap<String, Value>,
}

/// Lists the jobs.
///
/// # Errors
/// When standard output cannot be written.
pub fn list(context: &Context) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let history = history_or_warning();
    let jobs = &context.settings.jobs.0;
    let rows = jobs
        .iter()
        .map(|(name, job)| row(history.as_ref(), name, job, now));
    let rows: Vec<Row<'_>> = rows.collect();
    if context.json() {
        let listed = rows.iter().zip(jobs.values());
        let listed = listed.map(|(row, job)| Listed {
            row,
            settings: settings(job),
        });
        return output::json(&listed.collect::<Vec<_>>());
    }
    let zone = TimeZone::system();
    let table = Table {
        columns: &[
            ("Name", Side::Left),
            ("Location", Side::Left),
            ("Next", Side::Left),
            ("Next (UTC)", Side::Left),
            ("Last run", Side::Left),
            ("Outcome", Side::Left),
            ("Last success", Side::Right),
        ],
        rows: rows.iter().map(|row| cells(row, &zone)).collect(),
        footer: render::counted(rows.len() as u64, "job", "jobs"),
    };
    let mut out = Output::new();
    table.write(&mut out)?;
    Ok(out.flush()?)
}

/// Shows one job.
///
/// # Errors
/// When there is none.
pub fn show(context: &Context, name: &str) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let Some((name, job)) = context.settings.jobs.0.get_key_value(name) else {
        return super::job(context, name).map(drop);
    };
    let history = history_or_warning();
    let shown = Shown {
        row: row(history.as_ref(), name, job, now),
        upcoming: upcoming(history.as_ref(), name, job, now),
        settings: settings(job),
    };
    if context.json() {
        return output::json(&shown);
    }
    let zone = TimeZone::system();
    let mut lines = Vec::new();
    for (key, value) in &shown.settings {
        match value {
            Value::Object(inner) => {
                lines.extend(
                    inner
                        .iter()
                        .map(|(inner, value)| (format!("{key}.{inner}"), text(value))),
                );
            }
            value => lines.push((key.clone(), text(value))),
        }
    }
    if let Some(run) = &shown.row.last {
        let outcome = outcome(run);
        lines.push((
            "last run".to_owned(),
            format!("{} {outcome}", render::time(run.started, &zone)),
        ));
        lines.extend(run.error.clone().map(|error| ("error".to_owned(), error)));
    }
    lines.extend(
        shown
            .row
            .mistake
            .map(|why| ("mistake".to_owned(), why.to_owned())),
    );
    for (kind, times) in &shown.upcoming {
        for time in times {
            let both = format!(
                "{}   {} UTC",
                render::time(*time, &zone),
                render::time(*time, &TimeZone::UTC)
            );
            lines.push((format!("next {kind}"), both));
        }
    }
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, value) in lines {
        let value = render::printable(value.as_bytes());
        output::line(&format!("{key:<width$}  {value}"))?;
    }
    Ok(())
}

/// Tells how runs came out.
///
/// # Errors
/// When the history cannot be read.
pub fn history(context: &Context, name: Option<&str>, limit: u32) -> anyhow::Result<()> {
    let runs = super::history()?.runs(name, limit)?;
    if let Some(name) = name.filter(|_| runs.is_empty()) {
        // A job that was removed has its history still.
        if !context.settings.jobs.0.contains_key(name) {
            super::job(context, name)?;
        }
    }
    if context.json() {
        return output::json(&runs);
    }
    let zone = TimeZone::system();
    let row = |run: &Run| {
        let took = run
            .ended
            .map(|ended| ended.duration_since(run.started).as_secs_f64());
        let size = |bytes: Option<u64>| bytes.map_or_else(String::new, render::size);
        let cells = [
            run.id.to_string(),
            run.job.clone(),
            run.kind.word().to_owned(),
            run.trigger.word().to_owned(),
            render::time(run.started, &zone),
            took.map_or_else(String::new, render::duration),
            outcome(run).to_owned(),
            run.snapshot
                .as_deref()
                .and_then(|id| id.get(..8))
                .unwrap_or_default()
                .to_owned(),
            size(run.figures.bytes),
            size(run.figures.bytes_stored),
            run.error
                .as_deref()
                .and_then(|error| error.lines().next())
                .unwrap_or_default()
                .to_owned(),
        ];
        cells
            .map(|cell| vec![render::printable(cell.as_bytes())])
            .to_vec()
    };
    let table = Table {
        columns: &[
            ("Run", Side::Right),
            ("Job", Side::Left),
            ("Kind", Side::Left),
            ("Why", Side::Left),
            ("Began", Side::Left),
            ("Took", Side::Right),
            ("Outcome", Side::Left),
            ("Snapshot", Side::Left),
            ("Size", Side::Right),
            ("Stored", Side::Right),
            ("", Side::Left),
        ],
        rows: runs.iter().map(row).collect(),
        footer: render::counted(runs.len() as u64, "run", "runs"),
    };
    let mut out = Output::new();
    table.write(&mut out)?;
    Ok(out.flush()?)
}

/// Opens the history; without it there is still much to show.
fn history_or_warning() -> Option<History> {
    super::history()
        .inspect_err(|error| eprintln!("larder: warning: {error:#}"))
        .ok()
}

fn row<'a>(history: Option<&History>, name: &'a str, job: &'a Job, now: Timestamp) -> Row<'a> {
    let newest =
        |outcome| history.and_then(|history| history.newest(name, Kind::Backup, outcome).ok()?);
    let last: Option<Run> = newest(None);
    let good = [Outcome::Success, Outcome::Incomplete].map(|outcome| newest(Some(outcome)));
    let good = good
        .into_iter()
        .flatten()
        .map(|run| run.ended.unwrap_or(run.started))
        .max();
    let location = job.settings.location.as_str();
    let is_shown = place::parse(location).is_ok() || !location.contains('@');
    let next = upcoming(history, name, job, now).remove(Kind::Backup.word());
    Row {
        name,
        location: if is_shown { location } else { MASK },
        next: next.and_then(|times| times.first().copied()),
        running: last.as_ref().is_some_and(|run| run.outcome.is_none()),
        last,
        last_success: good,
        last_success_age_seconds: good.map(|at| now.duration_since(at).as_secs().max(0)),
        mistake: job.mistake.as_deref(),
    }
}

fn cells(row: &Row<'_>, zone: &TimeZone) -> Vec<Vec<String>> {
    let time = |time: Option<Timestamp>, zone| {
        time.map_or_else(|| "-".to_owned(), |time| render::time(time, zone))
    };
    let age = row
        .last_success_age_seconds
        .and_then(|age| u64::try_from(age).ok());
    let cells = [
        row.name.to_owned(),
        row.location.to_owned(),
        time(row.next, zone),
        time(row.next, &TimeZone::UTC),
        time(row.last.as_ref().map(|run| run.started), zone),
        match (&row.mistake, &row.last) {
            (Some(_), _) => "has a mistake".to_owned(),
            (None, Some(run)) => outcome(run).to_owned(),
            (None, None) => "-".to_owned(),
        },
        age.map_or_else(
            || "never".to_owned(),
            |age| format!("{} ago", status::age(age)),
        ),
    ];
    cells
        .map(|cell| vec![render::printable(cell.as_bytes())])
        .to_vec()
}

fn outcome(run: &Run) -> &'static str {
    run.outcome.map_or("running", Outcome::word)
}

/// Gives the next times of each kind of run that has a schedule.
pub fn upcoming(
    history: Option<&History>,
    name: &str,
    job: &Job,
    now: Timestamp,
) -> BTreeMap<&'static str, Vec<Timestamp>> {
    let Ok(plan) = job.plan() else {
        return BTreeMap::new();
    };
    let kinds = [
        (Kind::Backup, plan.backup),
        (Kind::Prune, plan.prune),
        (Kind::Check, plan.check),
    ];
    let times = kinds.into_iter().filter_map(|(kind, schedule)| {
        let past = history.and_then(|history| history.past(name, kind, now).ok());
        let past = past.unwrap_or(Past {
            last_run: None,
            known_since: now,
            died: false,
        });
        let times = schedule?.upcoming(name, &past, now, UPCOMING);
        Some((kind.word(), times))
    });
    times.collect()
}

/// Gives what the job says, and nothing that it leaves unsaid; of URLs that are called the host alone.
fn settings(job: &Job) -> BTreeMap<String, Value> {
    let own = serde_json::to_value(&job.settings).unwrap_or_default();
    let backup = serde_json::to_value(&job.backup).unwrap_or_default();
    let tables = [own, backup].into_iter().filter_map(|value| match value {
        Value::Object(table) => Some(table),
        _ => None,
    });
    let mut all: BTreeMap<String, Value> = tables.flatten().collect();
    for (key, value) in &mut all {
        let is_called = key.starts_with("ping-") || key == "webhook";
        if is_called && let Some(url) = value.as_str() {
            *value = host_alone(url).into();
        }
        if let Value::Object(inner) = value {
            inner.retain(|_, value| is_said(value));
        }
    }
    let location = all
        .get("location")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if place::parse(location).is_err() && location.contains('@') {
        all.insert("location".to_owned(), MASK.into());
    }
    all.retain(|_, value| is_said(value));
    all
}

fn is_said(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

/// Gives a URL without its path, which is often a secret.
fn host_alone(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{MASK}")
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(inner) => {
            let inner = inner
                .iter()
                .map(|(key, value)| format!("{key}: {}", text(value)));
            inner.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn what_a_job_says_is_shown_without_secrets() {
        let text = "[jobs.a]\nlocation = 'ftp://me:hunter2@h'\nsources = ['/x', '/y']\nhours = [1]\n\
                    ping-start = 'https://hc.example/secret'\n[jobs.a.prune]\nevery = 7\nhours = [3]\n";
        let settings = Settings::parse(text, Path::new("larder.toml")).unwrap();
        let job = settings.jobs.0.get("a").unwrap();
        let said = super::settings(job);
        let keys: Vec<&str> = said.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["hours", "location", "ping-start", "prune", "sources"]
        );
        assert_eq!(
            said.get("ping-start").unwrap(),
            &format!("https://hc.example/{MASK}")
        );
        let shown = format!("{said:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("secret"),
            "{shown}"
        );
        assert_eq!(super::text(said.get("sources").unwrap()), "/x, /y");
        assert_eq!(
            super::text(said.get("prune").unwrap()),
            "every: 7, hours: 3"
        );
    }
}
