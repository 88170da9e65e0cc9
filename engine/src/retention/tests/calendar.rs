//! Days, hours and weeks as people's clocks and calendars have them.

use super::*;

/// Tells which times share a bucket: gives each the number of its bucket, in order of appearance.
fn buckets(period: Period, zone: &str, times: &[&str]) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut seen: Vec<usize> = Vec::new();
    for (at, _) in times.iter().enumerate() {
        let same = seen.iter().position(|first| {
            // Two times share a bucket if the older one is not kept beside the newer one; a third
            // one, older than both, takes the place of the oldest.
            let all = super::at(&[times[*first], times[at], "1900-01-01T00:00:00Z"]);
            let shown = kept(&all, &counts(period, 2), &now(zone));
            shown.len() == 2 && shown[0].starts_with("3:")
        });
        numbers.push(same.unwrap_or_else(|| {
            seen.push(at);
            seen.len() - 1
        }));
    }
    numbers
}

#[test]
fn an_hour_that_comes_twice_is_two() {
    // 02:30 summer time, 02:30 and 02:59 winter time, 03:00.
    let times = [
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:30:00Z",
        "2026-10-25T01:59:59Z",
        "2026-10-25T02:00:00Z",
    ];
    assert_eq!(buckets(Period::Hour, "Europe/Berlin", &times), [0, 1, 1, 2]);
    // Lord Howe puts its clocks back by half an hour: 01:45 comes twice.
    let times = [
        "2026-04-04T14:45:00Z",
        "2026-04-04T15:15:00Z",
        "2026-04-04T15:29:59Z",
        "2026-04-04T15:30:00Z",
    ];
    assert_eq!(
        buckets(Period::Hour, "Australia/Lord_Howe", &times),
        [0, 1, 1, 2]
    );
}

#[test]
fn days_are_as_long_as_their_clock_says() {
    // 23 hours in March, 25 in October.
    let spring = [
        "2026-03-28T22:59:59Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T21:59:59Z",
        "2026-03-29T22:00:00Z",
    ];
    assert_eq!(buckets(Period::Day, "Europe/Berlin", &spring), [0, 1, 1, 2]);
    let autumn = [
        "2026-10-24T21:59:59Z",
        "2026-10-24T22:00:00Z",
        "2026-10-25T22:59:59Z",
        "2026-10-25T23:00:00Z",
    ];
    assert_eq!(buckets(Period::Day, "Europe/Berlin", &autumn), [0, 1, 1, 2]);
    assert_eq!(buckets(Period::Day, "UTC", &autumn), [0, 0, 1, 1]);
    assert_eq!(
        buckets(Period::Day, "America/New_York", &autumn),
        [0, 0, 1, 1]
    );
}

#[test]
fn a_day_that_is_left_and_entered_again_is_one() {
    // Newfoundland put its clocks back at 00:01 to 23:01 of the day before.
    let times = [
        "2010-11-07T01:00:00Z", // 6 November, 22:30
        "2010-11-07T02:30:30Z", // 7 November, 00:00:30
        "2010-11-07T03:00:00Z", // 6 November, 23:30
        "2010-11-07T03:30:00Z", // 7 November, 00:00
    ];
    assert_eq!(
        buckets(Period::Day, "America/St_Johns", &times),
        [0, 1, 0, 1]
    );
    let all = at(&times);
    let shown = kept(&all, &counts(Period::Day, 2), &now("America/St_Johns"));
    assert_eq!(shown, ["3:daily", "4:daily"]);
}

#[test]
fn leap_days_count() {
    let times = [
        "2028-02-28T12:00:00Z",
        "2028-02-29T12:00:00Z",
        "2028-03-01T12:00:00Z",
    ];
    assert_eq!(buckets(Period::Day, "UTC", &times), [0, 1, 2]);
    assert_eq!(buckets(Period::Month, "UTC", &times), [0, 0, 1]);
    // A year before a leap day is 28 February.
    let all = at(&[
        "2027-02-28T12:00:00Z",
        "2027-02-28T12:00:01Z",
        "2028-02-29T12:00:00Z",
    ]);
    assert_eq!(
        kept(&all, &within("1y"), &now("UTC")),
        ["2:within 1y", "3:within 1y"]
    );
}

