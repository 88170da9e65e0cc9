//! Changing objects so that every change can be undone: what is replaced is put aside first, and a
//! record of what is going to be changed comes before all.

use std::collections::BTreeSet;

use bytes::Bytes;
use larder_format::limits::{UNDO_BYTES, UNDO_CHANGES};
use larder_format::names::{self, Name};
use larder_format::quarantine::{Change, RepairId, Undo, copy_name, parse_record, record_name};
use larder_format::verify::bytes_max;

use crate::cancel::Cancel;
use crate::clock;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::random;
use crate::storage::error::ErrorKind;
use crate::storage::{Storage, create_or_confirm};

/// The longest object that is put aside: longer than any that the format knows, for what was added to it.
const OBJECT_BYTES_MAX: u64 = 512 << 20;

/// What an object is to become: bytes with this hash, or nothing.
pub(super) struct Wish {
    pub name: String,
    pub after: Option<[u8; 32]>,
}

/// Gives the bytes that an object is to have.
pub(super) type Content<'a> = &'a mut dyn FnMut(&str) -> Result<Bytes>;

/// Makes changes and keeps what they replace.
pub(super) struct Keeper<'a> {
    storage: &'a dyn Storage,
    host: &'a str,
    cancel: &'a Cancel,
    progress: &'a dyn Progress,
    pub id: RepairId,
    records: u64,
    /// Objects that were changed, and the bytes that were written for it.
    pub changed: u64,
    pub bytes: u64,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        storage: &'a dyn Storage,
        host: &'a str,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        Ok(Self {
            storage,
            host,
            cancel,
            progress,
            id: RepairId(random::bytes()?),
            records: 0,
            changed: 0,
            bytes: 0,
        })
    }

    /// Changes objects as it is wished, in this order, to what `bytes` gives for them; one that cannot be
    /// put aside stays as it is. Gives the names of those that were changed.
    ///
    /// Whoever dies in between has changed some of them, each wholly or not at all.
    pub(super) fn change(&mut self, wishes: &[Wish], bytes: Content<'_>) -> Result<Vec<String>> {
        let mut changed = Vec::new();
        for batch in wishes.chunks(UNDO_CHANGES) {
            let mut changes = Vec::new();
            for wish in batch {
                self.cancel.check()?;
                if let Some(before) = self.hash_of(&wish.name)?
                    && before != wish.after
                {
                    changes.push(Change {
                        name: wish.name.clone(),
                        before,
                        after: wish.after,
                    });
                }
            }
            if changes.is_empty() {
                continue;
            }
            self.write_record(&changes)?;
            for change in &changes {
                self.cancel.check()?;
                if self.make(change, bytes)? {
                    changed.push(change.name.clone());
                }
            }
        }
        Ok(changed)
    }

    /// Gives the hash of an object, or that it is not there; nothing if it cannot be read.
    fn hash_of(&self, name: &str) -> Result<Option<Option<[u8; 32]>>> {
        match self.storage.get(name, OBJECT_BYTES_MAX) {
            Ok(bytes) => Ok(Some(Some(*blake3::hash(&bytes).as_bytes()))),
            Err(error) => match error.kind {
                ErrorKind::NotFound => Ok(Some(None)),
                ErrorKind::Transient => Err(error.into()),
                _ => {
                    self.progress.warning(&format!(
                        "{name} cannot be read, and so not be put aside: {}; move it out of the repository by hand and run repair again",
                        error.cause
                    ));
                    Ok(None)
                }
            },
        }
    }

    fn write_record(&mut self, changes: &[Change]) -> Result<()> {
        self.records += 1;
        let undo = Undo {
            repair: self.id,
            number: self.records,
            time: clock::now_s(),
            host: self.host.to_owned(),
            changes: changes.to_vec(),
        };
        let object = Bytes::from(undo.close(random::bytes()?)?);
        let name = record_name(&self.id, self.records);
        Ok(create_or_confirm(self.storage, &name, &object)?)
    }

    /// Makes one change; tells whether the object was still what it was to be changed from.
    fn make(&mut self, change: &Change, bytes: Content<'_>) -> Result<bool> {
        let name = &change.name;
        let wanted = match change.after {
            None => None,
            Some(hash) => {
                let bytes = bytes(name)?;
                if *blake3::hash(&bytes).as_bytes() != hash {
                    return Err(EngineError::damaged(
                        name,
                        &"what was to be put in its place is not what it was before",
                    ));
                }
                Some(bytes)
            }
        };
        let found = match self.storage.get(name, OBJECT_BYTES_MAX) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if found.as_ref().map(|bytes| *blake3::hash(bytes).as_bytes()) != change.before {
            self.progress.warning(&format!(
                "{name} was changed by somebody else meanwhile, and was left as it is"
            ));
            return Ok(false);
        }
        let had_one = found.is_some();
        if let Some(bytes) = found {
            self.put(&copy_name(&self.id, name), bytes)?;
        }
        match wanted {
            None => self.storage.delete(name)?,
            Some(bytes) if had_one || is_named_by_content(name) => self.put(name, bytes)?,
            Some(bytes) => {
                self.bytes += bytes.len() as u64;
                match create_or_confirm(self.storage, name, &bytes) {
                    Err(error) if error.kind == ErrorKind::AlreadyExists => return Ok(false),
                    result => result?,
                }
            }
        }
        self.changed += 1;
        Ok(true)
    }

    /// Writes an object and reads it back.
    fn put(&mut self, name: &str, bytes: Bytes) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.storage.put(name, bytes.clone())?;
        if self.storage.get(name, bytes.len() as u64)? == bytes {
            return Ok(());
        }
        Err(EngineError::damaged(
            name,
            &"what was read back of it is not what was written; nothing more was changed",
        ))
    }
}

