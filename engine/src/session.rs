//! Sessions: how a writer announces itself, commits and ends (SPEC.md §12).

use std::sync::Arc;

use bytes::Bytes;
use larder_format::cell::{Cell, CellKind, Statistics};
use larder_format::ids::{ObjectId, SessionId};
use larder_format::limits::SEEN_CELLS;
use larder_format::names::{self, Name};
use larder_format::record::{Record, seal_record};
use larder_format::session::{Base, Session, SessionEnd};

use crate::clock;
use crate::collection::{self, Collection};
use crate::error::{EngineError, Result};
use crate::memory::Remembered;
use crate::presence;
use crate::protocol::{Rule, keeps};
use crate::random;
use crate::repository::{Repository, Writing};
use crate::storage::create_or_confirm;
use crate::storage::error::ErrorKind;
use crate::view::{self, View};

/// The program and version that records carry.
pub(crate) const PROGRAM: &str = concat!("larder ", env!("CARGO_PKG_VERSION"));

/// Times that a writer registers because collectors were faster.
const REGISTRATIONS_MAX: usize = 16;

/// Who writes, as sessions, cells and amendments tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The host.
    pub host: String,
    /// The user.
    pub user: String,
}

/// A registered session, and what was read after it registered.
pub(crate) struct Opened {
    pub id: SessionId,
    /// What it builds on.
    pub base: Base,
    pub view: View,
    /// Whether what hangs on the base may be reused without a look-up of each chunk.
    pub trusts_base: bool,
    /// Keeps the index as the session read it, for a writer.
    _writing: Option<Writing>,
}

/// A session that keeps a snapshot whole while it is read, and ends when it is dropped.
pub(crate) struct Reading {
    repository: Arc<Repository>,
    author: Author,
    opened: Opened,
}

