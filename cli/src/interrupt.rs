//! Signals: the first asks a long operation to stop, a second ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use larder_engine::cancel::Cancel;
use larder_engine::process;
use signal_hook::consts::{SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

/// How often a run with an answer of its own looks at the process's.
const TICK: Duration = Duration::from_millis(100);

/// The process's answer to SIGINT and SIGTERM.
#[derive(Debug, Clone)]
pub struct Interrupt {
    cancel: Cancel,
    graceful: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes the signals over; until [`Self::graceful`] is called they end the process with 130.
    ///
    /// # Errors
    /// When the operating system does not let the handlers or their thread be set up.
    pub fn install() -> anyhow::Result<Self> {
        let interrupt = Self {
            cancel: Cancel::default(),
            graceful: Arc::default(),
        };
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
        let seen = interrupt.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || signals.forever().for_each(|_| seen.signal()))
            .context("cannot start the thread that listens for signals")?;
        Ok(interrupt)
    }

    /// Gives the flag that is set once a signal came and a long job is under way.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.cancel.flag()
    }

    /// From now on the first signal only asks; gives the flag that a long operation looks at.
    #[must_use]
    pub fn graceful(&self) -> &Cancel {
        self.graceful.store(true, Ordering::SeqCst);
        &self.cancel
    }

    /// Gives one run an answer of its own: it is asked to stop when the process is, or once its time is over.
    ///
    /// # Errors
    /// When the thread that watches the time cannot be started.
    pub fn limited(&self, limit: Option<Duration>) -> anyhow::Result<(Self, Limit)> {
        let own = Self {
            cancel: Cancel::default(),
            graceful: Arc::clone(&self.graceful),
        };
        let (process, run) = (self.cancel.clone(), own.cancel.clone());
        let watch = Arc::new(Watch::default());
        let seen = Arc::clone(&watch);
        let thread = std::thread::Builder::new()
            .name("time limit".into())
            .spawn(move || seen.until_over(limit, &process, &run))
            .context("cannot start the thread that watches the time limit")?;
        let limit = Limit {
            watch,
            thread: Some(thread),
        };
        Ok((own, limit))
    }

    fn signal(&self) {
        if !self.graceful.load(Ordering::SeqCst) || self.cancel.is_requested() {
            // Without destructors: they could wait for threads that are still at work. Whatever a
            // killed process leaves behind is consistent, so this is too.
            process::kill_all();
            signal_hook::low_level::exit(i32::from(Exit::Interrupted.code()));
        }
        self.cancel.request();
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\nlarder: stopping at the next safe point; once more ends at once\n",
        );
    }
}

/// The time limit of a run, which ends with it.
pub struct Limit {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Watch {
    is_over: Mutex<bool>,
    woken: Condvar,
    has_expired: AtomicBool,
}

impl Limit {
    /// Tells whether the run was asked to stop because its time was over.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.watch.has_expired.load(Ordering::SeqCst)
    }
}

impl Watch {
    fn until_over(&self, limit: Option<Duration>, process: &Cancel, run: &Cancel) {
        let begun = Instant::now();
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_over && !run.is_requested() {
            if process.is_requested() {
                run.request();
            } else if limit.is_some_and(|limit| begun.elapsed() >= limit) {
                self.has_expired.store(true, Ordering::SeqCst);
                run.request();
            }
            let waited = self.woken.wait_timeout(is_over, TICK);
            is_over = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let mut is_over = self
            .watch
            .is_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *is_over = true;
        drop(is_over);
        self.watch.woken.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Ends the process as SIGPIPE would have, without a word: whoever read the output has gone.
pub fn end_by_closed_pipe() {
    let _ = signal_hook::low_level::emulate_default_handler(SIGPIPE);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn interrupt() -> Interrupt {
        Interrupt {
            cancel: Cancel::default(),
            graceful: Arc::default(),
        }
    }

    fn wait_for(cancel: &Cancel) {
        while !cancel.is_requested() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_run_is_asked_to_stop_with_the_process_or_once_its_time_is_over() {
        let process = interrupt();
        let (first, limit) = process.limited(Some(Duration::ZERO)).unwrap();
        wait_for(&first.cancel);
        assert!(limit.has_expired());
        // The others go on.
        let (second, limit) = process.limited(None).unwrap();
        assert!(!process.cancel.is_requested() && !second.cancel.is_requested());
        process.cancel.request();
        wait_for(&second.cancel);
        assert!(!limit.has_expired());
        drop(limit);
        // From then on the first signal only asks, whoever looks.
        let _ = second.graceful();
        assert!(process.graceful.load(Ordering::SeqCst));
    }
}
