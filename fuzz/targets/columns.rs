//! Blocks of pages by column: never more than the limit, however small the input.

#![no_main]

use larder_format::page::untranspose;
use libfuzzer_sys::fuzz_target;
use zstd_safe::DCtx;

fuzz_target!(|block: &[u8]| {
    const LIMIT: usize = 1 << 20;
    let mut context = DCtx::create();
    if let Ok(pages) = untranspose(block, LIMIT, &mut context) {
        assert!(pages.len() <= LIMIT);
        assert_eq!(untranspose(block, pages.len(), &mut context), Ok(pages));
    }
});
