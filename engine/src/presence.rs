//! Whether the packs that the index names are in the storage, and have the sizes that it says.
//!
//! A writer that trusts the index alone would build on packs that somebody deleted or cut short.
//! What such packs hold is put in anew when it is met.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use larder_format::ids::{ObjectId, SessionId};
use larder_format::names::{self, Name};

use crate::error::Result;
use crate::protocol::keeps_all;
use crate::repository::Repository;
use crate::view::View;

/// Packs that are looked at before every writer's work: as many as some twenty requests list.
const PACKS_LOOKED_AT: u64 = 16_384;
/// Folders of packs that are looked at where there are more: each takes a request or several.
const FOLDERS_LOOKED_AT: u64 = 16;
/// Packs that are expected at a time where all are looked at: they are kept in memory.
const PACKS_AT_A_TIME: u64 = 65_536;
/// Folders of packs, by the first byte of their names.
const FOLDERS: u64 = 256;

/// How far a repository's packs are looked at, and were.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Looks {
    /// Whether all are wanted, however many there are.
    pub wants_all: bool,
    /// Whether all were looked at; none if nothing was yet.
    pub had_all: Option<bool>,
}

/// Looks for packs that are not as the index says, once a run; nothing is deduplicated against those
/// that are not from then on.
///
/// For a session that has registered and read: what counts then is not taken away by a collector
/// unless it ends the session. Where there are many packs a share is looked at, another one by each
/// session; all of them, if that was asked for or damage is known.
///
/// # Errors
/// What the storage or the local index answers.
pub(crate) fn look(repository: &Repository, view: &View, session: &SessionId) -> Result<()> {
    // A test that leaves a rule out must miss what is lost by that, and not heal it.
    if !keeps_all() {
        return Ok(());
    }
    let looks = repository.looks();
    let wants_all = looks.wants_all || view.collection.suspects().next().is_some();
    if looks.had_all == Some(true) || (looks.had_all == Some(false) && !wants_all) {
        return Ok(());
    }
    let mut total = 0_u64;
    repository.index().packs(&mut |_| {
        total += 1;
        ControlFlow::Continue(())
    })?;
    // The last byte is random, while the first ones count the rounds.
    let start = session.0.last().copied().unwrap_or_default();
    let groups = groups(total, start, wants_all);
    let had_all = groups.iter().map(Vec::len).sum::<usize>() as u64 == FOLDERS;
    let out = view.collection.unusable_packs();
    for group in groups {
        look_at(repository, &group, &out)?;
    }
    repository.set_looks(Looks {
        had_all: Some(had_all),
        ..looks
    });
    Ok(())
}

/// Decides which folders are looked at, and which of them together.
fn groups(total: u64, start: u8, wants_all: bool) -> Vec<Vec<u8>> {
    let all = (0..=u8::MAX).collect::<Vec<_>>();
    if total <= PACKS_LOOKED_AT {
        return vec![all];
    }
    if wants_all {
        let parts = total.div_ceil(PACKS_AT_A_TIME).clamp(1, FOLDERS);
        let folders = usize::try_from(FOLDERS.div_ceil(parts)).unwrap_or(1);
        return all.chunks(folders).map(<[u8]>::to_vec).collect();
    }
    let folders = (PACKS_LOOKED_AT * FOLDERS / total).clamp(1, FOLDERS_LOOKED_AT);
    let chosen = (0..=u8::MAX).map(|number| start.wrapping_add(number));
    let folders = usize::try_from(folders).unwrap_or(1);
    vec![chosen.take(folders).collect()]
}

/// Compares what the index says of the packs in some folders with what the storage lists.
fn look_at(repository: &Repository, folders: &[u8], out: &BTreeSet<ObjectId>) -> Result<()> {
    let mut expected = HashMap::new();
    repository.index().packs(&mut |pack| {
        let is_meant = pack.id.0.first().is_some_and(|byte| folders.contains(byte));
        if is_meant && !out.contains(&pack.id) {
            expected.insert(pack.id, pack.size);
        }
        ControlFlow::Continue(())
    })?;
    if expected.is_empty() {
        return Ok(());
    }
    let mut list = |folder: &str| {
        repository.storage().list(folder, &mut |object| {
            if let Some(Name::Pack(id)) = names::parse(&object.name)
                && expected.get(&id) == Some(&object.size_bytes)
            {
                expected.remove(&id);
            }
            Ok(())
        })
    };
    if folders.len() as u64 == FOLDERS {
        list(names::PACKS)?;
    } else {
        for folder in folders {
            list(&format!("{}/{folder:02x}", names::PACKS))?;
        }
    }
    repository.avoid(expected.into_keys())?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_pack_is_looked_at_if_that_is_wanted_and_a_bounded_share_otherwise() {
        for total in [0, 1, PACKS_LOOKED_AT, PACKS_LOOKED_AT + 1, 300_000, 1 << 24] {
            for start in [0, 7, 255] {
                let all: Vec<u8> = groups(total, start, true).concat();
                assert_eq!(all, (0..=u8::MAX).collect::<Vec<_>>());
                let at_a_time = groups(total, start, true).first().unwrap().len() as u64;
                assert!(at_a_time * total / FOLDERS <= PACKS_AT_A_TIME.max(total / FOLDERS));
                let some = groups(total, start, false).concat();
                let distinct: BTreeSet<u8> = some.iter().copied().collect();
                assert_eq!(distinct.len(), some.len());
                assert!(!some.is_empty());
                if total <= PACKS_LOOKED_AT {
                    assert_eq!(some.len(), 256);
                } else {
                    assert!(some.len() as u64 <= FOLDERS_LOOKED_AT);
                    assert!(some.contains(&start));
                }
            }
        }
    }
}
