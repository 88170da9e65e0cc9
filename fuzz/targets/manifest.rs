//! Manifests of mirrors, which nobody authenticates: one encoding for each.

#![no_main]

use larder_format::ids::KeyId;
use larder_format::mirror::Manifest;
use larder_format::object::{Header, Kind, close};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|cbor: &[u8]| {
    let header = Header {
        kind: Kind::Manifest,
        key_id: KeyId::default(),
        uid: [7; 16],
    };
    let object = close([header.encode().as_slice(), cbor].concat());
    if let Ok(manifest) = Manifest::open(1, &object) {
        assert_eq!(manifest.close(header.uid), Ok(object));
    }
});
