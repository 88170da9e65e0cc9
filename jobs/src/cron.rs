//! Cron expressions: the five fields, strictly, and when the clock of a zone shows them next.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// Years that are looked through: every weekday has its 29 February within 40.
const YEARS: i16 = 48;
/// All hours of the day.
const EVERY_HOUR: u64 = (1 << 24) - 1;

/// When something is done: minutes, hours, days, months and weekdays.
///
/// Where both days and weekdays are named (neither begins with `*`), either of them is enough, as cron has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day has to be one of `days` and of `weekdays`, and not of either.
    both: bool,
}

/// What one of the five fields may say.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Words for its numbers, from `min` on.
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        min: 0,
        max: 59,
        words: &[],
    },
    Field {
        name: "hour",
        min: 0,
        max: 23,
        words: &[],
    },
    Field {
        name: "day of the month",
        min: 1,
        max: 31,
        words: &[],
    },
    Field {
        name: "month",
        min: 1,
        max: 12,
        words: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        name: "day of the week",
        min: 0,
        max: 7,
        words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

impl Cron {
    /// Reads the five fields, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    ///
    /// # Errors
    /// In words: what is no such field, and what can never be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            text => text,
        };
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
            return Err(format!(
                "'{text}' has {} fields in place of the five of cron: minute, hour, day of the month, month, day of the week",
                parts.len()
            ));
        };
        let [minute, hour, day, month, weekday] = &FIELDS;
        let named = weekday.read(weekdays)?;
        let cron = Self {
            minutes: minute.read(minutes)?,
            hours: hour.read(hours)?,
            days: day.read(days)?,
            months: month.read(months)?,
            // Sunday is 0 and 7.
            weekdays: (named | named >> 7) & 0x7f,
            both: days.starts_with('*') || weekdays.starts_with('*'),
        };
        match cron.after_civil(DateTime::constant(2024, 1, 1, 0, 0, 0, 0)) {
            Some(_) => Ok(cron),
            None => Err(format!(
                "'{text}' can never be: none of the months that it names has such a day"
            )),
        }
    }

    /// Gives the first moment after `time` at which a clock in the zone shows what is named.
    ///
    /// Where every hour is named, every hour that passes counts. Else what the clock skips is done as soon
    /// as it has skipped it, and what it shows twice is done the first time alone.
    #[must_use]
    pub fn after(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self.hours == EVERY_HOUR {
            true => self.after_as_time_passes(time, zone),
            false => self.after_as_clocks_show(time, zone),
        }
    }

    fn after_as_clocks_show(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut civil = zone.to_datetime(time);
        loop {
            civil = self.after_civil(civil)?;
            let instant = instant(civil, zone)?;
            // What the clock shows for the second time has been before.
            if instant > time {
                return Some(instant);
            }
        }
    }

    fn after_as_time_passes(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut offset = zone.to_offset(time);
        let mut from = time;
        let mut civil = offset.to_datetime(time);
        loop {
            let instant = offset.to_timestamp(self.after_civil(civil)?).ok()?;
            let change = zone.following(from).next().map(|change| change.timestamp());
            let Some(change) = change.filter(|change| *change <= instant) else {
                return Some(instant);
            };
            from = change;
            offset = zone.to_offset(change);
            // The moment of the change is looked at as well.
            let before = change.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            civil = offset.to_datetime(before);
        }
    }

    /// Gives the first time after `civil` on the clock's face.
    fn after_civil(&self, civil: DateTime) -> Option<DateTime> {
        let mut date = civil.date();
        let last_year = date.year().saturating_add(YEARS);
        let mut from = number(civil.hour()) * 60 + number(civil.minute()) + 1;
        while date.year() <= last_year {
            if !has(self.months, number(date.month())) {
                date = date.last_of_month().tomorrow().ok()?;
                from = 0;
                continue;
            }
            if self.has_day(date)
                && let Some((hour, minute)) = self.time_from(from)
            {
                return Some(date.at(hour, minute, 0, 0));
            }
            date = date.tomorrow().ok()?;
            from = 0;
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let day = has(self.days, number(date.day()));
        let weekday = date.weekday().to_sunday_zero_offset();
        let weekday = has(self.weekdays, number(weekday));
        match self.both {
            true => day && weekday,
            false => day || weekday,
        }
    }

    /// Finds the first hour and minute from a minute of the day on.
    fn time_from(&self, from: u32) -> Option<(i8, i8)> {
        (from / 60..24).find_map(|hour| {
            let first = if hour == from / 60 { from % 60 } else { 0 };
            let minute = (first..60).find(|minute| has(self.minutes, *minute));
            let minute = minute.filter(|_| has(self.hours, hour))?;
            Some((i8::try_from(hour).ok()?, i8::try_from(minute).ok()?))
        })
    }
}

