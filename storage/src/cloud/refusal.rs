//! Why a cloud refused a request, out of what it answered: pure, nothing is asked.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use object_store::client::HttpError;
use quick_xml::events::Event;

use crate::error::{ErrorKind, Operation, Reason, StorageError};

/// The most characters of a server's own words that a message repeats.
const WORDS_MAX: usize = 300;

/// Why a request failed; it travels through object_store as the source of its errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub kind: ErrorKind,
    pub reason: Reason,
    /// In words for a person, without secrets.
    pub cause: String,
    /// How long the server asked to wait.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Error for Refusal {}

impl Refusal {
    pub fn new(kind: ErrorKind, reason: Reason, cause: impl Into<String>) -> Self {
        Self {
            kind,
            reason,
            cause: cause.into(),
            retry_after: None,
        }
    }

    /// Makes an error of it; `right` is what the operation takes of the user.
    pub fn into_error(
        self,
        operation: Operation,
        storage: &str,
        name: &str,
        right: &str,
    ) -> StorageError {
        let cause = match (self.reason, self.kind) {
            (Reason::NotPermitted, _) if !right.is_empty() => {
                format!("the right {right} is missing: {}", self.cause)
            }
            _ => self.cause,
        };
        let mut error =
            StorageError::new(operation, storage, name, self.kind, cause).because(self.reason);
        error.retry_after = self.retry_after;
        error
    }
}

/// Makes an error of one of object_store's; `right` is what the operation takes of the user.
pub(crate) fn explain(
    operation: Operation,
    storage: &str,
    name: &str,
    right: &str,
    error: &object_store::Error,
) -> StorageError {
    if let Some(refusal) = find::<Refusal>(error) {
        return refusal.clone().into_error(operation, storage, name, right);
    }
    if find::<HttpError>(error).is_some() {
        // The answer had begun: what broke is its body.
        let cause = "the answer broke off";
        let kind = ErrorKind::Transient;
        return StorageError::new(operation, storage, name, kind, cause)
            .because(Reason::Unreachable);
    }
    StorageError::from_object_store(operation, storage, name, error)
}

/// Finds an error of one type below those that wrap it.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut layer = Some(error);
    while let Some(error) = layer {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        layer = match error.downcast_ref::<io::Error>() {
            // An io::Error passes over what it holds when it is asked for its source.
            Some(io) => io
                .get_ref()
                .map(|inner| inner as &(dyn Error + 'static))
                .or_else(|| error.source()),
            None => error.source(),
        };
    }
    None
}

/// What a server said besides its status.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The name of the error, such as `AccessDenied`.
    pub code: String,
    /// The message for a person.
    pub message: String,
    /// The region that the bucket is in, where the server says so.
    pub region: String,
}

impl Words {
    /// Reads them out of a body in XML or JSON; what cannot be read is left out.
    pub fn read(body: &str) -> Self {
        let mut words = if body.trim_start().starts_with('{') {
            Self::read_json(body)
        } else {
            Self::read_xml(body)
        };
        for text in [&mut words.code, &mut words.message, &mut words.region] {
            *text = first_line(text);
        }
        words
    }

    fn read_xml(body: &str) -> Self {
        let mut words = Self::default();
        let mut reader = quick_xml::Reader::from_str(body);
        let mut open = Vec::new();
        loop {
            match reader.read_event() {
                Ok(Event::Start(tag)) => open = tag.local_name().as_ref().to_vec(),
                Ok(Event::End(_)) => open.clear(),
                Ok(Event::Text(text)) => {
                    let Ok(text) = text.decode() else { continue };
                    words.take(&open, &text);
                }
                Ok(Event::GeneralRef(reference)) => {
                    let resolved = reference.decode().ok().and_then(|name| entity(&name));
                    words.take(&open, &resolved.unwrap_or(' ').to_string());
                }
                Ok(Event::Eof) | Err(_) => return words,
                Ok(_) => {}
            }
        }
    }

    fn take(&mut self, tag: &[u8], text: &str) {
        match tag {
            b"Code" => self.code.push_str(text),
            b"Message" | b"AuthenticationErrorDetail" => self.message.push_str(text),
            b"Region" => self.region.push_str(text),
            _ => {}
        }
    }

