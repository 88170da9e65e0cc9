//! A buffer between a reader and a chunker.

use std::io::{self, Read};

use crate::Chunker;

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
        let maximum = chunker.sizes().maximum;
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
