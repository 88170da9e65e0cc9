//! What is decided of each entry, and the order in which it is carried out.

use larder_format::entry::{Content, Entry, EntryType, Extent};
use larder_format::ids::ChunkId;
use larder_format::limits::INLINE_EXTENTS;
use larder_format::node::encode_leaf;

use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::scratch::ScratchMap;
use crate::target::plan::Action;
use crate::target::{Made, Metadata};
use crate::thaw::Need;

use super::compare::{There, compare};
use super::fetch::{fetch_all, needs};
use super::files::{Context, Hand, Workshop, link_key};
use super::finish;
use super::plan::{Files, Items, Note, Wanted, for_each_extent, plan_all};
use super::select::{Choice, Verdict};
use super::tally::is_damage;

/// Chunks that are looked up in the index at once.
const LOOK_UPS: usize = 512;
/// Memory of each map before it goes to disk.
const MAP_BYTES: usize = 4 << 20;

/// Decides what happens to each entry; does at once what needs no data.
pub(super) struct Planner<'a> {
    pub context: &'a Context<'a>,
    pub files: Files,
    items: Items,
    wanted: Vec<Wanted>,
    hand: Hand,
    list_reader: Option<ChunkReader>,
    /// Directories to be completed, the last first.
    pub directories: ScratchMap,
    directory_count: u64,
    /// Folders that objects are in, with the number of their root, if others are to be removed.
    pub implied: ScratchMap,
    /// All keys in the target, if others are to be removed.
    pub keys: ScratchMap,
    /// Nodes with several names of which one was met.
    links: ScratchMap,
    /// Further names of nodes, by number.
    pub later: ScratchMap,
    later_count: u64,
    /// Whether parts of a tree are unknown.
    pub has_gaps: bool,
    choices: &'a [(Choice, Vec<u8>)],
    file_count: u64,
    byte_count: u64,
}

impl<'a> Planner<'a> {
    pub(super) fn new(context: &'a Context<'a>, choices: &'a [(Choice, Vec<u8>)]) -> Result<Self> {
        let map = || ScratchMap::new(context.scratch(), MAP_BYTES);
        Ok(Self {
            context,
            files: Files::new(context.scratch()),
            items: Items::new(context.scratch()),
            wanted: Vec::new(),
            hand: Hand::new(context.repository)?,
            list_reader: None,
            directories: map(),
            directory_count: 0,
            implied: map(),
            keys: map(),
            links: map(),
            later: map(),
            later_count: 0,
            has_gaps: false,
            choices,
            file_count: 0,
            byte_count: 0,
        })
    }

    fn is_dry(&self) -> bool {
        self.context.options.dry_run
    }

    /// Makes the directories above a key that no entry describes; false if it cannot be done.
    pub(super) fn parents(&mut self, key: &[u8]) -> Result<bool> {
        if self.is_dry() || key.is_empty() {
            return Ok(true);
        }
        match self.context.target.create_parents(key) {
            Ok(()) => Ok(true),
            Err(error) => self.context.tally.failed(error).map(|()| false),
        }
    }

    /// Notes a folder that objects of a root are in, and those above it: they are no entries of their
    /// own, but they stay when others are removed, and what else is in them is removed.
    pub(super) fn implied_folders(&mut self, folder: &[u8], root: u64) -> Result<()> {
        if !self.context.options.delete {
            return Ok(());
        }
        let place = usize::try_from(root).ok();
        let place = place.and_then(|root| self.choices.get(root));
        let place = place.map_or(&[][..], |(_, place)| place.as_slice());
        let slashes = folder.iter().enumerate();
        for (end, _) in slashes.filter(|(_, byte)| **byte == b'/') {
            let above = folder.get(..=end).unwrap_or_default();
            self.keep(above)?;
            if above.starts_with(place) {
                self.implied.insert(above, &root.to_be_bytes())?;
            }
        }
        if folder.starts_with(place) && place.is_empty() {
            self.implied.insert(b"", &root.to_be_bytes())?;
        }
        Ok(())
    }

