//! The user's own buckets: S3 and its compatibles, and Google Cloud by its API of the same kind.
//!
//! `object_store` refuses or changes many keys that buckets have, so requests are made here, over
//! its signatures and credentials and the same client.

use std::fmt;
use std::future::Future;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse};
use object_store::gcp::GcpCredentialProvider;
use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::facts::Facts;
use super::pages;
use super::refusal::{self, Ask as Asked, Refusal, Words, explain};
use super::urls;
use crate::bucket::{
    Answer, Ask, Bucket, CLASS, Got, HEADERS, OpenUpload, Page, PageFrom, Properties, Upload,
};
use crate::error::{ErrorKind, Operation, Reason, Result, StorageError};
use crate::limit::Gate;
use crate::network::Network;
use crate::runtime;

/// The most bytes of a page of a listing.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// The most bytes of any other answer that is no object.
const WORDS_BYTES_MAX: usize = 1 << 20;
/// The most pages of open uploads that are asked for, of 1,000 each.
const UPLOAD_PAGES_MAX: usize = 10;

/// How requests show who asks.
pub(super) enum Signer {
    /// By signature, in a region; the last says whether who asks pays.
    Aws(AwsCredentialProvider, String, bool),
    /// By a token.
    Google(GcpCredentialProvider),
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

/// A bucket of the user's.
pub(super) struct CloudBucket {
    setup: Setup,
    gate: Gate,
}

impl fmt::Debug for CloudBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudBucket({})", self.setup.description)
    }
}

/// A request before it is signed.
#[derive(Default)]
struct Wanted<'a> {
    method: Method,
    key: Option<&'a [u8]>,
    query: Vec<(&'a str, &'a str)>,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
}

/// Why a request gave nothing.
enum Failed {
    /// The bucket refused, with its own word for it.
    Refused(u16, String, Refusal),
    /// It was not reached, or not understood.
    Other(StorageError),
}

impl CloudBucket {
    pub(super) fn new(setup: Setup) -> Self {
        let gate = Gate::new(&setup.network);
        Self { setup, gate }
    }

