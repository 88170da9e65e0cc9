//! Writing a file, or a folder as a tar stream, to a single output.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;

use larder_format::attributes::{self, ExtendedAttribute};
use larder_format::entry::{Attributes, Content, Entry, EntryType, Extent};
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::list::{ListRoot, extents};
use larder_format::tree::read::scan_prefix;

use super::paths::{Located, Origin, below, join, locate_or_say, with_slash};
use super::tar::{Member, TarWriter};
use super::{Shared, cell_of, prepare};
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::restore::objects::{Mapped, Mapping};
use crate::scratch::ScratchMap;
use crate::snapshots::{SnapshotInfo, clean_path};
use crate::storage::bucket::is_cold;

/// Memory of the names of files with several names, before they go to disk.
const LINKS_BYTES: usize = 16 << 20;
/// What holes are written from.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes a file raw, or a folder as a tar stream.
///
/// The names in the stream are relative to the folder, which is `./` itself. The stream is ustar
/// with pax records for what ustar has no room for: long or non-ASCII names, fractions of
/// seconds, extended attributes (`SCHILY.xattr.`). Holes are written as zeros. Sockets, which no
/// tar stream can hold, and files whose content could not be read when they were backed up are
/// left out with a warning in the log.
///
/// Gives the number of files and folders that could not be read when they were backed up: the
/// stream lacks them, or what was in them.
///
/// # Errors
/// `NotFound`; `Request` for what is neither file nor folder, or could not be read when it was
/// backed up; `Damaged`, naming the path; what the storage answers, or what writing answers. What
/// was written before an error is no whole file or stream.
pub fn dump(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    path: &[u8],
    out: &mut dyn Write,
) -> Result<u64> {
    let view = prepare(repository)?;
    let cell = &cell_of(&view, snapshot)?;
    let mut dump = Contents::new(repository)?;
    match locate_or_say(&mut Shared(&dump.nodes), cell, path)? {
        Located::Inside(found) if !found.is_directory() => {
            let item = found.item();
            refuse_other(&item.entry, &item.path)?;
            dump.content(&item.entry, &item.path, out)?;
            out.flush().map_err(failed)?;
            Ok(0)
        }
        Located::Inside(found) => {
            let mut folder = Folder::new(repository, out);
            folder.take(&mut dump, 0, &found.origin, &found.key, b"")?;
            folder.finish()
        }
        Located::Above(origins) => {
            let mut folder = Folder::new(repository, out);
            let path = clean_path(path);
            for (number, origin) in (0..).zip(&origins) {
                let base = below(&path, &origin.path).unwrap_or_default();
                folder.take(&mut dump, number, origin, b"", &base)?;
            }
            folder.finish()
        }
    }
}

/// Gives a failure to write the output.
pub(super) fn failed(source: std::io::Error) -> EngineError {
    EngineError::File {
        operation: "write to",
        path: "the output".into(),
        source,
    }
}

/// A folder on its way into a tar stream.
struct Folder<'a> {
    tar: TarWriter<'a>,
    /// The first name of each file with several names, by source, file system and inode.
    links: ScratchMap,
    /// Files and folders that could not be read when they were backed up.
    unreadable: u64,
}

impl<'a> Folder<'a> {
    fn new(repository: &Repository, out: &'a mut dyn Write) -> Self {
        Self {
            tar: TarWriter::new(out),
            links: ScratchMap::new(repository.cache_dir(), LINKS_BYTES),
            unreadable: 0,
        }
    }

    fn finish(mut self) -> Result<u64> {
        self.tar.finish()?;
        Ok(self.unreadable)
    }

