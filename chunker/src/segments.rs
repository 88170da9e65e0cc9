//! Cuts a long run in segments, each on a thread of the caller's, with the cuts of one pass over
//! the whole: [`split`], then [`guess`] for each, then [`join`].
//!
//! Where a chunk ends depends on where it starts and on the bytes from there on, on nothing else.
//! So a segment can be cut before anybody knows where its first chunk starts: as soon as the true
//! cuts meet one of the guessed ones, all that follow are true.

use std::ops::Range;

use crate::Chunker;

/// Where chunks begin if one begins at the start of a segment, and where the last of them ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guess {
    /// Ascending; the last one lies at the segment's end or behind it.
    positions: Vec<usize>,
}

/// Splits a run of `length` bytes into segments of about equal size, `segments` at most.
pub fn split(length: usize, segments: usize) -> impl Iterator<Item = Range<usize>> {
    let size = length.div_ceil(segments.max(1)).max(1);
    (0..length)
        .step_by(size)
        .map(move |start| start..length.min(start.saturating_add(size)))
}

/// Cuts one segment of the run `bytes`; each may be cut on a thread of its own.
#[must_use]
pub fn guess(chunker: &Chunker, bytes: &[u8], segment: Range<usize>) -> Guess {
    let mut positions = vec![segment.start];
    let mut at = segment.start;
    while at < segment.end.min(bytes.len()) {
        at = next_cut(chunker, bytes, at);
        positions.push(at);
    }
    Guess { positions }
}

/// Gives the ends of the chunks of the run `bytes` that begin before `limit`, from the guesses for
/// its segments in order.
///
/// They are those of one pass, whatever the segments are; only the time depends on them. If the
/// run goes on behind `bytes`, those that begin [`ChunkSizes::maximum`] bytes before their end, or
/// earlier, are the run's: nothing that follows changes them.
///
/// [`ChunkSizes::maximum`]: crate::ChunkSizes::maximum
#[must_use]
pub fn join(chunker: &Chunker, bytes: &[u8], limit: usize, guesses: &[Guess]) -> Vec<usize> {
    let mut ends = Vec::with_capacity(guesses.iter().map(|guess| guess.positions.len()).sum());
    let mut at = 0;
    let mut guesses = guesses.iter().peekable();
    while at < limit.min(bytes.len()) {
        while guesses.next_if(|guess| guess.last() <= at).is_some() {}
        let known = guesses.peek().and_then(|guess| {
            let found = guess.positions.binary_search(&at).ok()?;
            guess.positions.get(found + 1..)
        });
        match known {
            Some(positions) => ends.extend_from_slice(positions),
            None => ends.push(next_cut(chunker, bytes, at)),
        }
        at = ends.last().copied().unwrap_or(bytes.len());
    }
    // A guess may go on behind the limit.
    let begun = ends.partition_point(|end| *end < limit);
    ends.truncate(begun + 1);
    ends
}

impl Guess {
    fn last(&self) -> usize {
        self.positions.last().copied().unwrap_or_default()
    }
}

/// Gives the end of the chunk that begins at `at`, which is before the end of `bytes`.
fn next_cut(chunker: &Chunker, bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + chunker.cut(rest).max(1)
}
