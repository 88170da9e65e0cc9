//! The chunkers: every path of `toeplitz-aes` cuts alike, and several threads cut as one does.
//!
//! The first eight bytes choose the secret, the next four the sizes and the number of segments.

#![no_main]

use larder_chunker::segments::{guess, join, split};
use larder_chunker::{ChunkSizes, Chunker, SECRET_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((seed, rest)) = input.split_first_chunk::<8>() else {
        return;
    };
    let Some(([minimum, mean, maximum, segments], run)) = rest.split_first_chunk::<4>() else {
        return;
    };
    let minimum = 64 + 2 * usize::from(*minimum);
    let mean = (minimum + 8 * usize::from(*mean)).max(256);
    let maximum = (mean + 16 * usize::from(*maximum)).max(1024);
    let sizes = ChunkSizes {
        minimum,
        mean,
        maximum,
    };
    let secret: [u8; SECRET_BYTES] =
        std::array::from_fn(|at| seed[at % 8].wrapping_mul(167).wrapping_add((at * 29) as u8));

    let fastcdc = Chunker::fastcdc(sizes, u64::from_le_bytes(*seed));
    check(&fastcdc, run, (*segments).into());
    let paths = Chunker::toeplitz_aes_by_every_path(sizes, &secret);
    let expected = check(&paths[0].1, run, (*segments).into());
    for (path, chunker) in &paths[1..] {
        let ends = check(chunker, run, (*segments).into());
        assert_eq!(ends, expected, "{path}");
    }
});

/// Cuts a run in one pass and in segments, and gives the ends of the chunks.
fn check(chunker: &Chunker, run: &[u8], segments: usize) -> Vec<usize> {
    let sizes = chunker.sizes();
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < run.len() {
        let length = chunker.cut(&run[at..]);
        assert!(length <= sizes.maximum);
        at += length;
        assert!(length >= sizes.minimum || at == run.len());
        ends.push(at);
    }
    let guesses: Vec<_> = split(run.len(), segments)
        .map(|segment| guess(chunker, run, segment))
        .collect();
    assert_eq!(join(chunker, run, run.len(), &guesses), ends);
    ends
}
