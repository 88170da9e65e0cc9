//! Calendar buckets: hours, days, ISO weeks, months, quarters and years of a time zone.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Candidate;

/// A part of the calendar, within which one snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// From the full hour to the next; an hour that a clock shows twice is two.
    Hour,
    /// From midnight to midnight, however long that is.
    Day,
    /// From Monday to Sunday (ISO 8601).
    Week,
    /// A calendar month.
    Month,
    /// From January, April, July or October, three months.
    Quarter,
    /// A calendar year.
    Year,
}

impl Period {
    /// All of them, shortest first.
    pub const ALL: [Self; 6] = [
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
    ];

    /// Numbers the bucket that a time falls into.
    fn bucket(self, time: Timestamp, zone: &TimeZone) -> [i32; 4] {
        let local = time.to_zoned(zone.clone());
        let (year, month) = (i32::from(local.year()), i32::from(local.month()));
        let day = i32::from(local.day());
        match self {
            // The offset tells the two hours apart that a clock shows when it is put back.
            Self::Hour => {
                let hour = i32::from(local.hour());
                [year, month * 100 + day, hour, local.offset().seconds()]
            }
            Self::Day => [year, month, day, 0],
            Self::Week => {
                let week = local.date().iso_week_date();
                [week.year().into(), week.week().into(), 0, 0]
            }
            Self::Month => [year, month, 0, 0],
            Self::Quarter => [year, (month - 1) / 3, 0, 0],
            Self::Year => [year, 0, 0, 0],
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Quarter => "quarterly",
            Self::Year => "yearly",
        })
    }
}

/// Chooses the newest of each bucket, at most `most` of them, from a list with the newest first; the
/// oldest of the list takes a place that is left (then the flag is set).
pub(super) fn choose<'a>(
    list: &[&'a Candidate],
    period: Period,
    most: usize,
    zone: &TimeZone,
) -> Vec<(&'a Candidate, bool)> {
    let mut seen = BTreeSet::new();
    let mut chosen = Vec::new();
    for (at, one) in list.iter().enumerate() {
        if chosen.len() == most {
            break;
        }
        let is_newest = seen.insert(period.bucket(one.time, zone));
        if is_newest || at + 1 == list.len() {
            chosen.push((*one, !is_newest));
        }
    }
    chosen
}
