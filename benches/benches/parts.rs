//! What a backup is made of, part by part: `cargo bench -p larder-benches`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark: whatever fails ends it"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use larder_chunker::segments::{guess, join, split};
use larder_chunker::{ChunkSizes, Chunker, SECRET_BYTES};
use larder_engine::index::rocks::{IndexOptions, RocksIndex};
use larder_engine::index::{BlockRecord, Index, PackKind, PackRecord};
use larder_format::block::{BlockBuilder, Compression, SealedBlock, open_block};
use larder_format::compression::{Compressor, Decompressor};
use larder_format::entry::{Content, Entry, Timestamp};
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkPrefix, ChunkType, ObjectId, ReplicaId, RepositoryId};
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring, Purpose};
use larder_format::node::{decode_leaf, encode_leaf};
use larder_format::object::Kind;
use larder_format::pack::PackWriter;
use larder_format::tree::build::{NodeOut, Root, TreeBuilder};
use larder_format::tree::diff::Diff;
use larder_format::tree::read::{Cursor, NodeSource};

const ENTRIES: u64 = 100_000;
const INDEXED_CHUNKS: u64 = 1_000_000;
const SIZES: ChunkSizes = ChunkSizes {
    minimum: 256 << 10,
    mean: 1 << 20,
    maximum: 4 << 20,
};

/// A small deterministic generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
        bytes
    }

    fn id(&mut self) -> ChunkId {
        ChunkId(self.bytes(32).try_into().unwrap())
    }
}

/// Text that compresses about as source code does: words of a small vocabulary.
fn text(count: usize) -> Vec<u8> {
    let mut random = Random(7);
    let words: Vec<String> = (0..4000)
        .map(|_| {
            let word = random.next();
            let length = 2 + usize::try_from(word % 9).unwrap();
            format!("{word:x}")[..length].to_owned()
        })
        .collect();
    let mut text = Vec::with_capacity(count + 16);
    while text.len() < count {
        // The smaller of two draws: some words are common, most are rare.
        let draw = (random.next() % 4000).min(random.next() % 4000);
        text.extend_from_slice(words[usize::try_from(draw).unwrap()].as_bytes());
        text.push(if draw.is_multiple_of(11) { b'\n' } else { b' ' });
    }
    text.truncate(count);
    text
}

fn keyring() -> Keyring {
    let random: [u8; KEYRING_RANDOM_BYTES] =
        Random(1).bytes(KEYRING_RANDOM_BYTES).try_into().unwrap();
    Keyring::generate(RepositoryId([5; 16]), &random)
}