    /// Makes a directory; tells whether it is new, or nothing if it cannot be had.
    pub(super) fn directory(&mut self, entry: Entry, is_in_new: bool) -> Result<Option<bool>> {
        let context = self.context;
        self.keep(&entry.key)?;
        if entry.flags.unreadable {
            let why = "what is in it could not be read when it was backed up";
            context.tally.unread(&entry.key, why);
        }
        let made = if self.is_dry() {
            match self.existing(&entry.key, is_in_new)? {
                Found::Error => return Ok(None),
                Found::Nothing => Made::New,
                Found::There(there) if there.kind == EntryType::Directory => Made::Existing,
                Found::There(_) => Made::New,
            }
        } else {
            match context.target.create_directory(&entry.key) {
                Ok(made) => made,
                Err(error) => return context.tally.failed(error).map(|()| None),
            }
        };
        let is_new = made == Made::New;
        context.tally.count(|report| report.directories += 1);
        let mut value = vec![u8::from(is_new)];
        value.extend_from_slice(&encode_leaf(std::slice::from_ref(&entry))?);
        self.directory_count += 1;
        let number = u64::MAX - self.directory_count;
        self.directories.insert(&number.to_be_bytes(), &value)?;
        Ok(Some(is_new))
    }

    /// Plans anything but a directory.
    pub(super) fn leaf(&mut self, entry: Entry, is_new: bool) -> Result<()> {
        self.keep(&entry.key)?;
        if entry.kind == EntryType::File && entry.flags.unreadable {
            let why = "its content could not be read when it was backed up";
            self.context.tally.unread(&entry.key, why);
            return Ok(());
        }
        if entry.is_hard_linked() {
            let key = link_key(&entry);
            if self.links.get(&key)?.is_some() {
                return self.further_name(&entry);
            }
            self.links.insert(&key, &[])?;
        }
        self.node(&entry, is_new)
    }

    /// Keeps a further name for when the node is there.
    pub(super) fn further_name(&mut self, entry: &Entry) -> Result<()> {
        let leaf = encode_leaf(std::slice::from_ref(entry))?;
        self.later.insert(&self.later_count.to_be_bytes(), &leaf)?;
        self.later_count += 1;
        Ok(())
    }

    /// Plans a node by what is there under its name.
    pub(super) fn node(&mut self, entry: &Entry, is_new: bool) -> Result<()> {
        let context = self.context;
        let existing = match self.existing(&entry.key, is_new)? {
            Found::Error => return Ok(()),
            Found::Nothing => None,
            Found::There(metadata) => Some(metadata),
        };
        let action = context.target.plan(entry, existing.as_ref());
        match (action, &existing) {
            (Action::Keep, _) => {
                context.tally.count(|report| report.unchanged += 1);
                Ok(())
            }
            (Action::Unchanged, Some(there)) => {
                context.tally.count(|report| report.unchanged += 1);
                context.remember(entry, &there.id)?;
                self.record(entry)
            }
            (Action::Metadata, Some(there)) => {
                self.metadata_only(entry, there)?;
                self.record(entry)
            }
            _ if entry.kind == EntryType::File => self.file(entry, existing.as_ref()),
            _ => self.make(entry),
        }
    }

    /// Sets a file's metadata whose content is right.
    fn metadata_only(&mut self, entry: &Entry, there: &Metadata) -> Result<()> {
        let context = self.context;
        if !self.is_dry() {
            let attributes = context.attributes(entry, &mut self.hand.reader)?;
            if let Err(error) = context
                .target
                .apply_metadata(&entry.key, entry, &attributes)
            {
                return context.tally.failed(error);
            }
        }
        context.tally.count(|report| report.unchanged += 1);
        context.remember(entry, &there.id)
    }

