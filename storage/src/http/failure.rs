//! What a failed exchange means: pure, by the error or the status alone.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION, WWW_AUTHENTICATE};

use crate::error::{ErrorKind, Reason};

/// The most characters of a server's own words that a message repeats.
const WORDS_MAX: usize = 200;

/// Tells why an exchange broke, and says it in words without the URL.
pub(super) fn of_transport(error: &reqwest::Error) -> (Reason, String) {
    let layers = layers(error);
    let told = innermost(error);
    if let Some(tls) = layers.iter().find_map(|layer| layer.downcast_ref()) {
        return of_tls(tls);
    }
    if error.is_timeout() {
        return match error.is_connect() {
            true => (Reason::Unreachable, "the host does not answer".to_owned()),
            false => (Reason::Unreachable, "the server fell silent".to_owned()),
        };
    }
    if error.is_dns() || layers.iter().any(|layer| layer.to_string() == "dns error") {
        let cause = format!("no address is known for the host ({told})");
        return (Reason::HostNotFound, cause);
    }
    let io = layers
        .iter()
        .find_map(|layer| layer.downcast_ref::<io::Error>());
    if let Some(io) = io {
        return match io.kind() {
            io::ErrorKind::ConnectionRefused => {
                (Reason::Refused, "nothing listens on that port".to_owned())
            }
            _ if error.is_connect() => (
                Reason::Unreachable,
                format!("the host cannot be reached ({told})"),
            ),
            _ => (Reason::Other, told),
        };
    }
    if layers.iter().any(|layer| layer.to_string() == HUNG_UP) {
        let cause = "the server hangs up without an answer; it may expect TLS".to_owned();
        return (Reason::Protocol, cause);
    }
    if layers.iter().any(|layer| is_no_http(&layer.to_string())) {
        let cause = format!("what answers does not speak HTTP here ({told})");
        return (Reason::Protocol, cause);
    }
    (Reason::Other, told)
}

fn of_tls(error: &rustls::Error) -> (Reason, String) {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => (
            Reason::Certificate,
            format!("the server's certificate is not trusted ({error})"),
        ),
        _ => (Reason::Tls, format!("TLS does not come about ({error})")),
    }
}

/// Hyper's words for a connection that is closed before a byte of the answer came.
const HUNG_UP: &str = "connection closed before message completed";

/// Tells hyper's words for bytes that are no HTTP, which have no type of their own outside of it.
fn is_no_http(words: &str) -> bool {
    words.starts_with("invalid HTTP ")
}

/// Gives all layers of an error, also those that an I/O error hides.
fn layers<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    const LAYERS_MAX: usize = 32;
    let mut found: Vec<&(dyn Error + 'static)> = Vec::new();
    let mut next = Some(error);
    while let Some(layer) = next {
        if found.len() == LAYERS_MAX {
            break;
        }
        found.push(layer);
        let hidden = layer
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .map(|hidden| hidden as &(dyn Error + 'static));
        next = hidden.or_else(|| layer.source());
    }
    found
}

/// Gives the words of the layer at the bottom, which names neither the URL nor what is above it.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    match layers(error).as_slice() {
        [_, .., last] => loggable(&last.to_string()),
        _ if error.is_builder() => "it makes no sense".to_owned(),
        _ => "the exchange failed".to_owned(),
    }
}

/// Makes a server's words fit for a message: short, and without control characters.
pub(crate) fn loggable(words: &str) -> String {
    let printable = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = printable.take(WORDS_MAX).collect();
    if short.len() < words.len() && short.chars().count() == WORDS_MAX {
        short.push('…');
    }
    short.trim().to_owned()
}

