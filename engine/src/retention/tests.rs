#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use proptest::prelude::*;

use super::*;

mod calendar;
mod oracle;

/// Makes a finished snapshot of the host `desk` and the path `/home`.
pub(super) fn candidate(number: u8, round: u64, time: Timestamp) -> Candidate {
    let ns = i64::try_from(time.as_nanosecond()).unwrap();
    Candidate {
        id: SessionId::new(round, [number; 16]),
        first: SessionId::new(round, [number; 16]),
        time,
        began: ns,
        ended: ns + 60_000_000_000,
        seen: Vec::new(),
        host: "desk".to_owned(),
        paths: vec![b"/home".to_vec()],
        tags: Vec::new(),
        is_pinned: false,
        is_partial: false,
        shard_of: None,
        joined: None,
        is_settled: true,
    }
}

/// Makes snapshots at these times; the first is number 1.
pub(super) fn at(times: &[&str]) -> Vec<Candidate> {
    let made = times.iter().zip(1..);
    made.map(|(time, number)| candidate(number, 0, time.parse().unwrap()))
        .collect()
}

pub(super) fn now(zone: &str) -> Zoned {
    let time: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    time.in_tz(zone).unwrap()
}

/// Gives the numbers of those that stay, oldest first, as `NUMBER:REASON+REASON`.
pub(super) fn kept(all: &[Candidate], policy: &Policy, now: &Zoned) -> Vec<String> {
    let groups = apply(all, |_| true, policy, &GroupBy::default(), now);
    let mut shown: Vec<(Timestamp, String)> = Vec::new();
    for (id, reasons) in groups.iter().flat_map(|group| &group.snapshots) {
        let one = all.iter().find(|one| one.id == *id).unwrap();
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        if !reasons.is_empty() {
            shown.push((one.time, format!("{}:{}", id.0[23], reasons.join("+"))));
        }
    }
    shown.sort();
    shown.into_iter().map(|(_, text)| text).collect()
}

pub(super) fn counts(period: Period, count: u64) -> Policy {
    Policy {
        counts: [(period, Count::Some(count))].into(),
        ..Policy::default()
    }
}

fn within(text: &str) -> Policy {
    Policy {
        within: Some(parse_duration(text).unwrap()),
        ..Policy::default()
    }
}

#[test]
fn the_newest_are_counted() {
    let all = at(&[
        "2026-01-01T00:00:00Z",
        "2026-01-03T00:00:00Z",
        "2026-01-02T00:00:00Z",
    ]);
    let last = |count| Policy {
        last: Some(count),
        ..Policy::default()
    };
    let now = now("UTC");
    assert_eq!(
        kept(&all, &last(Count::Some(2)), &now),
        ["3:last", "2:last"]
    );
    assert_eq!(kept(&all, &last(Count::Some(0)), &now), [""; 0]);
    assert_eq!(kept(&all, &last(Count::All), &now).len(), 3);
    assert_eq!(kept(&all, &last(Count::Some(u64::MAX)), &now).len(), 3);
    assert_eq!(kept(&[], &last(Count::All), &now), [""; 0]);
}

#[test]
fn the_oldest_takes_a_place_that_is_left() {
    let all = at(&[
        "2026-01-01T01:00:00Z",
        "2026-01-01T02:00:00Z",
        "2026-01-02T01:00:00Z",
        "2026-01-02T02:00:00Z",
    ]);
    let now = now("UTC");
    let daily = |count| kept(&all, &counts(Period::Day, count), &now);
    assert_eq!(daily(1), ["4:daily"]);
    assert_eq!(daily(2), ["2:daily", "4:daily"]);
    assert_eq!(daily(3), ["1:oldest daily", "2:daily", "4:daily"]);
    assert_eq!(daily(9), daily(3));
    let mut policy = counts(Period::Day, 0);
    policy.counts.insert(Period::Year, Count::All);
    assert_eq!(kept(&all, &policy, &now), ["1:oldest yearly", "4:yearly"]);
}

