//! S3 and its compatibles, Google Cloud Storage and Azure Blob Storage, over object_store.

use std::sync::Arc;

use super::Storage;
use super::error::{ErrorKind, Operation, Result, StorageError};
use super::location::Location;
use super::network::Network;
use super::open::Mode;

/// Opens a bucket of S3 or a compatible.
pub(crate) fn open_s3(
    location: &Location,
    network: &Network,
    mode: Mode,
) -> Result<Arc<dyn Storage>> {
    let _ = (network, mode);
    let cause = "this kind of location is not built yet";
    let place = location.place.to_string();
    Err(StorageError::new(
        Operation::Open,
        place,
        "",
        ErrorKind::Permanent,
        cause,
    ))
}

/// Opens a bucket of Google Cloud Storage.
pub(crate) fn open_google(
    location: &Location,
    network: &Network,
    mode: Mode,
) -> Result<Arc<dyn Storage>> {
    let _ = (network, mode);
    let cause = "this kind of location is not built yet";
    let place = location.place.to_string();
    Err(StorageError::new(
        Operation::Open,
        place,
        "",
        ErrorKind::Permanent,
        cause,
    ))
}

/// Opens a container of Azure Blob Storage.
pub(crate) fn open_azure(
    location: &Location,
    network: &Network,
    mode: Mode,
) -> Result<Arc<dyn Storage>> {
    let _ = (network, mode);
    let cause = "this kind of location is not built yet";
    let place = location.place.to_string();
    Err(StorageError::new(
        Operation::Open,
        place,
        "",
        ErrorKind::Permanent,
        cause,
    ))
}
