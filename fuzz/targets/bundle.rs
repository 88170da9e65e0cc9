//! Heads of a bundle, one behind another, and its record: one encoding for each.

#![no_main]

use larder_format::bundle::{BundleRecord, Frames, head_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut frames = Frames::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let Ok(size) = head_bytes(*first) else { break };
        let Some((encoded, after)) = rest.split_at_checked(size) else {
            break;
        };
        let before = frames.position();
        let Ok((head, span)) = frames.read(encoded) else {
            assert_eq!(frames.position(), before);
            break;
        };
        assert_eq!(head.encode(), encoded);
        assert_eq!(span.offset, before + size as u64);
        assert_eq!(frames.position(), span.offset + span.length);
        rest = after;
    }
    let record = frames.record();
    assert_eq!(BundleRecord::decode(&record.encode()), Ok(record));
    if let Ok(record) = BundleRecord::decode(bytes) {
        assert_eq!(record.encode(), bytes);
    }
});
