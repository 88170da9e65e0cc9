//! Prints how fast each path cuts, in bytes per second of CPU time: of use on a machine on which
//! others are at work, where the benchmarks' wall time says little.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a tool")]

use std::fs;

use larder_chunker::{ChunkSizes, Chunker};

const SIZES: ChunkSizes = ChunkSizes {
    minimum: 256 << 10,
    mean: 1 << 20,
    maximum: 4 << 20,
};
/// The best of so many rounds counts, in which the chunkers take turns.
const ROUNDS: usize = 15;

fn main() {
    let mut bytes = vec![0; 64 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let secret = std::array::from_fn(|at| (at * 37 + 11) as u8);
    let mut chunkers = vec![("fastcdc", Chunker::fastcdc(SIZES, 17))];
    chunkers.extend(Chunker::toeplitz_aes_by_every_path(SIZES, &secret));
    let mut best = vec![f64::MAX; chunkers.len()];
    for _ in 0..ROUNDS {
        for ((_, chunker), best) in chunkers.iter().zip(&mut best) {
            let start = cpu_seconds();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                rest = &rest[chunker.cut(rest)..];
            }
            *best = best.min(cpu_seconds() - start);
        }
    }
    for ((name, _), seconds) in chunkers.iter().zip(&best) {
        let speed = bytes.len() as f64 / seconds / 1e6;
        println!(
            "{name:10} {speed:5.0} MB/s, {:.2} of fastcdc's time",
            seconds / best[0]
        );
    }
}

/// Gives the CPU time of this process.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
