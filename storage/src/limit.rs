//! Limits of a network storage: connections at once, bytes a second by the hour.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Zoned;

use super::error::Result;
use super::location::Rate;
use super::network::Network;
use super::thaw::{Thaw, Warmth};
use super::{Capabilities, ObjectInfo, Storage};

/// The longest wait before the rate is looked at again, which changes with the hour.
const LOOK: Duration = Duration::from_millis(200);

/// A storage that is used by a bounded number of calls at once, and no faster than it may be.
///
/// Rates hold on average: an object is sent whole, and the next ones wait until it is paid for.
pub struct Limited {
    inner: Arc<dyn Storage>,
    gate: Gate,
}

/// How many calls may be under way at once, and what was sent and received beyond the rates.
pub(crate) struct Gate {
    connections: usize,
    free: Mutex<usize>,
    freed: Condvar,
    pub(crate) upload: Throttle,
    pub(crate) download: Throttle,
}

impl Limited {
    /// Wraps a storage.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, network: &Network) -> Self {
        Self {
            inner,
            gate: Gate::new(network),
        }
    }

    /// Calls the storage once there is a free connection.
    fn call<T>(&self, call: impl FnOnce(&dyn Storage) -> T) -> T {
        self.gate.call(|| call(self.inner.as_ref()))
    }
}

impl Gate {
    /// Reads the limits of a network.
    pub(crate) fn new(network: &Network) -> Self {
        let throttle = |rate: &Rate| Throttle {
            rate: rate.clone(),
            debt: Mutex::default(),
            stop: Arc::clone(&network.retry.stop),
        };
        let connections = network.connections.max(1);
        Self {
            connections,
            free: Mutex::new(connections),
            freed: Condvar::new(),
            upload: throttle(&network.upload_limit),
            download: throttle(&network.download_limit),
        }
    }

    /// Calls once there is a free connection.
    pub(crate) fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self
                .freed
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        drop(free);
        let _held = Held(self);
        call()
    }
}

/// A connection in use; dropped, it is free again, even if the call panicked.
struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

impl Storage for Limited {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.gate.download.wait();
        let outcome = self.call(|inner| inner.get(name, max_bytes));
        self.gate
            .download
            .owe(outcome.as_ref().map_or(0, Bytes::len));
        outcome
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.gate.download.wait();
        let outcome = self.call(|inner| inner.get_range(name, offset_bytes, length_bytes));
        self.gate
            .download
            .owe(outcome.as_ref().map_or(0, Bytes::len));
        outcome
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.gate.upload.wait();
        self.gate.upload.owe(bytes.len());
        self.call(|inner| inner.put(name, bytes))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.gate.upload.wait();
        self.gate.upload.owe(bytes.len());
        self.call(|inner| inner.create(name, bytes))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.call(|inner| inner.delete(name))
    }

    /// A listing holds no connection, because its visitor may use the storage.
    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        self.inner.list(folder, visit)
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.call(|inner| inner.size(name))
    }

    fn warmth(&self, name: &str) -> Result<Warmth> {
        self.call(|inner| inner.warmth(name))
    }

    fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> Result<()> {
        self.call(|inner| inner.thaw(name, warmth, how))
    }

    fn sweep(&self, age: Duration) -> Result<u64> {
        self.call(|inner| inner.sweep(age))
    }

    fn remove_folder(&self, folder: &str) -> Result<()> {
        self.call(|inner| inner.remove_folder(folder))
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn calls_at_once(&self) -> usize {
        self.gate.connections
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// A rate, and what was sent beyond it.
pub(crate) struct Throttle {
    rate: Rate,
    debt: Mutex<Debt>,
    stop: Arc<AtomicBool>,
}

impl Throttle {
    /// Waits until what was sent is paid for, or the process is asked to stop.
    pub(crate) fn wait(&self) {
        if self.rate.is_unlimited() {
            return;
        }
        while !self.stop.load(Ordering::Relaxed) {
            let wait = lock(&self.debt).wait(Instant::now(), self.rate.at(Zoned::now().time()));
            if wait.is_zero() {
                return;
            }
            thread::sleep(wait.min(LOOK));
        }
    }

    pub(crate) fn owe(&self, bytes: usize) {
        if !self.rate.is_unlimited() {
            lock(&self.debt).bytes += bytes as f64;
        }
    }
}

/// Bytes that were sent and not paid for by time yet.
#[derive(Default)]
struct Debt {
    bytes: f64,
    paid: Option<Instant>,
}

impl Debt {
    /// Pays for the time since it was last paid, and tells how long the rest takes.
    fn wait(&mut self, now: Instant, bytes_per_second: Option<u64>) -> Duration {
        let since = self
            .paid
            .map_or(Duration::ZERO, |paid| now.saturating_duration_since(paid));
        self.paid = Some(now);
        let Some(rate) = bytes_per_second.map(|rate| rate.max(1) as f64) else {
            self.bytes = 0.0;
            return Duration::ZERO;
        };
        self.bytes = (self.bytes - since.as_secs_f64() * rate).max(0.0);
        Duration::try_from_secs_f64(self.bytes / rate).unwrap_or(Duration::MAX)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Barrier;

    use super::super::contract;
    use super::super::location::Settings;
    use super::super::object::ObjectStorage;
    use super::*;

    fn limited(inner: Arc<dyn Storage>, connections: usize) -> Limited {
        let mut network = Network::new(&Settings::default(), Arc::default()).unwrap();
        network.connections = connections;
        Limited::new(inner, &network)
    }

    #[test]
    fn it_keeps_the_contract() {
        contract::run(&|| Arc::new(limited(Arc::new(ObjectStorage::memory()), 3)));
    }

    #[test]
    fn no_more_calls_are_under_way_than_there_are_connections() {
        let storage = limited(Arc::new(ObjectStorage::memory()), 2);
        let both = Barrier::new(2);
        let under_way = Mutex::new((0, 0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    storage.call(|_| {
                        let mut counts = lock(&under_way);
                        counts.0 += 1;
                        counts.1 = counts.1.max(counts.0);
                        drop(counts);
                        // Two are there at once, or this never ends.
                        both.wait();
                        lock(&under_way).0 -= 1;
                    });
                });
            }
        });
        assert_eq!(*lock(&under_way), (0, 2));
    }

    #[test]
    fn what_was_sent_is_paid_for_by_time_at_the_rate_that_holds() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut debt = Debt::default();
        assert_eq!(debt.wait(at(0.0), Some(100)), Duration::ZERO);
        debt.bytes += 1000.0;
        assert_eq!(debt.wait(at(0.0), Some(100)), Duration::from_secs(10));
        assert_eq!(debt.wait(at(4.0), Some(100)), Duration::from_secs(6));
        // Faster from now on, and then not limited at all.
        assert_eq!(debt.wait(at(5.0), Some(500)), Duration::from_millis(200));
        debt.bytes += 1e9;
        assert_eq!(debt.wait(at(5.0), None), Duration::ZERO);
        assert_eq!(debt.wait(at(5.0), Some(1)), Duration::ZERO);
    }
}
