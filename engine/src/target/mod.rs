//! The only place that writes the user's files and buckets in a restore.
//!
//! It knows nothing of repositories: it takes entries, attribute pairs and bytes, and puts them
//! below the handle of one root directory. The order in which it wants to be called:
//!
//! 1. [`Target::create_directory`] in key order (and [`Target::remove_extras`] where wanted),
//! 2. [`Target::create_file`], then [`PendingFile::write_at`] from any thread, then
//!    [`PendingFile::finish`] once the last byte is in,
//! 3. [`Target::create_symlink`], [`Target::create_special`], [`Target::link`],
//! 4. [`Target::finish_directory`], deepest first, since everything above changes a folder's
//!    times and may need more access to it than its final permissions give.
//!
//! Three rules make it safe against whoever wrote the tree, and whoever alters the target
//! meanwhile. No path is ever resolved: names are single components, opened one below the
//! other without following links. Nothing gets its final name before it is complete: every
//! file, link and device is made under a temporary name of mode 0600 and renamed. Metadata is
//! set through handles, in the order owner, attributes, permissions, times, so that it lands
//! on what was made and not on what its name means by then.

pub mod bucket;
mod delete;
pub mod error;
mod existing;
mod file;
mod handles;
mod metadata;
pub mod names;
mod nodes;
pub mod options;
mod owners;
pub mod plan;
mod tree;
pub mod warnings;

#[cfg(test)]
mod tests;

pub use existing::{ExistingFile, Metadata};
pub use file::{PendingFile, WriteMode};
pub use nodes::NodeId;
pub use tree::{Made, Target};
