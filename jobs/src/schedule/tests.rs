#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn days(every: i64, hours: &[i64]) -> Schedule {
    Schedule {
        rhythm: Rhythm::days(every, hours).unwrap(),
        catch_up: true,
        jitter_seconds: 0,
    }
}

fn cron(text: &str, zone: &str) -> Schedule {
    Schedule {
        rhythm: Rhythm::cron(text, TimeZone::get(zone).unwrap()).unwrap(),
        ..days(1, &[0])
    }
}

fn ran(last: &str) -> Past {
    Past {
        last_run: Some(time(last)),
        known_since: time("2020-01-01T00:00Z"),
        died: false,
    }
}

fn new(since: &str) -> Past {
    Past {
        last_run: None,
        known_since: time(since),
        died: false,
    }
}

fn turn(at: &str) -> Turn {
    Turn {
        slot: time(at),
        at: time(at),
    }
}

#[track_caller]
fn is(schedule: &Schedule, past: &Past, now: &str, expected: Next) {
    assert_eq!(schedule.next("job", past, time(now)), expected, "at {now}");
}

#[test]
fn days_are_counted_from_the_last_run() {
    let nightly = days(2, &[1, 13]);
    let past = ran("2026-11-20T01:00Z");
    let wait = |at| Next::Wait(turn(at));
    is(
        &nightly,
        &past,
        "2026-11-20T05:00Z",
        wait("2026-11-20T13:00Z"),
    );
    let past = ran("2026-11-20T13:00Z");
    is(
        &nightly,
        &past,
        "2026-11-20T13:30Z",
        wait("2026-11-22T01:00Z"),
    );
    let due = Next::Run(turn("2026-11-22T01:00Z"));
    is(&nightly, &past, "2026-11-22T01:00Z", due);
    is(&nightly, &past, "2026-11-22T01:59:59Z", due);
    // A run by hand is one, too.
    let past = ran("2026-11-21T08:00Z");
    is(
        &nightly,
        &past,
        "2026-11-21T09:00Z",
        wait("2026-11-21T13:00Z"),
    );
    is(
        &days(2, &[1]),
        &past,
        "2026-11-21T09:00Z",
        wait("2026-11-23T01:00Z"),
    );
    // Over the end of a month in a leap year.
    let past = ran("2028-02-28T01:00Z");
    is(
        &days(1, &[1]),
        &past,
        "2028-02-28T02:00Z",
        wait("2028-02-29T01:00Z"),
    );
    is(
        &days(2, &[1]),
        &past,
        "2028-02-28T02:00Z",
        wait("2028-03-01T01:00Z"),
    );
}

#[test]
fn a_job_that_was_never_run_begins_with_the_next_time() {
    let past = new("2026-11-20T14:00Z");
    let wait = Next::Wait(turn("2026-11-21T01:00Z"));
    is(&days(7, &[1, 13]), &past, "2026-11-20T14:00Z", wait);
    let nightly = cron("0 1 * * *", "Europe/Berlin");
    is(
        &nightly,
        &past,
        "2026-11-20T14:00Z",
        Next::Wait(turn("2026-11-21T00:00Z")),
    );
}

#[test]
fn a_machine_that_slept_for_a_week_makes_up_for_it_once() {
    let past = ran("2026-11-10T01:00Z");
    let nightly = days(1, &[1]);
    let missed = Next::CatchUp(time("2026-11-11T01:00Z"));
    is(&nightly, &past, "2026-11-17T10:00Z", missed);
    let past = ran("2026-11-17T10:00Z");
    is(
        &nightly,
        &past,
        "2026-11-17T10:05Z",
        Next::Wait(turn("2026-11-18T01:00Z")),
    );
    // It wakes up in time for a run: that one is in its turn, and the only one.
    let past = ran("2026-11-10T01:00Z");
    is(
        &nightly,
        &past,
        "2026-11-17T01:20Z",
        Next::Run(turn("2026-11-17T01:00Z")),
    );
    let minutely = cron("* * * * *", "UTC");
    is(
        &minutely,
        &past,
        "2036-11-17T01:20Z",
        Next::Run(turn("2036-11-17T01:20Z")),
    );
}

