//! An S3 server in memory, for measurements alone: it lets everybody in, adds latency, fails as
//! often as it is told, and counts what it is asked.
//!
//! `s3_server PORT [--latency-ms N] [--errors SHARE]`; `GET /_counts` answers the requests by kind
//! and the bytes each way as JSON, `POST /_reset` begins to count anew. `POST /_fill?bucket=B&count=N&bytes=S`
//! makes objects of noise, which take no memory but for their keys; `POST /_change?bucket=B&first=F&step=S&count=N`
//! gives some of them other bytes.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a tool of the benchmarks"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

/// Objects of one page of a listing, as S3 has them.
const PAGE: usize = 1000;
/// The time that all objects were modified at: nothing here depends on it.
const MODIFIED: &str = "Sun, 01 Nov 2026 00:00:00 GMT";
/// The largest body of a request: more than any part of a multipart upload here has.
const BODY_BYTES_MAX: usize = 1 << 30;

/// What lies under a key.
#[derive(Clone)]
enum Object {
    /// What somebody wrote.
    Written(Bytes),
    /// Noise of a seed, made when it is read.
    Noise { seed: u64, bytes: usize },
}

impl Object {
    fn len(&self) -> usize {
        match self {
            Self::Written(bytes) => bytes.len(),
            Self::Noise { bytes, .. } => *bytes,
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Self::Written(bytes) => bytes.clone(),
            Self::Noise { seed, bytes } => noise(*seed, *bytes),
        }
    }

    fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Written(bytes) => bytes.hash(&mut hasher),
            Self::Noise { seed, bytes } => (seed, bytes).hash(&mut hasher),
        }
        format!("\"{:032x}\"", hasher.finish())
    }
}

/// Makes bytes that do not compress and are those of no other seed (SplitMix64).
fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

/// A status, headers and a body.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    object: Bytes,
    /// The part of the object that is the body.
    range: std::ops::Range<usize>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// Seeds that were used.
    seeds: u64,
    parts: BTreeMap<(String, u32), Bytes>,
    uploads: u64,
    counts: BTreeMap<&'static str, u64>,
    received_bytes: u64,
    sent_bytes: u64,
    chance: u64,
}

struct Server {
    state: Mutex<State>,
    latency: Duration,
    errors: f64,
}

/// A request, taken apart.
struct Asked {
    method: Method,
    /// Bucket and key.
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Bytes,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().expect("an argument");
    let port: u16 = number().parse().expect("a port");
    let (mut latency_ms, mut errors) = (0, 0.0);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().expect("a value");
        match flag.as_str() {
            "--latency-ms" => latency_ms = value.parse().expect("milliseconds"),
            "--errors" => errors = value.parse().expect("a share from 0 to 1"),
            _ => panic!("{flag} is not known"),
        }
    }
    let server = Server {
        state: Mutex::default(),
        latency: Duration::from_millis(latency_ms),
        errors,
    };
    let server = Arc::new(server);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.expect("a free port");
        while let Ok((stream, _)) = listener.accept().await {
            // As every real server: a header does not wait for the other side's acknowledgement.
            stream.set_nodelay(true).expect("a socket");
            let server = Arc::clone(&server);
            let answers = service_fn(move |request| respond(Arc::clone(&server), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answers);
            tokio::spawn(connection);
        }
    });
}

async fn respond(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), BODY_BYTES_MAX).await else {
        return Ok(Response::new(Body::empty()));
    };
    let asked = Asked::read(&head, body);
    let answer = match asked.path.as_str() {
        "_counts" => counts(&lock(&server.state)),
        "_reset" => {
            let mut state = lock(&server.state);
            state.counts.clear();
            (state.received_bytes, state.sent_bytes) = (0, 0);
            empty(200)
        }
        "_fill" => lock(&server.state).make(&asked, 0, 1),
        "_change" => {
            let (first, step) = (asked.number("first"), asked.number("step"));
            lock(&server.state).make(&asked, first, step)
        }
        _ => {
            tokio::time::sleep(server.latency).await;
            lock(&server.state).count(&asked, server.errors)
        }
    };
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body = answer.object.slice(answer.range);
    Ok(response.body(Body::from(body)).expect("an answer"))
}

impl Asked {
    fn read(head: &Parts, body: Bytes) -> Self {
        let headers: BTreeMap<_, _> = head
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let is_framed = headers
            .get("x-amz-content-sha256")
            .is_some_and(|value| value.starts_with("STREAMING-"));
        Self {
            method: head.method.clone(),
            path: decoded(head.uri.path().trim_start_matches('/')),
            query: query(head.uri.query().unwrap_or("")),
            headers,
            body: if is_framed {
                unframed(&body).into()
            } else {
                body
            },
        }
    }