impl Field {
    /// Gives the numbers that are named, each as a bit.
    fn read(&self, text: &str) -> Result<u64, String> {
        let mut bits = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (part, None),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.min, self.max),
                Some((first, last)) => self.range(first, last)?,
                None if step.is_some() => {
                    let name = self.name;
                    return Err(format!(
                        "the {name} '{part}' has a step and no range; write */{} or {range}-{}/{}",
                        step.unwrap_or_default(),
                        self.max,
                        step.unwrap_or_default()
                    ));
                }
                None => {
                    let one = self.number(range)?;
                    (one, one)
                }
            };
            let step = match step {
                None => 1,
                Some(step) => step.parse().ok().filter(|step| *step > 0).ok_or_else(|| {
                    format!(
                        "the {} '{part}' has no whole number from 1 on as its step",
                        self.name
                    )
                })?,
            };
            let numbers = (first..=last).step_by(step);
            bits |= numbers.fold(0, |bits, number| bits | 1 << number);
        }
        Ok(bits)
    }

    fn range(&self, first: &str, last: &str) -> Result<(u32, u32), String> {
        let (from, to) = (self.number(first)?, self.number(last)?);
        // Friday to Sunday.
        let to = if self.max == 7 && to == 0 { 7 } else { to };
        if from > to {
            let name = self.name;
            return Err(format!(
                "the {name} '{first}-{last}' ends before it begins; write {first}-{},{}-{last}",
                self.max, self.min
            ));
        }
        Ok((from, to))
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        let mut words = self.words.iter().zip(self.min..);
        if let Some((_, number)) = words.find(|(word, _)| **word == lower) {
            return Ok(number);
        }
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        let allowed = number.filter(|number| (self.min..=self.max).contains(number));
        allowed.ok_or_else(|| {
            let Self { name, min, max, .. } = self;
            let words = match (self.words.first(), self.words.last()) {
                (Some(first), Some(last)) => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            format!("'{text}' is no {name}: it has to be {min} to {max}{words}")
        })
    }
}

/// Gives the moment at which a clock in the zone shows a time first, or skips it.
fn instant(civil: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    let is_skipped = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
    let instant = ambiguous.compatible().ok()?;
    if !is_skipped {
        return Some(instant);
    }
    let behind = instant.checked_add(SignedDuration::from_nanos(1)).ok()?;
    let change = zone.preceding(behind).next();
    Some(change.map_or(instant, |change| change.timestamp()))
}

fn has(bits: u64, number: u32) -> bool {
    bits >> number & 1 == 1
}

