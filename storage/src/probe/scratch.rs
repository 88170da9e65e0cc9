//! Names of the probe's own, and their removal.

use std::sync::{Mutex, PoisonError};

use crate::Storage;
use crate::error::{ErrorKind, Operation, Result, StorageError};

/// Where all of it happens.
const FOLDER: &str = "probe";

/// A folder that nobody else uses, and the names in it that were written.
pub struct Scratch<'a> {
    storage: &'a dyn Storage,
    folder: String,
    names: Mutex<Vec<String>>,
}

impl<'a> Scratch<'a> {
    /// Chooses a folder by chance.
    ///
    /// # Errors
    /// `Transient` if the system gives no randomness.
    pub fn new(storage: &'a dyn Storage) -> Result<Self> {
        let nonce: [u8; 12] = random(storage)?;
        let hex: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            storage,
            folder: format!("{FOLDER}/{hex}"),
            names: Mutex::default(),
        })
    }

    /// Gives the folder.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Gives the name of an object in it, which is removed in the end.
    pub fn name(&self, what: &str) -> String {
        let name = format!("{}/{what}", self.folder);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(name.clone());
        name
    }

    /// Removes all that may be there, as far as it can.
    ///
    /// # Errors
    /// The first failure.
    pub fn clear(&self) -> Result<()> {
        let names = std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner));
        let mut outcome = Ok(());
        for name in &names {
            outcome = outcome.and(self.storage.delete(name));
        }
        outcome?;
        self.storage.remove_folder(&self.folder)?;
        self.storage.remove_folder(FOLDER)
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let _what_cannot_be_removed_was_told = self.clear();
    }
}

/// Gives random bytes.
pub fn random<const N: usize>(storage: &dyn Storage) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(storage, &mut bytes)?;
    Ok(bytes)
}

/// Fills a buffer with random bytes.
pub fn fill(storage: &dyn Storage, bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        StorageError::new(
            Operation::Open,
            storage.describe(),
            "",
            ErrorKind::Transient,
            format!("the system gives no randomness: {error}"),
        )
    })
}
