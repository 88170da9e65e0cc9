//! Copying snapshots to another repository, which has keys of its own.
//!
//! Ids are keyed, and so is where files are cut: nothing of one repository means anything in another. So
//! every content is read, cut as the other repository cuts, and put in unless it is there. What was
//! copied once in a run is not read again.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::iter::{self, Peekable};
use std::sync::Arc;
use std::time::Instant;

use larder_format::cell::{Cell, Source};
use larder_format::entry::{Attributes, Content, Entry, Extent};
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkType, SessionId, encode_hex};
use larder_format::list::{ContentBuilder, ListRoot, extents};
use larder_format::tree::build::{Root, TreeBuilder};
use larder_format::tree::read::Cursor;

use super::copy::{Copy, Made, first_of};
use super::leave_out::sink;
use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::carry::Lookup;
use crate::chunker::{ChunkBuffer, Chunker};
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::packer::Packer;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::session::{Author, Reading};
use crate::snapshots::{self, Filter, SnapshotInfo, Which};
use crate::view::{self, View};

/// Plaintext bytes that are read and not sealed yet.
const BUDGET_BYTES: usize = 64 << 20;
/// Memory of what was copied, before it goes to disk.
const DONE_BYTES: usize = 16 << 20;
/// The option that names the snapshot of another repository from which a cell was copied (SPEC.md §11).
const COPIED_FROM: &str = "copied-from";

/// How snapshots are copied.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Who does it.
    pub author: Author,
    /// Reads no content and writes nothing: tells what would be copied.
    pub dry_run: bool,
}

/// What became of one snapshot.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct CopyReport {
    /// The snapshot that was to be copied.
    pub from: String,
    /// The snapshot in the other repository; none in a dry run.
    pub snapshot: Option<String>,
    /// Whether it was there already.
    pub existed: bool,
    /// Its entries.
    pub entries: u64,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes of chunks that were new there, before compression.
    pub bytes_added: u64,
    /// Bytes that were written.
    pub bytes_stored: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Takes what became of each of several snapshots.
pub type EachCopy<'a> = &'a mut dyn FnMut(&CopyReport) -> Result<()>;

