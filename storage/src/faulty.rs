//! A storage that fails when it is told to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::error::{ErrorKind, Operation, Result, StorageError};
use super::thaw::{Thaw, Warmth};
use super::{Capabilities, ObjectInfo, Storage};

/// Passes everything on to a storage except where a fault was injected.
pub struct Faulty {
    inner: Arc<dyn Storage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    operations: u64,
    room_bytes: Option<u64>,
}

/// Something that goes wrong once, or from then on.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operation is hit: the first one after the injection is 1.
    pub nth: u64,
    /// Which kind of operation counts and is hit; all if `None`.
    pub operation: Option<Operation>,
    /// Whether every later one is hit too, as if the process or the network had died.
    pub lasts: bool,
    /// What goes wrong.
    pub effect: Effect,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// An error, before or after the operation did its work.
    Error(When, ErrorKind),
    /// A whole read gives only this many bytes, without an error; a range `Truncated`.
    Cut(usize),
    /// A read gives bytes with this one inverted (modulo the length), without an error.
    Flip(usize),
    /// A listing fails after this many objects.
    CutListing(usize),
}

/// On which side of an operation's effect its error comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing happened.
    Before,
    /// It happened, but the caller does not learn it.
    After,
}

impl Fault {
    /// Makes a single error at the `nth` operation of any kind.
    #[must_use]
    pub fn error(nth: u64, when: When, kind: ErrorKind) -> Self {
        Self {
            nth,
            operation: None,
            lasts: false,
            effect: Effect::Error(when, kind),
        }
    }
}

impl Faulty {
    /// Wraps a storage; nothing fails until a fault is injected.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            state: Mutex::default(),
        }
    }

    /// Adds a fault, whose count starts now.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Takes all faults and the limit of room away.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.faults.clear();
        state.room_bytes = None;
    }

    /// Lets this many more bytes be written before the storage is full; deleting makes no room.
    pub fn limit_room(&self, room_bytes: u64) {
        self.lock().room_bytes = Some(room_bytes);
    }

    /// Tells how many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation and gives what is to go wrong with it.
    fn next(&self, operation: Operation) -> Option<Effect> {
        let mut state = self.lock();
        state.operations += 1;
        let mut effect = None;
        state.faults.retain_mut(|fault| {
            if fault.operation.is_some_and(|hit| hit != operation) {
                return true;
            }
            fault.nth = fault.nth.saturating_sub(1);
            if fault.nth > 0 {
                return true;
            }
            effect = Some(fault.effect);
            fault.lasts
        });
        effect
    }

    fn fail(&self, operation: Operation, name: &str, kind: ErrorKind) -> StorageError {
        let storage = self.inner.describe();
        StorageError::new(operation, storage, name, kind, "an injected fault")
    }

    fn hit<T>(
        &self,
        operation: Operation,
        name: &str,
        effect: Option<Effect>,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match effect {
            Some(Effect::Error(When::Before, kind)) => Err(self.fail(operation, name, kind)),
            Some(Effect::Error(When::After, kind)) => {
                work()?;
                Err(self.fail(operation, name, kind))
            }
            _ => work(),
        }
    }

    fn write(
        &self,
        operation: Operation,
        name: &str,
        bytes: Bytes,
        work: impl FnOnce(Bytes) -> Result<()>,
    ) -> Result<()> {
        let effect = self.next(operation);
        {
            let mut state = self.lock();
            if let Some(room_bytes) = &mut state.room_bytes {
                match room_bytes.checked_sub(bytes.len() as u64) {
                    Some(left) => *room_bytes = left,
                    None => return Err(self.fail(operation, name, ErrorKind::Full)),
                }
            }
        }
        self.hit(operation, name, effect, || work(bytes))
    }
}

