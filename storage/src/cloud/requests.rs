//! Requests to the user's own buckets: signed, sent, tried again, and their refusals sorted.
//!
//! `object_store` refuses or changes many keys that buckets have, so requests are made here, over
//! its signatures and credentials and the same client.

use std::future::Future;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse};
use object_store::gcp::GcpCredentialProvider;
use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::facts::Facts;
use super::pages;
use super::refusal::{self, Ask as Asked, Refusal, Words, explain};
use super::urls;
use crate::bucket::{Answer, Ask, CLASS, Got, HEADERS, Properties};
use crate::error::{ErrorKind, Operation, Reason, Result, StorageError};
use crate::limit::Gate;
use crate::network::Network;
use crate::runtime;

/// The most bytes of a page of a listing.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// The most bytes of any other answer that is no object.
const WORDS_BYTES_MAX: usize = 1 << 20;

/// How requests show who asks.
pub(super) enum Signer {
    /// By signature, in a region; the last says whether who asks pays.
    Aws(AwsCredentialProvider, String, bool),
    /// By a token.
    Google(GcpCredentialProvider),
    /// By signature or token, at the account of this name.
    Azure(AzureCredentialProvider, String),
}

/// What a bucket is reached by.
pub(super) struct Setup {
    pub client: Client,
    /// The URL of the bucket, without a slash at its end.
    pub base: String,
    /// What all keys begin with: empty, or with a slash at its end.
    pub prefix: String,
    pub description: String,
    pub signer: Signer,
    pub network: Network,
    /// Headers of everything that is stored: class, encryption.
    pub stored_with: Vec<(&'static str, String)>,
    /// Whether uploads carry a checksum besides the signature.
    pub with_checksum: bool,
    /// Names the right that an operation takes.
    pub right: fn(Operation) -> &'static str,
}

/// A bucket of the user's as requests see it.
pub(super) struct Requests {
    pub setup: Setup,
    gate: Gate,
}

/// A request before it is signed.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    pub method: Method,
    pub key: Option<&'a [u8]>,
    pub query: Vec<(&'a str, &'a str)>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
}

/// Why a request gave nothing.
pub(super) enum Failed {
    /// The bucket refused, with its own word for it.
    Refused(u16, String, Refusal),
    /// It was not reached, or not understood.
    Other(StorageError),
}

/// What a store calls its headers.
struct Names {
    /// What its own begin with.
    own: &'static str,
    /// What stands before those of HTTP where an object is written.
    plain: &'static str,
    /// The one that has the tags; none where objects have none.
    tags: Option<&'static str>,
    class: &'static str,
}

impl Requests {
    pub fn new(setup: Setup) -> Self {
        let gate = Gate::new(&setup.network);
        Self { setup, gate }
    }

    /// Tries until patience ends; each try has one of the connections.
    pub fn run<T, F: Future<Output = Result<T>>>(
        &self,
        operation: Operation,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        self.setup.network.retry.run(|| {
            let outcome = self.gate.call(|| runtime::block_on(attempt()));
            outcome.unwrap_or_else(|cause| {
                Err(self.error(
                    operation,
                    b"",
                    Refusal::new(ErrorKind::Permanent, Reason::Other, cause),
                ))
            })
        })
    }

    pub fn error(&self, operation: Operation, key: &[u8], refusal: Refusal) -> StorageError {
        let name = String::from_utf8_lossy(key);
        let right = (self.setup.right)(operation);
        refusal.into_error(operation, &self.setup.description, &name, right)
    }

    /// Makes an error of an answer that is none of the store's, for now.
    pub fn strange(
        &self,
        operation: Operation,
        key: &[u8],
        why: impl Into<String>,
    ) -> StorageError {
        let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
        self.error(operation, key, refusal)
    }

    /// Waits until so many bytes may be sent.
    pub fn pay_for_upload(&self, bytes: usize) {
        self.gate.upload.wait();
        self.gate.upload.owe(bytes);
    }

    /// Sends a request; what is no success comes back as it was refused.
    pub async fn send(
        &self,
        operation: Operation,
        asked: Asked,
        wanted: &Wanted<'_>,
    ) -> std::result::Result<HttpResponse, Failed> {
        let key = wanted.key.unwrap_or_default();
        let other = |refusal| Failed::Other(self.error(operation, key, refusal));
        let request = self
            .signed(operation, wanted)
            .await
            .map_err(Failed::Other)?;
        let response = self.setup.client.send(request).await.map_err(other)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let (parts, body) = response.into_parts();
        let (words, retry_after) = super::client::words_of(&parts.headers, body).await;
        let refusal = refusal::of_answer(asked, status, &words, retry_after);
        Err(Failed::Refused(status, words.code, refusal))
    }

