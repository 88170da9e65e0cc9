//! `fastcdc-v2020`: FastCDC with a gear table of the repository's own.
//!
//! Source: Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based
//! Storage Systems", IEEE TPDS 2020; the rolling hash is the `fastcdc` crate's.

use std::borrow::Cow;

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

use crate::ChunkSizes;

#[derive(Clone)]
pub(crate) struct FastCdc {
    mask_strict: u64,
    mask_loose: u64,
    gear: Cow<'static, [u64]>,
    gear_shifted: Cow<'static, [u64]>,
}

impl FastCdc {
    pub(crate) fn new(sizes: ChunkSizes, seed: u64) -> Self {
        let (mask_strict, mask_loose) = select_masks(sizes.mean, Normalization::Level1);
        let (gear, gear_shifted) = get_gear_with_seed(seed);
        Self {
            mask_strict,
            mask_loose,
            gear,
            gear_shifted,
        }
    }

    /// Gives the length of the first chunk of `bytes`, which are more than the minimum.
    pub(crate) fn cut(&self, sizes: ChunkSizes, bytes: &[u8]) -> usize {
        let (_, length) = cut_gear(
            bytes,
            sizes.minimum,
            sizes.mean,
            sizes.maximum,
            self.mask_strict,
            self.mask_loose,
            self.mask_strict << 1,
            self.mask_loose << 1,
            &self.gear,
            &self.gear_shifted,
        );
        length
    }
}
