//! Memory of a pipeline, counted in bytes in flight.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A bound on the bytes that are between a source and the storage.
///
/// Work is done out of order but delivered in order, so two limits are needed: what is not yet
/// next in line may hold half of the budget at most, and therefore never keeps what is next from
/// being read.
pub struct Budget {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    used: usize,
    /// The part of `used` that was taken by work not yet next in line.
    ahead: usize,
    /// The ticket that is next in line.
    head: u64,
    /// Tickets of the threads that wait. Waking them is dear, so that is done only when it may
    /// help, and not at all when nobody waits: that would still be a system call.
    waiting: Vec<u64>,
    stopped: bool,
}

/// Bytes of a budget, given back when dropped.
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
    /// Those of `bytes` that were granted to work not yet next in line.
    ahead: usize,
}

impl Budget {
    /// Makes a budget of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Waits until `bytes` may be held for the work with this ticket; none once stopped.
    ///
    /// More than the limit is granted when nothing else is held.
    #[must_use]
    pub fn hold(self: &Arc<Self>, ticket: u64, bytes: usize) -> Option<Held> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.stopped {
                return None;
            }
            let ahead = ticket > state.head;
            let fits = state.used + bytes <= self.limit || state.used == 0;
            let fits_ahead = !ahead || state.ahead + bytes <= self.limit / 2 || state.used == 0;
            if fits && fits_ahead {
                state.used += bytes;
                if ahead {
                    state.ahead += bytes;
                }
                return Some(Held {
                    budget: Arc::clone(self),
                    bytes,
                    ahead: if ahead { bytes } else { 0 },
                });
            }
            state.waiting.push(ticket);
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = state.waiting.iter().position(|one| *one == ticket) {
                state.waiting.swap_remove(place);
            }
        }
    }

    /// Says which ticket is next in line.
    pub fn set_head(&self, ticket: u64) {
        self.change(|state| {
            state.head = ticket;
            state.waiting.iter().any(|waiting| *waiting <= ticket)
        });
    }

    /// Refuses everything from now on, so that nobody waits for what will not come.
    pub fn stop(&self) {
        self.change(|state| {
            state.stopped = true;
            true
        });
    }

    /// Tells whether nothing is granted any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.stopped
    }

    /// Changes the state; `act` tells whether that may help those who wait.
    fn change(&self, act: impl FnOnce(&mut State) -> bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let may_help = act(&mut state) && !state.waiting.is_empty();
        drop(state);
        if may_help {
            self.changed.notify_all();
        }
    }
}

impl Held {
    /// Takes over what another holds of the same budget, so that all is given back at once; gives
    /// it back if it is of another budget.
    #[must_use]
    pub fn absorb(&mut self, mut other: Self) -> Option<Self> {
        if !Arc::ptr_eq(&self.budget, &other.budget) {
            return Some(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        self.ahead += std::mem::take(&mut other.ahead);
        None
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (bytes, ahead) = (self.bytes, self.ahead);
        if bytes > 0 {
            self.budget.change(|state| {
                state.used -= bytes;
                state.ahead -= ahead;
                true
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use std::thread;

    #[test]
    fn work_ahead_cannot_starve_what_is_next() {
        let budget = Budget::new(100);
        let ahead = budget.hold(5, 50).unwrap();
        let next = budget.hold(0, 50).unwrap();
        let waiting = Arc::clone(&budget);
        let third = thread::spawn(move || waiting.hold(6, 1).is_some());
        drop(next);
        budget.set_head(6);
        assert!(third.join().unwrap());
        drop(ahead);
        assert!(budget.hold(9, 1000).is_none_or(|held| held.bytes == 1000));
    }

    #[test]
    fn bytes_go_back_to_the_budget_that_they_are_of() {
        let (one, two) = (Budget::new(100), Budget::new(100));
        let mut held = one.hold(0, 60).unwrap();
        assert!(held.absorb(one.hold(0, 40).unwrap()).is_none());
        let other = held.absorb(two.hold(0, 100).unwrap());
        drop(held);
        drop(one.hold(0, 100).unwrap());
        drop(other);
        drop(two.hold(0, 100).unwrap());
        assert_eq!(one.state.lock().unwrap().used, 0);
        assert_eq!(two.state.lock().unwrap().used, 0);
    }

    #[test]
    fn a_stop_releases_whoever_waits() {
        let budget = Budget::new(10);
        let _all = budget.hold(0, 10).unwrap();
        let waiting = Arc::clone(&budget);
        let second = thread::spawn(move || waiting.hold(0, 1).is_none());
        budget.stop();
        assert!(second.join().unwrap());
    }
}
