//! The HTTP client below object_store: it watches what servers answer.
//!
//! Every answer that is no success leaves it as a [`Refusal`], so that one place decides what an answer
//! means, and object_store's own retries see nothing to retry. It also refuses answers that look like
//! a success and are none.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{Either, poll_fn, select};
use http_body::{Body, Frame, SizeHint};
use md5::{Digest as _, Md5 as Hasher};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::Url;
use reqwest::header::{ETAG, HeaderMap, RETRY_AFTER};
use tokio::time::{Instant, Sleep, sleep_until};

use super::listing;
use super::refusal::{self, Ask, Refusal, Words};
use crate::error::{ErrorKind, Reason};
use crate::network::{self, Contact, Network};

/// The most bytes of an error's body that are read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// The most bytes of a page of a listing; 1,000 (Azure: 5,000) of the longest names have a few MiB.
const LISTING_BYTES_MAX: usize = 32 << 20;
/// The pieces in which a body is sent; each that leaves shows that the other side still takes.
const PIECE_BYTES: usize = 64 << 10;

/// How a damaged upload is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Md5 {
    /// By a signature over the body, which is made elsewhere.
    Off,
    /// The storage is told the sum, and refuses what has another one.
    Send,
    /// The storage tells the sum of what it stored, which is compared.
    Compare,
}

/// The client; cheap to clone.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    /// Host and port of the storage itself; what goes elsewhere asks for credentials.
    storage: String,
    silence: Duration,
    md5: Md5,
    contact: Contact,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.storage)
    }
}

impl Client {
    /// Makes a client for a storage at `url`.
    ///
    /// # Errors
    /// In words: when certificates or proxy make no sense.
    pub fn new(network: &Network, url: &Url, md5: Md5) -> Result<Self, String> {
        Ok(Self(Arc::new(Inner {
            http: reqwest_client(network)?,
            storage: authority(url),
            silence: network.read_timeout,
            md5,
            contact: network.contact.clone(),
        })))
    }

    /// Sends a request, and fails when the other side neither takes nor gives anything for too long.
    pub async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Refusal> {
        let (parts, body) = request.into_parts();
        let wrong = |_| Refusal::new(ErrorKind::Permanent, Reason::Settings, "the URL is wrong");
        let url = Url::parse(&parts.uri.to_string()).map_err(wrong)?;
        let host = authority(&url);
        let progress = Arc::new(Progress::new());
        let mut outgoing = reqwest::Request::new(parts.method, url);
        *outgoing.headers_mut() = parts.headers;
        *outgoing.body_mut() = Some(paced(body, &progress).await?);
        let answer = pin!(self.0.http.execute(outgoing));
        let response = match progress.watch(answer, self.0.silence).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(self.silent(&error, &host)),
            None => {
                let seconds = self.0.silence.as_secs();
                let cause = format!("{host} was silent for {seconds} s");
                return Err(Refusal::new(
                    ErrorKind::Transient,
                    Reason::Unreachable,
                    cause,
                ));
            }
        };
        if host == self.0.storage {
            self.0.contact.made();
        }
        let response: http::Response<reqwest::Body> = response.into();
        let (parts, body) = response.into_parts();
        let body = HttpResponseBody::new(Incoming::new(body, self.0.silence));
        Ok(HttpResponse::from_parts(parts, body))
    }

    fn silent(&self, error: &reqwest::Error, host: &str) -> Refusal {
        let kind = self.0.contact.kind_of_failure();
        refusal::of_silence(error, host, error.is_connect(), kind)
    }

    /// Tells what a request asks, by its method and URL.
    fn ask(&self, request: &HttpRequest) -> Ask {
        let authority = request
            .uri()
            .authority()
            .map(|authority| authority.as_str());
        let storage = self.0.storage.as_str();
        let is_storage = authority.is_some_and(|authority| {
            authority == storage
                || storage.strip_suffix(":443") == Some(authority)
                || storage.strip_suffix(":80") == Some(authority)
        });
        let query = request.uri().query().unwrap_or_default();
        let has = |pair: &str| query.split('&').any(|found| found == pair);
        let is_part =
            query.contains("uploadId=") || has("comp=block") || has("uploads") || has("uploads=");
        match request.method().as_str() {
            _ if !is_storage => Ask::Credentials,
            "GET" if has("list-type=2") || has("comp=list") => Ask::Listing,
            "GET" | "HEAD" => Ask::Read,
            "DELETE" => Ask::Delete,
            // Azure deletes by posting a batch.
            "POST" if has("comp=batch") => Ask::Delete,
            _ if is_part => Ask::Part,
            _ => Ask::Write,
        }
    }

    async fn checked(&self, ask: Ask, response: HttpResponse) -> Result<HttpResponse, Refusal> {
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        if !parts.status.is_success() {
            return Err(refused(ask, status, &parts.headers, body).await);
        }
        match ask {
            Ask::Listing => {
                let page = collect(body, LISTING_BYTES_MAX).await.map_err(cut_short)?;
                let page = String::from_utf8(page)
                    .map_err(|_| no_such("the listing is no text in UTF-8"))?;
                let page = listing::checked(&page).map_err(|why| no_such(&why))?;
                Ok(HttpResponse::from_parts(parts, page.into()))
            }
            // What stands in an object's place (an error, a page of a proxy) has no tag of its content.
            Ask::Read | Ask::Write if !parts.headers.contains_key(ETAG) => {
                let refusal = refused(ask, status, &parts.headers, body).await;
                let cause = match refusal.cause {
                    cause if refusal.kind == ErrorKind::Transient => cause,
                    cause => format!("the answer is no object's: {cause}"),
                };
                Err(Refusal {
                    kind: ErrorKind::Transient,
                    cause,
                    ..refusal
                })
            }
            Ask::Delete if parts.headers.get("content-type").is_some_and(is_batch) => {
                let text = collect(body, REFUSAL_BYTES_MAX).await.map_err(cut_short)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                batch_outcome(&text)?;
                Ok(HttpResponse::from_parts(parts, text.into()))
            }
            Ask::Part | Ask::Delete if parts.headers.get("content-type").is_some_and(is_xml) => {
                let text = collect(body, REFUSAL_BYTES_MAX).await.map_err(cut_short)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                if text.contains("<Error>") {
                    return Err(refusal::of_answer(ask, status, &Words::read(&text), None));
                }
                Ok(HttpResponse::from_parts(parts, text.into()))
            }
            _ => Ok(HttpResponse::from_parts(parts, body)),
        }
    }
}

