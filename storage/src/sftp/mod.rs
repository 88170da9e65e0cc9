//! A folder on a server that speaks SFTP.
//!
//! An object is written to a temporary file beside its place, synced, and then renamed over what may be
//! there (`posix-rename@openssh.com`) or linked to its free name (`hardlink@openssh.com`, which decides
//! creates). Temporary files begin with a dot, which no object does: no listing shows them, and what
//! killed writers left is swept away. Without hard links a create renames without overwriting, as the
//! plain protocol asks of a server; not all of them decide that at once, so nothing is promised then.

mod auth;
mod channel;
mod files;
mod hosts;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::location::Location;
use super::network::Network;
use super::open::Mode;
use super::pool::Pool;
use super::{
    Capabilities, CreateExclusive, ObjectInfo, Storage, check_folder, check_name, runtime,
};
use auth::Credentials;
use channel::{Channel, Failure};
use files::Files;
use hosts::Hosts;
use session::Dial;

/// A storage in a folder on an SFTP server.
struct SftpStorage {
    description: String,
    dial: Dial,
    channels: Pool<Pooled>,
    files: Files,
    network: Network,
}

/// A channel that is given back to its connection when it is dropped.
struct Pooled(Channel);

impl Drop for Pooled {
    fn drop(&mut self) {
        self.0.connection.release();
    }
}

/// Opens a folder over SFTP.
pub(crate) fn open(location: &Location, network: &Network, mode: Mode) -> Result<Arc<dyn Storage>> {
    let description = location.place.to_string();
    let dial = dial(location, network).map_err(|(reason, cause)| {
        let kind = match reason {
            Reason::NoCredentials => ErrorKind::Denied,
            _ => ErrorKind::Permanent,
        };
        StorageError::new(Operation::Open, &*description, "", kind, cause).because(reason)
    })?;
    let storage = SftpStorage {
        description,
        dial,
        channels: Pool::new(network.connections),
        files: Files::new(&location.place.path),
        network: network.clone(),
    };
    storage.call(Operation::Open, "", async |channel| {
        let files = &storage.files;
        files.take_extensions(channel);
        match mode {
            Mode::Create => files.make_root(channel).await,
            Mode::Open => files.check_root(channel).await,
        }
    })?;
    Ok(Arc::new(storage))
}

fn dial(location: &Location, network: &Network) -> std::result::Result<Dial, (Reason, String)> {
    let (place, settings) = (&location.place, &location.settings);
    let user = place.user.clone();
    let user = user.or_else(|| settings.text("user").map(str::to_owned));
    let user = user.or_else(login_name).ok_or_else(|| {
        let cause = "no user is named; write sftp://user@host/path or set user";
        (Reason::NoCredentials, cause.to_owned())
    })?;
    let known_hosts = settings.text("known-hosts");
    let others = match known_hosts {
        Some(_) => Vec::new(),
        None => vec!["/etc/ssh/ssh_known_hosts".into()],
    };
    let hosts = Hosts {
        own: home_path(known_hosts.unwrap_or("~/.ssh/known_hosts")),
        others,
        accept_new: settings.text("host-key-checking") == Some("accept-new"),
    };
    let host = place.host.strip_prefix('[').unwrap_or(&place.host);
    Ok(Dial {
        host: host.strip_suffix(']').unwrap_or(host).to_owned(),
        port: place.port.unwrap_or(22),
        hosts: Arc::new(hosts),
        credentials: Credentials::fetch(user, settings)?,
        connect_timeout: network.connect_timeout,
        read_timeout: network.read_timeout,
        contact: network.contact.clone(),
        connections: tokio::sync::Mutex::default(),
    })
}

fn login_name() -> Option<String> {
    let named = ["LOGNAME", "USER"].map(|name| std::env::var(name).ok());
    named.into_iter().flatten().find(|name| !name.is_empty())
}

