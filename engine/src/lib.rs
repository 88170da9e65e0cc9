//! The operations of Larder over any storage: backup, restore, check and what belongs to them.
//!
//! Operations are functions in modules of their own, over a [`repository::Repository`].
//! The package `storage` is the only place that touches the repository's bytes and the only one that
//! knows an async runtime; `source` and `target` are the only places that touch the user's files.

pub mod amend;
mod at_once;
pub mod backup;
pub mod browse;
pub mod budget;
pub mod bundle;
#[cfg(any(test, feature = "testing"))]
pub mod calls;
#[cfg(not(any(test, feature = "testing")))]
mod calls;
pub mod cancel;
mod carry;
pub mod check;
pub mod chunks;
pub mod clock;
pub mod collection;
pub mod error;
pub mod forget;
pub mod hooks;
pub mod index;
pub mod inspect;
pub mod keys;
pub mod ledger;
pub mod mark;
mod memory;
pub mod mirror;
mod openers;
pub mod packer;
pub mod parity;
mod presence;
pub mod process;
pub mod progress;
pub mod protocol;
pub mod prune;
pub mod random;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod rewrite;
pub mod salvage;
pub mod scratch;
pub mod scrub;
pub mod session;
pub mod shards;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
pub mod snapshots;
pub mod source;
pub mod stats;
pub mod status;
mod sync;
pub mod target;
pub mod thaw;
pub mod view;

/// Where runs of bytes are cut into chunks.
pub use larder_chunker as chunker;
/// The repository format, for those who show what it holds.
pub use larder_format as format;
/// Where the repository's bytes live.
pub use larder_storage as storage;
