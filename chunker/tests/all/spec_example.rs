//! The worked example of SPEC.md §15.

use crate::{lengths, oracle, sizes};
use larder_chunker::{Chunker, SECRET_BYTES};

const SPEC: &str = include_str!("../../../SPEC.md");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_line_of_the_worked_example_is_true() {
    let material = [[7; 32].as_slice(), &[0x10; 16]].concat();
    let mut secret = [0; SECRET_BYTES];
    blake3::Hasher::new_derive_key("larder v1 toeplitz-aes")
        .update(&material)
        .finalize_xof()
        .fill(&mut secret);
    let mut run = vec![0; 200_000];
    blake3::Hasher::new()
        .update(b"larder")
        .finalize_xof()
        .fill(&mut run);
    let window: Vec<u8> = (0..64).collect();
    let one = [[0; 63].as_slice(), &[1]].concat();

    let sizes = sizes(4096, 16_384, 65_536);
    let expected = oracle::lengths(&secret, sizes, &run);
    for (path, chunker) in Chunker::toeplitz_aes_by_every_path(sizes, &secret) {
        assert_eq!(lengths(&chunker, &run), expected, "{path}");
    }

    let digest = oracle::digest(&secret, &window);
    let lengths: Vec<String> = expected.iter().map(usize::to_string).collect();
    for (name, value) in [
        ("toeplitz-aes secret", hex(&secret)),
        (
            "digest of 63 zeros and a one",
            hex(&oracle::digest(&secret, &one)),
        ),
        ("digest of 00 01 ... 3f", hex(&digest)),
        ("enciphered", hex(&oracle::enciphered(&secret, digest))),
        (
            "value",
            format!("{:#010x}", oracle::value(&secret, &window)),
        ),
        ("lengths", lengths.join(" ")),
    ] {
        let line = format!("\n{name} = {value}\n");
        assert!(SPEC.contains(&line), "SPEC.md lacks this line:{line}");
    }
}
