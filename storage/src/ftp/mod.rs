//! A folder on a server that speaks FTP.
//!
//! An object is written to a temporary file beside its place and then renamed over what may be there.
//! The protocol has no create that fails where there is something, and a rename takes the place of a file:
//! but never of a folder that is not empty. So an object that is created exclusively is a folder
//! `NAME-object` with the file `content` in it, which is written under another name and gets its own by
//! one rename: the server's file system decides who is first, and there is no moment at which somebody
//! may die and leave half of it. (What the server says is held against what is there afterwards.)
//!
//! The protocol says nothing of durability. Each call has a connection of its own; one
//! whose transfer was broken off is thrown away, because the server's late answer to that would be
//! taken for the answer to something else.

mod files;
mod listing;
mod session;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::location::{Location, Scheme};
use super::network::Network;
use super::open::Mode;
use super::pool::Pool;
use super::{Capabilities, CreateExclusive, ObjectInfo, Storage, check_folder, check_name};
use files::{Files, Found};
use session::{Dial, Failure, Session, Tls, Trust};
use transfer::After;

/// The port on which TLS begins with the connection.
const IMPLICIT_PORT: u16 = 990;

/// A storage in a folder on an FTP server.
struct FtpStorage {
    description: String,
    dial: Dial,
    sessions: Pool<Session>,
    files: Files,
    network: Network,
}

/// Opens a folder over FTP.
pub(crate) fn open(location: &Location, network: &Network, mode: Mode) -> Result<Arc<dyn Storage>> {
    let description = location.place.to_string();
    let dial = dial(location, network).map_err(|cause| {
        StorageError::new(
            Operation::Open,
            &*description,
            "",
            ErrorKind::Permanent,
            cause,
        )
        .because(Reason::Settings)
    })?;
    let storage = FtpStorage {
        description,
        dial,
        sessions: Pool::new(network.connections),
        files: Files::new(),
        network: network.clone(),
    };
    let (lease, _) = storage.sessions.take();
    let session = storage
        .dial
        .connect(mode == Mode::Create)
        .map_err(|failure| storage.error(Operation::Open, "", failure))?;
    lease.keep(session);
    Ok(Arc::new(storage))
}

fn dial(location: &Location, network: &Network) -> std::result::Result<Dial, String> {
    let (place, settings) = (&location.place, &location.settings);
    let user = place.user.clone();
    let user = user.or_else(|| settings.text("user").map(str::to_owned));
    let password = settings.secret("password")?;
    let tls = match (settings.text("tls"), place.scheme, place.port) {
        (Some("off"), Scheme::Ftps, _) => {
            return Err("ftps:// is FTP with TLS; for none write ftp://".to_owned());
        }
        (Some("explicit"), _, _) => Tls::Explicit,
        (Some("implicit"), _, _) | (None, Scheme::Ftps, Some(IMPLICIT_PORT)) => Tls::Implicit,
        (None, Scheme::Ftps, _) => Tls::Explicit,
        _ => Tls::Off,
    };
    let usual_port = match tls {
        Tls::Implicit => IMPLICIT_PORT,
        _ => 21,
    };
    let host = place.host.strip_prefix('[').unwrap_or(&place.host);
    let folder = place.path.strip_prefix('/').unwrap_or(&place.path);
    let kept = if folder.starts_with('/') { "/" } else { "" };
    let folder = format!("{kept}{}", folder.trim_matches('/'));
    // What servers that let anybody in expect; the others ask for a password.
    let anonymous = || Zeroizing::new("larder@".to_owned());
    Ok(Dial {
        host: host.strip_suffix(']').unwrap_or(host).to_owned(),
        port: place.port.unwrap_or(usual_port),
        tls,
        password: password.unwrap_or_else(anonymous),
        user: user.unwrap_or_else(|| "anonymous".to_owned()),
        folder,
        connect_timeout: network.connect_timeout,
        read_timeout: network.read_timeout,
        contact: network.contact.clone(),
        trust: Arc::new(Trust::new(network)?),
    })
}

