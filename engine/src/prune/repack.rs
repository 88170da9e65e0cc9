//! Copying what is needed out of packs that are to go.
//!
//! Blocks in which all is needed are copied as they are; of others the needed chunks are compressed
//! anew, each block by itself, since sources never share one. Every chunk is checked on the way, and
//! what was written is read back before anything relies on it.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use crossbeam_channel::bounded;
use larder_format::block::{BlockBuilder, Compression, SealedBlock, open_block};
use larder_format::compression::{Compressor, Decompressor};
use larder_format::directory::{Directory, DirectoryBlock};
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkPrefix, KeyId, ObjectId};
use larder_format::limits::PACK_BYTES;
use larder_format::names;
use larder_format::pack::open_pack;
use larder_format::segment::Owner;

use super::Run;
use super::plan::PlannedPack;
use super::survey::{COPIED, split};
use crate::error::{EngineError, Result};
use crate::packer::{Packer, PackerOptions, verify_block};
use crate::random;
use crate::repository::Repository;
use crate::scratch::runs::{Records, Sorted};
use crate::view;

/// What came of it.
#[derive(Default)]
pub(super) struct Repacked {
    /// Packs of which everything needed stands in new ones.
    pub done: Vec<PlannedPack>,
    /// Segments that name the new packs.
    pub segments: Vec<ObjectId>,
    /// Packs that turned out damaged: what they hold has to come from elsewhere.
    pub suspects: BTreeSet<ObjectId>,
    /// Bytes that were written.
    pub written_bytes: u64,
}

/// Copies what `copied` names out of the packs of a plan, in its order, until `deadline`.
pub(super) fn repack(
    run: &Run<'_>,
    plan: &[PlannedPack],
    copied: &Sorted<COPIED>,
    round: u64,
    deadline: Option<Instant>,
) -> Result<Repacked> {
    let total: u64 = plan.iter().map(|pack| pack.bytes).sum();
    run.progress
        .phase("repacking", Some(plan.len() as u64), Some(total));
    let options = PackerOptions {
        compression: COMPRESSION,
        solid: true,
        verify_blocks: true,
        dry_run: false,
    };
    let packer = Packer::start_owned(run.repository, Owner::Round(round), options)?;
    let mut copier = Copier {
        run,
        packer,
        compressor: Compressor::new()?,
        decompressor: Decompressor::new()?,
        records: copied.iter()?,
        next: None,
    };
    copier.next = copier.records.next().transpose()?;
    let mut repacked = Repacked::default();
    // The next pack is read while this one is worked on.
    std::thread::scope(|scope| {
        let (sender, receiver) = bounded(1);
        let storage = run.repository.storage();
        let read = |pack: &PlannedPack| storage.get(&names::pack(&pack.id), PACK_BYTES as u64);
        if run.repository.is_in_order() {
            drop(sender);
        } else {
            scope.spawn(move || {
                for pack in plan {
                    if sender.send(read(pack)).is_err() {
                        return;
                    }
                }
            });
        }
        for (position, pack) in (0..).zip(plan) {
            let bytes = match receiver.recv() {
                Ok(bytes) => bytes,
                // Nobody reads ahead.
                Err(_) => read(pack),
            };
            run.cancel.check()?;
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            let wanted = copier.wanted(position)?;
            let bytes = bytes.map_err(|error| unreadable(&pack.id, error));
            let outcome = bytes.and_then(|bytes| copier.copy(pack, &bytes, wanted));
            match outcome {
                Ok(()) => repacked.done.push(*pack),
                Err(EngineError::Damaged { object, why }) => {
                    run.progress.warning(&format!("{object} is damaged: {why}"));
                    repacked.suspects.insert(pack.id);
                }
                Err(error) => return Err(error),
            }
            run.progress.advance(1, pack.bytes);
        }
        Ok(())
    })?;
    if !repacked.suspects.is_empty() {
        return Ok(repacked);
    }
    repacked.segments = copier.packer.flush()?;
    copier.packer.protect();
    repacked.written_bytes = copier.packer.written().stored_bytes;
    for segment in &repacked.segments {
        verify(run, segment)?;
    }
    Ok(repacked)
}

/// How blocks are compressed anew: as a backup does it unless told otherwise.
const COMPRESSION: Compression = Compression::Level(3);

struct Copier<'a, 'b> {
    run: &'a Run<'b>,
    packer: Packer,
    compressor: Compressor,
    decompressor: Decompressor,
    records: Records<'a, COPIED>,
    next: Option<[u8; COPIED]>,
}

impl Copier<'_, '_> {
    /// Takes the prefixes of one pack out of the sorted ones.
    fn wanted(&mut self, position: u32) -> Result<HashSet<ChunkPrefix>> {
        let mut wanted = HashSet::new();
        while let Some((at, prefix)) = self.next.as_ref().and_then(split) {
            if at > position {
                break;
            }
            if at == position {
                wanted.insert(prefix);
            }
            self.next = self.records.next().transpose()?;
        }
        Ok(wanted)
    }

