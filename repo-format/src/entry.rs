//! An entry: one path with its metadata and content (SPEC.md §9).

use alloc::vec::Vec;

use crate::error::{FormatError, Result};
use crate::ids::ChunkId;
use crate::limits::{
    CHUNK_BYTES, HEIGHT, INLINE_ATTRIBUTE_BYTES, INLINE_EXTENTS, KEY_BYTES, LINK_TARGET_BYTES,
    OBJECT_CLASS_BYTES, OBJECT_TAG_BYTES, OWNER_NAME_BYTES,
};

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum EntryType {
    /// A regular file, or a device or pipe that was read as one.
    #[default]
    File = 1,
    /// A directory; its key ends in `/`, unless it is the source itself.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A socket.
    Socket = 5,
    /// A character device.
    CharacterDevice = 6,
    /// A block device.
    BlockDevice = 7,
    /// An object of a bucket; its key may be any bytes.
    Object = 8,
}

impl EntryType {
    /// Takes the type from its number in SPEC.md.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::Socket,
            6 => Self::CharacterDevice,
            7 => Self::BlockDevice,
            8 => Self::Object,
            _ => return None,
        })
    }

    /// Tells whether it has content: a file, or an object of a bucket.
    #[must_use]
    pub fn has_content(self) -> bool {
        matches!(self, Self::File | Self::Object)
    }
}

/// A time as file systems keep it: seconds since 1970 and nanoseconds below 10⁹.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Facts about how an entry was read (bits of the `flags` column).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EntryFlags {
    /// The file changed while it was read, and again when it was read once more.
    pub changed_while_read: bool,
    /// The content could not be read: the entry holds the metadata alone.
    pub unreadable: bool,
    /// A device or pipe was read as a regular file, because it was asked for.
    pub read_as_special: bool,
    /// Some extended attributes could not be read.
    pub attributes_incomplete: bool,
}

/// A run of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Bytes that are kept in a chunk.
    Data {
        /// The chunk's id.
        id: ChunkId,
        /// The chunk's length in bytes, at least 1.
        length: u64,
    },
    /// Bytes that are all zero and take no room in the source.
    Hole {
        /// The length in bytes, at least 1.
        length: u64,
    },
}

impl Extent {
    /// Gives the length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Data { length, .. } | Self::Hole { length } => *length,
        }
    }
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Content {
    /// There are none: an empty file, an unreadable one, or not a file.
    #[default]
    None,
    /// One chunk holds all `size` bytes.
    Whole(ChunkId),
    /// Up to [`crate::limits::INLINE_EXTENTS`] extents, in order.
    Extents(Vec<Extent>),
    /// The root of a list of extents, and its level (0 is a leaf).
    List {
        /// The id of the root node.
        root: ChunkId,
        /// The level of the root node.
        level: u8,
    },
}

/// Where an entry's attributes record (extended attributes, ACLs) is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Attributes {
    /// There are none.
    #[default]
    None,
    /// The encoded record itself, at most [`crate::limits::INLINE_ATTRIBUTE_BYTES`].
    Inline(Vec<u8>),
    /// The chunk (type value) that holds the encoded record.
    OutOfLine(ChunkId),
}

/// One path with its metadata and content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    /// The path relative to its source, as raw bytes; a directory's ends in `/`; the source
    /// itself is the empty key.
    pub key: Vec<u8>,
    /// The version ordinal: 0 unless a bucket's versions are kept.
    pub ordinal: u64,
    /// What the path names.
    pub kind: EntryType,
    /// Size of the content in bytes; 0 for what is not a file.
    pub size: u64,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// Owner's name, empty when it has none.
    pub user: Vec<u8>,
    /// Group's name, empty when it has none.
    pub group: Vec<u8>,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Time of the last change of content or metadata.
    pub ctime: Timestamp,
    /// Time of the last read, kept when asked for.
    pub atime: Option<Timestamp>,
    /// Inode number.
    pub inode: u64,
    /// Ordinal of the file system within the source: 0 is the one the source itself is on.
    pub filesystem: u64,
    /// Number of hard links; entries of one source that share `filesystem` and `inode` and
    /// have more than one link are the same file.
    pub links: u64,
    /// Target of a symbolic link, raw.
    pub link_target: Vec<u8>,
    /// Device number of a device: major in the upper 32 bits, minor in the lower.
    pub device: u64,
    /// How the entry was read.
    pub flags: EntryFlags,
    /// Where the bytes are.
    pub content: Content,
    /// Where the extended attributes are, or the properties of an object.
    pub attributes: Attributes,
    /// ETag of an object as its listing has it, without quotes; empty if there is none.
    pub etag: Vec<u8>,
    /// Version id of an object; empty if its store keeps no versions.
    pub version: Vec<u8>,
    /// Storage class of an object, as its store calls it; empty where it does not say.
    pub class: Vec<u8>,
}

impl Entry {
    /// Tells whether the entry is a file with more than one name in its source.
    #[must_use]
    pub fn is_hard_linked(&self) -> bool {
        self.links > 1 && !matches!(self.kind, EntryType::Directory | EntryType::Object)
    }

