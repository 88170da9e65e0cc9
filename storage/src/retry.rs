//! Trying again: what failed for the moment, until patience ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::{ErrorKind, Result, StorageError};
use super::thaw::{Thaw, Warmth};
use super::{Capabilities, ObjectInfo, Storage};

/// The first pause before another attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that is chosen; a storage may ask for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause that a storage may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(600);
/// How often a pause looks whether the process was asked to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How long failed requests are tried again; cheap to clone.
#[derive(Clone, Debug)]
pub struct Retry {
    /// How long after the first attempt the last one may begin.
    pub patience: Duration,
    /// Set when the process was asked to stop: nothing is tried again then.
    pub stop: Arc<AtomicBool>,
    /// Set while a failure was told and nothing has succeeded since: many threads fail at once.
    pub is_told: Arc<AtomicBool>,
}

impl Retry {
    /// Calls `attempt` until it succeeds, fails for good, or patience ends.
    ///
    /// # Errors
    /// The last failure.
    pub fn run<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let mut failures = 0;
        loop {
            let error = match attempt() {
                Err(error) if error.kind == ErrorKind::Transient => error,
                outcome => {
                    self.is_told.store(false, Ordering::Relaxed);
                    return outcome;
                }
            };
            let pause = pause(failures, error.retry_after, chance());
            if start.elapsed() + pause > self.patience || !self.sleep(pause) {
                return Err(error);
            }
            failures += 1;
            if failures > 2 && self.is_to_be_told() {
                let left = seconds_left(self.patience, start);
                tracing::warn!("{}; trying again for {left} s", error.told());
            } else {
                tracing::debug!("{}; trying again", error.told());
            }
        }
    }

    /// Tells whether nobody has told yet that requests fail, and counts as telling it.
    fn is_to_be_told(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Sleeps; `false` once the process was asked to stop.
    fn sleep(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(LOOK));
        }
    }
}

fn seconds_left(patience: Duration, start: Instant) -> u64 {
    patience.saturating_sub(start.elapsed()).as_secs()
}

/// Decides the pause after so many failures: doubled each time, with jitter ("equal jitter": between
/// half of it and all of it), and never shorter than the storage asked for.
fn pause(failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let full = FIRST_PAUSE
        .saturating_mul(1 << failures.min(16))
        .min(PAUSE_MAX);
    let chosen = full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    match asked {
        Some(asked) => chosen.max(asked.min(ASKED_PAUSE_MAX)),
        None => chosen,
    }
}

/// Gives a number from 0 to 1, so that many writers do not come back at once.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

/// A storage whose operations are tried again.
///
/// A create that took effect and then failed answers `AlreadyExists` when it is tried again: see
/// [`create_or_confirm`](super::create_or_confirm).
pub struct Retrying {
    inner: Arc<dyn Storage>,
    retry: Retry,
}

impl Retrying {
    /// Wraps a storage.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, retry: Retry) -> Self {
        Self { inner, retry }
    }
}

