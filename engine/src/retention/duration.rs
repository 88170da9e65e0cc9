//! Durations of policies, by the calendar: `7d`, `1y 6mo`, `2 weeks`.

use jiff::Span;

use crate::error::{EngineError, Result};

/// Parses a duration such as `7d`, `36h`, `2 weeks` or `1y6mo`; a bare `m` is refused, since some
/// take it for minutes and others for months.
///
/// # Errors
/// `Request`, with examples.
pub fn parse_duration(text: &str) -> Result<Span> {
    let text = text.trim();
    let is_iso = text.starts_with(['P', 'p']);
    let mut units = text.split(|char: char| !char.is_ascii_alphabetic());
    if !is_iso && units.any(|unit| unit.eq_ignore_ascii_case("m")) {
        return Err(EngineError::Request(format!(
            "in '{text}', m could be months or minutes; write mo for months, min for minutes"
        )));
    }
    let span = text.parse::<Span>().ok().filter(|span| span.is_positive());
    span.ok_or_else(|| {
        EngineError::Request(format!(
            "'{text}' is no duration; use for example 36h, 7d, 2 weeks, 6mo or 1y6mo"
        ))
    })
}

/// Shows a duration as it can be typed: `1y 6mo`.
#[must_use]
pub fn show_duration(span: &Span) -> String {
    let parts = [
        (i64::from(span.get_years()), "y"),
        (i64::from(span.get_months()), "mo"),
        (i64::from(span.get_weeks()), "w"),
        (i64::from(span.get_days()), "d"),
        (i64::from(span.get_hours()), "h"),
        (span.get_minutes(), "min"),
        (span.get_seconds(), "s"),
    ];
    let shown = parts.iter().filter(|(count, _)| *count != 0);
    let shown: Vec<String> = shown
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if shown.is_empty() {
        "less than 1s".to_owned()
    } else {
        shown.join(" ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn durations_are_read_by_the_calendar() {
        for (text, shown) in [
            ("7d", "7d"),
            ("36h", "36h"),
            ("2 weeks", "2w"),
            ("1y6mo", "1y 6mo"),
            ("1y 5mo 7d 2h", "1y 5mo 7d 2h"),
            ("3 months", "3mo"),
            ("90min", "90min"),
            ("1h 30s", "1h 30s"),
            ("P1M", "1mo"),
            ("PT1M", "1min"),
        ] {
            let span = parse_duration(text).unwrap();
            assert_eq!(show_duration(&span), shown, "{text}");
            assert_eq!(parse_duration(shown).unwrap().fieldwise(), span.fieldwise());
        }
    }

    #[test]
    fn what_is_none_or_could_be_two_is_refused() {
        for text in ["", "7", "d", "-7d", "7d ago", "0d", "soon", "99999999999y"] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains("7d"), "{text}: {error}");
        }
        for text in ["5m", "1y5m7d", "5 m", "5M"] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains("mo for months"), "{text}: {error}");
        }
    }
}
