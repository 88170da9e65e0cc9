//! All routes in one table: the router, the OpenAPI document and what each needs come from it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::RequestExt as _;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, RawPathParams, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::access::{self, Caller};
use crate::audit::{self, Entry};
use crate::owners::Owners;
use crate::problem::Problem;
use crate::runs::{Key, Run};
use crate::schema::{Answers, Parameter, RUN, SchemaOf, What};
use crate::service::Service;
use crate::tokens::Scope;
use crate::{api, page, portable};

/// The longest body, but for bundles, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// How long such a body is waited for.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// What a page has at most, and unless it says so.
pub const LIMIT_MAX: usize = 1_000;
const LIMIT_USUAL: usize = 100;
/// The most characters of an Idempotency-Key.
const KEY_MAX: usize = 128;

/// What a browser may load for the page: what the service itself serves.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What answers a request.
pub type Answer = Result<Response, Problem>;
/// A function that does.
pub type Handler = fn(Call) -> BoxFuture<'static, Answer>;

/// One route.
pub struct Route {
    /// Its method.
    pub method: &'static str,
    /// Its path, with what varies in braces.
    pub path: &'static str,
    /// What a token needs for it; none if nobody needs one.
    pub scope: Option<Scope>,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// What may stand in its query.
    pub query: &'static [Parameter],
    /// What its body is, if it takes one.
    pub body: Option<SchemaOf>,
    /// The status of what is well.
    pub status: u16,
    /// What it answers then.
    pub answers: Answers,
    /// What else it may answer: a status, when, and what.
    pub others: &'static [(u16, &'static str, What)],
    /// Whether it begins a run, so that an Idempotency-Key may come with it.
    pub begins_run: bool,
    /// Whether it is in the audit log although it changes nothing.
    pub is_audited: bool,
    /// Whether its body is taken as it comes, however long it is.
    pub is_upload: bool,
    /// Whether it is for the administrator alone, and no user's, whatever the scope.
    pub is_of_administrator: bool,
    handler: Handler,
}

/// A request that was admitted.
pub struct Call {
    /// What is the caller's.
    pub service: Arc<Service>,
    /// All owners, for what is the administrator's alone, and for logging in.
    pub owners: Arc<Owners>,
    /// Who sends it; none where nobody needs a token.
    pub caller: Option<Caller>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, but for an upload.
    pub body: Bytes,
    /// An upload, which is taken once.
    pub upload: Mutex<Option<Request>>,
    method: &'static str,
    path: String,
    params: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

impl Route {
    const fn new(
        method: &'static str,
        path: &'static str,
        scope: Scope,
        summary: &'static str,
        handler: Handler,
    ) -> Self {
        Self {
            method,
            path,
            scope: Some(scope),
            summary,
            query: &[],
            body: None,
            status: 200,
            answers: Answers::Nothing,
            others: &[],
            begins_run: false,
            is_audited: false,
            is_upload: false,
            is_of_administrator: false,
            handler,
        }
    }

    /// A route that changes nothing.
    pub const fn get(
        path: &'static str,
        scope: Scope,
        summary: &'static str,
        handler: Handler,
    ) -> Self {
        Self::new("GET", path, scope, summary, handler)
    }

    /// A route that makes or begins something.
    pub const fn post(
        path: &'static str,
        scope: Scope,
        summary: &'static str,
        handler: Handler,
    ) -> Self {
        Self::new("POST", path, scope, summary, handler)
    }

    /// A route that changes something.
    pub const fn patch(
        path: &'static str,
        scope: Scope,
        summary: &'static str,
        handler: Handler,
    ) -> Self {
        Self::new("PATCH", path, scope, summary, handler)
    }

    /// A route that sets something.
    pub const fn put(
        path: &'static str,
        scope: Scope,
        summary: &'static str,
        handler: Handler,
    ) -> Self {
        Self::new("PUT", path, scope, summary, handler)
    }

    /// A route that removes something.
    pub const fn delete(
        path: &'static str,
        scope: Scope,
        summary: &'static str,
        handler: Handler,
    ) -> Self {
        Self::new("DELETE", path, scope, summary, handler)
    }

