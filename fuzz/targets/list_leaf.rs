//! Leaves of lists: one encoding for each.

#![no_main]

use larder_format::limits::LIST_ITEMS;
use larder_format::list::{decode_list_leaf, encode_list_leaf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| {
    if let Ok(extents) = decode_list_leaf(page) {
        assert_eq!(encode_list_leaf(&extents).as_deref(), Ok(page));
        assert!((1..=LIST_ITEMS).contains(&extents.len()));
        assert!(extents.iter().all(|extent| extent.length() > 0));
    }
});
