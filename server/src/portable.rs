//! Portable backups: one encrypted file with all that a job covers, out of one installation and into another.
//!
//! The two calls, and how they answer, are those that operators script already: their form is not ours to change.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Multipart};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use zeroize::Zeroizing;

use crate::api::{jobs, service, snapshots};
use crate::child::Failure;
use crate::data;
use crate::problem::Problem;
use crate::routes::{self, Answer, BODY_BYTES_MAX, Call, Route, ok};
use crate::runs::{Outcome, Record, Wanted};
use crate::schema::{Answers, What, of};
use crate::service::{Repository, Service};
use crate::tokens::Scope;

/// How the program calls the bundle that it reads: what is wrong with it is wrong with the request.
const BUNDLE: &str = "the bundle on standard input";
/// How much is still read of an upload that is refused, so that its sender hears why, in bytes.
const DRAINED_MAX: usize = 256 << 20;

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/api/v1/portable",
        Scope::Admin,
        "Tell which job portable backups cover",
        |call| Box::pin(show(call)),
    )
    .answers(200, Answers::One(What::Own(of::<Choice>))),
    Route::put(
        "/api/v1/portable",
        Scope::Admin,
        "Choose which job portable backups cover",
        |call| Box::pin(choose(call)),
    )
    .takes(of::<Choice>)
    .answers(200, Answers::One(What::Own(of::<Choice>))),
    Route::post(
        "/_backup/api/v1/backup",
        Scope::Portable,
        "Back up, and give all of it as one encrypted file",
        |call| Box::pin(backup(call)),
    )
    .takes(of::<Config>)
    .answers(200, Answers::Raw("application/octet-stream")),
    Route::post(
        "/_backup/api/v1/restore",
        Scope::Portable,
        "Verify such a file, and restore all of it",
        |call| Box::pin(restore(call)),
    )
    .takes(of::<Form>)
    .answers(200, Answers::One(What::Own(of::<PutBack>)))
    .upload(),
];

/// Which job is covered.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PortableChoice")]
struct Choice {
    /// Its name; none for the only one that there is.
    job: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Config {
    password: String,
}

/// The two fields of the form, in this order.
#[derive(JsonSchema)]
#[expect(
    dead_code,
    reason = "the form is read as it comes; this says what it has"
)]
struct Form {
    /// A JSON object with the `password` of the bundle.
    #[schemars(extend("contentMediaType" = "application/json"))]
    config: String,
    /// The bundle.
    #[schemars(extend("format" = "binary"))]
    snapshot: String,
}

/// What was restored.
#[derive(Serialize, JsonSchema)]
struct PutBack {
    /// The snapshot that came into the repository here.
    snapshot: String,
}

async fn show(call: Call) -> Answer {
    ok(&chosen(&call.service)?)
}

async fn choose(call: Call) -> Answer {
    let choice: Choice = call.json()?;
    if let Some(job) = &choice.job {
        call.service.job(job).await.map_err(|problem| Problem {
            field: Some("job".to_owned()),
            ..problem
        })?;
    }
    let text = serde_json::to_vec(&choice).unwrap_or_default();
    let kept = data::write(&call.service.data.path("portable.json"), &text);
    kept.map_err(|error| Problem::internal(format!("cannot keep the choice: {error}")))?;
    ok(&choice)
}

fn chosen(service: &Service) -> Result<Choice, Problem> {
    let text = data::read(&service.data.path("portable.json"));
    let text =
        text.map_err(|error| Problem::internal(format!("cannot read the choice: {error}")))?;
    Ok(text
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default())
}

/// Gives the job that is covered, as the program shows it.
async fn covered(service: &Service) -> Result<(String, Value), Problem> {
    let name = match chosen(service)?.job {
        Some(name) => name,
        None => {
            let jobs = service::jobs(service).await.map_err(internal)?;
            let names = jobs.iter().filter_map(|job| job.get("name")?.as_str());
            match names.collect::<Vec<_>>().as_slice() {
                [only] => (*only).to_owned(),
                [] => {
                    return Err(failed(
                        "there is no job yet; add one that says what is backed up",
                    ));
                }
                _ => {
                    return Err(failed(
                        "there are several jobs; choose one for portable backups",
                    ));
                }
            }
        }
    };
    let job = service.job(&name).await.map_err(internal)?;
    if let Some(mistake) = job.get("mistake").and_then(Value::as_str) {
        return Err(failed(mistake));
    }
    service.admit(&job).await.map_err(internal)?;
    Ok((name, job))
}

