//! Leaves of trees: one encoding for each, which survives being taken apart by column.

#![no_main]

use larder_format::limits::{BLOCK_PLAIN_BYTES, NODE_ITEMS};
use larder_format::node::{LEAF_RAW_FIELDS, decode_leaf, encode_leaf, references};
use larder_format::page::{transpose, untranspose};
use libfuzzer_sys::fuzz_target;
use zstd_safe::{CCtx, DCtx};

fuzz_target!(|page: &[u8]| {
    let found = references(page);
    let Ok(entries) = decode_leaf(page) else {
        return;
    };
    assert_eq!(encode_leaf(&entries).as_deref(), Ok(page));
    assert!(entries.len() <= NODE_ITEMS);
    assert!(entries.iter().all(|entry| entry.check().is_ok()));
    assert!(entries.is_sorted_by(|a, b| (&a.key, a.ordinal) < (&b.key, b.ordinal)));
    assert!(found.is_ok());

    let block = transpose(&[page, page], LEAF_RAW_FIELDS, 1, &mut CCtx::create()).unwrap();
    let joined = untranspose(&block, BLOCK_PLAIN_BYTES, &mut DCtx::create());
    assert_eq!(joined.as_deref(), Ok([page, page].concat().as_slice()));
});