/// Copies the named snapshots, or all that the filter takes if none is named, to another repository.
///
/// The oldest come first. One that is there already is passed over; one that is damaged does not keep the
/// others from being copied. Gives the ids of those that were not copied, each of which was warned of.
///
/// # Errors
/// `NotFound`, `Request` for names that mean none or several, or if both are one repository;
/// `Interrupted`, or what the storages answer. What was copied by then stays.
pub fn copy_all(
    source: &Arc<Repository>,
    target: &Arc<Repository>,
    (names, filter): (&[Which], &Filter),
    options: &CopyOptions,
    each: EachCopy<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<String>> {
    if source.config().repository == target.config().repository {
        return Err(EngineError::Request(format!(
            "{} and {} are the same repository or one is a mirror of the other; `larder sync` keeps a mirror",
            source.location(),
            target.location()
        )));
    }
    if !options.dry_run {
        target.check_write()?;
    }
    let meant = meant(&snapshots::read(source)?, names, filter)?;
    let mut left = Vec::new();
    let mut transfer = Transfer::new(source, target, progress, cancel)?;
    for info in &meant {
        cancel.check()?;
        match transfer.snapshot(info, options) {
            Ok(report) => each(&report)?,
            Err(error @ (EngineError::Damaged { .. } | EngineError::NotFound(_))) => {
                progress.warning(&format!("snapshot {} was not copied: {error}", info.id));
                left.push(info.id.clone());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}

/// Snapshots of a repository that are to be copied, each once, the oldest first.
pub(crate) struct Chosen {
    pub snapshots: Vec<SnapshotInfo>,
    /// Entries of all of them.
    pub entries: u64,
    /// Bytes of all their files.
    pub bytes: u64,
}

/// Finds the named snapshots, or all that the filter takes if none is named.
///
/// # Errors
/// As [`copy_all`].
pub(crate) fn choose(source: &Repository, names: &[Which], filter: &Filter) -> Result<Chosen> {
    let view = snapshots::read(source)?;
    let snapshots = meant(&view, names, filter)?;
    let cells = snapshots
        .iter()
        .filter_map(|info| view.cells.get(&info.session));
    let sources = cells.flat_map(|cell| &cell.sources);
    let (entries, bytes) = sources.fold((0_u64, 0_u64), |(entries, bytes), source| {
        let entries = entries.saturating_add(source.entries);
        (entries, bytes.saturating_add(source.bytes))
    });
    Ok(Chosen {
        snapshots,
        entries,
        bytes,
    })
}

/// Copies snapshots to a repository that nobody else sees before all of them are there: the first that
/// cannot be copied ends it.
///
/// # Errors
/// `Damaged`, `NotFound`, `Interrupted`, or what the storages answer.
pub(crate) fn copy_alone(
    (source, target): (&Arc<Repository>, &Arc<Repository>),
    chosen: &Chosen,
    author: &Author,
    each: EachCopy<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<()> {
    let options = CopyOptions {
        author: author.clone(),
        dry_run: false,
    };
    let mut transfer = Transfer::new(source, target, progress, cancel)?;
    transfer.is_alone = true;
    progress.phase("exporting", Some(chosen.entries), Some(chosen.bytes));
    for info in &chosen.snapshots {
        cancel.check()?;
        let copied = transfer.snapshot(info, &options);
        each(&copied.map_err(|error| of_snapshot(&info.id, error))?)?;
    }
    Ok(())
}

/// Says of which snapshot something is damaged.
fn of_snapshot(id: &str, error: EngineError) -> EngineError {
    match error {
        EngineError::Damaged { object, why } => EngineError::Damaged {
            object: format!("{object}, which snapshot {id} needs,"),
            why,
        },
        other => other,
    }
}

/// Finds the snapshots that are meant, each once, the oldest first.
fn meant(view: &View, names: &[Which], filter: &Filter) -> Result<Vec<SnapshotInfo>> {
    let mut found = if names.is_empty() {
        snapshots::of_view(view, filter, false)
    } else {
        let found = names
            .iter()
            .map(|which| snapshots::resolve_in(view, which, filter));
        found.collect::<Result<Vec<_>>>()?
    };
    if let Some(partial) = found.iter().find(|info| info.partial) {
        return Err(EngineError::Request(format!(
            "{} is the checkpoint of an unfinished backup; finish that first",
            partial.id
        )));
    }
    let mut seen = BTreeSet::new();
    found.retain(|info| seen.insert(info.session));
    found.sort_by_key(|info| (info.time, info.session));
    Ok(found)
}

/// Names a snapshot of a repository in another one; one that is a copy itself by what it is a copy of.
fn origin(repository: &Repository, cell: &Cell) -> String {
    let own = || {
        let repository = repository.config().repository.to_hex();
        format!("{repository}/{}", encode_hex(&first_of(cell).0))
    };
    cell.options.get(COPIED_FROM).cloned().unwrap_or_else(own)
}

/// Tells whether a cell was copied from another repository: its session says nothing of its time.
pub(crate) fn is_from_elsewhere(cell: &Cell) -> bool {
    cell.options.contains_key(COPIED_FROM)
}

/// Finds the snapshot that is a copy of the same one, or the very one that it was copied from.
fn twin(target: &Repository, view: &View, origin: &str) -> Option<String> {
    let mut live = view.snapshots();
    let own = target.config().repository.to_hex();
    let is_it = |cell: &&Cell| {
        let first = || format!("{own}/{}", encode_hex(&first_of(cell).0));
        match cell.options.get(COPIED_FROM) {
            Some(from) => from == origin,
            None => first() == origin,
        }
    };
    live.find(is_it).map(|cell| cell.id.snapshot_name())
}

struct Transfer<'a> {
    source: &'a Arc<Repository>,
    target: &'a Arc<Repository>,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    reader: ChunkReader,
    lookup: Lookup,
    chunker: Chunker,
    budget: Arc<Budget>,
    /// Contents in the target by those in the source, with the session that put them in.
    done: ScratchMap,
    /// Whether nobody else sees the target, so that what was put in stays usable.
    is_alone: bool,
}

impl<'a> Transfer<'a> {
    fn new(
        source: &'a Arc<Repository>,
        target: &'a Arc<Repository>,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        Ok(Self {
            source,
            target,
            progress,
            cancel,
            reader: ChunkReader::new(source)?,
            lookup: Lookup::new(target)?,
            chunker: target.chunker()?,
            budget: Budget::new(BUDGET_BYTES),
            done: ScratchMap::new(target.cache_dir(), DONE_BYTES),
            is_alone: false,
        })
    }

    fn snapshot(&mut self, info: &SnapshotInfo, options: &CopyOptions) -> Result<CopyReport> {
        let clock = Instant::now();
        // Packs may have been moved by a prune since the last one was copied.
        let from = view::read(self.source, true, None)?;
        let found = from.cells.get(&info.session);
        let mut cell = found
            .filter(|cell| !from.is_forgotten(&cell.id))
            .cloned()
            .ok_or_else(|| EngineError::NotFound("it was forgotten meanwhile".to_owned()))?;
        cell.tags = from.tags(&cell).to_vec();
        let count =
            |of: fn(&Source) -> u64| cell.sources.iter().map(of).fold(0, u64::saturating_add);
        let mut report = CopyReport {
            from: info.id.clone(),
            entries: count(|source| source.entries),
            bytes: count(|source| source.bytes),
            ..CopyReport::default()
        };
        let origin = origin(self.source, &cell);
        let view = view::read_cells(self.target, None)?;
        if let Some(twin) = twin(self.target, &view, &origin) {
            report.existed = true;
            report.snapshot = Some(twin);
        }
        if report.existed || options.dry_run {
            return Ok(report);
        }
        if !self.is_alone {
            let (entries, bytes) = (Some(report.entries), Some(report.bytes));
            self.progress.phase("copying a snapshot", entries, bytes);
        }
        let _reading = Reading::start(self.source, cell.id);
        cell.options.insert(COPIED_FROM.to_owned(), origin);
        let mut copy = Copy::start(self.target, &options.author, false, self.cancel)?;
        let made = copy.make_new(&cell, view, &mut |copy, _| self.trees(copy, &cell));
        report.snapshot = copy.finish(made)?;
        let written = copy.packer.written();
        report.bytes_added = written.plain_bytes;
        report.bytes_stored = written.stored_bytes;
        report.seconds = clock.elapsed().as_secs_f64();
        Ok(report)
    }

    fn trees(&mut self, copy: &mut Copy<'_>, cell: &Cell) -> Result<Made> {
        let session = copy.opened.as_ref().map(|opened| opened.id);
        let session = session.unwrap_or_default();
        let mut trees = Vec::with_capacity(cell.sources.len());
        for source in &cell.sources {
            trees.push(self.tree(&mut copy.packer, &session, source)?);
            // Blocks never have chunks of two sources.
            copy.packer.end_blocks();
        }
        Ok(Made::Trees(trees))
    }

    fn tree(&mut self, packer: &mut Packer, session: &SessionId, tree: &Source) -> Result<Source> {
        let root = Root {
            id: tree.root,
            level: tree.level,
            entries: tree.entries,
            bytes: tree.bytes,
        };
        let mut cursor = Cursor::new(ChunkReader::new(self.source)?, &root);
        let mut builder = TreeBuilder::new(self.target.keyring().boundary_key());
        while let Some(mut entry) = cursor.next_entry()? {
            self.cancel.check()?;
            self.progress.current(&entry.key);
            entry.content = self.content(packer, session, &entry)?;
            if let Attributes::OutOfLine(id) = &entry.attributes {
                let bytes = self.reader.read(ChunkType::Value, id)?;
                let id = put(&self.budget, packer, ChunkType::Value, &bytes)?;
                entry.attributes = Attributes::OutOfLine(id);
            }
            self.progress.advance(1, entry.size);
            builder.push(entry, &mut sink(packer))?;
        }
        let root = builder.finish(&mut sink(packer))?;
        Ok(Source {
            path: tree.path.clone(),
            root: root.id,
            level: root.level,
            entries: root.entries,
            bytes: root.bytes,
        })
    }

    /// Gives an entry's content in the target; reads it unless this run has, and it is there still.
    fn content(
        &mut self,
        packer: &mut Packer,
        session: &SessionId,
        entry: &Entry,
    ) -> Result<Content> {
        if entry.content == Content::None {
            return Ok(Content::None);
        }
        let key = blake3::hash(&encode(&entry.content));
        if let Some(value) = self.done.get(key.as_bytes())?
            && let Some((by, content)) = value.split_first_chunk::<24>()
            && let Some(content) = decode(content)
        {
            let wanted = [(&content, &Attributes::None)];
            let is_kept = self.is_alone || *by == session.0;
            if is_kept || self.lookup.are_usable(packer, &wanted)? == [true] {
                return Ok(content);
            }
        }
        let content = self.transfer(packer, entry)?;
        let value = [session.0.as_slice(), &encode(&content)].concat();
        self.done.insert(key.as_bytes(), &value)?;
        Ok(content)
    }

    /// Reads a content, cuts it as the target cuts, and puts it in.
    fn transfer(&mut self, packer: &mut Packer, entry: &Entry) -> Result<Content> {
        let mut all = self.extents(entry)?.peekable();
        let mut content = ContentBuilder::new();
        loop {
            let next = all.next_if(|extent| !matches!(extent, Ok(Extent::Data { .. })));
            if let Some(extent) = next {
                content.push(extent?, &mut sink(packer))?;
            } else if all.peek().is_some() {
                self.run(packer, &mut content, &mut all, entry.size)?;
            } else {
                break;
            }
        }
        if content.size() != entry.size {
            return Err(EngineError::Format(FormatError::Malformed {
                what: "file",
                at: 0,
                why: "its extents do not add up to its size",
            }));
        }
        content.finish(&mut sink(packer))
    }

    /// Copies one run of data between holes.
    fn run(
        &mut self,
        packer: &mut Packer,
        content: &mut ContentBuilder,
        all: &mut Peekable<Extents>,
        size: u64,
    ) -> Result<()> {
        let mut buffer = ChunkBuffer::new();
        let mut input = Run {
            reader: &mut self.reader,
            all,
            chunk: Arc::from([]),
            read: 0,
            failure: None,
        };
        loop {
            self.cancel.check()?;
            let left = size.saturating_sub(content.size());
            let chunk = match buffer.next(&self.chunker, &mut input, left) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let unknown = || EngineError::Internal(error.to_string());
                    return Err(input.failure.take().unwrap_or_else(unknown));
                }
            };
            let id = put(&self.budget, packer, ChunkType::Data, chunk)?;
            let length = chunk.len() as u64;
            content.push(Extent::Data { id, length }, &mut sink(packer))?;
        }
    }

    fn extents(&self, entry: &Entry) -> Result<Extents> {
        Ok(match &entry.content {
            Content::None => Box::new(iter::empty()),
            Content::Whole(id) => Box::new(iter::once(Ok(Extent::Data {
                id: *id,
                length: entry.size,
            }))),
            Content::Extents(list) => Box::new(list.clone().into_iter().map(Ok)),
            Content::List { root, level } => {
                let root = ListRoot {
                    id: *root,
                    level: *level,
                    size: entry.size,
                };
                let nodes = ChunkReader::new(self.source)?;
                Box::new(extents(nodes, &root).map(|extent| extent.map(|(_, extent)| extent)))
            }
        })
    }
}

