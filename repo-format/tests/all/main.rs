//! The format from the outside: records that go both ways, and the examples of SPEC.md.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod records;
mod spec_examples;
