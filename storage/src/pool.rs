//! Connections that are kept for the next call: a bounded number at once, made when they are needed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Idle connections, and a count of those that may be in use.
pub(crate) struct Pool<T> {
    state: Mutex<State<T>>,
    freed: Condvar,
}

struct State<T> {
    idle: Vec<T>,
    free: usize,
}

/// The right to use one connection; dropped, somebody else may have it.
pub(crate) struct Lease<'a, T>(&'a Pool<T>);

impl<T> Pool<T> {
    /// Makes a pool of so many connections at once, at least one; none is made yet.
    pub(crate) fn new(connections: usize) -> Self {
        let state = State {
            idle: Vec::new(),
            free: connections.max(1),
        };
        Self {
            state: Mutex::new(state),
            freed: Condvar::new(),
        }
    }

    /// Waits for the right to use a connection; gives with it an idle one, if there is any.
    pub(crate) fn take(&self) -> (Lease<'_, T>, Option<T>) {
        let mut state = self.lock();
        while state.free == 0 {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.free -= 1;
        let idle = state.idle.pop();
        (Lease(self), idle)
    }

    /// Throws away the idle connections that are of no use any more.
    pub(crate) fn retain(&self, is_of_use: impl FnMut(&T) -> bool) {
        self.lock().idle.retain(is_of_use);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Lease<'_, T> {
    /// Keeps a connection that is in order for the next call.
    pub(crate) fn keep(self, connection: T) {
        self.0.lock().idle.push(connection);
    }
}

impl<T> Drop for Lease<'_, T> {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn no_more_than_allowed_are_in_use_and_idle_ones_are_used_again() {
        let pool = Pool::new(3);
        let (made, in_use) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let (lease, idle) = pool.take();
                        assert!(in_use.fetch_add(1, Ordering::SeqCst) < 3);
                        let connection =
                            idle.unwrap_or_else(|| made.fetch_add(1, Ordering::SeqCst));
                        in_use.fetch_sub(1, Ordering::SeqCst);
                        lease.keep(connection);
                    }
                });
            }
        });
        assert!(made.load(Ordering::SeqCst) <= 3);
        pool.retain(|_| false);
        assert!(pool.take().1.is_none());
    }
}
