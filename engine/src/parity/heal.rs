//! Rebuilding packs from the parity object of their group, and parity objects from their packs. No key is needed.
//!
//! What comes out is believed only if it has the content name of what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use larder_format::ids::ObjectId;
use larder_format::limits::{PACK_BYTES, PARITY_BYTES};
use larder_format::names::{self, Name};
use larder_format::object::object_id;
use larder_format::parity::{Draft, Group, Member, PIECE_BYTES, Parity, sum};

use super::code::{self, Spooled};
use crate::at_once;
use crate::cancel::Cancel;
use crate::check::{Outcome, Problem, attempt};
use crate::error::{EngineError, Result};
use crate::index::Index;
use crate::scratch::file::ScratchFile;
use crate::storage::Storage;
use crate::storage::error::ErrorKind;

/// Bytes in which the group of nearly every parity object is.
const FRONT_BYTES: u64 = 4096;
/// Bytes that are read at once of what cannot be read whole.
const PART_BYTES: u64 = 128 << 10;
/// Where what is kept of a parity object stands in the local cache of blocks: no block of a pack begins there.
const RECORD_AT: u64 = 0;
/// Parity objects whose groups are read between two looks at whether to go on.
const BATCH: usize = 256;

/// Which parity objects there are, and which packs each protects.
#[derive(Default)]
pub(crate) struct Coverage {
    /// With the sizes of the objects.
    pub groups: BTreeMap<ObjectId, (Group, u64)>,
    /// Those of which nothing can be told, and why.
    pub unreadable: BTreeMap<ObjectId, String>,
    by_pack: BTreeMap<ObjectId, Vec<ObjectId>>,
}

impl Coverage {
    /// Lists the parity objects and reads what each protects.
    pub(crate) fn read(storage: &dyn Storage, cancel: &Cancel) -> Result<Self> {
        Self::default().read_all(storage, &list(storage)?, &mut |_, _| Ok(()), cancel)
    }

    /// Does the same, but reads what one protects once on each machine: the same name always has the same group.
    pub(crate) fn known(storage: &dyn Storage, index: &dyn Index, cancel: &Cancel) -> Result<Self> {
        let mut coverage = Self::default();
        let mut unknown = Vec::new();
        for (id, size) in list(storage)? {
            let record = index.cached_block(&id, RECORD_AT)?.unwrap_or_default();
            match Group::read_front(&record) {
                Ok(group) => coverage.add(id, group, size),
                Err(_) => unknown.push((id, size)),
            }
        }
        let keep = &mut |id: &ObjectId, front: &[u8]| Ok(index.cache_block(id, RECORD_AT, front)?);
        coverage.read_all(storage, &unknown, keep, cancel)
    }

    fn read_all(
        mut self,
        storage: &dyn Storage,
        listed: &[(ObjectId, u64)],
        keep: &mut dyn FnMut(&ObjectId, &[u8]) -> Result<()>,
        cancel: &Cancel,
    ) -> Result<Self> {
        for batch in listed.chunks(BATCH) {
            cancel.check()?;
            let calls = storage.calls_at_once();
            let read = at_once::map(calls, batch, |(id, size)| read_group(storage, id, *size));
            for ((id, size), group) in batch.iter().zip(read) {
                match group? {
                    Ok((group, front)) => {
                        if let Some(front) = front {
                            keep(id, &front)?;
                        }
                        self.add(*id, group, *size);
                    }
                    Err(Problem::Damaged(why)) => drop(self.unreadable.insert(*id, why)),
                    Err(Problem::Missing) => {}
                }
            }
        }
        Ok(self)
    }

    fn add(&mut self, id: ObjectId, group: Group, size: u64) {
        for member in &group.members {
            self.by_pack.entry(member.id).or_default().push(id);
        }
        self.groups.insert(id, (group, size));
    }

    /// Gives the parity objects that protect a pack.
    pub(crate) fn of(&self, pack: &ObjectId) -> &[ObjectId] {
        self.by_pack.get(pack).map_or(&[], Vec::as_slice)
    }

    /// Gives the parity objects that protect any of these packs.
    pub(crate) fn of_any<'a>(
        &self,
        packs: impl IntoIterator<Item = &'a ObjectId>,
    ) -> BTreeSet<ObjectId> {
        packs
            .into_iter()
            .flat_map(|pack| self.of(pack))
            .copied()
            .collect()
    }
}