impl Storage for Retrying {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.retry.run(|| self.inner.get(name, max_bytes))
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.retry
            .run(|| self.inner.get_range(name, offset_bytes, length_bytes))
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.retry.run(|| self.inner.put(name, bytes.clone()))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.retry.run(|| self.inner.create(name, bytes.clone()))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.retry.run(|| self.inner.delete(name))
    }

    /// Lists again from the start, passing over what was visited, where the listing is sorted; where
    /// it is not, only as long as nothing was visited: such storages retry their pages themselves.
    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let is_sorted = self.inner.capabilities().sorted_listing;
        let mut last: Option<String> = None;
        let mut refused = None;
        let outcome = self.retry.run(|| {
            let before = last.clone();
            let outcome = self.inner.list(folder, &mut |object| {
                if is_sorted && before.as_ref().is_some_and(|before| object.name <= *before) {
                    return Ok(());
                }
                last = Some(object.name.clone());
                visit(object).inspect_err(|error| refused = Some(error.clone()))
            });
            match outcome {
                // What the visitor says is its own, and ends the listing whatever it is.
                Err(_) if refused.is_some() => Ok(()),
                Err(error) if last.is_some() && !is_sorted => Err(StorageError {
                    kind: ErrorKind::Permanent,
                    ..error
                }),
                outcome => outcome,
            }
        });
        match refused {
            Some(error) => Err(error),
            None => outcome,
        }
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.retry.run(|| self.inner.size(name))
    }

    fn warmth(&self, name: &str) -> Result<Warmth> {
        self.retry.run(|| self.inner.warmth(name))
    }

    fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> Result<()> {
        self.retry.run(|| self.inner.thaw(name, warmth, how))
    }

    fn sweep(&self, age: Duration) -> Result<u64> {
        self.retry.run(|| self.inner.sweep(age))
    }

    fn remove_folder(&self, folder: &str) -> Result<()> {
        self.retry.run(|| self.inner.remove_folder(folder))
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
    use super::super::faulty::{Fault, Faulty, When};
    use super::super::object::ObjectStorage;
    use super::*;

    fn patient(seconds: u64) -> Retry {
        Retry {
            patience: Duration::from_secs(seconds),
            stop: Arc::default(),
            is_told: Arc::default(),
        }
    }

    #[test]
    fn pauses_double_with_jitter_and_honour_what_the_storage_asks() {
        let full = |failures| pause(failures, None, 1.0);
        assert_eq!(
            [0, 1, 2, 3].map(full),
            [250, 500, 1000, 2000].map(Duration::from_millis)
        );
        assert_eq!(full(40), PAUSE_MAX);
        assert_eq!(pause(1, None, 0.0), Duration::from_millis(250));
        let asked = |seconds| pause(0, Some(Duration::from_secs(seconds)), 1.0);
        assert_eq!(asked(7), Duration::from_secs(7));
        assert_eq!(asked(0), FIRST_PAUSE);
        assert_eq!(asked(86_400), ASKED_PAUSE_MAX);
    }

    #[test]
    fn a_failure_of_many_threads_is_told_once_until_something_succeeds() {
        let one = patient(9);
        let other = one.clone();
        assert!(one.is_to_be_told() && !other.is_to_be_told() && !one.is_to_be_told());
        other.run(|| Ok(())).unwrap();
        assert!(one.is_to_be_told() && !other.is_to_be_told());
    }

    #[test]
    fn it_keeps_the_contract() {
        contract::run(&|| Arc::new(Retrying::new(Arc::new(ObjectStorage::memory()), patient(9))));
    }

    #[test]
    fn what_fails_for_the_moment_is_tried_again_and_what_fails_for_good_is_not() {
        let faulty = Arc::new(Faulty::new(Arc::new(ObjectStorage::memory())));
        faulty.inject(Fault::error(1, When::Before, ErrorKind::Transient));
        faulty.inject(Fault::error(2, When::Before, ErrorKind::Transient));
        let storage = Retrying::new(Arc::clone(&faulty) as Arc<dyn Storage>, patient(60));
        storage.put("a/b", Bytes::from_static(b"x")).unwrap();
        assert_eq!(storage.get("a/b", 9).unwrap(), "x");
        let faulty = Arc::new(Faulty::new(Arc::new(ObjectStorage::memory())));
        faulty.inject(Fault::error(1, When::Before, ErrorKind::Denied));
        let storage = Retrying::new(faulty, patient(60));
        let error = storage.put("a/b", Bytes::new()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
    }

    #[test]
    fn patience_ends_at_once_when_the_process_is_asked_to_stop() {
        let retry = patient(3600);
        retry.stop.store(true, Ordering::Relaxed);
        let faulty = Faulty::new(Arc::new(ObjectStorage::memory()));
        faulty.inject(Fault::error(1, When::Before, ErrorKind::Transient));
        let storage = Retrying::new(Arc::new(faulty), retry);
        assert_eq!(storage.size("a").unwrap_err().kind, ErrorKind::Transient);
    }
}
