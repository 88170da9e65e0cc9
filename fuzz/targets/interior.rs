//! Interior nodes of trees: one encoding for each.

#![no_main]

use larder_format::limits::NODE_ITEMS;
use larder_format::node::Interior;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| {
    if let Ok(node) = Interior::decode(page) {
        assert_eq!(node.encode().as_deref(), Ok(page));
        assert!((1..=NODE_ITEMS).contains(&node.children.len()));
        assert!(node.children.iter().all(|child| child.entries > 0));
        assert!(node.children.is_sorted_by(|a, b| {
            (&a.separator_key, a.separator_ordinal) < (&b.separator_key, b.separator_ordinal)
        }));
    }
});