#[test]
fn what_was_missed_stays_so_where_that_is_wished() {
    let nightly = Schedule {
        catch_up: false,
        ..days(2, &[1])
    };
    let past = ran("2026-11-10T01:00Z");
    // The days stay those that were counted from the last run.
    let missed = Next::Missed(time("2026-11-12T01:00Z"), turn("2026-11-18T01:00Z"));
    is(&nightly, &past, "2026-11-17T10:00Z", missed);
    // Once that is noted it is not told again.
    let past = Past {
        known_since: time("2026-11-17T10:00Z"),
        ..past
    };
    is(
        &nightly,
        &past,
        "2026-11-17T10:05Z",
        Next::Wait(turn("2026-11-18T01:00Z")),
    );
    is(
        &nightly,
        &past,
        "2026-11-18T01:59Z",
        Next::Run(turn("2026-11-18T01:00Z")),
    );
}

#[test]
fn a_run_that_died_is_made_up_for_at_once() {
    let past = Past {
        died: true,
        ..ran("2026-11-10T01:00Z")
    };
    let caught = Next::CatchUp(time("2026-11-11T01:00Z"));
    is(&days(1, &[1]), &past, "2026-11-11T01:10Z", caught);
    is(
        &days(1, &[1]),
        &past,
        "2026-11-11T00:10Z",
        Next::Wait(turn("2026-11-11T01:00Z")),
    );
}

#[test]
fn a_clock_that_was_set_back_neither_repeats_a_run_nor_waits_for_years() {
    let nightly = days(1, &[1]);
    // An hour: the run of this morning has been.
    let past = ran("2026-11-20T01:00Z");
    is(
        &nightly,
        &past,
        "2026-11-20T00:30Z",
        Next::Wait(turn("2026-11-21T01:00Z")),
    );
    // A year: nobody can have run that.
    let past = ran("2027-11-20T01:00Z");
    assert!(matches!(
        nightly.next("job", &past, time("2026-11-20T10:00Z")),
        Next::CatchUp(_)
    ));
    // The job was added while the clock was wrong.
    let past = new("2027-11-20T01:00Z");
    let caught = Next::CatchUp(time("2026-11-20T01:00Z"));
    is(&nightly, &past, "2026-11-20T10:00Z", caught);
}