fn number(small: i8) -> u32 {
    u32::from(small.unsigned_abs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use jiff::Zoned;
    use proptest::prelude::*;

    use super::*;

    fn times(cron: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(cron).unwrap();
        let from: Zoned = from.parse().unwrap();
        let mut time = from.timestamp();
        let next = |_| {
            time = cron.after(time, from.time_zone()).unwrap();
            let zoned = time.to_zoned(from.time_zone().clone());
            zoned.strftime("%a %Y-%m-%d %H:%M %:z").to_string()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn fields_are_numbers_words_ranges_steps_and_lists() {
        let from = "2026-11-22T10:30[UTC]";
        for (cron, expected) in [
            ("15 3 * * *", "Mon 2026-11-23 03:15 +00:00"),
            ("30 10 * * *", "Mon 2026-11-23 10:30 +00:00"),
            ("31 10 * * *", "Sun 2026-11-22 10:31 +00:00"),
            ("*/20 * * * *", "Sun 2026-11-22 10:40 +00:00"),
            ("5-50/15 11 * * *", "Sun 2026-11-22 11:05 +00:00"),
            ("0 0 1 jan *", "Fri 2027-01-01 00:00 +00:00"),
            ("0 0 1,15 * *", "Tue 2026-12-01 00:00 +00:00"),
            ("0 0 * * 7", "Sun 2026-11-29 00:00 +00:00"),
            ("0 0 * * FRI-SUN", "Fri 2026-11-27 00:00 +00:00"),
            ("0 0 29 2 *", "Tue 2028-02-29 00:00 +00:00"),
            // Either, as both are named.
            ("0 0 30 * mon", "Mon 2026-11-23 00:00 +00:00"),
            // Both, as one begins with a star: the next Sunday that is a 29 February.
            ("0 0 29 2 */7", "Sun 2032-02-29 00:00 +00:00"),
            ("@weekly", "Sun 2026-11-29 00:00 +00:00"),
        ] {
            assert_eq!(times(cron, from, 1), [expected], "{cron}");
        }
    }

    #[test]
    fn what_the_clock_skips_is_done_once_it_has() {
        let from = "2026-03-28T12:00[Europe/Berlin]";
        let expected = [
            "Sun 2026-03-29 03:00 +02:00",
            "Mon 2026-03-30 02:00 +02:00",
            "Mon 2026-03-30 02:30 +02:00",
        ];
        assert_eq!(times("0,30 2 * * *", from, 3), expected);
        // In its order, and nothing twice.
        let expected = ["Sun 2026-03-29 03:00 +02:00", "Sun 2026-03-29 03:15 +02:00"];
        assert_eq!(times("30 2 29 3 *", from, 1), expected[..1]);
        assert_eq!(times("0,15 3 * * *", from, 2), expected);
        let expected = ["Sun 2026-03-29 01:30 +01:00", "Sun 2026-03-29 03:30 +02:00"];
        let from = "2026-03-29T01:00[Europe/Berlin]";
        assert_eq!(times("30 * * * *", from, 2), expected);
        // A whole day that there was not: the island moved over the date line.
        let from = "2011-12-29T12:00[Pacific/Apia]";
        let expected = ["Sat 2011-12-31 00:00 +14:00", "Sat 2011-12-31 03:00 +14:00"];
        assert_eq!(times("0 3 * * *", from, 2), expected);
    }

    #[test]
    fn what_the_clock_shows_twice_is_done_once_but_for_every_hour() {
        let from = "2026-10-25T01:00[Europe/Berlin]";
        let expected = [
            "Sun 2026-10-25 02:00 +02:00",
            "Sun 2026-10-25 02:30 +02:00",
            "Mon 2026-10-26 02:00 +01:00",
        ];
        assert_eq!(times("0,30 2 * * *", from, 3), expected);
        let expected = [
            "Sun 2026-10-25 02:00 +02:00",
            "Sun 2026-10-25 02:00 +01:00",
            "Sun 2026-10-25 03:00 +01:00",
        ];
        assert_eq!(times("0 * * * *", from, 3), expected);
        // From within the second time on.
        let from = "2026-10-25T02:10+01:00[Europe/Berlin]";
        let expected = ["Mon 2026-10-26 02:30 +01:00"];
        assert_eq!(times("30 2 * * *", from, 1), expected);
    }

    #[test]
    fn what_is_no_expression_says_why() {
        for (cron, why) in [
            ("0 3 * *", "4 fields"),
            ("", "0 fields"),
            ("60 3 * * *", "'60' is no minute: it has to be 0 to 59"),
            ("0 24 * * *", "is no hour"),
            ("0 3 0 * *", "is no day of the month"),
            ("0 3 * foo *", "1 to 12 or jan to dec"),
            ("0 3 * * 8", "0 to 7 or sun to sat"),
            ("+5 3 * * *", "is no minute"),
            ("1,,2 3 * * *", "'' is no minute"),
            ("*/0 3 * * *", "as its step"),
            ("5/10 3 * * *", "write */10 or 5-59/10"),
            ("0 22-2 * * *", "write 22-23,0-2"),
            ("0 3 30 2 *", "can never be"),
            ("0 3 31 4,6,9,11 *", "can never be"),
            ("@reboot", "1 fields"),
        ] {
            let said = Cron::parse(cron).unwrap_err();
            assert!(said.contains(why), "{cron}: {said}");
        }
    }

    /// Looks at every minute in turn.
    fn plainly(cron: &Cron, from: Timestamp, minutes: i64) -> Option<Timestamp> {
        let first = from.as_second().div_euclid(60) + 1;
        let mut minutes = first..first + minutes;
        minutes.find_map(|minute| {
            let time = Timestamp::from_second(minute * 60).unwrap();
            let shown = TimeZone::UTC.to_datetime(time);
            let is_time = has(cron.minutes, number(shown.minute()))
                && has(cron.hours, number(shown.hour()))
                && has(cron.months, number(shown.month()))
                && cron.has_day(shown.date());
            is_time.then_some(time)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_next_time_is_the_first_minute_that_is_named(
            minute in 0..60_u32, hours in "(\\*|[0-9]|1[0-9],2[0-3])", day in 1..29_u32,
            weekday in "(\\*|[0-7]|mon-fri)", from in 1_700_000_000..1_900_000_000_i64,
        ) {
            let cron = Cron::parse(&format!("{minute} {hours} {day} * {weekday}")).unwrap();
            let from = Timestamp::from_second(from).unwrap();
            let found = cron.after(from, &TimeZone::UTC);
            prop_assert_eq!(found, plainly(&cron, from, 63 * 1440));
        }

        #[test]
        fn times_go_forward_in_every_zone(
            fields in "[0-5][0-9]|\\*/7", hour in "\\*|[0-9]|1-4", zone in 0..5_usize,
            from in 1_500_000_000..1_900_000_000_i64,
        ) {
            let zones = ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "UTC"];
            let zone = TimeZone::get(zones[zone]).unwrap();
            let cron = Cron::parse(&format!("{fields} {hour} * * *")).unwrap();
            let mut time = Timestamp::from_second(from).unwrap();
            for _ in 0..50 {
                let next = cron.after(time, &zone).unwrap();
                prop_assert!(next > time);
                // Nothing lies between two times: from any moment between them the later one is next.
                let between = Timestamp::from_second((time.as_second() + next.as_second()) / 2).unwrap();
                if between < next {
                    prop_assert_eq!(cron.after(between, &zone), Some(next));
                }
                time = next;
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-*/,0-9a-z@ ]{0,24}", from in any::<i32>()) {
            if let Ok(cron) = Cron::parse(&text) {
                let from = Timestamp::from_second(from.into()).unwrap();
                prop_assert!(cron.after(from, &TimeZone::UTC).is_some_and(|next| next > from));
            }
        }
    }
}
