//! Forgetting snapshots, by a policy or by name: plan, then apply.

use std::collections::BTreeMap;

use jiff::{Timestamp, Zoned};
use larder_format::cell::{Cell, CellKind};
use larder_format::ids::SessionId;

use crate::amend::{Outcome, Wish, amend, is_settled};
use crate::backup::read_from;
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::retention::{self, Candidate, GroupBy, GroupKey, Policy, Reason};
use crate::rewrite::{copied_from, is_from_elsewhere};
use crate::session::Author;
use crate::shards::runs;
use crate::snapshots::{self, Filter, SnapshotInfo, Which, clean_path};
use crate::view::View;

/// What is to be forgotten.
#[derive(Debug, Clone)]
pub enum Choice {
    /// What a policy does not keep, and what it keeps by name.
    Policy(Box<Policy>, Vec<Which>),
    /// These snapshots, whatever a policy says.
    Named(Vec<Which>),
}

/// How snapshots are forgotten.
#[derive(Debug, Clone)]
pub struct ForgetOptions {
    /// What is to be forgotten.
    pub choice: Choice,
    /// Which snapshots are looked at.
    pub filter: Filter,
    /// What makes snapshots one group.
    pub group_by: GroupBy,
}

/// What would be forgotten, and why the rest stays.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ForgetPlan {
    /// The snapshots that a policy was applied to, or all of the groups that lose one by name.
    pub groups: Vec<PlannedGroup>,
}

/// Snapshots for which the rules count together.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PlannedGroup {
    /// Their host; none if hosts are not told apart.
    pub host: Option<String>,
    /// Their paths (lossy where they are not UTF-8); none if paths are not told apart.
    pub paths: Option<Vec<String>>,
    /// Their tags; none if tags are not told apart.
    pub tags: Option<Vec<String>>,
    /// The snapshots, oldest first.
    pub snapshots: Vec<PlannedSnapshot>,
}

/// What is planned for a snapshot.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PlannedSnapshot {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: SnapshotInfo,
    /// Whether it is to be forgotten.
    pub forget: bool,
    /// Why the policy keeps it; empty if it does not, or if there is no policy.
    pub reasons: Vec<String>,
    /// Whether it stays for a better reason than that it is pinned, or that something is wrong with it.
    #[serde(skip)]
    pub is_kept: bool,
}

/// What was forgotten.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct ForgetReport {
    /// Ids of the snapshots that were forgotten.
    pub forgotten: Vec<String>,
    /// Ids of those that somebody pinned after they had been planned for; they stay.
    pub pinned: Vec<String>,
}

/// Plans what is to be forgotten; changes nothing.
///
/// `now` gives the moment from which ages are counted, and the zone of days and hours.
///
/// # Errors
/// `Request` for a policy without a rule or a pinned snapshot that is named, `NotFound` for a name
/// that is none, or what the storage answers.
pub fn plan(repository: &Repository, options: &ForgetOptions, now: &Zoned) -> Result<ForgetPlan> {
    let view = snapshots::read(repository)?;
    let infos = snapshots::of_view(&view, &Filter::default(), true);
    let candidates: Vec<Candidate> = infos
        .iter()
        .filter_map(|info| view.cells.get(&info.session))
        .map(|cell| candidate(&view, cell))
        .collect();
    let by_id = infos.into_iter().map(|info| (info.session, info)).collect();
    let groups = match &options.choice {
        Choice::Policy(policy, keep) => {
            let is_meant = |one: &Candidate| {
                let cell = view.cells.get(&one.id);
                cell.is_some_and(|cell| options.filter.takes(&view, cell))
            };
            let policy = with_named(policy, keep, &view)?;
            let verdicts = retention::apply(&candidates, is_meant, &policy, &options.group_by, now);
            let decided = verdicts.into_iter().map(|verdict| {
                let list = verdict.snapshots.into_iter();
                let list = list.map(|(id, reasons)| (id, reasons.is_empty(), reasons));
                planned(verdict.key, list.collect(), &by_id)
            });
            decided.collect()
        }
        Choice::Named(names) => {
            let named = resolve_all(&view, names, &options.filter)?;
            refuse_pinned(&named)?;
            // The groups as a whole, to see what is left of them.
            let groups = retention::groups(&candidates, |_| true, &options.group_by);
            let decided = groups.into_iter().map(|(key, list)| {
                let list = list
                    .iter()
                    .map(|one| (one.id, named.contains_key(&one.id), Vec::new()));
                planned(key, list.collect(), &by_id)
            });
            let touched = decided.filter(|group| group.snapshots.iter().any(|one| one.forget));
            touched.collect()
        }
    };
    Ok(ForgetPlan { groups })
}

