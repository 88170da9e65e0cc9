//! Retention: which snapshots a policy keeps, and why (pure).
//!
//! Rules are restic's where restic has them: in each group the newest snapshot of each calendar
//! bucket is kept, newest bucket first, until the rule's count is used up; the group's oldest
//! snapshot takes a place that is left. What is kept aside takes no place, so that a snapshot with
//! a wrong time never makes another one be forgotten.

mod buckets;
mod duration;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use larder_format::ids::{RunId, SessionId};

use crate::shards::runs;

pub use buckets::Period;
pub use duration::{parse_duration, show_duration};
pub use trust::Distrust;

/// What retention knows of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The session that made it.
    pub id: SessionId,
    /// The session that made what it is a copy of, and whose time it carries; its own otherwise.
    pub first: SessionId,
    /// The time that it carries, by which it is kept.
    pub time: Timestamp,
    /// When its writer began, by the writer's clock, in nanoseconds since 1970; the least number where that is
    /// compared with nothing, since the writer wrote to another repository.
    pub began: i64,
    /// When its writer committed it, by the same clock.
    pub ended: i64,
    /// Snapshots that its writer had seen; none for a copy, which was read before that.
    pub seen: Vec<SessionId>,
    /// The host.
    pub host: String,
    /// The sources' paths, cleaned and sorted.
    pub paths: Vec<Vec<u8>>,
    /// The tags as they are now, sorted.
    pub tags: Vec<String>,
    /// Whether it is pinned.
    pub is_pinned: bool,
    /// Whether it is the checkpoint of an unfinished backup, or a shard.
    pub is_partial: bool,
    /// The run that it is a shard of.
    pub shard_of: Option<RunId>,
    /// The run of whose shards it was made.
    pub joined: Option<RunId>,
    /// Whether all changes to it can be read; if not, it may be pinned or forgotten already.
    pub is_settled: bool,
}

/// How many snapshots a rule keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Some(u64),
    /// All.
    All,
}

/// What is kept. Rules add up: what one of them keeps stays.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The newest snapshots.
    pub last: Option<Count>,
    /// The newest snapshot of each hour, day ... with a snapshot.
    pub counts: BTreeMap<Period, Count>,
    /// All snapshots that are not so much older than the newest of their group.
    pub within: Option<Span>,
    /// The newest snapshot of each hour, day ... among those.
    pub within_each: BTreeMap<Period, Span>,
    /// All snapshots with every tag of one of these lists.
    pub tags: Vec<Vec<String>>,
    /// These snapshots.
    pub ids: BTreeSet<SessionId>,
    /// Whatever is younger than this, counted from now.
    pub minimum_age: Option<Span>,
}

impl Policy {
    /// Tells whether no rule was given; a minimum age alone says nothing of what is to stay.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let counted = self.last.is_some() || !self.counts.is_empty();
        let within = self.within.is_some() || !self.within_each.is_empty();
        !counted && !within && self.tags.is_empty() && self.ids.is_empty()
    }
}

/// What makes snapshots one group, within which the rules count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The same host.
    pub host: bool,
    /// The same paths.
    pub paths: bool,
    /// The same tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self {
            host: true,
            paths: true,
            tags: false,
        }
    }
}

/// What the snapshots of a group have in common; `None` is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// The host.
    pub host: Option<String>,
    /// The paths.
    pub paths: Option<Vec<Vec<u8>>>,
    /// The tags.
    pub tags: Option<Vec<String>>,
}

impl GroupBy {
    /// Gives the group of a snapshot.
    #[must_use]
    pub fn key(&self, one: &Candidate) -> GroupKey {
        GroupKey {
            host: self.host.then(|| one.host.clone()),
            paths: self.paths.then(|| one.paths.clone()),
            tags: self.tags.then(|| one.tags.clone()),
        }
    }
}

/// Why a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is among the newest.
    Last,
    /// It is the newest of its bucket.
    Newest(Period),
    /// It is the oldest of its group, and the rule had a place left.
    Oldest(Period),
    /// It is within a duration of the newest.
    Within(String),
    /// It is the newest of its bucket, within a duration.
    NewestWithin(Period, String),
    /// It is the oldest of its group, within a duration.
    OldestWithin(Period, String),
    /// It has these tags.
    Tags(Vec<String>),
    /// It is named.
    Id,
    /// It is younger than the minimum age.
    Young(String),
    /// It is pinned.
    Pinned,
    /// The next backup may go on from this checkpoint.
    Unfinished,
    /// Its time cannot be right; it takes no place of a rule.
    Distrusted(Distrust),
    /// A change to it cannot be read, so it may be pinned; it takes no place of a rule.
    Unsettled,
}