#[test]
fn a_zone_keeps_its_clock_over_both_changes() {
    let nightly = cron("30 2 * * *", "Europe/Berlin");
    let past = ran("2026-03-28T01:30Z");
    let times = |past: &Past, from: &str, count| {
        let times = nightly.upcoming("job", past, time(from), count);
        times.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // 02:30 in winter is 01:30 UTC, and in summer 00:30; on the day between it is skipped until 03:00.
    let expected = ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    assert_eq!(times(&past, "2026-03-28T12:00Z", 2), expected);
    let past = ran("2026-10-24T00:30Z");
    let expected = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
    assert_eq!(times(&past, "2026-10-24T12:00Z", 2), expected);
    // Between the two 02:30 of that night nothing is due.
    let past = ran("2026-10-25T00:30Z");
    is(
        &nightly,
        &past,
        "2026-10-25T01:35Z",
        Next::Wait(turn("2026-10-26T01:30Z")),
    );
}

#[test]
fn jitter_follows_from_the_name_and_is_no_delay_of_the_days() {
    let late = Schedule {
        jitter_seconds: 7200,
        ..days(2, &[23])
    };
    let names = ["photos", "mail", "nightly", "nightly2", "a", "b"];
    let jitters: BTreeSet<_> = names.iter().map(|name| late.jitter(name)).collect();
    assert!(jitters.len() >= 5 && jitters.iter().all(|jitter| (0..=7200).contains(jitter)));
    assert_eq!(late.jitter("photos"), late.clone().jitter("photos"));
    assert_eq!(days(1, &[1]).jitter("photos"), 0);
    let name = names
        .into_iter()
        .find(|name| late.jitter(name) > 3600)
        .unwrap();
    let jitter = late.jitter(name);
    let past = ran("2026-11-20T23:00Z");
    let slot = time("2026-11-22T23:00Z");
    let at = later(slot, jitter);
    let wait = Next::Wait(Turn { slot, at });
    assert_eq!(late.next(name, &past, later(at, -1)), wait);
    // It begins on the next day, and its day is the one before all the same.
    assert_eq!(late.next(name, &past, at), Next::Run(Turn { slot, at }));
    assert_eq!(
        late.next(name, &past, later(at, GRACE_SECONDS - 1)),
        Next::Run(Turn { slot, at })
    );
    assert_eq!(
        late.next(name, &past, later(at, GRACE_SECONDS + 1)),
        Next::CatchUp(slot)
    );
}

#[test]
fn the_next_five_are_told() {
    let nightly = days(2, &[1, 13]);
    let past = ran("2026-11-19T13:00Z");
    let times = nightly.upcoming("job", &past, time("2026-11-20T09:00Z"), 5);
    let expected = [
        "2026-11-21T01:00Z",
        "2026-11-21T13:00Z",
        "2026-11-23T01:00Z",
        "2026-11-23T13:00Z",
        "2026-11-25T01:00Z",
    ];
    assert_eq!(times, expected.map(time));
    // What is due already is due now.
    let times = nightly.upcoming("job", &past, time("2026-11-21T09:00Z"), 2);
    assert_eq!(times, ["2026-11-21T09:00Z", "2026-11-21T13:00Z"].map(time));
}

#[test]
fn what_would_never_run_is_refused_with_its_reason() {
    let said = |every, hours: &[i64]| {
        let error = Rhythm::days(every, hours).unwrap_err();
        format!("{}: {error}", error.key)
    };
    assert!(said(0, &[1]).starts_with("every: 0 is no number of days"));
    assert!(said(367, &[1]).starts_with("every: "));
    assert!(said(1, &[]).contains("would never run"));
    assert!(said(1, &[24]).starts_with("hours: 24 is no hour"));
    assert!(said(1, &[-1]).starts_with("hours: "));
    assert!(said(1, &[300]).starts_with("hours: "));
    assert!(said(1, &[3, 3]).contains("named twice"));
    let error = Rhythm::cron("0 0 30 2 *", TimeZone::UTC).unwrap_err();
    assert_eq!(error.key, "cron");
    assert!(error.to_string().contains("can never be"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever asks every few minutes, and runs what he is told to, runs every time once and no other.
    #[test]
    fn a_machine_that_is_always_on_runs_each_time_once(
        every in 1..5_i64, hour in 0..24_i64, from in 1_700_000_000..1_800_000_000_i64,
        pause in 1..50_i64, jitter in 0..7200_u32,
    ) {
        let schedule = Schedule { jitter_seconds: jitter, ..days(every, &[hour]) };
        let from = Timestamp::from_second(from).unwrap();
        let mut past = Past { last_run: None, known_since: from, died: false };
        let mut runs = Vec::new();
        let mut now = from;
        while runs.len() < 6 {
            match schedule.next("job", &past, now) {
                Next::Run(turn) => {
                    prop_assert!(turn.at <= now);
                    past.last_run = Some(turn.slot);
                    runs.push(turn.slot);
                }
                Next::Wait(turn) => prop_assert!(turn.at > now),
                other => prop_assert!(false, "{other:?}"),
            }
            now = later(now, pause * 60);
        }
        for pair in runs.windows(2) {
            prop_assert_eq!(pair[1].as_second() - pair[0].as_second(), every * 86_400);
        }
    }
}