impl ForgetPlan {
    /// Gives the snapshots that are to be forgotten.
    pub fn forgotten(&self) -> impl Iterator<Item = &PlannedSnapshot> {
        let all = self.groups.iter().flat_map(|group| &group.snapshots);
        all.filter(|one| one.forget)
    }

    /// Counts the snapshots that stay.
    #[must_use]
    pub fn kept(&self) -> usize {
        let all = self.groups.iter().flat_map(|group| &group.snapshots);
        all.filter(|one| !one.forget).count()
    }

    /// Fails if a group would lose its last finished snapshot, but for those that are pinned or in doubt.
    ///
    /// # Errors
    /// `Request`, naming the groups.
    pub fn refuse_empty(&self) -> Result<()> {
        let is_emptied = |group: &&PlannedGroup| {
            let finished = group.snapshots.iter().filter(|one| !one.snapshot.partial);
            let mut loses = finished.clone().filter(|one| one.forget);
            let mut keeps = finished.filter(|one| one.is_kept);
            loses.next().is_some() && keeps.next().is_none()
        };
        let emptied: Vec<String> = self
            .groups
            .iter()
            .filter(is_emptied)
            .map(PlannedGroup::describe)
            .collect();
        let Some(first) = emptied.first() else {
            return Ok(());
        };
        let more = match emptied.len() - 1 {
            0 => String::new(),
            1 => " and of one more group".to_owned(),
            more => format!(" and of {more} more groups"),
        };
        Err(EngineError::Request(format!(
            "no finished snapshot of {first}{more} would be left, but for pinned and doubtful ones, so nothing \
             was forgotten; keep more, or say --allow-empty if that is what you want"
        )))
    }
}

