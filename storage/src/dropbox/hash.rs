//! The hash that Dropbox keeps of a file: SHA-256 over the SHA-256 of each block.

use sha2::{Digest, Sha256};

/// The bytes of a block; the last one may have fewer.
const BLOCK_BYTES: usize = 4 << 20;

/// Gives the hash of a file in hex, as Dropbox writes it.
pub(super) fn of(bytes: &[u8]) -> String {
    let mut whole = Sha256::new();
    for block in bytes.chunks(BLOCK_BYTES) {
        whole.update(Sha256::digest(block));
    }
    let digits = whole.finalize();
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_of_the_blocks_hashes() {
        // By hashlib, for nothing, one short block, and one whole block with a byte after it.
        assert_eq!(
            of(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            of(b"larder"),
            "1bfdd82dbf698ad65737d4180566bbe6c2f4f4d03775a23825b5ebb4adc72b8f"
        );
        assert_eq!(
            of(&vec![b'x'; BLOCK_BYTES + 1]),
            "656e7e27f7d0459e319264cdccb61f6667e8e964f8e763c332f35d36ee1cb924"
        );
    }
}
