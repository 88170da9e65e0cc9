//! What happens next: a pure function of a schedule, of what was run, and of now.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::cron::Cron;

/// Seconds by which a run may come too late and was still not missed.
pub const GRACE_SECONDS: i64 = 3600;
/// Seconds by which the clock may be behind what was run and is still believed: what was run then counts.
const SET_BACK_SECONDS: i64 = 86_400;
/// The most days between two runs.
const DAYS_MAX: i64 = 366;

/// When something is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Which times there are.
    pub rhythm: Rhythm,
    /// Whether one run makes up for all that were missed.
    pub catch_up: bool,
    /// Seconds by which runs come later at most; how many exactly follows from the job's name.
    pub jitter_seconds: u32,
}

/// Which times there are.
#[derive(Debug, Clone, PartialEq)]
pub enum Rhythm {
    /// Hours, in UTC, of every so many days, which are counted from the last run.
    Days {
        /// Days from one to the next.
        every: u16,
        /// Hours of the day.
        hours: BTreeSet<i8>,
    },
    /// A cron expression.
    Cron {
        /// What it names.
        cron: Cron,
        /// The zone of its clock.
        zone: TimeZone,
    },
}

/// What was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// When the newest run that counts was due, or was begun if it came out of turn.
    pub last_run: Option<Timestamp>,
    /// Nothing that was due until then was missed: the job was not known, or it was noted already.
    pub known_since: Timestamp,
    /// Whether a run that was due died, and none has made up for it.
    pub died: bool,
}

/// A time of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The time that the schedule names.
    pub slot: Timestamp,
    /// The same with jitter.
    pub at: Timestamp,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until then.
    Wait(Turn),
    /// A run, in its turn.
    Run(Turn),
    /// One run, for those that were missed since this one.
    CatchUp(Timestamp),
    /// This one was missed, and is not made up for; the next comes in its turn.
    Missed(Timestamp, Turn),
}

/// A schedule that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ScheduleError {
    /// The key that is wrong.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Rhythm {
    /// Makes hours of every so many days.
    ///
    /// # Errors
    /// For what would never be, or is no hour of a day.
    pub fn days(every: i64, hours: &[i64]) -> Result<Self, ScheduleError> {
        let refused = |key, why| Err(ScheduleError { key, why });
        if !(1..=DAYS_MAX).contains(&every) {
            let why = format!("{every} is no number of days between two runs: 1 to {DAYS_MAX} are");
            return refused("every", why);
        }
        if hours.is_empty() {
            let why = "no hour of the day is named, so this would never run; write hours = [1]";
            return refused("hours", why.to_owned());
        }
        let mut set = BTreeSet::new();
        for hour in hours {
            let small = i8::try_from(*hour)
                .ok()
                .filter(|hour| (0..24).contains(hour));
            let Some(small) = small else {
                let why = format!("{hour} is no hour of a day: 0 to 23 are, in UTC");
                return refused("hours", why);
            };
            if !set.insert(small) {
                return refused("hours", format!("the hour {hour} is named twice"));
            }
        }
        Ok(Self::Days {
            every: u16::try_from(every).unwrap_or(1),
            hours: set,
        })
    }

    /// Makes the times of a cron expression.
    ///
    /// # Errors
    /// For what is none, or would never be.
    pub fn cron(text: &str, zone: TimeZone) -> Result<Self, ScheduleError> {
        let cron = Cron::parse(text).map_err(|why| ScheduleError { key: "cron", why })?;
        Ok(Self::Cron { cron, zone })
    }

    /// Gives the first time after another; days are counted from that of the last run.
    fn after(&self, time: Timestamp, last_run: Option<Timestamp>) -> Option<Timestamp> {
        match self {
            Self::Cron { cron, zone } => cron.after(time, zone),
            Self::Days { every, hours } => {
                let day = |time: Timestamp| TimeZone::UTC.to_datetime(time).date();
                // A job that was never run begins on any day.
                let step = last_run.map_or(1, |_| i64::from(*every));
                let origin = last_run.map_or(day(time), day);
                let first = turn_from(origin, step, day(time))?;
                let second = first.checked_add(step.days()).ok()?;
                let days = [first, second].into_iter();
                let mut slots = days.flat_map(|day| hours.iter().map(move |hour| (day, *hour)));
                slots.find_map(|(day, hour)| {
                    let slot = day
                        .at(hour, 0, 0, 0)
                        .to_zoned(TimeZone::UTC)
                        .ok()?
                        .timestamp();
                    (slot > time).then_some(slot)
                })
            }
        }
    }
}

