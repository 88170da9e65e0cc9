//! Snapshots: listed, browsed, searched, compared, downloaded.

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::Response;
use futures_util::stream;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _};

use crate::child::{Failure, Line, Running};
use crate::problem::Problem;
use crate::routes::{Answer, Call, Route, ok, page, page_of};
use crate::schema::{Answers, CURSOR, LIMIT, Typed, What, flag, needed, of, text, texts, time};
use crate::service::Repository;
use crate::tokens::Scope;

/// How much is sent at a time, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// What a name in a header may have as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');
/// Exit codes of lists of which something could not be read when it was backed up.
const UNREADABLE: &[u8] = &[3];

/// What a file is sent as, and a folder.
const BYTES: &str = "application/octet-stream";
const TAR: &str = "application/x-tar";

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/api/v1/locations/{name}/snapshots",
        Scope::ReadOnly,
        "List the snapshots, newest first",
        |call| Box::pin(list(call)),
    )
    .query(&[
        texts("host"),
        texts("tag"),
        texts("path"),
        flag("partial"),
        time("before"),
        LIMIT,
        CURSOR,
    ])
    .answers(200, Answers::Page(What::Program("Snapshot"))),
    Route::get(
        "/api/v1/locations/{name}/snapshots/{id}",
        Scope::ReadOnly,
        "Show a snapshot",
        |call| Box::pin(show(call)),
    )
    .answers(200, Answers::One(What::Program("Snapshot"))),
    Route::get(
        "/api/v1/locations/{name}/snapshots/{id}/entries",
        Scope::ReadOnly,
        "List a folder of a snapshot",
        |call| Box::pin(entries(call)),
    )
    .query(&[text("path"), flag("recursive"), LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Program("Item"))),
    Route::get(
        "/api/v1/locations/{name}/snapshots/{id}/diff",
        Scope::ReadOnly,
        "Compare with another snapshot",
        |call| Box::pin(diff(call)),
    )
    .query(&[needed("from"), text("path"), LIMIT, CURSOR])
    .answers(
        200,
        Answers::PageAndSummary(
            What::ProgramAnd("Difference", of::<Typed>),
            What::ProgramAnd("Differences", of::<Typed>),
        ),
    ),
    Route::get(
        "/api/v1/locations/{name}/find",
        Scope::ReadOnly,
        "Find paths in all snapshots",
        |call| Box::pin(find(call)),
    )
    .query(&[
        texts("pattern"),
        flag("ignore_case"),
        text("newer"),
        text("older"),
        text("at"),
        texts("host"),
        texts("tag"),
        texts("path"),
        LIMIT,
        CURSOR,
    ])
    .answers(200, Answers::Page(What::Program("Found"))),
    Route::get(
        "/api/v1/locations/{name}/history",
        Scope::ReadOnly,
        "List the versions of a path",
        |call| Box::pin(history(call)),
    )
    .query(&[needed("path"), texts("host"), texts("tag"), LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Program("Version"))),
    Route::get(
        "/api/v1/locations/{name}/snapshots/{id}/file",
        Scope::Operate,
        "Download a file",
        |call| Box::pin(file(call)),
    )
    .query(&[needed("path")])
    .answers(200, Answers::Raw(BYTES))
    .audited(),
    Route::get(
        "/api/v1/locations/{name}/snapshots/{id}/tar",
        Scope::Operate,
        "Download a folder as tar",
        |call| Box::pin(tar(call)),
    )
    .query(&[needed("path")])
    .answers(200, Answers::Raw(TAR))
    .audited(),
    Route::get(
        "/api/v1/locations/{name}/stats",
        Scope::ReadOnly,
        "Count what a repository holds",
        |call| Box::pin(stats(call)),
    )
    .query(&[flag("history"), texts("host"), texts("tag"), texts("path")])
    .answers(200, Answers::One(What::Program("Stats"))),
    Route::get(
        "/api/v1/locations/{name}/status",
        Scope::ReadOnly,
        "Tell when each source was last backed up",
        |call| Box::pin(status(call)),
    )
    .query(&[
        text("max_age"),
        texts("host"),
        texts("tag"),
        texts("path"),
        LIMIT,
        CURSOR,
    ])
    .answers(200, Answers::Page(What::Program("Standing"))),
];

async fn repository(call: &Call) -> Result<Repository, Problem> {
    call.service.repository(call.name()?).await
}

/// Adds which snapshots are looked at.
fn narrow(call: &Call, line: &mut Line) {
    for name in ["host", "tag", "path"] {
        line.each(name, &call.queries(name));
    }
}

