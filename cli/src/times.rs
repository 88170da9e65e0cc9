//! Times, durations and sizes as people type them.

use anyhow::{Context as _, bail};
use jiff::civil::{DateTime, Time};
use jiff::{SignedDuration, Span, Timestamp, Zoned};
use larder_engine::snapshots::last_weekday;

/// Parses a point in time: a date, a date and time, an RFC 3339 instant, or a span such as
/// `2 days ago`, or a day such as `yesterday` or `last tuesday`; a date alone is its first moment, and without a zone the local one counts.
///
/// # Errors
/// With examples, for anything else.
pub fn point(text: &str, now: &Zoned) -> anyhow::Result<Timestamp> {
    let text = text.trim();
    let zone = now.time_zone();
    if text == "now" {
        return Ok(now.timestamp());
    }
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Ok(zoned.timestamp());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    let civil = match text {
        "today" => Some(now.start_of_day()?.datetime()),
        "yesterday" => Some(now.yesterday()?.start_of_day()?.datetime()),
        // A bare date is a moment too, its first.
        _ => match last_weekday(text, now.date()) {
            Some(day) => Some(day.to_datetime(Time::midnight())),
            None => text.parse::<DateTime>().ok(),
        },
    };
    if let Some(civil) = civil {
        let zoned = civil.to_zoned(zone.clone());
        return Ok(zoned
            .with_context(|| format!("'{text}' is out of range"))?
            .timestamp());
    }
    let Ok(span) = text.parse::<Span>() else {
        bail!(
            "'{text}' is not a time; write it like 2026-11-01, '2026-11-01 03:00', \
             2026-11-01T03:00:00Z, 'last tuesday' or '2 days ago'"
        );
    };
    if span.is_positive() {
        bail!("'{text}' lies in the future; write '{text} ago' for a time in the past");
    }
    let then = now.checked_add(span);
    Ok(then
        .with_context(|| format!("'{text}' is out of range"))?
        .timestamp())
}

/// Parses a duration: `90`, `90s`, `5m`, `1h 30m`; a bare number counts seconds.
///
/// # Errors
/// With an example, for anything else, and for what is negative.
pub fn seconds(text: &str) -> anyhow::Result<u64> {
    let wrong = || format!("'{text}' is not a duration; write it like 90s, 5m or '1h 30m'");
    if let Ok(seconds) = text.trim().parse() {
        return Ok(seconds);
    }
    let duration: SignedDuration = text.trim().parse().ok().with_context(wrong)?;
    u64::try_from(duration.as_secs()).ok().with_context(wrong)
}

/// Parses a duration that may be given in days and weeks, of 24 hours and 7 days: `30d`, `2w`, `26h`.
///
/// # Errors
/// As [`seconds`].
pub fn days(text: &str) -> anyhow::Result<u64> {
    let trimmed = text.trim();
    let unit = match trimmed.chars().next_back() {
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        _ => return seconds(text),
    };
    let number = trimmed
        .get(..trimmed.len() - 1)
        .and_then(|number| number.trim().parse().ok());
    let days = number.and_then(|number: u64| number.checked_mul(unit));
    days.map_or_else(|| seconds(text), Ok)
}

/// Parses a size in bytes: `4096`, `512K`, `1.5G`, `2 TiB`; units count by 1024.
///
/// # Errors
/// With an example, for anything else, and for what exceeds 2⁶³ bytes.
pub fn bytes(text: &str) -> anyhow::Result<u64> {
    let wrong = || format!("'{text}' is not a size; write it like 4096, 512K, 1.5G or 2TiB");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|char: char| !char.is_ascii_digit() && char != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at_checked(digits).with_context(wrong)?;
    let unit = unit.trim();
    let unit = unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => bail!(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        let size = whole.checked_mul(1 << shift).filter(|size| *size < 1 << 63);
        return size.with_context(wrong);
    }
    let number: f64 = number.parse().ok().with_context(wrong)?;
    let size = number * (1_u64 << shift) as f64;
    if !(0.0..9.0e18).contains(&size) {
        bail!(wrong());
    }
    Ok(size as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use jiff::tz::{self, TimeZone};

    fn at(text: &str) -> anyhow::Result<String> {
        let zone = TimeZone::fixed(tz::offset(2));
        let now = "2026-11-03T10:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .to_zoned(zone);
        point(text, &now).map(|time| time.to_string())
    }

    #[test]
    fn points_in_time_are_read_in_the_local_zone() {
        for (text, expected) in [
            ("2026-11-01", "2026-10-31T22:00:00Z"),
            ("2026-11-01 03:00", "2026-11-01T01:00:00Z"),
            ("2026-11-01T03:00:05", "2026-11-01T01:00:05Z"),
            ("2026-11-01T03:00:00Z", "2026-11-01T03:00:00Z"),
            ("2026-11-01T03:00:00+05:00", "2026-10-31T22:00:00Z"),
            ("2 days ago", "2026-11-01T10:00:00Z"),
            ("1h 30m ago", "2026-11-03T08:30:00Z"),
            ("now", "2026-11-03T10:00:00Z"),
            ("today", "2026-11-02T22:00:00Z"),
            ("yesterday", "2026-11-01T22:00:00Z"),
            // That is a Tuesday: last Tuesday is a week ago.
            ("last tuesday", "2026-10-26T22:00:00Z"),
            ("Monday", "2026-11-01T22:00:00Z"),
        ] {
            assert_eq!(at(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for text in ["", "soon", "2026-13-01", "2026-11-01x", "11/01/2026"] {
            assert!(
                at(text).unwrap_err().to_string().contains("2026-11-01"),
                "{text}"
            );
        }
        assert!(
            at("2 days")
                .unwrap_err()
                .to_string()
                .contains("'2 days ago'")
        );
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(seconds("90").unwrap(), 90);
        assert_eq!(seconds("5m").unwrap(), 300);
        assert_eq!(seconds("1h 30m").unwrap(), 5400);
        assert!(seconds("-5m").is_err() && seconds("soon").is_err());
        assert_eq!(bytes("4096").unwrap(), 4096);
        assert_eq!(bytes("512K").unwrap(), 512 << 10);
        assert_eq!(bytes("1.5g").unwrap(), 3 << 29);
        assert_eq!(bytes("2 TiB").unwrap(), 2 << 40);
        assert_eq!(bytes("10MB").unwrap(), 10 << 20);
        for text in ["", "G", "1X", "-1", "1.2.3", "99999999999P"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
