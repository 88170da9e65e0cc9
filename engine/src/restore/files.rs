//! Files in the making: chunk by chunk, from several threads, until they get their names.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use larder_format::attributes;
use larder_format::entry::{Attributes, Entry, EntryType, Extent, Timestamp};
use larder_format::ids::ChunkType;

use crate::cancel::Cancel;
use crate::chunks::ChunkReader;
use crate::clock;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::sync::lock;
use crate::target::error::TargetError;
use crate::target::{NodeId, PendingFile, Target, WriteMode};
use crate::view;

use super::RestoreOptions;
use super::compare::{There, compare};
use super::plan::{Files, Item, Items, Note, PagesAtHand, Wanted, plan_all};
use super::tally::{Tally, is_damage};

/// Files of several chunks that are in the making at a time: each takes some hundred bytes.
const IN_MAKING_MAX: usize = if cfg!(test) { 4 } else { 1 << 16 };
/// Memory of each map before it goes to disk.
const MAP_BYTES: usize = 4 << 20;

/// What the steps of one restore share.
pub(super) struct Context<'a> {
    pub repository: &'a Arc<Repository>,
    pub options: &'a RestoreOptions,
    pub target: Arc<Target>,
    pub tally: Tally<'a>,
    pub progress: &'a dyn Progress,
    pub cancel: &'a Cancel,
    /// The reading of the repository under which the plan was begun.
    first_reading: u64,
    /// Files that failed, by number.
    failed: Mutex<ScratchMap>,
    /// Files with zeros in place of lost bytes, by number.
    holed: Mutex<ScratchMap>,
    /// Nodes with several names that are there, by what their names have in common.
    made: Mutex<ScratchMap>,
}

/// What a thread keeps at hand.
pub(super) struct Hand {
    pub reader: ChunkReader,
    pub pages: PagesAtHand,
}

impl Hand {
    pub(super) fn new(repository: &Arc<Repository>) -> Result<Self> {
        Ok(Self {
            reader: ChunkReader::new(repository)?,
            pages: PagesAtHand::default(),
        })
    }
}

/// A file with several chunks.
struct Making {
    entry: Entry,
    /// Chunks that are still to come.
    left: AtomicU64,
    state: Mutex<State>,
}

enum State {
    Planned,
    Open(Arc<PendingFile>),
    Over,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        repository: &'a Arc<Repository>,
        options: &'a RestoreOptions,
        target: Arc<Target>,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Self {
        let scratch = repository.cache_dir();
        Self {
            repository,
            options,
            target,
            tally: Tally::new(progress),
            progress,
            cancel,
            first_reading: repository.seen().generation,
            failed: Mutex::new(ScratchMap::new(scratch, MAP_BYTES)),
            holed: Mutex::new(ScratchMap::new(scratch, MAP_BYTES)),
            made: Mutex::new(ScratchMap::new(scratch, MAP_BYTES)),
        }
    }

    pub(super) fn scratch(&self) -> &Path {
        self.repository.cache_dir()
    }

    /// Marks a file as failed; tells whether it was not before.
    fn mark_failed(&self, file: u64) -> Result<bool> {
        let mut failed = lock(&self.failed);
        if failed.get(&file.to_be_bytes())?.is_some() {
            return Ok(false);
        }
        failed.insert(&file.to_be_bytes(), &[])?;
        Ok(true)
    }

    /// Gives up a file because of what the repository has lost.
    pub(super) fn give_up_lost(&self, file: u64, entry: &Entry, why: &str) -> Result<()> {
        if self.mark_failed(file)? {
            self.tally.lost(&entry.key, why, 1);
        }
        Ok(())
    }

    /// Gives up a file because of what was found in its place.
    pub(super) fn give_up(&self, file: u64, entry: &Entry, why: &str) -> Result<()> {
        if self.mark_failed(file)? {
            self.tally.issue(&entry.key, why, 1);
        }
        Ok(())
    }

    /// Gives up a file because of what could not be written.
    fn give_up_writing(&self, file: u64, error: TargetError) -> Result<()> {
        if self.mark_failed(file)? {
            self.tally.failed(error)?;
        }
        Ok(())
    }

    /// Tells whether a file was given up.
    pub(super) fn has_failed(&self, file: u64) -> Result<bool> {
        Ok(lock(&self.failed).get(&file.to_be_bytes())?.is_some())
    }