#[test]
fn durations_of_days_heed_the_clocks() {
    // A day before noon on the day after the change is noon, 25 hours ago.
    let all = at(&[
        "2026-10-24T10:00:00Z",
        "2026-10-24T10:00:01Z",
        "2026-10-25T11:00:00Z",
    ]);
    let day = |zone: &str| kept(&all, &within("1d"), &now(zone)).len();
    assert_eq!((day("Europe/Berlin"), day("UTC")), (2, 1));
    let hours = kept(&all, &within("24h"), &now("Europe/Berlin"));
    assert_eq!(hours, ["3:within 24h"]);
}

#[test]
fn weeks_are_those_of_iso_8601() {
    let times = [
        "2020-12-27T12:00:00Z", // Sunday of week 52
        "2020-12-28T12:00:00Z", // Monday of week 53
        "2021-01-03T12:00:00Z", // Sunday of week 53
        "2021-01-04T12:00:00Z", // Monday of week 1
    ];
    assert_eq!(buckets(Period::Week, "UTC", &times), [0, 1, 1, 2]);
    let times = [
        "2024-12-29T12:00:00Z", // Sunday of week 52
        "2024-12-30T12:00:00Z", // Monday of week 1 of 2025
        "2025-01-05T12:00:00Z", // its Sunday
        "2024-01-03T12:00:00Z", // week 1 of 2024
    ];
    assert_eq!(buckets(Period::Week, "UTC", &times), [0, 1, 1, 2]);
}

#[test]
fn quarters_begin_in_january_april_july_and_october() {
    let times = [
        "2025-12-31T23:59:59Z",
        "2026-01-01T00:00:00Z",
        "2026-03-31T23:59:59Z",
        "2026-04-01T00:00:00Z",
        "2026-06-30T23:59:59Z",
        "2026-07-01T00:00:00Z",
        "2026-09-30T23:59:59Z",
        "2026-10-01T00:00:00Z",
        "2026-12-31T23:59:59Z",
        "2027-01-01T00:00:00Z",
    ];
    assert_eq!(
        buckets(Period::Quarter, "UTC", &times),
        [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    );
    assert_eq!(
        buckets(Period::Year, "UTC", &times),
        [0, 1, 1, 1, 1, 1, 1, 1, 1, 2]
    );
}

#[test]
fn a_grandfather_a_father_and_a_son() {
    // Two years of nightly backups at 23:30 in Berlin; the last on 31 December 2026.
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let mut day = jiff::civil::date(2025, 1, 1);
    let mut all = Vec::new();
    while day <= jiff::civil::date(2026, 12, 31) {
        let time = day.at(23, 30, 0, 0).to_zoned(zone.clone()).unwrap();
        let mut one = candidate(0, 0, time.timestamp());
        one.id = SessionId(
            [&[0; 22][..], &(all.len() as u16).to_be_bytes()]
                .concat()
                .try_into()
                .unwrap(),
        );
        all.push(one);
        day = day.tomorrow().unwrap();
    }
    let mut policy = counts(Period::Day, 3);
    policy.counts.insert(Period::Week, Count::Some(3));
    policy.counts.insert(Period::Month, Count::Some(3));
    policy.counts.insert(Period::Quarter, Count::Some(4));
    policy.counts.insert(Period::Year, Count::Some(9));
    let groups = apply(
        &all,
        |_| true,
        &policy,
        &GroupBy::default(),
        &now("Europe/Berlin"),
    );
    let stay = groups[0]
        .snapshots
        .iter()
        .filter(|(_, reasons)| !reasons.is_empty());
    let dates: Vec<String> = stay
        .map(|(id, reasons)| {
            let one = all.iter().find(|one| one.id == *id).unwrap();
            let date = one.time.to_zoned(zone.clone()).date();
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            format!("{date} {}", reasons.join("+"))
        })
        .collect();
    assert_eq!(
        dates,
        [
            "2026-12-31 daily+weekly+monthly+quarterly+yearly",
            "2026-12-30 daily",
            "2026-12-29 daily",
            "2026-12-27 weekly",
            "2026-12-20 weekly",
            "2026-11-30 monthly",
            "2026-10-31 monthly",
            "2026-09-30 quarterly",
            "2026-06-30 quarterly",
            "2026-03-31 quarterly",
            "2025-12-31 yearly",
            "2025-01-01 oldest yearly",
        ]
    );
}