impl PlannedGroup {
    /// Describes what the snapshots have in common, e.g. `host desk, paths /etc /home`.
    #[must_use]
    pub fn describe(&self) -> String {
        let host = self.host.as_ref().map(|host| format!("host {host}"));
        let paths = self.paths.as_ref().map(|paths| match paths.as_slice() {
            [one] => format!("path {one}"),
            several => format!("paths {}", several.join(" ")),
        });
        let tags = self.tags.as_ref().map(|tags| match tags.as_slice() {
            [] => "no tags".to_owned(),
            tags => format!("tags {}", tags.join(",")),
        });
        let parts: Vec<String> = [host, paths, tags].into_iter().flatten().collect();
        if parts.is_empty() {
            "all snapshots".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

/// Forgets what a plan says.
///
/// What changed since the plan was made counts: what was pinned stays, and if all that was to stay
/// of a group was forgotten by somebody else, nothing is.
///
/// # Errors
/// `Request` then; `Interrupted`; or what the storage answers. What was forgotten by then is.
pub fn apply(
    repository: &Repository,
    plan: &ForgetPlan,
    author: &Author,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ForgetReport> {
    let mut report = ForgetReport::default();
    let count = plan.forgotten().count() as u64;
    if count == 0 {
        return Ok(report);
    }
    let mut view = snapshots::read(repository)?;
    refuse_outdated(plan, &view)?;
    progress.phase("forgetting", Some(count), None);
    for one in plan.forgotten() {
        cancel.check()?;
        let SnapshotInfo { session, id, .. } = &one.snapshot;
        match amend(repository, &mut view, session, &Wish::Forget, author) {
            Ok(Outcome::Pinned) => report.pinned.push(id.clone()),
            Ok(_) => report.forgotten.push(id.clone()),
            // Somebody else forgot it, and a prune has cleared it.
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        progress.advance(1, 0);
    }
    Ok(report)
}

/// Fails if nothing is left any more of what was to stay of a group.
fn refuse_outdated(plan: &ForgetPlan, view: &View) -> Result<()> {
    for group in &plan.groups {
        let finished = group.snapshots.iter().filter(|one| !one.snapshot.partial);
        let stay: Vec<_> = finished.clone().filter(|one| !one.forget).collect();
        let is_there = |one: &&PlannedSnapshot| {
            let id = &one.snapshot.session;
            view.cells.contains_key(id) && !view.is_forgotten(id)
        };
        if finished.count() > stay.len() && !stay.is_empty() && !stay.iter().any(is_there) {
            return Err(EngineError::Request(format!(
                "all that was to stay of {} was forgotten meanwhile by somebody else, so nothing \
                 more was forgotten; look at `larder snapshots` and try again",
                group.describe()
            )));
        }
    }
    Ok(())
}

/// Gathers what retention has to know of a snapshot.
fn candidate(view: &View, cell: &Cell) -> Candidate {
    let mut paths: Vec<Vec<u8>> = cell
        .sources
        .iter()
        .map(|one| clean_path(&one.path))
        .collect();
    paths.sort();
    paths.dedup();
    let before = cell.predecessor.iter().chain(&cell.parent);
    let copied = copied_from(cell);
    // A session says nothing of when a snapshot of another repository was made.
    let is_comparable = !is_from_elsewhere(cell);
    let seen = if copied.is_some() || !is_comparable {
        Vec::new()
    } else {
        before.chain(&cell.seen_cells).copied().collect()
    };
    let began = match is_comparable {
        true => read_from(cell),
        false => i64::MIN,
    };
    Candidate {
        id: cell.id,
        first: copied.unwrap_or(cell.id),
        time: Timestamp::from_nanosecond(cell.started.into()).unwrap_or_default(),
        began,
        ended: cell.ended,
        seen,
        host: cell.host.clone(),
        paths,
        tags: view.tags(cell).to_vec(),
        is_pinned: view.is_pinned(&cell.id),
        is_partial: cell.kind != CellKind::Complete,
        shard_of: runs::shard_run(cell),
        joined: runs::joined_run(cell),
        is_settled: is_settled(view, &cell.id),
    }
}

/// Adds what is kept by name, and refuses a policy without a rule.
fn with_named(policy: &Policy, keep: &[Which], view: &View) -> Result<Policy> {
    let mut policy = policy.clone();
    let named = resolve_all(view, keep, &Filter::default())?;
    policy.ids.extend(named.keys());
    if policy.is_empty() {
        return Err(EngineError::Request(
            "no rule says which snapshots to keep, so nothing was forgotten; give one, e.g. \
             --keep-last 7 or --keep-within 30d, or name the snapshots to forget"
                .to_owned(),
        ));
    }
    Ok(policy)
}

fn resolve_all(
    view: &View,
    names: &[Which],
    filter: &Filter,
) -> Result<BTreeMap<SessionId, SnapshotInfo>> {
    let found = names.iter().map(|which| {
        let info = snapshots::resolve_in(view, which, filter)?;
        Ok((info.session, info))
    });
    found.collect()
}

/// Refuses to forget what is pinned.
fn refuse_pinned(named: &BTreeMap<SessionId, SnapshotInfo>) -> Result<()> {
    let Some(pinned) = named.values().find(|one| one.pinned) else {
        return Ok(());
    };
    let id = &pinned.id;
    Err(EngineError::Request(format!(
        "snapshot {id} is pinned, so nothing was forgotten; `larder unpin {id}` first"
    )))
}

/// Joins what was decided for a group with what is known of its snapshots.
fn planned(
    key: GroupKey,
    newest_first: Vec<(SessionId, bool, Vec<Reason>)>,
    infos: &BTreeMap<SessionId, SnapshotInfo>,
) -> PlannedGroup {
    let lossy = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
    let snapshot = |(id, forget, reasons): &(SessionId, bool, Vec<Reason>)| {
        infos.get(id).map(|info| PlannedSnapshot {
            snapshot: info.clone(),
            forget: *forget,
            reasons: reasons.iter().map(ToString::to_string).collect(),
            is_kept: !forget && (reasons.is_empty() || reasons.iter().any(Reason::is_wanted)),
        })
    };
    PlannedGroup {
        host: key.host,
        paths: key.paths.map(|paths| paths.iter().map(lossy).collect()),
        tags: key.tags,
        snapshots: newest_first.iter().rev().filter_map(snapshot).collect(),
    }
}

#[cfg(test)]
mod tests;