    /// Notes that zeros stand for bytes of a file that are lost.
    fn note_lost(&self, entry: &Entry, wanted: &Wanted, why: &str) -> Result<()> {
        let (start, file) = (wanted.file_offset, wanted.file.to_be_bytes());
        let end = start.saturating_add(wanted.length.into());
        let is_first = {
            let mut holed = lock(&self.holed);
            let is_first = holed.get(&file)?.is_none();
            holed.insert(&file, &[])?;
            is_first
        };
        let text = format!("its bytes {start}..{end} are lost, and zeros stand there: {why}");
        self.tally.lost(&entry.key, &text, is_first.into());
        Ok(())
    }

    /// Remembers a node that has several names.
    pub(super) fn remember(&self, entry: &Entry, id: &NodeId) -> Result<()> {
        if entry.is_hard_linked() {
            let mut value = id.device.to_be_bytes().to_vec();
            value.extend_from_slice(&id.inode.to_be_bytes());
            value.push(id.kind as u8);
            value.extend_from_slice(&entry.key);
            lock(&self.made).insert(&link_key(entry), &value)?;
        }
        Ok(())
    }

    /// Gives the node, and one of its names, that an entry is a further name of.
    pub(super) fn remembered(&self, entry: &Entry) -> Result<Option<(NodeId, Vec<u8>)>> {
        let value = lock(&self.made).get(&link_key(entry))?;
        Ok(value.and_then(|value| {
            let (device, rest) = value.split_first_chunk()?;
            let (inode, rest) = rest.split_first_chunk()?;
            let (kind, key) = rest.split_first()?;
            let id = NodeId {
                device: u64::from_be_bytes(*device),
                inode: u64::from_be_bytes(*inode),
                kind: EntryType::from_number((*kind).into())?,
            };
            Some((id, key.to_vec()))
        }))
    }

