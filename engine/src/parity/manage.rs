//! What parity there is, how much there is to be, and giving it to packs that have none.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use larder_format::ids::ObjectId;
use larder_format::names::{self, Name};
use larder_format::object::object_id;
use larder_format::parity::{Group, Member};
use serde::Serialize;

use super::heal::{Coverage, make};
use super::spool::GROUP_BYTES;
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::index::PackKind;
use crate::keys;
use crate::progress::Progress;
use crate::repository::{Repository, check_parity};
use crate::view;

/// What parity a repository has.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ParityStatus {
    /// The share in percent that writers give parity for; none if they give none.
    pub percent: Option<u8>,
    /// Parity objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of which nothing can be read.
    pub damaged: u64,
    /// Packs that count.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs that have parity which serves.
    pub protected: u64,
    /// Their bytes.
    pub protected_bytes: u64,
}

/// How parity is given to packs that have none.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildOptions {
    /// Says what would be done and does nothing.
    pub dry_run: bool,
    /// Bytes of packs that are read at most.
    pub max_bytes: Option<u64>,
}

/// What was done for packs without parity, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BuildReport {
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// Packs that got parity, or would.
    pub packs: u64,
    /// Bytes of packs that were read for it, or would be.
    pub bytes_read: u64,
    /// Parity objects that were written.
    pub objects: u64,
    /// Their bytes; in a dry run what they would have.
    pub bytes_written: u64,
    /// Packs that have none still, since the budget was spent.
    pub left: u64,
    /// Packs that were found damaged and got none.
    pub damaged: u64,
    /// Parity objects that served no more and were deleted.
    pub deleted: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A pack that counts.
#[derive(Debug, Clone, Copy)]
struct Counted {
    kind: PackKind,
    size: u64,
}

/// Tells what parity there is.
///
/// # Errors
/// `Interrupted`, or what the storage answers.
pub fn status(repository: &Arc<Repository>, cancel: &Cancel) -> Result<ParityStatus> {
    let packs = counted(repository)?;
    let coverage = Coverage::read(repository.storage(), cancel)?;
    let percent = repository.config().parity();
    let protected = protected(&coverage, &packs, percent);
    let bytes = |packs: &mut dyn Iterator<Item = u64>| packs.fold(0, u64::saturating_add);
    Ok(ParityStatus {
        percent,
        objects: (coverage.groups.len() + coverage.unreadable.len()) as u64,
        bytes: bytes(&mut coverage.groups.values().map(|(_, size)| *size)),
        damaged: coverage.unreadable.len() as u64,
        packs: packs.len() as u64,
        pack_bytes: bytes(&mut packs.values().map(|pack| pack.size)),
        protected: protected.len() as u64,
        protected_bytes: bytes(&mut protected.values().map(|pack| pack.size)),
    })
}

/// Sets the share of packs, in percent, that writers give parity for from now on; none for no parity.
///
/// # Errors
/// `Request` for an impossible share, or what the storage answers.
pub fn set(repository: &Repository, percent: Option<u8>) -> Result<()> {
    check_parity(percent)?;
    if keys::newest(repository)?.parity() == percent {
        return Ok(());
    }
    keys::change(repository, |config| {
        config.set_parity(percent);
        Ok(())
    })
}

