//! Interior nodes of lists: one encoding for each.

#![no_main]

use larder_format::limits::LIST_ITEMS;
use larder_format::list::ListInterior;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| {
    if let Ok(node) = ListInterior::decode(page) {
        assert_eq!(node.encode().as_deref(), Ok(page));
        assert!((1..=LIST_ITEMS).contains(&node.children.len()));
    }
});
