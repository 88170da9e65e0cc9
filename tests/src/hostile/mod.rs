//! Repositories that whoever holds storage and keys made to do harm: a few bytes decide what is done to a small
//! repository ([`edits`]), then everything is done with it, and judged ([`case`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

pub mod case;
pub mod cbor;
pub mod choices;
pub mod edits;
pub mod forge;
pub mod ground;
pub mod inputs;
pub mod meter;
pub mod packs;
pub mod restored;
pub mod trees;
pub mod truth;

pub use case::{run, run_each};
pub use ground::Ground;
