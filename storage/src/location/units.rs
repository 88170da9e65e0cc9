//! Sizes, times and rates as people write them.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::Time;

/// Bytes a second, differing by the hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Outside of all windows; `None` is as fast as it goes.
    pub otherwise: Option<u64>,
    /// The first one that the local time is in counts.
    pub windows: Vec<Window>,
}

/// Hours of the day in which a rate holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub from: Time,
    /// The moment after the last one; not after `from` when the window goes over midnight.
    pub until: Time,
    /// Bytes a second; `None` is as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

impl Rate {
    /// Gives the bytes a second that hold at a time of day; `None` is as fast as it goes.
    #[must_use]
    pub fn at(&self, time: Time) -> Option<u64> {
        let found = self.windows.iter().find(|window| window.has(time));
        found.map_or(self.otherwise, |window| window.bytes_per_second)
    }

    /// Tells whether it never limits anything.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.otherwise.is_none()
            && self
                .windows
                .iter()
                .all(|window| window.bytes_per_second.is_none())
    }
}

impl Window {
    fn has(&self, time: Time) -> bool {
        if self.from < self.until {
            self.from <= time && time < self.until
        } else {
            self.from <= time || time < self.until
        }
    }
}

/// Parses a size such as `16M` or `512`; units count by 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write it as 512K, 16M or 2G");
    let text = text.trim();
    let upper = text.to_ascii_uppercase();
    let upper = upper
        .strip_suffix("IB")
        .or(upper.strip_suffix('B'))
        .unwrap_or(&upper);
    let digits = upper.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match upper.get(digits.len()..) {
        Some("") => 0,
        Some("K") => 10,
        Some("M") => 20,
        Some("G") => 30,
        Some("T") => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Parses a time such as `90s` or `15min`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time; write it as 30s, 15min or 2h");
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| wrong())
}

/// Parses a rate: one without hours, and any number with hours, separated by commas.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let mut rate = Rate::default();
    let mut has_otherwise = false;
    for part in text.split(',') {
        let (speed, hours) = match part.split_once('@') {
            Some((speed, hours)) => (speed, Some(hours)),
            None => (part, None),
        };
        let bytes_per_second = match speed.trim() {
            "off" => None,
            speed => Some(bytes(speed.strip_suffix("/s").unwrap_or(speed))?),
        };
        if bytes_per_second == Some(0) {
            return Err("a rate of 0 would never send anything; write off for no limit".to_owned());
        }
        match hours {
            Some(hours) => rate.windows.push(window(hours, bytes_per_second)?),
            None if has_otherwise => {
                return Err(format!(
                    "{text:?} has two rates without hours; write off,2M@08:00-18:00"
                ));
            }
            None => {
                has_otherwise = true;
                rate.otherwise = bytes_per_second;
            }
        }
    }
    Ok(rate)
}

fn window(hours: &str, bytes_per_second: Option<u64>) -> Result<Window, String> {
    let wrong = || format!("{hours:?} are no hours; write them as 08:00-18:00");
    let (from, until) = hours.trim().split_once('-').ok_or_else(wrong)?;
    let time = |text: &str| -> Result<Time, String> {
        // 24:00 is how people write the end of the day.
        let text = if text == "24:00" { "00:00" } else { text };
        text.parse().map_err(|_| wrong())
    };
    let (from, until) = (time(from)?, time(until)?);
    Ok(Window {
        from,
        until,
        bytes_per_second,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn sizes_count_by_1024() {
        for (text, expected) in [
            ("512", 512),
            ("1K", 1024),
            ("16M", 16 << 20),
            ("2GiB", 2 << 30),
            ("5mb", 5 << 20),
            ("0", 0),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for text in ["", "M", "1.5M", "-1", "1X", "99999999999999T", "1KM"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_as_people_write_them() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("15min").unwrap(), Duration::from_secs(900));
        for text in ["", "15", "-5s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_differ_by_the_hour_and_over_midnight() {
        let at = |rate: &Rate, hour: i8| rate.at(Time::constant(hour, 30, 0, 0));
        let plain = rate("10M").unwrap();
        assert_eq!(
            (at(&plain, 3), plain.is_unlimited()),
            (Some(10 << 20), false)
        );
        let day = rate("off, 2M/s@08:00-18:00").unwrap();
        assert_eq!(
            [7, 8, 17, 18].map(|hour| at(&day, hour)),
            [None, Some(2 << 20), Some(2 << 20), None]
        );
        let night = rate("1M,off@22:00-06:00").unwrap();
        assert_eq!(
            [21, 22, 0, 5, 6].map(|hour| at(&night, hour)),
            [Some(1 << 20), None, None, None, Some(1 << 20)]
        );
        assert!(
            rate("off").unwrap().is_unlimited()
                && rate("off,off@01:00-24:00").unwrap().is_unlimited()
        );
        for text in ["", "0", "1M,2M", "1M@8-18", "1M@25:00-26:00", "1M@08:00"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