    /// Gives it what may stand in its query.
    pub const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// Gives it what its body is.
    pub const fn takes(self, body: SchemaOf) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    /// Gives it what it answers when all is well, and under which status.
    pub const fn answers(self, status: u16, answers: Answers) -> Self {
        Self {
            status,
            answers,
            ..self
        }
    }

    /// Gives it what else it may answer.
    pub const fn or(self, others: &'static [(u16, &'static str, What)]) -> Self {
        Self { others, ..self }
    }

    /// Says that it begins a run, with which it answers.
    pub const fn begins_run(self) -> Self {
        Self {
            begins_run: true,
            ..self.answers(202, Answers::One(RUN))
        }
    }

    /// Opens it to everybody.
    pub const fn open(self) -> Self {
        Self {
            scope: None,
            ..self
        }
    }

    /// Puts it into the audit log.
    pub const fn audited(self) -> Self {
        Self {
            is_audited: true,
            ..self
        }
    }

    /// Keeps users from it.
    pub const fn of_administrator(self) -> Self {
        Self {
            is_of_administrator: true,
            ..self
        }
    }

    /// Takes bodies as they come.
    pub const fn upload(self) -> Self {
        Self {
            is_upload: true,
            ..self
        }
    }
}

/// Gives all routes but the page's files.
pub fn all() -> impl Iterator<Item = &'static Route> {
    let tables: [&'static [Route]; 10] = [
        api::service::ROUTES,
        api::login::ROUTES,
        api::locations::ROUTES,
        api::jobs::ROUTES,
        api::runs::ROUTES,
        api::snapshots::ROUTES,
        api::work::ROUTES,
        api::tokens::ROUTES,
        api::users::ROUTES,
        portable::ROUTES,
    ];
    tables.into_iter().flatten()
}

/// Makes the router of all routes.
pub fn router(owners: &Arc<Owners>) -> Router {
    let mut router = Router::new();
    for route in all() {
        let owners = Arc::clone(owners);
        let handler = move |request: Request| answer(Arc::clone(&owners), route, request);
        router = router.route(route.path, on(filter(route.method), handler));
    }
    for (path, kind, bytes) in page::files() {
        let handler = move |headers: HeaderMap| async move { page::answer(kind, bytes, &headers) };
        router = router.route(path, on(MethodFilter::GET, handler));
    }
    let is_tls = owners.administrator().options.tls.is_some();
    router
        .fallback(|| async { Problem::missing("there is nothing at this path").into_response() })
        .method_not_allowed_fallback(|| async {
            let why = "this path does not know that method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, why).into_response()
        })
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::map_response(
            move |response: Response| async move { with_headers(response, is_tls) },
        ))
}

/// Answers one request. What changes something comes to its end, and into the audit log, also if the client hangs up.
async fn answer(owners: Arc<Owners>, route: &'static Route, request: Request) -> Response {
    let work = work(owners, route, request);
    if route.method == "GET" {
        return work.await;
    }
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!("a request was not answered: {error}");
        Problem::internal("the service failed at this request; its log says how").into_response()
    })
}

