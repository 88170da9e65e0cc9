//! The limits of the format (SPEC.md §13): every decoder checks them before it allocates.

/// Plaintext bytes of one chunk.
pub const CHUNK_BYTES: usize = 4 << 20;
/// Plaintext bytes of one block.
pub const BLOCK_PLAIN_BYTES: usize = 8 << 20;
/// Stored bytes of one sealed block.
pub const BLOCK_SEALED_BYTES: usize = BLOCK_PLAIN_BYTES + (64 << 10);
/// Chunks in one block.
pub const BLOCK_CHUNKS: usize = 1 << 16;
/// Blocks in one pack.
pub const PACK_BLOCKS: usize = 1 << 16;
/// Chunks in one pack.
pub const PACK_CHUNKS: usize = 1 << 20;
/// Stored bytes of one pack.
pub const PACK_BYTES: usize = 64 << 20;
/// Stored bytes of one segment.
pub const SEGMENT_BYTES: usize = 64 << 20;
/// Packs in one segment.
pub const SEGMENT_PACKS: usize = 1 << 16;
/// Stored bytes of a config.
pub const CONFIG_BYTES: usize = 64 << 10;
/// Stored bytes of a key slot.
pub const SLOT_BYTES: usize = 64 << 10;
/// Stored bytes of the reserve.
pub const RESERVE_BYTES: usize = 16 << 20;
/// Key slots that one config may list.
pub const SLOTS: usize = 64;
/// Stored bytes of a session record, its `.done`, or an amendment.
pub const SMALL_RECORD_BYTES: usize = 64 << 10;
/// Stored bytes of a snapshot's cell.
pub const CELL_BYTES: usize = 16 << 20;
/// Stored bytes of a collector record.
pub const COLLECTOR_BYTES: usize = 256 << 20;
/// Stored bytes of a ledger.
pub const LEDGER_BYTES: usize = 80 << 20;
/// Groups in a ledger.
pub const LEDGER_GROUPS: usize = 4096;
/// Stored bytes of a run.
pub const RUN_BYTES: usize = 8 << 20;
/// Shards of a run.
pub const RUN_SHARDS: usize = 1024;
/// Bytes of a key at which a run is divided.
pub const RUN_KEY_BYTES: usize = 4096;
/// Stored bytes of a parity object.
pub const PARITY_BYTES: usize = 144 << 20;
/// Packs of one parity object.
pub const PARITY_PACKS: usize = 1024;
/// Pieces of all packs of one parity object.
pub const PARITY_PIECES: usize = 1 << 19;
/// Pieces for recovery of one parity object.
pub const PARITY_RECOVERY: usize = 1 << 15;
/// Pieces of a strip and those for recovery, these rounded up to a power of two.
pub const PARITY_STRIP: usize = 1 << 14;
/// Bytes of an entry's key (a path relative to its source).
pub const KEY_BYTES: usize = 64 << 10;
/// Levels of a tree or of a list above its leaves.
pub const HEIGHT: u8 = 16;
/// Columns in one page; the highest field is one less.
pub const PAGE_COLUMNS: usize = 64;
/// Items in one node of a tree.
pub const NODE_ITEMS: usize = 512;
/// Items that a node of a tree has at least, unless it is the last of its level or a leaf ended
/// by its key bytes.
pub const NODE_ITEMS_MIN: usize = 16;
/// Sum of key bytes at which a node is ended.
pub const NODE_KEY_BYTES: usize = 64 << 10;
/// Items in one node of a list.
pub const LIST_ITEMS: usize = 2048;
/// Items that a node of a list has at least, unless it is the last of its level.
pub const LIST_ITEMS_MIN: usize = 64;
/// Bytes of attributes kept inside an entry; more go out of line.
pub const INLINE_ATTRIBUTE_BYTES: usize = 1 << 10;
/// Extents kept inside an entry; more go into a list.
pub const INLINE_EXTENTS: usize = 31;
/// Bytes of a symbolic link's target.
pub const LINK_TARGET_BYTES: usize = 4096;
/// Bytes of a user's or group's name.
pub const OWNER_NAME_BYTES: usize = 256;
/// Bytes of an object's ETag, and of its version id.
pub const OBJECT_TAG_BYTES: usize = 1024;
/// Bytes of the name of an object's storage class.
pub const OBJECT_CLASS_BYTES: usize = 256;
/// Memory of one passphrase derivation, in KiB.
pub const KDF_MEMORY_KIB: u32 = 2 << 20;
/// Passes of one passphrase derivation.
pub const KDF_PASSES: u32 = 64;
/// Lanes of one passphrase derivation.
pub const KDF_LANES: u32 = 16;
/// Memory times passes of all passphrase slots of a repository together, in KiB.
pub const KDF_TOTAL_KIB: u64 = 64 << 20;
/// Bytes of the label of a key slot.
pub const LABEL_BYTES: usize = 256;
/// Features in each list of a config.
pub const FEATURES: usize = 64;
/// Bytes of the name of a feature or of a chunker.
pub const FEATURE_BYTES: usize = 256;
/// Tags of a snapshot.
pub const TAGS: usize = 1024;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 256;
/// Bytes of the name of a host, a user or a program.
pub const NAME_BYTES: usize = 1024;
/// Sources of a snapshot.
pub const SOURCES: usize = 4096;
/// Bytes of the path of a source.
pub const SOURCE_PATH_BYTES: usize = 64 << 10;
/// Segments that one cell names.
pub const CELL_SEGMENTS: usize = 1 << 18;
/// Numbers in the statistics of a snapshot.
pub const STATISTICS: usize = 256;
/// Options of a snapshot.
pub const OPTIONS: usize = 256;
/// Bytes of the name or the value of an option.
pub const OPTION_BYTES: usize = 4096;
/// Newest cells that a cell names.
pub const SEEN_CELLS: usize = 16;
/// Ids in one list of a collector round or state.
pub const COLLECTOR_IDS: usize = 1 << 22;
/// Bytes of an undo record.
pub const UNDO_BYTES: usize = 16 << 20;
/// Changes that one undo record lists.
pub const UNDO_CHANGES: usize = 4096;
/// Objects in a bundle.
pub const BUNDLE_OBJECTS: usize = 1 << 20;
/// Bytes of a name in a bundle.
pub const BUNDLE_NAME_BYTES: usize = 128;
/// Bytes of an object's name.
pub const OBJECT_NAME_BYTES: usize = 512;
