//! The time, as the operating system tells it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

#[cfg(any(test, feature = "testing"))]
use crate::simulated;

/// Gives the time now in nanoseconds since 1970.
#[must_use]
pub fn now_ns() -> i64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(now_ns) = simulated::now_ns() {
        return now_ns;
    }
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Gives the time now in seconds since 1970.
#[must_use]
pub fn now_s() -> i64 {
    now_ns().div_euclid(1_000_000_000)
}

/// Gives the time since some moment of this process; nobody sets it.
#[must_use]
pub fn uptime() -> Duration {
    #[cfg(any(test, feature = "testing"))]
    if let Some(uptime) = simulated::uptime() {
        return uptime;
    }
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// Waits.
pub fn sleep(time: Duration) {
    #[cfg(any(test, feature = "testing"))]
    if simulated::sleep(time) {
        return;
    }
    std::thread::sleep(time);
}
