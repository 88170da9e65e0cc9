//! A pack: its footer, and a directory that does authenticate, whatever it says.

#![no_main]

use larder_format::keys::Purpose;
use larder_format::object::{HEADER_BYTES, Header, Kind, object_id};
use larder_format::pack::{FOOTER_BYTES, directory_range, open_directory, open_pack};
use larder_format::seal::{Aad, seal};
use larder_fuzz::KEYRING;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((_, footer)) = input.split_last_chunk::<FOOTER_BYTES>() {
        if let Ok(range) = directory_range(input.len() as u64, footer) {
            assert!(range.start >= HEADER_BYTES as u64 && range.start < range.end);
            assert!(range.end <= (input.len() - FOOTER_BYTES) as u64);
        }
    }
    // Nobody without the key makes a pack that opens.
    assert!(open_pack(&KEYRING, &object_id(input), input).is_err());

    // Whoever has it may have written any directory.
    let key = KEYRING.current(Purpose::Data).unwrap();
    let header = Header {
        kind: Kind::DataPack,
        key_id: key.id(),
        uid: [3; 16],
    };
    let sealed = seal(key, &Aad::directory(key, &header), &[5; 32], input).unwrap();
    let pack_length = 1 << 24;
    if let Ok(directory) = open_directory(&KEYRING, &header, pack_length, &sealed) {
        let encoded = directory.encode();
        assert_eq!(input.get(..encoded.len()), Some(encoded.as_slice()));
        assert!(input.iter().skip(encoded.len()).all(|byte| *byte == 0));
        assert!(directory.blocks_length() < pack_length);
    }
});
