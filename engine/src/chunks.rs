//! Reading chunks back: by id, from whichever place still holds them.

use std::sync::Arc;

use larder_format::block::{chunk_of, open_block};
use larder_format::compression::Decompressor;
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkType, ObjectId};
use larder_format::names;
use larder_format::tree::read::NodeSource;

use crate::error::{EngineError, Result};
use crate::index::Place;
use crate::repository::Repository;
use crate::view;

/// Plaintext bytes of opened blocks that one reader keeps: some of each level of a tree, and of
/// each of the nights that it was written in.
const KEPT_BYTES: usize = 6 << 20;

/// Reads chunks one by one, keeping the blocks it opened last; each thread has its own.
pub struct ChunkReader {
    repository: Arc<Repository>,
    decompressor: Decompressor,
    /// Opened blocks, the one used last at the end.
    kept: Vec<Kept>,
    kept_bytes: usize,
}

struct Kept {
    pack: ObjectId,
    offset: u64,
    plaintext: Arc<[u8]>,
}

impl ChunkReader {
    /// Makes a reader of a repository.
    ///
    /// # Errors
    /// When there is no memory for a decompressor.
    pub fn new(repository: &Arc<Repository>) -> Result<Self> {
        Ok(Self {
            repository: Arc::clone(repository),
            decompressor: Decompressor::new()?,
            kept: Vec::new(),
            kept_bytes: 0,
        })
    }

    /// Reads a chunk and checks its id, from the first place that still holds it.
    ///
    /// # Errors
    /// `Damaged` if no place does, or what the storage answers.
    pub fn read(&mut self, chunk_type: ChunkType, id: &ChunkId) -> Result<Arc<[u8]>> {
        let generation = self.repository.seen().generation;
        match self.read_anywhere(chunk_type, id) {
            // A prune may have moved it meanwhile.
            Err(error @ EngineError::Damaged { .. }) => {
                if view::refresh(&self.repository, generation)? {
                    self.read_anywhere(chunk_type, id)
                } else {
                    Err(error)
                }
            }
            other => other,
        }
    }

    fn read_anywhere(&mut self, chunk_type: ChunkType, id: &ChunkId) -> Result<Arc<[u8]>> {
        let places = self.repository.index().lookup(&id.prefix())?;
        let mut damage = None;
        for place in &places {
            match self.read_at(chunk_type, id, place) {
                Ok(chunk) => return Ok(chunk),
                Err(error @ EngineError::Damaged { .. }) => {
                    // Whoever writes now puts in anew what it meets of it.
                    self.repository.avoid([place.pack])?;
                    damage = damage.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(damage.unwrap_or_else(|| EngineError::Damaged {
            object: format!("chunk {id}"),
            why: "no pack in the index holds it".to_owned(),
        }))
    }

    fn read_at(&mut self, chunk_type: ChunkType, id: &ChunkId, place: &Place) -> Result<Arc<[u8]>> {
        let block = self.block(chunk_type, place)?;
        let keyring = self.repository.keyring();
        let chunk = chunk_of(keyring, chunk_type, &block, place.offset, place.length, id);
        chunk
            .map(Arc::from)
            .map_err(|error| EngineError::damaged(&names::pack(&place.pack), &error))
    }

    /// Gives the plaintext of the block at a place.
    fn block(&mut self, chunk_type: ChunkType, place: &Place) -> Result<Arc<[u8]>> {
        let is_it = |kept: &Kept| kept.pack == place.pack && kept.offset == place.block_offset;
        if let Some(position) = self.kept.iter().rposition(is_it) {
            let kept = self.kept.remove(position);
            let plaintext = Arc::clone(&kept.plaintext);
            self.kept.push(kept);
            return Ok(plaintext);
        }
        let plaintext: Arc<[u8]> = self.fetch(chunk_type, place)?.into();
        self.kept_bytes += plaintext.len();
        self.kept.push(Kept {
            pack: place.pack,
            offset: place.block_offset,
            plaintext: Arc::clone(&plaintext),
        });
        while self.kept_bytes > KEPT_BYTES && self.kept.len() > 1 {
            self.kept_bytes -= self.kept.remove(0).plaintext.len();
        }
        Ok(plaintext)
    }

    fn fetch(&mut self, chunk_type: ChunkType, place: &Place) -> Result<Vec<u8>> {
        let is_tree = chunk_type != ChunkType::Data;
        let index = self.repository.index();
        if is_tree
            && let Some(sealed) = index.cached_block(&place.pack, place.block_offset)?
            && let Ok(plaintext) = open_any(
                &self.repository,
                chunk_type,
                &sealed,
                &mut self.decompressor,
            )
        {
            return Ok(plaintext);
        }
        let name = names::pack(&place.pack);
        let sealed = fetch_range(
            &self.repository,
            &name,
            place.block_offset,
            u64::from(place.block_length),
        )?;
        let plaintext = open_any(
            &self.repository,
            chunk_type,
            &sealed,
            &mut self.decompressor,
        )
        .map_err(|error| EngineError::damaged(&name, &error))?;
        if is_tree {
            index.cache_block(&place.pack, place.block_offset, &sealed)?;
        }
        Ok(plaintext)
    }
}

impl NodeSource for ChunkReader {
    type Error = EngineError;

    fn node(&mut self, id: &ChunkId, chunk_type: ChunkType) -> Result<Arc<[u8]>> {
        self.read(chunk_type, id)
    }
}

/// Reads a part of an object; what is missing or too short is `Damaged`.
pub(crate) fn fetch_range(
    repository: &Repository,
    name: &str,
    offset: u64,
    length: u64,
) -> Result<bytes::Bytes> {
    use crate::storage::error::ErrorKind;
    repository
        .storage()
        .get_range(name, offset, length)
        .map_err(|error| match error.kind {
            ErrorKind::NotFound | ErrorKind::Truncated | ErrorKind::Oversized => {
                EngineError::Damaged {
                    object: name.to_owned(),
                    why: error.cause,
                }
            }
            _ => error.into(),
        })
}

/// Opens a block under whichever key of its purpose sealed it, the newest first.
pub(crate) fn open_any(
    repository: &Repository,
    chunk_type: ChunkType,
    sealed: &[u8],
    decompressor: &mut Decompressor,
) -> std::result::Result<Vec<u8>, FormatError> {
    let keyring = repository.keyring();
    let purpose = chunk_type.purpose();
    let mut last = FormatError::MissingKey {
        purpose: purpose.word(),
    };
    for key in keyring
        .keys()
        .iter()
        .rev()
        .filter(|key| key.is_for(purpose))
    {
        match open_block(keyring, &key.id(), chunk_type, sealed, decompressor) {
            Err(error @ FormatError::Unauthentic { .. }) => last = error,
            other => return other,
        }
    }
    Err(last)
}
