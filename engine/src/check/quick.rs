//! The quick level: what the storage lists, compared with what the index says of it.
//!
//! What opens the repository is read, too; it is little. Nothing of a pack is read. Both sides are sorted on disk where they do not fit into memory, and
//! then merged, so the number of packs costs time alone.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use larder_format::ids::ObjectId;
use larder_format::names::{self, Name};

use super::context::{Context, Problem};
use super::findings::Damage;
use super::openers::Openers;
use super::{CheckReport, Checked, Severity};
use crate::error::{EngineError, Result};
use crate::scratch::runs::{Records, Sorted, Sorter};
use crate::view::{self, View};

/// Memory of the packs on either side, before they go to disk.
const PACKS_BYTES: usize = 16 << 20;
/// Packs that are asked for by name before the listing alone is believed.
const CONFIRMED_MAX: u64 = 1000;
/// Packs that are told one by one.
const TOLD_MAX: u64 = 10_000;

/// A pack's id and size.
type Row = [u8; 40];

/// Compares the listing with the index, once.
pub(super) fn check_once(context: &Context<'_>) -> Result<Checked> {
    let repository = context.repository;
    let mut damage = Damage::new(repository.cache_dir());
    context.progress.phase("reading the index", None, None);
    Openers::list(context)?.check(context, &mut damage)?;
    let view = match view::read(repository, false, None) {
        Ok(view) => view,
        Err(EngineError::Damaged { object, why }) => {
            let problem = format!(
                "{why}; nothing else can be compared before it is put back from a copy of the storage: `larder check` says what can still be read"
            );
            damage.add(Severity::Loss, object, problem);
            return Ok(Checked {
                report: CheckReport {
                    healable: damage.mendable(),
                    findings: damage.into_findings(&BTreeSet::new()),
                    ..CheckReport::default()
                },
                seen: None,
                damaged: BTreeSet::new(),
            });
        }
        Err(error) => return Err(error),
    };
    note_view(&view, &mut damage);
    context.progress.phase("listing packs", None, None);
    check_segments(context, &view, &mut damage)?;
    let expected = expected(context, &view)?;
    let listed = listed(context)?;
    let mut merge = Merge {
        context,
        damage: &mut damage,
        packs: 0,
        asked: 0,
        untold: 0,
        orphans: (0, 0),
        damaged: BTreeSet::new(),
    };
    merge.run(expected.iter()?, listed.iter()?)?;
    merge.note_rest();
    let (packs, damaged) = (merge.packs, merge.damaged);
    let known = view.collection.suspects().copied().collect();
    let report = CheckReport {
        healable: damage.mendable(),
        findings: damage.into_findings(&known),
        snapshots: view.live().len() as u64,
        packs,
        bytes_read: context.bytes_read(),
        ..CheckReport::default()
    };
    Ok(Checked {
        report,
        seen: (!view.lacks_collection).then(|| view.collection.numbers()),
        damaged,
    })
}

/// Reports the records that cannot be used, and those that were seen before and are gone.
pub(super) fn note_view(view: &View, damage: &mut Damage) {
    for one in &view.unusable {
        let name = names::parse(&one.object);
        let forgotten = matches!(&name, Some(Name::Cell(id)) if view.is_forgotten(id));
        let (severity, meaning) = match name {
            Some(Name::Cell(_)) if forgotten => {
                (Severity::Harmless, "it was forgotten, so nothing is lost")
            }
            Some(Name::Cell(_)) => (
                Severity::Loss,
                "this snapshot cannot be restored, the others do not need it",
            ),
            Some(Name::Amendment(..)) => (
                Severity::Harmless,
                "a change of tags, a pin or a forget is lost",
            ),
            Some(Name::Segment(_)) => (
                Severity::Harmless,
                "the packs' own directories say the same; which packs they are `larder check` finds out",
            ),
            _ => (Severity::Harmless, "what it says is not known"),
        };
        damage.add(severity, &one.object, format!("{}; {meaning}", one.why));
    }
    for lost in &view.lost {
        let (severity, what) = match names::parse(lost) {
            Some(Name::Cell(id)) if view.is_forgotten(&id) => (
                Severity::Harmless,
                "the snapshot was deleted, and had been forgotten before",
            ),
            Some(Name::Cell(_)) => (Severity::Loss, "the snapshot was deleted"),
            _ => (
                Severity::Harmless,
                "the repository went back to an older state",
            ),
        };
        let problem = format!("{what}: this machine saw it, it is not there, and no prune took it");
        damage.add(severity, lost, problem);
    }
}

