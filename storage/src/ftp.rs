//! A folder on a server that speaks FTP.

use std::sync::Arc;

use super::Storage;
use super::error::{ErrorKind, Operation, Result, StorageError};
use super::location::Location;
use super::network::Network;
use super::open::Mode;

/// Opens a folder over FTP.
pub(crate) fn open(location: &Location, network: &Network, mode: Mode) -> Result<Arc<dyn Storage>> {
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
