//! Sessions: how a writer announces itself and commits (SPEC.md §12).

use bytes::Bytes;
use larder_format::cell::Cell;
use larder_format::ids::{ObjectId, SessionId};
use larder_format::names;
use larder_format::record::seal_record;
use larder_format::session::{Base, Session, SessionEnd};

use crate::clock;
use crate::error::{EngineError, Result};
use crate::random;
use crate::repository::Repository;
use crate::storage::create_or_confirm;
use crate::storage::error::ErrorKind;

/// The program and version that records carry.
pub(crate) const PROGRAM: &str = concat!("larder ", env!("CARGO_PKG_VERSION"));

/// Announces a writer before it reads anything.
///
/// # Errors
/// What the storage answers.
pub(crate) fn register(
    repository: &Repository,
    base: Base,
    host: &str,
    user: &str,
) -> Result<SessionId> {
    // Collector rounds are refused when the repository is read, so the newest one seen is 0.
    let id = SessionId::new(0, random::bytes()?);
    let session = Session {
        id,
        base,
        started: now_ns(),
        host: host.to_owned(),
        user: user.to_owned(),
        program: PROGRAM.to_owned(),
        config: repository.config().number,
    };
    let object = seal_record(
        repository.keyring(),
        &session,
        random::bytes()?,
        &random::bytes()?,
    )?;
    create_or_confirm(
        repository.storage(),
        &names::session(&id),
        &Bytes::from(object),
    )?;
    Ok(id)
}

/// Commits a session's cell, and says so in the session's end.
///
/// # Errors
/// `Request` if a collector revoked the session meanwhile, or what the storage answers.
pub(crate) fn commit(repository: &Repository, cell: &Cell) -> Result<()> {
    let object = Bytes::from(seal_record(
        repository.keyring(),
        cell,
        random::bytes()?,
        &random::bytes()?,
    )?);
    let name = names::cell(&cell.id);
    create_or_confirm(repository.storage(), &name, &object).map_err(|error| {
        if error.kind == ErrorKind::AlreadyExists {
            EngineError::Request(
                "a prune running elsewhere ended this backup's session; run the backup again"
                    .to_owned(),
            )
        } else {
            error.into()
        }
    })?;
    let end = SessionEnd {
        id: cell.id,
        ended: now_ns(),
        cell: ObjectId(*blake3::hash(&object).as_bytes()),
    };
    let object = seal_record(
        repository.keyring(),
        &end,
        random::bytes()?,
        &random::bytes()?,
    )?;
    create_or_confirm(
        repository.storage(),
        &names::session_end(&cell.id),
        &Bytes::from(object),
    )?;
    Ok(())
}

/// Gives the time now in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    clock::now_ns()
}