/// Reports the segments that count and are not listed: the local index may have them all the same.
fn check_segments(context: &Context<'_>, view: &View, damage: &mut Damage) -> Result<()> {
    let mut missing = view.segments();
    context
        .repository
        .storage()
        .list(names::SEGMENTS, &mut |object| {
            if let Some(Name::Segment(id)) = names::parse(&object.name) {
                missing.remove(&id);
            }
            Ok(())
        })?;
    for id in missing {
        let name = names::segment(&id);
        let is_known = view.unusable.iter().any(|one| one.object == name);
        if is_known || context.size(&name)?.is_ok() {
            continue;
        }
        damage.add(
            Severity::Harmless,
            name,
            "it is missing; the packs' own directories say the same, so restores are slow and not impossible",
        );
    }
    Ok(())
}

/// Sorts what the index says of packs that must be there.
fn expected(context: &Context<'_>, view: &View) -> Result<Sorted<40>> {
    let repository = context.repository;
    let mut sorter = Sorter::new(repository.cache_dir(), PACKS_BYTES);
    let mut failure = None;
    let deleted = &view.collection.state.deleted;
    repository.index().packs(&mut |pack| {
        if deleted.contains(&pack.id) {
            return ControlFlow::Continue(());
        }
        match sorter.push(row(&pack.id, pack.size)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(sorter.finish()?),
    }
}

/// Sorts what the storage lists.
fn listed(context: &Context<'_>) -> Result<Sorted<40>> {
    let repository = context.repository;
    let mut sorter = Sorter::new(repository.cache_dir(), PACKS_BYTES);
    let mut failure = None;
    repository.storage().list(names::PACKS, &mut |object| {
        if let Some(Name::Pack(id)) = names::parse(&object.name) {
            if failure.is_none()
                && let Err(error) = sorter.push(row(&id, object.size_bytes))
            {
                failure = Some(error);
            }
            context.progress.advance(1, 0);
        }
        Ok(())
    })?;
    context.cancel.check()?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(sorter.finish()?),
    }
}

/// Two sorted lists of packs on their way into findings.
struct Merge<'a, 'b> {
    context: &'a Context<'b>,
    damage: &'a mut Damage,
    packs: u64,
    asked: u64,
    untold: u64,
    /// Packs that nothing names, and their bytes.
    orphans: (u64, u64),
    damaged: BTreeSet<ObjectId>,
}

impl Merge<'_, '_> {
    fn run(&mut self, expected: Records<'_, 40>, listed: Records<'_, 40>) -> Result<()> {
        let mut listed = listed.peekable();
        for row in expected {
            let (id, size) = parts(&row?);
            self.packs += 1;
            if self.packs.is_multiple_of(4096) {
                self.context.cancel.check()?;
            }
            let mut found = None;
            while let Some(next) = listed.next_if(|next| match next {
                Ok(next) => parts(next).0 <= id,
                Err(_) => true,
            }) {
                let (other, bytes) = parts(&next?);
                if other == id {
                    found = Some(bytes);
                } else {
                    self.orphans = (self.orphans.0 + 1, self.orphans.1.saturating_add(bytes));
                }
            }
            if found != Some(size) {
                self.differs(id, size, found)?;
            }
        }
        for row in listed {
            let (_, bytes) = parts(&row?);
            self.orphans = (self.orphans.0 + 1, self.orphans.1.saturating_add(bytes));
        }
        Ok(())
    }

    /// Takes a pack that is not listed as the index says, once the storage has been asked again.
    fn differs(&mut self, id: ObjectId, size: u64, listed: Option<u64>) -> Result<()> {
        let name = names::pack(&id);
        let mut found = listed.ok_or(Problem::Missing);
        if self.asked < CONFIRMED_MAX {
            self.asked += 1;
            found = self.context.size(&name)?;
        }
        let problem = match found {
            Ok(found) if found == size => return Ok(()),
            Ok(found) => format!("it has {found} bytes instead of {size}"),
            Err(problem) => problem.to_string(),
        };
        self.damaged.insert(id);
        if self.damaged.len() as u64 > TOLD_MAX {
            self.untold += 1;
            return Ok(());
        }
        let problem = format!(
            "{problem}; `larder check --level structure` names the snapshots and paths that need it"
        );
        self.damage.add(Severity::Loss, name, problem);
        Ok(())
    }

    fn note_rest(&mut self) {
        if self.untold > 0 {
            let problem = format!("{} more packs are missing or have other sizes", self.untold);
            self.damage.add(Severity::Loss, names::PACKS, problem);
        }
        self.damage
            .note_orphan_packs(self.orphans.0, self.orphans.1);
    }
}

fn row(id: &ObjectId, size: u64) -> Row {
    let mut row = [0; 40];
    let bytes = id.0.iter().copied().chain(size.to_be_bytes());
    for (to, from) in row.iter_mut().zip(bytes) {
        *to = from;
    }
    row
}

fn parts(row: &Row) -> (ObjectId, u64) {
    let id = row.first_chunk().copied().unwrap_or_default();
    let size = row.last_chunk().copied().map_or(0, u64::from_be_bytes);
    (ObjectId(id), size)
}