async fn backup(call: Call) -> Answer {
    // Programs send it as whatever their tool takes it for.
    let password = password(&call.body)?;
    let service = &call.service;
    let (name, job) = covered(service).await?;
    let repository = service.repository_of_job(&job)?;
    let by = call.caller()?.token.name.clone();
    let (run, _) = service
        .runs
        .start(jobs::now(&name, "portable", by, false))
        .map_err(internal)?;
    let snapshot = match made(&run.ended().await)? {
        Some(snapshot) => snapshot,
        None => newest(service, &repository, &name, &job).await?,
    };
    let mut line = repository.line(["export", "--output=-", "--quiet"]);
    line.is_plain = true;
    line.variables.push(("LARDER_BUNDLE_PASSWORD", password));
    line.operands([snapshot]);
    let running = service.program.begin(&line).map_err(not_done)?;
    let body = snapshots::streamed(running, &[]).await.map_err(not_done)?;
    let mut answer = Response::new(body);
    let kind = HeaderValue::from_static("application/octet-stream");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(answer)
}

/// Gives the snapshot that a run of a job made; none if nothing had changed, and it makes none then.
fn made(record: &Record) -> Result<Option<String>, Problem> {
    let runs = record
        .summary
        .as_ref()
        .and_then(|summary| summary.get("runs")?.as_array());
    let mut runs = runs.into_iter().flatten();
    let backup = runs.find(|run| run.get("kind").is_some_and(|kind| kind == "backup"));
    let outcome = backup.and_then(|backup| backup.get("outcome")?.as_str());
    if !matches!(outcome, Some("success" | "incomplete")) {
        let why = record
            .error
            .as_deref()
            .unwrap_or("the backup did not come to its end");
        return Err(failed(why));
    }
    let snapshot = backup.and_then(|backup| backup.get("snapshot")?.as_str());
    Ok(snapshot.map(str::to_owned))
}

/// Finds the newest snapshot of a job, whose tag it has: others may lie beside it.
async fn newest(
    service: &Service,
    repository: &Repository,
    name: &str,
    job: &Value,
) -> Result<String, Problem> {
    let host = job
        .get("settings")
        .and_then(|settings| settings.get("host"));
    let mut line = repository.line(["snapshots"]);
    line.option("tag", &format!("job:{name}"))
        .maybe("host", host.and_then(Value::as_str));
    let listed: Result<Vec<Value>, _> = service.program.document(&line, &[6]).await;
    let listed = listed.map_err(not_done)?;
    last(&listed).ok_or_else(|| {
        failed(&format!(
            "nothing has changed, so the job {name} made no snapshot, and there is none of it from before"
        ))
    })
}

/// Gives the last of a list of snapshots, which is the newest.
fn last(listed: &[Value]) -> Option<String> {
    listed.last()?.get("id")?.as_str().map(str::to_owned)
}

async fn restore(call: Call) -> Answer {
    let service = Arc::clone(&call.service);
    let by = call.caller()?.token.name.clone();
    let request = call.take_upload()?;
    let multipart = Multipart::from_request(request, &()).await;
    let mut multipart = multipart.map_err(|_| {
        Problem::bad("this is no multipart form with the fields config and snapshot")
    })?;
    match receive(&service, &mut multipart).await {
        Ok((job, repository, snapshot)) => {
            put_back(&service, &by, &job, &repository, &snapshot).await?;
            ok(&PutBack { snapshot })
        }
        Err(problem) => {
            drain(&mut multipart).await;
            Err(problem)
        }
    }
}

/// Takes both fields, and brings the bundle into the repository once all of it is verified; gives its newest snapshot there.
async fn receive(
    service: &Service,
    multipart: &mut Multipart,
) -> Result<(Value, Repository, String), Problem> {
    let field = multipart.next_field().await.map_err(malformed)?;
    let field = field.filter(|field| field.name() == Some("config"));
    let mut field =
        field.ok_or_else(|| Problem::bad("the first field of the form has to be config"))?;
    let mut config = Zeroizing::new(Vec::new());
    while let Some(piece) = field.chunk().await.map_err(malformed)? {
        config.extend_from_slice(&piece);
        if config.len() > BODY_BYTES_MAX {
            return Err(Problem::bad("the field config is longer than 1 MiB"));
        }
    }
    drop(field);
    let password = password(&config)?;
    let (_, job) = covered(service).await?;
    let repository = service.repository_of_job(&job)?;

    let field = multipart.next_field().await.map_err(malformed)?;
    let field = field.filter(|field| field.name() == Some("snapshot"));
    let mut field =
        field.ok_or_else(|| Problem::bad("the second field of the form has to be snapshot"))?;
    let mut line = repository.line(["import", "--no-progress"]);
    line.variables.push(("LARDER_BUNDLE_PASSWORD", password));
    line.operands(["-"]);
    let mut running = service.program.begin_to_feed(&line).map_err(not_done)?;
    let mut pipe = running.child.stdin.take();
    while let Some(piece) = field.chunk().await.map_err(malformed)? {
        let Some(open) = &mut pipe else {
            break;
        };
        // Whoever reads no further has found something wrong, and says so.
        if open.write_all(&piece).await.is_err() {
            pipe = None;
        }
    }
    drop(pipe);
    let told = running.all().await;
    let told = told.map_err(|error| failed(&format!("cannot read what was imported: {error}")))?;
    running.end(&[]).await.map_err(of_import)?;
    let snapshot =
        imported(&told).ok_or_else(|| Problem::bad("there is no snapshot in the bundle"))?;
    Ok((job, repository, snapshot))
}

