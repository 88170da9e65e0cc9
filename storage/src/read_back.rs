//! Reading back what was uploaded, where nothing else tells whether it arrived as it was sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::location::{Location, Scheme};
use super::thaw::{Thaw, Warmth};
use super::{Capabilities, ObjectInfo, Storage};

/// A storage that reads every object back once it is written, and compares it.
pub struct ReadBack {
    inner: Arc<dyn Storage>,
}

/// Tells whether uploads to a location are read back: as its settings say, and else where neither the protocol
/// nor the storage has a checksum of what is sent.
pub(crate) fn is_wanted(location: &Location) -> bool {
    let has_no_checksum = matches!(location.place.scheme, Scheme::Ftp | Scheme::WebDav);
    let told = location.settings.flag("verify-uploads");
    told.unwrap_or(has_no_checksum)
}

impl ReadBack {
    /// Wraps a storage.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner }
    }

    /// Reads an object back; `otherwise` is the kind of error if it is not what was written.
    fn compare(
        &self,
        operation: Operation,
        name: &str,
        written: &Bytes,
        otherwise: ErrorKind,
    ) -> Result<()> {
        let is_same = match self.inner.get(name, written.len() as u64) {
            Ok(found) => found == *written,
            Err(error) if error.kind == ErrorKind::Oversized => false,
            // It went straight into an archive, and cannot be read: its size is what can be told.
            Err(error) if error.reason == Reason::Cold => {
                self.inner.size(name)? == written.len() as u64
            }
            Err(error) => return Err(error),
        };
        if is_same {
            return Ok(());
        }
        let storage = self.inner.describe();
        let cause =
            "what was read back of it is not what was sent: the network or the server changes data";
        Err(StorageError::new(
            operation, storage, name, otherwise, cause,
        ))
    }
}

impl Storage for ReadBack {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.inner.get(name, max_bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.inner.get_range(name, offset_bytes, length_bytes)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.put(name, bytes.clone())?;
        // Sent again it may arrive.
        self.compare(Operation::Put, name, &bytes, ErrorKind::Transient)
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.create(name, bytes.clone())?;
        // It cannot be sent again: whoever read it already must not see it change.
        self.compare(Operation::Create, name, &bytes, ErrorKind::Permanent)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name)
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        self.inner.list(folder, visit)
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.inner.size(name)
    }

    fn warmth(&self, name: &str) -> Result<Warmth> {
        self.inner.warmth(name)
    }

    fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> Result<()> {
        self.inner.thaw(name, warmth, how)
    }

    fn sweep(&self, age: Duration) -> Result<u64> {
        self.inner.sweep(age)
    }

    fn remove_folder(&self, folder: &str) -> Result<()> {
        self.inner.remove_folder(folder)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn calls_at_once(&self) -> usize {
        self.inner.calls_at_once()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::contract;
    use super::super::faulty::{Effect, Fault, Faulty};
    use super::super::location::Layers;
    use super::super::object::ObjectStorage;
    use super::*;

    #[test]
    fn it_keeps_the_contract() {
        contract::run(&|| Arc::new(ReadBack::new(Arc::new(ObjectStorage::memory()))));
    }

    #[test]
    fn what_did_not_arrive_as_it_was_sent_is_an_error() {
        let faulty = Arc::new(Faulty::new(Arc::new(ObjectStorage::memory())));
        let storage = ReadBack::new(faulty.clone());
        let bytes = Bytes::from_static(b"what was sent");
        for effect in [Effect::Flip(3), Effect::Cut(5)] {
            for (name, operation, kind) in [
                ("packs/ab", Operation::Put, ErrorKind::Transient),
                ("snapshots/ab", Operation::Create, ErrorKind::Permanent),
            ] {
                storage.delete(name).unwrap();
                faulty.inject(Fault {
                    nth: 1,
                    operation: Some(Operation::Get),
                    lasts: false,
                    effect,
                });
                let written = match operation {
                    Operation::Put => storage.put(name, bytes.clone()),
                    _ => storage.create(name, bytes.clone()),
                };
                let error = written.unwrap_err();
                assert_eq!((error.operation, error.kind), (operation, kind));
                assert!(error.cause.contains("read back"), "{error}");
                storage.delete(name).unwrap();
                storage.put(name, bytes.clone()).unwrap();
            }
        }
        let error = storage.create("packs/ab", bytes).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
    }

    #[test]
    fn it_is_wanted_where_nothing_else_checks_unless_somebody_says_otherwise() {
        let wanted = |url: &str, flag: Option<&str>| {
            let flags: Vec<_> = flag
                .map(|value| ("verify-uploads".to_owned(), value.to_owned()))
                .into_iter()
                .collect();
            let layers = Layers {
                flags: &flags,
                ..Layers::default()
            };
            is_wanted(&Location::new(url, &layers).unwrap())
        };
        assert!(wanted("ftp://h/x", None) && wanted("webdav://h/x", None));
        assert!(!wanted("ftps://h/x", None) && !wanted("sftp://me@h/x", None));
        assert!(!wanted("s3://bucket", None) && wanted("s3://bucket", Some("true")));
        assert!(!wanted("ftp://h/x", Some("false")));
    }
}
