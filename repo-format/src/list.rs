//! Lists: the extents of long files, and where a file's bytes are said to be (SPEC.md §9, §10).

mod build;
mod node;
mod read;

pub use build::ContentBuilder;
pub use node::{ListChild, ListInterior, decode_list_leaf, encode_list_leaf};
pub use read::{Extents, ListRoot, extents};

/// The fields of a list's leaf that hold ids, which compression only makes longer.
pub const LIST_LEAF_RAW_FIELDS: &[u8] = &[2];
/// The fields of a list's interior node that hold ids.
pub const LIST_INTERIOR_RAW_FIELDS: &[u8] = &[1];

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests;