impl Schedule {
    /// Decides what happens next with a job of this name.
    #[must_use]
    pub fn next(&self, name: &str, past: &Past, now: Timestamp) -> Next {
        let jitter = self.jitter(name);
        // What the schedule names up to then has had its jitter.
        let reached = later(now, -jitter);
        let last_run = past.last_run.filter(|last| is_believed(*last, now));
        let known_since = match is_believed(past.known_since, now) {
            true => past.known_since,
            // The clock was wrong when the job came to be known.
            false => later(now, -SET_BACK_SECONDS),
        };
        let since = last_run.map_or(known_since, |last| last.max(known_since));
        let turn = |after| {
            let slot = self.rhythm.after(after, last_run);
            let slot = slot.unwrap_or(Timestamp::MAX);
            Turn {
                slot,
                at: later(slot, jitter),
            }
        };
        let first = turn(since);
        if first.slot > reached {
            return Next::Wait(first);
        }
        if past.died && self.catch_up {
            return Next::CatchUp(first.slot);
        }
        let mut newest = None;
        let mut one = turn(since.max(later(reached, -GRACE_SECONDS)));
        while one.slot <= reached {
            newest = Some(one);
            one = turn(one.slot);
        }
        match newest {
            Some(turn) => Next::Run(turn),
            None if self.catch_up => Next::CatchUp(first.slot),
            None => Next::Missed(first.slot, turn(reached)),
        }
    }

    /// Gives the next times at which a job is run, if none comes too late.
    #[must_use]
    pub fn upcoming(
        &self,
        name: &str,
        past: &Past,
        now: Timestamp,
        count: usize,
    ) -> Vec<Timestamp> {
        let mut times = Vec::new();
        let (mut past, mut now) = (*past, now);
        while times.len() < count {
            let (slot, at) = match self.next(name, &past, now) {
                Next::Wait(turn) | Next::Missed(_, turn) => (turn.slot, turn.at),
                Next::Run(turn) => (turn.slot, now),
                Next::CatchUp(_) => (now, now),
            };
            if slot == Timestamp::MAX {
                break;
            }
            times.push(at);
            past = Past {
                last_run: Some(slot),
                died: false,
                ..past
            };
            now = at;
        }
        times
    }

    /// Gives the seconds by which a job of this name comes later: always the same.
    #[must_use]
    pub fn jitter(&self, name: &str) -> i64 {
        // FNV-1a: spread well enough, and the same in every version and on every machine.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        // Its low bits follow from the last letter alone.
        let spread = (hash >> 32) % (u64::from(self.jitter_seconds) + 1);
        i64::try_from(spread).unwrap_or(0)
    }
}

/// Finds the first day from `day` on that is a number of steps behind the origin.
fn turn_from(origin: Date, step: i64, day: Date) -> Option<Date> {
    let passed = origin.duration_until(day).as_secs().div_euclid(86_400);
    let missing = match passed {
        // What was run last lies ahead.
        ..0 => return Some(origin),
        passed => (step - passed % step) % step,
    };
    day.checked_add(missing.days()).ok()
}

/// Tells whether a time can have been before now: a clock that was set back a little was right then.
fn is_believed(time: Timestamp, now: Timestamp) -> bool {
    time <= later(now, SET_BACK_SECONDS)
}

/// Adds seconds to a time, at most up to the first or last one that there is.
fn later(time: Timestamp, seconds: i64) -> Timestamp {
    let bound = if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    time.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(bound)
}

#[cfg(test)]
mod tests;
