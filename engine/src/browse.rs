//! Looking into snapshots: list, find, compare, dump, and the history of a path.

mod diff;
mod dump;
mod find;
mod history;
mod list;
mod paths;
mod tar;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;

use larder_format::cell::{Cell, Source};
use larder_format::entry::Entry;
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::tree::build::Root;
use larder_format::tree::read::NodeSource;

use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::snapshots::{SnapshotInfo, narrowed};
use crate::view::{self, View};

pub use diff::{Difference, diff};
pub(crate) use dump::Contents;
pub use dump::dump;
pub use find::{FindOptions, find};
pub use history::{Version, history};
pub use list::list;

/// One path of a snapshot, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The whole path as it was backed up, raw; a directory's has no trailing `/`.
    pub path: Vec<u8>,
    /// The entry; of a folder above the sources, which was not backed up itself, one that says
    /// no more than that it is a directory.
    pub entry: Entry,
}

/// Reads what is needed to find chunks; segments that cannot be read are made up for.
fn prepare(repository: &Arc<Repository>) -> Result<View> {
    view::read(repository, true, None)
}

/// Finds a snapshot's cell.
fn cell_of(view: &View, snapshot: &SnapshotInfo) -> Result<Cell> {
    let cell = view.cells.get(&snapshot.session).ok_or_else(|| {
        let id = &snapshot.id;
        EngineError::NotFound(format!(
            "the snapshot {id} is not there any more; `larder snapshots` lists those that are"
        ))
    })?;
    Ok(narrowed(cell, snapshot))
}

fn root_of(source: &Source) -> Root {
    Root {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    }
}

/// A source of nodes that several readers take turns with.
struct Shared<'a, S>(&'a RefCell<S>);

impl<S: NodeSource<Error = EngineError>> NodeSource for Shared<'_, S> {
    type Error = EngineError;

    fn node(&mut self, id: &ChunkId, chunk_type: ChunkType) -> Result<Arc<[u8]>> {
        self.0.borrow_mut().node(id, chunk_type)
    }
}
