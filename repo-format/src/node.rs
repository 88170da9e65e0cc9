//! Nodes of trees: leaves, which hold entries, and interior nodes (SPEC.md §9).

mod interior;
mod keys;
mod leaf;

pub use interior::{Child, Interior};
pub use keys::separator;
pub(crate) use leaf::extent_number;
pub use leaf::{Reference, decode_leaf, encode_leaf, references};

/// The fields of a leaf that hold ids, which compression only makes longer.
pub const LEAF_RAW_FIELDS: &[u8] = &[27, 31];
/// The fields of an interior node that hold ids.
pub const INTERIOR_RAW_FIELDS: &[u8] = &[6];

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests;
