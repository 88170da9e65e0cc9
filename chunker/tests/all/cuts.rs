//! Where both chunkers cut: sizes, deduplication, and `fastcdc` against its reference.

use std::collections::HashSet;

use crate::{both, lengths, noise, sizes, sparse};
use fastcdc::v2020::{FastCDC, Normalization};
use larder_chunker::Chunker;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fastcdc_cuts_as_its_reference(seed: u64, length in 0_usize..60_000) {
        let bytes = noise(seed, length);
        let chunker = Chunker::fastcdc(sizes(256, 1024, 4096), seed);
        let reference = FastCDC::with_level_and_seed(
            &bytes, 256, 1024, 4096, Normalization::Level1, seed,
        );
        let expected: Vec<_> = reference.map(|chunk| chunk.length).collect();
        prop_assert_eq!(lengths(&chunker, &bytes), expected);
    }

    #[test]
    fn no_chunk_but_the_last_is_below_the_minimum_and_none_above_the_maximum(
        seed: u64,
        length in 0_usize..60_000,
        minimum in 32_usize..1000,
        mean in 0_usize..1000,
        maximum in 0_usize..3000,
        is_sparse: bool,
    ) {
        let mean = (2 * (minimum + mean)).max(256);
        let sizes = sizes(2 * minimum, mean, (mean + 2 * maximum).max(1024));
        let bytes = if is_sparse { sparse(seed, length) } else { noise(seed, length) };
        for chunker in both(sizes, seed) {
            let lengths = lengths(&chunker, &bytes);
            prop_assert_eq!(lengths.iter().sum::<usize>(), length);
            prop_assert!(lengths.iter().all(|length| *length <= sizes.maximum));
            if let Some((last, others)) = lengths.split_last() {
                prop_assert!(*last > 0);
                prop_assert!(others.iter().all(|length| *length >= sizes.minimum));
            }
        }
    }
}

#[test]
fn nothing_has_no_chunk() {
    for chunker in both(sizes(256, 1024, 4096), 3) {
        assert_eq!(chunker.cut(&[]), 0);
        assert_eq!(chunker.cut(&[0]), 1);
    }
}

#[test]
fn other_secrets_cut_elsewhere() {
    let sizes = sizes(256, 1024, 4096);
    let bytes = noise(4, 100_000);
    let [one, other] = [5, 6].map(|seed| both(sizes, seed).map(|each| lengths(&each, &bytes)));
    for (one, other) in one.iter().zip(&other) {
        assert_ne!(one, other);
    }
    assert_ne!(one[0], one[1]);
}

/// Gives the bytes of the distinct chunks of all runs together.
fn distinct_bytes(chunker: &Chunker, runs: &[Vec<u8>]) -> usize {
    let mut seen = HashSet::new();
    let mut total = 0;
    for run in runs {
        let mut rest = run.as_slice();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(chunker.cut(rest));
            if seen.insert(blake3::hash(chunk)) {
                total += chunk.len();
            }
            rest = after;
        }
    }
    total
}

/// A file of 16 MiB and nine later states of it, each with a few places inserted, removed or
/// overwritten.
fn edited_file() -> Vec<Vec<u8>> {
    let draws = noise(99, 8 * 9 * 6 * 2);
    let mut draws = draws
        .chunks_exact(8)
        .map(|draw| u64::from_le_bytes(draw.try_into().unwrap()));
    let mut states = vec![noise(100, 16 << 20)];
    for state in 1..10 {
        let mut bytes = states[state - 1].clone();
        for _ in 0..6 {
            let at = usize::try_from(draws.next().unwrap()).unwrap() % (bytes.len() - 4096);
            let draw = usize::try_from(draws.next().unwrap() >> 1).unwrap();
            let (old, new) = (draw % 3000, draw / 3000 % 3000);
            bytes.splice(at..at + old, noise(draw as u64, new));
        }
        states.push(bytes);
    }
    states
}

#[test]
fn both_chunkers_deduplicate_an_edited_file_alike() {
    let states = edited_file();
    let whole: usize = states.iter().map(Vec::len).sum();
    let sizes = sizes(4096, 16_384, 65_536);
    let [fastcdc, toeplitz] = both(sizes, 5).map(|chunker| distinct_bytes(&chunker, &states));
    println!("{whole} bytes; distinct: fastcdc {fastcdc}, toeplitz-aes {toeplitz}");
    // 54 edits, each of which costs the chunk around it and now and then the next.
    for distinct in [fastcdc, toeplitz] {
        assert!(distinct < (16 << 20) + 54 * 3 * 20_000, "{distinct}");
    }
    assert!(
        fastcdc.abs_diff(toeplitz) * 50 <= fastcdc,
        "{fastcdc} {toeplitz}"
    );
}

#[test]
fn chunks_have_the_mean_length_that_the_rule_gives() {
    let sizes = sizes(4096, 16_384, 65_536);
    let bytes = noise(7, 16 << 20);
    for chunker in both(sizes, 3) {
        let count = lengths(&chunker, &bytes).len();
        // 19,980 bytes: the minimum, then a cut at one place in 32,768 up to the mean and at one
        // in 8192 after it.
        assert!((820..860).contains(&count), "{count}");
    }
}

#[test]
fn a_run_without_features_is_cut_at_the_maximum() {
    let sizes = sizes(256, 1 << 20, 4 << 20);
    let bytes = vec![0; 9 << 20];
    for chunker in both(sizes, 3) {
        assert_eq!(lengths(&chunker, &bytes), [4 << 20, 4 << 20, 1 << 20]);
    }
}