async fn whole(call: &Call, line: &Line) -> Result<Vec<Value>, Problem> {
    let list: Result<Vec<Value>, _> = call.service.program.document(line, &[6]).await;
    list.map_err(|failure| failure.problem())
}

async fn list(call: Call) -> Answer {
    let mut line = repository(&call).await?.line(["snapshots"]);
    line.flag("partial", call.is("partial")?);
    narrow(&call, &mut line);
    let mut all = whole(&call, &line).await?;
    if let Some(before) = call.query("before") {
        let before: Timestamp = before.parse().map_err(|_| {
            Problem::field("before", "before is a time such as 2026-11-01T03:00:00Z")
        })?;
        let time = |snapshot: &Value| snapshot.get("time")?.as_str()?.parse::<Timestamp>().ok();
        all.retain(|snapshot| time(snapshot).is_none_or(|time| time <= before));
    }
    all.reverse();
    page_of(&call, all)
}

async fn show(call: Call) -> Answer {
    let id = snapshot(call.param("id"))?.to_owned();
    let mut line = repository(&call).await?.line(["snapshots"]);
    line.flag("partial", true);
    let mut all = whole(&call, &line).await?;
    let missing = || Problem::missing(format!("there is no snapshot {id}"));
    if id == "latest" {
        let is_whole = |snapshot: &Value| snapshot.get("partial") == Some(&Value::Bool(false));
        let newest = all.iter().rev().find(|snapshot| is_whole(snapshot));
        return ok(newest.ok_or_else(missing)?);
    }
    all.retain(|snapshot| {
        let own = snapshot.get("id").and_then(Value::as_str);
        own.is_some_and(|own| own.starts_with(&id))
    });
    match all.as_slice() {
        [one] => ok(one),
        [] => Err(missing()),
        _ => Err(Problem::bad(format!(
            "several snapshots begin with {id}; give more of its id"
        ))),
    }
}

async fn entries(call: Call) -> Answer {
    let named = spec(&call)?;
    let mut line = repository(&call).await?.line(["ls"]);
    line.flag("recursive", call.is("recursive")?)
        .operands([named]);
    listed(&call, &line).await
}

async fn find(call: Call) -> Answer {
    let mut line = repository(&call).await?.line(["find"]);
    line.flag("ignore-case", call.is("ignore_case")?);
    for name in ["newer", "older", "at"] {
        line.maybe(name, call.query(name));
    }
    narrow(&call, &mut line);
    line.operands(call.queries("pattern"));
    listed(&call, &line).await
}

async fn diff(call: Call) -> Answer {
    let from = call.query("from").unwrap_or_default();
    let from = snapshot(from).map_err(|problem| Problem {
        field: Some("from".to_owned()),
        ..problem
    })?;
    let path = call.query("path").filter(|path| !path.is_empty());
    let from = path.map_or_else(|| from.to_owned(), |path| format!("{from}:{path}"));
    let to = spec(&call)?;
    let mut line = repository(&call).await?.line(["diff"]);
    line.operands([from, to]);
    let (skip, limit) = call.page()?;
    let found = call.service.program.page(&line, skip, limit, &[]).await;
    let found = found.map_err(Failure::problem)?;
    let next = found.more.then(|| skip + found.items.len() as u64);
    ok(&serde_json::json!({
        "items": found.items,
        "next": next.map(|next| next.to_string()),
        "summary": found.summary,
    }))
}

async fn history(call: Call) -> Answer {
    let path = needed_path(&call)?.to_owned();
    let mut line = repository(&call).await?.line(["history"]);
    for name in ["host", "tag"] {
        line.each(name, &call.queries(name));
    }
    line.operands([path]);
    let all = whole(&call, &line).await?;
    page_of(&call, all)
}

async fn stats(call: Call) -> Answer {
    let mut line = repository(&call).await?.line(["stats"]);
    line.flag("no-progress", true);
    line.flag("history", call.is("history")?);
    narrow(&call, &mut line);
    let found: Result<Value, _> = call.service.program.document(&line, &[]).await;
    ok(&found.map_err(|failure| failure.problem())?)
}

async fn status(call: Call) -> Answer {
    let mut line = repository(&call).await?.line(["status"]);
    line.maybe("max-age", call.query("max_age"));
    narrow(&call, &mut line);
    let all = whole(&call, &line).await?;
    page_of(&call, all)
}