/// Gives the newest snapshot that was imported.
fn imported(told: &[u8]) -> Option<String> {
    let lines = told.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut copied = lines.filter(|line| {
        line.get("message_type")
            .is_some_and(|kind| kind == "copied")
    });
    let newest = copied.next_back()?;
    newest.get("snapshot")?.as_str().map(str::to_owned)
}

/// Restores each source of a snapshot to where the job here has it.
async fn put_back(
    service: &Service,
    by: &str,
    job: &Value,
    repository: &Repository,
    snapshot: &str,
) -> Result<(), Problem> {
    let mut line = repository.line(["ls"]);
    line.operands([snapshot]);
    let listed = service.program.page(&line, 0, 10_000, &[3]).await;
    let listed = listed.map_err(not_done)?.items;
    let sources = listed.iter().filter_map(|item| {
        let path = item.get("path")?.as_str()?.to_owned();
        let is_file = item.get("type").is_some_and(|kind| kind == "file");
        Some(Source { path, is_file })
    });
    let pairs = paired(sources.collect(), job)?;
    for (_, target) in pairs.iter().filter(|_| service.user.is_some()) {
        // A file goes into the folder around it, which may be more than the source that was allowed.
        jobs::refuse_source(service, target)
            .await
            .map_err(internal)?;
    }
    for (source, target) in pairs {
        let mut line = repository.line(["restore"]);
        line.option("target", &target)
            .operands([format!("{snapshot}:{source}")]);
        let (run, _) = service
            .runs
            .start(Wanted {
                kind: "restore",
                job: job.get("name").and_then(Value::as_str).map(str::to_owned),
                location: None,
                trigger: "portable",
                by: by.to_owned(),
                dry_run: false,
                line,
                key: None,
            })
            .map_err(internal)?;
        let record = run.ended().await;
        if !matches!(record.outcome, Some(Outcome::Success | Outcome::Incomplete)) {
            let why = record
                .error
                .unwrap_or_else(|| "it did not come to its end".to_owned());
            return Err(failed(&format!(
                "{source} was not restored to {target}: {why}"
            )));
        }
    }
    Ok(())
}

/// A source of the bundle's snapshot.
struct Source {
    path: String,
    is_file: bool,
}

/// Gives for each source of a snapshot where it belongs here: what has the same name stays, and the others go in order.
fn paired(sources: Vec<Source>, job: &Value) -> Result<Vec<(String, String)>, Problem> {
    let settings = job.get("settings").unwrap_or(&Value::Null);
    let named = settings.get("sources").and_then(Value::as_array);
    let named = named.into_iter().flatten().filter_map(Value::as_str);
    let mut targets: Vec<&str> = named.collect();
    let all = targets.len();
    let found = sources.len();
    let mut pairs = Vec::new();
    let mut left = Vec::new();
    for source in sources {
        match targets.iter().position(|target| *target == source.path) {
            Some(at) => {
                let target = targets.remove(at).to_owned();
                pairs.push((source, target));
            }
            None => left.push(source),
        }
    }
    if left.len() != targets.len() {
        let why = format!(
            "the bundle has {found} sources and the job here {all}, so it is not clear where each belongs; its snapshot is in the \
             repository, and nothing was restored"
        );
        return Err(Problem::bad(why));
    }
    pairs.extend(left.into_iter().zip(targets.into_iter().map(str::to_owned)));
    let placed = pairs.into_iter().map(|(source, target)| {
        let folder = match source.is_file {
            // A file comes into a folder, under its own name.
            true => target
                .rsplit_once('/')
                .map_or("/", |(folder, _)| folder)
                .to_owned(),
            false => target,
        };
        let folder = if folder.is_empty() {
            "/".to_owned()
        } else {
            folder
        };
        (source.path, folder)
    });
    Ok(placed.collect())
}