    fn read_json(body: &str) -> Self {
        let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let text = |at: &serde_json::Value, names: &[&str]| {
            let found = names
                .iter()
                .find_map(|name| at.get(name).and_then(|v| v.as_str()));
            found.unwrap_or_default().to_owned()
        };
        let error = value.get("error").unwrap_or(&value);
        let inner = if error.is_object() { error } else { &value };
        Self {
            code: match error.as_str() {
                Some(code) => code.to_owned(),
                None => text(inner, &["code", "Code", "status"]),
            },
            message: text(inner, &["error_description", "message", "Message"]),
            region: String::new(),
        }
    }
}

/// Gives the character that a named reference of XML stands for.
pub(super) fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// Gives the first line of a server's words, without control characters and not too long.
fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let clean = line.chars().filter(|char| !char.is_control());
    let mut clean: String = clean.take(WORDS_MAX).collect();
    clean.truncate(clean.trim_end_matches(['.', ' ']).len());
    clean
}

/// What was asked, as far as the meaning of an answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The names in a bucket.
    Listing,
    /// An object, or whether it is there.
    Read,
    /// To store an object.
    Write,
    /// To store a part of an object, or to begin or end with its parts.
    Part,
    /// To remove an object.
    Delete,
    /// To bring an object back from cold storage.
    Thaw,
    /// Credentials, of a service beside the storage.
    Credentials,
}

/// Sorts an answer that is no success.
pub(super) fn of_answer(
    ask: Ask,
    status: u16,
    words: &Words,
    retry_after: Option<Duration>,
) -> Refusal {
    let (kind, reason) = of_code(ask, words)
        .or_else(|| of_message(ask, words))
        .unwrap_or_else(|| of_status(ask, status));
    let said = match (words.code.as_str(), words.message.as_str()) {
        ("", "") => format!("status {status}"),
        ("", message) => format!("status {status}, {message}"),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    let cause = match (kind, reason, ask) {
        (_, _, Ask::Credentials) => {
            format!("the service that gives credentials refuses ({said})")
        }
        (ErrorKind::NotFound, Reason::Other, _) => "there is no such object".to_owned(),
        // Whoever creates learns the same from it; whoever overwrites, why that cannot be.
        (ErrorKind::AlreadyExists, _, _) if words.code.starts_with("BlobImmutable") => {
            format!("it exists already, and must not be changed ({said})")
        }
        (ErrorKind::AlreadyExists, _, _) => "it exists already".to_owned(),
        (_, Reason::NoBucket, _) => format!("there is no such bucket ({said})"),
        (_, Reason::Region, _) if !words.region.is_empty() => {
            format!("the bucket is in the region {}", words.region)
        }
        (_, Reason::Region, _) => format!("the bucket is in another region ({said})"),
        (_, Reason::Protocol, _) => format!("what answers there is no such service ({said})"),
        _ => format!("the storage refuses ({said})"),
    };
    Refusal {
        kind,
        reason,
        cause,
        retry_after,
    }
}

/// Sorts the names that S3, Google and Azure give to errors.
fn of_code(ask: Ask, words: &Words) -> Option<(ErrorKind, Reason)> {
    use ErrorKind::{
        AlreadyExists, Denied, Full, NotFound, Oversized, Permanent, Transient, Truncated,
    };
    let code = words.code.as_str();
    Some(match code {
        "NoSuchKey" | "BlobNotFound" => (NotFound, Reason::Other),
        "NoSuchBucket" | "ContainerNotFound" => (NotFound, Reason::NoBucket),
        "BlobAlreadyExists" => (AlreadyExists, Reason::Other),
        "PreconditionFailed" | "ConditionNotMet" if ask == Ask::Write => {
            (AlreadyExists, Reason::Other)
        }
        "InvalidRange" | "RequestedRangeNotSatisfiable" => (Truncated, Reason::Other),
        "InvalidAccessKeyId" | "InvalidToken" | "InvalidClientTokenId" => {
            (Denied, Reason::UnknownUser)
        }
        "SignatureDoesNotMatch" => (Denied, Reason::WrongSecret),
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            (Denied, Reason::Expired)
        }
        "RequestTimeTooSkewed" | "RequestExpired" => (Denied, Reason::Clock),
        "AuthorizationFailure" if words.message.contains("failed to authenticate") => {
            (Denied, Reason::WrongSecret)
        }
        "AccessDenied" if is_about_keys(&words.message) => (Denied, Reason::EncryptionKey),
        code if code.starts_with("KMS.") => (Denied, Reason::EncryptionKey),
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "AuthorizationProtocolMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "AuthorizationServiceMismatch"
        | "InsufficientAccountPermissions" => (Denied, Reason::NotPermitted),
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException" => (Permanent, Reason::Region),
        "SlowDown" | "TooManyRequests" | "ServerBusy" | "Throttling" | "RequestLimitExceeded" => {
            (Transient, Reason::TooManyRequests)
        }
        // Two creates met; the storage asks to try again and has not decided between them.
        "ConditionalRequestConflict" | "OperationAborted" => (Transient, Reason::Other),
        // What arrived is not what was sent.
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "Md5Mismatch"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "NoSuchUpload"
        | "RequestTimeout"
        | "InternalError"
        | "OperationTimedOut"
        | "ContainerBeingDeleted"
        | "ServiceUnavailable" => (Transient, Reason::Other),
        "QuotaExceeded"
        | "QuotaExceededException"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded" => (Full, Reason::Other),
        "EntityTooLarge" | "RequestBodyTooLarge" => (Oversized, Reason::Settings),
        // It lies in an archive, or is on its way out of one.
        "InvalidObjectState" | "BlobArchived" | "BlobBeingRehydrated" => (Permanent, Reason::Cold),
        // There is no room for what is fast, now.
        "GlacierExpeditedRetrievalNotAvailable" => (Transient, Reason::Other),
        // Somebody keeps this one object from being changed.
        "LeaseIdMissing" => (Permanent, Reason::Other),
        // There is no such thing there, now or later.
        "NotImplemented" => (Permanent, Reason::Other),
        "InvalidStorageClass" | "InvalidBucketName" | "InvalidBlobTier" => {
            (Permanent, Reason::Settings)
        }
        _ => return None,
    })
}

