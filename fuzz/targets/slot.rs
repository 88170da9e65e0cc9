//! Key slots: their parameters have one encoding, and nothing is derived from what costs too much.

#![no_main]

use larder_format::ids::SlotId;
use larder_format::slot::{SlotParams, read_slot};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = read_slot(&SlotId::default(), input);
    if let Ok(params) = SlotParams::decode(input) {
        assert_eq!(params.encode(), input);
    }
});
