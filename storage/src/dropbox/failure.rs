//! What Dropbox's errors mean: pure, by status and text alone.

use reqwest::StatusCode;
use serde_json::Value;

use crate::error::{ErrorKind, Reason};

/// What an error of the API means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub kind: ErrorKind,
    pub reason: Reason,
    /// What Dropbox says, in its own words.
    pub words: String,
    /// The seconds that it asks to wait, where it says so outside of the headers.
    pub wait_seconds: Option<u64>,
    /// Whether another access token may help.
    pub is_token_stale: bool,
}

/// Reads an error; `None` where the status says all that is known.
pub(super) fn of(status: StatusCode, body: &[u8]) -> Option<Meaning> {
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let summary = parsed.get("error_summary").and_then(Value::as_str);
    let words = summary.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let mut meaning = Meaning {
        kind: ErrorKind::Permanent,
        reason: Reason::Other,
        words,
        wait_seconds: None,
        is_token_stale: false,
    };
    match status.as_u16() {
        400 => meaning.reason = Reason::Protocol,
        401 => of_401(&mut meaning, &parsed),
        409 => (meaning.kind, meaning.reason) = of_summary(&meaning.words),
        429 => {
            meaning.kind = ErrorKind::Transient;
            meaning.reason = Reason::TooManyRequests;
            meaning.wait_seconds = parsed.pointer("/error/retry_after").and_then(Value::as_u64);
        }
        _ => return None,
    }
    Some(meaning)
}

fn of_401(meaning: &mut Meaning, parsed: &Value) {
    meaning.kind = ErrorKind::Denied;
    let scope = parsed
        .pointer("/error/required_scope")
        .and_then(Value::as_str);
    if let Some(scope) = scope {
        meaning.reason = Reason::NotPermitted;
        meaning.words = format!(
            "the app lacks the permission {scope}; switch it on in the app's settings and get a new refresh token"
        );
        return;
    }
    meaning.reason = Reason::Expired;
    meaning.is_token_stale = !meaning.words.starts_with("user_suspended");
}

/// Tells what the tags of an error mean, which Dropbox joins by slashes.
fn of_summary(summary: &str) -> (ErrorKind, Reason) {
    let has = |tag: &str| summary.split('/').any(|part| part == tag);
    if has("conflict") {
        (ErrorKind::AlreadyExists, Reason::Other)
    } else if has("not_found") || has("not_file") {
        (ErrorKind::NotFound, Reason::Other)
    } else if has("insufficient_space") {
        (ErrorKind::Full, Reason::Other)
    } else if [
        "no_write_permission",
        "no_permission",
        "restricted_content",
        "locked",
        "team_folder",
    ]
    .into_iter()
    .any(has)
    {
        (ErrorKind::Denied, Reason::NotPermitted)
    } else if has("too_many_write_operations") || has("too_many_requests") {
        (ErrorKind::Transient, Reason::TooManyRequests)
    } else if [
        "reset",
        "content_hash_mismatch",
        "incorrect_offset",
        "closed",
        "internal_error",
    ]
    .into_iter()
    .any(has)
    {
        (ErrorKind::Transient, Reason::Other)
    } else {
        (ErrorKind::Permanent, Reason::Other)
    }
}

/// Reads the error of a request for an access token.
pub(super) fn of_login(status: StatusCode, body: &[u8]) -> Option<(Reason, &'static str)> {
    if !matches!(status.as_u16(), 400 | 401) {
        return None;
    }
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = parsed.get("error").and_then(Value::as_str).unwrap_or("");
    Some(match error {
        "invalid_grant" => (
            Reason::Expired,
            "Dropbox refuses the refresh token: it is wrong, was taken back, or belongs to another app",
        ),
        error if error.starts_with("invalid_client") => (
            Reason::WrongSecret,
            "Dropbox refuses app-key or app-secret; an app that got its token by PKCE has no secret here",
        ),
        _ => (
            Reason::WrongLogin,
            "Dropbox gives no access token for these credentials",
        ),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn kind_of(summary: &str) -> ErrorKind {
        let body = format!("{{\"error_summary\":{summary:?}}}");
        of(StatusCode::CONFLICT, body.as_bytes()).unwrap().kind
    }

    #[test]
    fn tags_decide_the_kind() {
        for (summary, kind) in [
            ("path/conflict/file/...", ErrorKind::AlreadyExists),
            ("path/not_found/..", ErrorKind::NotFound),
            ("path_lookup/not_found/.", ErrorKind::NotFound),
            ("path/insufficient_space/", ErrorKind::Full),
            ("path/no_write_permission/...", ErrorKind::Denied),
            ("reset/..", ErrorKind::Transient),
            ("too_many_write_operations/", ErrorKind::Transient),
            ("lookup_failed/incorrect_offset/", ErrorKind::Transient),
            ("path/malformed_path/", ErrorKind::Permanent),
            ("", ErrorKind::Permanent),
        ] {
            assert_eq!(kind_of(summary), kind, "{summary}");
        }
    }

    #[test]
    fn a_missing_scope_is_named_and_an_old_token_is_renewed() {
        let scope = br#"{"error_summary":"missing_scope/..","error":{".tag":"missing_scope","required_scope":"files.content.write"}}"#;
        let meaning = of(StatusCode::UNAUTHORIZED, scope).unwrap();
        assert_eq!(meaning.reason, Reason::NotPermitted);
        assert!(meaning.words.contains("files.content.write") && !meaning.is_token_stale);
        let old = br#"{"error_summary":"expired_access_token/..","error":{".tag":"expired_access_token"}}"#;
        assert!(of(StatusCode::UNAUTHORIZED, old).unwrap().is_token_stale);
    }

    #[test]
    fn a_pause_may_stand_in_the_body() {
        let body = br#"{"error_summary":"too_many_requests/","error":{"reason":{".tag":"too_many_requests"},"retry_after":300}}"#;
        let meaning = of(StatusCode::TOO_MANY_REQUESTS, body).unwrap();
        assert_eq!(meaning.wait_seconds, Some(300));
        assert_eq!(of(StatusCode::BAD_GATEWAY, b"x"), None);
    }
}