/// Sorts what only the words tell apart: the token services say the same name for everything.
fn of_message(ask: Ask, words: &Words) -> Option<(ErrorKind, Reason)> {
    let message = words.message.to_ascii_lowercase();
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if words.code == "AuthenticationFailed" || words.code == "InvalidAuthenticationInfo" {
        return Some((
            ErrorKind::Denied,
            if has(&["expir", "time frame"]) {
                Reason::Expired
            } else {
                Reason::WrongSecret
            },
        ));
    }
    if ask != Ask::Credentials {
        return None;
    }
    if has(&[
        "aadsts700016",
        "aadsts90002",
        "aadsts900023",
        "account not found",
    ]) {
        return Some((ErrorKind::Denied, Reason::UnknownUser));
    }
    if has(&["aadsts7000222", "expired"]) {
        return Some((ErrorKind::Denied, Reason::Expired));
    }
    if has(&["short-lived token", "reasonable timeframe"]) {
        return Some((ErrorKind::Denied, Reason::Clock));
    }
    if words.code == "invalid_client" || has(&["invalid jwt signature", "aadsts7000215"]) {
        return Some((ErrorKind::Denied, Reason::WrongSecret));
    }
    (words.code == "invalid_grant").then_some((ErrorKind::Denied, Reason::WrongLogin))
}

fn is_about_keys(message: &str) -> bool {
    message.contains("kms:") || message.contains("KMS") || message.contains("ciphertext")
}

fn of_status(ask: Ask, status: u16) -> (ErrorKind, Reason) {
    use ErrorKind::{AlreadyExists, Denied, Full, NotFound, Permanent, Transient, Truncated};
    match (status, ask) {
        (301 | 302 | 307 | 308, _) => (Permanent, Reason::Region),
        (401, _) => (Denied, Reason::WrongLogin),
        (403, Ask::Credentials) => (Denied, Reason::WrongLogin),
        (403, _) => (Denied, Reason::NotPermitted),
        (404, Ask::Read | Ask::Delete | Ask::Thaw) => (NotFound, Reason::Other),
        (404 | 405, _) => (Permanent, Reason::Protocol),
        (409 | 412, Ask::Write) => (AlreadyExists, Reason::Other),
        (416, _) => (Truncated, Reason::Other),
        (429 | 503, _) => (Transient, Reason::TooManyRequests),
        (501, _) => (Permanent, Reason::Other),
        (507, _) => (Full, Reason::Other),
        (408 | 425 | 500..=599, _) => (Transient, Reason::Other),
        (400, Ask::Credentials) => (Denied, Reason::WrongLogin),
        _ => (Permanent, Reason::Other),
    }
}

