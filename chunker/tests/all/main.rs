//! The chunkers against their specification, against each other, and against themselves.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod cuts;
mod oracle;
mod paths;
mod segments;
mod spec_example;
mod stream;

use larder_chunker::{ChunkSizes, Chunker, SECRET_BYTES};

/// Gives bytes without any order in them.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Gives bytes of a few values only, in which windows repeat.
fn sparse(seed: u64, length: usize) -> Vec<u8> {
    let of = |byte: u8| if byte < 250 { 0 } else { byte };
    noise(seed, length).into_iter().map(of).collect()
}

fn secret(seed: u64) -> [u8; SECRET_BYTES] {
    noise(!seed, SECRET_BYTES).try_into().unwrap()
}

/// Gives both chunkers.
fn both(sizes: ChunkSizes, seed: u64) -> [Chunker; 2] {
    [
        Chunker::fastcdc(sizes, seed),
        Chunker::toeplitz_aes(sizes, &secret(seed)),
    ]
}

fn sizes(minimum: usize, mean: usize, maximum: usize) -> ChunkSizes {
    ChunkSizes {
        minimum,
        mean,
        maximum,
    }
}

/// Cuts a whole run, chunk by chunk, and gives the lengths.
fn lengths(chunker: &Chunker, bytes: &[u8]) -> Vec<usize> {
    let mut rest = bytes;
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let length = chunker.cut(rest);
        lengths.push(length);
        rest = &rest[length..];
    }
    lengths
}
