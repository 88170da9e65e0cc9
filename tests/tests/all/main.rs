//! Tests of Larder from the outside, one module each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod at;
mod awkward;
mod bad_input;
mod bucket;
mod bundle;
mod cli;
mod cold;
mod collection;
mod copy;
mod cost;
mod crash;
mod damage;
mod described;
mod faults;
mod fixture;
mod forget;
mod golden;
mod heal;
mod hooks;
mod hostile;
mod job_notices;
mod jobs;
mod kill;
mod layers;
mod left_out;
mod locations;
mod parity;
mod postgres;
mod power;
mod program;
mod repair;
mod rewrite;
mod scrub;
mod sealed;
mod secrets;
mod serve;
mod shards;
mod simulator;
mod source_text;
mod stats;
mod streams;
mod sync;
mod torture;
mod twins;
mod users;