impl Storage for Faulty {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let effect = self.next(Operation::Get);
        let work = || self.inner.get(name, max_bytes);
        let bytes = self.hit(Operation::Get, name, effect, work)?;
        Ok(match effect {
            Some(Effect::Cut(length)) => bytes.slice(..length.min(bytes.len())),
            Some(Effect::Flip(at)) => with_flip(&bytes, at),
            _ => bytes,
        })
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let operation = Operation::GetRange;
        let effect = self.next(operation);
        let work = || self.inner.get_range(name, offset_bytes, length_bytes);
        let bytes = self.hit(operation, name, effect, work)?;
        match effect {
            Some(Effect::Cut(length)) if length < bytes.len() => {
                Err(self.fail(operation, name, ErrorKind::Truncated))
            }
            Some(Effect::Flip(at)) => Ok(with_flip(&bytes, at)),
            _ => Ok(bytes),
        }
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.write(Operation::Put, name, bytes, |bytes| {
            self.inner.put(name, bytes)
        })
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.write(Operation::Create, name, bytes, |bytes| {
            self.inner.create(name, bytes)
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        let effect = self.next(Operation::Delete);
        self.hit(Operation::Delete, name, effect, || self.inner.delete(name))
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let operation = Operation::List;
        let effect = self.next(operation);
        let mut left = match effect {
            Some(Effect::CutListing(objects)) => Some(objects),
            _ => None,
        };
        let mut visit_until_cut = |object: ObjectInfo| match &mut left {
            Some(0) => Err(self.fail(operation, folder, ErrorKind::Transient)),
            Some(left) => {
                *left -= 1;
                visit(object)
            }
            None => visit(object),
        };
        self.hit(operation, folder, effect, || {
            self.inner.list(folder, &mut visit_until_cut)
        })?;
        match effect {
            // A folder with too few objects fails at its end.
            Some(Effect::CutListing(_)) => Err(self.fail(operation, folder, ErrorKind::Transient)),
            _ => Ok(()),
        }
    }

    fn size(&self, name: &str) -> Result<u64> {
        let effect = self.next(Operation::Size);
        self.hit(Operation::Size, name, effect, || self.inner.size(name))
    }

    fn warmth(&self, name: &str) -> Result<Warmth> {
        let effect = self.next(Operation::Size);
        self.hit(Operation::Size, name, effect, || self.inner.warmth(name))
    }

    fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> Result<()> {
        let effect = self.next(Operation::Thaw);
        self.hit(Operation::Thaw, name, effect, || {
            self.inner.thaw(name, warmth, how)
        })
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

fn with_flip(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    let length = bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(at % length) {
        *byte = !*byte;
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::contract;
    use super::super::object::ObjectStorage;
    use super::*;

    fn faulty() -> Faulty {
        Faulty::new(Arc::new(ObjectStorage::memory()))
    }

    #[test]
    fn without_faults_it_keeps_the_contract() {
        contract::run(&|| Arc::new(faulty()));
    }

    #[test]
    fn an_error_comes_before_or_after_the_effect_once_or_for_good() {
        let storage = faulty();
        storage.inject(Fault::error(2, When::Before, ErrorKind::Transient));
        storage.put("a", Bytes::new()).unwrap();
        storage.put("b", Bytes::new()).unwrap_err();
        assert_eq!(storage.size("b").unwrap_err().kind, ErrorKind::NotFound);
        storage.inject(Fault {
            operation: Some(Operation::Put),
            lasts: true,
            ..Fault::error(1, When::After, ErrorKind::Permanent)
        });
        storage.put("b", Bytes::new()).unwrap_err();
        storage.put("c", Bytes::new()).unwrap_err();
        assert_eq!(storage.size("c").unwrap(), 0);
        storage.heal();
        storage.put("d", Bytes::new()).unwrap();
        assert_eq!(storage.operations(), 7);
    }

    #[test]
    fn reads_are_damaged_listings_cut_and_room_runs_out() {
        let storage = faulty();
        storage.put("x/a", Bytes::from_static(b"abcd")).unwrap();
        let inject = |effect| {
            storage.inject(Fault {
                nth: 1,
                operation: None,
                lasts: false,
                effect,
            });
        };
        inject(Effect::Cut(2));
        assert_eq!(storage.get("x/a", 9).unwrap(), "ab");
        inject(Effect::Flip(5));
        assert_eq!(
            storage.get("x/a", 9).unwrap(),
            [b'a', !b'b', b'c', b'd'].as_slice()
        );
        inject(Effect::Cut(1));
        assert_eq!(
            storage.get_range("x/a", 0, 2).unwrap_err().kind,
            ErrorKind::Truncated
        );
        for objects in [0, 1, 5] {
            inject(Effect::CutListing(objects));
            let mut seen = 0;
            let outcome = storage.list("x", &mut |_| {
                seen += 1;
                Ok(())
            });
            assert!(outcome.is_err() && seen == objects.min(1));
        }
        storage.limit_room(5);
        storage.put("x/b", Bytes::from_static(b"12345")).unwrap();
        assert_eq!(
            storage
                .put("x/c", Bytes::from_static(b"1"))
                .unwrap_err()
                .kind,
            ErrorKind::Full
        );
    }
}
