//! Cuts by several threads against those of one pass.

use std::thread;

use crate::{both, lengths, noise, oracle, secret, sizes, sparse};
use larder_chunker::segments::{guess, join, split};
use larder_chunker::{ChunkSizes, Chunker};
use proptest::prelude::*;

/// Gives the ends of the chunks of one pass.
fn ends(chunker: &Chunker, bytes: &[u8]) -> Vec<usize> {
    let mut end = 0;
    let ends = lengths(chunker, bytes).into_iter().map(|length| {
        end += length;
        end
    });
    ends.collect()
}

/// Cuts each segment on a thread of its own.
fn cut_on_threads(chunker: &Chunker, bytes: &[u8], segments: usize) -> Vec<usize> {
    let guesses: Vec<_> = thread::scope(|scope| {
        let cut = |segment| scope.spawn(move || guess(chunker, bytes, segment));
        let started: Vec<_> = split(bytes.len(), segments).map(cut).collect();
        let guesses = started.into_iter().map(|thread| thread.join().unwrap());
        guesses.collect()
    });
    join(chunker, bytes, bytes.len(), &guesses)
}

/// Gives a run in which the windows that both rules cut after follow one another.
fn full_of_cuts(sizes: ChunkSizes, seed: u64, length: usize) -> Vec<u8> {
    let secret = secret(seed);
    let bits = sizes.mean.ilog2() + 1;
    let windows = (0..).map(|seed| noise(seed, 64));
    let windows = windows.filter(|window| oracle::value(&secret, window).trailing_zeros() >= bits);
    let some: Vec<_> = windows.take(3).collect();
    some.concat().into_iter().cycle().take(length).collect()
}

/// Gives runs of which some are the worst for those who guess: two ways of cutting never meet in
/// them, or meet late.
fn runs(sizes: ChunkSizes, seed: u64, length: usize) -> Vec<(&'static str, Vec<u8>)> {
    let periodic = |period: usize| {
        noise(seed, period)
            .into_iter()
            .cycle()
            .take(length)
            .collect()
    };
    let mut quiet_then_noise = vec![0; length / 2];
    quiet_then_noise.extend(noise(seed, length - length / 2));
    vec![
        ("noise", noise(seed, length)),
        ("sparse", sparse(seed, length)),
        ("constant", vec![0xa5; length]),
        ("period 2", periodic(2)),
        ("period 63", periodic(63)),
        ("period 1021", periodic(1021)),
        ("full of cuts", full_of_cuts(sizes, seed, length)),
        ("quiet, then noise", quiet_then_noise),
    ]
}

#[test]
fn every_split_gives_the_cuts_of_one_pass() {
    let sizes = sizes(64, 128, 1024);
    for (kind, bytes) in runs(sizes, 21, 3000) {
        for chunker in both(sizes, 21) {
            let expected = ends(&chunker, &bytes);
            for at in 0..=bytes.len() {
                let segments = [0..at, at..bytes.len()];
                let guesses = segments.map(|segment| guess(&chunker, &bytes, segment));
                assert_eq!(
                    join(&chunker, &bytes, bytes.len(), &guesses),
                    expected,
                    "{kind}, {at}"
                );
                // The second guess alone: no thread could be had for the first.
                let joined = join(&chunker, &bytes, bytes.len(), &guesses[1..]);
                assert_eq!(joined, expected, "{kind}, {at}");
            }
        }
    }
}

#[test]
fn what_begins_early_enough_stands_whatever_follows() {
    let sizes = sizes(64, 128, 1024);
    for (kind, bytes) in runs(sizes, 22, 6000) {
        for chunker in both(sizes, 22) {
            let expected = ends(&chunker, &bytes);
            for known in (0..=bytes.len()).step_by(7) {
                let limit = (known + 1).saturating_sub(sizes.maximum);
                for segments in [1, 2, 5] {
                    let guesses: Vec<_> = split(limit, segments)
                        .map(|segment| guess(&chunker, &bytes[..known], segment))
                        .collect();
                    let found = join(&chunker, &bytes[..known], limit, &guesses);
                    let begun = expected.partition_point(|end| *end < limit) + 1;
                    let begun = if limit == 0 { 0 } else { begun };
                    assert_eq!(found, expected[..begun], "{kind}, {known} bytes");
                }
            }
        }
    }
}

#[test]
fn splits_cover_a_run_without_a_gap() {
    for length in 0..200 {
        for segments in 0..210 {
            let mut end = 0;
            let mut count = 0;
            for segment in split(length, segments) {
                assert_eq!(segment.start, end);
                assert!(!segment.is_empty());
                end = segment.end;
                count += 1;
            }
            assert_eq!(end, length);
            assert!(count <= segments.max(1));
        }
    }
}

#[test]
fn nothing_is_cut_by_any_number_of_threads() {
    for chunker in both(sizes(64, 128, 1024), 3) {
        for segments in 0..4 {
            assert!(cut_on_threads(&chunker, &[], segments).is_empty());
        }
        assert!(join(&chunker, &[], 0, &[]).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn segments_change_no_cut(seed: u64, length in 0_usize..100_000, segments in 0_usize..40) {
        let sizes = sizes(256, 1024, 4096);
        for (kind, bytes) in runs(sizes, seed, length) {
            for chunker in both(sizes, seed) {
                let expected = ends(&chunker, &bytes);
                let mut guesses: Vec<_> = split(length, segments)
                    .map(|segment| guess(&chunker, &bytes, segment))
                    .collect();
                prop_assert_eq!(&join(&chunker, &bytes, bytes.len(), &guesses), &expected, "{}", kind);
                let cut = cut_on_threads(&chunker, &bytes, segments);
                prop_assert_eq!(&cut, &expected, "{}", kind);
                guesses.truncate(segments / 2);
                prop_assert_eq!(&join(&chunker, &bytes, bytes.len(), &guesses), &expected, "{}", kind);
            }
        }
    }

    #[test]
    fn ranges_that_lie_anywhere_change_no_cut(
        seed: u64,
        length in 0_usize..20_000,
        ranges in prop::collection::vec((0_usize..25_000, 0_usize..25_000), 0..8),
    ) {
        let bytes = noise(seed, length);
        for chunker in both(sizes(64, 256, 1024), seed) {
            let guesses: Vec<_> = ranges
                .iter()
                .map(|(start, end)| guess(&chunker, &bytes, *start..*end))
                .collect();
            prop_assert_eq!(join(&chunker, &bytes, bytes.len(), &guesses), ends(&chunker, &bytes));
        }
    }
}