/// Reads the header Retry-After: seconds, or a time.
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = header.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = httpdate::parse_http_date(header.trim()).ok()?;
    Some(time.duration_since(now).unwrap_or_default())
}

/// Sorts a request that got no answer; `host` is where it went, and `address` the kind of a failure to
/// reach it.
pub(super) fn of_silence(
    error: &(dyn Error + 'static),
    host: &str,
    is_connecting: bool,
    address: ErrorKind,
) -> Refusal {
    if let Some(tls) = find::<rustls::Error>(error) {
        let is_trust = matches!(tls, rustls::Error::InvalidCertificate(_));
        let reason = if is_trust {
            Reason::Certificate
        } else {
            Reason::Tls
        };
        let cause = match is_trust {
            true => format!("the certificate of {host} is not trusted ({tls})"),
            false => format!("no encrypted connection to {host} comes about ({tls})"),
        };
        return Refusal::new(address, reason, cause);
    }
    if mentions(error, "dns error") {
        let cause = format!("no address is known for {host}");
        return Refusal::new(address, Reason::HostNotFound, cause);
    }
    let io = find::<io::Error>(error).map(io::Error::kind);
    match io {
        Some(io::ErrorKind::ConnectionRefused) => {
            let cause = format!("{host} refuses the connection");
            Refusal::new(address, Reason::Refused, cause)
        }
        _ if is_connecting => {
            let cause = format!("{host} cannot be reached");
            Refusal::new(address, Reason::Unreachable, cause)
        }
        _ => {
            let cause = format!("{host} ended the connection before it answered");
            Refusal::new(ErrorKind::Transient, Reason::Unreachable, cause)
        }
    }
}

fn mentions(error: &(dyn Error + 'static), text: &str) -> bool {
    let mut layer = Some(error);
    while let Some(error) = layer {
        if error.to_string().starts_with(text) {
            return true;
        }
        layer = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ask: Ask, status: u16, body: &str) -> Refusal {
        of_answer(ask, status, &Words::read(body), None)
    }

    #[test]
    fn answers_are_told_apart() {
        use ErrorKind::{AlreadyExists, Denied, Full, NotFound, Permanent, Transient, Truncated};
        let xml = |code: &str, message: &str| {
            format!(
                "<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>"
            )
        };
        let cases = [
            (Ask::Read, 404, "NoSuchKey", "", NotFound, Reason::Other),
            (Ask::Read, 404, "", "", NotFound, Reason::Other),
            (Ask::Listing, 404, "", "", Permanent, Reason::Protocol),
            (
                Ask::Delete,
                404,
                "NoSuchBucket",
                "",
                NotFound,
                Reason::NoBucket,
            ),
            (
                Ask::Write,
                412,
                "PreconditionFailed",
                "",
                AlreadyExists,
                Reason::Other,
            ),
            (
                Ask::Write,
                409,
                "ConditionalRequestConflict",
                "",
                Transient,
                Reason::Other,
            ),
            (Ask::Read, 416, "", "", Truncated, Reason::Other),
            (
                Ask::Write,
                403,
                "InvalidAccessKeyId",
                "",
                Denied,
                Reason::UnknownUser,
            ),
            (
                Ask::Write,
                403,
                "SignatureDoesNotMatch",
                "",
                Denied,
                Reason::WrongSecret,
            ),
            (
                Ask::Write,
                403,
                "RequestTimeTooSkewed",
                "",
                Denied,
                Reason::Clock,
            ),
            (Ask::Write, 400, "ExpiredToken", "", Denied, Reason::Expired),
            (
                Ask::Write,
                403,
                "AccessDenied",
                "",
                Denied,
                Reason::NotPermitted,
            ),
            (
                Ask::Write,
                403,
                "AccessDenied",
                "User: arn:aws:iam::1:user/u is not authorized to perform: kms:GenerateDataKey",
                Denied,
                Reason::EncryptionKey,
            ),
            (
                Ask::Write,
                400,
                "KMS.DisabledException",
                "",
                Denied,
                Reason::EncryptionKey,
            ),
            (Ask::Write, 400, "BadDigest", "", Transient, Reason::Other),
            (
                Ask::Write,
                200,
                "InternalError",
                "",
                Transient,
                Reason::Other,
            ),
            (
                Ask::Write,
                503,
                "SlowDown",
                "",
                Transient,
                Reason::TooManyRequests,
            ),
            (Ask::Write, 429, "", "", Transient, Reason::TooManyRequests),
            (Ask::Write, 502, "", "", Transient, Reason::Other),
            (Ask::Write, 501, "", "", Permanent, Reason::Other),
            (
                Ask::Part,
                501,
                "NotImplemented",
                "",
                Permanent,
                Reason::Other,
            ),
            (
                Ask::Write,
                409,
                "BlobImmutableDueToPolicy",
                "",
                AlreadyExists,
                Reason::Other,
            ),
            (
                Ask::Delete,
                409,
                "BlobImmutableDueToPolicy",
                "",
                Permanent,
                Reason::Other,
            ),
            (Ask::Write, 403, "QuotaExceeded", "", Full, Reason::Other),
            (
                Ask::Read,
                403,
                "InvalidObjectState",
                "",
                Permanent,
                Reason::Cold,
            ),
            (Ask::Read, 409, "BlobArchived", "", Permanent, Reason::Cold),
            (Ask::Write, 507, "", "", Full, Reason::Other),
            (
                Ask::Listing,
                301,
                "PermanentRedirect",
                "",
                Permanent,
                Reason::Region,
            ),
            (
                Ask::Read,
                403,
                "AuthenticationFailed",
                "Server failed to authenticate",
                Denied,
                Reason::WrongSecret,
            ),
            (
                Ask::Write,
                409,
                "BlobAlreadyExists",
                "",
                AlreadyExists,
                Reason::Other,
            ),
        ];
        for (ask, status, code, message, kind, reason) in cases {
            let body = if code.is_empty() {
                String::new()
            } else {
                xml(code, message)
            };
            let found = of(ask, status, &body);
            assert_eq!(
                (found.kind, found.reason),
                (kind, reason),
                "{status} {code}: {found}"
            );
            assert!(found.cause.len() < 2 * WORDS_MAX && !found.cause.contains('<'));
        }
    }

    #[test]
    fn the_services_that_give_tokens_are_told_apart() {
        let cases = [
            (
                401,
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: x"}"#,
                Reason::WrongSecret,
            ),
            (
                400,
                r#"{"error":"unauthorized_client","error_description":"AADSTS700016: Application with identifier 'x' was not found"}"#,
                Reason::UnknownUser,
            ),
            (
                401,
                r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired."}"#,
                Reason::Expired,
            ),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#,
                Reason::WrongSecret,
            ),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"Invalid grant: account not found"}"#,
                Reason::UnknownUser,
            ),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."}"#,
                Reason::Clock,
            ),
        ];
        for (status, body, reason) in cases {
            let found = of(Ask::Credentials, status, body);
            assert_eq!(
                (found.kind, found.reason),
                (ErrorKind::Denied, reason),
                "{found}"
            );
        }
    }

    #[test]
    fn a_region_is_named_where_the_server_names_it() {
        let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>";
        let found = of(Ask::Listing, 400, body);
        assert_eq!(found.reason, Reason::Region);
        assert!(found.cause.contains("eu-west-1"), "{found}");
    }

    #[test]
    fn words_of_any_server_are_taken_short_and_clean() {
        let long = "x".repeat(100_000);
        for body in [
            "",
            "{",
            "[]",
            "<",
            "<<<>>>",
            "<Error><Code>A",
            "\0\u{1}",
            "{\"error\":{\"code\":403}}",
            &format!("<Error><Code>{long}</Code></Error>"),
            &"<a>".repeat(20_000),
        ] {
            let words = Words::read(body);
            assert!(words.code.len() <= WORDS_MAX && words.message.len() <= WORDS_MAX);
            assert!(!words.code.contains(char::is_control));
        }
        let words =
            Words::read("<Error><Code>A</Code><Message>a &amp; b\nRequestId: 7</Message></Error>");
        assert_eq!(
            (words.code.as_str(), words.message.as_str()),
            ("A", "a & b")
        );
    }

    #[test]
    fn waiting_is_asked_for_in_seconds_or_by_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            retry_after("Sat, 06 Nov 1993 08:50:37 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
    }
}