    /// Sends a request whose refusal is an error.
    pub async fn sent(
        &self,
        operation: Operation,
        asked: Asked,
        wanted: &Wanted<'_>,
    ) -> Result<HttpResponse> {
        let outcome = self.send(operation, asked, wanted).await;
        outcome.map_err(|failed| match failed {
            Failed::Refused(_, _, refusal) => {
                self.error(operation, wanted.key.unwrap_or_default(), refusal)
            }
            Failed::Other(error) => error,
        })
    }

    /// Makes a request and signs it.
    async fn signed(&self, operation: Operation, wanted: &Wanted<'_>) -> Result<HttpRequest> {
        let key = wanted.key.unwrap_or_default();
        let wrong = |cause: String| {
            let refusal = Refusal::new(ErrorKind::Permanent, Reason::Settings, cause);
            self.error(operation, key, refusal)
        };
        let path = match wanted.key {
            Some(key) => urls::path(&self.setup.prefix, key).map_err(wrong)?,
            None => String::new(),
        };
        let url = format!("{}{path}{}", self.setup.base, urls::query(&wanted.query));
        let body = match wanted.body.is_empty() {
            true => HttpRequestBody::empty(),
            false => HttpRequestBody::from(wanted.body.clone()),
        };
        let mut request = http::Request::new(body);
        *request.method_mut() = wanted.method.clone();
        *request.uri_mut() = url
            .parse()
            .map_err(|_| wrong("its key makes no URL".to_owned()))?;
        for (name, value) in &wanted.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_bytes(value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(wrong("its metadata cannot stand in a header".to_owned()));
            };
            request.headers_mut().append(name, value);
        }
        let failed = |error: object_store::Error| {
            let right = (self.setup.right)(operation);
            let name = String::from_utf8_lossy(key);
            explain(operation, &self.setup.description, &name, right, &error)
        };
        match &self.setup.signer {
            Signer::Aws(credentials, region, payer) => {
                let digest: [u8; 32] = Sha256::digest(&wanted.body).into();
                let found = credentials.get_credential().await.map_err(failed)?;
                // A part may have one only if its upload was begun with one.
                let is_whole = wanted.method == Method::PUT && wanted.query.is_empty();
                if self.setup.with_checksum && is_whole {
                    let sum = BASE64.encode(digest);
                    if let Ok(sum) = HeaderValue::from_str(&sum) {
                        request.headers_mut().insert("x-amz-checksum-sha256", sum);
                    }
                }
                AwsAuthorizer::new(&found, "s3", region)
                    .with_request_payer(*payer)
                    .try_authorize(&mut request, Some(&digest))
                    .map_err(failed)?;
            }
            Signer::Google(credentials) => {
                let found = credentials.get_credential().await.map_err(failed)?;
                if !found.bearer.is_empty() {
                    let bearer = HeaderValue::from_str(&format!("Bearer {}", found.bearer));
                    let mut bearer =
                        bearer.map_err(|_| wrong("the token is no header".to_owned()))?;
                    bearer.set_sensitive(true);
                    request
                        .headers_mut()
                        .insert(http::header::AUTHORIZATION, bearer);
                }
            }
            Signer::Azure(credentials, account) => {
                // Who signs takes headers for text.
                let mut values = request.headers().values();
                if values.any(|value| value.to_str().is_err()) {
                    let why = "its metadata is not ASCII, as that of this store is";
                    return Err(wrong(why.to_owned()));
                }
                let found = credentials.get_credential().await.map_err(failed)?;
                AzureAuthorizer::new(&found, account)
                    .try_authorize(&mut request)
                    .map_err(failed)?;
            }
        }
        Ok(request)
    }

    fn names(&self) -> Names {
        match self.setup.signer {
            Signer::Aws(..) => Names {
                own: "x-amz-",
                plain: "",
                tags: Some("x-amz-tagging"),
                class: "x-amz-storage-class",
            },
            Signer::Google(_) => Names {
                own: "x-goog-",
                plain: "",
                tags: None,
                class: "x-goog-storage-class",
            },
            Signer::Azure(..) => Names {
                own: "x-ms-",
                plain: "x-ms-blob-",
                tags: Some("x-ms-tags"),
                class: "x-ms-access-tier",
            },
        }
    }

    /// Gives the headers that an object is stored with.
    pub fn headers_of(&self, properties: &Properties) -> Vec<(String, Vec<u8>)> {
        let names = self.names();
        let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
        let (mut tags, mut class) = (Vec::new(), None);
        for (name, value) in properties {
            let text = String::from_utf8_lossy(name);
            if text == "expires" && !names.plain.is_empty() {
                // Where headers have names of the store's, there is none for this one.
                continue;
            }
            if HEADERS.contains(&text.as_ref()) {
                headers.push((format!("{}{text}", names.plain), value.clone()));
            } else if text == CLASS {
                class = Some(value.clone());
            } else if let Some(name) = text.strip_prefix("meta/") {
                headers.push((format!("{}meta-{name}", names.own), value.clone()));
            } else if let Some(key) = text.strip_prefix("tag/") {
                let value = String::from_utf8_lossy(value);
                tags.push(format!("{}={}", urls::strict(key), urls::strict(&value)));
            }
        }
        if let Some(name) = names.tags.filter(|_| !tags.is_empty()) {
            headers.push((name.to_owned(), tags.join("&").into_bytes()));
        }
        for (name, value) in &self.setup.stored_with {
            headers.push(((*name).to_owned(), value.clone().into_bytes()));
        }
        if let Some(class) = class
            && !headers.iter().any(|(name, _)| name == names.class)
        {
            headers.push((names.class.to_owned(), class));
        }
        headers
    }

    /// Reads an object, or a version of it, or a part.
    pub fn get(&self, key: &[u8], ask: &Ask<'_>, version: Option<&str>) -> Result<Answer> {
        self.gate.download.wait();
        let outcome = self.run(Operation::Get, || self.got(key, ask, version));
        if let Ok(Answer::Object(got)) = &outcome {
            self.gate.download.owe(got.bytes.len());
        }
        outcome
    }

    async fn got(&self, key: &[u8], ask: &Ask<'_>, version: Option<&str>) -> Result<Answer> {
        let mut headers = Vec::new();
        if let Some((offset, length)) = ask.range {
            let last = offset.saturating_add(length.max(1)) - 1;
            headers.push((
                "range".to_owned(),
                format!("bytes={offset}-{last}").into_bytes(),
            ));
        }
        if let Some(etag) = ask.if_match {
            headers.push(("if-match".to_owned(), format!("\"{etag}\"").into_bytes()));
        }
        if matches!(self.setup.signer, Signer::Google(_)) {
            // It unpacks what was stored as gzip, unless it is told that gzip is welcome.
            headers.push(("accept-encoding".to_owned(), b"identity, gzip".to_vec()));
        }
        let wanted = Wanted {
            key: Some(key),
            query: version.map(|id| ("versionId", id)).into_iter().collect(),
            headers,
            ..Wanted::default()
        };
        let response = match self.send(Operation::Get, Asked::Read, &wanted).await {
            Ok(response) => response,
            Err(Failed::Refused(status, code, refusal)) => {
                return match (status, code.as_str()) {
                    (_, "InvalidObjectState" | "BlobArchived" | "BlobBeingRehydrated") => {
                        Ok(Answer::Cold)
                    }
                    (412 | 416, _) => Ok(Answer::Changed),
                    _ if refusal.kind == ErrorKind::NotFound
                        && refusal.reason != Reason::NoBucket =>
                    {
                        Ok(Answer::Missing)
                    }
                    _ => Err(self.error(Operation::Get, key, refusal)),
                };
            }
            Err(Failed::Other(error)) => return Err(error),
        };
        let (parts, body) = response.into_parts();
        let facts = Facts::read(&parts.headers, self.names().own);
        let broken = |why: &str| self.strange(Operation::Get, key, why);
        let Some(length) = facts.length else {
            return Err(broken("the answer does not say how long it is"));
        };
        if facts.etag.is_empty() && facts.modified.is_none() {
            return Err(broken(
                "the answer is no object's: it has neither tag nor time",
            ));
        }
        // Behind the end of an object some servers have an empty range, and others none.
        let is_behind_end = length == 0 && facts.range.is_some();
        if length > ask.bytes_max || is_behind_end {
            return Ok(Answer::Changed);
        }
        if let (Some((offset, _)), Some((first, _))) = (ask.range, facts.range)
            && first != offset
        {
            return Err(broken("the answer is another range than was asked for"));
        }
        if ask.range.is_some_and(|(offset, _)| offset > 0) && facts.range.is_none() {
            return Err(broken("the answer is no range"));
        }
        let bytes =
            super::client::collect(body, usize::try_from(length).unwrap_or(usize::MAX)).await;
        let bytes = bytes
            .map_err(|error| self.error(Operation::Get, key, super::client::cut_short(error)))?;
        if bytes.len() as u64 != length {
            return Err(broken("the answer broke off"));
        }
        let mut properties = facts.properties;
        if facts.tags > 0 && ask.range.is_none_or(|(offset, _)| offset == 0) {
            properties.extend(self.tags_of(key, version).await?);
        }
        Ok(Answer::Object(Box::new(Got {
            bytes: bytes.into(),
            size: facts.range.map_or(length, |(_, whole)| whole),
            modified: facts.modified,
            etag: facts.etag,
            version: facts.version,
            properties,
        })))
    }

    /// Tells whether objects have tags here at all.
    pub fn has_tags(&self) -> bool {
        self.names().tags.is_some()
    }

    /// Gives the tags of an object, as properties; none if there is no such object.
    pub fn tags(&self, key: &[u8]) -> Result<Option<Properties>> {
        match self.run(Operation::Get, || self.tags_of(key, None)) {
            Err(error) if error.kind == ErrorKind::NotFound && error.reason != Reason::NoBucket => {
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    async fn tags_of(&self, key: &[u8], version: Option<&str>) -> Result<Properties> {
        let query = match self.setup.signer {
            Signer::Azure(..) => ("comp", "tags"),
            Signer::Aws(..) | Signer::Google(_) => ("tagging", ""),
        };
        let wanted = Wanted {
            key: Some(key),
            query: version
                .map(|id| ("versionId", id))
                .into_iter()
                .chain([query])
                .collect(),
            ..Wanted::default()
        };
        let text = self.text(Operation::Get, Asked::Part, &wanted).await?;
        let tags = pages::tags(&text).map_err(|why| self.strange(Operation::Get, key, why))?;
        let tags = tags.into_iter();
        Ok(tags
            .map(|(name, value)| ([b"tag/", name.as_bytes()].concat(), value.into_bytes()))
            .collect())
    }

    /// Sends a request whose answer is text; one that says that it is an error is one.
    pub async fn text(
        &self,
        operation: Operation,
        asked: Asked,
        wanted: &Wanted<'_>,
    ) -> Result<String> {
        let key = wanted.key.unwrap_or_default();
        let most = match asked {
            Asked::Listing => PAGE_BYTES_MAX,
            _ if operation == Operation::List => PAGE_BYTES_MAX,
            _ => WORDS_BYTES_MAX,
        };
        let (parts, body) = self.sent(operation, asked, wanted).await?.into_parts();
        let broken = |error| self.error(operation, key, super::client::cut_short(error));
        let bytes = super::client::collect(body, most).await.map_err(broken)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| self.strange(operation, key, "the answer is no text in UTF-8"))?;
        if asked != Asked::Listing && text.contains("<Error>") {
            let status = parts.status.as_u16();
            let refusal = refusal::of_answer(asked, status, &Words::read(&text), None);
            return Err(self.error(operation, key, refusal));
        }
        Ok(text)
    }

    /// Writes an object, of which the answer has to have an ETag.
    pub fn put(&self, key: &[u8], wanted: &Wanted<'_>) -> Result<()> {
        self.run(Operation::Put, || async {
            let sent = self.sent(Operation::Put, Asked::Write, wanted).await?;
            if sent.headers().contains_key(http::header::ETAG) {
                return Ok(());
            }
            let why = "what answers there stored nothing: it gives no tag of the object";
            Err(self.strange(Operation::Put, key, why))
        })
    }

    /// Removes an object; one that is not there is removed already.
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        let wanted = Wanted {
            method: Method::DELETE,
            key: Some(key),
            ..Wanted::default()
        };
        let deleted = self.run(Operation::Delete, || async {
            self.sent(Operation::Delete, Asked::Delete, &wanted)
                .await
                .map(drop)
        });
        match deleted {
            Err(error) if error.kind == ErrorKind::NotFound && error.reason != Reason::NoBucket => {
                Ok(())
            }
            outcome => outcome,
        }
    }
}