impl FtpStorage {
    /// Runs `work` on a connection; one that broke is thrown away, with all that may have broken with it.
    fn call<T>(
        &self,
        operation: Operation,
        name: &str,
        work: impl FnOnce(&mut Session) -> std::result::Result<(T, After), Failure>,
    ) -> Result<T> {
        let (lease, idle) = self.sessions.take();
        let session = match idle {
            Some(session) => Ok(session),
            None => self.dial.connect(false),
        };
        let outcome = session.and_then(|mut session| {
            let outcome = work(&mut session);
            match &outcome {
                Ok((_, After::Reusable)) => lease.keep(session),
                Ok((_, After::BrokenOff)) => {}
                Err(Failure::Lost(_)) => self.sessions.retain(|_| false),
                Err(Failure::Known(ErrorKind::Oversized, ..)) => {}
                Err(_) => lease.keep(session),
            }
            outcome
        });
        outcome
            .map(|(value, _)| value)
            .map_err(|failure| self.error(operation, name, failure))
    }

    fn error(&self, operation: Operation, name: &str, failure: Failure) -> StorageError {
        let (kind, reason, cause) = match failure {
            Failure::Known(kind, reason, cause) => (kind, reason, cause),
            Failure::Lost(cause) => (ErrorKind::Transient, Reason::Other, cause),
            Failure::Answer(status, said) => {
                let kind = match status.code() {
                    400..500 => ErrorKind::Transient,
                    _ => ErrorKind::Permanent,
                };
                (kind, Reason::Other, format!("the server answers: {said}"))
            }
        };
        StorageError::new(operation, &*self.description, name, kind, cause).because(reason)
    }

    fn check(&self, operation: Operation, name: &str) -> Result<()> {
        check_name(operation, &self.description, name)
    }

    /// Reads one folder, again and again while the network fails.
    fn list_folder(&self, folder: &str) -> Result<Found> {
        self.network.retry.run(|| {
            self.call(Operation::List, folder, |session| {
                let found = self.files.list(session, folder)?;
                Ok((found, After::Reusable))
            })
        })
    }
}

impl Storage for FtpStorage {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.check(Operation::Get, name)?;
        self.call(Operation::Get, name, |session| {
            self.files.get(session, name, max_bytes)
        })
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.check(Operation::GetRange, name)?;
        self.call(Operation::GetRange, name, |session| {
            self.files
                .get_range(session, name, offset_bytes, length_bytes)
        })
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.check(Operation::Put, name)?;
        self.call(Operation::Put, name, |session| {
            let done = self.files.put(session, name, &bytes);
            done.map(|()| ((), After::Reusable))
        })
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.check(Operation::Create, name)?;
        self.call(Operation::Create, name, |session| {
            let done = self.files.create(session, name, &bytes);
            done.map(|()| ((), After::Reusable))
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.check(Operation::Delete, name)?;
        self.call(Operation::Delete, name, |session| {
            let done = self.files.delete(session, name);
            done.map(|()| ((), After::Reusable))
        })
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        let mut pending = vec![folder.to_owned()];
        while let Some(folder) = pending.pop() {
            let found = self.list_folder(&folder)?;
            pending.extend(found.folders);
            for object in found.objects {
                visit(object)?;
            }
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.check(Operation::Size, name)?;
        self.call(Operation::Size, name, |session| {
            let size = self.files.size(session, name)?;
            Ok((size, After::Reusable))
        })
    }

    fn sweep(&self, age: Duration) -> Result<u64> {
        let now = self.call(Operation::Delete, "", |session| {
            Ok((self.files.server_time(session)?, After::Reusable))
        })?;
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let before = now.saturating_sub(age);
        let mut swept = 0;
        let mut pending = vec![String::new()];
        while let Some(folder) = pending.pop() {
            let found = self.list_folder(&folder)?;
            pending.extend(found.folders);
            for remains in found.remains {
                swept += self.call(Operation::Delete, &remains, |session| {
                    let is_old = files::is_older(session, &remains, before, age == 0)?;
                    if is_old {
                        self.files.remove_remains(session, &remains)?;
                    }
                    Ok((u64::from(is_old), After::Reusable))
                })?;
            }
        }
        Ok(swept)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            create_exclusive: CreateExclusive::FolderRename,
            sorted_listing: false,
            atomic_put: self.files.replaces_at_once(),
            object_bytes_max: None,
            thaws: false,
        }
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}
