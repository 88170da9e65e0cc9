//! Times that cannot be right (SPEC.md §12, "Times").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use larder_format::ids::SessionId;

use super::Candidate;

/// Why a snapshot's time is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// It lies after the moment of the run.
    Future,
    /// It contradicts the order in which snapshots are known to have been made.
    Order,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Future => "its time is in the future",
            Self::Order => "its time contradicts the order of backups",
        })
    }
}

/// Finds the snapshots whose times are not believed.
///
/// The snapshots of one host have one clock. Of two of them, one is *known to be earlier* if it has
/// the lower round, or if the other's writer had seen it. If it nevertheless began, by the clock,
/// after the other had ended, one of the two times is wrong. Those with the most such contradictions
/// go first, all of them at once, until none is left: one wrong time among many right ones is found
/// alone, and of two that only contradict each other neither is believed. A copy was
/// made long after it was read: it is known to be earlier, and later, as that of which it is a copy.
pub(super) fn distrusted(all: &[Candidate], now: Timestamp) -> BTreeMap<SessionId, Distrust> {
    let mut found = BTreeMap::new();
    let mut clocks: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    let now_ns = now.as_nanosecond();
    for one in all {
        if one.time > now || i128::from(one.began) > now_ns {
            found.insert(one.id, Distrust::Future);
        } else if one.began > i64::MIN {
            clocks.entry(&one.host).or_default().push(one);
        }
    }
    for list in clocks.into_values() {
        let contradicting = contradicting(&involved(list));
        found.extend(contradicting.into_iter().map(|id| (id, Distrust::Order)));
    }
    found
}

fn contradicting(involved: &[&Candidate]) -> Vec<SessionId> {
    let against = |one: &Candidate, others: &[&Candidate]| {
        others.iter().filter(|other| contradict(one, other)).count()
    };
    let counted = involved.iter().map(|one| (*one, against(one, involved)));
    let mut left: Vec<(&Candidate, usize)> = counted.collect();
    let mut found = Vec::new();
    loop {
        let most = left.iter().map(|(_, count)| *count).max().unwrap_or(0);
        if most == 0 {
            return found;
        }
        let (worst, mut rest): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(_, count)| *count == most);
        let worst: Vec<&Candidate> = worst.into_iter().map(|(one, _)| one).collect();
        for (one, count) in &mut rest {
            *count = count.saturating_sub(against(one, &worst));
        }
        found.extend(worst.iter().map(|one| one.id));
        left = rest;
    }
}

/// Leaves out those that contradict nothing: in the usual case all, without a look at each pair.
fn involved(mut list: Vec<&Candidate>) -> Vec<&Candidate> {
    list.sort_by_key(|one| one.first.round());
    let mut by_first: BTreeMap<SessionId, Vec<&Candidate>> = BTreeMap::new();
    for one in &list {
        by_first.entry(one.first).or_default().push(one);
    }
    let mut found = BTreeSet::new();
    let mut latest_began = i64::MIN;
    for round in list.chunk_by(|one, other| one.first.round() == other.first.round()) {
        let after = round.iter().filter(|one| one.ended < latest_began);
        found.extend(after.map(|one| one.id));
        let began = round.iter().map(|one| one.began).max();
        latest_began = began.unwrap_or(i64::MIN).max(latest_began);
    }
    let mut first_ended = i64::MAX;
    for round in list
        .chunk_by(|one, other| one.first.round() == other.first.round())
        .rev()
    {
        let before = round.iter().filter(|one| one.began > first_ended);
        found.extend(before.map(|one| one.id));
        let ended = round.iter().map(|one| one.ended).min();
        first_ended = ended.unwrap_or(i64::MAX).min(first_ended);
    }
    for one in &list {
        for seen in one.seen.iter().filter_map(|id| by_first.get(id)).flatten() {
            if contradict(one, seen) {
                found.extend([one.id, seen.id]);
            }
        }
    }
    list.retain(|one| found.contains(&one.id));
    list
}

fn contradict(one: &Candidate, other: &Candidate) -> bool {
    is_earlier(one, other) && one.began > other.ended
        || is_earlier(other, one) && other.began > one.ended
}

fn is_earlier(one: &Candidate, other: &Candidate) -> bool {
    one.first.round() < other.first.round() || other.seen.contains(&one.first)
}
