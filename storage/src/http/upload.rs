//! A body that is sent in pieces, so that its progress is seen.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;

/// The bytes of a piece: few enough that a slow line takes several within any timeout.
const PIECE_BYTES: usize = 64 << 10;

/// When something last moved; clones share it.
#[derive(Clone)]
pub(super) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Notes that something moved.
    pub(super) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Gives how long nothing has moved.
    pub(super) fn silence(&self) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }
}

/// Bytes on their way out.
pub(super) struct Upload {
    left: Bytes,
    pulse: Pulse,
}

impl Upload {
    pub(super) fn new(bytes: Bytes, pulse: Pulse) -> Self {
        Self { left: bytes, pulse }
    }
}

impl Stream for Upload {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pulse.beat();
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(self.left.split_to(length))))
    }
}