/// Reads on for a while, so that whoever sends reads the answer, and not that the connection broke.
async fn drain(multipart: &mut Multipart) {
    let mut left = DRAINED_MAX;
    while let Ok(Some(mut field)) = multipart.next_field().await {
        while let Ok(Some(piece)) = field.chunk().await {
            left = left.saturating_sub(Bytes::len(&piece));
            if left == 0 {
                return;
            }
        }
    }
}

fn password(text: &[u8]) -> Result<Zeroizing<String>, Problem> {
    let config: Config = routes::object(text).map_err(|_| {
        Problem::bad("this is no JSON object with a password, like { \"password\": \"...\" }")
    })?;
    match config.password.is_empty() || config.password.contains('\0') {
        true => Err(Problem::field(
            "password",
            "the password is empty, or no text",
        )),
        false => Ok(Zeroizing::new(config.password)),
    }
}

/// What is wrong with the bundle is wrong with the request; all else failed here.
fn of_import(failure: Failure) -> Problem {
    let status = match failure.message.contains(BUNDLE) {
        true => StatusCode::BAD_REQUEST,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem {
        code: failure.code,
        ..Problem::new(status, failure.message)
    }
}

fn not_done(failure: Failure) -> Problem {
    internal(failure.problem())
}

fn malformed(error: axum::extract::multipart::MultipartError) -> Problem {
    Problem::bad(format!("the form was cut off, or is none: {error}"))
}

/// These calls know 400 and 500 alone.
fn internal(problem: Problem) -> Problem {
    problem.with_status(StatusCode::INTERNAL_SERVER_ERROR)
}

fn failed(why: &str) -> Problem {
    Problem::internal(why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::child::{BUSY, WRONG_SECRET};

    fn pairs(sources: &[(&str, bool)], targets: &[&str]) -> Result<Vec<(String, String)>, Problem> {
        let sources = sources.iter().map(|(path, is_file)| Source {
            path: (*path).to_owned(),
            is_file: *is_file,
        });
        paired(
            sources.collect(),
            &json!({"settings": {"sources": targets}}),
        )
    }

    #[test]
    fn each_source_goes_where_the_job_here_has_it() {
        let found = pairs(
            &[("/a", false), ("s3://old/x", false), ("/c", false)],
            &["s3://new/x", "/c", "/z"],
        );
        let expected = [("/c", "/c"), ("/a", "s3://new/x"), ("s3://old/x", "/z")];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(found.unwrap(), expected);
        let found = pairs(&[("/a/file", true)], &["/b/file"]).unwrap();
        assert_eq!(found, [("/a/file".to_owned(), "/b".to_owned())]);
        let found = pairs(&[("/file", true)], &["/file"]).unwrap();
        assert_eq!(found, [("/file".to_owned(), "/".to_owned())]);
        assert_eq!(
            pairs(&[("/a", false)], &["/a", "/b"]).unwrap_err().status,
            400
        );
    }

    #[test]
    fn a_payload_has_a_password() {
        assert_eq!(password(b"{ \"password\": \"p\" }").unwrap().as_str(), "p");
        for wrong in [
            "",
            "{}",
            "[]",
            "{\"password\": \"\"}",
            "{\"password\": 1}",
            "password",
        ] {
            assert_eq!(
                password(wrong.as_bytes()).unwrap_err().status,
                400,
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_the_bundle_is_not_our_failure() {
        let of = |code, message: &str| {
            let failure = Failure {
                code: Some(code),
                message: message.to_owned(),
            };
            of_import(failure).status.as_u16()
        };
        assert_eq!(
            of(
                WRONG_SECRET,
                "wrong password or key: none of the 1 key slots of the bundle on standard input opens with it"
            ),
            400
        );
        assert_eq!(
            of(
                1,
                "the bundle on standard input is no whole bundle: it ends early"
            ),
            400
        );
        assert_eq!(
            of(
                WRONG_SECRET,
                "wrong password or key: none of the 1 key slots of /srv opens with it"
            ),
            500
        );
        assert_eq!(of(BUSY, "no room"), 500);
    }

    #[test]
    fn the_newest_snapshot_of_a_job_is_the_last_of_its_list() {
        let listed = [json!({"id": "a"}), json!({"id": "b"})];
        assert_eq!(last(&listed).unwrap(), "b");
        assert_eq!(last(&[]), None);
    }

    #[test]
    fn the_newest_snapshot_is_the_last_that_was_copied() {
        let told = b"{\"message_type\":\"copied\",\"snapshot\":\"a\"}\n{\"message_type\":\"copied\",\"snapshot\":\"b\"}\n{\"message_type\":\"summary\"}\n";
        assert_eq!(imported(told).unwrap(), "b");
        assert_eq!(imported(b""), None);
    }
}