#[test]
fn durations_count_from_the_newest() {
    let all = at(&[
        "2026-01-31T12:00:00Z",
        "2026-02-28T11:59:59Z",
        "2026-02-28T12:00:00Z",
        "2026-02-28T12:00:01Z",
        "2026-03-28T12:00:00Z",
    ]);
    let now = now("UTC");
    assert_eq!(
        kept(&all, &within("1mo"), &now),
        ["4:within 1mo", "5:within 1mo"]
    );
    assert_eq!(kept(&all, &within("9000y"), &now).len(), 5);
    let mut policy = Policy::default();
    policy
        .within_each
        .insert(Period::Month, parse_duration("2mo").unwrap());
    let month = "monthly within 2mo";
    let expected = [
        format!("1:{month}"),
        format!("4:{month}"),
        format!("5:{month}"),
    ];
    assert_eq!(kept(&all, &policy, &now), expected);
    policy
        .within_each
        .insert(Period::Month, parse_duration("1mo 1d").unwrap());
    let month = "monthly within 1mo 1d";
    assert_eq!(
        kept(&all, &policy, &now),
        [format!("4:{month}"), format!("5:{month}")]
    );
    // All are near: the oldest is kept too.
    policy
        .within_each
        .insert(Period::Year, parse_duration("1y").unwrap());
    let shown = kept(&all, &policy, &now);
    assert_eq!(shown.first().unwrap(), "1:oldest yearly within 1y");
}

#[test]
fn tags_ids_pins_and_youth_keep_too() {
    let mut all = at(&[
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
        "2029-12-31T12:00:00Z",
        "2029-12-31T13:00:00Z",
    ]);
    all[0].tags = vec!["a".into(), "b".into()];
    all[1].tags = vec!["a".into()];
    all[2].is_pinned = true;
    let list = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    let now = now("UTC");
    let mut policy = Policy {
        tags: vec![list(&["b", "a"])],
        ..Policy::default()
    };
    assert_eq!(kept(&all, &policy, &now), ["1:tags b,a", "3:pinned"]);
    policy.tags.push(list(&["a"]));
    policy.ids.insert(all[3].id);
    assert_eq!(
        kept(&all, &policy, &now),
        ["1:tags b,a+tags a", "2:tags a", "3:pinned", "4:named"]
    );
    policy.minimum_age = Some(parse_duration("12h").unwrap());
    let shown = kept(&all, &policy, &now);
    assert_eq!(shown[3..], ["4:named", "5:younger than 12h"]);
}

#[test]
fn groups_are_apart() {
    let mut all = at(&[
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
    ]);
    all[0].host = "lap".into();
    all[1].paths = vec![b"/etc".to_vec()];
    all[2].tags = vec!["x".into()];
    let mut more = candidate(4, 0, "2025-01-01T00:00:00Z".parse().unwrap());
    more.paths = vec![b"/etc".to_vec()];
    all.push(more);
    let policy = Policy {
        last: Some(Count::Some(1)),
        ..Policy::default()
    };
    for (host, paths, tags, expected) in [
        (false, false, false, 1),
        (true, false, false, 2),
        (false, true, false, 2),
        (false, false, true, 2),
        (true, true, false, 3),
        (true, true, true, 3),
    ] {
        let group_by = GroupBy { host, paths, tags };
        let groups = apply(&all, |_| true, &policy, &group_by, &now("UTC"));
        assert_eq!(groups.len(), expected, "{group_by:?}");
        let stay = groups.iter().flat_map(|group| &group.snapshots);
        assert_eq!(
            stay.filter(|(_, reasons)| !reasons.is_empty()).count(),
            expected
        );
        let total: usize = groups.iter().map(|group| group.snapshots.len()).sum();
        assert_eq!(total, 4);
    }
}

#[test]
fn a_checkpoint_goes_when_a_later_backup_got_all_of_it() {
    let mut all = at(&[
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
    ]);
    all[0].is_partial = true;
    all[2].is_partial = true;
    let policy = Policy {
        last: Some(Count::Some(1)),
        ..Policy::default()
    };
    let now = now("UTC");
    let shown = |all: &[Candidate]| kept(all, &policy, &now);
    let unfinished = "unfinished, may be gone on from";
    // A checkpoint takes no place of a finished snapshot.
    assert_eq!(shown(&all), ["2:last".into(), format!("3:{unfinished}")]);
    all[1].paths.push(b"/srv".to_vec());
    assert_eq!(shown(&all).len(), 2);
    for change in [
        |one: &mut Candidate| one.paths = vec![b"/srv".to_vec()],
        |one: &mut Candidate| one.host = "lap".into(),
        |one: &mut Candidate| one.ended = 0,
        |one: &mut Candidate| one.is_settled = false,
        |one: &mut Candidate| one.time = "2031-01-01T00:00:00Z".parse().unwrap(),
    ] {
        let mut all = all.clone();
        change(&mut all[1]);
        let first = format!("1:{unfinished}");
        assert!(shown(&all).contains(&first), "{:?}", shown(&all));
    }
}