/// Gives parity to the packs that have none that serves, and deletes what serves no more.
///
/// # Errors
/// `Request` if the repository keeps no parity; `Interrupted`, or what the storage answers. What was written by
/// then stays.
pub fn build(
    repository: &Arc<Repository>,
    options: &BuildOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<BuildReport> {
    let started = Instant::now();
    let Some(percent) = keys::newest(repository)?.parity() else {
        return Err(EngineError::Request(
            "the repository keeps no parity; `larder parity set 5` lets it keep 5 %".to_owned(),
        ));
    };
    if !options.dry_run {
        repository.check_write()?;
    }
    progress.phase("listing", None, None);
    let mut packs = counted(repository)?;
    let coverage = Coverage::known(repository.storage(), repository.index(), cancel)?;
    let protected = protected(&coverage, &packs, Some(percent));
    packs.retain(|id, _| !protected.contains_key(id));
    let mut report = BuildReport {
        dry_run: options.dry_run,
        ..BuildReport::default()
    };
    let groups = choose(&packs, percent, options.max_bytes);
    let chosen = |group: &(Vec<Member>, bool)| group.0.len() as u64;
    let total: u64 = groups.iter().map(chosen).sum();
    report.left = packs.len() as u64 - total;
    let bytes = |group: &(Vec<Member>, bool)| group.0.iter().map(|one| one.length).sum::<u64>();
    let phase = "reading packs for parity";
    progress.phase(phase, Some(total), Some(groups.iter().map(bytes).sum()));
    for group in groups {
        cancel.check()?;
        let (packs, read) = (chosen(&group), bytes(&group));
        let Some(group) = Group::plan(group.0, percent, group.1) else {
            continue;
        };
        report.bytes_read += read;
        if options.dry_run {
            report.packs += packs;
            report.objects += 1;
            report.bytes_written += group.object_bytes() as u64;
            continue;
        }
        write(repository, group, &mut report, cancel)?;
        progress.advance(packs, read);
    }
    if !options.dry_run {
        report.deleted = clean(repository, cancel)?.deleted;
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Writes the parity of a group; packs that turn out damaged are left out.
fn write(
    repository: &Repository,
    group: Group,
    report: &mut BuildReport,
    cancel: &Cancel,
) -> Result<()> {
    let (storage, scratch) = (repository.storage(), repository.cache_dir());
    let packs = group.members.len() as u64;
    match make(storage, scratch, group, cancel)? {
        Some(object) => {
            report.objects += 1;
            report.packs += packs;
            report.bytes_written += object.len() as u64;
            Ok(storage.put(&names::parity(&object_id(&object)), object)?)
        }
        None => {
            report.damaged += packs;
            Ok(())
        }
    }
}

/// Puts packs into groups as writers do, within a budget of bytes; tells of each whether it is full.
fn choose(
    packs: &BTreeMap<ObjectId, Counted>,
    percent: u8,
    max_bytes: Option<u64>,
) -> Vec<(Vec<Member>, bool)> {
    let full = 100_usize.div_ceil(usize::from(percent.max(1)));
    let mut left = max_bytes.unwrap_or(u64::MAX);
    let mut groups = Vec::new();
    for kind in [PackKind::Tree, PackKind::Data] {
        let (mut open, mut bytes) = (Vec::new(), 0_u64);
        for (id, pack) in packs.iter().filter(|(_, pack)| pack.kind == kind) {
            if pack.size > left {
                break;
            }
            left -= pack.size;
            bytes += pack.size;
            open.push(Member {
                id: *id,
                length: pack.size,
            });
            if open.len() >= full || bytes >= GROUP_BYTES {
                groups.push((std::mem::take(&mut open), true));
                bytes = 0;
            }
        }
        if !open.is_empty() {
            groups.push((open, false));
        }
    }
    groups
}

/// Gives the packs that count, are listed with their size, and are in no doubt.
fn counted(repository: &Arc<Repository>) -> Result<BTreeMap<ObjectId, Counted>> {
    let view = view::read(repository, false, None)?;
    let unusable = view.collection.unusable_packs();
    let mut named = BTreeMap::new();
    repository.index().packs(&mut |pack| {
        if !unusable.contains(&pack.id) {
            let (kind, size) = (pack.kind, pack.size);
            named.insert(pack.id, Counted { kind, size });
        }
        ControlFlow::Continue(())
    })?;
    let mut packs = BTreeMap::new();
    repository.storage().list(names::PACKS, &mut |object| {
        if let Some(Name::Pack(id)) = names::parse(&object.name)
            && let Some(pack) = named.get(&id)
            && pack.size == object.size_bytes
        {
            packs.insert(id, *pack);
        }
        Ok(())
    })?;
    Ok(packs)
}

/// Gives the packs of groups that still serve.
fn protected(
    coverage: &Coverage,
    packs: &BTreeMap<ObjectId, Counted>,
    percent: Option<u8>,
) -> BTreeMap<ObjectId, Counted> {
    let is_there = |id: &ObjectId| packs.contains_key(id);
    let groups = coverage.groups.values();
    let serving = groups.filter(|(group, _)| group.serves(percent.unwrap_or(1), &is_there));
    let members = serving.flat_map(|(group, _)| &group.members);
    members
        .filter_map(|member| Some((member.id, *packs.get(&member.id)?)))
        .collect()
}

/// What is left of parity.
pub(crate) struct Cleaned {
    /// Parity objects that were deleted.
    pub deleted: u64,
    /// Packs that have none that serves.
    pub unprotected: u64,
}

/// Deletes the parity objects that serve no more: no pack of theirs is there, or each that is has other parity
/// that serves.
///
/// # Errors
/// `Interrupted`, or what the storage answers.
pub(crate) fn clean(repository: &Repository, cancel: &Cancel) -> Result<Cleaned> {
    // Parity comes after its packs: what is not there after the parity was seen is gone.
    let storage = repository.storage();
    let mut coverage = Coverage::known(storage, repository.index(), cancel)?;
    let mut there = BTreeSet::new();
    storage.list(names::PACKS, &mut |object| {
        if let Some(Name::Pack(id)) = names::parse(&object.name) {
            there.insert(id);
        }
        Ok(())
    })?;
    let mut there_without = there.clone();
    let percent = repository.config().parity().unwrap_or(1);
    let is_there = |id: &ObjectId| there.contains(id);
    let mut deleted = 0;
    let ids: Vec<ObjectId> = coverage.groups.keys().copied().collect();
    for id in ids {
        cancel.check()?;
        let Some((group, _)) = coverage.groups.get(&id) else {
            continue;
        };
        let serves = |other: &ObjectId| {
            let other = coverage.groups.get(other).filter(|_| *other != id);
            other.is_some_and(|(group, _)| group.serves(percent, &is_there))
        };
        let mut members = group.members.iter().filter(|member| is_there(&member.id));
        let is_idle = members.all(|member| coverage.of(&member.id).iter().any(serves));
        if is_idle {
            storage.delete(&names::parity(&id))?;
            coverage.groups.remove(&id);
            deleted += 1;
        }
    }
    for (group, _) in coverage.groups.values() {
        if group.serves(percent, &is_there) {
            for member in &group.members {
                there_without.remove(&member.id);
            }
        }
    }
    Ok(Cleaned {
        deleted,
        unprotected: there_without.len() as u64,
    })
}
