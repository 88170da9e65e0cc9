//! The service itself: whether it lives, how the jobs stand, what it knows.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::child::Line;
use crate::problem::Problem;
use crate::routes::{Answer, Call, Route, ok, page, page_of};
use crate::schema::{Answers, CURSOR, LIMIT, What, of, text};
use crate::service::Service;
use crate::tokens::Scope;
use crate::{audit as log, metrics, openapi};

/// The most files of a folder that are listed.
const LISTED_MAX: usize = 100_000;

/// The text that Prometheus reads.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/healthz",
        Scope::ReadOnly,
        "Tell whether the service lives",
        |call| Box::pin(healthz(call)),
    )
    .answers(200, Answers::One(What::Own(of::<Alive>)))
    .or(&[(503, "the service is ending", What::Own(of::<Alive>))])
    .open(),
    Route::get(
        "/metrics",
        Scope::ReadOnly,
        "Tell Prometheus how jobs and runs stand",
        |call| Box::pin(metrics(call)),
    )
    .answers(200, Answers::Raw(METRICS)),
    Route::get(
        "/api/v1/openapi.json",
        Scope::ReadOnly,
        "Describe this API",
        |call| Box::pin(openapi(call)),
    )
    .answers(200, Answers::One(What::Own(of::<Map<String, Value>>)))
    .open(),
    Route::get(
        "/api/v1/service",
        Scope::ReadOnly,
        "Tell how the service is run",
        |call| Box::pin(about(call)),
    )
    .answers(200, Answers::One(What::Own(of::<About<'static>>))),
    Route::get(
        "/api/v1/health",
        Scope::ReadOnly,
        "Tell how the jobs stand, and why one is bad",
        |call| Box::pin(health(call)),
    )
    .answers(
        200,
        Answers::WithList(
            What::Own(of::<Health>),
            "jobs",
            What::ProgramAnd("Job", of::<Judged>),
        ),
    ),
    Route::get(
        "/api/v1/paths",
        Scope::Admin,
        "List a folder of this machine, to choose sources",
        |call| Box::pin(paths(call)),
    )
    .query(&[text("path"), LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Own(of::<Named>))),
    Route::get(
        "/api/v1/audit",
        Scope::Admin,
        "Tell who did what, newest first",
        |call| Box::pin(audit(call)),
    )
    .query(&[LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Own(of::<log::Entry<'static>>))),
];

/// Whether the service lives.
#[derive(Serialize, JsonSchema)]
struct Alive {
    /// `ok`, or `stopping`.
    status: &'static str,
}

/// How the service is run.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Service")]
struct About<'a> {
    version: &'static str,
    started: Timestamp,
    /// Whose it is for who asks; the administrator's where it is nobody's.
    user: Option<&'a str>,
    /// The larder.toml that it reads, for the administrator.
    config: Option<String>,
    /// How many runs there are at the moment.
    running: usize,
    /// Whether shell commands may be set by the API.
    allow_commands: bool,
    /// Folders below which what is named has to lie; none for no such limit.
    allow_paths: Vec<String>,
    /// Whether it speaks TLS itself.
    tls: bool,
    /// Whether there is no location or no job yet.
    needs_setup: bool,
}

/// How all jobs stand.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// `ok`, or `failing` if somebody has to do something about a job.
    status: &'static str,
}

/// How a job stands, and why.
#[derive(Serialize, JsonSchema)]
struct Judged {
    state: State,
    /// Why it is bad.
    why: Option<String>,
}

/// What is in a folder of the service's machine.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NamedPath")]
struct Named {
    name: String,
    path: String,
    /// `directory`, `file`, `symlink` or `other`.
    r#type: &'static str,
    /// Of a file, in bytes.
    size: Option<u64>,
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The newest backup made a snapshot.
    Ok,
    /// A backup is under way.
    Running,
    /// The newest backup made none.
    Failing,
    /// There was no backup yet.
    Never,
    /// It cannot be run.
    Mistake,
}

impl State {
    /// Tells whether somebody has to do something.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failing | Self::Mistake)
    }
}

/// Judges a job of `larder job list`, and says why.
pub fn state(job: &Value) -> (State, Option<String>) {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    if let Some(mistake) = text(job.get("mistake")) {
        return (State::Mistake, Some(mistake));
    }
    let last = job.get("last").filter(|last| !last.is_null());
    let Some(last) = last else {
        return (State::Never, None);
    };
    let error = text(last.get("error"));
    match text(last.get("outcome")).as_deref() {
        None => (State::Running, None),
        Some("success") => (State::Ok, None),
        Some("incomplete") => (State::Ok, error),
        Some(outcome) => {
            let why = error.unwrap_or_else(|| format!("the newest backup ended with {outcome}"));
            (State::Failing, Some(why))
        }
    }
}

/// Asks for all jobs.
///
/// # Errors
/// When the program does not tell.
pub async fn jobs(service: &Service) -> Result<Vec<Value>, Problem> {
    let line = Line::new(["job", "list"]);
    let jobs: Result<Vec<Value>, _> = service.program.document(&line, &[]).await;
    jobs.map_err(|failure| failure.problem())
}

/// Asks for all locations.
///
/// # Errors
/// When the program does not tell.
pub async fn locations(service: &Service) -> Result<Vec<Value>, Problem> {
    let line = Line::new(["location", "list"]);
    let locations: Result<Vec<Value>, _> = service.program.document(&line, &[]).await;
    locations.map_err(|failure| failure.problem())
}

async fn healthz(call: Call) -> Answer {
    match call.service.is_stopping() {
        false => ok(&Alive { status: "ok" }),
        true => {
            let mut answer = ok(&Alive { status: "stopping" })?;
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok(answer)
        }
    }
}

async fn metrics(call: Call) -> Answer {
    let text = metrics::text(&call.service).await?;
    Ok(([(CONTENT_TYPE, METRICS)], text).into_response())
}

async fn openapi(call: Call) -> Answer {
    let options = &call.service.options;
    ok(&openapi::document(options.version, options.documents))
}

async fn about(call: Call) -> Answer {
    let service = &call.service;
    let options = &service.options;
    // Where the service keeps its own files is nothing that users need.
    let config = options.config.as_ref().filter(|_| service.user.is_none());
    let needs_setup = locations(service).await?.is_empty() || jobs(service).await?.is_empty();
    let paths = service.policy().paths();
    let paths = paths.iter().map(|path| path.display().to_string());
    ok(&About {
        version: options.version,
        started: service.common.started,
        user: service.user.as_deref(),
        config: config.map(|path| path.display().to_string()),
        running: service.runs.running(),
        allow_commands: service.policy().commands(),
        allow_paths: paths.collect(),
        tls: options.tls.is_some(),
        needs_setup,
    })
}

async fn health(call: Call) -> Answer {
    let mut jobs = jobs(&call.service).await?;
    let mut is_failing = false;
    for job in &mut jobs {
        let (state, why) = state(job);
        is_failing |= state.is_bad();
        if let (Some(job), Value::Object(judged)) =
            (job.as_object_mut(), json!(Judged { state, why }))
        {
            job.extend(judged);
        }
    }
    let status = if is_failing { "failing" } else { "ok" };
    let mut all = json!(Health { status });
    if let Some(all) = all.as_object_mut() {
        all.insert("jobs".to_owned(), Value::Array(jobs));
    }
    ok(&all)
}

async fn paths(call: Call) -> Answer {
    let named = call.query("path").unwrap_or("/").to_owned();
    let folder = call.service.policy().path("path", &named)?;
    let listed = tokio::task::spawn_blocking(move || list(&folder)).await;
    let listed = listed.map_err(|error| Problem::internal(error.to_string()))?;
    let items = listed.map_err(|error| {
        let status = match error.kind() {
            std::io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            _ => StatusCode::NOT_FOUND,
        };
        Problem::new(status, format!("cannot list {named}: {error}"))
    })?;
    page_of(&call, items)
}

/// Lists a folder, sorted by name.
fn list(folder: &std::path::Path) -> std::io::Result<Vec<Value>> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(folder)?.take(LISTED_MAX) {
        let item = item?;
        let kind = item.file_type()?;
        let (kind, size) = match () {
            () if kind.is_dir() => ("directory", None),
            () if kind.is_file() => ("file", item.metadata().ok().map(|file| file.len())),
            () if kind.is_symlink() => ("symlink", None),
            () => ("other", None),
        };
        // What is not UTF-8 cannot be named in larder.toml.
        if let (Ok(name), Some(path)) = (item.file_name().into_string(), item.path().to_str()) {
            found.push(Named {
                name,
                path: path.to_owned(),
                r#type: kind,
                size,
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found.iter().map(|item| json!(item)).collect())
}

async fn audit(call: Call) -> Answer {
    let (skip, limit) = call.page()?;
    let service = std::sync::Arc::clone(&call.service);
    let first = usize::try_from(skip).unwrap_or(usize::MAX);
    let read = tokio::task::spawn_blocking(move || service.audit.page(first, limit)).await;
    let read = read.map_err(|error| Problem::internal(error.to_string()))?;
    let read =
        read.map_err(|error| Problem::internal(format!("cannot read the audit log: {error}")));
    let (items, has_more) = read?;
    let next = has_more.then(|| skip + items.len() as u64);
    page(items, next, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_judged_by_its_newest_backup() {
        let judged = |job: Value| state(&job).0;
        assert_eq!(judged(json!({"last": null})), State::Never);
        assert_eq!(judged(json!({"last": {"outcome": null}})), State::Running);
        assert_eq!(
            judged(json!({"last": {"outcome": "incomplete"}})),
            State::Ok
        );
        assert_eq!(judged(json!({"last": {"outcome": "died"}})), State::Failing);
        let (found, why) = state(&json!({"last": {"outcome": "failure", "error": "no room"}}));
        assert_eq!((found, why.as_deref()), (State::Failing, Some("no room")));
        assert!(judged(json!({"mistake": "x", "last": {"outcome": "success"}})).is_bad());
    }
}
