//! Attributes records: one encoding for each, names in ascending order.

#![no_main]

use larder_format::attributes::{decode, encode};
use larder_format::limits::CHUNK_BYTES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|record: &[u8]| {
    if let Ok(attributes) = decode(record) {
        assert_eq!(encode(&attributes).as_deref(), Ok(record));
        assert!(attributes.is_sorted_by(|a, b| a.name < b.name));
        assert!(!attributes.is_empty() && record.len() <= CHUNK_BYTES);
    }
});