    /// Tries until patience ends; each try has one of the connections.
    fn run<T, F: Future<Output = Result<T>>>(
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

    fn error(&self, operation: Operation, key: &[u8], refusal: Refusal) -> StorageError {
        let name = String::from_utf8_lossy(key);
        let right = (self.setup.right)(operation);
        refusal.into_error(operation, &self.setup.description, &name, right)
    }

    /// Sends a request; what is no success comes back as it was refused.
    async fn send(
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
    async fn sent(
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
        let digest: [u8; 32] = Sha256::digest(&wanted.body).into();
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
        let failed = |error: &object_store::Error| {
            let right = (self.setup.right)(operation);
            let name = String::from_utf8_lossy(key);
            explain(operation, &self.setup.description, &name, right, error)
        };
        match &self.setup.signer {
            Signer::Aws(credentials, region, payer) => {
                let found = credentials
                    .get_credential()
                    .await
                    .map_err(|error| failed(&error))?;
                // A part may have one only if its upload was begun with one.
                let is_whole = wanted.method == Method::PUT && wanted.query.is_empty();
                if self.setup.with_checksum && is_whole {
                    let sum = base64::engine::general_purpose::STANDARD.encode(digest);
                    if let Ok(sum) = HeaderValue::from_str(&sum) {
                        request.headers_mut().insert("x-amz-checksum-sha256", sum);
                    }
                }
                AwsAuthorizer::new(&found, "s3", region)
                    .with_request_payer(*payer)
                    .try_authorize(&mut request, Some(&digest))
                    .map_err(|error| failed(&error))?;
            }
            Signer::Google(credentials) => {
                let found = credentials
                    .get_credential()
                    .await
                    .map_err(|error| failed(&error))?;
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
        }
        Ok(request)
    }

    /// The names that this store gives to its own headers.
    fn own(&self) -> &'static str {
        match self.setup.signer {
            Signer::Aws(..) => "x-amz-",
            Signer::Google(_) => "x-goog-",
        }
    }

    /// Gives the headers that an object is stored with.
    fn headers_of(&self, properties: &Properties) -> Vec<(String, Vec<u8>)> {
        let own = self.own();
        let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
        let (mut tags, mut class) = (Vec::new(), None);
        for (name, value) in properties {
            let text = String::from_utf8_lossy(name);
            if HEADERS.contains(&text.as_ref()) {
                headers.push((text.into_owned(), value.clone()));
            } else if text == CLASS {
                class = Some(value.clone());
            } else if let Some(name) = text.strip_prefix("meta/") {
                headers.push((format!("{own}meta-{name}"), value.clone()));
            } else if let Some(key) = text.strip_prefix("tag/") {
                let value = String::from_utf8_lossy(value);
                tags.push(format!("{}={}", urls::strict(key), urls::strict(&value)));
            }
        }
        if !tags.is_empty() && matches!(self.setup.signer, Signer::Aws(..)) {
            headers.push(("x-amz-tagging".to_owned(), tags.join("&").into_bytes()));
        }
        for (name, value) in &self.setup.stored_with {
            headers.push(((*name).to_owned(), value.clone().into_bytes()));
        }
        let class_header = format!("{own}{CLASS}");
        if let Some(class) = class
            && !headers.iter().any(|(name, _)| *name == class_header)
        {
            headers.push((class_header, class));
        }
        headers
    }

    async fn got(&self, key: &[u8], ask: &Ask<'_>) -> Result<Answer> {
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
            headers,
            ..Wanted::default()
        };
        let response = match self.send(Operation::Get, Asked::Read, &wanted).await {
            Ok(response) => response,
            Err(Failed::Refused(status, code, refusal)) => {
                return match (status, code.as_str()) {
                    (_, "InvalidObjectState") => Ok(Answer::Cold),
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
        let facts = Facts::read(&parts.headers, self.own());
        let broken = |why: &str| {
            let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
            self.error(Operation::Get, key, refusal)
        };
        let Some(length) = facts.length else {
            return Err(broken("the answer does not say how long it is"));
        };
        if facts.etag.is_empty() && facts.modified.is_none() {
            return Err(broken(
                "the answer is no object's: it has neither tag nor time",
            ));
        }
        if length > ask.bytes_max {
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
            for (name, value) in self.tags(key).await? {
                properties.insert([b"tag/", name.as_bytes()].concat(), value.into_bytes());
            }
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

    async fn tags(&self, key: &[u8]) -> Result<Vec<(String, String)>> {
        let wanted = Wanted {
            key: Some(key),
            query: vec![("tagging", "")],
            ..Wanted::default()
        };
        let text = self.text(Operation::Get, Asked::Part, &wanted).await?;
        pages::tags(&text).map_err(|why| {
            let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
            self.error(Operation::Get, key, refusal)
        })
    }

    /// Sends a request whose answer is text; one that says that it is an error is one.
    async fn text(
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
        let text = String::from_utf8(bytes).map_err(|_| {
            let why = "the answer is no text in UTF-8";
            let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
            self.error(operation, key, refusal)
        })?;
        if asked != Asked::Listing && text.contains("<Error>") {
            let status = parts.status.as_u16();
            let refusal = refusal::of_answer(asked, status, &Words::read(&text), None);
            return Err(self.error(operation, key, refusal));
        }
        Ok(text)
    }
}

impl Bucket for CloudBucket {
    fn page(&self, from: PageFrom<'_>) -> Result<Page> {
        let mut query = vec![("encoding-type", "url"), ("list-type", "2")];
        if !self.setup.prefix.is_empty() {
            query.push(("prefix", &self.setup.prefix));
        }
        let behind;
        match from {
            PageFrom::Start => {}
            PageFrom::Next(token) => query.push(("continuation-token", token)),
            PageFrom::Behind(key) => {
                behind = [&self.setup.prefix, &*String::from_utf8_lossy(key)].concat();
                query.push(("start-after", &behind));
            }
        }
        query.sort_unstable();
        let wanted = Wanted {
            query,
            ..Wanted::default()
        };
        self.run(Operation::List, || async {
            let text = self.text(Operation::List, Asked::Listing, &wanted).await?;
            pages::page(&text, &self.setup.prefix).map_err(|why| {
                let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
                self.error(Operation::List, b"", refusal)
            })
        })
    }

    fn get(&self, key: &[u8], ask: &Ask<'_>) -> Result<Answer> {
        self.gate.download.wait();
        let outcome = self.run(Operation::Get, || self.got(key, ask));
        if let Ok(Answer::Object(got)) = &outcome {
            self.gate.download.owe(got.bytes.len());
        }
        outcome
    }

    fn put(&self, key: &[u8], bytes: Bytes, properties: &Properties) -> Result<()> {
        self.gate.upload.wait();
        self.gate.upload.owe(bytes.len());
        let wanted = Wanted {
            method: Method::PUT,
            key: Some(key),
            headers: self.headers_of(properties),
            body: bytes,
            ..Wanted::default()
        };
        self.run(Operation::Put, || async {
            let sent = self.sent(Operation::Put, Asked::Write, &wanted).await?;
            if sent.headers().contains_key(http::header::ETAG) {
                return Ok(());
            }
            let why = "what answers there stored nothing: it gives no tag of the object";
            let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
            Err(self.error(Operation::Put, key, refusal))
        })
    }

    fn begin(&self, key: &[u8], properties: &Properties) -> Result<Upload> {
        let wanted = Wanted {
            method: Method::POST,
            key: Some(key),
            query: vec![("uploads", "")],
            headers: self.headers_of(properties),
            ..Wanted::default()
        };
        self.run(Operation::Put, || async {
            let text = self.text(Operation::Put, Asked::Part, &wanted).await?;
            pages::upload_id(&text).map(Upload).ok_or_else(|| {
                let why = "the answer names no upload";
                let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
                self.error(Operation::Put, key, refusal)
            })
        })
    }

    fn part(&self, key: &[u8], upload: &Upload, number: u32, bytes: Bytes) -> Result<String> {
        self.gate.upload.wait();
        self.gate.upload.owe(bytes.len());
        let number = number.to_string();
        let wanted = Wanted {
            method: Method::PUT,
            key: Some(key),
            query: vec![
                ("partNumber", number.as_str()),
                ("uploadId", upload.0.as_str()),
            ],
            body: bytes,
            ..Wanted::default()
        };
        self.run(Operation::Put, || async {
            let sent = self.sent(Operation::Put, Asked::Part, &wanted).await?;
            let etag = sent.headers().get(http::header::ETAG);
            let etag = etag.and_then(|value| value.to_str().ok());
            etag.map(str::to_owned).ok_or_else(|| {
                let why = "the part has no tag";
                let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
                self.error(Operation::Put, key, refusal)
            })
        })
    }

    fn complete(&self, key: &[u8], upload: &Upload, parts: &[String]) -> Result<()> {
        let wanted = Wanted {
            method: Method::POST,
            key: Some(key),
            query: vec![("uploadId", upload.0.as_str())],
            body: pages::complete(parts).into(),
            ..Wanted::default()
        };
        self.run(Operation::Put, || async {
            self.text(Operation::Put, Asked::Part, &wanted)
                .await
                .map(drop)
        })
    }

    fn abort(&self, key: &[u8], upload: &Upload) -> Result<()> {
        let wanted = Wanted {
            method: Method::DELETE,
            key: Some(key),
            query: vec![("uploadId", upload.0.as_str())],
            ..Wanted::default()
        };
        self.run(Operation::Delete, || async {
            self.sent(Operation::Delete, Asked::Delete, &wanted)
                .await
                .map(drop)
        })
    }

    fn uploads(&self) -> Result<Vec<OpenUpload>> {
        let mut found = Vec::new();
        let mut next: Option<(String, String)> = None;
        for _ in 0..UPLOAD_PAGES_MAX {
            let mut query = vec![("encoding-type", "url"), ("uploads", "")];
            if !self.setup.prefix.is_empty() {
                query.push(("prefix", &self.setup.prefix));
            }
            if let Some((key, id)) = &next {
                query.push(("key-marker", key));
                query.push(("upload-id-marker", id));
            }
            query.sort_unstable();
            let wanted = Wanted {
                query,
                ..Wanted::default()
            };
            let page = self.run(Operation::List, || async {
                let text = self.text(Operation::List, Asked::Part, &wanted).await?;
                pages::uploads(&text, &self.setup.prefix).map_err(|why| {
                    let refusal = Refusal::new(ErrorKind::Transient, Reason::Protocol, why);
                    self.error(Operation::List, b"", refusal)
                })
            })?;
            found.extend(page.open);
            match page.next {
                Some(marker) if next.as_ref() != Some(&marker) => next = Some(marker),
                _ => break,
            }
        }
        Ok(found)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
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

    fn calls_at_once(&self) -> usize {
        self.setup.network.connections
    }

    fn describe(&self) -> String {
        self.setup.description.clone()
    }
}