/// Does one request: who sends it, what it says, what is done, and what is written down of it.
async fn work(owners: Arc<Owners>, route: &'static Route, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let found = route
        .scope
        .map(|needed| {
            let found = access::caller(&owners, request.headers(), &method, peer.ip());
            found.map(|(service, caller)| (service, caller, needed))
        })
        .transpose();
    // What nobody known asks is counted and written down with the administrator's.
    let nobodys = Arc::clone(owners.administrator());
    let (service, caller, done) = match found {
        Ok(Some((service, caller, needed))) => {
            let may =
                access::suffices(&caller, needed).and_then(|()| match route.is_of_administrator {
                    true => access::refuse_users(&service),
                    false => Ok(()),
                });
            let done = match may {
                Ok(()) => {
                    let all = (&service, &owners);
                    handle(all, route, request, Some(caller.clone()), peer).await
                }
                Err(problem) => Err(problem),
            };
            (service, Some(caller), done)
        }
        Ok(None) => {
            let done = handle((&nobodys, &owners), route, request, None, peer).await;
            (nobodys, None, done)
        }
        Err(problem) => (nobodys, None, Err(problem)),
    };
    let response = done.unwrap_or_else(IntoResponse::into_response);
    let status = response.status();
    service.counters.count(status);
    let is_refused = matches!(status.as_u16(), 401 | 403 | 429);
    // A page asks who it is before anybody has logged in.
    let is_asked = path == "/session" && status == StatusCode::UNAUTHORIZED;
    if (route.method != "GET" || route.is_audited || is_refused) && !is_asked {
        let entry = Entry {
            time: Timestamp::now(),
            by: caller.as_ref().map(|caller| caller.token.name.as_str()),
            token: caller.as_ref().map(|caller| caller.token.id.as_str()),
            address: peer.ip().to_string(),
            method: method.as_str(),
            path: audit::short(&path),
            status: status.as_u16(),
        };
        let is_login = path == "/login" && status.is_success();
        match caller.is_some() || is_login {
            true => service.audit.write(&entry),
            false => service.audit.write_unproven(&entry),
        }
    }
    response
}

/// Does what a request asks for.
async fn handle(
    all: (&Arc<Service>, &Arc<Owners>),
    route: &'static Route,
    request: Request,
    caller: Option<Caller>,
    peer: SocketAddr,
) -> Answer {
    let call = call(all, route, request, caller, peer).await?;
    (route.handler)(call).await
}

/// Takes a request apart.
async fn call(
    (service, owners): (&Arc<Service>, &Arc<Owners>),
    route: &'static Route,
    mut request: Request,
    caller: Option<Caller>,
    peer: SocketAddr,
) -> Result<Call, Problem> {
    let params = request.extract_parts::<RawPathParams>().await;
    let params = params.map_err(|_| Problem::bad("the path is not UTF-8"))?;
    let params = params.iter();
    let params = params.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let params = params.collect();
    let query = request.uri().query().unwrap_or_default();
    let query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let is_known = |name: &str| {
        let is_of_page = name == "limit" || name == "cursor";
        is_of_page || route.query.iter().any(|known| known.name == name)
    };
    if let Some((name, _)) = query.iter().find(|(name, _)| !is_known(name)) {
        let known: Vec<&str> = route.query.iter().map(|known| known.name).collect();
        let known = known.join(", ");
        let why = format!("the query knows no {name}; it may have: {known}");
        return Err(Problem::field(name.as_str(), why));
    }
    let (headers, path) = (request.headers().clone(), request.uri().path().to_owned());
    let (body, upload) = match route.is_upload {
        true => (Bytes::new(), Some(request)),
        false => (read_body(request.into_body()).await?, None),
    };
    Ok(Call {
        service: Arc::clone(service),
        owners: Arc::clone(owners),
        caller,
        peer,
        headers,
        body,
        upload: Mutex::new(upload),
        method: route.method,
        path,
        params,
        query,
    })
}

/// Reads a body that is not long, of a client that is not slow.
pub async fn read_body(body: Body) -> Result<Bytes, Problem> {
    let read = axum::body::to_bytes(body, BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_TIME_MAX, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is longer than 1 MiB, or it was cut off",
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body took longer than a minute",
        )),
    }
}

impl Call {
    /// Gives who sends it, where a token is needed.
    ///
    /// # Errors
    /// Where none is.
    pub fn caller(&self) -> Result<&Caller, Problem> {
        let caller = self.caller.as_ref();
        caller.ok_or_else(|| Problem::internal("a route that is open to all asked for a token"))
    }

    /// Gives a part of the path.
    pub fn param(&self, name: &str) -> &str {
        let found = self.params.iter().find(|(param, _)| param == name);
        found.map_or("", |(_, value)| value)
    }

