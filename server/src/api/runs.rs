//! Runs: how they stand, their log, their progress as it comes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use futures_util::stream;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::problem::Problem;
use crate::routes::{Answer, Call, Route, ok, page, page_of, run};
use crate::runs::log::{self, Line, Tail};
use crate::runs::{Record, Run};
use crate::schema::{Answers, CURSOR, LIMIT, MESSAGE, RUN, Typed, What, flag, of, text};
use crate::tokens::Scope;

/// How often a silent stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many events wait for a slow reader.
const WAITING_MAX: usize = 64;

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/api/v1/runs",
        Scope::ReadOnly,
        "List what this service ran, newest first",
        |call| Box::pin(list(call)),
    )
    .query(&[
        text("job"),
        text("location"),
        text("kind"),
        flag("running"),
        LIMIT,
        CURSOR,
    ])
    .answers(200, Answers::Page(RUN)),
    Route::get("/api/v1/runs/{id}", Scope::ReadOnly, "Show a run", |call| {
        Box::pin(show(call))
    })
    .answers(200, Answers::One(RUN)),
    Route::get(
        "/api/v1/runs/{id}/log",
        Scope::ReadOnly,
        "Give what a run printed",
        |call| Box::pin(log_of(call)),
    )
    .query(&[LIMIT, CURSOR])
    .answers(200, Answers::Page(MESSAGE)),
    Route::get(
        "/api/v1/runs/{id}/events",
        Scope::ReadOnly,
        "Follow a run by server-sent events",
        |call| Box::pin(events(call)),
    )
    .answers(
        200,
        Answers::Events(&[
            ("run", RUN),
            ("status", What::ProgramAnd("Status", of::<Typed>)),
            ("line", MESSAGE),
            ("end", RUN),
        ]),
    ),
    Route::post(
        "/api/v1/runs/{id}/cancel",
        Scope::BackupOnly,
        "Ask a run to stop at the next safe point",
        |call| Box::pin(cancel(call)),
    )
    .answers(202, Answers::One(RUN)),
];

async fn list(call: Call) -> Answer {
    let running = match call.query("running") {
        None => None,
        Some(_) => Some(call.is("running")?),
    };
    let is_wanted = |record: &Record| {
        let is = |query: &str, value: Option<&str>| {
            call.query(query).is_none_or(|wanted| value == Some(wanted))
        };
        is("job", record.job.as_deref())
            && is("location", record.location.as_deref())
            && is("kind", Some(&record.kind))
            && running.is_none_or(|running| running == record.outcome.is_none())
    };
    let all = call.service.runs.newest_first();
    let wanted = all.iter().filter(|run| is_wanted(&run.record()));
    page_of(&call, wanted.map(|run| run.shown()).collect())
}

async fn show(call: Call) -> Answer {
    ok(&call.service.runs.find(call.param("id"))?.shown())
}

async fn log_of(call: Call) -> Answer {
    let found = call.service.runs.find(call.param("id"))?;
    let (skip, limit) = call.page()?;
    let files = found.files.clone();
    let read = tokio::task::spawn_blocking(move || log::page(&files, skip, limit)).await;
    let read = read.map_err(|error| Problem::internal(error.to_string()))?;
    let read = read.map_err(|error| Problem::internal(format!("cannot read the log: {error}")));
    let (items, has_more) = read?;
    let next = has_more.then(|| skip + items.len() as u64);
    page(items, next, None)
}

async fn cancel(call: Call) -> Answer {
    let found = call.service.runs.find(call.param("id"))?;
    let scope = call.caller()?.token.scope;
    if found.record().kind != "job" && !scope.allows(Scope::Operate) {
        return Err(Problem::forbidden(
            "what is no run of a job is cancelled with a token of the scope operate",
        ));
    }
    found.cancel()?;
    run(&(found, true))
}

async fn events(call: Call) -> Answer {
    let found = call.service.runs.find(call.param("id"))?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        // Whoever reads no longer has gone.
        let _ = tell(found, &sender).await;
    });
    let stream = stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok::<Bytes, Infallible>(event), receiver))
    });
    let kind = [(CONTENT_TYPE, "text/event-stream")];
    Ok((kind, Body::from_stream(stream)).into_response())
}

/// The reader of a stream has gone.
struct Gone;

/// Tells of a run from its beginning to its end.
async fn tell(run: Arc<Run>, sender: &mpsc::Sender<Bytes>) -> Result<(), Gone> {
    let mut changes = run.changes();
    let (mut out, mut err) = (Tail::new(&run.files.out), Tail::new(&run.files.err));
    send(sender, event("run", &run.shown())).await?;
    loop {
        // Looked at first: what had ended before has written all that it ever will.
        let has_ended = run.has_ended();
        changes.mark_unchanged();
        let mut status = None;
        while let Ok(Some(lines)) = out.lines() {
            for line in lines {
                match Line::of(line) {
                    Line::Status(line) => status = Some(line),
                    Line::Summary(line) | Line::Other(line) => {
                        send(sender, event("line", &log::message(&line))).await?;
                    }
                }
            }
        }
        if let Some(status) = status.filter(|_| !has_ended) {
            send(sender, event("status", &log::message(&status))).await?;
        }
        while let Ok(Some(lines)) = err.lines() {
            for message in lines.iter().filter_map(|line| log::complaint(line)) {
                send(sender, event("line", &message)).await?;
            }
        }
        if has_ended {
            let rest = err.rest().and_then(|line| log::complaint(&line));
            if let Some(message) = rest {
                send(sender, event("line", &message)).await?;
            }
            return send(sender, event("end", &run.shown())).await;
        }
        match tokio::time::timeout(KEEP_ALIVE, changes.changed()).await {
            Ok(_) => {}
            Err(_) => send(sender, Bytes::from_static(b": still here\n\n")).await?,
        }
    }
}

async fn send(sender: &mpsc::Sender<Bytes>, event: Bytes) -> Result<(), Gone> {
    sender.send(event).await.map_err(|_| Gone)
}

/// Words an event; JSON has no line breaks in it.
fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_three_lines_whatever_is_in_it() {
        let told = event("line", &json!({"text": "a\nb"}));
        assert_eq!(told, "event: line\ndata: {\"text\":\"a\\nb\"}\n\n");
    }
}
