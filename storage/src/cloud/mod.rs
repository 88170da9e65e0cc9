//! S3 and its compatibles, Google Cloud Storage and Azure Blob Storage, over object_store.

mod azure;
mod blob_pages;
mod blobs;
mod client;
mod credentials;
mod facts;
mod google;
mod listing;
mod objects;
mod pages;
mod refusal;
mod requests;
mod s3;
mod thaw;
mod urls;
mod versions;

pub(crate) use azure::{open as open_azure, open_container};
pub(crate) use google::{open as open_google, open_bucket as open_google_bucket};
pub(crate) use refusal::explain;
pub(crate) use s3::{open as open_s3, open_bucket as open_s3_bucket};
pub(crate) use thaw::Thawer;

use std::net::IpAddr;
use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};
use url::{Host, Url};

use super::error::{ErrorKind, Operation, Reason, StorageError};
use super::location::Location;
use super::network::Network;

/// Makes an error of a setting that makes no sense.
fn refuse(location: &Location, cause: impl Into<String>) -> StorageError {
    let place = location.place.to_string();
    StorageError::new(Operation::Open, place, "", ErrorKind::Permanent, cause)
        .because(Reason::Settings)
}

/// Gives what object_store may try again by itself: only bodies that broke off, which it goes on
/// with from where they did. Everything else is tried again above.
fn resumes(network: &Network) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: network.retry.patience,
    }
}

/// Checks the URL of a service; one without TLS is taken on this machine, or where it is allowed.
fn endpoint(name: &str, given: &str, allow_http: bool) -> Result<Url, String> {
    let wrong = |why: &str| Err(format!("the setting {name} {why}"));
    // The text itself is not repeated: it may hold a secret.
    let Ok(url) = Url::parse(given) else {
        return wrong("is no URL; write https://host:port");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return wrong("has to begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("has a user or secret in it; credentials have settings of their own");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("has a ? or # in it");
    }
    if url.scheme() == "http" && !is_loopback(&url) && !allow_http {
        return wrong(
            "is not encrypted (http://): whoever is on the way could change requests; \
             use https://, or set allow-http=true",
        );
    }
    Ok(url)
}

/// Tells whether a URL stays on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// Gives the prefix of all names, with the slash that closes it.
fn prefix(location: &Location) -> String {
    match location.place.path.as_str() {
        "" => String::new(),
        path => format!("{path}/"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn without_tls_only_this_machine_is_reached_unless_it_is_allowed() {
        for own in [
            "http://127.0.0.1:9000",
            "http://localhost:9000/",
            "http://[::1]:9",
            "http://bucket.localhost",
            "https://s3.example",
        ] {
            assert!(endpoint("endpoint", own, false).is_ok(), "{own}");
        }
        for other in [
            "http://s3.example",
            "http://10.0.0.1:9000",
            "http://localhost.example",
        ] {
            let error = endpoint("endpoint", other, false).unwrap_err();
            assert!(error.contains("allow-http"), "{error}");
            assert!(endpoint("endpoint", other, true).is_ok(), "{other}");
        }
        for wrong in [
            "",
            "s3.example",
            "ftp://s3.example",
            "https://u:hunter2@s3.example",
            "https://s3.example/?token=hunter2",
            "https://",
        ] {
            let error = endpoint("endpoint", wrong, true).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