    /// Writes everything at or below a key of one source, under `base`.
    fn take(
        &mut self,
        dump: &mut Contents,
        number: u64,
        origin: &Origin,
        key: &[u8],
        base: &[u8],
    ) -> Result<()> {
        let Contents { nodes, chunks } = dump;
        let mut mapping = Mapping::default();
        for entry in scan_prefix(Shared(nodes), &origin.root, key)? {
            let entry = entry?;
            let path = origin.path_of_entry(&entry);
            let name = member_name(base, key, &entry);
            let is_refused = is_refused(&mut mapping, &entry, key, &path);
            let is_left_out = is_refused || left_out(&entry, &path);
            let is_lacking = is_left_out && entry.kind == EntryType::Object;
            self.unreadable += u64::from(entry.flags.unreadable || is_lacking);
            if is_left_out {
                continue;
            }
            let attributes = read_attributes(chunks, &entry);
            let mut member = Member {
                name,
                entry: &entry,
                first_name: None,
                attributes: attributes.map_err(|error| while_dumping(error, &path))?,
            };
            if entry.is_hard_linked() {
                let link = link_key(number, &entry);
                member.first_name = self.links.get(&link)?;
                if member.first_name.is_none() {
                    self.links.insert(&link, &member.name)?;
                }
            }
            self.tar.start(&member)?;
            if member.has_content() {
                write_content(nodes, chunks, &entry, self.tar.out())
                    .map_err(|error| while_dumping(error, &path))?;
                self.tar.pad(entry.size)?;
            }
        }
        Ok(())
    }
}

/// What content is read with: nodes and chunks apart, so that neither drives the other out.
pub(crate) struct Contents {
    nodes: RefCell<ChunkReader>,
    chunks: ChunkReader,
}

impl Contents {
    /// Reads nothing yet.
    pub(crate) fn new(repository: &Arc<Repository>) -> Result<Self> {
        Ok(Self {
            nodes: RefCell::new(ChunkReader::new(repository)?),
            chunks: ChunkReader::new(repository)?,
        })
    }

    /// Writes the bytes of a file or object; `path` is named in errors.
    pub(crate) fn content(
        &mut self,
        entry: &Entry,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<()> {
        write_content(&self.nodes, &mut self.chunks, entry, out)
            .map_err(|error| while_dumping(error, path))
    }
}

/// Writes the bytes of a file in order.
fn write_content(
    nodes: &RefCell<ChunkReader>,
    chunks: &mut ChunkReader,
    entry: &Entry,
    out: &mut dyn Write,
) -> Result<()> {
    match &entry.content {
        Content::None if entry.size == 0 => Ok(()),
        Content::None => Err(EngineError::Damaged {
            object: "its entry".to_owned(),
            why: "it has a size and no content".to_owned(),
        }),
        Content::Whole(id) => write_chunk(chunks, id, entry.size, out),
        Content::Extents(list) => list
            .iter()
            .try_for_each(|extent| write_extent(chunks, extent, out)),
        Content::List { root, level } => {
            let root = ListRoot {
                id: *root,
                level: *level,
                size: entry.size,
            };
            for next in extents(Shared(nodes), &root) {
                let (_, extent) = next?;
                write_extent(chunks, &extent, out)?;
            }
            Ok(())
        }
    }
}

fn write_extent(chunks: &mut ChunkReader, extent: &Extent, out: &mut dyn Write) -> Result<()> {
    match extent {
        Extent::Data { id, length } => write_chunk(chunks, id, *length, out),
        Extent::Hole { length } => {
            let mut left = *length;
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX);
                let zeros = ZEROS.get(..now).unwrap_or(&ZEROS);
                out.write_all(zeros).map_err(failed)?;
                left -= zeros.len() as u64;
            }
            Ok(())
        }
    }
}

fn write_chunk(
    chunks: &mut ChunkReader,
    id: &ChunkId,
    length: u64,
    out: &mut dyn Write,
) -> Result<()> {
    let chunk = chunks.read(ChunkType::Data, id)?;
    if chunk.len() as u64 != length {
        return Err(EngineError::Damaged {
            object: format!("chunk {id}"),
            why: format!("it has {} bytes in place of {length}", chunk.len()),
        });
    }
    out.write_all(&chunk).map_err(failed)
}

