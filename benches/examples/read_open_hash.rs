//! The least that `check --read-data` has to do: `read_open_hash REPOSITORY KEYFILE` reads every pack of a
//! repository in a folder, hashes it, opens every block, and hashes every chunk, on all cores.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use larder_engine::format::block::open_block;
use larder_engine::format::compression::Decompressor;
use larder_engine::format::ids::ObjectId;
use larder_engine::format::limits::PACK_BYTES;
use larder_engine::format::names::{self, Name};
use larder_engine::format::pack::open_pack;
use larder_engine::repository::{OpenOptions, Repository, Secret};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(place), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("read_open_hash REPOSITORY KEYFILE".into());
    };
    let secret = Secret::from_key_file(&std::fs::read_to_string(key)?)?;
    let repository = Repository::open(&place, &secret, &OpenOptions::default())?;
    let mut packs = Vec::new();
    repository.storage().list(names::PACKS, &mut |object| {
        if let Some(Name::Pack(id)) = names::parse(&object.name) {
            packs.push(id);
        }
        Ok(())
    })?;
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> Result<()> {
        let mut decompressor = Decompressor::new()?;
        while let Some(id) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let read = verify(&repository, id, &mut decompressor)?;
            bytes.fetch_add(read, Ordering::Relaxed);
        }
        Ok(())
    };
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    println!("{} packs, {} bytes", packs.len(), bytes.into_inner());
    Ok(())
}

fn verify(repository: &Repository, id: &ObjectId, decompressor: &mut Decompressor) -> Result<u64> {
    let keyring = repository.keyring();
    let pack = repository
        .storage()
        .get(&names::pack(id), PACK_BYTES as u64)?;
    let (header, directory) = open_pack(keyring, id, &pack)?;
    for (offset, block) in directory.blocks_with_offsets() {
        let sealed = pack.get(offset as usize..).unwrap_or_default();
        let sealed = sealed
            .get(..block.sealed_length as usize)
            .ok_or("a block lies beyond its pack")?;
        let plaintext = open_block(
            keyring,
            &header.key_id,
            block.chunk_type,
            sealed,
            decompressor,
        )?;
        let mut rest = plaintext.as_slice();
        for (prefix, length) in &block.chunks {
            let (chunk, after) = rest
                .split_at_checked(*length as usize)
                .ok_or("a block is too short")?;
            rest = after;
            if keyring.chunk_id(block.chunk_type, chunk).prefix() != *prefix {
                return Err("a chunk is not what its id says".into());
            }
        }
    }
    Ok(pack.len() as u64)
}
