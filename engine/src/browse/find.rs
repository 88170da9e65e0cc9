//! Finding paths in all snapshots.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use jiff::Timestamp;
use larder_format::cell::Cell;
use larder_format::entry::{Entry, EntryType};
use larder_format::tree::read::{NodeSource, scan_prefix};

use super::paths::origins;
use super::{Item, cell_of, prepare};
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::snapshots::{self, Filter, SnapshotInfo};

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct FindOptions {
    /// gitignore-style patterns over whole paths; a path that matches any is found, unless a
    /// later one that begins with `!` takes it back.
    pub patterns: Vec<String>,
    /// Whatever the case.
    pub ignore_case: bool,
    /// Only in these snapshots.
    pub filter: Filter,
    /// Only modified at or after this time.
    pub newer: Option<Timestamp>,
    /// Only modified before this time.
    pub older: Option<Timestamp>,
    /// Only in what there was at this time: for each source the newest snapshot that is not later.
    pub at: Option<Timestamp>,
}

/// Finds paths in all snapshots of the filter, newest snapshot first.
///
/// A snapshot that is damaged does not hide what is found in the others.
///
/// # Errors
/// `Request` for a bad pattern, what the storage answers, or, at the end, `Damaged` for the first
/// snapshot that could not be searched whole.
pub fn find(
    repository: &Arc<Repository>,
    options: &FindOptions,
    each: &mut dyn FnMut(&SnapshotInfo, Item) -> Result<()>,
) -> Result<()> {
    let search = Search::new(options)?;
    let view = prepare(repository)?;
    let mut nodes = ChunkReader::new(repository)?;
    let mut damage = None;
    let searched = match options.at {
        Some(time) => snapshots::at_in(&view, time, &options.filter, None)?,
        None => {
            let mut all = snapshots::of_view(&view, &options.filter, false);
            all.reverse();
            all
        }
    };
    for snapshot in &searched {
        let cell = &cell_of(&view, snapshot)?;
        let mut found = |item| each(snapshot, item);
        if let Err(error) = search.run(&mut nodes, cell, &mut found)? {
            tracing::warn!("snapshot {} was not searched whole: {error}", snapshot.id);
            damage = damage.or(Some(error));
        }
    }
    damage.map_or(Ok(()), Err)
}

struct Search {
    patterns: Gitignore,
    newer_ns: Option<i128>,
    older_ns: Option<i128>,
}

impl Search {
    fn new(options: &FindOptions) -> Result<Self> {
        let wrong = |pattern: &str, why: &dyn std::fmt::Display| {
            EngineError::Request(format!(
                "the pattern '{pattern}' cannot be used: {why}; use for example '*.odt' or '/home/*/notes'"
            ))
        };
        let mut builder = GitignoreBuilder::new("/");
        builder.allow_unclosed_class(false);
        let insensitive = builder.case_insensitive(options.ignore_case);
        insensitive.map_err(|error| EngineError::Internal(error.to_string()))?;
        for pattern in &options.patterns {
            if pattern.trim().is_empty() {
                return Err(wrong(pattern, &"it is empty"));
            }
            // Files of patterns have comments; a pattern of its own has none.
            let escape = if pattern.starts_with('#') { "\\" } else { "" };
            builder
                .add_line(None, &format!("{escape}{pattern}"))
                .map_err(|error| wrong(pattern, &error))?;
        }
        let patterns = builder.build();
        Ok(Self {
            patterns: patterns.map_err(|error| wrong(&options.patterns.join(" "), &error))?,
            newer_ns: options.newer.map(Timestamp::as_nanosecond),
            older_ns: options.older.map(Timestamp::as_nanosecond),
        })
    }

    /// Searches a snapshot; damage of its trees is the inner error.
    fn run<S: NodeSource<Error = EngineError>>(
        &self,
        nodes: &mut S,
        cell: &Cell,
        each: &mut dyn FnMut(Item) -> Result<()>,
    ) -> Result<Result<()>> {
        let mut outcome = Ok(());
        for origin in origins(cell) {
            let mut entries = scan_prefix(&mut *nodes, &origin.root, b"")?;
            loop {
                match entries.next() {
                    None => break,
                    Some(Ok(entry)) => {
                        let item = origin.item(entry);
                        if self.takes(&item) {
                            each(item)?;
                        }
                    }
                    Some(Err(error)) if is_damage(&error) => {
                        outcome = outcome.and(Err(error));
                        break;
                    }
                    Some(Err(error)) => return Err(error),
                }
            }
        }
        Ok(outcome)
    }

    fn takes(&self, item: &Item) -> bool {
        let modified = modified_ns(&item.entry);
        if self.newer_ns.is_some_and(|newer| modified < newer)
            || self.older_ns.is_some_and(|older| modified >= older)
        {
            return false;
        }
        let path = Path::new(OsStr::from_bytes(&item.path));
        let is_directory = item.entry.kind == EntryType::Directory;
        self.patterns.matched(path, is_directory).is_ignore()
    }
}

/// Tells whether a snapshot is damaged, which says nothing about the others.
pub(super) fn is_damage(error: &EngineError) -> bool {
    matches!(error, EngineError::Damaged { .. } | EngineError::Format(_))
}

fn modified_ns(entry: &Entry) -> i128 {
    i128::from(entry.mtime.seconds) * 1_000_000_000 + i128::from(entry.mtime.nanoseconds)
}