#[test]
fn what_is_kept_aside_takes_no_place() {
    let mut all = at(&[
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
    ]);
    let now = now("UTC");
    let policy = Policy {
        last: Some(Count::Some(1)),
        ..within("1d")
    };
    all[2].is_settled = false;
    assert_eq!(
        kept(&all, &policy, &now),
        ["2:last+within 1d", "3:a change to it cannot be read"]
    );
    all[2].is_settled = true;
    all[2].time = "2030-01-01T00:00:00.000000001Z".parse().unwrap();
    assert_eq!(
        kept(&all, &policy, &now),
        ["2:last+within 1d", "3:its time is in the future"]
    );
}

/// Five backups, a day and a round apart.
fn five() -> Vec<Candidate> {
    let day = |day: u8| format!("2026-01-{day:02}T00:00:00Z").parse().unwrap();
    (1..=5)
        .map(|n| candidate(n, u64::from(n), day(n)))
        .collect()
}

fn set_clock(one: &mut Candidate, time: &str) {
    let changed = candidate(1, 0, time.parse().unwrap());
    (one.time, one.began, one.ended) = (changed.time, changed.began, changed.ended);
}

#[test]
fn a_time_against_the_order_of_rounds_is_not_believed() {
    let policy = counts(Period::Day, 2);
    let order = "its time contradicts the order of backups";
    for (number, time) in [(3, "1970-01-02T00:00:00Z"), (2, "2029-01-01T00:00:00Z")] {
        let mut all = five();
        set_clock(&mut all[number - 1], time);
        let shown = kept(&all, &policy, &now("UTC"));
        assert!(shown.contains(&format!("{number}:{order}")), "{shown:?}");
        assert!(shown.contains(&"5:daily".to_owned()), "{shown:?}");
        assert!(shown.contains(&"4:daily".to_owned()), "{shown:?}");
        assert_eq!(shown.len(), 3, "{shown:?}");
    }
    // Two that contradict each other and nobody else: either may be wrong.
    let mut two = five();
    two.truncate(2);
    set_clock(&mut two[1], "2025-01-01T00:00:00Z");
    assert_eq!(
        kept(&two, &policy, &now("UTC")),
        [format!("2:{order}"), format!("1:{order}")]
    );
    // Another host has another clock.
    two[1].host = "lap".into();
    assert_eq!(kept(&two, &policy, &now("UTC")), ["2:daily", "1:daily"]);
}

#[test]
fn a_time_against_what_its_writer_saw_is_not_believed() {
    let mut all = five();
    for one in &mut all {
        one.id = SessionId::new(0, [one.id.0[23]; 16]);
        one.first = one.id;
    }
    set_clock(&mut all[4], "2020-01-01T00:00:00Z");
    let policy = counts(Period::Day, 2);
    let now = now("UTC");
    assert_eq!(kept(&all, &policy, &now), ["3:daily", "4:daily"]);
    all[4].seen = vec![all[3].id, all[2].id];
    let order = "5:its time contradicts the order of backups".to_owned();
    assert_eq!(
        kept(&all, &policy, &now),
        [order.clone(), "3:daily".into(), "4:daily".into()]
    );
    // What a copy's writer had seen says nothing of its time; what others saw of it as the first does.
    let mut copy = all[4].clone();
    (copy.id, copy.seen) = (SessionId::new(9, [6; 16]), Vec::new());
    let mut sound = all[2].clone();
    (sound.id, sound.seen) = (SessionId::new(9, [7; 16]), Vec::new());
    all[2] = sound;
    all[4].seen = vec![all[3].id, all[2].first];
    all[3].seen = vec![all[2].first];
    all.push(copy);
    assert_eq!(
        kept(&all, &policy, &now),
        [order, "7:daily".into(), "4:daily".into()]
    );
}

