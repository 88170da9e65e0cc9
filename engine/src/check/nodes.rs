//! Reading nodes, values and chunks from the storage itself, never from the local cache.

use std::sync::Arc;

use larder_format::block::chunk_of;
use larder_format::compression::Decompressor;
use larder_format::ids::{ChunkId, ChunkType, ObjectId};
use larder_format::keys::Keyring;
use larder_format::names;

use super::context::{Context, Problem, attempt};
use super::findings::{Damage, DraftId};
use crate::chunks::open_any;
use crate::error::{EngineError, Result};
use crate::index::{PackKind, Place};

/// Plaintext bytes of opened blocks that are kept.
const KEPT_BYTES: usize = 6 << 20;

/// Reads nodes, values and chunks, and reports the packs that do not hold them.
pub(super) struct Nodes<'a, 'b> {
    context: &'a Context<'b>,
    decompressor: Decompressor,
    /// Opened blocks, the one used last at the end.
    kept: Vec<(ObjectId, u64, Arc<[u8]>)>,
    kept_bytes: usize,
}

impl<'a, 'b> Nodes<'a, 'b> {
    pub(super) fn new(context: &'a Context<'b>) -> Result<Self> {
        Ok(Self {
            context,
            decompressor: Decompressor::new()?,
            kept: Vec::new(),
            kept_bytes: 0,
        })
    }

    /// Reads a node, value or chunk from the first place that holds it; else gives what is to blame.
    pub(super) fn read(
        &mut self,
        chunk_type: ChunkType,
        id: &ChunkId,
        damage: &mut Damage,
    ) -> Result<std::result::Result<Arc<[u8]>, Vec<DraftId>>> {
        let mut places = self.context.repository.index().lookup(&id.prefix())?;
        let (kind, what) = match chunk_type {
            ChunkType::Data => (PackKind::Data, "the chunk"),
            _ => (PackKind::Tree, "the node"),
        };
        places.retain(|place| place.pack_kind == kind);
        for place in &places {
            if damage.is_gone(&place.pack) {
                continue;
            }
            let problem = match self.read_at(chunk_type, id, place)? {
                Ok(Some(chunk)) => return Ok(Ok(chunk)),
                // Another chunk whose id begins alike: there is nothing wrong with the pack.
                Ok(None) => continue,
                Err(problem) => problem,
            };
            let lost = [id.prefix()];
            match problem {
                Problem::Missing => damage.add_missing_pack(&place.pack)?,
                Problem::Damaged(why) => drop(damage.add_pack(
                    &place.pack,
                    format!("its block at byte {}: {why}", place.block_offset),
                    &lost,
                )?),
            }
        }
        Ok(Err(damage.blame(&places, &format!("{what} {id}"))))
    }

    /// Reads what is at a place; nothing if that is what the index says, and not what is looked for.
    fn read_at(
        &mut self,
        chunk_type: ChunkType,
        id: &ChunkId,
        place: &Place,
    ) -> Result<std::result::Result<Option<Arc<[u8]>>, Problem>> {
        let block = match self.block(chunk_type, place)? {
            Ok(block) => block,
            Err(problem) => return Ok(Err(problem)),
        };
        let keyring = self.context.repository.keyring();
        match chunk_of(keyring, chunk_type, &block, place.offset, place.length, id) {
            Ok(chunk) => Ok(Ok(Some(Arc::from(chunk)))),
            Err(_) if is_as_said(keyring, chunk_type, &block, place, id) => Ok(Ok(None)),
            Err(error) => Ok(Err(Problem::Damaged(error.to_string()))),
        }
    }

    /// Gives the plaintext of the block at a place.
    fn block(
        &mut self,
        chunk_type: ChunkType,
        place: &Place,
    ) -> Result<std::result::Result<Arc<[u8]>, Problem>> {
        let is_it = |(pack, offset, _): &(ObjectId, u64, Arc<[u8]>)| {
            *pack == place.pack && *offset == place.block_offset
        };
        if let Some(position) = self.kept.iter().rposition(is_it) {
            let kept = self.kept.remove(position);
            let plaintext = Arc::clone(&kept.2);
            self.kept.push(kept);
            return Ok(Ok(plaintext));
        }
        let name = names::pack(&place.pack);
        let context = self.context;
        let decompressor = std::cell::RefCell::new(&mut self.decompressor);
        let read = attempt(|| {
            let length = u64::from(place.block_length);
            let sealed = context.get_range(&name, place.block_offset, length)?;
            let repository = context.repository;
            let opened = open_any(
                repository,
                chunk_type,
                &sealed,
                &mut decompressor.borrow_mut(),
            );
            opened.map_err(EngineError::from)
        })?;
        let plaintext: Arc<[u8]> = match read {
            Ok(plaintext) => plaintext.into(),
            Err(problem) => return Ok(Err(problem)),
        };
        self.kept_bytes += plaintext.len();
        self.kept
            .push((place.pack, place.block_offset, Arc::clone(&plaintext)));
        while self.kept_bytes > KEPT_BYTES && self.kept.len() > 1 {
            self.kept_bytes -= self.kept.remove(0).2.len();
        }
        Ok(Ok(plaintext))
    }
}

/// Tells whether a place holds a chunk whose id begins like this one.
fn is_as_said(
    keyring: &Keyring,
    chunk_type: ChunkType,
    block: &[u8],
    place: &Place,
    id: &ChunkId,
) -> bool {
    let chunk = block.get(place.offset as usize..);
    let chunk = chunk.and_then(|rest| rest.get(..place.length as usize));
    chunk.is_some_and(|chunk| keyring.chunk_id(chunk_type, chunk).prefix() == id.prefix())
}
