//! A long run read in stretches, each of which all workers cut and hash together.

use std::io::{self, Read};
use std::iter;
use std::sync::{Mutex, MutexGuard, TryLockError};

use bytes::Bytes;
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::keys::Keyring;
use rayon::prelude::*;

use crate::chunker::Chunker;
use crate::chunker::segments::{guess, join, split};
use crate::repository::Repository;

/// Segments that are cut at once, at most: more of them would cost memory and gain little, as
/// reading and sealing do not get faster by it.
const SEGMENTS_MAX: usize = 4;
/// Mean chunks in a segment: what is cut twice, until the true cuts meet the guessed ones, is one
/// or two of them.
const MEANS_IN_SEGMENT: usize = 4;

/// What cuts long runs; one reader at a time may have it, as it takes more memory.
pub(super) struct Wide<'a> {
    workers: &'a rayon::ThreadPool,
    keyring: &'a Keyring,
    chunker: &'a Chunker,
    segments: usize,
    turn: Mutex<()>,
}

impl<'a> Wide<'a> {
    /// Prepares for the workers of a repository.
    pub(super) fn new(repository: &'a Repository, chunker: &'a Chunker) -> Self {
        let workers = repository.workers();
        Self {
            workers,
            keyring: repository.keyring(),
            chunker,
            segments: match repository.is_in_order() {
                true => 1,
                false => workers.current_num_threads().min(SEGMENTS_MAX),
            },
            turn: Mutex::new(()),
        }
    }

    /// Gives the turn for a run of so many bytes; none if it is not worth it, if the end of the run
    /// is not known (a pipe is not to be waited for), or if another reader has it.
    pub(super) fn turn(&self, length: u64) -> Option<MutexGuard<'_, ()>> {
        let is_worth_it = self.segments > 1 && length > 2 * self.stretch_bytes() as u64;
        if !is_worth_it || length == u64::MAX {
            return None;
        }
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Reads on after `rest`, what is left of the stretch before, and gives the chunks of the next
    /// stretch, and what is left of it; no chunk at the end of the run.
    ///
    /// # Errors
    /// What reading answers.
    pub(super) fn next(
        &self,
        rest: &[u8],
        input: &mut impl Read,
    ) -> io::Result<(Vec<(ChunkId, Bytes)>, Bytes)> {
        let mut bytes = vec![0; self.stretch_bytes()];
        let (kept, room) = bytes.split_at_mut(rest.len());
        kept.copy_from_slice(rest);
        let length = rest.len() + fill(room, input)?;
        let is_end = length < bytes.len();
        bytes.truncate(length);
        let bytes = Bytes::from(bytes);
        let chunks = self.workers.install(|| self.cut(&bytes, is_end));
        let cut: usize = chunks.iter().map(|(_, chunk)| chunk.len()).sum();
        let rest = bytes.slice(cut..);
        Ok((chunks, rest))
    }

    /// Cuts off the chunks that stand whatever comes after these bytes, and gives their ids.
    fn cut(&self, bytes: &Bytes, is_end: bool) -> Vec<(ChunkId, Bytes)> {
        let limit = match bytes.len().checked_sub(self.chunker.sizes().maximum) {
            Some(last_start) if !is_end => last_start + 1,
            _ => bytes.len(),
        };
        let segments: Vec<_> = split(limit, self.segments).collect();
        let guesses: Vec<_> = segments
            .into_par_iter()
            .map(|segment| guess(self.chunker, bytes, segment))
            .collect();
        let ends = join(self.chunker, bytes, limit, &guesses);
        let starts = iter::once(0).chain(ends.iter().copied());
        let chunks: Vec<_> = starts.zip(ends.iter().copied()).collect();
        chunks
            .into_par_iter()
            .map(|(start, end)| {
                let chunk = bytes.slice(start..end);
                (self.keyring.chunk_id(ChunkType::Data, &chunk), chunk)
            })
            .collect()
    }