#[test]
fn long_backups_and_chosen_times_contradict_nothing() {
    let mut all = five();
    // It ran, with checkpoints, through two rounds.
    all[3].began = all[1].began - 1;
    all[3].time = Timestamp::from_nanosecond(all[3].began.into()).unwrap();
    // Its time was chosen, its clock was right.
    all[4].time = "2001-01-01T00:00:00Z".parse().unwrap();
    let shown = kept(&all, &counts(Period::Hour, 9), &now("UTC"));
    assert_eq!(shown.len(), 5);
    assert!(
        shown.iter().all(|one| one.ends_with(":hourly")),
        "{shown:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// One clock is wrong once: nobody else is forgotten that would have stayed without it.
    #[test]
    fn a_wrong_clock_makes_nobody_else_be_forgotten(
        gaps in proptest::collection::vec(1_i64..400_000, 4..20),
        wrong in any::<proptest::sample::Index>(),
        away in prop_oneof![-90_000_000_i64..-1, 1..90_000_000_i64],
        (period, count) in (0..6_usize, 0..6_u64),
        last in 0..4_u64,
    ) {
        let base = 1_700_000_000_i64;
        let mut time = base;
        let mut all = Vec::new();
        for (gap, n) in gaps.iter().zip(1..) {
            time += gap + 61;
            all.push(candidate(n, n.into(), Timestamp::from_second(time).unwrap()));
        }
        let now = Timestamp::from_second(time + 1).unwrap().to_zoned(TimeZone::UTC);
        let mut policy = counts(Period::ALL[period], count);
        policy.last = Some(Count::Some(last));
        let at = wrong.index(all.len());
        let mut others = all.clone();
        let mut bad = others.remove(at);
        let shift = |ns: i64| ns + away * 1_000_000_000;
        (bad.began, bad.ended) = (shift(bad.began), shift(bad.ended));
        bad.time = Timestamp::from_nanosecond(bad.began.into()).unwrap();
        let contradictions = others.iter().filter(|one| {
            (one.id.round() < bad.id.round() && one.began > bad.ended)
                || (one.id.round() > bad.id.round() && bad.began > one.ended)
        });
        // With fewer than two nobody can tell who is wrong, or the order is still right.
        prop_assume!(bad.time > now.timestamp() || contradictions.count() >= 2);
        let without = kept(&others, &policy, &now);
        let mut with = others.clone();
        with.push(bad.clone());
        let mut with = kept(&with, &policy, &now);
        with.retain(|one| !one.starts_with(&format!("{}:", bad.id.0[23])));
        prop_assert_eq!(with, without);
        let mut both = others;
        both.push(bad);
        prop_assert_eq!(kept(&both, &policy, &now).iter().filter(|one| one.contains("its time")).count(), 1);
    }

    /// Whatever the times: each snapshot is in one group, and a minimum age or a pin holds.
    #[test]
    fn what_must_stay_stays(
        facts in proptest::collection::vec((0_u64..4, -3_000_000_i64..3_000_000, any::<[bool; 3]>()), 0..30),
        count in 0..3_u64,
    ) {
        let now = Timestamp::from_second(1_700_000_000).unwrap().to_zoned(TimeZone::UTC);
        let mut all = Vec::new();
        for ((round, offset, [pinned, partial, settled]), n) in facts.into_iter().zip(1..) {
            let mut one = candidate(n, round, Timestamp::from_second(1_700_000_000 + offset).unwrap());
            (one.is_pinned, one.is_partial, one.is_settled) = (pinned, partial, settled);
            all.push(one);
        }
        let mut policy = counts(Period::Day, count);
        policy.minimum_age = Some(parse_duration("10d").unwrap());
        let groups = apply(&all, |_| true, &policy, &GroupBy::default(), &now);
        let mut seen = 0;
        for (id, reasons) in groups.iter().flat_map(|group| &group.snapshots) {
            seen += 1;
            let one = all.iter().find(|one| one.id == *id).unwrap();
            let must = one.is_pinned || !one.is_settled || one.time.as_second() > 1_700_000_000 - 864_000;
            prop_assert!(!must || !reasons.is_empty());
        }
        prop_assert_eq!(seen, all.len());
    }
}

#[test]
fn a_snapshot_of_another_repository_contradicts_nothing() {
    let mut all = at(&[
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
    ]);
    // The first was copied here after the others had been made.
    all[0].first = SessionId::new(9, [1; 16]);
    all[0].id = all[0].first;
    let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
    let alone: Vec<_> = trust::distrusted(&all, now).into_keys().collect();
    assert_eq!(alone, [all[0].id]);
    all[0].began = i64::MIN;
    assert!(trust::distrusted(&all, now).is_empty());
}
