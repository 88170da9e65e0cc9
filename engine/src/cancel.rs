//! Cancellation: a flag that long operations look at between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{EngineError, Result};

/// Asks running operations to stop at the next step that leaves the repository consistent.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Gives the flag itself, e.g. for a signal handler that may do no more than set it.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Asks for the stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Tells whether a stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails with [`EngineError::Interrupted`] once a stop was asked for.
    ///
    /// # Errors
    /// `Interrupted`, then.
    pub fn check(&self) -> Result<()> {
        if self.is_requested() {
            return Err(EngineError::Interrupted);
        }
        Ok(())
    }
}
