//! Collector records made by hand, and a storage on which something happens in between.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder_format::cell::{Cell, CellKind};
use larder_format::collector::{Round, State};
use larder_format::ids::{ObjectId, SessionId};
use larder_format::names::{self, Name};
use larder_format::record::{Record, seal_record};
use larder_format::session::Base;

use crate::random;
use crate::repository::Repository;
use crate::session::{self, Author};
use crate::storage::error::{Operation, Result};
use crate::storage::{Capabilities, ObjectInfo, Storage};
use crate::view::{self, View};

/// Creates a sealed record, whatever it says.
pub(crate) fn put<R: Record>(repository: &Repository, record: &R) {
    let (uid, random) = (random::bytes().unwrap(), random::bytes().unwrap());
    let object = seal_record(repository.keyring(), record, uid, &random).unwrap();
    let name = record.name().to_string();
    let created = repository.storage().create(&name, Bytes::from(object));
    created.unwrap();
}

pub(crate) fn round(number: u64) -> Round {
    Round {
        number,
        ..Round::default()
    }
}

/// Ends a round as a prune would that waited for nobody: it revokes whoever has no cell, keeps
/// every live cell, and deletes what was condemned.
pub(crate) fn end_round(repository: &Repository) -> State {
    let view = view::read(repository, false, None).unwrap();
    revoke_all(repository, &view);
    let view = view::read(repository, false, None).unwrap();
    let condemned = view.collection.round.clone().unwrap().condemned;
    let deleted = condemned.into_iter().collect();
    let state = state_of(repository, deleted);
    put(repository, &state);
    for pack in &state.deleted_packs {
        repository.storage().delete(&names::pack(pack)).unwrap();
    }
    state
}

/// Makes the state that ends the round that is there.
pub(crate) fn state_of(repository: &Repository, deleted_packs: Vec<ObjectId>) -> State {
    let view = view::read(repository, false, None).unwrap();
    let round = view.collection.round.clone().unwrap();
    let below = |id: &SessionId| id.round() < round.number;
    let mut segments = view.collection.state.segments.clone();
    for cell in view.cells.values().filter(|cell| below(&cell.id)) {
        segments.extend(&cell.segments);
    }
    segments.retain(|segment| !round.replaced.contains(segment));
    segments.extend(&round.new);
    State {
        number: round.number,
        live_cells: view.live().into_iter().filter(below).collect(),
        segments: segments.into_iter().collect(),
        deleted_packs,
        suspect_packs: Vec::new(),
    }
}

/// Revokes every session without a cell.
pub(crate) fn revoke_all(repository: &Repository, view: &View) {
    let author = Author {
        host: "elsewhere".to_owned(),
        user: "prune".to_owned(),
    };
    for id in sessions(repository) {
        if !view.cells.contains_key(&id) && !view.dead.contains(&id) {
            put(
                repository,
                &session::revoked(repository, id, Base::None, &author, view),
            );
        }
    }
}

/// Lists the sessions that ever registered.
pub(crate) fn sessions(repository: &Repository) -> Vec<SessionId> {
    let mut sessions = Vec::new();
    let mut take = |object: ObjectInfo| {
        if let Some(Name::Session(id)) = names::parse(&object.name) {
            sessions.push(id);
        }
        Ok(())
    };
    repository.storage().list("sessions", &mut take).unwrap();
    sessions
}

/// Gives the cells that are there, by kind.
pub(crate) fn cells(repository: &Repository, kind: CellKind) -> Vec<Cell> {
    let view = view::read_cells(repository, None).unwrap();
    let cells = view.cells.into_values();
    cells.filter(|cell| cell.kind == kind).collect()
}

/// What happens before an operation.
type Deed = Box<dyn FnOnce() + Send>;

/// Passes everything on to a storage; before chosen operations something else happens.
pub(crate) struct Meddled {
    inner: Arc<dyn Storage>,
    deeds: Mutex<Vec<(Operation, &'static str, usize, Deed)>>,
}

impl Meddled {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            deeds: Mutex::default(),
        })
    }

    /// Lets something happen before the `nth` operation of a kind, from 1, on a name with this start.
    pub(crate) fn before(
        &self,
        operation: Operation,
        start: &'static str,
        nth: usize,
        deed: impl FnOnce() + Send + 'static,
    ) {
        let deed = (operation, start, nth, Box::new(deed) as Deed);
        self.deeds.lock().unwrap().push(deed);
    }

    /// Tells whether all has happened.
    pub(crate) fn is_done(&self) -> bool {
        self.deeds.lock().unwrap().is_empty()
    }

    fn meddle(&self, operation: Operation, name: &str) {
        let mut due = Vec::new();
        let mut deeds = self.deeds.lock().unwrap();
        for mut deed in std::mem::take(&mut *deeds) {
            if deed.0 == operation && name.starts_with(deed.1) {
                deed.2 -= 1;
            }
            if deed.2 == 0 {
                due.push(deed.3);
            } else {
                deeds.push(deed);
            }
        }
        drop(deeds);
        for deed in due {
            deed();
        }
    }
}

impl Storage for Meddled {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.meddle(Operation::Get, name);
        self.inner.get(name, max_bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.meddle(Operation::GetRange, name);
        self.inner.get_range(name, offset_bytes, length_bytes)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.meddle(Operation::Put, name);
        self.inner.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.meddle(Operation::Create, name);
        self.inner.create(name, bytes)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.meddle(Operation::Delete, name);
        self.inner.delete(name)
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        self.meddle(Operation::List, folder);
        self.inner.list(folder, visit)
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.meddle(Operation::Size, name);
        self.inner.size(name)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