/// The extents of a file, in order.
type Extents = Box<dyn Iterator<Item = Result<Extent>>>;

/// The bytes of one run of data, chunk by chunk of the source.
struct Run<'a> {
    reader: &'a mut ChunkReader,
    all: &'a mut Peekable<Extents>,
    chunk: Arc<[u8]>,
    /// Bytes of the chunk that were read.
    read: usize,
    /// What kept the next chunk from being read.
    failure: Option<EngineError>,
}

impl Run<'_> {
    /// Reads the next chunk of the run; tells whether there is one.
    fn advance(&mut self) -> Result<bool> {
        let is_data = |extent: &Result<Extent>| !matches!(extent, Ok(Extent::Hole { .. }));
        let Some(extent) = self.all.next_if(is_data) else {
            return Ok(false);
        };
        let Extent::Data { id, length } = extent? else {
            return Ok(false);
        };
        self.chunk = self.reader.read(ChunkType::Data, &id)?;
        self.read = 0;
        if self.chunk.len() as u64 == length {
            return Ok(true);
        }
        Err(EngineError::damaged(
            &format!("chunk {id}"),
            &"it is not as long as the file says",
        ))
    }
}

impl Read for Run<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    let why = error.to_string();
                    self.failure = Some(error);
                    return Err(io::Error::other(why));
                }
            }
        }
        let mut left = self.chunk.get(self.read..).unwrap_or_default();
        let read = left.read(buffer)?;
        self.read += read;
        Ok(read)
    }
}