fn is_batch(value: &http::HeaderValue) -> bool {
    value
        .to_str()
        .is_ok_and(|value| value.contains("multipart/mixed"))
}

/// Reads what became of the one deletion in a batch.
fn batch_outcome(text: &str) -> Result<(), Refusal> {
    let status = text.lines().find_map(|line| {
        let (_, rest) = line.trim().split_once("HTTP/1.1 ")?;
        rest.get(..3)?.parse::<u16>().ok()
    });
    let code = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-ms-error-code")
            .then(|| value.trim().to_owned())
    });
    match status {
        Some(200..=299) => Ok(()),
        Some(status) => {
            let words = Words {
                code: code.unwrap_or_default(),
                ..Words::default()
            };
            Err(refusal::of_answer(Ask::Delete, status, &words, None))
        }
        None => Err(no_such(
            "the answer does not say what became of the deletion",
        )),
    }
}

fn is_xml(value: &http::HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.contains("xml"))
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let ask = self.ask(&request);
        let mut request = request;
        let is_upload =
            self.0.md5 != Md5::Off && ask == Ask::Write && *request.method() == http::Method::PUT;
        let sum = if is_upload {
            md5_of(request.body()).await
        } else {
            None
        };
        if let Some(sum) = &sum
            && self.0.md5 == Md5::Send
        {
            request.headers_mut().insert("content-md5", sum.clone());
        }
        let outcome = match self.send(request).await {
            Ok(response) => self.checked(ask, response).await.and_then(|response| {
                let stored = response.headers().get("content-md5");
                match (&sum, stored) {
                    (Some(sum), Some(stored)) if stored != sum => Err(Refusal::new(
                        ErrorKind::Transient,
                        Reason::Other,
                        "what the storage stored is not what was sent",
                    )),
                    _ => Ok(response),
                }
            }),
            Err(refusal) => Err(refusal),
        };
        outcome.map_err(|refusal| HttpError::new(HttpErrorKind::Unknown, refusal))
    }
}

