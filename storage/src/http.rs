//! HTTP as the storages over it need it: one client, limits on what is read, and failures told apart.
//!
//! No redirect is followed, so that credentials go nowhere but where the location says. A connection that
//! broke is thrown away and made anew.

mod failure;
pub mod notice;
mod upload;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, HeaderValue,
    RETRY_AFTER,
};
use reqwest::{Certificate, Client, Proxy, RequestBuilder, Response, StatusCode};

use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::network::{Contact, Network, choose_cryptography};
pub(crate) use failure::loggable;
use upload::{Pulse, Upload};

/// The most memory that is taken on a server's word about the length of what follows.
const TRUSTED_BYTES: u64 = 32 << 20;
/// The most bytes of an answer that tells why something failed.
const EXPLANATION_BYTES_MAX: u64 = 64 << 10;

/// A client of one server, or of the few that make up one service.
pub(crate) struct Http {
    client: Client,
    contact: Contact,
    silence_max: Duration,
    connect_max: Duration,
    storage: String,
}

/// What is tried on what, for the message when it fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    /// What is tried.
    pub operation: Operation,
    /// The object or folder; empty for the storage as a whole.
    pub name: &'a str,
}

impl Http {
    /// Makes a client; nothing is sent yet. `storage` names it in messages.
    ///
    /// # Errors
    /// In words: when the certificates or the proxy make no sense.
    pub(crate) fn new(network: &Network, storage: String) -> std::result::Result<Self, String> {
        choose_cryptography();
        let mut builder = Client::builder()
            .user_agent(network.user_agent.as_str())
            .connect_timeout(network.connect_timeout)
            .pool_max_idle_per_host(network.connections)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Each request has a connection of its own: one slow upload does not hold up the others.
            .http1_only();
        if let Some(pem) = &network.ca_certificates {
            let found = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| format!("ca-certificate: {}", failure::innermost(&error)))?;
            builder = builder.tls_certs_merge(found);
        }
        if network.skip_verification {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        builder = match network.proxy.as_deref() {
            None => builder,
            Some("none") => builder.no_proxy(),
            Some(url) => builder.proxy(
                // The URL may hold a password, so it is not repeated.
                Proxy::all(url).map_err(|_| "proxy is no URL of a proxy".to_owned())?,
            ),
        };
        let client = builder
            .build()
            .map_err(|error| format!("cannot speak HTTP: {}", failure::innermost(&error)))?;
        Ok(Self {
            client,
            contact: network.contact.clone(),
            silence_max: network.read_timeout,
            connect_max: network.connect_timeout,
            storage,
        })
    }

    /// Gives the client, with which requests are made.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request without a body, or with a short one that it has already.
    pub(crate) async fn send(&self, task: Task<'_>, request: RequestBuilder) -> Result<Answer<'_>> {
        self.exchange(task, request, &Pulse::new()).await
    }

    /// Sends a request with a body that may take its time, as long as it goes on.
    pub(crate) async fn upload(
        &self,
        task: Task<'_>,
        request: RequestBuilder,
        bytes: Bytes,
    ) -> Result<Answer<'_>> {
        let pulse = Pulse::new();
        let request = request
            .header(CONTENT_LENGTH, bytes.len())
            .body(reqwest::Body::wrap_stream(Upload::new(
                bytes,
                pulse.clone(),
            )));
        self.exchange(task, request, &pulse).await
    }

    async fn exchange(
        &self,
        task: Task<'_>,
        request: RequestBuilder,
        pulse: &Pulse,
    ) -> Result<Answer<'_>> {
        // The client's own timeout counts from the start of a request, however fast its body goes.
        let silence_max = self.silence_max.max(self.connect_max);
        let request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        pulse.beat();
        let mut sent = std::pin::pin!(request.send());
        let response = loop {
            let left = silence_max.saturating_sub(pulse.silence());
            match tokio::time::timeout(left, &mut sent).await {
                Ok(outcome) => break outcome.map_err(|error| self.broken(task, &error))?,
                Err(_) if pulse.silence() >= silence_max => return Err(self.silent(task)),
                Err(_) => {}
            }
        };
        self.contact.made();
        Ok(Answer {
            response,
            http: self,
        })
    }

    /// Makes an error about this storage.
    pub(crate) fn error(
        &self,
        task: Task<'_>,
        kind: ErrorKind,
        cause: impl Into<String>,
    ) -> StorageError {
        StorageError::new(
            task.operation,
            self.storage.as_str(),
            task.name,
            kind,
            cause,
        )
    }

    fn silent(&self, task: Task<'_>) -> StorageError {
        self.error(task, ErrorKind::Transient, "the server fell silent")
            .because(Reason::Unreachable)
    }

    /// Makes an error of an exchange that broke.
    fn broken(&self, task: Task<'_>, error: &reqwest::Error) -> StorageError {
        let (reason, cause) = failure::of_transport(error);
        let is_about_the_place = match reason {
            Reason::HostNotFound
            | Reason::Refused
            | Reason::Certificate
            | Reason::Tls
            | Reason::Protocol => true,
            Reason::Unreachable => error.is_connect(),
            _ => false,
        };
        let kind = match is_about_the_place {
            true => self.contact.kind_of_failure(),
            false => ErrorKind::Transient,
        };
        self.error(task, kind, cause).because(reason)
    }
}