/// Takes `~/` at the beginning for the home folder, as a shell would.
fn home_path(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

impl SftpStorage {
    /// Runs `work` on a channel; one that broke is thrown away, with all that broke with it.
    fn call<T>(
        &self,
        operation: Operation,
        name: &str,
        work: impl AsyncFnOnce(&Channel) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let (lease, idle) = self.channels.take();
        let idle = idle.filter(|idle| !idle.0.connection.is_closed());
        let done = runtime::block_on(async {
            let channel = match idle {
                Some(channel) => channel,
                None => Pooled(self.dial.channel().await?),
            };
            let outcome = work(&channel.0).await;
            if matches!(outcome, Err(Failure::Lost(_))) {
                drop(channel);
                let is_of_use = |other: &Pooled| !other.0.connection.is_closed();
                self.channels.retain(is_of_use);
            } else {
                lease.keep(channel);
            }
            outcome
        });
        let cause = |cause| Failure::Known(ErrorKind::Permanent, Reason::Other, cause);
        done.map_err(cause)
            .flatten()
            .map_err(|failure| self.error(operation, name, failure))
    }

    fn error(&self, operation: Operation, name: &str, failure: Failure) -> StorageError {
        use russh_sftp::protocol::StatusCode;
        let (kind, reason, cause) = match failure {
            Failure::Known(kind, reason, cause) => (kind, reason, cause),
            Failure::Lost(cause) => (ErrorKind::Transient, Reason::Other, cause),
            Failure::Status(StatusCode::NoSuchFile, _) => {
                let cause = "there is no such object".to_owned();
                (ErrorKind::NotFound, Reason::Other, cause)
            }
            Failure::Status(StatusCode::PermissionDenied, _) => {
                let cause = "the server denies this user the permission".to_owned();
                (ErrorKind::Denied, Reason::NotPermitted, cause)
            }
            Failure::Status(code, said) => {
                let cause = match said.is_empty() {
                    true => format!("the server answers: {code}"),
                    false => format!("the server answers: {said}"),
                };
                (ErrorKind::Permanent, Reason::Other, cause)
            }
        };
        StorageError::new(operation, &*self.description, name, kind, cause).because(reason)
    }

    fn check(&self, operation: Operation, name: &str) -> Result<()> {
        check_name(operation, &self.description, name)
    }
}

impl Storage for SftpStorage {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.check(Operation::Get, name)?;
        self.call(Operation::Get, name, async |channel| {
            self.files.get(channel, name, max_bytes).await
        })
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.check(Operation::GetRange, name)?;
        self.call(Operation::GetRange, name, async |channel| {
            let files = &self.files;
            files
                .get_range(channel, name, offset_bytes, length_bytes)
                .await
        })
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.check(Operation::Put, name)?;
        self.call(Operation::Put, name, async |channel| {
            self.files.put(channel, name, &bytes).await
        })
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.check(Operation::Create, name)?;
        self.call(Operation::Create, name, async |channel| {
            self.files.create(channel, name, &bytes).await
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.check(Operation::Delete, name)?;
        self.call(Operation::Delete, name, async |channel| {
            self.files.delete(channel, name).await
        })
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        let mut pending = vec![folder.to_owned()];
        while let Some(folder) = pending.pop() {
            let found = self.network.retry.run(|| {
                self.call(Operation::List, &folder, async |channel| {
                    self.files.list(channel, &folder).await
                })
            })?;
            pending.extend(found.folders);
            for object in found.objects {
                visit(object)?;
            }
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.check(Operation::Size, name)?;
        self.call(Operation::Size, name, async |channel| {
            self.files.size(channel, name).await
        })
    }

    fn remove_folder(&self, folder: &str) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        self.call(Operation::Delete, folder, async |channel| {
            self.files.remove_folder(channel, folder).await
        })
    }

    fn sweep(&self, age: Duration) -> Result<u64> {
        let mut swept = 0;
        let mut pending = vec![String::new()];
        let now = self.call(Operation::Delete, "", async |channel| {
            self.files.server_time(channel).await
        })?;
        let before = now.saturating_sub(age.as_secs());
        while let Some(folder) = pending.pop() {
            let found = self.network.retry.run(|| {
                self.call(Operation::List, &folder, async |channel| {
                    self.files.list(channel, &folder).await
                })
            })?;
            for (remains, modified) in found.remains {
                if modified <= before {
                    self.call(Operation::Delete, &remains, async |channel| {
                        self.files.delete(channel, &remains).await
                    })?;
                    swept += 1;
                }
            }
            pending.extend(found.folders);
        }
        Ok(swept)
    }

    fn capabilities(&self) -> Capabilities {
        let create_exclusive = match self.files.decides_creates() {
            true => CreateExclusive::HardLink,
            false => CreateExclusive::None,
        };
        Capabilities {
            create_exclusive,
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
