//! What is read: the sorted walk of a file tree, what is chosen of it, and its bytes; or the listing
//! of a bucket, and its objects.
//!
//! This is the only place of the engine that reads the user's files and buckets. Everything happens
//! relative to handles of folders, never by a whole path below the source, so that paths may
//! be longer than `PATH_MAX` and nothing can be swapped for a symbolic link on the way.

pub mod ahead;
pub mod attributes;
pub mod bucket;
pub mod change;
mod folder;
pub mod item;
mod listing;
pub mod living;
mod marks;
pub mod only;
pub mod paths;
pub mod postgres;
pub mod read;
pub mod select;
pub mod stat;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod walk;
