//! Parity: what damaged and missing packs are rebuilt from, without any other copy (SPEC.md §18).
//!
//! Writers put the packs that they upload into groups, each with one parity object (`spool.rs`); a repair reads a
//! group and computes what is lost (`heal.rs`); both over one code (`code.rs`). Parity is redundancy and nothing
//! more: it decides nothing, and no snapshot needs it.

mod code;
mod heal;
mod manage;
mod spool;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;

pub(crate) use heal::{Coverage, assess, mend, remake};
pub(crate) use manage::clean;
pub use manage::{BuildOptions, BuildReport, ParityStatus, build, set, status};
pub(crate) use spool::{Open, Spool};
