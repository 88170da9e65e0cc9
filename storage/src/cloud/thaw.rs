//! Bringing objects back from the archives of S3 and Azure.

use std::future::Future;

use http::{HeaderMap, Method};
use jiff::Timestamp;

use super::facts::http_time;
use super::refusal::Ask as Asked;
use super::requests::{Failed, Requests, Setup, Signer, Wanted};
use crate::error::{ErrorKind, Operation, Reason, Result, StorageError};
use crate::runtime;
use crate::thaw::{Readiness, Thaw, Tier, Warmth};

/// The class of S3 whose objects move by themselves, and are brought back for good.
const SELF_MOVING: &str = "INTELLIGENT_TIERING";
/// The tier to which Azure brings blobs back.
const WARM_TIER: &str = "Hot";

/// What asks for the objects of a repository; nothing is tried again here.
pub(crate) struct Thawer(Requests);

impl Thawer {
    /// Makes one that reaches the bucket by the given means.
    pub(super) fn new(setup: Setup) -> Self {
        Self(Requests::new(setup))
    }

    /// Tells how an object stands.
    pub(crate) fn warmth(&self, name: &str) -> Result<Warmth> {
        let found = self.block_on(Operation::Size, name, self.0.warmth(name.as_bytes(), None))?;
        found.ok_or_else(|| {
            let storage = self.0.setup.description.as_str();
            let why = "there is no such object";
            StorageError::new(Operation::Size, storage, name, ErrorKind::NotFound, why)
        })
    }

    /// Asks for an object.
    pub(crate) fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> Result<()> {
        let asked = self.0.thaw(name.as_bytes(), None, warmth, how);
        self.block_on(Operation::Thaw, name, asked)
    }

    fn block_on<T>(
        &self,
        operation: Operation,
        name: &str,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        runtime::block_on(future).unwrap_or_else(|cause| {
            let storage = self.0.setup.description.as_str();
            let kind = ErrorKind::Permanent;
            Err(StorageError::new(operation, storage, name, kind, cause))
        })
    }
}

impl Requests {
    /// Tells whether objects may have to be brought back here.
    pub(super) fn thaws(&self) -> bool {
        !matches!(self.setup.signer, Signer::Google(_))
    }

    /// Tells how an object, or a version of it, stands; none if there is none.
    pub(super) async fn warmth(&self, key: &[u8], version: Option<&str>) -> Result<Option<Warmth>> {
        let wanted = Wanted {
            method: Method::HEAD,
            key: Some(key),
            query: version.map(|id| ("versionId", id)).into_iter().collect(),
            ..Wanted::default()
        };
        let response = match self.send(Operation::Size, Asked::Read, &wanted).await {
            Ok(response) => response,
            Err(Failed::Refused(_, _, refusal))
                if refusal.kind == ErrorKind::NotFound && refusal.reason != Reason::NoBucket =>
            {
                return Ok(None);
            }
            Err(Failed::Refused(_, _, refusal)) => {
                return Err(self.error(Operation::Size, key, refusal));
            }
            Err(Failed::Other(error)) => return Err(error),
        };
        match read_warmth(response.headers()) {
            Some(warmth) => Ok(Some(warmth)),
            None => {
                let why = "the answer is no object's: it does not say how long it is";
                Err(self.strange(Operation::Size, key, why))
            }
        }
    }

    /// Asks for an object, or a version of it; one that was asked for already, or is warm, is all right.
    pub(super) async fn thaw(
        &self,
        key: &[u8],
        version: Option<&str>,
        warmth: &Warmth,
        how: &Thaw,
    ) -> Result<()> {
        let version = version.map(|id| ("versionId", id));
        let wanted = match &self.setup.signer {
            Signer::Azure(..) => Wanted {
                method: Method::PUT,
                key: Some(key),
                query: vec![("comp", "tier")],
                headers: vec![
                    ("x-ms-access-tier".to_owned(), WARM_TIER.into()),
                    ("x-ms-rehydrate-priority".to_owned(), priority(how).into()),
                ],
                ..Wanted::default()
            },
            Signer::Aws(..) => Wanted {
                method: Method::POST,
                key: Some(key),
                query: [("restore", "")].into_iter().chain(version).collect(),
                headers: vec![("content-type".to_owned(), b"application/xml".to_vec())],
                body: restore_request(&warmth.class, how).into(),
            },
            Signer::Google(_) => {
                let storage = self.setup.description.as_str();
                let name = String::from_utf8_lossy(key);
                let (kind, why) = (ErrorKind::Permanent, "this storage keeps nothing cold");
                return Err(StorageError::new(
                    Operation::Thaw,
                    storage,
                    &name,
                    kind,
                    why,
                ));
            }
        };
        match self.send(Operation::Thaw, Asked::Thaw, &wanted).await {
            Ok(_) => Ok(()),
            Err(Failed::Refused(_, code, refusal)) => match code.as_str() {
                // Somebody asked before, perhaps this program before it was interrupted; or it is warm.
                "RestoreAlreadyInProgress" | "BlobBeingRehydrated" | "InvalidObjectState" => Ok(()),
                _ => Err(self.error(Operation::Thaw, key, refusal)),
            },
            Err(Failed::Other(error)) => Err(error),
        }
    }
}