    /// Checks what SPEC.md asks of an entry on its own; nodes neither hold nor give any other.
    pub fn check(&self) -> Result<()> {
        check_length("bytes of a key", &self.key, KEY_BYTES)?;
        if !is_file_key(&self.key, self.kind) {
            return Err(malformed(
                "its key is not a path that an entry of its type can have",
            ));
        }
        self.check_metadata()?;
        self.check_content()
    }

    /// Checks all but key and content.
    pub(crate) fn check_metadata(&self) -> Result<()> {
        check_length("bytes of an owner's name", &self.user, OWNER_NAME_BYTES)?;
        check_length("bytes of an owner's name", &self.group, OWNER_NAME_BYTES)?;
        check_length(
            "bytes of a link target",
            &self.link_target,
            LINK_TARGET_BYTES,
        )?;
        check_length("bytes of an ETag", &self.etag, OBJECT_TAG_BYTES)?;
        check_length("bytes of a version id", &self.version, OBJECT_TAG_BYTES)?;
        check_length("bytes of a storage class", &self.class, OBJECT_CLASS_BYTES)?;
        let times = [self.mtime, self.ctime, self.atime.unwrap_or_default()];
        let device = matches!(
            self.kind,
            EntryType::CharacterDevice | EntryType::BlockDevice
        );
        if self.mode > 0o7777 {
            Err(malformed("its mode has unknown bits"))
        } else if times.iter().any(|time| time.nanoseconds >= 1_000_000_000) {
            Err(malformed("a time has a second of nanoseconds or more"))
        } else if !self.link_target.is_empty() && self.kind != EntryType::Symlink {
            Err(malformed("it has a link target but is not a symlink"))
        } else if self.link_target.contains(&0) {
            Err(malformed("its link target has a NUL byte"))
        } else if self.kind == EntryType::Symlink
            && self.link_target.is_empty()
            && !self.flags.unreadable
        {
            Err(malformed("it is a symlink without a target"))
        } else if self.flags.read_as_special && self.kind != EntryType::File {
            Err(malformed("it was read as special but is not a file"))
        } else if self.device != 0 && !device {
            Err(malformed("it has a device number but is not a device"))
        } else if !self.is_object_or_file_alone() {
            Err(malformed(
                "it has what only files have, and what only objects have",
            ))
        } else if let Attributes::Inline(record) = &self.attributes {
            if record.is_empty() {
                return Err(malformed("its attributes record is empty"));
            }
            check_length("bytes of inline attributes", record, INLINE_ATTRIBUTE_BYTES)
        } else {
            Ok(())
        }
    }

    /// Tells whether an object has nothing that only files have, and the other way round.
    fn is_object_or_file_alone(&self) -> bool {
        if self.kind != EntryType::Object {
            return self.etag.is_empty() && self.version.is_empty() && self.class.is_empty();
        }
        let numbers = [self.inode, self.filesystem, self.links, self.device];
        (self.mode, self.uid, self.gid) == (0, 0, 0)
            && self.user.is_empty()
            && self.group.is_empty()
            && (self.ctime, self.atime) == (Timestamp::default(), None)
            && numbers == [0; 4]
    }

    /// Checks that content and size agree.
    pub(crate) fn check_content(&self) -> Result<()> {
        if !self.kind.has_content() {
            return if self.size == 0 && self.content == Content::None {
                Ok(())
            } else {
                Err(malformed("it has size or content but is not a file"))
            };
        }
        match &self.content {
            Content::None if self.size > 0 && !self.flags.unreadable => {
                Err(malformed("it has a size but no content, and was readable"))
            }
            Content::None => Ok(()),
            Content::Whole(_) if self.size == 0 => Err(malformed("its one chunk is empty")),
            Content::Whole(_) => check_chunk_length(self.size),
            Content::List { level, .. } if *level > HEIGHT => Err(FormatError::Limit {
                what: "height of a list",
                found: u64::from(*level),
                limit: u64::from(HEIGHT),
            }),
            // Each of its extents has at least a byte.
            Content::List { .. } if self.size <= INLINE_EXTENTS as u64 => {
                Err(malformed("it has a list but is too small for one"))
            }
            Content::List { .. } => Ok(()),
            Content::Extents(extents) => self.check_extents(extents),
        }
    }

    fn check_extents(&self, extents: &[Extent]) -> Result<()> {
        if extents.is_empty() || extents.len() > INLINE_EXTENTS {
            return Err(malformed("it does not have 1 to 31 extents"));
        }
        if matches!(extents, [Extent::Data { .. }]) {
            return Err(malformed("its only extent is a chunk, which is content 1"));
        }
        let mut sum = Some(0_u64);
        let mut after_hole = false;
        for extent in extents {
            check_extent(extent, after_hole)?;
            after_hole = matches!(extent, Extent::Hole { .. });
            sum = sum.and_then(|sum| sum.checked_add(extent.length()));
        }
        if sum == Some(self.size) {
            Ok(())
        } else {
            Err(malformed("its extents do not add up to its size"))
        }
    }
}

