//! Every path of `toeplitz-aes` against the others, the specification and its secret.

use crate::{lengths, noise, oracle, secret, sizes, sparse};
use larder_chunker::{Chunker, SECRET_BYTES};
use proptest::prelude::*;

/// Positions around which lanes, groups of steps and blocks of the vector code begin or end.
fn seams() -> Vec<usize> {
    let edges = [2048, 4096, 6144, 8192, 14_336, 16_384, 24_576, 32_768];
    let around = edges.into_iter().flat_map(|edge| edge - 80..edge + 80);
    (64..400).chain(around).collect()
}

/// Finds a window whose value ends in so many zero bits, so that it is followed by a cut.
fn window_before_a_cut(secret: &[u8; SECRET_BYTES], bits: u32) -> Vec<u8> {
    let mut windows = (0..).map(|seed| noise(seed, 64));
    let is_wanted = |window: &Vec<u8>| oracle::value(secret, window).trailing_zeros() >= bits;
    windows.find(is_wanted).unwrap()
}

#[test]
fn this_machine_has_a_path_for_its_instructions() {
    let paths = Chunker::toeplitz_aes_by_every_path(sizes(64, 256, 1024), &secret(0));
    let names: Vec<_> = paths.iter().map(|(name, _)| *name).collect();
    let mut expected = vec!["portable"];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("aes") {
        expected.push("AES-NI");
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("vaes") {
            expected.push("VAES");
        }
    }
    assert_eq!(names, expected);
}

#[test]
fn a_cut_is_found_wherever_it_lies() {
    let secret = secret(11);
    // One position in 2^17 is a cut by chance, so the planted one is nearly always the first.
    let sizes = sizes(64, 1 << 16, 1 << 17);
    let hit = window_before_a_cut(&secret, 17);
    let ground = noise(12, 40_000);
    let paths = Chunker::toeplitz_aes_by_every_path(sizes, &secret);
    let mut found = 0;
    for end in seams() {
        let mut bytes = ground.clone();
        bytes[end - 64..end].copy_from_slice(&hit);
        let expected = paths[0].1.cut(&bytes);
        found += usize::from(expected == end);
        for (path, chunker) in &paths[1..] {
            assert_eq!(chunker.cut(&bytes), expected, "{path}: cut at {end}");
        }
    }
    assert!(found > 1000, "{found} of {}", seams().len());
}

#[test]
fn of_several_cuts_the_first_is_found() {
    let secret = secret(13);
    let sizes = sizes(64, 1 << 16, 1 << 17);
    let hit = window_before_a_cut(&secret, 17);
    let paths = Chunker::toeplitz_aes_by_every_path(sizes, &secret);
    let ground = vec![0; 40_000];
    for (first, second) in seams().into_iter().zip(seams().into_iter().rev()) {
        let mut bytes = ground.clone();
        bytes[first - 64..first].copy_from_slice(&hit);
        bytes[second - 64..second].copy_from_slice(&hit);
        let expected = paths[0].1.cut(&bytes);
        assert!(expected <= first.max(second));
        for (path, chunker) in &paths[1..] {
            let cut = chunker.cut(&bytes);
            assert_eq!(cut, expected, "{path}: cuts at {first} and {second}");
        }
    }
}

#[test]
fn every_bit_of_the_secret_counts() {
    let sizes = sizes(64, 1024, 8192);
    let bytes = noise(14, 20_000);
    let secret = secret(15);
    let expected = lengths(&Chunker::toeplitz_aes(sizes, &secret), &bytes);
    assert!(expected.len() > 10);
    for bit in 0..8 * SECRET_BYTES {
        let mut other = secret;
        other[bit / 8] ^= 1 << (bit % 8);
        for (path, chunker) in Chunker::toeplitz_aes_by_every_path(sizes, &other) {
            assert_ne!(lengths(&chunker, &bytes), expected, "{path}, bit {bit}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_path_cuts_as_the_specification_says(
        seed: u64,
        length in 0_usize..5000,
        offset in 0_usize..70,
        minimum in 32_usize..300,
        mean in 128_usize..600,
        maximum in 512_usize..2000,
        is_sparse: bool,
    ) {
        let sizes = sizes(2 * minimum, 2 * mean.max(minimum), 2 * maximum.max(mean).max(minimum));
        let bytes = if is_sparse { sparse(seed, offset + length) } else { noise(seed, offset + length) };
        let bytes = &bytes[offset..];
        let expected = oracle::lengths(&secret(seed), sizes, bytes);
        for (path, chunker) in Chunker::toeplitz_aes_by_every_path(sizes, &secret(seed)) {
            prop_assert_eq!(&lengths(&chunker, bytes), &expected, "{}", path);
        }
    }

    #[test]
    fn every_path_finds_the_first_cut_of_a_long_run(
        seed: u64, length in 0_usize..300_000, offset in 0_usize..70, mean in 10_u32..19,
    ) {
        // A maximum that is never reached: what no lane finds in a block, the next one must.
        let sizes = sizes(64, 1 << mean, 1 << 22);
        let bytes = noise(seed, offset + length);
        let bytes = &bytes[offset..];
        let paths = Chunker::toeplitz_aes_by_every_path(sizes, &secret(seed));
        let expected = lengths(&paths[0].1, bytes);
        for (path, chunker) in &paths[1..] {
            prop_assert_eq!(&lengths(chunker, bytes), &expected, "{}", path);
        }
    }

    #[test]
    fn no_sizes_make_it_panic_or_stand_still(
        seed: u64, length in 1_usize..3000, minimum: u16, mean: usize, maximum in 1_usize..3000,
    ) {
        let bytes = noise(seed, length);
        let sizes = sizes(minimum.into(), mean, maximum);
        for (_, chunker) in Chunker::toeplitz_aes_by_every_path(sizes, &secret(seed)) {
            let length = chunker.cut(&bytes);
            prop_assert!((1..=bytes.len().min(maximum)).contains(&length));
        }
    }
}
