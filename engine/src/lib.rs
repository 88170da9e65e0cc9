//! The operations of Larder over any storage: backup, restore, check and what belongs to them.
//!
//! Operations are functions in modules of their own, over a [`repository::Repository`].
//! `storage` is the only place that touches the repository's bytes and the only one that knows an
//! async runtime; `source` and `target` are the only places that touch the user's files.

pub mod backup;
pub mod browse;
pub mod cancel;
pub mod check;
pub mod error;
pub mod keys;
pub mod progress;
pub mod repository;
pub mod restore;
pub mod snapshots;
pub mod stats;