fn read_attributes(chunks: &mut ChunkReader, entry: &Entry) -> Result<Vec<ExtendedAttribute>> {
    match &entry.attributes {
        // A tar stream has no place for the properties of an object.
        _ if entry.kind == EntryType::Object => Ok(Vec::new()),
        Attributes::None => Ok(Vec::new()),
        Attributes::Inline(record) => Ok(attributes::decode(record)?),
        Attributes::OutOfLine(id) => {
            let record = chunks.read(ChunkType::Value, id)?;
            Ok(attributes::decode(&record)?)
        }
    }
}

/// Gives an entry's name in the stream: relative to `key`, and below `base`.
fn member_name(base: &[u8], key: &[u8], entry: &Entry) -> Vec<u8> {
    let rest = entry.key.strip_prefix(key).unwrap_or(&entry.key);
    let name = join(base, rest);
    let is_directory = entry.kind == EntryType::Directory;
    if base.is_empty() {
        let rest = if rest.is_empty() { b"./" } else { rest };
        return rest.to_vec();
    }
    if is_directory {
        with_slash(&name)
    } else {
        name
    }
}

fn link_key(number: u64, entry: &Entry) -> Vec<u8> {
    [number, entry.filesystem, entry.inode]
        .iter()
        .flat_map(|part| part.to_be_bytes())
        .collect()
}

/// Tells whether an entry cannot stand in a tar stream, and says so in the log.
fn left_out(entry: &Entry, path: &[u8]) -> bool {
    let shown = String::from_utf8_lossy(path);
    if entry.kind == EntryType::Socket {
        tracing::warn!("{shown} is a socket and was left out");
    } else if entry.flags.unreadable && is_cold(&entry.class) {
        tracing::warn!("{shown} had to be thawed first when it was backed up and was left out");
    } else if entry.flags.unreadable && entry.kind.has_content() {
        tracing::warn!("{shown} could not be read when it was backed up and was left out");
    } else {
        return false;
    }
    true
}

/// Tells whether an object cannot be the file of its key, as in a restore into a folder, and says so.
fn is_refused(mapping: &mut Mapping, entry: &Entry, key: &[u8], path: &[u8]) -> bool {
    if entry.kind != EntryType::Object {
        return false;
    }
    let below = entry.key.strip_prefix(key).unwrap_or(&entry.key);
    match mapping.map(below, entry.size) {
        Mapped::Refused(why) => {
            let shown = String::from_utf8_lossy(path);
            tracing::warn!("{shown} was left out: {why}");
            true
        }
        Mapped::File | Mapped::Folder | Mapped::Target => false,
    }
}

/// Refuses what has no content of its own.
fn refuse_other(entry: &Entry, path: &[u8]) -> Result<()> {
    let shown = String::from_utf8_lossy(path);
    let what = match entry.kind {
        EntryType::File | EntryType::Object if entry.flags.unreadable => {
            let path = shown.into_owned();
            return Err(EngineError::Unread { path });
        }
        EntryType::File | EntryType::Object | EntryType::Directory => return Ok(()),
        EntryType::Symlink => {
            let target = String::from_utf8_lossy(&entry.link_target);
            format!("a symbolic link to {target}")
        }
        EntryType::Fifo => "a named pipe".to_owned(),
        EntryType::Socket => "a socket".to_owned(),
        EntryType::CharacterDevice | EntryType::BlockDevice => "a device".to_owned(),
    };
    Err(EngineError::Request(format!(
        "{shown} is {what} and has no content; dump a file, or the folder that it is in"
    )))
}

/// Adds which path an error is about.
fn while_dumping(error: EngineError, path: &[u8]) -> EngineError {
    let shown = String::from_utf8_lossy(path);
    match error {
        EngineError::Damaged { object, why } => EngineError::Damaged {
            object,
            why: format!("{why} (it is needed for {shown})"),
        },
        EngineError::Format(error) => EngineError::Damaged {
            object: format!("what the snapshot says of {shown}"),
            why: error.to_string(),
        },
        other => other,
    }
}
