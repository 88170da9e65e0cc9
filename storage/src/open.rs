//! Turns a location into its storage.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::limit::Limited;
use super::local::LocalStorage;
use super::location::{Location, Scheme};
use super::network::Network;
use super::read_back::{self, ReadBack};
use super::retry::Retrying;
use super::{Storage, cloud, dropbox, ftp, sftp, webdav};

/// Whether a storage has to be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It has to: `NotFound` otherwise.
    Open,
    /// Its folder is made where it is missing; a bucket is never made.
    Create,
}

/// Opens the storage at a location; `stop` is set when the process is asked to end, and then
/// nothing that failed is tried again.
pub fn open(location: &Location, mode: Mode, stop: Arc<AtomicBool>) -> Result<Arc<dyn Storage>> {
    open_within(location, mode, stop, None)
}

/// Opens it with another patience for requests that fail than the settings say.
pub(crate) fn open_within(
    location: &Location,
    mode: Mode,
    stop: Arc<AtomicBool>,
    patience: Option<Duration>,
) -> Result<Arc<dyn Storage>> {
    if location.place.bundle().is_some() {
        return Err(no_place(location));
    }
    if let Some(folder) = location.place.folder() {
        return Ok(Arc::new(match mode {
            Mode::Open => LocalStorage::open(&folder)?,
            Mode::Create => LocalStorage::create(&folder)?,
        }));
    }
    let (storage, network) = connect(location, mode, stop, patience)?;
    let mut storage: Arc<dyn Storage> = Arc::new(Limited::new(storage, &network));
    if read_back::is_wanted(location) {
        storage = Arc::new(ReadBack::new(storage));
    }
    Ok(Arc::new(Retrying::new(storage, network.retry)))
}

/// Refuses a bundle where a storage is needed that takes objects; whoever reads repositories opens it.
fn no_place(location: &Location) -> StorageError {
    StorageError::new(
        Operation::Open,
        location.place.to_string(),
        "",
        ErrorKind::Permanent,
        "a bundle is made by larder export and then only read; nothing else can be written there",
    )
    .because(Reason::Settings)
}

/// Opens a storage that is reached over a network, without trying anything again.
fn connect(
    location: &Location,
    mode: Mode,
    stop: Arc<AtomicBool>,
    patience: Option<Duration>,
) -> Result<(Arc<dyn Storage>, Network)> {
    let refuse = |cause: String| {
        StorageError::new(
            Operation::Open,
            location.place.to_string(),
            "",
            ErrorKind::Permanent,
            cause,
        )
        .because(Reason::Settings)
    };
    let mut network = Network::new(&location.settings, stop).map_err(refuse)?;
    if let Some(patience) = patience {
        network.retry.patience = patience;
    }
    let storage = match location.place.scheme {
        Scheme::Folder | Scheme::Bundle => {
            return Err(refuse("a folder or file is no network storage".to_owned()));
        }
        Scheme::S3 => cloud::open_s3(location, &network, mode),
        Scheme::Google => cloud::open_google(location, &network, mode),
        Scheme::Azure => cloud::open_azure(location, &network, mode),
        Scheme::Sftp => sftp::open(location, &network, mode),
        Scheme::Ftp | Scheme::Ftps => ftp::open(location, &network, mode),
        Scheme::WebDav | Scheme::WebDavs => webdav::open(location, &network, mode),
        Scheme::Dropbox => dropbox::open(location, &network, mode),
    }?;
    Ok((storage, network))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::location::Layers;
    use super::*;

    fn at(url: &str, mode: Mode) -> Result<Arc<dyn Storage>> {
        open(
            &Location::new(url, &Layers::default())?,
            mode,
            Arc::default(),
        )
    }

    #[test]
    fn opening_and_creating_differ_where_nothing_is() {
        let parent = tempfile::tempdir().unwrap();
        let location = parent.path().join("x/y").display().to_string();
        let error = at(&location, Mode::Open).err().unwrap();
        assert_eq!(error.kind, ErrorKind::NotFound);
        at(&location, Mode::Create).unwrap();
        at(&format!("file://{location}"), Mode::Open).unwrap();
    }

    #[test]
    fn a_bundle_is_no_place_to_write_to() {
        for mode in [Mode::Open, Mode::Create] {
            let error = at("bundle:/x", mode).err().unwrap();
            assert!(error.to_string().contains("only read"), "{error}");
        }
    }

    #[test]
    fn a_secret_in_a_url_is_not_repeated() {
        let error = at("s9://user:hunter2@host/x", Mode::Open).err().unwrap();
        let text = error.to_string();
        assert!(
            text.contains("s9://host/x") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