/// Checks an extent's length, and that no hole follows a hole.
pub(crate) fn check_extent(extent: &Extent, after_hole: bool) -> Result<()> {
    match extent {
        Extent::Data { length: 0, .. } | Extent::Hole { length: 0 } => {
            Err(malformed("an extent is empty"))
        }
        Extent::Hole { .. } if after_hole => Err(malformed("a hole follows a hole")),
        // A column holds lengths doubled.
        Extent::Hole { length } if *length > u64::MAX >> 1 => {
            Err(malformed("a hole is 2^63 bytes or longer"))
        }
        Extent::Hole { .. } => Ok(()),
        Extent::Data { length, .. } => check_chunk_length(*length),
    }
}

/// Tells whether `key` can be the path of something of type `kind` in a file system.
///
/// True for the empty key, which is the source itself. Otherwise there is no NUL byte and no
/// empty, `.` or `..` component, and a directory's key alone ends in `/`. An object of a bucket
/// may have any key.
#[must_use]
pub fn is_file_key(key: &[u8], kind: EntryType) -> bool {
    if key.is_empty() || kind == EntryType::Object {
        return true;
    }
    let (path, directory) = match key.strip_suffix(b"/") {
        Some(path) => (path, true),
        None => (key, false),
    };
    directory == (kind == EntryType::Directory)
        && !path.contains(&0)
        && path
            .split(|byte| *byte == b'/')
            .all(|component| !matches!(component, b"" | b"." | b".."))
}

fn check_length(what: &'static str, bytes: &[u8], limit: usize) -> Result<()> {
    if bytes.len() > limit {
        return Err(FormatError::Limit {
            what,
            found: bytes.len() as u64,
            limit: limit as u64,
        });
    }
    Ok(())
}

fn check_chunk_length(found: u64) -> Result<()> {
    if found > CHUNK_BYTES as u64 {
        return Err(FormatError::Limit {
            what: "bytes of a chunk",
            found,
            limit: CHUNK_BYTES as u64,
        });
    }
    Ok(())
}

fn malformed(why: &'static str) -> FormatError {
    FormatError::Malformed {
        what: "entry",
        at: 0,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_entry_says_must_fit_its_type() {
        let entry = |kind, change: fn(&mut Entry)| {
            let mut entry = Entry {
                key: match kind {
                    EntryType::Directory => b"a/".to_vec(),
                    _ => b"a".to_vec(),
                },
                kind,
                ..Entry::default()
            };
            change(&mut entry);
            entry.check().is_ok()
        };
        let unreadable = |entry: &mut Entry| {
            entry.size = 7;
            entry.flags.unreadable = true;
        };
        assert!(entry(EntryType::File, unreadable));
        assert!(!entry(EntryType::Fifo, unreadable));
        assert!(!entry(EntryType::File, |entry| entry.size = 7));
        let special = |entry: &mut Entry| entry.flags.read_as_special = true;
        assert!(entry(EntryType::File, special));
        assert!(!entry(EntryType::BlockDevice, special));
        let target = |entry: &mut Entry| entry.link_target = b"to".to_vec();
        assert!(entry(EntryType::Symlink, target));
        assert!(!entry(EntryType::File, target));
        assert!(!entry(EntryType::Symlink, |_| {}));
        assert!(entry(EntryType::Symlink, |entry| entry.flags.unreadable = true));
        assert!(!entry(EntryType::Symlink, |entry| {
            entry.link_target = b"t\0o".to_vec();
        }));
        let etag = |entry: &mut Entry| entry.etag = b"1".to_vec();
        assert!(entry(EntryType::Object, etag));
        assert!(!entry(EntryType::File, etag));
        assert!(!entry(EntryType::Object, |entry| entry.mode = 0o644));
        assert!(!entry(EntryType::Object, |entry| entry.links = 1));
        assert!(!entry(EntryType::Object, |entry| entry.size = 7));
        assert!(entry(EntryType::Object, unreadable));
        assert!(!entry(EntryType::Object, |entry| entry.etag = alloc::vec![0; 1025]));
        let device = |entry: &mut Entry| entry.device = 1;
        assert!(entry(EntryType::CharacterDevice, device));
        assert!(!entry(EntryType::Fifo, device));
    }

    #[test]
    fn only_safe_paths_are_keys() {
        for key in ["", "a", "a/b", "...", "a/.b", "a b\n", ".a", "a."] {
            assert!(is_file_key(key.as_bytes(), EntryType::File), "{key:?}");
        }
        for key in [
            "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0",
        ] {
            assert!(!is_file_key(key.as_bytes(), EntryType::File), "{key:?}");
        }
        for key in ["", "/", "a//b", "../a", "a/", "a\0", "."] {
            assert!(is_file_key(key.as_bytes(), EntryType::Object), "{key:?}");
        }
        for key in ["", "a/", "a/b/"] {
            assert!(is_file_key(key.as_bytes(), EntryType::Directory), "{key:?}");
        }
        for key in ["a", "/", "//", "a//", "../", "./"] {
            assert!(
                !is_file_key(key.as_bytes(), EntryType::Directory),
                "{key:?}"
            );
        }
    }
}
