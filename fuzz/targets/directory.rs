//! The directory of a pack. The first byte says which kind of pack.

#![no_main]

use larder_format::codec::Reader;
use larder_format::directory::Directory;
use larder_format::limits::{PACK_BLOCKS, PACK_CHUNKS};
use larder_format::object::Kind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let kind = if kind & 1 == 0 {
        Kind::DataPack
    } else {
        Kind::TreePack
    };
    let mut reader = Reader::new("directory", bytes);
    let Ok(directory) = Directory::read(&mut reader, kind) else {
        return;
    };
    assert_eq!(directory.encode(), bytes[..reader.position()]);
    assert!(directory.blocks.len() <= PACK_BLOCKS);
    let chunks: usize = directory
        .blocks
        .iter()
        .map(|block| block.chunks.len())
        .sum();
    assert!(chunks <= PACK_CHUNKS);
    assert_eq!(directory.spots().count(), chunks);
    for spot in directory.spots() {
        assert!(
            u64::from(spot.block_offset) + u64::from(spot.block_length)
                <= 64 + directory.blocks_length()
        );
    }
});
