//! A block that does authenticate, whatever is in it. The first byte gives the type of its chunks.

#![no_main]

use larder_format::block::open_block;
use larder_format::compression::Decompressor;
use larder_format::ids::ChunkType;
use larder_format::limits::BLOCK_PLAIN_BYTES;
use larder_format::seal::{Aad, seal};
use larder_fuzz::KEYRING;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((number, payload)) = input.split_first() else {
        return;
    };
    let Some(chunk_type) = ChunkType::from_number(*number) else {
        return;
    };
    let key = KEYRING.current(chunk_type.purpose()).unwrap();
    let mut sealed = seal(key, &Aad::block(key, chunk_type), &[5; 32], payload).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    if let Ok(plaintext) = open_block(&KEYRING, &key.id(), chunk_type, &sealed, &mut decompressor) {
        assert!(plaintext.len() <= BLOCK_PLAIN_BYTES);
    }
    // Any other byte in it makes it another block, which nobody sealed.
    let last = sealed.len() - 1;
    sealed[payload.len().min(last)] ^= 1;
    assert!(open_block(&KEYRING, &key.id(), chunk_type, &sealed, &mut decompressor).is_err());
});