    /// A chunk of the largest size besides the segments, so that the last of those has its cuts.
    fn stretch_bytes(&self) -> usize {
        let sizes = self.chunker.sizes();
        sizes.maximum + self.segments * MEANS_IN_SEGMENT * sizes.mean
    }
}

/// Reads until `room` is full or the input ends; gives the bytes that were read.
fn fill(room: &mut [u8], input: &mut impl Read) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = room.get_mut(filled..).filter(|room| !room.is_empty()) {
        match input.read(room) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use larder_format::ids::RepositoryId;
    use larder_format::keys::KEYRING_RANDOM_BYTES;
    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::chunker::{ChunkSizes, SECRET_BYTES};

    const SIZES: ChunkSizes = ChunkSizes {
        minimum: 64,
        mean: 256,
        maximum: 1024,
    };

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn keyring() -> Keyring {
        Keyring::generate(RepositoryId::default(), &[7; KEYRING_RANDOM_BYTES])
    }

    fn wide<'a>(
        workers: &'a rayon::ThreadPool,
        keyring: &'a Keyring,
        chunker: &'a Chunker,
        segments: usize,
    ) -> Wide<'a> {
        Wide {
            workers,
            keyring,
            chunker,
            segments,
            turn: Mutex::new(()),
        }
    }

    fn workers() -> rayon::ThreadPool {
        ThreadPoolBuilder::new().num_threads(3).build().unwrap()
    }

    /// Gives so many bytes at a time at most, after one interruption.
    struct Slow<'a>(&'a [u8], usize, bool);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if !std::mem::replace(&mut self.2, true) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = buffer.len().min(self.1);
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn stretches_have_the_chunks_of_one_pass() {
        let keyring = keyring();
        let workers = workers();
        let noise = noise(60_000);
        let quiet = vec![0; 60_000];
        for chunker in [
            Chunker::fastcdc(SIZES, 5),
            Chunker::toeplitz_aes(SIZES, &[9; SECRET_BYTES]),
        ] {
            for segments in [1, 2, 4] {
                let wide = wide(&workers, &keyring, &chunker, segments);
                let stretch = wide.stretch_bytes();
                let lengths = [0, 1, 1024, stretch - 1, stretch, stretch + 1, 60_000];
                let runs = [&noise, &quiet].map(|run| lengths.map(|length| &run[..length]));
                for run in runs.into_iter().flatten() {
                    let mut input = Slow(run, 1000, false);
                    let (mut at, mut rest) = (0, Bytes::new());
                    loop {
                        let (chunks, left) = wide.next(&rest, &mut input).unwrap();
                        if chunks.is_empty() {
                            break;
                        }
                        rest = left;
                        for (id, chunk) in chunks {
                            let expected = &run[at..];
                            let expected = &expected[..chunker.cut(expected)];
                            assert_eq!(chunk, expected, "{} bytes, at {at}", run.len());
                            assert_eq!(id, keyring.chunk_id(ChunkType::Data, expected));
                            at += chunk.len();
                        }
                    }
                    assert_eq!(at, run.len());
                }
            }
        }
    }

    #[test]
    fn one_long_run_at_a_time_has_the_turn() {
        let keyring = keyring();
        let workers = workers();
        let chunker = Chunker::fastcdc(SIZES, 5);
        let mut wide = wide(&workers, &keyring, &chunker, 2);
        assert!(wide.turn(0).is_none());
        assert!(wide.turn(5_000).is_none());
        assert!(wide.turn(u64::MAX).is_none(), "a pipe");
        {
            let turn = wide.turn(1 << 20);
            assert!(turn.is_some());
            assert!(wide.turn(1 << 20).is_none());
        }
        assert!(wide.turn(1 << 20).is_some());
        wide.segments = 1;
        assert!(wide.turn(1 << 20).is_none());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        let keyring = keyring();
        let workers = workers();
        let chunker = Chunker::fastcdc(SIZES, 5);
        let wide = wide(&workers, &keyring, &chunker, 2);
        let error = wide.next(&[], &mut noise(100).as_slice().chain(Broken));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
