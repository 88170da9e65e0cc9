//! Ids in hex, as object names carry them.

#![no_main]

use larder_format::ids::{ObjectId, SessionId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(id) = ObjectId::from_hex(text) {
        assert_eq!(id.to_hex(), text);
    }
    if let Some(id) = SessionId::from_hex(text) {
        assert_eq!(id.to_hex(), text);
        assert!(id.to_hex().ends_with(&id.snapshot_name()) || !id.snapshot_name().is_empty());
    }
});
