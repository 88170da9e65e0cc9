//! How often an address may try wrong tokens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time over which wrong tokens are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// How many of them may come from one address within it.
const WRONG_MAX: u32 = 10;
/// How many addresses are remembered.
const ADDRESSES_MAX: usize = 10_000;

/// The addresses that tried wrong tokens.
#[derive(Debug, Default)]
pub struct Guard(Mutex<HashMap<IpAddr, Tries>>);

#[derive(Debug)]
struct Tries {
    since: Instant,
    count: u32,
}

impl Guard {
    /// Gives the seconds after which an address may try again; none if it may now.
    pub fn wait_seconds(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let all = self.all();
        let tries = all.get(&key(address))?;
        let gone = now.saturating_duration_since(tries.since);
        let left = WINDOW.checked_sub(gone)?;
        (tries.count >= WRONG_MAX && !left.is_zero()).then(|| left.as_secs().max(1))
    }

    /// Counts a wrong token.
    pub fn wrong(&self, address: IpAddr, now: Instant) {
        let mut all = self.all();
        if all.len() >= ADDRESSES_MAX {
            all.retain(|_, tries| now.saturating_duration_since(tries.since) < WINDOW);
        }
        // Whoever has so many addresses is counted as one.
        let address = match all.len() < ADDRESSES_MAX {
            true => key(address),
            false => IpAddr::from([0, 0, 0, 0]),
        };
        let tries = all.entry(address).or_insert(Tries {
            since: now,
            count: 0,
        });
        if now.saturating_duration_since(tries.since) >= WINDOW {
            *tries = Tries {
                since: now,
                count: 0,
            };
        }
        tries.count = tries.count.saturating_add(1);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, Tries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what one customer of a provider has for one: an IPv4 address, or a /64 of IPv6.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn ten_wrong_tokens_a_minute_are_enough() {
        let guard = Guard::default();
        let begun = Instant::now();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..WRONG_MAX {
            assert_eq!(guard.wait_seconds(one, begun), None);
            guard.wrong(one, begun);
        }
        assert_eq!(guard.wait_seconds(one, begun), Some(60));
        assert_eq!(guard.wait_seconds(one, begun + WINDOW / 2), Some(30));
        assert_eq!(guard.wait_seconds(one, begun + WINDOW), None);
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        assert_eq!(guard.wait_seconds(other, begun), None);
        // The window begins anew.
        guard.wrong(one, begun + WINDOW);
        assert_eq!(guard.wait_seconds(one, begun + WINDOW), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let guard = Guard::default();
        let begun = Instant::now();
        for last in 0..WRONG_MAX {
            guard.wrong(format!("2001:db8::{last:x}").parse().unwrap(), begun);
        }
        let wait = |address: &str| guard.wait_seconds(address.parse().unwrap(), begun);
        assert!(wait("2001:db8::ffff").is_some());
        assert!(wait("2001:db8:0:1::1").is_none());
    }
}