impl Reason {
    /// Tells whether a rule wants the snapshot, and not only caution.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !matches!(
            self,
            Self::Pinned | Self::Unfinished | Self::Distrusted(_) | Self::Unsettled
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Newest(period) => write!(f, "{period}"),
            Self::Oldest(period) => write!(f, "oldest {period}"),
            Self::Within(span) => write!(f, "within {span}"),
            Self::NewestWithin(period, span) => write!(f, "{period} within {span}"),
            Self::OldestWithin(period, span) => write!(f, "oldest {period} within {span}"),
            Self::Tags(tags) => write!(f, "tags {}", tags.join(",")),
            Self::Id => f.write_str("named"),
            Self::Young(span) => write!(f, "younger than {span}"),
            Self::Pinned => f.write_str("pinned"),
            Self::Unfinished => f.write_str("unfinished, may be gone on from"),
            Self::Distrusted(why) => write!(f, "{why}"),
            Self::Unsettled => f.write_str("a change to it cannot be read"),
        }
    }
}

/// What a policy decides for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupVerdict {
    /// What its snapshots have in common.
    pub key: GroupKey,
    /// Each snapshot with the reasons to keep it, newest first; one without reasons goes.
    pub snapshots: Vec<(SessionId, Vec<Reason>)>,
}

/// Applies a policy: every snapshot that is meant is in one group of the answer, with its reasons
/// to stay.
///
/// The others only bear witness to the order of things. `now` gives the moment from which ages are
/// counted, and the zone of days and hours.
#[must_use]
pub fn apply(
    all: &[Candidate],
    is_meant: impl Fn(&Candidate) -> bool,
    policy: &Policy,
    group_by: &GroupBy,
    now: &Zoned,
) -> Vec<GroupVerdict> {
    let distrusted = trust::distrusted(all, now.timestamp());
    let verdict = |(key, group): (GroupKey, Vec<&Candidate>)| {
        let mut reasons = counted(&group, policy, &distrusted, now.time_zone());
        for one in &group {
            let mine = reasons.entry(one.id).or_default();
            mine.extend(by_itself(one, policy, now));
            if let Some(why) = distrusted.get(&one.id) {
                mine.push(Reason::Distrusted(*why));
            }
            if one.is_partial && !is_outdated(one, all, &distrusted, now) {
                mine.push(Reason::Unfinished);
            }
        }
        let take = |one: &&Candidate| (one.id, reasons.remove(&one.id).unwrap_or_default());
        GroupVerdict {
            key,
            snapshots: group.iter().map(take).collect(),
        }
    };
    let groups = groups(all, is_meant, group_by);
    groups.into_iter().map(verdict).collect()
}

/// Puts the snapshots that are meant into groups, in each the newest first.
#[must_use]
pub fn groups<'a>(
    all: &'a [Candidate],
    is_meant: impl Fn(&Candidate) -> bool,
    group_by: &GroupBy,
) -> BTreeMap<GroupKey, Vec<&'a Candidate>> {
    let mut sorted: Vec<&Candidate> = all.iter().filter(|one| is_meant(one)).collect();
    sorted.sort_by_key(|one| std::cmp::Reverse((one.time, one.ended, one.id)));
    let mut groups: BTreeMap<GroupKey, Vec<&Candidate>> = BTreeMap::new();
    for one in sorted {
        groups.entry(group_by.key(one)).or_default().push(one);
    }
    groups
}