fn is_named_by_content(name: &str) -> bool {
    matches!(
        names::parse(name),
        Some(Name::Pack(_) | Name::Segment(_) | Name::Parity(_))
    )
}

/// Lists the repairs that left something in quarantine, with the numbers of their undo records.
pub(super) fn list(storage: &dyn Storage) -> Result<Vec<(RepairId, u64)>> {
    let mut records = Vec::new();
    storage.list(names::QUARANTINE, &mut |object| {
        records.extend(parse_record(&object.name));
        Ok(())
    })?;
    records.sort_unstable();
    Ok(records)
}

/// Reads an undo record.
pub(super) fn read_record(storage: &dyn Storage, id: &RepairId, number: u64) -> Result<Undo> {
    let name = record_name(id, number);
    let object = storage.get(&name, UNDO_BYTES as u64)?;
    Undo::open(id, number, &object).map_err(|error| EngineError::damaged(&name, &error))
}

/// Puts everything back as it was before a repair; what it replaces is put aside in turn.
///
/// What is no longer as the repair left it stays. Gives the objects that were changed.
pub(super) fn undo(storage: &dyn Storage, id: &RepairId, keeper: &mut Keeper<'_>) -> Result<u64> {
    for number in numbers_newest_first(storage, id)? {
        let wishes = wishes_to_undo(storage, id, number)?;
        keeper.change(&wishes, &mut |name| {
            Ok(storage.get(&copy_name(id, name), OBJECT_BYTES_MAX)?)
        })?;
    }
    Ok(keeper.changed)
}

/// Gives the objects that undoing a repair would change, and changes none.
pub(super) fn would_undo(storage: &dyn Storage, id: &RepairId) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for number in numbers_newest_first(storage, id)? {
        let wishes = wishes_to_undo(storage, id, number)?;
        names.extend(wishes.into_iter().map(|wish| wish.name));
    }
    Ok(names)
}

fn numbers_newest_first(storage: &dyn Storage, id: &RepairId) -> Result<Vec<u64>> {
    let records = list(storage)?;
    let mut numbers: Vec<u64> = records
        .iter()
        .filter_map(|(one, number)| (one == id).then_some(*number))
        .collect();
    if numbers.is_empty() {
        return Err(EngineError::NotFound(format!(
            "{} has no repair {} to undo; `larder repair --list` names those that can be undone",
            storage.describe(),
            id.to_hex()
        )));
    }
    numbers.reverse();
    Ok(numbers)
}

/// Gives what undoes the changes of one record, the last first.
fn wishes_to_undo(storage: &dyn Storage, id: &RepairId, number: u64) -> Result<Vec<Wish>> {
    let undo = read_record(storage, id, number)?;
    let mut wishes = Vec::new();
    for change in undo.changes.iter().rev() {
        if is_as_left(storage, change)? {
            wishes.push(Wish {
                name: change.name.clone(),
                after: change.before,
            });
        }
    }
    Ok(wishes)
}

/// Tells whether an object is what a repair made of it; a change that was never made is none to undo.
fn is_as_left(storage: &dyn Storage, change: &Change) -> Result<bool> {
    let limit = names::parse(&change.name).map_or(0, |name| bytes_max(&name) as u64);
    let found = match storage.get(&change.name, limit) {
        Ok(bytes) => Some(*blake3::hash(&bytes).as_bytes()),
        Err(error) if error.kind == ErrorKind::NotFound => None,
        Err(error) if error.kind == ErrorKind::Oversized => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    Ok(found == change.after)
}
