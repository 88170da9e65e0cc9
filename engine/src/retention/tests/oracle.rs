//! The rules once more, slowly: for each snapshot and rule, who else is there. The calendar is
//! arithmetic on days, the zone is the rule of the European Union.

use super::*;

const DAY: i64 = 86_400;

/// The day, month and year of a number of days since 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let (mut year, mut rest) = (1970, days);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (rest + 1, month, year)
}

/// Seconds that Berlin's clocks are ahead: two hours from the last Sunday of March, 01:00 UTC, to that of
/// October.
fn berlin(seconds: i64) -> i64 {
    let days = seconds.div_euclid(DAY);
    let (day, month, _) = civil(days);
    let weekday = (days + 4) % 7; // 0 is Sunday
    let in_summer = match month {
        4..=9 => true,
        3 | 10 => {
            let last_sunday_is_over =
                day - weekday >= 25 && !(weekday == 0 && seconds % DAY < 3600);
            last_sunday_is_over == (month == 3)
        }
        _ => false,
    };
    if in_summer { 7200 } else { 3600 }
}

fn bucket(period: Period, seconds: i64) -> (i64, i64, i64) {
    let offset = berlin(seconds);
    let local = seconds + offset;
    let days = local.div_euclid(DAY);
    let (_, month, year) = civil(days);
    match period {
        Period::Hour => (local.div_euclid(3600), offset, 0),
        Period::Day => (days, 0, 0),
        // 1970-01-05 was a Monday.
        Period::Week => ((days - 4).div_euclid(7), 0, 0),
        Period::Month => (year, month, 0),
        Period::Quarter => (year, (month + 2) / 3, 0),
        Period::Year => (year, 0, 0),
    }
}

fn newer(one: &Candidate, other: &Candidate) -> bool {
    (one.time, one.ended, one.id) > (other.time, other.ended, other.id)
}

/// Tells whether the rule `period` keeps `one`, of those that `near` names.
fn by_bucket(one: &Candidate, list: &[&Candidate], period: Period, most: Option<u64>) -> bool {
    let of = |one: &Candidate| bucket(period, one.time.as_second());
    let is_newest = |one: &Candidate| {
        !list
            .iter()
            .any(|other| of(other) == of(one) && newer(other, one))
    };
    let before = list
        .iter()
        .filter(|other| newer(other, one) && is_newest(other))
        .count() as u64;
    let has_place = most.is_none_or(|most| before < most);
    let is_oldest = !list.iter().any(|other| newer(one, other));
    has_place && (is_newest(one) || is_oldest)
}

/// Tells whether a policy of counts, hours and tags keeps a snapshot.
fn stays(
    one: &Candidate,
    all: &[Candidate],
    policy: &Policy,
    hours: &BTreeMap<Option<Period>, i64>,
) -> bool {
    let group: Vec<&Candidate> = all
        .iter()
        .filter(|other| other.host == one.host && other.paths == one.paths)
        .collect();
    let most = |count: Count| match count {
        Count::Some(count) => Some(count),
        Count::All => None,
    };
    let newer_ones = group.iter().filter(|other| newer(other, one)).count() as u64;
    let newest = group.iter().map(|one| one.time.as_second()).max().unwrap();
    let oldest = group.iter().all(|other| !newer(one, other));
    let last = policy
        .last
        .is_some_and(|count| most(count).is_none_or(|most| newer_ones < most));
    let counted = policy
        .counts
        .iter()
        .any(|(period, count)| by_bucket(one, &group, *period, most(*count)));
    let near = hours.iter().any(|(period, hours)| {
        let is_near = |one: &Candidate| one.time.as_second() > newest - hours * 3600;
        let near: Vec<&Candidate> = group.iter().filter(|one| is_near(one)).copied().collect();
        is_near(one)
            && match period {
                None => true,
                Some(period) => {
                    let newest_of = near.iter().all(|other| {
                        !newer(other, one)
                            || bucket(*period, other.time.as_second())
                                != bucket(*period, one.time.as_second())
                    });
                    newest_of || oldest
                }
            }
    });
    let tagged = policy
        .tags
        .iter()
        .any(|list| list.iter().all(|tag| one.tags.contains(tag)));
    last || counted || near || tagged || one.is_pinned
}

fn any_period() -> impl Strategy<Value = Period> {
    (0..6_usize).prop_map(|at| Period::ALL[at])
}

fn any_count() -> impl Strategy<Value = Count> {
    prop_oneof![(0..8_u64).prop_map(Count::Some), Just(Count::All)]
}

/// Times in clusters: years, days, hours and minutes apart, many of them near the change of clocks
/// on 2026-10-25 at 01:00 UTC and at the turn of the year.
fn any_time() -> impl Strategy<Value = i64> {
    let bases = prop_oneof![
        Just(1_792_890_000_i64),
        Just(1_798_758_000_i64),
        Just(1_774_746_000_i64)
    ];
    (bases, -4..4_i64, -40..40_i64, -30..30_i64, -60..60_i64).prop_map(
        |(base, years, days, hours, minutes)| {
            base + years * 365 * DAY + days * DAY + hours * 3600 + minutes * 60
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn a_slow_oracle_agrees(
        facts in proptest::collection::vec((any_time(), 0..3_u8, "[ab]{0,2}", prop::bool::weighted(0.05)), 0..40),
        last in proptest::option::of(any_count()),
        counted in proptest::collection::btree_map(any_period(), any_count(), 0..4),
        hours in proptest::collection::btree_map(proptest::option::of(any_period()), 1..3000_i64, 0..3),
        tags in proptest::collection::vec(proptest::collection::vec("[ab]", 1..3), 0..2),
    ) {
        let mut all = Vec::new();
        for ((seconds, place, tags, pinned), number) in facts.into_iter().zip(1..) {
            let mut one = candidate(number, 0, Timestamp::from_second(seconds).unwrap());
            one.tags = tags.chars().map(String::from).collect();
            one.is_pinned = pinned;
            match place {
                0 => one.host = "lap".into(),
                1 => one.paths = vec![b"/etc".to_vec(), b"/home".to_vec()],
                _ => {}
            }
            all.push(one);
        }
        let policy = Policy { last, counts: counted, tags, ..Policy::default() };
        let mut with_hours = policy.clone();
        for (period, hours) in &hours {
            let span = Span::new().hours(*hours);
            match period {
                None => with_hours.within = Some(span),
                Some(period) => { with_hours.within_each.insert(*period, span); }
            }
        }
        let now = Timestamp::from_second(4_000_000_000).unwrap().in_tz("Europe/Berlin").unwrap();
        for (id, reasons) in apply(&all, |_| true, &with_hours, &GroupBy::default(), &now).iter().flat_map(|group| &group.snapshots) {
            let one = all.iter().find(|one| one.id == *id).unwrap();
            prop_assert_eq!(!reasons.is_empty(), stays(one, &all, &policy, &hours), "{:?}: {:?}", one.time, reasons);
        }
    }
}
