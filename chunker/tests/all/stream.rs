//! Runs that a reader gives piece by piece.

use std::io::{self, Read};

use crate::{both, lengths, noise, sizes};
use larder_chunker::{ChunkBuffer, Chunker};
use proptest::prelude::*;

/// Gives pieces of these lengths in turn, as a pipe might; 0 is an interruption.
struct Pieces<'a> {
    bytes: &'a [u8],
    lengths: Vec<usize>,
    turn: usize,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], lengths: Vec<usize>) -> Self {
        Self {
            bytes,
            lengths,
            turn: 0,
        }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty());
        let length = self.lengths[self.turn % self.lengths.len()];
        self.turn += 1;
        if length == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = length.min(buffer.len());
        self.bytes.read(&mut buffer[..length])
    }
}

/// Cuts what a reader gives, takes each chunk, and holds it against the whole.
fn lengths_of_stream(
    chunker: &Chunker,
    buffer: &mut ChunkBuffer,
    bytes: &[u8],
    pieces: &[usize],
    expected: u64,
) -> Vec<usize> {
    let mut input = Pieces::new(bytes, pieces.to_vec());
    let (mut lengths, mut whole) = (Vec::new(), Vec::new());
    while let Some(chunk) = buffer.next(chunker, &mut input, expected).unwrap() {
        let (chunk, length) = (chunk.to_vec(), chunk.len());
        let taken = buffer.take_last(length);
        assert_eq!(taken, chunk);
        // What holds it is counted by its length.
        assert!(taken.capacity() <= length + length / 8 + 64);
        lengths.push(length);
        whole.extend_from_slice(&chunk);
    }
    assert_eq!(whole, bytes);
    lengths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stream_is_cut_as_the_whole(
        seed: u64,
        length in 0_usize..60_000,
        mut pieces in prop::collection::vec(0_usize..9_000, 1..8),
        expected in prop_oneof![0_u64..70_000, Just(u64::MAX)],
    ) {
        pieces.push(1 + pieces[0]);
        let bytes = noise(seed, length);
        for chunker in both(sizes(256, 1024, 4096), seed) {
            let mut buffer = ChunkBuffer::new();
            let found = lengths_of_stream(&chunker, &mut buffer, &bytes, &pieces, expected);
            prop_assert_eq!(&found, &lengths(&chunker, &bytes));
            // A buffer serves one run after the other.
            let found = lengths_of_stream(&chunker, &mut buffer, &bytes, &[4096], length as u64);
            prop_assert_eq!(&found, &lengths(&chunker, &bytes));
        }
    }
}

#[test]
fn pieces_of_every_length_give_the_same_cuts() {
    let bytes = noise(8, 9000);
    for chunker in both(sizes(64, 256, 1024), 9) {
        let expected = lengths(&chunker, &bytes);
        for piece in 1..2100 {
            let mut buffer = ChunkBuffer::new();
            let found = lengths_of_stream(&chunker, &mut buffer, &bytes, &[piece], 9000);
            assert_eq!(found, expected, "{piece}");
        }
    }
}

#[test]
fn an_empty_stream_has_no_chunk() {
    for chunker in both(sizes(64, 256, 1024), 9) {
        for expected in [0, 1, u64::MAX] {
            let mut buffer = ChunkBuffer::new();
            let next = buffer.next(&chunker, &mut io::empty(), expected).unwrap();
            assert!(next.is_none());
        }
    }
}

#[test]
fn what_cannot_be_read_is_an_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    for chunker in both(sizes(64, 256, 1024), 9) {
        let bytes = noise(10, 10);
        let mut input = bytes.as_slice().chain(Broken);
        let error = ChunkBuffer::new()
            .next(&chunker, &mut input, 100)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
