//! Who sends a request, and whether they may.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::logins;
use crate::owners::Owners;
use crate::problem::Problem;
use crate::service::Service;
use crate::tokens::{Scope, Token};

/// Who sends a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What they proved to have.
    pub token: Token,
    /// What a browser has to send along with each change; none for a program.
    pub csrf: Option<Zeroizing<String>>,
}

/// Tells whether what a caller has opens what a request is for.
///
/// # Errors
/// 403 if it does not suffice; 401 where another token is needed.
pub fn suffices(caller: &Caller, needed: Scope) -> Result<(), Problem> {
    let scope = caller.token.scope;
    match (scope.allows(needed), needed, scope) {
        (true, ..) => Ok(()),
        // These are told no more than who has no token at all.
        (false, Scope::Portable, _) => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "this call has a token of its own, of the scope portable; other tokens do not open it",
        )),
        (false, _, Scope::Portable) => Err(Problem::forbidden(
            "a token of the scope portable opens the two calls of portable backups and nothing else",
        )),
        (false, ..) => Err(Problem::forbidden(format!(
            "this needs a token of the scope {}; this one has {}",
            needed.word(),
            scope.word()
        ))),
    }
}

/// Finds the token that a text is, and whose it is, unless too many wrong ones came from that address.
///
/// # Errors
/// 401 for a wrong one, 429 after too many.
pub fn prove(
    owners: &Owners,
    text: &str,
    address: IpAddr,
) -> Result<(Arc<Service>, Token), Problem> {
    let now = Instant::now();
    let common = &owners.administrator().common;
    if let Some(seconds) = common.guard.wait_seconds(address, now) {
        return Err(Problem {
            retry_after_seconds: Some(seconds),
            ..Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("too many wrong tokens came from this address; wait {seconds} seconds"),
            )
        });
    }
    let found = owners.find(text, Timestamp::now());
    found.ok_or_else(|| {
        common.guard.wrong(address, now);
        unknown("the token is wrong, revoked or expired")
    })
}

/// Gives the cookie of a browser that is logged in.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut cookies = cookies
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    cookies.find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == logins::COOKIE).then_some(value)
    })
}

/// Finds out who sends a request, and what is theirs.
///
/// # Errors
/// 401 without a token or with a wrong one, 403 without the second secret of a browser, 429 after too many wrong ones.
pub fn caller(
    owners: &Owners,
    headers: &HeaderMap,
    method: &Method,
    address: IpAddr,
) -> Result<(Arc<Service>, Caller), Problem> {
    if let Some(given) = headers.get(AUTHORIZATION) {
        let text = given.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        let text = text.ok_or_else(|| unknown("send `Authorization: Bearer TOKEN`"))?;
        let (service, token) = prove(owners, text, address)?;
        return Ok((service, Caller { token, csrf: None }));
    }
    let cookie = cookie(headers).ok_or_else(|| {
        unknown("this needs a token: send `Authorization: Bearer TOKEN`, or log in")
    })?;
    let logins = &owners.administrator().common.logins;
    let found = logins.find(cookie, Instant::now());
    let found = found.ok_or_else(|| unknown("you are logged out; log in again"))?;
    let csrf = found.csrf;
    let proven = owners.of(found.user.as_deref()).and_then(|service| {
        let token = service.tokens.by_id(&found.token, Timestamp::now())?;
        Some((service, token))
    });
    let (service, token) =
        proven.ok_or_else(|| unknown("the token that you logged in with is revoked"))?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        let given = headers.get("x-csrf-token");
        let given = given.and_then(|given| given.to_str().ok()).unwrap_or("");
        if !logins::is_same(given, &csrf) {
            return Err(Problem::forbidden(
                "a browser has to send X-CSRF-Token with what GET /session answers; load the page again",
            ));
        }
    }
    let caller = Caller {
        token,
        csrf: Some(csrf),
    };
    Ok((service, caller))
}

/// Refuses what is the administrator's alone to whoever is a user.
///
/// # Errors
/// 403 for each of them, whatever is there.
pub fn refuse_users(service: &Service) -> Result<(), Problem> {
    match service.user {
        None => Ok(()),
        Some(_) => Err(Problem::forbidden(
            "this is for the administrator of the service alone",
        )),
    }
}

fn unknown(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        let line = "a=b; larder_session=xyz; larder_session2=no";
        headers.insert(COOKIE, line.parse().unwrap());
        assert_eq!(cookie(&headers), Some("xyz"));
        headers.insert(COOKIE, "xlarder_session=no".parse().unwrap());
        assert_eq!(cookie(&headers), None);
    }
}