    /// Copies the wanted chunks of a pack.
    fn copy(
        &mut self,
        pack: &PlannedPack,
        bytes: &[u8],
        mut wanted: HashSet<ChunkPrefix>,
    ) -> Result<()> {
        let name = names::pack(&pack.id);
        let keyring = self.run.repository.keyring();
        let damaged = |error: &dyn std::fmt::Display| EngineError::damaged(&name, error);
        let (header, directory) =
            open_pack(keyring, &pack.id, bytes).map_err(|error| damaged(&error))?;
        // All is checked before anything is copied: a damaged pack leaves nothing half done.
        let mut blocks = Vec::new();
        for (offset, block) in directory.blocks_with_offsets() {
            // The first place of a chunk is the one that the index has.
            let live: Vec<bool> = block
                .chunks
                .iter()
                .map(|(prefix, _)| wanted.remove(prefix))
                .collect();
            if !live.contains(&true) {
                continue;
            }
            let sealed = bytes.get(offset as usize..).unwrap_or_default();
            let sealed = sealed
                .get(..block.sealed_length as usize)
                .unwrap_or_default();
            let copy = self.block(&header.key_id, block, sealed, &live);
            blocks.push(copy.map_err(|error| match error {
                EngineError::Format(error) => damaged(&error),
                other => other,
            })?);
        }
        if let Some(prefix) = wanted.iter().next() {
            return Err(damaged(&format!(
                "it does not hold the chunk {prefix} that the index places in it"
            )));
        }
        blocks
            .into_iter()
            .try_for_each(|block| self.packer.put_block(block))
    }

    /// Makes the copy of a block.
    fn block(
        &mut self,
        key_id: &KeyId,
        block: &DirectoryBlock,
        sealed: &[u8],
        live: &[bool],
    ) -> Result<SealedBlock> {
        let keyring = self.run.repository.keyring();
        let plaintext = open_block(
            keyring,
            key_id,
            block.chunk_type,
            sealed,
            &mut self.decompressor,
        )?;
        let mut rest = plaintext.as_slice();
        let mut kept: Vec<(ChunkId, &[u8])> = Vec::new();
        for ((prefix, length), is_live) in block.chunks.iter().zip(live) {
            let (chunk, after) =
                rest.split_at_checked(*length as usize)
                    .ok_or(FormatError::Malformed {
                        what: "block",
                        at: plaintext.len(),
                        why: "it ends before a chunk that its directory places in it",
                    })?;
            rest = after;
            if *is_live {
                let id = keyring.chunk_id(block.chunk_type, chunk);
                if id.prefix() != *prefix {
                    return Err(FormatError::WrongId { what: "chunk" }.into());
                }
                kept.push((id, chunk));
            }
        }
        let is_current = keyring.current(block.chunk_type.purpose())?.id() == *key_id;
        if kept.len() == block.chunks.len() && is_current {
            let chunks = kept.iter().zip(&block.chunks);
            return Ok(SealedBlock {
                chunk_type: block.chunk_type,
                key_id: *key_id,
                bytes: sealed.to_vec(),
                chunks: chunks
                    .map(|((id, _), (_, length))| (*id, *length))
                    .collect(),
            });
        }
        let mut builder = BlockBuilder::new(block.chunk_type, plaintext.len());
        for (id, chunk) in kept {
            builder.push(id, chunk)?;
        }
        let random = random::bytes()?;
        let block = builder.seal(keyring, &mut self.compressor, COMPRESSION, &random)?;
        verify_block(self.run.repository, &block, &mut self.decompressor)?;
        Ok(block)
    }
}

/// Reads a segment and its packs back.
fn verify(run: &Run<'_>, segment: &ObjectId) -> Result<()> {
    for pack in view::read_segment(run.repository, segment)?.packs {
        run.cancel.check()?;
        let read = match read_pack(run.repository, &pack.id) {
            // It went straight into cold storage: that it is there in its length is what can be told.
            Err(error) if error.is_cold() => {
                let size = run.repository.storage().size(&names::pack(&pack.id))?;
                if size != pack.length {
                    let why = "it has not the length that was written";
                    return Err(EngineError::damaged(&names::pack(&pack.id), &why));
                }
                continue;
            }
            read => read?,
        };
        if read != pack.directory {
            return Err(EngineError::damaged(
                &names::pack(&pack.id),
                &"its directory is not the one that was written",
            ));
        }
    }
    Ok(())
}

/// Reads a pack whole, checks it against its name, and gives its directory.
pub(super) fn read_pack(repository: &Repository, id: &ObjectId) -> Result<Directory> {
    let bytes = repository
        .storage()
        .get(&names::pack(id), PACK_BYTES as u64)
        .map_err(|error| unreadable(id, error))?;
    let (_, directory) = open_pack(repository.keyring(), id, &bytes)
        .map_err(|error| EngineError::damaged(&names::pack(id), &error))?;
    Ok(directory)
}

/// A pack that went away or has an impossible size is damaged; a storage that fails is not.
fn unreadable(id: &ObjectId, error: crate::storage::error::StorageError) -> EngineError {
    use crate::storage::error::ErrorKind;
    match error.kind {
        ErrorKind::NotFound | ErrorKind::Oversized | ErrorKind::Truncated => {
            EngineError::damaged(&names::pack(id), &error.cause)
        }
        _ => error.into(),
    }
}
