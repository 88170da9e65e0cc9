//! How RocksDB is set up for the index.
//!
//! Index and filters are partitioned and live in the block cache, so that one
//! cap holds for all memory and a filter is never larger than a cache shard
//! (measured elsewhere: 110 µs a miss with whole filters, 1.1 µs so).

use std::sync::{Arc, PoisonError, RwLock};

use roaring::RoaringBitmap;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompactionStyle,
    DBCompressionType, DBRecoveryMode, FifoCompactOptions, LogLevel, Options, WriteBufferManager,
};

use super::codec;

pub(super) const CHUNKS: &str = "chunks";
pub(super) const BLOCKS: &str = "blocks";

/// Memory in bytes of a family before it becomes a file; there are three, and two of each at most.
const WRITE_BUFFER_BYTES: usize = 2 << 20;
/// Bytes of a file of blocks, which is one write buffer: all files are open.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Files of new chunks that gather before they are sorted in among the others.
const NEW_FILES: i32 = 8;

/// The packs whose entries have to stay; nothing may be dropped while it is `None`.
pub(super) type Alive = Arc<RwLock<Option<RoaringBitmap>>>;

/// The settings of one open index.
pub(super) struct Settings {
    pub database: Options,
    pub chunks: Options,
    state: Options,
    blocks: Options,
}

impl Settings {
    pub(super) fn new(memory_bytes: usize, block_cache_bytes_max: u64, alive: &Alive) -> Self {
        let cache = Cache::new_lru_cache(memory_bytes);
        let table = table(&cache);
        let mut chunks = family(&table);
        chunks.set_compression_type(DBCompressionType::None);
        chunks.set_level_zero_file_num_compaction_trigger(NEW_FILES);
        chunks.set_merge_operator_associative("places", codec::merge_entries);
        let alive = Arc::clone(alive);
        chunks.set_compaction_filter("dead packs", move |_level, key: &[u8], value: &[u8]| {
            if key != codec::NEXT_ORDINAL_KEY && is_dead(&alive, value) {
                rocksdb::CompactionDecision::Remove
            } else {
                rocksdb::CompactionDecision::Keep
            }
        });
        let mut blocks = family(&table);
        let mut fifo = FifoCompactOptions::default();
        fifo.set_max_table_files_size(block_cache_bytes_max);
        blocks.set_compaction_style(DBCompactionStyle::Fifo);
        blocks.set_fifo_compaction_options(&fifo);
        blocks.set_compression_type(DBCompressionType::None);
        let file_bytes = (block_cache_bytes_max / 16).clamp(64 << 10, FILE_BYTES_MAX);
        blocks.set_write_buffer_size(usize::try_from(file_bytes).unwrap_or(WRITE_BUFFER_BYTES));
        Self {
            database: database(memory_bytes, cache),
            chunks,
            state: family(&table),
            blocks,
        }
    }

    pub(super) fn families(&self) -> [ColumnFamilyDescriptor; 3] {
        [
            ColumnFamilyDescriptor::new("default", self.state.clone()),
            ColumnFamilyDescriptor::new(CHUNKS, self.chunks.clone()),
            ColumnFamilyDescriptor::new(BLOCKS, self.blocks.clone()),
        ]
    }
}

fn is_dead(alive: &Alive, value: &[u8]) -> bool {
    let alive = alive.read().unwrap_or_else(PoisonError::into_inner);
    let Some(alive) = alive.as_ref() else {
        return false;
    };
    codec::entries(value).all(|entry| entry.is_some_and(|entry| !alive.contains(entry.ordinal)))
}

fn table(cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(4 << 10);
    table.set_metadata_block_size(4 << 10);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_ribbon_filter(10.0);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    // Ties each block's checksum to its file and place, so that one file's bytes under
    // another's name are noticed.
    table.set_format_version(6);
    table
}

fn family(table: &BlockBasedOptions) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_target_file_size_base(64 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

fn database(memory_bytes: usize, cache: Cache) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A record torn by a kill at the end of the log is dropped; any other damage there fails.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    let buffers =
        WriteBufferManager::new_write_buffer_manager_with_cache(memory_bytes / 4, false, cache);
    options.set_write_buffer_manager(&buffers);
    options.set_max_total_wal_size(16 << 20);
    // All stay open (FIFO compaction demands it): about 20 files for each 50 million chunks,
    // and some 256 of blocks. So they can still be read when the folder is deleted.
    options.set_max_open_files(-1);
    options.set_max_background_jobs(2);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_keep_log_file_num(1);
    options.set_log_level(LogLevel::Fatal);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}
