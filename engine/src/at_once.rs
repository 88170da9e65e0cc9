//! Several calls to a storage at once, their outcomes in the order that was asked for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Calls once for each item, up to `calls` at a time; gives the outcomes in the order of the items.
///
/// It holds all outcomes at once: whoever has many items, or large outcomes, asks in batches.
pub(crate) fn map<T: Sync, R: Send>(
    calls: usize,
    items: &[T],
    call: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let calls = calls.min(items.len());
    if calls <= 1 {
        return items.iter().map(call).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else {
                return done;
            };
            done.push((at, call(item)));
        }
    };
    let mut done = thread::scope(|scope| {
        let spawn = |_| {
            let thread = thread::Builder::new().name("storage".to_owned());
            thread.spawn_scoped(scope, work).ok()
        };
        let threads: Vec<_> = (1..calls).filter_map(spawn).collect();
        // This thread works too, and alone where no other can be had.
        let mut done = work();
        for thread in threads {
            match thread.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn outcomes_come_in_order_and_calls_run_at_once() {
        let numbers: Vec<u32> = (0..1000).collect();
        let expected: Vec<u32> = numbers.iter().map(|number| number * 2).collect();
        for calls in [0, 1, 2, 7, 2000] {
            assert_eq!(map(calls, &numbers, |number| number * 2), expected);
        }
        // Both are under way at the same time, or this never ends.
        let both = Barrier::new(2);
        assert_eq!(map(2, &[1, 2], |_| both.wait().is_leader()).len(), 2);
        assert!(map(2, &[], |_: &u32| ()).is_empty());
    }
}