impl HttpConnector for Client {
    fn connect(&self, _everything_is_set: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

fn reqwest_client(network: &Network) -> Result<reqwest::Client, String> {
    network::choose_cryptography();
    let mut builder = reqwest::Client::builder()
        .user_agent(&network.user_agent)
        .connect_timeout(network.connect_timeout)
        .pool_max_idle_per_host(network.connections)
        // One connection for each request that is under way: what several share is slower.
        .http1_only()
        // A redirect would take signed requests to where they were not signed for.
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true);
    if let Some(pem) = &network.ca_certificates {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
            .map_err(|error| format!("the certificates of ca-certificate are no PEM: {error}"))?;
        builder = builder.tls_certs_merge(certificates);
    }
    if network.skip_verification {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder = match network.proxy.as_deref() {
        Some("none") => builder.no_proxy(),
        // The text itself is not repeated: it may hold a password.
        Some(url) => builder
            .proxy(reqwest::Proxy::all(url).map_err(|_| "the setting proxy is no URL".to_owned())?),
        None => builder,
    };
    builder
        .build()
        .map_err(|error| format!("no HTTP client can be made: {error}"))
}

/// Gives host and port of a URL.
fn authority(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

async fn refused(ask: Ask, status: u16, headers: &HeaderMap, body: HttpResponseBody) -> Refusal {
    let (words, retry_after) = words_of(headers, body).await;
    refusal::of_answer(ask, status, &words, retry_after)
}

/// Reads what an answer that is no success says, and how long it asks to wait.
pub(super) async fn words_of(
    headers: &HeaderMap,
    body: HttpResponseBody,
) -> (Words, Option<Duration>) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // An answer whose words cannot be had has its status still.
    let body = collect(body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let mut words = Words::read(&String::from_utf8_lossy(&body));
    if words.code.is_empty() {
        words.code = text("x-ms-error-code").unwrap_or_default().to_owned();
    }
    if let Some(region) = text("x-amz-bucket-region") {
        words.region = region.to_owned();
    }
    let asked = text(RETRY_AFTER.as_str());
    let retry_after = asked.and_then(|header| refusal::retry_after(header, SystemTime::now()));
    (words, retry_after)
}

/// Says that an answer broke off.
pub(super) fn cut_short(error: HttpError) -> Refusal {
    let cause = format!("the answer broke off ({error})");
    Refusal::new(ErrorKind::Transient, Reason::Unreachable, cause)
}

fn no_such(why: &str) -> Refusal {
    Refusal::new(ErrorKind::Transient, Reason::Protocol, why)
}

/// Reads a body; one that is longer than it may be is an error.
pub(super) async fn collect(
    body: HttpResponseBody,
    bytes_max: usize,
) -> Result<Vec<u8>, HttpError> {
    let mut stream = body.bytes_stream();
    let mut collected = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        if collected.len() + piece.len() > bytes_max {
            let error = io::Error::other("it is too long");
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        collected.extend_from_slice(&piece);
    }
    Ok(collected)
}

/// When a request last moved.
struct Progress {
    begin: Instant,
    last_ms: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }

    fn note(&self) {
        let elapsed = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.begin + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Waits for an answer; `None` when nothing moved for so long.
    async fn watch<F: Future + Unpin>(
        &self,
        mut answer: F,
        silence: Duration,
    ) -> Option<F::Output> {
        loop {
            let end = self.last() + silence;
            match select(answer, pin!(sleep_until(end))).await {
                Either::Left((output, _)) => return Some(output),
                Either::Right(((), unfinished)) => {
                    if self.last() + silence <= Instant::now() {
                        return None;
                    }
                    answer = unfinished;
                }
            }
        }
    }
}

/// Turns a request's body into one that is sent in small pieces.
async fn paced(
    mut body: HttpRequestBody,
    progress: &Arc<Progress>,
) -> Result<reqwest::Body, Refusal> {
    let mut pieces = Vec::new();
    // Everything is there already: nothing here waits.
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let cause = "the request has no body";
        let frame = frame.map_err(|_| Refusal::new(ErrorKind::Permanent, Reason::Other, cause))?;
        pieces.extend(frame.into_data().ok().filter(|piece| !piece.is_empty()));
    }
    if pieces.is_empty() {
        return Ok(Bytes::new().into());
    }
    pieces.reverse();
    Ok(reqwest::Body::wrap(Outgoing {
        pieces,
        progress: Arc::clone(progress),
    }))
}

/// Gives the MD5 of a body as its header has it.
async fn md5_of(body: &HttpRequestBody) -> Option<http::HeaderValue> {
    let mut body = body.clone();
    let mut hasher = Hasher::new();
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        hasher.update(frame.data_ref()?);
    }
    let sum = base64::engine::general_purpose::STANDARD.encode(hasher.finalize());
    http::HeaderValue::from_str(&sum).ok()
}

struct Outgoing {
    /// What is still to be sent, the next one last.
    pieces: Vec<Bytes>,
    progress: Arc<Progress>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.progress.note();
        let Some(mut piece) = self.pieces.pop() else {
            return Poll::Ready(None);
        };
        if piece.len() > PIECE_BYTES {
            let rest = piece.split_off(PIECE_BYTES);
            self.pieces.push(rest);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// The body of an answer that fails when it is silent for too long.
struct Incoming {
    body: reqwest::Body,
    end: Pin<Box<Sleep>>,
    silence: Duration,
}

impl Incoming {
    fn new(body: reqwest::Body, silence: Duration) -> Self {
        let end = Box::pin(sleep_until(Instant::now() + silence));
        Self { body, end, silence }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let end = Instant::now() + self.silence;
            self.end.as_mut().reset(end);
            let broken = |error: reqwest::Error| {
                HttpError::new(HttpErrorKind::Interrupted, error.without_url())
            };
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        ready!(self.end.as_mut().poll(cx));
        let error = io::Error::new(io::ErrorKind::TimedOut, "the server fell silent");
        Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_tells_what_became_of_a_deletion() {
        let batch = |status: &str, code: &str| {
            format!(
                "--x\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\nx-ms-error-code: {code}\r\n\r\n--x--"
            )
        };
        let kind = |text: &str| batch_outcome(text).map_err(|refusal| refusal.kind);
        assert_eq!(kind(&batch("202 Accepted", "")), Ok(()));
        assert_eq!(
            kind(&batch("404 Not found", "BlobNotFound")),
            Err(ErrorKind::NotFound)
        );
        assert_eq!(
            kind(&batch("503 Busy", "ServerBusy")),
            Err(ErrorKind::Transient)
        );
        assert_eq!(
            kind(&batch("403 No", "AuthorizationPermissionMismatch")),
            Err(ErrorKind::Denied)
        );
        assert_eq!(kind("<Error/>"), Err(ErrorKind::Transient));
    }
}