    /// Gives the name of a location or job in the path.
    ///
    /// # Errors
    /// When it is none.
    pub fn name(&self) -> Result<&str, Problem> {
        let name = self.param("name");
        match is_name(name) {
            true => Ok(name),
            false => Err(Problem::missing(format!(
                "'{name}' is no name; names have letters, digits, '-', '_' and '.'"
            ))),
        }
    }

    /// Gives what stands in the query under a name.
    pub fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Gives all that stands in the query under a name.
    pub fn queries(&self, name: &str) -> Vec<String> {
        let found = self.query.iter().filter(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).collect()
    }

    /// Tells whether the query says `true` under a name.
    ///
    /// # Errors
    /// When it says neither that nor `false`.
    pub fn is(&self, name: &str) -> Result<bool, Problem> {
        match self.query(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Problem::field(
                name,
                format!("{name} is true or false, and not '{other}'"),
            )),
        }
    }

    /// Gives where a page begins, and what it has at most.
    ///
    /// # Errors
    /// When they are no such numbers.
    pub fn page(&self) -> Result<(u64, usize), Problem> {
        let limit = match self.query("limit") {
            None => Ok(LIMIT_USUAL),
            Some(text) if text.starts_with('+') => Err(()),
            Some(text) => text.parse::<usize>().map_err(drop),
        };
        let limit = limit.ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = limit.ok_or_else(|| {
            Problem::field("limit", format!("limit is a number from 1 to {LIMIT_MAX}"))
        })?;
        let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let skip = match self.query("cursor") {
            None => Some(0),
            Some(text) => Some(text)
                .filter(is_number)
                .and_then(|text| text.parse().ok()),
        };
        let skip = skip.ok_or_else(|| {
            Problem::field(
                "cursor",
                "cursor has to be what `next` was on the page before",
            )
        })?;
        Ok((skip, limit))
    }

    /// Gives the body as it is to be; nothing counts as an object without fields.
    ///
    /// # Errors
    /// When it is no JSON, or says something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match self.body.is_empty() {
            true => object(b"{}"),
            false => object(&self.body),
        }
    }

    /// Gives the Idempotency-Key of what begins a run, if one came.
    ///
    /// # Errors
    /// When it is too long, or no text.
    pub fn key(&self) -> Result<Option<Key>, Problem> {
        let Some(given) = self.headers.get("idempotency-key") else {
            return Ok(None);
        };
        let given = given.to_str().ok();
        let given = given.filter(|key| !key.is_empty() && key.len() <= KEY_MAX);
        let key = given.ok_or_else(|| {
            Problem::bad(format!(
                "an Idempotency-Key has 1 to {KEY_MAX} characters of ASCII"
            ))
        })?;
        let mut request = format!("{} {}\n", self.method, self.path).into_bytes();
        request.extend(self.body.iter());
        Ok(Some(Key {
            token: self.caller()?.token.id.clone(),
            key: key.to_owned(),
            request: blake3::hash(&request).to_hex().to_string(),
        }))
    }

    /// Takes an upload.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_upload(&self) -> Result<Request, Problem> {
        let mut upload = self.upload.lock().unwrap_or_else(PoisonError::into_inner);
        upload
            .take()
            .ok_or_else(|| Problem::internal("the upload was taken already"))
    }
}

/// Reads an object: a list of its values in their order is none.
///
/// # Errors
/// When it is no JSON, or says something else.
pub fn object<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::bad("the body has to be a JSON object"));
    }
    serde_json::from_slice(text)
        .map_err(|error| Problem::bad(format!("the body is not understood: {error}")))
}

/// Tells whether a text may be the name of a location or job: nothing that is a path, a URL or an option.
pub fn is_name(text: &str) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_short = !text.is_empty() && text.len() <= 200;
    is_short && !text.starts_with(['-', '.']) && text.chars().all(is_of_name)
}

/// Answers with JSON.
pub fn ok(value: &impl Serialize) -> Answer {
    with_status(StatusCode::OK, value)
}

/// Answers that something was made.
pub fn created(value: &impl Serialize) -> Answer {
    with_status(StatusCode::CREATED, value)
}

