//! Chance and time for the simulated processes of tests: the same seed gives the same run.
//!
//! A thread that entered one gets both from here, and so does what it starts in its own name;
//! all other threads get them from the operating system.

use std::cell::RefCell;
use std::time::Duration;

/// Where a simulated process gets its chance and its time from.
#[derive(Debug, Clone)]
pub struct Simulated {
    seed: [u8; 32],
    drawn: u64,
    now_ns: i64,
    tick: Duration,
    passed: Duration,
}

thread_local! {
    static SIMULATED: RefCell<Option<Simulated>> = const { RefCell::new(None) };
}

impl Simulated {
    /// Makes one whose clock stands at `now_ns` since 1970 and goes on by `tick` whenever it is read.
    #[must_use]
    pub fn new(seed: u64, now_ns: i64, tick: Duration) -> Self {
        Self {
            seed: *blake3::hash(&seed.to_le_bytes()).as_bytes(),
            drawn: 0,
            now_ns,
            tick,
            passed: Duration::ZERO,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.passed += time;
        let time_ns = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.now_ns = self.now_ns.saturating_add(time_ns);
    }
}

/// Makes this thread a simulated process, or an ordinary one again.
pub fn enter(simulated: Option<Simulated>) {
    SIMULATED.with_borrow_mut(|current| *current = simulated);
}

/// Tells whether this thread is one.
#[must_use]
pub fn is_on() -> bool {
    SIMULATED.with_borrow(Option::is_some)
}

/// Gives the next bytes of its chance, if it is one.
pub(crate) fn draw<const N: usize>() -> Option<[u8; N]> {
    SIMULATED.with_borrow_mut(|current| {
        let simulated = current.as_mut()?;
        let mut bytes = [0; N];
        let mut hasher = blake3::Hasher::new_keyed(&simulated.seed);
        hasher.update(&simulated.drawn.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        simulated.drawn += 1;
        Some(bytes)
    })
}

/// Reads its clock, if it is one.
pub(crate) fn now_ns() -> Option<i64> {
    SIMULATED.with_borrow_mut(|current| {
        let simulated = current.as_mut()?;
        simulated.pass(simulated.tick);
        Some(simulated.now_ns)
    })
}

/// Gives the time since it began, if it is one.
pub(crate) fn uptime() -> Option<Duration> {
    SIMULATED.with_borrow_mut(|current| {
        let simulated = current.as_mut()?;
        simulated.pass(simulated.tick);
        Some(simulated.passed)
    })
}

/// Lets so much time pass at once and tells whether it did: only if it is one.
pub(crate) fn sleep(time: Duration) -> bool {
    SIMULATED.with_borrow_mut(|current| match current {
        Some(simulated) => {
            simulated.pass(time);
            true
        }
        None => false,
    })
}
