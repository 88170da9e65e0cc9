//! Who is logged in with a browser: cookies that stand for a token, and the second secret that each change needs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::problem::Problem;
use crate::tokens::{fresh_text, hash};

/// The cookie's name.
pub const COOKIE: &str = "larder_session";
/// After what time without a request a browser is logged out.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// How many browsers of one owner may be logged in.
const COUNT_MAX: usize = 1_000;

/// All that are logged in; in memory alone, so a restart logs everybody out.
#[derive(Debug, Default)]
pub struct Logins(Mutex<HashMap<blake3::Hash, Login>>);

#[derive(Debug)]
struct Login {
    user: Option<String>,
    /// The id of the token that it was made with: what is revoked is logged out.
    token: String,
    csrf: Zeroizing<String>,
    used: Instant,
}

/// What a browser gets.
pub struct Fresh {
    /// The cookie's value.
    pub cookie: Zeroizing<String>,
    /// What it has to send along with each change.
    pub csrf: Zeroizing<String>,
}

/// Whose a browser is.
pub struct Found {
    /// The user; none for the administrator.
    pub user: Option<String>,
    /// The id of the token.
    pub token: String,
    /// What it has to send along with each change.
    pub csrf: Zeroizing<String>,
}

impl Logins {
    /// Logs a browser in.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn begin(&self, user: Option<&str>, token: &str, now: Instant) -> Result<Fresh, Problem> {
        let fresh = Fresh {
            cookie: fresh_text()?,
            csrf: fresh_text()?,
        };
        let mut all = self.all();
        all.retain(|_, login| now.saturating_duration_since(login.used) < IDLE);
        // Nobody's browsers push out another's.
        let is_own = |login: &Login| login.user.as_deref() == user;
        if all.values().filter(|login| is_own(login)).count() >= COUNT_MAX {
            let own = all.iter().filter(|(_, login)| is_own(login));
            let oldest = own.min_by_key(|(_, login)| login.used);
            if let Some(oldest) = oldest.map(|(hash, _)| *hash) {
                all.remove(&oldest);
            }
        }
        let login = Login {
            user: user.map(str::to_owned),
            token: token.to_owned(),
            csrf: fresh.csrf.clone(),
            used: now,
        };
        all.insert(hash(&fresh.cookie), login);
        Ok(fresh)
    }

    /// Gives whose a browser is that is logged in, by which token, and its second secret.
    pub fn find(&self, cookie: &str, now: Instant) -> Option<Found> {
        let mut all = self.all();
        let login = all.get_mut(&hash(cookie))?;
        if now.saturating_duration_since(login.used) >= IDLE {
            return None;
        }
        login.used = now;
        Some(Found {
            user: login.user.clone(),
            token: login.token.clone(),
            csrf: login.csrf.clone(),
        })
    }

    /// Logs a browser out.
    pub fn end(&self, cookie: &str) {
        self.all().remove(&hash(cookie));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<blake3::Hash, Login>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether two secrets are the same, in a time that tells nothing of where they differ.
pub fn is_same(given: &str, expected: &str) -> bool {
    hash(given) == hash(expected)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_browser_is_known_until_it_logs_out_or_is_idle_for_long() {
        let logins = Logins::default();
        let begun = Instant::now();
        let fresh = logins.begin(None, "t1", begun).unwrap();
        assert_ne!(fresh.cookie, fresh.csrf);
        let found = logins.find(&fresh.cookie, begun).unwrap();
        assert_eq!((found.user, found.token.as_str()), (None, "t1"));
        let csrf = found.csrf;
        assert!(is_same(&csrf, &fresh.csrf) && !is_same(&csrf, &fresh.cookie));
        assert!(logins.find(&fresh.csrf, begun).is_none());
        // Used in between, it lasts.
        assert!(logins.find(&fresh.cookie, begun + IDLE / 2).is_some());
        assert!(logins.find(&fresh.cookie, begun + IDLE).is_some());
        assert!(logins.find(&fresh.cookie, begun + IDLE * 2).is_none());
        let fresh = logins.begin(Some("ann"), "t2", begun).unwrap();
        logins.end(&fresh.cookie);
        assert!(logins.find(&fresh.cookie, begun).is_none());
    }
}