/// Tells whether a host of a URL is this machine, to which secrets may go without TLS.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// What a server answered.
pub(crate) struct Answer<'a> {
    response: Response,
    http: &'a Http,
}

impl Answer<'_> {
    /// Gives the status.
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Gives a header that is text.
    pub(crate) fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Gives the server's own time.
    pub(crate) fn date(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.header(DATE)?).ok()
    }

    /// Gives how long the server asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        failure::retry_after(self.header(RETRY_AFTER)?, SystemTime::now())
    }

    /// Gives the length in bytes that the server claims for the body.
    pub(crate) fn length_bytes(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.parse().ok()
    }

    /// Gives first and last byte, and the whole size where it is said, of a part of an object.
    pub(crate) fn range(&self) -> Option<(u64, u64, Option<u64>)> {
        let said = self.header(CONTENT_RANGE)?.strip_prefix("bytes ")?;
        let (range, size) = said.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()))
    }

    /// Makes the error that the status alone tells.
    pub(crate) fn failure(&self, task: Task<'_>) -> StorageError {
        let (kind, reason, cause) = failure::of_status(self.status(), self.response.headers());
        StorageError {
            retry_after: self.retry_after(),
            ..self.http.error(task, kind, cause).because(reason)
        }
    }

    /// Reads what the server says about a failure, as far as it is short.
    pub(crate) async fn explanation(self, task: Task<'_>) -> Result<Bytes> {
        let (bytes, _) = self.part(task, 0, EXPLANATION_BYTES_MAX).await?;
        Ok(bytes)
    }

    /// Reads the body to its end; one longer than `max_bytes` is `Oversized`, found before it is read
    /// where the server tells its length.
    pub(crate) async fn body(self, task: Task<'_>, max_bytes: u64) -> Result<Bytes> {
        if let Some(length_bytes) = self.length_bytes()
            && length_bytes > max_bytes
        {
            let cause = format!("it has {length_bytes} bytes, and may have {max_bytes}");
            return Err(self.http.error(task, ErrorKind::Oversized, cause));
        }
        let http = self.http;
        match self.part(task, 0, max_bytes).await? {
            (bytes, true) => Ok(bytes),
            (_, false) => {
                let cause = format!("it has more than {max_bytes} bytes");
                Err(http.error(task, ErrorKind::Oversized, cause))
            }
        }
    }

    /// Reads at most `max_bytes` after `skipped_bytes`; tells whether the body ended there.
    pub(crate) async fn part(
        mut self,
        task: Task<'_>,
        skipped_bytes: u64,
        max_bytes: u64,
    ) -> Result<(Bytes, bool)> {
        if let Some(encoding) = self.header(CONTENT_ENCODING)
            && encoding != "identity"
        {
            let cause = format!("the server sends it as {encoding:?}, which was not asked for");
            let error = self.http.error(task, ErrorKind::Permanent, cause);
            return Err(error.because(Reason::Protocol));
        }
        let claimed = self.length_bytes().unwrap_or(0);
        let expected = claimed
            .saturating_sub(skipped_bytes)
            .min(max_bytes)
            .min(TRUSTED_BYTES);
        let mut bytes = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
        let mut to_skip = skipped_bytes;
        while let Some(mut chunk) = self.chunk(task).await? {
            let skipped = usize::try_from(to_skip)
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            let _ = chunk.split_to(skipped);
            to_skip -= skipped as u64;
            let room = max_bytes - bytes.len() as u64;
            if chunk.len() as u64 > room {
                chunk.truncate(usize::try_from(room).unwrap_or(0));
                bytes.extend_from_slice(&chunk);
                return Ok((bytes.freeze(), false));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes.freeze(), true))
    }

    async fn chunk(&mut self, task: Task<'_>) -> Result<Option<Bytes>> {
        match tokio::time::timeout(self.http.silence_max, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => {
                let (_, cause) = failure::of_transport(&error);
                let cause = format!("the answer broke off: {cause}");
                Err(self.http.error(task, ErrorKind::Transient, cause))
            }
            Err(_) => Err(self.http.silent(task)),
        }
    }
}
