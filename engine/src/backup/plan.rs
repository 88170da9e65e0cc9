//! Planning: the walk merged with what earlier snapshots have.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use larder_format::cell::Cell;
use larder_format::entry::{Attributes, Content, Entry, EntryType, Timestamp};
use larder_format::ids::{ChunkType, SessionId};
use larder_format::run::KeyRange;
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;

use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::source::bucket::change::ChangeBy;
use crate::source::bucket::{Known, change as bucket_change};
use crate::source::change::{ChangeRules, attributes_unchanged, unchanged};
use crate::source::item::Item;
use crate::source::stat::WalkIssue;
use crate::source::walk::Step;

use super::keys::LeftOut;
use super::read::Piece;
use super::{Previous, read_from};

/// What a source gives, in order.
pub(super) enum Given {
    /// An entry.
    Item(Box<Item>),
    /// Something that could not be walked.
    Issue(WalkIssue),
    /// The source cannot be gone through at all.
    Failed(EngineError),
}

impl From<Step> for Given {
    fn from(step: Step) -> Self {
        match step {
            Step::Entry(walked) => Self::Item(Box::new(Item::File(*walked))),
            Step::Issue(issue) => Self::Issue(issue),
        }
    }
}

/// One step of the walk with what is to be done about it, in order.
pub(super) enum Job {
    /// Something that could not be walked.
    Issue(WalkIssue),
    /// An entry.
    Entry(Box<EntryJob>),
}

/// An entry and where its content comes from.
pub(super) struct EntryJob {
    pub ticket: u64,
    pub item: Item,
    pub work: Work,
}

/// Where an entry's content comes from.
pub(super) enum Work {
    /// From the snapshot that it was compared with.
    Reuse {
        content: Content,
        attributes: Attributes,
        /// Nothing else differs either.
        same: bool,
        /// The snapshot that has it.
        origin: SessionId,
    },
    /// From the source; the pieces come from a reader.
    Read {
        pieces: Receiver<Piece>,
        previous: Option<Entry>,
        /// The snapshot whose content is kept, if the reader reads the attributes alone.
        kept_from: Option<SessionId>,
    },
    /// From the first name of the same file, which was read before.
    Linked { previous: Option<Entry> },
}

/// What a reader is to read, and where its pieces go.
pub(super) struct ReadJob {
    pub ticket: u64,
    pub item: Item,
    /// What is known to be the same: a file's attributes, or an object's tags alone are read.
    pub kept: Option<Kept>,
    pub pieces: Sender<Piece>,
}

/// What an entry keeps of an earlier snapshot, though not all of it is taken from there.
pub(super) struct Kept {
    pub content: Content,
    /// What an object was stored with: its attributes record; empty for a file.
    pub properties: Vec<u8>,
}

/// A snapshot's tree as it is read alongside the walk.
struct Compared {
    cursor: Cursor<ChunkReader>,
    next: Option<Entry>,
    /// Since when the snapshot's source was read.
    start: Timestamp,
    snapshot: SessionId,
    /// What is left out now, and so neither there nor gone.
    left_out: Option<Arc<LeftOut>>,
    /// Entries that the source does not have any more.
    gone: Gone,
    /// Entries that were met, but for those that are left out now.
    met: u64,
    /// The keys that are looked at.
    range: KeyRange,
}

/// Entries that a source does not have any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone {
    /// How many there are.
    pub count: u64,
    /// The keys of some of them, spread evenly over all.
    pub sample: Vec<Vec<u8>>,
    /// Of so many the next one is taken into the sample.
    stride: u64,
}

impl Gone {
    fn note(&mut self, key: &[u8]) {
        if self.count.is_multiple_of(self.stride.max(1)) {
            if self.sample.len() == SAMPLE_MAX {
                let mut number = 0;
                self.sample.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                self.stride = self.stride.max(1) * 2;
            }
            if self.count.is_multiple_of(self.stride.max(1)) {
                self.sample.push(key.to_vec());
            }
        }
        self.count += 1;
    }
}

