//! Logging in and out with a browser.

use std::time::Instant;

use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access;
use crate::logins::COOKIE;
use crate::problem::Problem;
use crate::routes::{Answer, Call, Route, ok};
use crate::schema::{Answers, What, of};
use crate::tokens::{Scope, Token};

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::post(
        "/login",
        Scope::ReadOnly,
        "Log a browser in with a token",
        |call| Box::pin(login(call)),
    )
    .takes(of::<Wish>)
    .answers(200, Answers::One(What::Own(of::<Shown<'static>>)))
    .open(),
    Route::get(
        "/session",
        Scope::ReadOnly,
        "Tell who is logged in",
        |call| Box::pin(session(call)),
    )
    .answers(200, Answers::One(What::Own(of::<Shown<'static>>))),
    Route::post("/logout", Scope::ReadOnly, "Log a browser out", |call| {
        Box::pin(logout(call))
    })
    .answers(204, Answers::Nothing)
    .open(),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wish {
    token: String,
}

/// Who is logged in.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Session")]
struct Shown<'a> {
    /// Whose the token is; the administrator's where it is nobody's.
    user: Option<&'a str>,
    /// The name of the token.
    name: &'a str,
    scope: Scope,
    /// What a browser sends as X-CSRF-Token with each change; empty where a token came itself.
    csrf: &'a str,
}

async fn login(call: Call) -> Answer {
    refuse_other_sites(&call.headers)?;
    let wish: Wish = call.json()?;
    let (service, token) = access::prove(&call.owners, wish.token.trim(), call.peer.ip())?;
    if token.scope == Scope::Portable {
        return Err(Problem::forbidden(
            "a token of the scope portable opens the two calls of portable backups, and not the page",
        ));
    }
    let user = service.user.as_deref();
    let logins = &call.service.common.logins;
    let fresh = logins.begin(user, &token.id, Instant::now())?;
    let mut answer = ok(&shown(user, &token, &fresh.csrf))?;
    let cookie = set_cookie(&call, &fresh.cookie, "");
    answer.headers_mut().insert(SET_COOKIE, cookie?);
    Ok(answer)
}

/// Refuses what a page of another site sends: it could log a browser in with a token of its own.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site");
    match site.is_none_or(|site| site == "same-origin" || site == "none") {
        true => Ok(()),
        false => Err(Problem::forbidden(
            "this comes from the page of another site; open the page of this service, and log in there",
        )),
    }
}

async fn session(call: Call) -> Answer {
    let caller = call.caller()?;
    let csrf = caller.csrf.as_ref().map_or("", |csrf| csrf.as_str());
    ok(&shown(call.service.user.as_deref(), &caller.token, csrf))
}

async fn logout(call: Call) -> Answer {
    if let Some(cookie) = access::cookie(&call.headers) {
        call.service.common.logins.end(cookie);
    }
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let cookie = set_cookie(&call, "", "; Max-Age=0");
    answer.headers_mut().insert(SET_COOKIE, cookie?);
    Ok(answer)
}

fn shown<'a>(user: Option<&'a str>, token: &'a Token, csrf: &'a str) -> Shown<'a> {
    Shown {
        user,
        name: &token.name,
        scope: token.scope,
        csrf,
    }
}

fn set_cookie(call: &Call, value: &str, more: &str) -> Result<HeaderValue, Problem> {
    let secure = match call.service.options.tls {
        Some(_) => "; Secure",
        None => "",
    };
    let text = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}");
    HeaderValue::from_str(&text).map_err(|_| Problem::internal("the cookie is no header"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn no_other_site_logs_a_browser_in() {
        let mut headers = HeaderMap::new();
        refuse_other_sites(&headers).unwrap();
        for (site, is_fine) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
        ] {
            headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            assert_eq!(refuse_other_sites(&headers).is_ok(), is_fine, "{site}");
        }
    }
}
