//! Ordered trees of entries (SPEC.md §10).

pub mod boundary;
pub mod build;
pub mod diff;
pub mod merge;
pub mod read;
pub mod visit;
mod walk;

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests;