    /// Makes a link, pipe, socket or device.
    fn make(&mut self, entry: &Entry) -> Result<()> {
        let context = self.context;
        if !self.is_dry() {
            let attributes = context.attributes(entry, &mut self.hand.reader)?;
            let made = if entry.kind == EntryType::Symlink {
                context
                    .target
                    .create_symlink(&entry.key, entry, &attributes)
            } else {
                context
                    .target
                    .create_special(&entry.key, entry, &attributes)
            };
            match made {
                Ok(id) => context.remember(entry, &id)?,
                Err(error) => return context.tally.failed(error),
            }
        }
        context.tally.count(|report| report.others += 1);
        Ok(())
    }

    /// Keeps a file that is right already, if it is to be verified.
    fn record(&mut self, entry: &Entry) -> Result<()> {
        if self.context.options.verify && !self.is_dry() && entry.kind == EntryType::File {
            self.files.push(entry)?;
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry, existing: Option<&Metadata>) -> Result<()> {
        if entry.content == Content::None && entry.size > 0 {
            let why = "the snapshot does not have its content";
            self.context.tally.lost(&entry.key, why, 1);
            return Ok(());
        }
        let file = match self.files.push(entry) {
            Ok(file) => file,
            Err(EngineError::Format(error)) => {
                self.context.tally.lost(&entry.key, &error.to_string(), 1);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let planned = match existing.filter(|there| there.kind == EntryType::File) {
            Some(there) => self.patched_file(file, entry, there),
            None => self.fresh_file(file, entry),
        };
        match planned {
            Err(error) if is_damage(&error) => {
                self.context.give_up_lost(file, entry, &error.to_string())
            }
            planned => planned,
        }
    }

    fn fresh_file(&mut self, file: u64, entry: &Entry) -> Result<()> {
        if let Content::Whole(id) = &entry.content {
            self.planned(entry.size);
            return self.want(file, 0, *id, entry.size);
        }
        let mut chunks = 0;
        self.with_reader(|planner, reader| {
            for_each_extent(entry, reader, &mut |offset, extent| {
                if let Extent::Data { id, length } = extent {
                    chunks += 1;
                    planner.byte_count += length;
                    planner.want(file, offset, id, length)?;
                }
                Ok(())
            })
        })?;
        self.planned(0);
        let is_list = matches!(entry.content, Content::List { .. });
        let note = Note {
            chunks,
            patch: false,
        };
        self.settle(file, entry, note, is_list)
    }

    /// Plans a file of which something may be there already.
    fn patched_file(&mut self, file: u64, entry: &Entry, there: &Metadata) -> Result<()> {
        let context = self.context;
        let former = match context.target.open_existing(&entry.key) {
            Ok(Some(former)) => former,
            // Somebody else's, perhaps, and not to be read: it is replaced.
            Ok(None) | Err(_) => return self.fresh_file(file, entry),
        };
        let mut chunks = 0;
        let mut is_same = there.size == entry.size;
        let mut read_at = |buffer: &mut [u8], offset| former.read_at(buffer, offset);
        let keyring = context.repository.keyring();
        self.with_reader(|planner, reader| {
            let mut each = |offset, extent, there| {
                if there == There::Differs {
                    is_same = false;
                    if let Extent::Data { id, length } = extent {
                        chunks += 1;
                        planner.byte_count += length;
                        planner.want(file, offset, id, length)?;
                    }
                }
                Ok(())
            };
            compare(
                keyring,
                entry,
                reader,
                &mut read_at,
                &mut |offset| former.data_from(offset),
                &mut each,
            )
        })?;
        if is_same && there.links == 1 {
            return self.metadata_only(entry, there);
        }
        self.planned(0);
        let note = Note {
            chunks,
            patch: true,
        };
        self.settle(file, entry, note, true)
    }

    /// Lends the reader of lists to something that plans meanwhile.
    fn with_reader(
        &mut self,
        work: impl FnOnce(&mut Self, &mut ChunkReader) -> Result<()>,
    ) -> Result<()> {
        let mut reader = match self.list_reader.take() {
            Some(reader) => reader,
            None => ChunkReader::new(self.context.repository)?,
        };
        let done = work(self, &mut reader);
        self.list_reader = Some(reader);
        done
    }

    /// Notes what a file needs, or makes it now if that is nothing.
    fn settle(&mut self, file: u64, entry: &Entry, note: Note, is_noted: bool) -> Result<()> {
        if note.chunks == 0 {
            return match self.is_dry() {
                true => Ok(()),
                false => self.context.make_now(file, entry, note, &mut self.hand),
            };
        }
        if is_noted || note.chunks > INLINE_EXTENTS as u64 {
            self.files.note(file, note)?;
        }
        Ok(())
    }

    fn planned(&mut self, bytes: u64) {
        self.file_count += 1;
        self.byte_count += bytes;
        if self.is_dry() {
            self.context.tally.count(|report| report.files += 1);
        }
    }

    fn want(&mut self, file: u64, file_offset: u64, id: ChunkId, length: u64) -> Result<()> {
        self.wanted.push(Wanted {
            file,
            file_offset,
            id,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            tried: 0,
            readings: 0,
        });
        if self.wanted.len() >= LOOK_UPS {
            self.look_up()?;
        }
        Ok(())
    }

    fn look_up(&mut self) -> Result<()> {
        let wanted = std::mem::take(&mut self.wanted);
        let index = self.context.repository.index();
        for lost in plan_all(index, &wanted, &mut self.items)? {
            if self.context.options.lost_as_zeros && !self.is_dry() {
                self.items.add_nowhere(&lost)?;
                continue;
            }
            let entry = self.files.entry(lost.file, &mut self.hand.pages)?;
            let why = format!("no pack in the index holds its chunk {}", lost.id);
            self.context.give_up_lost(lost.file, &entry, &why)?;
        }
        Ok(())
    }

    /// Notes a key that the snapshot has.
    pub(super) fn keep(&mut self, key: &[u8]) -> Result<()> {
        self.context.progress.current(key);
        if self.context.options.delete {
            self.keys.insert(key, &[])?;
        }
        Ok(())
    }

    /// Tells whether a key stays although others are removed: the snapshot has it, or the
    /// patterns leave it alone.
    pub(super) fn is_kept(&self, key: &[u8], root: u64) -> Result<bool> {
        if self.keys.get(key)?.is_some() {
            return Ok(true);
        }
        let root = usize::try_from(root).unwrap_or(usize::MAX);
        let Some((choice, place)) = self.choices.get(root) else {
            return Ok(true);
        };
        let below = key.strip_prefix(place.as_slice()).unwrap_or(key);
        Ok(choice.verdict(below) != Verdict::Selected)
    }

    fn existing(&self, key: &[u8], is_new: bool) -> Result<Found> {
        if is_new {
            return Ok(Found::Nothing);
        }
        match self.context.target.existing(key) {
            Ok(Some(metadata)) => Ok(Found::There(metadata)),
            Ok(None) => Ok(Found::Nothing),
            Err(error) => self.context.tally.failed(error).map(|()| Found::Error),
        }
    }

    /// Gives what would be read of packs.
    pub(super) fn needs(&mut self) -> Result<Vec<Need>> {
        self.look_up()?;
        needs(&self.items)
    }

    /// Does what was planned.
    pub(super) fn carry_out(&mut self) -> Result<()> {
        let context = self.context;
        self.look_up()?;
        finish::remove_extras(self)?;
        let (files, bytes) = (Some(self.file_count), Some(self.byte_count));
        context.progress.phase("restoring", files, bytes);
        if self.is_dry() {
            let bytes = self.byte_count;
            context.tally.count(|report| report.bytes = bytes);
            return finish::count_links(self);
        }
        loop {
            self.look_up()?;
            self.files.flush()?;
            let mut items = std::mem::replace(&mut self.items, Items::new(context.scratch()));
            let workshop = Workshop::new(context, &self.files);
            while !items.is_empty()? {
                fetch_all(&workshop, &items)?;
                items = workshop.take_next();
            }
            drop(workshop);
            if !finish::link_names(self)? {
                break;
            }
        }
        if context.options.verify {
            finish::verify(context, &self.files)?;
        }
        finish::directories(self)
    }
}

/// What has a name in the target.
enum Found {
    Nothing,
    There(Metadata),
    Error,
}
