//! Undo records of repairs, which nobody authenticates: one encoding for each.

#![no_main]

use larder_format::ids::KeyId;
use larder_format::object::{Header, Kind, close};
use larder_format::quarantine::{RepairId, Undo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|cbor: &[u8]| {
    let header = Header {
        kind: Kind::Undo,
        key_id: KeyId::default(),
        uid: [7; 16],
    };
    let object = close([header.encode().as_slice(), cbor].concat());
    if let Ok(undo) = Undo::open(&RepairId([1; 16]), 1, &object) {
        assert_eq!(undo.close(header.uid), Ok(object));
    }
});