/// Applies the rules that count within a group.
fn counted(
    group: &[&Candidate],
    policy: &Policy,
    distrusted: &BTreeMap<SessionId, Distrust>,
    zone: &TimeZone,
) -> BTreeMap<SessionId, Vec<Reason>> {
    let takes_part =
        |one: &&&Candidate| !one.is_partial && one.is_settled && !distrusted.contains_key(&one.id);
    let list: Vec<&Candidate> = group.iter().filter(takes_part).copied().collect();
    let mut reasons: BTreeMap<SessionId, Vec<Reason>> = BTreeMap::new();
    let Some(newest) = list.first() else {
        return reasons;
    };
    let newest = newest.time.to_zoned(zone.clone());
    let mut keep = |one: &Candidate, reason: Reason| {
        reasons.entry(one.id).or_default().push(reason);
    };
    let last = policy.last.map_or(0, |count| count.up_to(list.len()));
    for one in list.iter().take(last) {
        keep(one, Reason::Last);
    }
    for (period, count) in &policy.counts {
        let most = count.up_to(list.len());
        for (one, is_oldest) in buckets::choose(&list, *period, most, zone) {
            keep(
                one,
                if is_oldest {
                    Reason::Oldest(*period)
                } else {
                    Reason::Newest(*period)
                },
            );
        }
    }
    if let Some(span) = &policy.within {
        let shown = show_duration(span);
        for one in list.iter().filter(|one| is_within(one, span, &newest)) {
            keep(one, Reason::Within(shown.clone()));
        }
    }
    for (period, span) in &policy.within_each {
        let near: Vec<&Candidate> = list
            .iter()
            .filter(|one| is_within(one, span, &newest))
            .copied()
            .collect();
        for (one, is_oldest) in buckets::choose(&near, *period, usize::MAX, zone) {
            let shown = show_duration(span);
            if !is_oldest {
                keep(one, Reason::NewestWithin(*period, shown));
            } else if near.len() == list.len() {
                // Only the oldest of all is history that would be cut short.
                keep(one, Reason::OldestWithin(*period, shown));
            }
        }
    }
    reasons
}

impl Count {
    fn up_to(self, all: usize) -> usize {
        match self {
            Self::Some(count) => usize::try_from(count).unwrap_or(usize::MAX).min(all),
            // One more than there are, so that a place is left for the oldest.
            Self::All => usize::MAX,
        }
    }
}

/// Tells whether a snapshot is less than a span older than the newest; a span beyond all calendars
/// reaches everything.
fn is_within(one: &Candidate, span: &Span, newest: &Zoned) -> bool {
    let since = newest.checked_sub(*span);
    since.is_err() || since.is_ok_and(|since| one.time > since.timestamp())
}

/// Gives the reasons that a snapshot has whatever else there is.
fn by_itself(one: &Candidate, policy: &Policy, now: &Zoned) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for list in &policy.tags {
        if list.iter().all(|tag| one.tags.contains(tag)) {
            reasons.push(Reason::Tags(list.clone()));
        }
    }
    if policy.ids.contains(&one.id) {
        reasons.push(Reason::Id);
    }
    if let Some(span) = &policy.minimum_age
        && is_within(one, span, now)
    {
        reasons.push(Reason::Young(show_duration(span)));
    }
    if one.is_pinned {
        reasons.push(Reason::Pinned);
    }
    if !one.is_settled {
        reasons.push(Reason::Unsettled);
    }
    reasons
}

/// Tells whether no backup will go on from a checkpoint: a later one of the same host got all of
/// its paths.
fn is_outdated(
    checkpoint: &Candidate,
    all: &[Candidate],
    distrusted: &BTreeMap<SessionId, Distrust>,
    now: &Zoned,
) -> bool {
    if let Some(run) = checkpoint.shard_of {
        return is_run_over(run, all, now);
    }
    let has_all = |one: &Candidate| checkpoint.paths.iter().all(|path| one.paths.contains(path));
    all.iter().any(|one| {
        !one.is_partial
            && one.is_settled
            && one.host == checkpoint.host
            && one.ended > checkpoint.ended
            && !distrusted.contains_key(&one.id)
            && has_all(one)
    })
}

/// Tells whether nobody goes on with a run: it was joined, or nothing was seen of it for long.
fn is_run_over(run: RunId, all: &[Candidate], now: &Zoned) -> bool {
    let of_run = all.iter().filter(|one| one.shard_of == Some(run));
    let last = of_run.map(|one| one.ended).max().unwrap_or(i64::MIN);
    let now = i64::try_from(now.timestamp().as_nanosecond()).unwrap_or(i64::MAX);
    all.iter().any(|one| one.joined == Some(run)) || runs::is_over(last, now)
}

#[cfg(test)]
mod tests;