fn bytes_of(criterion: &mut Criterion) {
    let keyring = keyring();
    let noise = Random(3).bytes(64 << 20);
    let secret: [u8; SECRET_BYTES] = Random(6).bytes(SECRET_BYTES).try_into().unwrap();
    let mut chunkers = vec![("fastcdc".to_owned(), Chunker::fastcdc(SIZES, 17))];
    for (path, chunker) in Chunker::toeplitz_aes_by_every_path(SIZES, &secret) {
        chunkers.push((format!("toeplitz-aes ({path})"), chunker));
    }
    let mut group = criterion.benchmark_group("bytes");
    group.throughput(Throughput::Bytes(noise.len() as u64));
    for (name, chunker) in chunkers {
        group.bench_function(format!("cut 64 MiB by {name}"), |bencher| {
            bencher.iter(|| {
                let mut rest = noise.as_slice();
                let mut chunks = 0;
                while !rest.is_empty() {
                    rest = &rest[chunker.cut(rest)..];
                    chunks += 1;
                }
                chunks
            });
        });
    }
    let chunker = Chunker::toeplitz_aes(SIZES, &secret);
    let (chunker, run) = (&chunker, noise.as_slice());
    group.bench_function("cut 64 MiB by toeplitz-aes on two threads", |bencher| {
        bencher.iter(|| {
            let guesses: Vec<_> = thread::scope(|scope| {
                let cut = |segment| scope.spawn(move || guess(chunker, run, segment));
                let started: Vec<_> = split(run.len(), 2).map(cut).collect();
                let guesses = started.into_iter().map(|thread| thread.join().unwrap());
                guesses.collect()
            });
            join(chunker, run, run.len(), &guesses).len()
        });
    });
    for (name, length) in [("1 MiB", 1_usize << 20), ("8 KiB", 8 << 10)] {
        let chunk = &noise[..length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(format!("id of a chunk of {name}"), |bencher| {
            bencher.iter(|| keyring.chunk_id(ChunkType::Data, chunk));
        });
    }
    group.finish();
}

/// A block of 1 MiB in chunks of 16 KiB.
fn builder(keyring: &Keyring, plaintext: &[u8]) -> BlockBuilder {
    let mut builder = BlockBuilder::new(ChunkType::Data, plaintext.len());
    for chunk in plaintext.chunks(16 << 10) {
        let id = keyring.chunk_id(ChunkType::Data, chunk);
        builder.push(id, chunk).unwrap();
    }
    builder
}

fn sealed(keyring: &Keyring, builder: BlockBuilder, compression: Compression) -> SealedBlock {
    let mut compressor = Compressor::new().unwrap();
    builder
        .seal(keyring, &mut compressor, compression, &[9; 32])
        .unwrap()
}

fn blocks(criterion: &mut Criterion) {
    let keyring = keyring();
    let mut compressor = Compressor::new().unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    let mut group = criterion.benchmark_group("block of 1 MiB");
    group.throughput(Throughput::Bytes(1 << 20));
    for (name, plaintext) in [("text", text(1 << 20)), ("noise", Random(4).bytes(1 << 20))] {
        let builder = builder(&keyring, &plaintext);
        for (how, compression) in [
            ("zstd 3", Compression::Level(3)),
            ("stored", Compression::Stored),
        ] {
            group.bench_function(format!("seal {name}, {how}"), |bencher| {
                let seal = |builder: BlockBuilder| {
                    builder.seal(&keyring, &mut compressor, compression, &[9; 32])
                };
                bencher.iter_batched(|| builder.clone(), seal, BatchSize::LargeInput);
            });
        }
        let block = sealed(&keyring, builder, Compression::Level(3));
        group.bench_function(format!("open {name}"), |bencher| {
            bencher.iter(|| {
                open_block(
                    &keyring,
                    &block.key_id,
                    ChunkType::Data,
                    &block.bytes,
                    &mut decompressor,
                )
                .unwrap()
            });
        });
    }
    group.finish();
}

fn packs(criterion: &mut Criterion) {
    let keyring = keyring();
    let key = keyring.current(Purpose::Data).unwrap();
    let noise = Random(5).bytes(1 << 20);
    let block = sealed(&keyring, builder(&keyring, &noise), Compression::Stored);
    let chunks: Vec<_> = block
        .chunks
        .iter()
        .map(|(id, length)| (id.prefix(), *length))
        .collect();
    let write = || {
        let mut writer = PackWriter::new(Kind::DataPack, key, [1; 16]).unwrap();
        for _ in 0..14 {
            writer
                .push_block(&block.bytes, ChunkType::Data, chunks.clone())
                .unwrap();
        }
        writer.finish(key, &[2; 32], &[3; 32]).unwrap()
    };
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Bytes(write().bytes.len() as u64));
    group.bench_function("write 14 blocks of 1 MiB and close", |bencher| {
        bencher.iter(write);
    });
    group.finish();
}

/// Nodes in memory.
#[derive(Default)]
struct Nodes(HashMap<ChunkId, Arc<[u8]>>);

impl NodeSource for &Nodes {
    type Error = FormatError;

    fn node(&mut self, id: &ChunkId, _: ChunkType) -> Result<Arc<[u8]>, FormatError> {
        let node = self.0.get(id).cloned();
        node.ok_or(FormatError::WrongId { what: "node" })
    }
}

fn entries() -> Vec<Entry> {
    let mut random = Random(11);
    (0..ENTRIES)
        .map(|number| Entry {
            key: format!("folder{:03}/file{number:07}", number / 1000).into_bytes(),
            size: 1 + random.next() % 10_000,
            mode: 0o644,
            mtime: Timestamp {
                seconds: 1_700_000_000,
                nanoseconds: u32::try_from(random.next() % 1_000_000_000).unwrap(),
            },
            inode: 1_000_000 + number,
            links: 1,
            content: Content::Whole(random.id()),
            ..Entry::default()
        })
        .collect()
}