/// Answers with a page of a list that is written while it is read.
async fn listed(call: &Call, line: &Line) -> Answer {
    let (skip, limit) = call.page()?;
    let found = call
        .service
        .program
        .page(line, skip, limit, UNREADABLE)
        .await;
    let found = found.map_err(Failure::problem)?;
    let next = found.more.then(|| skip + found.items.len() as u64);
    page(found.items, next, None)
}

async fn file(call: Call) -> Answer {
    download(&call, BYTES, "", &[]).await
}

async fn tar(call: Call) -> Answer {
    // What could not be read when it was backed up is left out.
    download(&call, TAR, ".tar", UNREADABLE).await
}

async fn download(call: &Call, kind: &'static str, ending: &str, good: &'static [u8]) -> Answer {
    let path = needed_path(call)?;
    let name = path.trim_end_matches('/').rsplit('/').next();
    let name = name.filter(|name| !name.is_empty()).unwrap_or("all");
    let disposition = disposition(&format!("{name}{ending}"));
    let mut line = repository(call).await?.line(["dump"]);
    line.operands([spec(call)?]);
    let running = call
        .service
        .program
        .begin(&line)
        .map_err(Failure::problem)?;
    let body = streamed(running, good).await;
    let mut answer = Response::new(body.map_err(Failure::problem)?);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_DISPOSITION, disposition?);
    Ok(answer)
}

/// Sends what a command prints as it comes. What fails before the first byte is told; after that the connection is cut off,
/// so that nobody takes a part for the whole.
///
/// # Errors
/// With what the program says, if it printed nothing.
pub async fn streamed(mut running: Running, good: &'static [u8]) -> Result<Body, Failure> {
    let first = running.out.fill_buf().await.map(<[u8]>::is_empty);
    if first.unwrap_or(true) {
        running.end(good).await?;
        return Ok(Body::empty());
    }
    let stream = stream::unfold(Some(running), move |running| async move {
        let mut running = running?;
        let mut piece = vec![0_u8; PIECE_BYTES];
        match running.out.read(&mut piece).await {
            Ok(0) => match running.end(good).await {
                Ok(()) => None,
                Err(failure) => {
                    tracing::warn!("what was sent was cut off: {}", failure.message);
                    Some((Err(std::io::Error::other(failure.message)), None))
                }
            },
            Ok(read) => {
                piece.truncate(read);
                Some((Ok(Bytes::from(piece)), Some(running)))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(Body::from_stream(stream))
}

/// Gives what names a snapshot, or a path in it, on the command line.
fn spec(call: &Call) -> Result<String, Problem> {
    let id = snapshot(call.param("id"))?;
    match call.query("path").filter(|path| !path.is_empty()) {
        Some(path) => Ok(format!("{id}:{path}")),
        None => Ok(id.to_owned()),
    }
}

/// Takes an id, its beginning, or `latest`, and nothing in which a path could stand.
pub fn snapshot(id: &str) -> Result<&str, Problem> {
    let is_id = !id.is_empty() && id.len() <= 32 && id.chars().all(|c| c.is_ascii_hexdigit());
    let back = id.strip_prefix("latest~").unwrap_or("x");
    let is_back = !back.is_empty() && back.len() <= 9 && back.chars().all(|c| c.is_ascii_digit());
    match is_id || is_back || id == "latest" {
        true => Ok(id),
        false => Err(Problem::bad(format!(
            "'{id}' names no snapshot; use an id, its beginning, or latest"
        ))),
    }
}

fn needed_path(call: &Call) -> Result<&str, Problem> {
    let path = call.query("path").filter(|path| !path.is_empty());
    path.ok_or_else(|| Problem::field("path", "say which path, as it was backed up"))
}

fn disposition(name: &str) -> Result<HeaderValue, Problem> {
    let name = utf8_percent_encode(name, PLAIN);
    let text = format!("attachment; filename*=UTF-8''{name}");
    HeaderValue::from_str(&text).map_err(|_| Problem::bad("the name is no header"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_snapshot_is_named_by_its_id_alone() {
        for id in [
            "latest",
            "latest~2",
            "4f2a91c3",
            "0123456789abcdef0123456789abcdef",
        ] {
            assert!(snapshot(id).is_ok(), "{id}");
        }
        for id in [
            "",
            "latest:/etc",
            "x",
            "--all",
            "@[now]",
            "latest~",
            "latest~x",
        ] {
            assert!(snapshot(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_name_is_safe_in_a_header() {
        let header = disposition("a\"b\r\nä.txt").unwrap();
        assert_eq!(header, "attachment; filename*=UTF-8''a%22b%0D%0A%C3%A4.txt");
    }
}
