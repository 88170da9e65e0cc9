//! Content-defined chunking (SPEC.md §15): where a run of bytes is cut.

use std::borrow::Cow;
use std::io::{self, Read};

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

/// Sizes of chunks in bytes, as the repository's config names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// The smallest chunk that is not the last of its run; even.
    pub minimum: usize,
    /// The size aimed at; even.
    pub mean: usize,
    /// The largest chunk; even.
    pub maximum: usize,
}

/// FastCDC in the form of its 2020 paper, with a gear table of the repository's own.
///
/// Source: Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication
/// Based Storage Systems", IEEE TPDS 2020; the rolling hash is the `fastcdc` crate's.
#[derive(Clone)]
pub struct Chunker {
    sizes: ChunkSizes,
    mask_strict: u64,
    mask_loose: u64,
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
}

impl Chunker {
    /// Prepares a chunker for the sizes of a repository and its secret seed.
    #[must_use]
    pub fn new(sizes: ChunkSizes, seed: u64) -> Self {
        let (mask_strict, mask_loose) = select_masks(sizes.mean, Normalization::Level1);
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        Self {
            sizes,
            mask_strict,
            mask_loose,
            gear,
            gear_shifted,
        }
    }

    /// Gives the sizes.
    #[must_use]
    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// Gives the length in bytes of the first chunk of `bytes`, which must either hold
    /// [`ChunkSizes::maximum`] bytes or be all that is left of the run.
    #[must_use]
    pub fn cut(&self, bytes: &[u8]) -> usize {
        if bytes.len() <= self.sizes.minimum {
            return bytes.len();
        }
        let (_, length) = cut_gear(
            bytes,
            self.sizes.minimum,
            self.sizes.mean,
            self.sizes.maximum,
            self.mask_strict,
            self.mask_loose,
            self.mask_strict << 1,
            self.mask_loose << 1,
            &self.gear,
            &self.gear_shifted,
        );
        length
    }
}

/// Unused bytes that a buffer may have when it is given away.
const SPARE_BYTES: usize = 64;

/// A buffer that reads ahead as far as the next cut needs.
pub struct ChunkBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl ChunkBuffer {
    /// Makes an empty buffer, which grows to twice the largest chunk at most.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// Reads on from `input` and gives the next chunk of the run; none at its end.
    ///
    /// `expected` bytes are thought to be left of the run; it may have fewer or more.
    ///
    /// # Errors
    /// What reading answers.
    pub fn next(
        &mut self,
        chunker: &Chunker,
        input: &mut impl Read,
        expected: u64,
    ) -> io::Result<Option<&[u8]>> {
        let maximum = chunker.sizes.maximum;
        if self.bytes.len() - self.start < maximum {
            self.fill(maximum, input, expected)?;
        }
        let window = self.bytes.get(self.start..).unwrap_or_default();
        if window.is_empty() {
            self.bytes.clear();
            self.start = 0;
            return Ok(None);
        }
        let length = chunker.cut(window.get(..maximum).unwrap_or(window));
        self.start += length;
        Ok(self.bytes.get(self.start - length..self.start))
    }

    /// Takes the chunk of `length` bytes that was given last; a file in one chunk is not copied.
    #[must_use]
    pub fn take_last(&mut self, length: usize) -> Vec<u8> {
        let is_all = self.start == length && self.bytes.len() == length;
        // What is taken is counted by its length, so it may not be much larger.
        if is_all && self.bytes.capacity() - length <= length / 8 + SPARE_BYTES {
            self.start = 0;
            return std::mem::take(&mut self.bytes);
        }
        let chunk = self.start.saturating_sub(length)..self.start;
        self.bytes.get(chunk).unwrap_or_default().to_vec()
    }

    /// Moves what is left to the front and reads until two largest chunks are there, or the end.
    fn fill(&mut self, maximum: usize, input: &mut impl Read, expected: u64) -> io::Result<()> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        // A byte more than expected, so that the end shows without another round.
        let mut want = expected.saturating_add(1).min(2 * maximum);
        loop {
            let have = self.bytes.len();
            if have >= want {
                if want >= 2 * maximum {
                    return Ok(());
                }
                want = 2 * maximum;
            }
            self.bytes.resize(want, 0);
            let room = self.bytes.get_mut(have..).unwrap_or_default();
            let count = input.read(room);
            self.bytes
                .truncate(have + count.as_ref().copied().unwrap_or_default());
            match count {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Default for ChunkBuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use fastcdc::v2020::FastCDC;
    use proptest::prelude::*;

    const SIZES: ChunkSizes = ChunkSizes {
        minimum: 256,
        mean: 1024,
        maximum: 4096,
    };

    /// Gives `most` bytes at a time, as a pipe might.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(buffer.get_mut(..most).unwrap())
        }
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_stream_is_cut_as_the_reference_cuts_the_whole(
            seed: u64, length in 0_usize..60_000, step in 1_usize..9_000, expected in 0_u64..70_000,
        ) {
            let bytes = noise(seed, length);
            let chunker = Chunker::new(SIZES, seed);
            let mut buffer = ChunkBuffer::new();
            let mut input = Trickle(&bytes, step);
            let mut found = Vec::new();
            while let Some(chunk) = buffer.next(&chunker, &mut input, expected).unwrap() {
                let (chunk, length) = (chunk.to_vec(), chunk.len());
                prop_assert_eq!(&buffer.take_last(length), &chunk);
                found.push(chunk);
            }
            prop_assert_eq!(found.concat(), bytes.clone());
            let reference = FastCDC::with_level_and_seed(
                &bytes, SIZES.minimum, SIZES.mean, SIZES.maximum, Normalization::Level1, seed,
            );
            let lengths: Vec<_> = reference.map(|chunk| chunk.length).collect();
            prop_assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        }
    }
}