fn build(keyring: &Keyring, nodes: &mut Nodes, entries: Vec<Entry>) -> Root {
    let mut builder = TreeBuilder::new(keyring.boundary_key());
    let mut keep = |node: NodeOut| {
        let id = keyring.chunk_id(node.chunk_type, &node.plain);
        nodes.0.insert(id, node.plain.into());
        Ok::<_, FormatError>(id)
    };
    for entry in entries {
        builder.push(entry, &mut keep).unwrap();
    }
    builder.finish(&mut keep).unwrap()
}

fn trees(criterion: &mut Criterion) {
    let keyring = keyring();
    let entries = entries();
    let mut changed = entries.clone();
    for entry in changed.iter_mut().step_by(1000) {
        entry.mtime.seconds += 1;
    }
    let mut nodes = Nodes::default();
    let old = build(&keyring, &mut nodes, entries.clone());
    let new = build(&keyring, &mut nodes, changed);
    let mut group = criterion.benchmark_group("tree of 100,000");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("build", |bencher| {
        bencher.iter_batched(
            || entries.clone(),
            |entries| build(&keyring, &mut Nodes::default(), entries),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("scan", |bencher| {
        bencher.iter(|| Cursor::new(&nodes, &old).map(Result::unwrap).count());
    });
    group.bench_function("diff with 100 changed", |bencher| {
        bencher.iter(|| Diff::new(&nodes, &old, &new).map(Result::unwrap).count());
    });
    group.finish();

    let leaf = &entries[..32];
    let page = encode_leaf(leaf).unwrap();
    let mut group = criterion.benchmark_group("leaf of 32");
    group.throughput(Throughput::Elements(32));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| encode_leaf(leaf).unwrap())
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode_leaf(&page).unwrap())
    });
    group.finish();
}

/// The prefix of a chunk by its number; numbers from `INDEXED_CHUNKS` on are not in the index.
fn prefix(number: u64) -> ChunkPrefix {
    let mut random = Random(number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    ChunkPrefix(random.bytes(16).try_into().unwrap())
}

fn pack_record(number: u64, chunks: u64) -> PackRecord {
    let first = number * chunks;
    PackRecord {
        id: ObjectId(Random(number ^ 0xabcd).id().0),
        kind: PackKind::Data,
        size: 16 << 20,
        blocks: (0..chunks / 64)
            .map(|block| BlockRecord {
                offset: 64 + block * 40_000,
                length: 40_000,
                chunk_type: ChunkType::Data as u8,
                chunks: (0..64)
                    .map(|chunk| (prefix(first + block * 64 + chunk), 10_000))
                    .collect(),
            })
            .collect(),
    }
}

fn index(criterion: &mut Criterion) {
    const PACK_CHUNKS: u64 = 1024;
    let folder = tempfile::tempdir().unwrap();
    let options = IndexOptions {
        repository: RepositoryId([1; 16]),
        replica: ReplicaId([2; 16]),
        cache_bytes: 64 << 20,
        block_cache_cap_bytes: 64 << 20,
    };
    let index = RocksIndex::open_temporary(folder.path(), &options).unwrap();
    let packs: Vec<u64> = (0..INDEXED_CHUNKS.div_ceil(PACK_CHUNKS)).collect();
    let mut segments = Vec::new();
    for group in packs.chunks(128) {
        let segment = ObjectId(Random(group[0] ^ 0x5e9).id().0);
        let records: Vec<_> = group
            .iter()
            .map(|pack| pack_record(*pack, PACK_CHUNKS))
            .collect();
        index.add_segment(&segment, &records).unwrap();
        segments.push(segment);
    }
    index.set_counting(&segments).unwrap();
    let mut random = Random(23);
    let mut group = criterion.benchmark_group("index of 1 M chunks");
    group.throughput(Throughput::Elements(1));
    group.bench_function("hit", |bencher| {
        bencher.iter_batched(
            || prefix(random.next() % INDEXED_CHUNKS),
            |prefix| assert_eq!(index.lookup(&prefix).unwrap().len(), 1),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("miss", |bencher| {
        bencher.iter_batched(
            || prefix((1 << 40) + random.next() % INDEXED_CHUNKS),
            |prefix| assert!(index.lookup(&prefix).unwrap().is_empty()),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = parts;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = bytes_of, blocks, packs, trees, index
}
criterion_main!(parts);