    /// Reads an entry's attributes; those that are lost are an issue of their own.
    pub(super) fn attributes(
        &self,
        entry: &Entry,
        reader: &mut ChunkReader,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let decoded = match &entry.attributes {
            Attributes::None => return Ok(Vec::new()),
            Attributes::Inline(record) => attributes::decode(record).map_err(EngineError::from),
            Attributes::OutOfLine(id) => reader
                .read(ChunkType::Value, id)
                .and_then(|record| Ok(attributes::decode(&record)?)),
        };
        match decoded {
            Ok(list) => Ok(list.into_iter().map(|one| (one.name, one.value)).collect()),
            Err(error) if is_damage(&error) => {
                let why = format!("its extended attributes are lost: {error}");
                self.tally.lost(&entry.key, &why, 1);
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a file to be written. What is kept of a former one is compared once more, on the
    /// very file that gets the name, since it may have changed after it was planned.
    fn start(&self, entry: &Entry, note: Note, hand: &mut Hand) -> Result<Started> {
        let mode = match (note.patch, self.options.in_place) {
            (false, _) => WriteMode::Fresh,
            (true, false) => WriteMode::Patch,
            (true, true) => WriteMode::InPlace,
        };
        let pending = match self.target.create_file(&entry.key, entry.size, mode) {
            Ok(pending) => pending,
            Err(error) => return Ok(Started::CannotWrite(error)),
        };
        if !note.patch {
            return Ok(Started::Open(pending));
        }
        let mut missing = 0;
        let mut failure = None;
        let mut read_at = |buffer: &mut [u8], offset| {
            let read = pending.read_existing_at(buffer, offset);
            read.map_err(|error| error.cause)
        };
        let mut data_from = |offset| pending.existing_data_from(offset);
        let mut each = |offset, extent, there| {
            match (extent, there) {
                (_, There::Same) => {}
                (Extent::Data { .. }, There::Differs) => missing += 1,
                (Extent::Hole { length }, There::Differs) => {
                    failure = failure.take().or(pending.write_hole(offset, length).err());
                }
            }
            Ok(())
        };
        let keyring = self.repository.keyring();
        compare(
            keyring,
            entry,
            &mut hand.reader,
            &mut read_at,
            &mut data_from,
            &mut each,
        )?;
        if let Some(error) = failure {
            return Ok(Started::CannotWrite(error));
        }
        if missing != note.chunks {
            return Ok(Started::Changed);
        }
        Ok(Started::Open(pending))
    }

    /// Completes a file whose bytes are all in.
    fn finish(
        &self,
        file: u64,
        entry: &Entry,
        pending: &PendingFile,
        hand: &mut Hand,
    ) -> Result<()> {
        let attributes = self.attributes(entry, &mut hand.reader)?;
        let mut made = std::borrow::Cow::Borrowed(entry);
        if lock(&self.holed).get(&file.to_be_bytes())?.is_some() {
            // With the snapshot's time it would be taken to be right from then on.
            let now = clock::now_ns();
            made.to_mut().mtime = Timestamp {
                seconds: now.div_euclid(1_000_000_000),
                nanoseconds: u32::try_from(now.rem_euclid(1_000_000_000)).unwrap_or_default(),
            };
        }
        match pending.finish(&made, &attributes) {
            Ok(id) => {
                self.remember(entry, &id)?;
                self.tally.count(|report| report.files += 1);
                self.progress.advance(1, 0);
                Ok(())
            }
            Err(error) => self.give_up_writing(file, error),
        }
    }

    /// Makes a file that needs nothing from the repository: an empty one, or one to be cut.
    pub(super) fn make_now(
        &self,
        file: u64,
        entry: &Entry,
        note: Note,
        hand: &mut Hand,
    ) -> Result<()> {
        match self.start(entry, note, hand)? {
            Started::Open(pending) => self.finish(file, entry, &pending, hand),
            Started::CannotWrite(error) => self.give_up_writing(file, error),
            Started::Changed => self.give_up(file, entry, CHANGED),
        }
    }
}

/// Said of a file of the target that somebody else writes to.
const CHANGED: &str = "the file in the target changed while it was compared; run it again";

enum Started {
    Open(PendingFile),
    CannotWrite(TargetError),
    Changed,
}

/// Gives what all names of a node with several have in common; the ordinal tells the root.
pub(super) fn link_key(entry: &Entry) -> Vec<u8> {
    let parts = [entry.ordinal, entry.filesystem, entry.inode];
    parts.iter().flat_map(|part| part.to_be_bytes()).collect()
}

/// The files in the making during one run through a plan.
pub(super) struct Workshop<'a> {
    pub context: &'a Context<'a>,
    files: &'a Files,
    making: Mutex<HashMap<u64, Arc<Making>>>,
    /// What has to be tried again, elsewhere or later.
    next: Mutex<Items>,
}

impl<'a> Workshop<'a> {
    pub(super) fn new(context: &'a Context<'a>, files: &'a Files) -> Self {
        Self {
            context,
            files,
            making: Mutex::default(),
            next: Mutex::new(Items::new(context.scratch())),
        }
    }

    /// Gives what has to be tried again, and starts to collect anew.
    pub(super) fn take_next(&self) -> Items {
        let empty = Items::new(self.context.scratch());
        std::mem::replace(&mut *lock(&self.next), empty)
    }

    /// Writes a chunk where it belongs; its id has been checked.
    pub(super) fn take(&self, item: &Item, bytes: &[u8], hand: &mut Hand) -> Result<()> {
        self.put(&item.wanted, Some(bytes), hand)
    }

    /// Writes a chunk where it belongs, or zeros in its place.
    fn put(&self, wanted: &Wanted, bytes: Option<&[u8]>, hand: &mut Hand) -> Result<()> {
        let file = wanted.file;
        let entry = self.files.entry(file, &mut hand.pages)?;
        let note = self.files.noted(file, &entry)?;
        if note.chunks == 1 {
            return match self.context.start(&entry, note, hand)? {
                Started::Open(pending) => match self.write(&pending, wanted, bytes) {
                    Ok(()) => self.context.finish(file, &entry, &pending, hand),
                    Err(error) => self.context.give_up_writing(file, error),
                },
                Started::CannotWrite(error) => self.context.give_up_writing(file, error),
                Started::Changed => self.context.give_up(file, &entry, CHANGED),
            };
        }
        let Some(making) = self.making(file, entry, note)? else {
            return match bytes {
                Some(_) => self.plan_again(wanted),
                None => self.plan_nowhere(wanted),
            };
        };
        let Some(pending) = self.open(file, &making, note, hand)? else {
            return Ok(());
        };
        if let Err(error) = self.write(&pending, wanted, bytes) {
            self.end(file, &making);
            return self.context.give_up_writing(file, error);
        }
        if making.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            lock(&self.making).remove(&file);
            *lock(&making.state) = State::Over;
            self.context.finish(file, &making.entry, &pending, hand)?;
        }
        Ok(())
    }

    fn write(
        &self,
        pending: &PendingFile,
        wanted: &Wanted,
        bytes: Option<&[u8]>,
    ) -> std::result::Result<(), TargetError> {
        let length = u64::from(wanted.length);
        match bytes {
            Some(bytes) => pending.write_at(bytes, wanted.file_offset)?,
            None => pending.write_hole(wanted.file_offset, length)?,
        }
        self.context.tally.count(|report| report.bytes += length);
        self.context.progress.advance(0, length);
        Ok(())
    }

    /// Gives a file of several chunks, started or not; `None` if it has to wait for others.
    fn making(&self, file: u64, entry: Entry, note: Note) -> Result<Option<Arc<Making>>> {
        let mut all = lock(&self.making);
        let count = all.len();
        let slot = match all.entry(file) {
            Slot::Occupied(slot) => return Ok(Some(Arc::clone(slot.get()))),
            Slot::Vacant(slot) => slot,
        };
        let has_failed = self.context.has_failed(file)?;
        if count >= IN_MAKING_MAX && !has_failed {
            return Ok(None);
        }
        let state = if has_failed {
            State::Over
        } else {
            State::Planned
        };
        let making = Arc::new(Making {
            entry,
            left: AtomicU64::new(note.chunks),
            state: Mutex::new(state),
        });
        if !has_failed {
            slot.insert(Arc::clone(&making));
        }
        Ok(Some(making))
    }

    fn open(
        &self,
        file: u64,
        making: &Making,
        note: Note,
        hand: &mut Hand,
    ) -> Result<Option<Arc<PendingFile>>> {
        let mut state = lock(&making.state);
        match &*state {
            State::Open(pending) => return Ok(Some(Arc::clone(pending))),
            State::Over => return Ok(None),
            State::Planned => {}
        }
        let started = self.context.start(&making.entry, note, hand)?;
        if let Started::Open(pending) = started {
            let pending = Arc::new(pending);
            *state = State::Open(Arc::clone(&pending));
            return Ok(Some(pending));
        }
        *state = State::Over;
        drop(state);
        lock(&self.making).remove(&file);
        match started {
            Started::CannotWrite(error) => self.context.give_up_writing(file, error)?,
            _ => self.context.give_up(file, &making.entry, CHANGED)?,
        }
        Ok(None)
    }

    fn end(&self, file: u64, making: &Making) {
        lock(&self.making).remove(&file);
        let state = std::mem::replace(&mut *lock(&making.state), State::Over);
        if let State::Open(pending) = state {
            pending.abandon();
        }
    }

    /// Plans a chunk anew that could not be had from its place; without another, its file fails.
    pub(super) fn elsewhere(&self, wanted: &Wanted, why: &str, hand: &mut Hand) -> Result<()> {
        let tried = wanted.tried.saturating_add(1);
        let wanted = Wanted { tried, ..*wanted };
        if tried < u8::MAX && self.plan(&wanted)? {
            return Ok(());
        }
        if self.plan_after_prune(&wanted)? {
            return Ok(());
        }
        let entry = self.files.entry(wanted.file, &mut hand.pages)?;
        if self.context.options.lost_as_zeros {
            if !self.context.has_failed(wanted.file)? {
                self.context.note_lost(&entry, &wanted, why)?;
            }
            return self.put(&wanted, None, hand);
        }
        self.context.give_up_lost(wanted.file, &entry, why)?;
        let making = lock(&self.making).get(&wanted.file).map(Arc::clone);
        if let Some(making) = making {
            self.end(wanted.file, &making);
        }
        Ok(())
    }

    /// Plans a chunk whose places were all tried, if a prune moved it since the plan was made.
    fn plan_after_prune(&self, wanted: &Wanted) -> Result<bool> {
        let context = self.context;
        let planned = context.first_reading + u64::from(wanted.readings);
        if wanted.readings == u8::MAX || !view::refresh(context.repository, planned)? {
            return Ok(false);
        }
        let readings = context.repository.seen().generation - context.first_reading;
        self.plan(&Wanted {
            tried: 0,
            readings: u8::try_from(readings).unwrap_or(u8::MAX),
            ..*wanted
        })
    }

    fn plan_again(&self, wanted: &Wanted) -> Result<()> {
        if self.plan(wanted)? || self.plan_after_prune(wanted)? {
            return Ok(());
        }
        Err(EngineError::Internal(
            "a chunk has lost its place".to_owned(),
        ))
    }

    /// Plans a lost chunk anew, whose zeros have to wait.
    fn plan_nowhere(&self, wanted: &Wanted) -> Result<()> {
        lock(&self.next).add_nowhere(wanted)
    }

    fn plan(&self, wanted: &Wanted) -> Result<bool> {
        let index = self.context.repository.index();
        let lost = plan_all(index, std::slice::from_ref(wanted), &mut lock(&self.next))?;
        Ok(lost.is_empty())
    }
}
