//! Tests of Larder from the outside, one module each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod awkward;
mod bad_input;
mod cli;
mod cost;
mod crash;
mod fixture;
mod golden;
mod kill;
mod layers;
mod program;
mod secrets;
mod source_text;