/// Gives what S3 is asked with: for how many days, but for classes that bring objects back for good.
fn restore_request(class: &str, how: &Thaw) -> String {
    let days = match class {
        SELF_MOVING => String::new(),
        _ => format!("<Days>{}</Days>", how.days.max(1)),
    };
    let tier = match how.tier {
        Tier::Bulk => "Bulk",
        Tier::Standard => "Standard",
        Tier::Expedited => "Expedited",
    };
    format!(
        "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{days}\
         <GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
    )
}

/// Gives Azure's word for how fast; it has two.
fn priority(how: &Thaw) -> &'static str {
    match how.tier {
        Tier::Bulk | Tier::Standard => "Standard",
        Tier::Expedited => "High",
    }
}

/// Reads how an object stands from the headers of either store; none if they are no object's.
fn read_warmth(headers: &HeaderMap) -> Option<Warmth> {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    };
    let tier = text("x-ms-access-tier");
    let class = match text("x-amz-storage-class") {
        "" => tier,
        class => class,
    };
    let is_archived = matches!(class, "GLACIER" | "DEEP_ARCHIVE" | "Archive")
        || !text("x-amz-archive-status").is_empty();
    let readiness = match (is_archived, restored(text("x-amz-restore"))) {
        (false, _) => Readiness::Warm,
        (true, Some(readiness)) => readiness,
        (true, None) if text("x-ms-archive-status").starts_with("rehydrate-pending") => {
            Readiness::Thawing
        }
        (true, None) => Readiness::Cold,
    };
    Some(Warmth {
        size_bytes: text("content-length").parse().ok()?,
        class: class.to_owned(),
        readiness,
    })
}

/// Reads S3's header: `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`.
fn restored(header: &str) -> Option<Readiness> {
    if header.contains("ongoing-request=\"true\"") {
        return Some(Readiness::Thawing);
    }
    if !header.contains("ongoing-request=\"false\"") {
        return None;
    }
    let until = header.split_once("expiry-date=\"");
    let until = until.and_then(|(_, rest)| rest.split('"').next());
    let until: Option<Timestamp> = until.and_then(http_time);
    Some(Readiness::Thawed(until))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use http::{HeaderName, HeaderValue};

    use super::*;

    fn told(pairs: &[(&'static str, &'static str)]) -> Readiness {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut headers: HeaderMap = pairs.collect();
        headers.insert("content-length", HeaderValue::from_static("7"));
        let warmth = read_warmth(&headers).unwrap();
        assert_eq!(warmth.size_bytes, 7);
        warmth.readiness
    }

    #[test]
    fn headers_tell_how_an_object_stands() {
        let class = |class| ("x-amz-storage-class", class);
        assert_eq!(told(&[]), Readiness::Warm);
        assert_eq!(told(&[class("GLACIER_IR")]), Readiness::Warm);
        assert_eq!(told(&[class("INTELLIGENT_TIERING")]), Readiness::Warm);
        assert_eq!(told(&[class("GLACIER")]), Readiness::Cold);
        let archived = ("x-amz-archive-status", "DEEP_ARCHIVE_ACCESS");
        assert_eq!(
            told(&[class("INTELLIGENT_TIERING"), archived]),
            Readiness::Cold
        );
        let deep = class("DEEP_ARCHIVE");
        let ongoing = ("x-amz-restore", "ongoing-request=\"true\"");
        assert_eq!(told(&[deep, ongoing]), Readiness::Thawing);
        let there = "ongoing-request=\"false\", expiry-date=\"Sun, 01 Nov 2026 00:00:00 GMT\"";
        let until = Timestamp::from_second(1_793_491_200).unwrap();
        assert_eq!(
            told(&[deep, ("x-amz-restore", there)]),
            Readiness::Thawed(Some(until))
        );
        // What was moved to a warm class meanwhile needs nothing.
        assert_eq!(
            told(&[class("STANDARD_IA"), ("x-amz-restore", there)]),
            Readiness::Warm
        );
        let tier = |tier| ("x-ms-access-tier", tier);
        assert_eq!(told(&[tier("Cold")]), Readiness::Warm);
        assert_eq!(told(&[tier("Archive")]), Readiness::Cold);
        let pending = ("x-ms-archive-status", "rehydrate-pending-to-hot");
        assert_eq!(told(&[tier("Archive"), pending]), Readiness::Thawing);
        assert!(read_warmth(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_request_says_how_fast_and_for_how_long() {
        let how = |tier, days| Thaw { tier, days };
        let request = restore_request("GLACIER", &how(Tier::Bulk, 7));
        assert!(request.contains("<Days>7</Days>") && request.contains("<Tier>Bulk</Tier>"));
        assert!(restore_request("GLACIER", &how(Tier::Standard, 0)).contains("<Days>1</Days>"));
        let moving = restore_request(SELF_MOVING, &how(Tier::Expedited, 7));
        assert!(!moving.contains("Days") && moving.contains("Expedited"));
        assert_eq!(priority(&how(Tier::Expedited, 1)), "High");
        assert_eq!(priority(&how(Tier::Bulk, 1)), "Standard");
    }
}