    fn kind(&self) -> &'static str {
        match self.method {
            Method::PUT => "put",
            Method::DELETE => "delete",
            Method::HEAD => "head",
            Method::POST => "post",
            _ if self.query.contains_key("list-type") || self.query.contains_key("prefix") => {
                "list"
            }
            _ => "get",
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        let text = self.query.get(name).expect("a number");
        text.parse().expect("a number")
    }
}

impl State {
    fn count(&mut self, asked: &Asked, errors: f64) -> Answer {
        *self.counts.entry(asked.kind()).or_default() += 1;
        self.received_bytes += asked.body.len() as u64;
        if self.fails(errors) {
            *self.counts.entry("refused").or_default() += 1;
            return failure(503, "SlowDown");
        }
        let answer = self.answer(asked);
        self.sent_bytes += answer.range.len() as u64;
        answer
    }

    /// Decides by a small generator with a fixed seed, so that every run fails alike.
    fn fails(&mut self, share: f64) -> bool {
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.chance >> 33) as f64) < share * f64::from(1_u32 << 31)
    }

    /// Makes objects of noise under numbered keys, or gives them other bytes.
    fn make(&mut self, asked: &Asked, first: u64, step: u64) -> Answer {
        let bucket = asked.query.get("bucket").expect("a bucket");
        let bytes = usize::try_from(asked.number("bytes")).expect("a size");
        for number in 0..asked.number("count") {
            self.seeds += 1;
            let seed = self.seeds;
            let number = first + number * step;
            // A thousand in a folder.
            let name = format!("{bucket}/{:06}/object-{number:09}", number / 1000);
            self.objects.insert(name, Object::Noise { seed, bytes });
        }
        empty(200)
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        let key = asked.path.split_once('/').map_or("", |(_, key)| key);
        match asked.method {
            _ if key.is_empty() => self.bucket(asked),
            Method::PUT => self.put(asked),
            Method::POST => self.post(asked),
            Method::DELETE => {
                self.objects.remove(&asked.path);
                empty(204)
            }
            _ => self.get(asked),
        }
    }

    fn bucket(&self, asked: &Asked) -> Answer {
        match asked.method {
            Method::GET if asked.query.contains_key("location") => {
                xml("<LocationConstraint>us-east-1</LocationConstraint>".to_owned())
            }
            Method::GET => self.list(asked),
            _ => empty(200),
        }
    }

    fn put(&mut self, asked: &Asked) -> Answer {
        let part = asked
            .query
            .get("partNumber")
            .and_then(|part| part.parse().ok());
        if let (Some(upload), Some(part)) = (asked.query.get("uploadId"), part) {
            self.parts
                .insert((upload.clone(), part), asked.body.clone());
        } else if asked.header("if-none-match") == Some("*")
            && self.objects.contains_key(&asked.path)
        {
            return failure(412, "PreconditionFailed");
        } else {
            let object = Object::Written(asked.body.clone());
            self.objects.insert(asked.path.clone(), object);
        }
        Answer {
            headers: vec![("ETag", Object::Written(asked.body.clone()).etag())],
            ..empty(200)
        }
    }

    fn post(&mut self, asked: &Asked) -> Answer {
        let Some(upload) = asked.query.get("uploadId") else {
            self.uploads += 1;
            return xml(format!(
                "<InitiateMultipartUploadResult><UploadId>{}</UploadId></InitiateMultipartUploadResult>",
                self.uploads
            ));
        };
        let all = (upload.clone(), 0)..=(upload.clone(), u32::MAX);
        let keys: Vec<_> = self.parts.range(all).map(|(key, _)| key.clone()).collect();
        let parts: Vec<_> = keys
            .iter()
            .filter_map(|key| self.parts.remove(key))
            .collect();
        let object = Object::Written(parts.concat().into());
        let etag = object.etag();
        self.objects.insert(asked.path.clone(), object);
        xml(format!(
            "<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        ))
    }

    fn get(&self, asked: &Asked) -> Answer {
        let Some(object) = self.objects.get(&asked.path) else {
            return failure(404, "NoSuchKey");
        };
        let size = object.len();
        let mut answer = empty(200);
        let mut range = 0..size;
        let wanted = asked
            .header("range")
            .and_then(|wanted| wanted.strip_prefix("bytes=")?.split_once('-'));
        if let Some((first, last)) = wanted {
            let first: usize = first.parse().unwrap_or(0);
            let last: usize = last
                .parse()
                .unwrap_or(size.saturating_sub(1))
                .min(size.saturating_sub(1));
            if first > last || first >= size {
                return failure(416, "InvalidRange");
            }
            range = first..last + 1;
            answer.status = 206;
            answer
                .headers
                .push(("Content-Range", format!("bytes {first}-{last}/{size}")));
        }
        answer.headers.push(("Last-Modified", MODIFIED.to_owned()));
        answer.headers.push(("ETag", object.etag()));
        // The answer to HEAD has the length of the body that it does not have.
        Answer {
            object: object.bytes(),
            range,
            ..answer
        }
    }

    fn list(&self, asked: &Asked) -> Answer {
        let text = |name: &str| asked.query.get(name).map_or("", String::as_str);
        let bucket = asked.path.split('/').next().unwrap_or("");
        let (prefix, delimiter) = (text("prefix"), text("delimiter"));
        let after = [
            text("continuation-token"),
            text("start-after"),
            text("marker"),
        ]
        .into_iter()
        .max()
        .unwrap_or("");
        let page = text("max-keys").parse().unwrap_or(PAGE).min(PAGE);
        let start = format!("{bucket}/{prefix}");
        let from = start.clone().max(format!("{bucket}/{after}"));
        let below = self
            .objects
            .range(from..)
            .take_while(|(name, _)| name.starts_with(&start));
        let (mut contents, mut folders) = (String::new(), BTreeMap::new());
        let (mut listed, mut last, mut is_cut) = (0, String::new(), false);
        for (name, object) in below {
            let key = name.get(bucket.len() + 1..).unwrap_or("");
            if key <= after {
                continue;
            }
            if listed == page {
                is_cut = true;
                break;
            }
            last = key.to_owned();
            let rest = key.get(prefix.len()..).unwrap_or("");
            if let Some((folder, _)) = rest.split_once(delimiter).filter(|_| !delimiter.is_empty())
            {
                folders.insert(format!("{prefix}{folder}{delimiter}"), ());
                continue;
            }
            listed += 1;
            let _ = write!(
                contents,
                "<Contents><Key>{key}</Key><Size>{}</Size><ETag>{}</ETag><StorageClass>STANDARD</StorageClass>\
                 <LastModified>2026-11-01T00:00:00.000Z</LastModified></Contents>",
                object.len(),
                object.etag()
            );
        }
        for folder in folders.keys() {
            let _ = write!(
                contents,
                "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            );
        }
        let next = if is_cut {
            format!(
                "<NextContinuationToken>{last}</NextContinuationToken><NextMarker>{last}</NextMarker>"
            )
        } else {
            String::new()
        };
        xml(format!(
            "<ListBucketResult><Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{listed}</KeyCount>\
             <MaxKeys>{page}</MaxKeys><IsTruncated>{is_cut}</IsTruncated>{next}{contents}</ListBucketResult>"
        ))
    }
}

fn counts(state: &State) -> Answer {
    let mut text = String::from("{");
    for (kind, count) in &state.counts {
        let _ = write!(text, "\"{kind}\": {count}, ");
    }
    let _ = write!(
        text,
        "\"received_bytes\": {}, \"sent_bytes\": {}, \"objects\": {}}}",
        state.received_bytes,
        state.sent_bytes,
        state.objects.len()
    );
    whole(200, text)
}

fn empty(status: u16) -> Answer {
    whole(status, String::new())
}

fn whole(status: u16, text: String) -> Answer {
    let range = 0..text.len();
    Answer {
        status,
        headers: Vec::new(),
        object: text.into_bytes().into(),
        range,
    }
}

fn xml(body: String) -> Answer {
    whole(
        200,
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}"),
    )
}

fn failure(status: u16, name: &str) -> Answer {
    let told = xml(format!(
        "<Error><Code>{name}</Code><Message>{name}</Message></Error>"
    ));
    Answer { status, ..told }
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Takes the frames of a signed stream off a body: each is a line with its length, and its bytes.
fn unframed(body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(end + 1);
        let digits = line
            .split(|byte| *byte == b';' || *byte == b'\r')
            .next()
            .unwrap_or(&[]);
        let length = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(frame) = length
            .filter(|length| *length > 0)
            .and_then(|length| after.get(..length))
        else {
            break;
        };
        whole.extend_from_slice(frame);
        rest = after.get(frame.len() + 2..).unwrap_or(&[]);
    }
    whole
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
