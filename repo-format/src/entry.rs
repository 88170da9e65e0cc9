//! An entry: one path with its metadata and content (SPEC.md §9).

use alloc::vec::Vec;

use crate::ids::ChunkId;

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
            _ => return None,
        })
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
    /// Where the extended attributes are.
    pub attributes: Attributes,
}

impl Entry {
    /// Tells whether the entry is a file with more than one name in its source.
    #[must_use]
    pub fn is_hard_linked(&self) -> bool {
        self.links > 1 && self.kind != EntryType::Directory
    }
}
