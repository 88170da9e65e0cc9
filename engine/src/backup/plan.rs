//! Planning: the walk merged with what earlier snapshots have.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use larder_format::cell::Cell;
use larder_format::entry::{Attributes, Content, Entry, EntryType, Timestamp};
use larder_format::ids::SessionId;
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;

use crate::chunks::ChunkReader;
use crate::error::Result;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::source::change::{ChangeRules, attributes_unchanged, unchanged};
use crate::source::stat::{WalkIssue, Walked};
use crate::source::walk::Step;

use super::read::Piece;
use super::{Previous, read_from};

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
    pub walked: Walked,
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
    pub walked: Walked,
    /// Content that is known to be the same: the attributes alone are read.
    pub kept: Option<Content>,
    pub pieces: Sender<Piece>,
}

/// A snapshot's tree as it is read alongside the walk.
struct Compared {
    cursor: Cursor<ChunkReader>,
    next: Option<Entry>,
    /// Since when the snapshot's source was read.
    start: Timestamp,
    snapshot: SessionId,
}

/// An entry of an earlier snapshot.
struct Found {
    entry: Entry,
    /// Since when the snapshot's source was read.
    start: Timestamp,
    snapshot: SessionId,
}

impl Compared {
    fn start(repository: &Arc<Repository>, cell: &Cell, source: &[u8]) -> Result<Option<Self>> {
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
        let next = cursor.next_entry()?;
        Ok(Some(Self {
            cursor,
            next,
            start: timestamp(read_from(cell)),
            snapshot: cell.id,
        }))
    }

    /// Gives the entry with this key, moving past all before it.
    fn take(&mut self, key: &[u8]) -> Result<Option<Entry>> {
        while let Some(next) = &self.next {
            match next.key.as_slice().cmp(key) {
                std::cmp::Ordering::Less => self.next = self.cursor.next_entry()?,
                std::cmp::Ordering::Equal => {
                    let found = self.next.take();
                    self.next = self.cursor.next_entry()?;
                    return Ok(found);
                }
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }
}

/// Decides for each step of a walk where its content comes from.
pub(super) struct Planner<'a> {
    compared: Vec<Compared>,
    rules: ChangeRules,
    /// Files with several names that are being read, by file system and inode.
    links: ScratchMap,
    next_ticket: u64,
    progress: &'a dyn Progress,
}

impl<'a> Planner<'a> {
    /// Opens the trees to compare with; the checkpoint's entries come before the parent's.
    pub(super) fn new(
        repository: &Arc<Repository>,
        previous: &Previous,
        source: &[u8],
        rules: ChangeRules,
        progress: &'a dyn Progress,
    ) -> Self {
        let mut compared = Vec::new();
        for cell in previous.checkpoint.iter().chain(&previous.parent) {
            match Compared::start(repository, cell, source) {
                Ok(found) => compared.extend(found),
                Err(error) => cannot_compare(progress, &error),
            }
        }
        Self {
            compared,
            rules,
            links: ScratchMap::new(repository.cache_dir(), LINK_BYTES),
            next_ticket: 0,
            progress,
        }
    }

    /// Turns a step into a job; what must be read is added to `reads` as well.
    pub(super) fn plan(&mut self, step: Step, reads: &mut Vec<ReadJob>) -> Result<Job> {
        let walked = match step {
            Step::Issue(issue) => return Ok(Job::Issue(issue)),
            Step::Entry(walked) => *walked,
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let found = self.find(&walked.entry.key);
        let reusable = |found: &Found| self.can_reuse(&found.entry, &walked.entry, found.start);
        let keeps_content = found.as_ref().is_some_and(|found| {
            walked.entry.kind == EntryType::File
                && unchanged(&found.entry, &walked.entry, self.rules, found.start)
        });
        let work = match found {
            Some(found) if reusable(&found) => Work::Reuse {
                same: has_same_metadata(&found.entry, &walked.entry),
                content: found.entry.content,
                attributes: found.entry.attributes,
                origin: found.snapshot,
            },
            found if !keeps_content && self.is_known_link(&walked.entry)? => Work::Linked {
                previous: found.map(|found| found.entry),
            },
            found => {
                let (sender, pieces) = unbounded();
                let kept = found.as_ref().filter(|_| keeps_content);
                reads.push(ReadJob {
                    ticket,
                    walked: walked.clone(),
                    kept: kept.map(|found| found.entry.content.clone()),
                    pieces: sender,
                });
                Work::Read {
                    pieces,
                    kept_from: kept.map(|found| found.snapshot),
                    previous: found.map(|found| found.entry),
                }
            }
        };
        Ok(Job::Entry(Box::new(EntryJob {
            ticket,
            walked,
            work,
        })))
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

    fn can_reuse(&self, previous: &Entry, now: &Entry, start: Timestamp) -> bool {
        unchanged(previous, now, self.rules, start)
            && attributes_unchanged(previous, now, self.rules, start)
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

fn cannot_compare(progress: &dyn Progress, error: &crate::error::EngineError) {
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
