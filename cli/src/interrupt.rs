//! Signals: the first asks a long operation to stop, a second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use larder_engine::cancel::Cancel;
use larder_engine::process;
use signal_hook::consts::{SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

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

/// Ends the process as SIGPIPE would have, without a word: whoever read the output has gone.
pub fn end_by_closed_pipe() {
    let _ = signal_hook::low_level::emulate_default_handler(SIGPIPE);
}