/// Puts a chunk into the target, unless it is there.
fn put(
    budget: &Arc<Budget>,
    packer: &mut Packer,
    chunk_type: ChunkType,
    bytes: &[u8],
) -> Result<ChunkId> {
    let id = packer.chunk_id(chunk_type, bytes);
    let held = budget.hold(0, bytes.len());
    let held = held.ok_or(EngineError::Interrupted)?;
    packer.put(chunk_type, id, bytes, Some(held))?;
    Ok(id)
}

/// Writes a content down, for this run alone.
fn encode(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    match content {
        Content::None => bytes.push(0),
        Content::Whole(id) => {
            bytes.push(1);
            bytes.extend(id.0);
        }
        Content::Extents(extents) => {
            bytes.push(2);
            for extent in extents {
                bytes.extend(extent.length().to_le_bytes());
                let id = match extent {
                    Extent::Data { id, .. } => Some(id.0),
                    Extent::Hole { .. } => None,
                };
                bytes.push(u8::from(id.is_some()));
                bytes.extend(id.into_iter().flatten());
            }
        }
        Content::List { root, level } => {
            bytes.extend([3, *level]);
            bytes.extend(root.0);
        }
    }
    bytes
}

/// Reads what [`encode`] wrote.
fn decode(bytes: &[u8]) -> Option<Content> {
    let (kind, mut rest) = bytes.split_first()?;
    match kind {
        0 => Some(Content::None),
        1 => Some(Content::Whole(ChunkId(rest.try_into().ok()?))),
        2 => {
            let mut extents = Vec::new();
            while let Some((length, after)) = rest.split_first_chunk() {
                let length = u64::from_le_bytes(*length);
                let (is_data, after) = after.split_first()?;
                rest = after;
                extents.push(match is_data {
                    0 => Extent::Hole { length },
                    _ => {
                        let (id, after) = rest.split_first_chunk()?;
                        rest = after;
                        let id = ChunkId(*id);
                        Extent::Data { id, length }
                    }
                });
            }
            Some(Content::Extents(extents))
        }
        _ => {
            let (level, root) = rest.split_first()?;
            Some(Content::List {
                root: ChunkId(root.try_into().ok()?),
                level: *level,
            })
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;