impl Reading {
    /// Registers a reader of a snapshot; none where that cannot be written, or came too late.
    pub(crate) fn start(repository: &Arc<Repository>, snapshot: SessionId) -> Option<Self> {
        let author = Author::of_this_process();
        let before = view::read_cells(repository, None).ok()?;
        match open_any(repository, Base::Parent(snapshot), &author, before, None) {
            Ok(opened) => Some(Self {
                repository: Arc::clone(repository),
                author,
                opened,
            }),
            Err(error) => {
                tracing::debug!("reading goes on without a session: {error}");
                None
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let Opened { id, base, view, .. } = &self.opened;
        if let Err(error) = end(&self.repository, id, *base, &self.author, view) {
            tracing::debug!("a reader's session was not ended, a prune will do it: {error}");
        }
    }
}

impl Author {
    /// Names the host and user of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let host = rustix::system::uname();
        let user = ["USER", "LOGNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok());
        Self {
            host: host.nodename().to_string_lossy().into_owned(),
            user: user.unwrap_or_default(),
        }
    }
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The cell is there and counts.
    Committed,
    /// A collector ended the session first.
    Revoked,
    /// The cell is there, but came after a floor under which it is dead.
    Void,
}

impl Opened {
    /// Gives the snapshot whose parts may be reused without a look-up, if there is one; none once a
    /// damaged pack was met.
    pub(crate) fn trusted(&self, repository: &Repository) -> Option<SessionId> {
        let is_trusted = self.trusts_base && !repository.avoids_any();
        self.base.id().filter(|_| is_trusted)
    }

    /// Tells whether all that any snapshot needs which this reading shows live is usable, so that nothing of
    /// it need be looked up.
    pub(crate) fn trusts_live(&self, repository: &Repository) -> bool {
        let view = &self.view;
        view.collection.finds_all_of_live()
            && !view.lacks_segments()
            && view.unusable.is_empty()
            && !repository.avoids_any()
    }
}

/// Registers a session and then reads the repository, in the order that makes it safe.
///
/// What the last session put in counts from here on only if its cell does. A round that came
/// between makes the writer give the session up and register anew.
///
/// # Errors
/// `Request` if collectors were faster however often it was tried, `Damaged`, or what the storage
/// answers.
pub(crate) fn open(
    repository: &Arc<Repository>,
    base: Base,
    author: &Author,
    before: View,
) -> Result<Opened> {
    let writing = Writing::start(repository);
    open_any(repository, base, author, before, Some(writing))
}

fn open_any(
    repository: &Arc<Repository>,
    base: Base,
    author: &Author,
    before: View,
    writing: Option<Writing>,
) -> Result<Opened> {
    let mut view = before;
    for _ in 0..REGISTRATIONS_MAX {
        let early = match keeps(Rule::RegisterFirst) {
            true => None,
            false => Some(view::read(repository, false, Some(view.clone()))?),
        };
        let id = register(repository, view.collection.newest(), base, author)?;
        view = match early {
            Some(early) => early,
            None => view::read(repository, false, Some(view))?,
        };
        if !view.collection.is_stale(id.round()) {
            let is_base_live = base.id().is_some_and(|base| view.live().contains(&base));
            // What a segment that cannot be read says of packs, nobody can compare with their listing.
            let trusts_base =
                view.collection.may_trust_base(is_base_live) && !view.lacks_segments();
            if writing.is_some() {
                presence::look(repository, &view, &id)?;
            }
            return Ok(Opened {
                id,
                base,
                view,
                trusts_base,
                _writing: writing,
            });
        }
        end(repository, &id, base, author, &view)?;
    }
    Err(EngineError::Request(format!(
        "a prune elsewhere began anew {REGISTRATIONS_MAX} times while this writer registered; run it again when that has ended"
    )))
}

/// Reads the repository for a run that writes nothing, and so announces nothing.
///
/// # Errors
/// As [`open`].
pub(crate) fn pretend(repository: &Arc<Repository>, before: View) -> Result<Opened> {
    let writing = Some(Writing::start(repository));
    let view = view::read(repository, false, Some(before))?;
    let id = SessionId::default();
    presence::look(repository, &view, &id)?;
    Ok(Opened {
        id,
        base: Base::None,
        view,
        trusts_base: false,
        _writing: writing,
    })
}

/// Announces a writer that has seen collector round `newest`.
fn register(
    repository: &Repository,
    newest: u64,
    base: Base,
    author: &Author,
) -> Result<SessionId> {
    let session = Session {
        id: SessionId::new(newest, random::bytes()?),
        base,
        started: now_ns(),
        host: author.host.clone(),
        user: author.user.clone(),
        program: PROGRAM.to_owned(),
        config: repository.config().number,
    };
    let object = seal(repository, &session)?;
    create_or_confirm(repository.storage(), &names::session(&session.id), &object)?;
    Ok(session.id)
}

/// Ends a session that is not going to commit, so that no collector waits for it.
///
/// # Errors
/// What the storage answers.
pub(crate) fn end(
    repository: &Repository,
    id: &SessionId,
    base: Base,
    author: &Author,
    view: &View,
) -> Result<()> {
    let cell = revoked(repository, *id, base, author, view);
    let object = seal(repository, &cell)?;
    match create_or_confirm(repository.storage(), &names::cell(id), &object) {
        // A collector was faster, with the same outcome.
        Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(()),
        other => Ok(other?),
    }
}

/// Makes the cell that ends a session without a snapshot.
pub(crate) fn revoked(
    repository: &Repository,
    id: SessionId,
    base: Base,
    author: &Author,
    view: &View,
) -> Cell {
    let now = now_ns();
    let predecessor = match base {
        // It supersedes nothing, so it does not name what it was to go on from.
        Base::Predecessor(id) if !keeps(Rule::CommitSupersedes) => Some(id),
        _ => None,
    };
    Cell {
        kind: CellKind::Revoked,
        id,
        predecessor,
        parent: None,
        started: now,
        ended: now,
        host: author.host.clone(),
        user: author.user.clone(),
        tags: Vec::new(),
        sources: Vec::new(),
        segments: Vec::new(),
        statistics: Statistics::default(),
        options: std::collections::BTreeMap::new(),
        program: PROGRAM.to_owned(),
        config: repository.config().number,
        seen_cells: seen_cells(view),
        seen_round: view.collection.newest(),
        shard: None,
    }
}

/// Gives the newest cells of a reading, as a cell names them.
pub(crate) fn seen_cells(view: &View) -> Vec<SessionId> {
    let mut seen: Vec<&Cell> = view.cells.values().collect();
    seen.sort_by_key(|cell| std::cmp::Reverse(cell.ended));
    let mut ids: Vec<_> = seen.iter().take(SEEN_CELLS).map(|cell| cell.id).collect();
    ids.sort_unstable();
    ids
}

/// Commits a session's cell; if it counts, the session's end says so. `seen` is what the session
/// read of the collectors.
///
/// # Errors
/// `Damaged` if something else than a revocation is there under the cell's name, or what the
/// storage answers.
pub(crate) fn commit(repository: &Repository, cell: &Cell, seen: &Collection) -> Result<Outcome> {
    let object = seal(repository, cell)?;
    if !create_cell(repository, &cell.id, &object)? {
        return Ok(Outcome::Revoked);
    }
    let collection = collection::read(repository, Some(seen))?;
    if collection.is_void(&cell.id, cell.id.round()) {
        return Ok(Outcome::Void);
    }
    let end = SessionEnd {
        id: cell.id,
        ended: now_ns(),
        cell: ObjectId(*blake3::hash(&object).as_bytes()),
    };
    let object = seal(repository, &end)?;
    create_or_confirm(repository.storage(), &names::session_end(&cell.id), &object)?;
    repository.memory().note(&Remembered {
        config: cell.config,
        round: collection.newest(),
        cells: vec![(cell.ended, cell.id)],
    });
    Ok(Outcome::Committed)
}

/// Creates a cell; tells whether it is there, and not a revocation.
fn create_cell(repository: &Repository, id: &SessionId, object: &Bytes) -> Result<bool> {
    let name = names::cell(id);
    if !keeps(Rule::CreateCell) {
        repository.storage().put(&name, object.clone())?;
        return Ok(true);
    }
    match create_or_confirm(repository.storage(), &name, object) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    match view::read_record::<Cell>(repository, &Name::Cell(*id)) {
        Ok(there) if there.kind == CellKind::Revoked => return Ok(false),
        Ok(_) => {}
        Err(error) => match repository.storage().size(&name) {
            // A revocation that a floor has cleared since.
            Err(gone) if gone.kind == ErrorKind::NotFound => return Ok(false),
            _ => return Err(error),
        },
    }
    Err(EngineError::Damaged {
        object: name,
        why: "it is there before its session committed, and no collector revoked it".to_owned(),
    })
}

fn seal<R: Record>(repository: &Repository, record: &R) -> Result<Bytes> {
    let (uid, random) = (random::bytes()?, random::bytes()?);
    let object = seal_record(repository.keyring(), record, uid, &random)?;
    Ok(Bytes::from(object))
}

/// Gives the time now in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    clock::now_ns()
}

#[cfg(test)]
mod tests;
