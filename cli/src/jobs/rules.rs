//! What a job means: its schedules and its retention, or what is wrong with them.

use std::time::Duration;

use jiff::tz::TimeZone;
use larder_engine::amend::clean_tags;
use larder_engine::retention::{Count, Policy};
use larder_engine::storage::notice;
use larder_jobs::schedule::{Rhythm, Schedule};

use super::{CheckSettings, JobSettings, Mistake, PruneSettings};
use crate::args::Arguments;
use crate::commands::backup;
use crate::keep::KeepArgs;
use crate::settings::{BackupSettings, ForgetSettings};
use crate::times;

/// The most days for which snapshots are kept.
const DAYS_MAX: i64 = 36_500;
/// The longest jitter.
const JITTER_SECONDS_MAX: u64 = 12 * 3600;

/// When and how a job is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// When it is backed up; none for a job that is run by hand alone.
    pub backup: Option<Schedule>,
    /// When space is freed.
    pub prune: Option<Schedule>,
    /// When the repository is checked.
    pub check: Option<Schedule>,
    /// How long each of these may take.
    pub time_limit: Option<Duration>,
    /// Which snapshots stay; none to keep all.
    pub keep: Option<ForgetSettings>,
}

/// The keys of a schedule, of a job or of what is done besides.
struct Times<'a> {
    /// The table in the job; none for the job itself.
    table: Option<&'static str>,
    every: Option<i64>,
    hours: &'a [i64],
    cron: Option<&'a str>,
    time_zone: Option<&'a str>,
}

type Found<T> = Result<T, Mistake>;

/// Decides when and how a job is run.
///
/// # Errors
/// With the first thing that makes no sense.
pub fn plan(job: &JobSettings, backup: &BackupSettings) -> Found<Plan> {
    if job.location.is_empty() {
        return wrong(
            &[],
            "the job has no location: where its repository is, by name, path or URL",
        );
    }
    if backup.sources.is_empty() && backup.commands.is_empty() {
        return wrong(
            &[],
            "the job backs nothing up: name `sources`, or `commands`",
        );
    }
    check_secrets(job)?;
    check_backup(backup)?;
    check_urls(job)?;
    job.mail
        .as_ref()
        .map_or(Ok(()), |mail| mail.server().map(drop))?;
    check_flags(job)?;
    let jitter_seconds = match &job.jitter {
        None => 0,
        Some(text) => match read(&["jitter"], times::seconds(text))? {
            seconds @ 0..=JITTER_SECONDS_MAX => u32::try_from(seconds).unwrap_or(0),
            _ => return wrong(&["jitter"], "a jitter is 12h at most"),
        },
    };
    let schedule = |times: Times<'_>| -> Found<Option<Schedule>> {
        let rhythm = times.rhythm(job.time_zone.as_deref())?;
        Ok(rhythm.map(|rhythm| Schedule {
            rhythm,
            catch_up: job.catch_up.unwrap_or(true),
            jitter_seconds,
        }))
    };
    let time_limit = match &job.time_limit {
        None => None,
        Some(text) => match read(&["time-limit"], times::days(text))? {
            0 => {
                return wrong(
                    &["time-limit"],
                    "with a time limit of 0 nothing would ever be done",
                );
            }
            seconds => Some(Duration::from_secs(seconds)),
        },
    };
    // A table that names no time is a mistake: its work would never be done.
    let besides = |table: &'static str, times: Option<Times<'_>>| match times.map(schedule) {
        None => Ok(None),
        Some(Ok(None)) => wrong(
            &[table],
            "this names no time, so it would never be done; write every = 7 and hours = [3]",
        ),
        Some(found) => found,
    };
    Ok(Plan {
        backup: schedule(Times {
            table: None,
            every: job.every,
            hours: &job.hours,
            cron: job.cron.as_deref(),
            time_zone: job.time_zone.as_deref(),
        })?,
        prune: besides("prune", job.prune.as_ref().map(Times::of_prune))?,
        check: besides("check", job.check.as_ref().map(Times::of_check))?,
        time_limit,
        keep: keep(job)?,
    })
}

impl<'a> Times<'a> {
    fn of_prune(prune: &'a PruneSettings) -> Self {
        Self {
            table: Some("prune"),
            every: prune.every,
            hours: &prune.hours,
            cron: prune.cron.as_deref(),
            time_zone: prune.time_zone.as_deref(),
        }
    }

    fn of_check(check: &'a CheckSettings) -> Self {
        Self {
            table: Some("check"),
            every: check.every,
            hours: &check.hours,
            cron: check.cron.as_deref(),
            time_zone: check.time_zone.as_deref(),
        }
    }

    /// Gives the rhythm; none if the keys name none.
    fn rhythm(&self, zone_of_job: Option<&str>) -> Found<Option<Rhythm>> {
        let keys = |key: &'static str| self.table.into_iter().chain([key]).collect::<Vec<_>>();
        let refused = |key, why: &str| wrong(&keys(key), why);
        let has_days = self.every.is_some() || !self.hours.is_empty();
        let rhythm = match (self.cron, has_days) {
            (Some(_), true) => {
                return refused(
                    "cron",
                    "cron stands in place of every and hours; leave one of both out",
                );
            }
            (None, false) if self.time_zone.is_some() => {
                return refused("time-zone", "a time zone goes with cron, and there is none");
            }
            (None, false) => return Ok(None),
            (None, true) if self.time_zone.is_some() => {
                return refused("time-zone", "hours are in UTC; a time zone goes with cron");
            }
            (None, true) => Rhythm::days(self.every.unwrap_or(1), self.hours),
            (Some(cron), false) => {
                let zone = match self.time_zone.or(zone_of_job) {
                    None => TimeZone::try_system().unwrap_or(TimeZone::UTC),
                    Some(name) => TimeZone::get(name).map_err(|_| Mistake {
                        keys: keys("time-zone"),
                        why: format!(
                            "there is no time zone '{name}'; use a name such as Europe/Berlin or UTC"
                        ),
                    })?,
                };
                Rhythm::cron(cron, zone)
            }
        };
        rhythm.map(Some).map_err(|error| Mistake {
            keys: keys(error.key),
            why: error.why,
        })
    }
}