/// Keys of a sample of what is gone, at most.
const SAMPLE_MAX: usize = 16;

/// An entry of an earlier snapshot.
struct Found {
    entry: Entry,
    /// Since when the snapshot's source was read.
    start: Timestamp,
    snapshot: SessionId,
}

impl Compared {
    fn start(
        repository: &Arc<Repository>,
        cell: &Cell,
        source: &[u8],
        left_out: Option<Arc<LeftOut>>,
        range: KeyRange,
    ) -> Result<Option<Self>> {
        let Some(source) = cell.sources.iter().find(|one| one.path == source) else {
            return Ok(None);
        };
        let root = Root {
            id: source.root,
            level: source.level,
            entries: source.entries,
            bytes: source.bytes,
        };
        let mut cursor = Cursor::new(ChunkReader::new(repository)?, &root);
        if let Some(behind) = &range.behind {
            // The first key behind that one.
            cursor.skip_to(&[behind, [0].as_slice()].concat())?;
        }
        let mut compared = Self {
            cursor,
            next: None,
            start: timestamp(read_from(cell)),
            snapshot: cell.id,
            left_out,
            gone: Gone::default(),
            met: 0,
            range,
        };
        compared.advance()?;
        Ok(Some(compared))
    }

    /// Goes on to the next entry of the range.
    fn advance(&mut self) -> Result<()> {
        let next = self.cursor.next_entry()?;
        self.next = next.filter(|next| !self.range.is_before(&next.key));
        Ok(())
    }

