//! Changes to a snapshot that is there: tags, pins, and forgetting (SPEC.md §11 and §12).
//!
//! A change is an amendment, created if its number is free. Who loses the number reads what the
//! winner changed, and decides again with that in mind.

use std::collections::BTreeSet;

use bytes::Bytes;
use larder_format::cell::CellKind;
use larder_format::ids::SessionId;
use larder_format::limits::{TAG_BYTES, TAGS};
use larder_format::names::{self, Name};
use larder_format::record::seal_record;
use larder_format::session::{Amendment, Change};

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::random;
use crate::repository::Repository;
use crate::session::{Author, now_ns};
use crate::snapshots::{self, Filter, SnapshotInfo, Which};
use crate::storage::create_or_confirm;
use crate::storage::error::ErrorKind;
use crate::view::{Unusable, View, read_record};

/// What is asked of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Has exactly these tags.
    SetTags(Vec<String>),
    /// Loses some tags, then gets others; the rest stay.
    ChangeTags {
        /// Tags that go.
        remove: Vec<String>,
        /// Tags that come.
        add: Vec<String>,
    },
    /// Is kept from being forgotten.
    Pin,
    /// Is not kept from it any more.
    Unpin,
    /// Is forgotten, for good.
    Forget,
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Amended,
    /// The snapshot was that way already; nothing was written.
    Unchanged,
    /// It was not: the snapshot is forgotten.
    Forgotten,
    /// It was not: the snapshot is pinned.
    Pinned,
}

/// Changes a snapshot as it is asked, unless it is that way already.
///
/// `view` is from a recent reading, and learns of the change and of those that came first. A pinned snapshot is not forgotten, and a forgotten one is not changed.
///
/// # Errors
/// `NotFound` if there is no such snapshot (any more), `Request` for tags that cannot be, or what
/// the storage answers; an ambiguous answer is settled by reading back.
pub fn amend(
    repository: &Repository,
    view: &mut View,
    id: &SessionId,
    wish: &Wish,
    author: &Author,
) -> Result<Outcome> {
    repository.check_write()?;
    let mut number = next_number(view, id);
    loop {
        let change = match decide(view, id, wish)? {
            Decision::Write(change) => change,
            Decision::Leave(outcome) => return Ok(outcome),
        };
        let amendment = amendment(id, number, change, author);
        if create(repository, &amendment)? {
            if amendment.change != Change::Forget {
                must_exist(repository, names::cell(id), id)?;
            }
            view.amendments.entry(*id).or_default().push(amendment);
            return Ok(Outcome::Amended);
        }
        learn(repository, view, &Name::Amendment(*id, number))?;
        number = number.saturating_add(1);
    }
}

/// What became of one snapshot of [`amend_all`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Amended {
    /// The snapshot's id.
    pub id: String,
    /// Whether it had to be changed.
    pub changed: bool,
    /// Its tags now.
    pub tags: Vec<String>,
    /// Whether it is pinned now.
    pub pinned: bool,
}

/// Changes tags or pins of the named snapshots, or of all that the filter takes if none is named.
///
/// Names are looked up before anything is changed. A dry run only says what would be.
///
/// # Errors
/// `NotFound` or `Request` for a name that is none or of several, or for a snapshot that somebody
/// forgot meanwhile; `Interrupted`; or as [`amend`].
pub fn amend_all(
    repository: &Repository,
    names: &[Which],
    filter: &Filter,
    wish: &Wish,
    author: &Author,
    dry_run: bool,
    cancel: &Cancel,
) -> Result<Vec<Amended>> {
    let mut view = snapshots::read(repository)?;
    let meant = if names.is_empty() {
        snapshots::of_view(&view, filter, false)
    } else {
        let found = names
            .iter()
            .map(|which| snapshots::resolve_in(&view, which, filter));
        let mut found: Vec<SnapshotInfo> = found.collect::<Result<_>>()?;
        let mut seen = BTreeSet::new();
        found.retain(|info| seen.insert(info.session));
        found
    };
    let mut list = Vec::with_capacity(meant.len());
    for SnapshotInfo { session, id, .. } in meant {
        cancel.check()?;
        let outcome = match dry_run {
            true => imagine(&mut view, &session, wish, author)?,
            false => amend(repository, &mut view, &session, wish, author)?,
        };
        if matches!(outcome, Outcome::Forgotten | Outcome::Pinned) {
            return Err(gone(&session, "somebody has just forgotten or pinned"));
        }
        let cell = view.cells.get(&session);
        list.push(Amended {
            id,
            changed: outcome == Outcome::Amended,
            tags: cell.map_or_else(Vec::new, |cell| view.tags(cell).to_vec()),
            pinned: view.is_pinned(&session),
        });
    }
    Ok(list)
}

/// Lets the view look as it would behind a change.
fn imagine(view: &mut View, id: &SessionId, wish: &Wish, author: &Author) -> Result<Outcome> {
    let change = match decide(view, id, wish)? {
        Decision::Write(change) => change,
        Decision::Leave(outcome) => return Ok(outcome),
    };
    let amendment = amendment(id, next_number(view, id), change, author);
    view.amendments.entry(*id).or_default().push(amendment);
    Ok(Outcome::Amended)
}

fn amendment(id: &SessionId, number: u64, change: Change, author: &Author) -> Amendment {
    Amendment {
        cell: *id,
        number,
        change,
        time: now_ns(),
        host: author.host.clone(),
        user: author.user.clone(),
    }
}

/// Tells whether every change to a snapshot is there and can be read.
///
/// Of one where this is not so nobody can tell whether it is pinned.
#[must_use]
pub fn is_settled(view: &View, id: &SessionId) -> bool {
    let mut readable = view.amendments.get(id).into_iter().flatten();
    let count = readable.clone().count() as u64;
    readable.all(|amendment| amendment.number <= count) && next_number(view, id) == count + 1
}