/// Lists the parity objects with their sizes.
fn list(storage: &dyn Storage) -> Result<Vec<(ObjectId, u64)>> {
    let mut listed = Vec::new();
    storage.list(names::PARITY, &mut |object| {
        if let Some(Name::Parity(id)) = names::parse(&object.name) {
            listed.push((id, object.size_bytes));
        }
        Ok(())
    })?;
    Ok(listed)
}

/// Reads which packs a parity object protects: from its front, which comes with it, and from the rest only if that must be.
fn read_group(
    storage: &dyn Storage,
    id: &ObjectId,
    size: u64,
) -> Result<Outcome<(Group, Option<Bytes>)>> {
    let name = names::parity(id);
    for length in [FRONT_BYTES, Group::front_bytes() as u64] {
        let length = length.min(size);
        let front = attempt(|| Ok(storage.get_range(&name, 0, length)?))?;
        if let Ok(front) = front
            && let Ok(group) = Group::read_front(&front)
        {
            let record = front.slice(..front.len().min(group.end_of_record()));
            return Ok(Ok((group, Some(record))));
        }
        if length == size {
            break;
        }
    }
    attempt(|| {
        let object = storage.get(&name, PARITY_BYTES as u64)?;
        Ok((Parity::read(&object)?.group().clone(), None))
    })
}

/// Reads what there is of an object, which may be damaged; of one that cannot be read whole the parts that can
/// be, with zeros in place of the others. Nothing if it is not there.
fn read_what_is_left(
    storage: &dyn Storage,
    name: &str,
    length: u64,
    limit: usize,
) -> Result<Option<Bytes>> {
    match attempt(|| Ok(storage.get(name, limit as u64)?))? {
        Ok(bytes) => return Ok(Some(bytes)),
        Err(Problem::Missing) => return Ok(None),
        Err(Problem::Damaged(_)) => {}
    }
    let mut bytes = vec![0; usize::try_from(length.min(limit as u64)).unwrap_or_default()];
    let mut offset = 0;
    for part in bytes.chunks_mut(usize::try_from(PART_BYTES).unwrap_or(usize::MAX)) {
        let length = part.len() as u64;
        match storage.get_range(name, offset, length) {
            Ok(read) if read.len() == part.len() => part.copy_from_slice(&read),
            Err(error) if error.kind == ErrorKind::Transient => return Err(error.into()),
            _ => {}
        }
        offset += length;
    }
    Ok(Some(Bytes::from(bytes)))
}

/// A group as it was read: which pieces of its packs are sound, and these at their places.
struct Gathered {
    packs: Spooled,
    sound: Vec<Vec<bool>>,
    /// Whether each pack is as its name says.
    whole: Vec<bool>,
}

fn gather(
    storage: &dyn Storage,
    scratch: &Path,
    parity: &Parity<'_>,
    cancel: &Cancel,
) -> Result<Gathered> {
    let group = parity.group();
    let packs = Spooled::new(ScratchFile::new(scratch)?, Spooled::in_order(group));
    let mut gathered = Gathered {
        packs,
        sound: Vec::new(),
        whole: Vec::new(),
    };
    for (number, member) in group.members.iter().enumerate() {
        cancel.check()?;
        let (bytes, sound, is_whole) = read_member(storage, parity, number, member)?;
        gathered.packs.write_pack(number, &bytes)?;
        gathered.sound.push(sound);
        gathered.whole.push(is_whole);
    }
    Ok(gathered)
}

/// Reads a pack of a group, or what there is of it, and tells which of its pieces are sound.
fn read_member(
    storage: &dyn Storage,
    parity: &Parity<'_>,
    number: usize,
    member: &Member,
) -> Result<(Bytes, Vec<bool>, bool)> {
    let name = names::pack(&member.id);
    let read = read_what_is_left(storage, &name, member.length, PACK_BYTES)?;
    let mut bytes = read.unwrap_or_default();
    if bytes.len() as u64 == member.length && object_id(&bytes) == member.id {
        return Ok((bytes, vec![true; member.pieces()], true));
    }
    let sound = parity.sound_pieces(number, &bytes);
    // What follows the end of a pack is no part of it, and must not get into the next one's place.
    bytes.truncate(usize::try_from(member.length).unwrap_or(usize::MAX));
    Ok((bytes, sound, false))
}