    /// Gives the entry with this key, moving past all before it.
    fn take(&mut self, key: &[u8]) -> Result<Option<Entry>> {
        while let Some(next) = &self.next {
            match next.key.as_slice().cmp(key) {
                std::cmp::Ordering::Less => self.pass()?,
                std::cmp::Ordering::Equal => {
                    self.met += 1;
                    let found = self.next.take();
                    self.advance()?;
                    return Ok(found);
                }
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// Moves past an entry that the source does not give.
    fn pass(&mut self) -> Result<()> {
        let left_out = self.left_out.as_ref();
        if let Some(next) = self.next.take()
            && !left_out.is_some_and(|left_out| left_out.has(&next.key, next.size))
        {
            self.gone.note(&next.key);
            self.met += 1;
        }
        self.advance()
    }

    /// Moves past all that is left; gives the entries that the source does not have any more, and
    /// how many there were.
    fn count_gone(&mut self) -> Result<(Gone, u64)> {
        while self.next.is_some() {
            self.pass()?;
        }
        Ok((self.gone.clone(), self.met))
    }
}

/// Decides for each step of a walk where its content comes from.
pub(super) struct Planner<'a> {
    compared: Vec<Compared>,
    parent: Option<SessionId>,
    rules: ChangeRules,
    change_by: ChangeBy,
    /// Files with several names that are being read, by file system and inode.
    links: ScratchMap,
    /// What reads the properties of objects whose tags are asked for; none if they are not.
    pub(super) values: Option<ChunkReader>,
    next_ticket: u64,
    progress: &'a dyn Progress,
}

impl<'a> Planner<'a> {
    /// Opens the trees to compare with; the checkpoint's entries come before the parent's.
    pub(super) fn new(
        repository: &Arc<Repository>,
        (previous, left_out): (&Previous, Option<Arc<LeftOut>>),
        source: &[u8],
        (rules, change_by): (ChangeRules, ChangeBy),
        progress: &'a dyn Progress,
    ) -> Self {
        let mut compared = Vec::new();
        for cell in previous.checkpoint.iter().chain(&previous.parent) {
            match Compared::start(repository, cell, source, left_out.clone(), previous.range()) {
                Ok(found) => compared.extend(found),
                Err(error) => cannot_compare(progress, &error),
            }
        }
        Self {
            compared,
            parent: previous.parent.as_ref().map(|cell| cell.id),
            rules,
            change_by,
            links: ScratchMap::new(repository.cache_dir(), LINK_BYTES),
            values: None,
            next_ticket: 0,
            progress,
        }
    }

    /// Turns a step into a job; what must be read is added to `reads` as well.
    pub(super) fn plan(&mut self, given: Given, reads: &mut Vec<ReadJob>) -> Result<Job> {
        let mut item = match given {
            Given::Failed(error) => return Err(error),
            Given::Issue(issue) => return Ok(Job::Issue(issue)),
            Given::Item(item) => *item,
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let found = self.find(&item.entry().key);
        let entry = item.entry();
        let reusable = found
            .as_ref()
            .is_some_and(|found| self.can_reuse(&found.entry, &item, found.start));
        let keeps_content = found.as_ref().is_some_and(|found| {
            entry.kind == EntryType::File && unchanged(&found.entry, entry, self.rules, found.start)
        });
        // A change of tags shows in no listing.
        let asks_tags = reusable && self.asks_tags(&item);
        let kept = match &found {
            Some(found) if asks_tags => self.kept(&mut item, &found.entry),
            Some(found) if keeps_content => Some(Kept {
                content: found.entry.content.clone(),
                properties: Vec::new(),
            }),
            _ => None,
        };
        let work = match found {
            Some(found) if reusable && !asks_tags => Work::Reuse {
                same: {
                    complete(&mut item, &found.entry);
                    has_same_metadata(&found.entry, item.entry())
                },
                content: found.entry.content,
                attributes: found.entry.attributes,
                origin: found.snapshot,
            },
            found if !keeps_content && self.is_known_link(item.entry())? => Work::Linked {
                previous: found.map(|found| found.entry),
            },
            found => {
                let (sender, pieces) = unbounded();
                let origin = found.as_ref().filter(|_| kept.is_some());
                let kept_from = origin.map(|found| found.snapshot);
                reads.push(ReadJob {
                    ticket,
                    item: item.clone(),
                    kept,
                    pieces: sender,
                });
                Work::Read {
                    pieces,
                    kept_from,
                    previous: found.map(|found| found.entry),
                }
            }
        };
        Ok(Job::Entry(Box::new(EntryJob { ticket, item, work })))
    }

    /// Tells whether the tags of an object are asked for that is the same otherwise.
    fn asks_tags(&self, item: &Item) -> bool {
        let is_listed = matches!(item, Item::Object(object) if object.known == Known::Listed);
        self.values.is_some() && is_listed
    }

    /// Gives what an object keeps but for its tags; none if that cannot be read, so that all of it has to
    /// be.
    fn kept(&mut self, item: &mut Item, previous: &Entry) -> Option<Kept> {
        let properties = match &previous.attributes {
            Attributes::None => Vec::new(),
            Attributes::Inline(record) => record.clone(),
            Attributes::OutOfLine(id) => {
                let read = self.values.as_mut()?.read(ChunkType::Value, id);
                read.ok()?.to_vec()
            }
        };
        complete(item, previous);
        Some(Kept {
            content: previous.content.clone(),
            properties,
        })
    }

    /// Finds the entry to compare with; a tree that cannot be read is left out from then on.
    fn find(&mut self, key: &[u8]) -> Option<Found> {
        let mut found = None;
        let progress = self.progress;
        self.compared
            .retain_mut(|compared| match compared.take(key) {
                Ok(entry) => {
                    if found.is_none() {
                        found = entry.map(|entry| Found {
                            entry,
                            start: compared.start,
                            snapshot: compared.snapshot,
                        });
                    }
                    true
                }
                Err(error) => {
                    cannot_compare(progress, &error);
                    false
                }
            });
        found
    }

    /// Gives the entry of an earlier snapshot with this key; keys have to come in order.
    pub(super) fn earlier(&mut self, key: &[u8]) -> Option<Entry> {
        self.find(key).map(|found| found.entry)
    }

    /// Gives those of the parent's entries that the source does not have any more, and how many there
    /// were, once everything was planned; nothing if there is no parent, or it cannot be read.
    pub(super) fn gone(&mut self) -> Result<Option<(Gone, u64)>> {
        let parent = self.parent;
        let compared = self.compared.iter_mut();
        let mut compared = compared.filter(|compared| Some(compared.snapshot) == parent);
        match compared.next() {
            Some(compared) => compared.count_gone().map(Some),
            None => Ok(None),
        }
    }

    fn can_reuse(&self, previous: &Entry, item: &Item, start: Timestamp) -> bool {
        let now = item.entry();
        let Item::Object(object) = item else {
            return unchanged(previous, now, self.rules, start)
                && attributes_unchanged(previous, now, self.rules, start);
        };
        let is_same = match object.known {
            Known::Listed => bucket_change::unchanged(previous, now, self.change_by, start),
            Known::Kept => bucket_change::is_whole(previous) && has_same_metadata(previous, now),
            Known::Told => false,
        };
        is_same && !self.rules.force
    }

    /// Tells whether another name of the same file was met before; remembers this one if not.
    fn is_known_link(&mut self, entry: &Entry) -> Result<bool> {
        if !entry.is_hard_linked() || entry.kind != EntryType::File {
            return Ok(false);
        }
        let key = link_key(entry);
        if self.links.get(&key)?.is_some() {
            return Ok(true);
        }
        self.links.insert(&key, &[])?;
        Ok(false)
    }
}

/// Tells whether an entry has the metadata that it had; when it was last read does not matter.
pub(super) fn has_same_metadata(previous: &Entry, now: &Entry) -> bool {
    previous.kind == now.kind
        && previous.size == now.size
        && previous.mode == now.mode
        && (previous.uid, previous.gid) == (now.uid, now.gid)
        && previous.mtime == now.mtime
        && previous.link_target == now.link_target
        && previous.device == now.device
        && (&previous.etag, &previous.version) == (&now.etag, &now.version)
        && previous.class == now.class
}

/// Adds to an object what its listing does not show, from the snapshot that has the same one.
fn complete(item: &mut Item, previous: &Entry) {
    if let Item::Object(object) = item {
        let entry = &mut object.entry;
        if entry.version.is_empty() {
            entry.version.clone_from(&previous.version);
        }
        if entry.etag.is_empty() {
            entry.etag.clone_from(&previous.etag);
        }
    }
}

/// Memory of each map of hard links before it goes to disk.
pub(super) const LINK_BYTES: usize = 4 << 20;

/// Gives what all names of a file with several have in common.
pub(super) fn link_key(entry: &Entry) -> [u8; 16] {
    let mut key = [0; 16];
    let parts = entry
        .filesystem
        .to_be_bytes()
        .into_iter()
        .chain(entry.inode.to_be_bytes());
    for (to, from) in key.iter_mut().zip(parts) {
        *to = from;
    }
    key
}

fn cannot_compare(progress: &dyn Progress, error: &EngineError) {
    progress.warning(&format!(
        "cannot compare with an earlier snapshot from here on, so files are read again: {error}"
    ));
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000),
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_of_what_is_gone_is_spread_over_all_of_it() {
        for count in [0_u64, 1, 16, 17, 40, 1000] {
            let mut gone = Gone::default();
            for number in 0..count {
                gone.note(&number.to_be_bytes());
            }
            assert_eq!(gone.count, count);
            let sample = gone.sample.iter().filter_map(|key| key.first_chunk());
            let sample: Vec<u64> = sample.map(|key| u64::from_be_bytes(*key)).collect();
            let stride = gone.stride.max(1);
            assert!(
                sample.iter().eq((0..count)
                    .step_by(stride as usize)
                    .collect::<Vec<_>>()
                    .iter())
            );
            assert!(sample.len() as u64 >= count.min(SAMPLE_MAX as u64) / 2);
            assert!(sample.len() <= SAMPLE_MAX);
        }
    }
}
