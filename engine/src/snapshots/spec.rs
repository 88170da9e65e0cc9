//! How a person names a snapshot: `ID`, `latest`, `latest~N`, `@[TIME]`, each with `:PATH`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::{Span, Timestamp, ToSpan, Zoned};

use crate::error::{EngineError, Result};

/// Hex digits of a snapshot's id.
const ID_DIGITS: usize = 32;

/// A snapshot as a person names it, and the path below it if one was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Which snapshot.
    pub which: Which,
    /// The path after the colon, as raw bytes.
    pub path: Option<Vec<u8>>,
}

/// The ways to name a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// `latest`, or `latest~N`: the Nth before it.
    Latest(usize),
    /// `@[TIME]`: the newest that is not later.
    At(Timestamp),
    /// An id, or a prefix of one: up to 32 lower-case hex digits.
    Prefix(String),
}

impl Spec {
    /// Parses `ID`, `latest`, `latest~N` or `@[TIME]`, each perhaps followed by `:PATH`.
    ///
    /// What TIME may be, [`parse_time`] says.
    ///
    /// # Errors
    /// `Request`, with what is wrong and an example.
    pub fn parse(text: &OsStr, now: &Zoned) -> Result<Self> {
        let bytes = text.as_bytes();
        let wrong = |why: &str| {
            EngineError::Request(format!(
                "'{}' names no snapshot: {why}; use an id such as 5fd1a2c0, latest, latest~2 or \
                 '@[2026-11-01 03:00]', each perhaps with :PATH",
                text.display()
            ))
        };
        let (head, path) = if bytes.starts_with(b"@") {
            let end = end_of_time(bytes).ok_or_else(|| wrong("a time stands in @[ and ]"))?;
            bytes.split_at_checked(end).unwrap_or((bytes, b""))
        } else {
            let end = bytes.iter().position(|byte| *byte == b':');
            bytes
                .split_at_checked(end.unwrap_or(bytes.len()))
                .unwrap_or((bytes, b""))
        };
        let path = match path.strip_prefix(b":") {
            Some(b"") => return Err(wrong("the path after the colon is empty")),
            Some(path) => Some(path.to_vec()),
            None => None,
        };
        let head = std::str::from_utf8(head).map_err(|_| wrong("it is not text"))?;
        let which = if let Some(time) = head.strip_prefix("@[") {
            Which::At(parse_time(time.strip_suffix(']').unwrap_or(time), now)?)
        } else if head == "latest" {
            Which::Latest(0)
        } else if let Some(back) = head.strip_prefix("latest~") {
            let digits = back.bytes().all(|byte| byte.is_ascii_digit());
            let back = back.parse().ok().filter(|_| digits);
            Which::Latest(back.ok_or_else(|| wrong("after latest~ a number stands"))?)
        } else if head.is_empty() {
            return Err(wrong("it is empty"));
        } else if !head.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("an id has only the digits 0-9 and a-f"));
        } else if head.len() > ID_DIGITS {
            return Err(wrong("an id has at most 32 digits"));
        } else {
            Which::Prefix(head.to_ascii_lowercase())
        };
        Ok(Self { which, path })
    }
}

/// Finds where `@[TIME]` ends: behind the first `]` with nothing or a colon after it, since a
/// zone in a time has brackets of its own.
fn end_of_time(bytes: &[u8]) -> Option<usize> {
    bytes.strip_prefix(b"@[")?;
    let mut ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b']')
        .map(|(at, _)| at + 1);
    ends.find(|end| matches!(bytes.get(*end), None | Some(b':')))
}

/// Parses a point in time as a person gives it, to find what is not later.
///
/// - `2026-11-01`, `today`, `yesterday`, `last tuesday`: the end of that day, so that whatever was
///   made on the day is found;
/// - `2026-11-01 03:00` (or with seconds, or `T` between): that moment in the zone of `now`;
/// - RFC 3339 with an offset or `Z`, or with a zone in brackets: that moment;
/// - `2 days ago`, `1 week ago`, `3h ago`: so long before `now`, days and longer by the
///   calendar of its zone;
/// - `now`.
///
/// # Errors
/// `Request`, with an example.
pub fn parse_time(text: &str, now: &Zoned) -> Result<Timestamp> {
    let text = text.trim();
    let time = match text.to_ascii_lowercase().as_str() {
        "now" => Some(now.timestamp()),
        "today" => end_of_day(now.date(), now),
        "yesterday" => now
            .date()
            .yesterday()
            .ok()
            .and_then(|day| end_of_day(day, now)),
        lower if lower.ends_with("ago") => before(lower, now),
        _ if is_date(text) => {
            let day = text.parse::<Date>().ok();
            day.and_then(|day| end_of_day(day, now))
        }
        _ => match last_weekday(text, now.date()) {
            Some(day) => end_of_day(day, now),
            None => moment(text, now),
        },
    };
    time.ok_or_else(|| {
        EngineError::Request(format!(
            "'{text}' is no time; use for example 2026-11-01, '2026-11-01 03:00', \
             2026-11-01T03:00:00Z, yesterday, 'last tuesday' or '2 days ago'"
        ))
    })
}

/// Gives the day that `last tuesday` means: the newest of that name before today. `last` may be left out.
#[must_use]
pub fn last_weekday(text: &str, today: Date) -> Option<Date> {
    let text = text.trim().to_ascii_lowercase();
    let name = text.strip_prefix("last ").unwrap_or(&text).trim_start();
    let weekday = match name {
        "monday" => Weekday::Monday,
        "tuesday" => Weekday::Tuesday,
        "wednesday" => Weekday::Wednesday,
        "thursday" => Weekday::Thursday,
        "friday" => Weekday::Friday,
        "saturday" => Weekday::Saturday,
        "sunday" => Weekday::Sunday,
        _ => return None,
    };
    today.nth_weekday(-1, weekday).ok()
}

/// Tells whether a text has the form of a date alone, which jiff also takes from longer ones.
fn is_date(text: &str) -> bool {
    let form = text.bytes().map(|byte| match byte {
        b'0'..=b'9' => b'0',
        other => other,
    });
    form.eq(b"0000-00-00".iter().copied())
}

fn end_of_day(day: Date, now: &Zoned) -> Option<Timestamp> {
    let next = day
        .tomorrow()
        .ok()?
        .to_zoned(now.time_zone().clone())
        .ok()?;
    next.timestamp().checked_sub(1.nanosecond()).ok()
}

fn before(text: &str, now: &Zoned) -> Option<Timestamp> {
    let span: Span = text.parse().ok()?;
    let then = now.checked_add(span).ok()?;
    Some(then.timestamp())
}

fn moment(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if text.ends_with(']') {
        return text.parse::<Zoned>().ok().map(|time| time.timestamp());
    }
    let civil = text.parse::<DateTime>().ok()?;
    let zoned = civil.to_zoned(now.time_zone().clone()).ok()?;
    Some(zoned.timestamp())
}
