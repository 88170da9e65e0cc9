//! `check --level quick` at scale: `quick_check PACKS` compares an index of so many packs with a
//! listing of them that is made up, and says how long that took beyond the listing itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use larder_engine::cancel::Cancel;
use larder_engine::check::quick;
use larder_engine::format::cell::{Cell, CellKind, Statistics};
use larder_engine::format::directory::{Directory, DirectoryBlock};
use larder_engine::format::ids::{ChunkPrefix, ChunkType, ObjectId, SessionId};
use larder_engine::format::limits::SEGMENT_PACKS;
use larder_engine::format::names;
use larder_engine::format::object::Kind;
use larder_engine::format::record::seal_record;
use larder_engine::format::segment::{Owner, Segment, SegmentPack};
use larder_engine::progress::Silent;
use larder_engine::repository::{InitOptions, KdfCost, OpenOptions, Repository, Secret};
use larder_engine::storage::error::Result as StorageResult;
use larder_engine::storage::object::ObjectStorage;
use larder_engine::storage::{Capabilities, ObjectInfo, Storage};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bytes that each pack is said to have.
const PACK_BYTES: u64 = 16 << 20;
const BLOCK_BYTES: u32 = 1 << 20;

fn main() -> Result<()> {
    let packs = match std::env::args().nth(1) {
        Some(packs) => packs.parse()?,
        None => return Err("quick_check PACKS".into()),
    };
    let folder = std::env::temp_dir().join(format!("larder-quick-{}", std::process::id()));
    let outcome = measure(&folder, packs);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(folder: &Path, packs: u64) -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(MadeUp {
        inner: ObjectStorage::memory(),
        packs,
    });
    let secret = Secret::Passphrase(b"scale".to_vec().into());
    let kdf = KdfCost {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };
    let options = InitOptions {
        kdf,
        ..InitOptions::default()
    };
    Repository::init_on(storage.as_ref(), &secret, &options)?;
    let options = OpenOptions {
        cache_dir: Some(folder.to_owned()),
        ..OpenOptions::default()
    };
    let repository = Repository::open_on(Arc::clone(&storage), &secret, &options)?;
    fill(&repository, packs)?;
    let check = || quick(&repository, false, &Silent, &Cancel::default());
    let begun = Instant::now();
    check()?;
    println!(
        "the first time, with the index to be read: {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    let begun = Instant::now();
    let mut listed = 0_u64;
    storage.list(names::PACKS, &mut |_| {
        listed += 1;
        Ok(())
    })?;
    let listing = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let report = check()?;
    let all = begun.elapsed().as_secs_f64();
    let losses = report
        .findings
        .iter()
        .filter(|one| one.object.starts_with(names::PACKS));
    println!(
        "{} packs compared, {listed} listed, {} findings about packs",
        report.packs,
        losses.count()
    );
    println!(
        "listing {listing:.2} s, quick check {all:.2} s, beyond the listing {:.2} s",
        all - listing
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!(
        "memory at most, the first reading included: {}",
        line.ok_or("no VmHWM")?.trim()
    );
    Ok(())
}

/// Writes segments that name the packs, and a cell that names the segments.
fn fill(repository: &Repository, packs: u64) -> Result<()> {
    let session = SessionId::new(0, [1; 16]);
    let all: Vec<u64> = (0..packs).collect();
    let mut segments = Vec::new();
    for part in all.chunks(SEGMENT_PACKS) {
        let segment = Segment {
            owner: Owner::Session(session),
            packs: part.iter().map(|number| pack(*number)).collect(),
        };
        let (id, object) = segment.seal(repository.keyring(), [2; 16], &[3; 32])?;
        repository
            .storage()
            .put(&names::segment(&id), object.into())?;
        segments.push(id);
    }
    segments.sort_unstable();
    let cell = Cell {
        kind: CellKind::Complete,
        id: session,
        predecessor: None,
        parent: None,
        started: 1,
        ended: 2,
        host: "scale".to_owned(),
        user: "scale".to_owned(),
        tags: Vec::new(),
        sources: Vec::new(),
        segments,
        statistics: Statistics::default(),
        options: std::collections::BTreeMap::default(),
        program: "quick_check".to_owned(),
        config: 1,
        seen_cells: Vec::new(),
        seen_round: 0,
        shard: None,
    };
    let object = seal_record(repository.keyring(), &cell, [4; 16], &[5; 32])?;
    repository
        .storage()
        .create(&names::cell(&session), object.into())?;
    Ok(())
}

/// The id of a made-up pack; ids ascend with their numbers in no way.
fn id(number: u64) -> ObjectId {
    let mut state = number;
    let mut bytes = [0; 32];
    for part in bytes.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    ObjectId(bytes)
}

fn pack(number: u64) -> SegmentPack {
    let id = id(number);
    let prefix = id.0.first_chunk().copied().unwrap_or_default();
    SegmentPack {
        id,
        kind: Kind::DataPack,
        length: PACK_BYTES,
        directory: Directory {
            blocks: vec![DirectoryBlock {
                chunk_type: ChunkType::Data,
                sealed_length: BLOCK_BYTES,
                chunks: vec![(ChunkPrefix(prefix), BLOCK_BYTES)],
            }],
        },
    }
}

/// A storage in memory that lists packs which nobody wrote.
struct MadeUp {
    inner: ObjectStorage,
    packs: u64,
}

impl Storage for MadeUp {
    fn get(&self, name: &str, max_bytes: u64) -> StorageResult<bytes::Bytes> {
        self.inner.get(name, max_bytes)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> StorageResult<bytes::Bytes> {
        self.inner.get_range(name, offset, length)
    }

    fn put(&self, name: &str, bytes: bytes::Bytes) -> StorageResult<()> {
        self.inner.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: bytes::Bytes) -> StorageResult<()> {
        self.inner.create(name, bytes)
    }

    fn delete(&self, name: &str) -> StorageResult<()> {
        self.inner.delete(name)
    }

    fn list(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(ObjectInfo) -> StorageResult<()>,
    ) -> StorageResult<()> {
        self.inner.list(folder, visit)?;
        if !folder.is_empty() && folder != names::PACKS {
            return Ok(());
        }
        (0..self.packs).try_for_each(|number| {
            visit(ObjectInfo {
                name: names::pack(&id(number)),
                size_bytes: PACK_BYTES,
            })
        })
    }

    fn size(&self, name: &str) -> StorageResult<u64> {
        self.inner.size(name)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
