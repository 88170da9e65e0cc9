//! A storage that answers only so often, so that nothing goes on for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use larder_engine::storage::error::{ErrorKind, Operation, Result, StorageError};
use larder_engine::storage::{Capabilities, ObjectInfo, Storage};

use crate::overlay::Overlay;

/// Requests of one operation on the small repository of the tests; ordinary ones make some hundred.
const CALLS_MAX: u64 = 20_000;
/// Bytes that one operation reads and writes; ordinary ones move a megabyte or two.
const BYTES_MAX: u64 = 256 << 20;

/// Counts requests and bytes, and refuses when they are too many.
pub struct Meter {
    inner: Arc<Overlay>,
    calls: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    /// Starts from zero.
    pub fn new(inner: &Arc<Overlay>) -> Self {
        Self {
            inner: Arc::clone(inner),
            calls: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Tells whether there were too many of either.
    pub fn is_over(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > CALLS_MAX
            || self.bytes.load(Ordering::Relaxed) > BYTES_MAX
    }

    fn call(&self, operation: Operation, name: &str, bytes: usize) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        match self.is_over() {
            false => Ok(()),
            true => {
                let why = "that was asked too often";
                let kind = ErrorKind::Permanent;
                Err(StorageError::new(
                    operation,
                    self.describe(),
                    name,
                    kind,
                    why,
                ))
            }
        }
    }

    fn read(&self, operation: Operation, name: &str, read: Result<Bytes>) -> Result<Bytes> {
        let bytes = read.as_ref().map_or(0, Bytes::len);
        self.call(operation, name, bytes)?;
        read
    }
}

impl Storage for Meter {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.read(Operation::Get, name, self.inner.get(name, max_bytes))
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let read = self.inner.get_range(name, offset_bytes, length_bytes);
        self.read(Operation::GetRange, name, read)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.call(Operation::Put, name, bytes.len())?;
        self.inner.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.call(Operation::Create, name, bytes.len())?;
        self.inner.create(name, bytes)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.call(Operation::Delete, name, 0)?;
        self.inner.delete(name)
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        self.call(Operation::List, folder, 0)?;
        self.inner.list(folder, visit)
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.call(Operation::Size, name, 0)?;
        self.inner.size(name)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