/// Gives the rules by which snapshots stay.
fn keep(job: &JobSettings) -> Found<Option<ForgetSettings>> {
    let rules = match (job.keep_days, &job.forget) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return wrong(
                &["keep-days"],
                "keep-days stands in place of the rules of forget; leave one of both out",
            );
        }
        (Some(days @ 1..=DAYS_MAX), None) => ForgetSettings {
            keep_within: Some(format!("{days}d")),
            ..ForgetSettings::default()
        },
        (Some(days), None) => {
            let why = format!(
                "to keep snapshots for {days} days would keep none, or for ever; 1 to {DAYS_MAX} are possible"
            );
            return wrong(&["keep-days"], &why);
        }
        (None, Some(rules)) => rules.clone(),
    };
    let policy = KeepArgs::default().policy(&rules);
    let policy = read(&["forget"], policy)?;
    read(&["forget"], crate::keep::grouping(None, &rules))?;
    read(&["forget"], crate::keep::zone(None, &rules))?;
    if keeps_nothing(&policy) {
        return wrong(
            &["forget"],
            "no rule keeps a snapshot, so that every one would be forgotten; write keep-daily = 7, or keep-days in the job",
        );
    }
    Ok(Some(ForgetSettings {
        // All snapshots of a job are one group, whatever its sources were.
        group_by: rules.group_by.clone().or_else(|| Some(String::new())),
        ..rules
    }))
}

fn keeps_nothing(policy: &Policy) -> bool {
    let mut counted = policy.last.iter().chain(policy.counts.values());
    let mut spans = policy.within.iter().chain(policy.within_each.values());
    counted.all(|count| *count == Count::Some(0))
        && spans.all(|span| span.is_zero())
        && policy.tags.is_empty()
}

fn check_secrets(job: &JobSettings) -> Found<()> {
    let named = [
        ("password-file", job.password_file.is_some()),
        ("password-command", job.password_command.is_some()),
        ("key-file", job.key_file.is_some()),
    ];
    let mut named = named.into_iter().filter(|(_, named)| *named);
    match (named.next(), named.next()) {
        (Some(_), Some((second, _))) => wrong(
            &[second],
            "the job names more than one of password-file, password-command and key-file; leave one of them",
        ),
        _ => Ok(()),
    }
}

/// Looks at what is text in the file and is read later.
fn check_backup(backup: &BackupSettings) -> Found<()> {
    if let Some(text) = &backup.compression {
        read(&["compression"], backup::compression(text))?;
    }
    if let Some(text) = &backup.checkpoint_interval {
        read(&["checkpoint-interval"], backup::checkpoint(text))?;
    }
    if let Some(text) = &backup.exclude_larger_than {
        read(&["exclude-larger-than"], times::bytes(text))?;
    }
    if let Some(text) = &backup.hook_timeout {
        read(&["hook-timeout"], times::seconds(text))?;
    }
    read(&["tag"], clean_tags(&backup.tag).map_err(Into::into)).map(drop)
}

fn check_urls(job: &JobSettings) -> Found<()> {
    for (key, url) in [
        ("ping-start", &job.ping_start),
        ("ping-success", &job.ping_success),
        ("ping-failure", &job.ping_failure),
        ("webhook", &job.webhook),
    ] {
        let checked = url.as_deref().map_or(Ok(()), notice::check);
        read(
            &[key],
            checked.map_err(|why| anyhow::anyhow!("{key}: {why}")),
        )?;
    }
    Ok(())
}

/// Looks whether pruning and checking would understand what is said of them.
fn check_flags(job: &JobSettings) -> Found<()> {
    let prune = job.prune.as_ref().map(|prune| ("prune", prune.flags()));
    let check = job.check.as_ref().map(|check| ("check", check.flags()));
    for (name, flags) in prune.into_iter().chain(check) {
        let line = ["larder".to_owned(), name.to_owned()]
            .into_iter()
            .chain(flags);
        if let Err(error) = Arguments::read(line) {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            return wrong(&[name], first.trim_start_matches("error: "));
        }
    }
    let Some(check) = &job.check else {
        return Ok(());
    };
    let has_budget = [&check.max_duration, &check.max_download, &check.max_age];
    let has_budget = has_budget.into_iter().any(Option::is_some);
    match check.level.as_deref() {
        Some("quick" | "structure" | "drill") if has_budget => wrong(
            &["check", "level"],
            "max-duration, max-download and max-age are of the level data",
        ),
        level if check.sample.is_some() && level != Some("drill") => {
            wrong(&["check", "sample"], "a sample is of the level drill")
        }
        _ => Ok(()),
    }
}

fn read<T>(keys: &[&'static str], value: anyhow::Result<T>) -> Found<T> {
    value.map_err(|error| Mistake {
        keys: keys.to_vec(),
        why: format!("{error:#}").replace("larder.toml, [forget] ", "forget: "),
    })
}

fn wrong<T>(keys: &[&'static str], why: &str) -> Found<T> {
    Err(Mistake {
        keys: keys.to_vec(),
        why: why.to_owned(),
    })
}