/// Rebuilds the wanted packs of one group that are not sound, as far as its parity object serves, and hands them
/// to `keep`.
pub(crate) fn mend(
    storage: &dyn Storage,
    scratch: &Path,
    (id, size): (&ObjectId, u64),
    wanted: &dyn Fn(&ObjectId) -> bool,
    keep: &mut dyn FnMut(&ObjectId, Bytes) -> Result<()>,
    cancel: &Cancel,
) -> Result<()> {
    let object = read_what_is_left(storage, &names::parity(id), size, PARITY_BYTES)?;
    let Some(object) = object else { return Ok(()) };
    let Ok(parity) = Parity::read(&object) else {
        return Ok(());
    };
    let gathered = gather(storage, scratch, &parity, cancel)?;
    let possible = code::possible(&parity, &gathered.sound);
    let members = parity.group().members.iter().enumerate();
    let flag = |flags: &[bool], number: usize| flags.get(number).copied().unwrap_or(false);
    let rebuilt: Vec<(usize, &Member)> = members
        .filter(|(number, member)| {
            !flag(&gathered.whole, *number) && flag(&possible, *number) && wanted(&member.id)
        })
        .collect();
    if rebuilt.is_empty() {
        return Ok(());
    }
    code::rebuild(&parity, &gathered.packs, &gathered.sound)?;
    for (number, member) in rebuilt {
        cancel.check()?;
        let bytes = gathered.packs.read_pack(number, member.length)?;
        if object_id(&bytes) == member.id {
            keep(&member.id, Bytes::from(bytes))?;
        }
    }
    Ok(())
}

/// Tells which of these packs could be rebuilt from one parity object if all others of its group are sound: reads
/// the parity object and these packs alone.
pub(crate) fn assess(
    storage: &dyn Storage,
    (id, size): (&ObjectId, u64),
    damaged: &BTreeSet<ObjectId>,
    cancel: &Cancel,
) -> Result<Vec<ObjectId>> {
    let object = read_what_is_left(storage, &names::parity(id), size, PARITY_BYTES)?;
    let Some(object) = object else {
        return Ok(Vec::new());
    };
    let Ok(parity) = Parity::read(&object) else {
        return Ok(Vec::new());
    };
    let mut sound = Vec::new();
    for (number, member) in parity.group().members.iter().enumerate() {
        cancel.check()?;
        sound.push(match damaged.contains(&member.id) {
            true => read_member(storage, &parity, number, member)?.1,
            false => match storage.size(&names::pack(&member.id)) {
                Ok(length) => vec![length == member.length; member.pieces()],
                Err(error) if error.kind == ErrorKind::NotFound => vec![false; member.pieces()],
                Err(error) => return Err(error.into()),
            },
        });
    }
    let possible = code::possible(&parity, &sound);
    let members = parity.group().members.iter().zip(possible);
    let healable =
        members.filter(|(member, is_possible)| *is_possible && damaged.contains(&member.id));
    Ok(healable.map(|(member, _)| member.id).collect())
}

/// Makes a damaged parity object anew from its packs; nothing if it does not tell which they are, or not all of
/// them are sound.
pub(crate) fn remake(
    storage: &dyn Storage,
    scratch: &Path,
    (id, size): (&ObjectId, u64),
    cancel: &Cancel,
) -> Result<Option<Bytes>> {
    let object = read_what_is_left(storage, &names::parity(id), size, PARITY_BYTES)?;
    let group = object.and_then(|object| Some(Parity::read(&object).ok()?.group().clone()));
    match group {
        Some(group) => make(storage, scratch, group, cancel)
            .map(|made| made.filter(|made| object_id(made) == *id)),
        None => Ok(None),
    }
}

/// Makes the parity object of a group whose packs are in the storage; nothing if one of them is not sound.
pub(crate) fn make(
    storage: &dyn Storage,
    scratch: &Path,
    group: Group,
    cancel: &Cancel,
) -> Result<Option<Bytes>> {
    let packs = Spooled::new(ScratchFile::new(scratch)?, Spooled::in_order(&group));
    let mut sums = Vec::new();
    for (number, member) in group.members.iter().enumerate() {
        cancel.check()?;
        let name = names::pack(&member.id);
        let read = attempt(|| {
            let bytes = storage.get(&name, PACK_BYTES as u64)?;
            if bytes.len() as u64 != member.length || object_id(&bytes) != member.id {
                return Err(EngineError::damaged(
                    &name,
                    &"its bytes are not those of its name",
                ));
            }
            Ok(bytes)
        })?;
        let Ok(bytes) = read else { return Ok(None) };
        sums.extend(bytes.chunks(PIECE_BYTES).map(sum));
        packs.write_pack(number, &bytes)?;
    }
    let mut draft = Draft::new(group, &sums)?;
    code::encode(&mut draft, &packs)?;
    Ok(Some(Bytes::from(draft.finish())))
}