/// Tells what a status means that is no success.
pub(super) fn of_status(status: StatusCode, headers: &HeaderMap) -> (ErrorKind, Reason, String) {
    let told = |words: &str| format!("{words} (status {})", status.as_u16());
    match status.as_u16() {
        300..=399 => {
            let to = headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.map_or("elsewhere", |to| to.split(['?', '#']).next().unwrap_or(to));
            let cause = told(&format!(
                "the server sends on to {}, which is not followed",
                loggable(to)
            ));
            (ErrorKind::Permanent, Reason::Protocol, cause)
        }
        401 => unauthorized(headers, &told),
        403 => (
            ErrorKind::Denied,
            Reason::NotPermitted,
            told("the server refuses this user"),
        ),
        404 | 410 => (
            ErrorKind::NotFound,
            Reason::Other,
            "there is no such object".to_owned(),
        ),
        407 => (
            ErrorKind::Denied,
            Reason::WrongLogin,
            told("the proxy refuses its user"),
        ),
        408 => (
            ErrorKind::Transient,
            Reason::Other,
            told("the request took too long"),
        ),
        412 => (
            ErrorKind::AlreadyExists,
            Reason::Other,
            "it exists already".to_owned(),
        ),
        413 => (
            ErrorKind::Permanent,
            Reason::Other,
            told("the server takes no object of this size"),
        ),
        423 => (ErrorKind::Transient, Reason::Other, told("it is locked")),
        425 => (
            ErrorKind::Transient,
            Reason::Other,
            told("the request came too early"),
        ),
        429 => (
            ErrorKind::Transient,
            Reason::TooManyRequests,
            told("the server asks for fewer requests"),
        ),
        501 | 505 => (
            ErrorKind::Permanent,
            Reason::Protocol,
            told("the server does not know this kind of request"),
        ),
        507 => (
            ErrorKind::Full,
            Reason::Other,
            told("there is no room left"),
        ),
        500.. => (
            ErrorKind::Transient,
            Reason::Other,
            told("the server failed"),
        ),
        405 => (
            ErrorKind::Permanent,
            Reason::Protocol,
            told("the server does not take this kind of request"),
        ),
        _ => (
            ErrorKind::Permanent,
            Reason::Protocol,
            told("the server refuses the request"),
        ),
    }
}

fn unauthorized(headers: &HeaderMap, told: &dyn Fn(&str) -> String) -> (ErrorKind, Reason, String) {
    let asked: Vec<_> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|asked| asked.to_str().ok())
        .map(str::to_ascii_lowercase)
        .collect();
    let takes = |scheme: &str| asked.iter().any(|asked| asked.contains(scheme));
    let is_digest_alone = takes("digest") && !takes("basic") && !takes("bearer");
    let cause = if is_digest_alone {
        "the server wants Digest authentication, which larder does not speak; let it take Basic over TLS"
    } else {
        "the server refuses the login"
    };
    (ErrorKind::Denied, Reason::WrongLogin, told(cause))
}

/// Reads how long to wait: seconds, or a date.
pub(super) fn retry_after(said: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = said.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(said).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn of(status: u16, headers: &[(&'static str, &str)]) -> (ErrorKind, Reason, String) {
        let headers = headers.iter().map(|(name, value)| {
            (
                reqwest::header::HeaderName::from_static(name),
                value.parse().unwrap(),
            )
        });
        of_status(StatusCode::from_u16(status).unwrap(), &headers.collect())
    }

    #[test]
    fn each_status_has_its_kind_and_reason() {
        let kinds = [
            (401, ErrorKind::Denied, Reason::WrongLogin),
            (403, ErrorKind::Denied, Reason::NotPermitted),
            (404, ErrorKind::NotFound, Reason::Other),
            (408, ErrorKind::Transient, Reason::Other),
            (412, ErrorKind::AlreadyExists, Reason::Other),
            (423, ErrorKind::Transient, Reason::Other),
            (429, ErrorKind::Transient, Reason::TooManyRequests),
            (500, ErrorKind::Transient, Reason::Other),
            (501, ErrorKind::Permanent, Reason::Protocol),
            (503, ErrorKind::Transient, Reason::Other),
            (507, ErrorKind::Full, Reason::Other),
            (599, ErrorKind::Transient, Reason::Other),
            (405, ErrorKind::Permanent, Reason::Protocol),
            (418, ErrorKind::Permanent, Reason::Protocol),
        ];
        for (status, kind, reason) in kinds {
            let (found_kind, found_reason, _) = of(status, &[]);
            assert_eq!((found_kind, found_reason), (kind, reason), "{status}");
        }
    }

    #[test]
    fn a_redirect_is_told_without_what_may_be_secret() {
        let (kind, _, cause) = of(302, &[("location", "https://other/x?token=hunter2")]);
        assert_eq!(kind, ErrorKind::Permanent);
        assert!(cause.contains("https://other/x") && !cause.contains("hunter2"));
    }

    #[test]
    fn digest_alone_is_told() {
        let digest = [("www-authenticate", "Digest realm=\"x\"")];
        assert!(of(401, &digest).2.contains("Digest"));
        let both = [("www-authenticate", "Digest realm=\"x\", Basic realm=\"x\"")];
        assert!(!of(401, &both).2.contains("Digest"));
    }

    #[test]
    fn pauses_are_seconds_or_dates() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let seconds = |said| retry_after(said, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("7"), Some(7));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn a_servers_words_are_cut_and_cleaned() {
        assert_eq!(loggable("a\u{1b}[2Jb\n"), "a [2Jb");
        assert_eq!(loggable(&"x".repeat(500)).chars().count(), WORDS_MAX + 1);
    }
}