/// Sorts tags and refuses those that cannot be.
///
/// # Errors
/// `Request`, naming the tag and what is wrong with it.
pub fn clean_tags(tags: &[String]) -> Result<Vec<String>> {
    let mut clean = Vec::with_capacity(tags.len());
    for tag in tags {
        let why = match tag.trim() {
            "" => "it is empty",
            _ if tag.contains(',') => "it has a comma, which stands between tags",
            _ if tag.chars().any(char::is_control) => "it has control characters",
            trimmed if trimmed.len() > TAG_BYTES => "it is longer than 256 bytes",
            trimmed => {
                clean.push(trimmed.to_owned());
                continue;
            }
        };
        return Err(EngineError::Request(format!("{tag:?} is no tag: {why}")));
    }
    clean.sort_unstable();
    clean.dedup();
    if clean.len() > TAGS {
        let count = clean.len();
        return Err(EngineError::Request(format!(
            "{count} tags are more than the {TAGS} that a snapshot may have"
        )));
    }
    Ok(clean)
}

/// What is to be done about a wish.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Write(Change),
    Leave(Outcome),
}

/// Decides what a wish takes, as the snapshot is now.
fn decide(view: &View, id: &SessionId, wish: &Wish) -> Result<Decision> {
    let cell = view.cells.get(id);
    let committed = cell.filter(|cell| cell.kind != CellKind::Revoked);
    let cell = committed.ok_or_else(|| gone(id, "there is no snapshot"))?;
    if view.is_forgotten(id) {
        return Ok(Decision::Leave(if *wish == Wish::Forget {
            Outcome::Unchanged
        } else {
            Outcome::Forgotten
        }));
    }
    let is_pinned = view.is_pinned(id);
    let tags = view.tags(cell);
    let wanted = match wish {
        Wish::Forget if is_pinned => return Ok(Decision::Leave(Outcome::Pinned)),
        Wish::Forget => return Ok(Decision::Write(Change::Forget)),
        Wish::Pin if cell.kind != CellKind::Complete => {
            let name = id.snapshot_name();
            return Err(EngineError::Request(format!(
                "{name} is the checkpoint of an unfinished backup or a shard, which goes when that is \
                 finished; only snapshots can be pinned"
            )));
        }
        Wish::Pin | Wish::Unpin => {
            let pin = *wish == Wish::Pin;
            return Ok(match (pin == is_pinned, pin) {
                (true, _) => Decision::Leave(Outcome::Unchanged),
                (false, true) => Decision::Write(Change::Pin),
                (false, false) => Decision::Write(Change::Unpin),
            });
        }
        Wish::SetTags(wanted) => clean_tags(wanted)?,
        Wish::ChangeTags { remove, add } => {
            let (remove, add) = (clean_tags(remove)?, clean_tags(add)?);
            let stay = tags.iter().filter(|tag| !remove.contains(tag));
            // Tags from before there were rules for them may stay.
            let mut wanted: Vec<String> = stay.cloned().chain(add).collect();
            wanted.sort_unstable();
            wanted.dedup();
            wanted
        }
    };
    Ok(if wanted == tags {
        Decision::Leave(Outcome::Unchanged)
    } else {
        Decision::Write(Change::SetTags(wanted))
    })
}

/// Gives the number after all that are there, readable or not.
fn next_number(view: &View, id: &SessionId) -> u64 {
    let readable = view.amendments.get(id).into_iter().flatten();
    let unusable = view.unusable.iter();
    let unusable = unusable.filter_map(|one| match names::parse(&one.object) {
        Some(Name::Amendment(cell, number)) if cell == *id => Some(number),
        _ => None,
    });
    let numbers = readable.map(|amendment| amendment.number).chain(unusable);
    numbers.max().unwrap_or(0).saturating_add(1)
}

/// Creates an amendment; `false` if another one has its number.
fn create(repository: &Repository, amendment: &Amendment) -> Result<bool> {
    let (uid, random) = (random::bytes()?, random::bytes()?);
    let object = seal_record(repository.keyring(), amendment, uid, &random)?;
    let name = names::amendment(&amendment.cell, amendment.number);
    let (storage, object) = (repository.storage(), Bytes::from(object));
    let mut outcome = create_or_confirm(storage, &name, &object);
    // Whoever forgets wants room: the reserve gives it, and a prune puts it back.
    if amendment.change == Change::Forget
        && let Err(error) = &outcome
        && error.kind == ErrorKind::Full
    {
        storage.delete(names::RESERVE)?;
        outcome = create_or_confirm(storage, &name, &object);
    }
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads the amendment that came first.
fn learn(repository: &Repository, view: &mut View, name: &Name) -> Result<()> {
    let Name::Amendment(id, _) = *name else {
        return Ok(());
    };
    match read_record::<Amendment>(repository, name) {
        Ok(theirs) => view.amendments.entry(id).or_default().push(theirs),
        Err(EngineError::Damaged { object, why }) => {
            must_exist(repository, name.to_string(), &id)?;
            view.unusable.push(Unusable { object, why });
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Fails if a collector took the snapshot away while it was to be changed.
fn must_exist(repository: &Repository, object: String, id: &SessionId) -> Result<()> {
    match repository.storage().size(&object) {
        Err(error) if error.kind == ErrorKind::NotFound => Err(gone(
            id,
            "a prune that is running elsewhere has just removed",
        )),
        other => Ok(other.map(|_| ())?),
    }
}

fn gone(id: &SessionId, what: &str) -> EngineError {
    let name = id.snapshot_name();
    EngineError::NotFound(format!("{what} {name}; `larder snapshots` lists them"))
}

#[cfg(test)]
mod tests;
