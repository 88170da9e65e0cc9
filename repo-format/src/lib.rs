//! The repository format of Larder, as pure functions: bytes in, bytes out.
//!
//! Time and randomness are arguments. There is no file, socket, clock or
//! thread in here, and no input makes it panic. `SPEC.md` is the normative
//! description; every module names the section that it implements.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod attributes;
pub mod block;
pub mod bundle;
pub mod cbor;
pub mod cell;
pub mod codec;
pub mod collector;
pub mod column;
pub mod compression;
pub mod config;
pub mod directory;
pub mod entry;
pub mod error;
pub mod ids;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod list;
pub mod mirror;
pub mod names;
pub mod node;
pub mod object;
pub mod pack;
pub mod page;
pub mod parity;
pub mod quarantine;
pub mod record;
pub mod run;
pub mod seal;
pub mod secret_text;
pub mod segment;
pub mod session;
pub mod slot;
pub mod tree;
pub mod verify;

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod testing;