/// Answers that it was done, and nothing else.
pub fn nothing() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Answers with a run that was begun, or that its key had begun before.
pub fn run((run, is_new): &(Arc<Run>, bool)) -> Answer {
    let status = match is_new {
        true => StatusCode::ACCEPTED,
        false => StatusCode::OK,
    };
    let mut response = with_status(status, &run.shown())?;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/runs/{}", run.id())) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Answers with a page of a list.
pub fn page(items: Vec<Value>, next: Option<u64>, total: Option<usize>) -> Answer {
    let mut page = json!({"items": items, "next": next.map(|next| next.to_string())});
    if let (Some(page), Some(total)) = (page.as_object_mut(), total) {
        page.insert("total".to_owned(), total.into());
    }
    ok(&page)
}

/// Answers with a page of a list that is there as a whole.
pub fn page_of(call: &Call, all: Vec<Value>) -> Answer {
    let (skip, limit) = call.page()?;
    let total = all.len();
    let first = usize::try_from(skip).unwrap_or(usize::MAX);
    let items: Vec<Value> = all.into_iter().skip(first).take(limit).collect();
    let end = first.saturating_add(items.len());
    let next = (end < total).then_some(end as u64);
    page(items, next, Some(total))
}

fn with_status(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(value)
        .map_err(|error| Problem::internal(format!("cannot write the answer: {error}")))?;
    let kind = HeaderValue::from_static("application/json");
    Ok((status, [(CONTENT_TYPE, kind)], text).into_response())
}

/// Adds what every answer says to browsers.
fn with_headers(mut response: Response, is_tls: bool) -> Response {
    let is_refused = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    let mut add = |name: HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    add(CACHE_CONTROL, "no-store");
    add(CONTENT_SECURITY_POLICY, POLICY);
    add(X_CONTENT_TYPE_OPTIONS, "nosniff");
    add(X_FRAME_OPTIONS, "DENY");
    add(REFERRER_POLICY, "no-referrer");
    if is_tls {
        add(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    if is_refused {
        add(WWW_AUTHENTICATE, "Bearer");
    }
    response
}

fn filter(method: &str) -> MethodFilter {
    match method {
        "POST" => MethodFilter::POST,
        "PATCH" => MethodFilter::PATCH,
        "PUT" => MethodFilter::PUT,
        "DELETE" => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

/// Gives the hash of a text as it stands in an ETag.
pub fn etag(text: &[u8]) -> String {
    format!("\"{}\"", blake3::hash(text).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_neither_a_path_nor_a_url_nor_an_option() {
        for name in ["nas", "Büro-2", "a.b_c"] {
            assert!(is_name(name), "{name}");
        }
        for text in [
            "", "-x", "--all", "a/b", "..", "s3://x", "a:b", "a b", "a\nb",
        ] {
            assert!(!is_name(text), "{text}");
        }
    }

    #[test]
    fn every_route_needs_a_token_but_for_these() {
        let mut open: Vec<&str> = all()
            .filter(|route| route.scope.is_none())
            .map(|route| route.path)
            .collect();
        open.sort_unstable();
        assert_eq!(
            open,
            ["/api/v1/openapi.json", "/healthz", "/login", "/logout"]
        );
        // What looks needs the least, and what changes needs more.
        for route in all().filter(|route| route.method != "GET" && route.scope.is_some()) {
            assert_ne!(
                route.scope,
                Some(Scope::ReadOnly),
                "{} {}",
                route.method,
                route.path
            );
        }
        let of_administrator: Vec<&str> = all()
            .filter(|route| route.is_of_administrator)
            .map(|route| route.path)
            .collect();
        for path in &of_administrator {
            assert!(path.starts_with("/api/v1/users"), "{path}");
        }
        assert_eq!(
            of_administrator.len(),
            all()
                .filter(|route| route.path.starts_with("/api/v1/users"))
                .count()
        );
        let portable: Vec<&str> = all()
            .filter(|route| route.scope == Some(Scope::Portable))
            .map(|route| route.path)
            .collect();
        assert_eq!(
            portable,
            ["/_backup/api/v1/backup", "/_backup/api/v1/restore"]
        );
    }
}
