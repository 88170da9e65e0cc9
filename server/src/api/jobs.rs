//! Jobs: what larder.toml says of them, running them, and how that came out.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::api::service;
use crate::child::Line;
use crate::policy::{is_of_bucket, is_url};
use crate::problem::Problem;
use crate::quota;
use crate::routes::{Answer, Call, Route, created, is_name, nothing, ok, page, page_of, run};
use crate::runs::Wanted;
use crate::schema::{Answers, CURSOR, LIMIT, RUN, What, of, text};
use crate::service::Service;
use crate::tokens::Scope;

/// The most runs of a job that its history has.
const HISTORY_MAX: usize = 100_000;
/// The field of a job's sources.
const SOURCES: &str = "settings.sources";

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/jobs", Scope::ReadOnly, "List the jobs", |call| {
        Box::pin(list(call))
    })
    .query(&[text("search"), LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Program("Job"))),
    Route::post("/api/v1/jobs", Scope::Admin, "Add a job", |call| {
        Box::pin(add(call))
    })
    .takes(of::<Fresh>)
    .answers(201, Answers::One(SHOWN))
    .or(TRIED),
    Route::get(
        "/api/v1/jobs/{name}",
        Scope::ReadOnly,
        "Show a job, with its next runs",
        |call| Box::pin(show(call)),
    )
    .answers(200, Answers::One(SHOWN)),
    Route::patch(
        "/api/v1/jobs/{name}",
        Scope::Admin,
        "Change a job",
        |call| Box::pin(edit(call)),
    )
    .takes(of::<Change>)
    .answers(200, Answers::One(SHOWN))
    .or(TRIED),
    Route::delete(
        "/api/v1/jobs/{name}",
        Scope::Admin,
        "Remove a job; its snapshots and history stay",
        |call| Box::pin(remove(call)),
    )
    .answers(204, Answers::Nothing),
    Route::post(
        "/api/v1/jobs/{name}/run",
        Scope::BackupOnly,
        "Run a job now",
        |call| Box::pin(run_now(call)),
    )
    .takes(of::<Now>)
    .begins_run(),
    Route::post(
        "/api/v1/jobs/{name}/cancel",
        Scope::BackupOnly,
        "Ask the run of a job to stop at the next safe point",
        |call| Box::pin(cancel(call)),
    )
    .answers(202, Answers::One(RUN)),
    Route::get(
        "/api/v1/jobs/{name}/next",
        Scope::ReadOnly,
        "Tell when a job is run next",
        |call| Box::pin(next(call)),
    )
    .answers(200, Answers::One(What::Own(of::<Next>))),
    Route::get(
        "/api/v1/jobs/{name}/history",
        Scope::ReadOnly,
        "Tell how the runs of a job came out, newest first",
        |call| Box::pin(history(call)),
    )
    .query(&[LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Program("PastRun"))),
    Route::get(
        "/api/v1/history",
        Scope::ReadOnly,
        "Tell how the runs of all jobs came out, newest first",
        |call| Box::pin(history_of_all(call)),
    )
    .query(&[LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Program("PastRun"))),
];

/// A job as it is shown alone.
const SHOWN: What = What::Program("ShownJob");
/// What a dry run answers.
const TRIED: &[(u16, &str, What)] = &[(
    200,
    "of a dry run: nothing was changed",
    What::Program("Change"),
)];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fresh {
    name: String,
    #[serde(default)]
    settings: Map<String, Value>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Change {
    settings: Map<String, Value>,
    unset: Vec<String>,
    dry_run: bool,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Now {
    no_hooks: bool,
}

/// When a job is run next.
#[derive(Serialize, JsonSchema)]
struct Next {
    /// The next times of each kind of run that has a schedule.
    #[schemars(with = "BTreeMap<String, Vec<Timestamp>>")]
    upcoming: Value,
}

async fn list(call: Call) -> Answer {
    let mut all = service::jobs(&call.service).await?;
    if let Some(search) = call.query("search") {
        let search = search.to_lowercase();
        all.retain(|job| {
            let texts = ["name", "location"].map(|key| job.get(key).and_then(Value::as_str));
            let mut texts = texts.into_iter().flatten();
            texts.any(|text| text.to_lowercase().contains(&search))
        });
    }
    page_of(&call, all)
}

async fn show(call: Call) -> Answer {
    ok(&call.service.job(call.name()?).await?)
}

async fn add(call: Call) -> Answer {
    let mut wish: Fresh = call.json()?;
    if !is_name(&wish.name) {
        return Err(Problem::field(
            "name",
            "a name begins with a letter, a digit or '_', and has letters, digits, '-', '_' and '.'",
        ));
    }
    let _alone = call.service.adding.lock().await;
    quota::job(&call.service).await?;
    refuse(&call.service, &wish.settings).await?;
    let location = wish.settings.get("location").and_then(Value::as_str);
    let names_secret = ["password-file", "password-command", "key-file"];
    let has_secret = names_secret
        .iter()
        .any(|key| wish.settings.contains_key(*key));
    let file = location
        .filter(|location| is_name(location) && !has_secret)
        .and_then(|location| call.service.password_file(location));
    if let Some(file) = file {
        wish.settings
            .insert("password-file".to_owned(), file.into());
    }
    let mut line = Line::new(["job", "add"]);
    say(&mut line, &wish.settings)?;
    line.flag("dry-run", wish.dry_run).operands([&wish.name]);
    let added: Result<Value, _> = call.service.program.document(&line, &[]).await;
    let added = added.map_err(|failure| failure.problem())?;
    match wish.dry_run {
        true => ok(&added),
        false => created(&call.service.job(&wish.name).await?),
    }
}

async fn edit(call: Call) -> Answer {
    let wish: Change = call.json()?;
    let name = call.name()?;
    refuse(&call.service, &wish.settings).await?;
    let mut line = Line::new(["job", "edit"]);
    line.each("unset", &wish.unset);
    say(&mut line, &wish.settings)?;
    line.flag("dry-run", wish.dry_run).operands([name]);
    let edited: Result<Value, _> = call.service.program.document(&line, &[]).await;
    let edited = edited.map_err(|failure| failure.problem())?;
    match wish.dry_run {
        true => ok(&edited),
        false => ok(&call.service.job(name).await?),
    }
}

async fn remove(call: Call) -> Answer {
    let name = call.name()?;
    let mut line = Line::new(["job", "remove"]);
    line.operands([name]);
    let removed = call.service.program.done(&line).await;
    removed.map_err(|failure| failure.problem())?;
    nothing()
}

async fn run_now(call: Call) -> Answer {
    let wish: Now = call.json()?;
    let name = call.name()?;
    // Refused here, where it is asked for, and not in the log of a run.
    let job = call.service.job(name).await?;
    if let Some(mistake) = job.get("mistake").and_then(Value::as_str) {
        return Err(Problem::bad(mistake));
    }
    call.service.admit(&job).await?;
    let mut wanted = now(
        name,
        "manual",
        call.caller()?.token.name.clone(),
        wish.no_hooks,
    );
    wanted.key = call.key()?;
    wanted.location = location_of(&job);
    run(&call.service.runs.start(wanted)?)
}

async fn cancel(call: Call) -> Answer {
    let name = call.name()?;
    let found = call.service.runs.running_job(name);
    let found = found.ok_or_else(|| {
        Problem::conflict(format!("this service runs no backup of the job {name}"))
    })?;
    found.cancel()?;
    run(&(found, true))
}

async fn next(call: Call) -> Answer {
    let job = call.service.job(call.name()?).await?;
    ok(&Next {
        upcoming: job.get("upcoming").cloned().unwrap_or_default(),
    })
}

async fn history(call: Call) -> Answer {
    let name = call.name()?.to_owned();
    told(&call, Some(&name)).await
}

async fn history_of_all(call: Call) -> Answer {
    told(&call, None).await
}

async fn told(call: &Call, name: Option<&str>) -> Answer {
    let (skip, limit) = call.page()?;
    let first = usize::try_from(skip).unwrap_or(usize::MAX).min(HISTORY_MAX);
    let wanted = (first + limit + 1).min(HISTORY_MAX);
    let mut line = Line::new(["job", "history"]);
    line.option("limit", &wanted.to_string()).operands(name);
    let runs: Result<Vec<Value>, _> = call.service.program.document(&line, &[]).await;
    let runs = runs.map_err(|failure| failure.problem())?;
    let has_more = runs.len() > first + limit;
    let items: Vec<Value> = runs.into_iter().skip(first).take(limit).collect();
    let next = has_more.then(|| skip + items.len() as u64);
    page(items, next, None)
}

/// What is run when somebody asks for a job.
pub fn now(job: &str, trigger: &'static str, by: String, no_hooks: bool) -> Wanted {
    let mut line = Line::new(["job", "run"]);
    line.flag("no-hooks", no_hooks).operands([job]);
    wanted(job, trigger, by, line)
}

/// What is run when a job is due: what of it is, and nothing else.
pub fn due(job: &str) -> Wanted {
    let mut line = Line::new(["job", "due"]);
    line.operands([job]);
    wanted(job, "schedule", "schedule".to_owned(), line)
}

fn wanted(job: &str, trigger: &'static str, by: String, line: Line) -> Wanted {
    Wanted {
        kind: "job",
        job: Some(job.to_owned()),
        location: None,
        trigger,
        by,
        dry_run: false,
        line,
        key: None,
    }
}

/// Gives the location that a job names, if it is a name.
fn location_of(job: &Value) -> Option<String> {
    let location = job.get("location")?.as_str()?;
    is_name(location).then(|| location.to_owned())
}

/// Refuses commands, URLs and paths that are not allowed.
///
/// # Errors
/// With the first of them.
pub async fn refuse(service: &Service, settings: &Map<String, Value>) -> Result<(), Problem> {
    let policy = service.policy();
    policy
        .settings("settings", &Value::Object(settings.clone()))
        .await?;
    // A device that was restored would be the whole disk.
    let reads_devices = settings.get("read-special").is_some_and(|value| {
        let is_off = value.is_null() || value == &Value::Bool(false);
        !is_off
    });
    if reads_devices && policy.is_of_user() {
        return Err(Problem {
            field: Some("settings.read-special".to_owned()),
            ..Problem::forbidden("devices of the service's machine are the administrator's")
        });
    }
    let location = settings.get("location").and_then(Value::as_str);
    match location {
        Some(name) if is_name(name) => refuse_name(service, "settings.location", name).await?,
        // It would be reached with the credentials of the service's machine.
        Some(_) if policy.is_of_user() => {
            let why = "name one of your locations; make it first";
            return Err(Problem::field("settings.location", why));
        }
        Some(place) => policy.place("settings.location", place).await?,
        None => {}
    }
    let sources = settings.get("sources").and_then(Value::as_array);
    for source in sources.into_iter().flatten().filter_map(Value::as_str) {
        refuse_source(service, source).await?;
    }
    for key in ["password-file", "key-file", "exclude-file", "iexclude-file"] {
        let values = match settings.get(key) {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(value) => vec![value],
            None => Vec::new(),
        };
        for path in values.into_iter().filter_map(Value::as_str) {
            let is_own = service.is_own_password(path);
            if !is_own {
                policy.file(&format!("settings.{key}"), path)?;
            }
        }
    }
    let of_mail = |key: &str| settings.get("mail")?.get(key)?.as_str();
    if let Some(path) = of_mail("password-file") {
        policy.file("settings.mail.password-file", path)?;
    }
    if let Some(given) = of_mail("ca-certificate") {
        policy.certificate("settings.mail.ca-certificate", given)?;
    }
    Ok(())
}

/// Refuses a source that is not allowed.
///
/// # Errors
/// With why.
pub async fn refuse_source(service: &Service, source: &str) -> Result<(), Problem> {
    let (policy, key) = (service.policy(), SOURCES);
    match source.split_once("://") {
        Some((scheme, _)) if is_url(source) => {
            match scheme.to_ascii_lowercase().as_str() {
                scheme if scheme.starts_with("postgres") => policy.postgres(key),
                "file" => Ok(()),
                _ => policy.bucket_by_url(key),
            }?;
            policy.url(key, source).await
        }
        _ if is_name(source) => refuse_name(service, key, source).await,
        _ => policy.path(key, source).map(drop),
    }
}

/// Refuses a user's name of a location that is not there, which would mean a file or folder beside their larder.toml.
async fn refuse_name(service: &Service, key: &str, name: &str) -> Result<(), Problem> {
    if !service.policy().is_of_user() {
        return Ok(());
    }
    let found = service.usable(name).await;
    let found = found.map_err(|problem| Problem {
        field: Some(key.to_owned()),
        ..match problem.status == StatusCode::NOT_FOUND {
            true => problem.with_status(StatusCode::BAD_REQUEST),
            false => problem,
        }
    })?;
    let url = found.get("url").and_then(Value::as_str);
    match key == SOURCES && !url.is_some_and(is_of_bucket) {
        true => Err(Problem::field(
            key,
            format!("{name} is a location, and no bucket; a source is a path or a bucket"),
        )),
        false => Ok(()),
    }
}

/// Adds what a job is to say: each value as TOML has it, so that nothing has to be guessed.
fn say(line: &mut Line, settings: &Map<String, Value>) -> Result<(), Problem> {
    for (key, value) in settings {
        refuse_key(key)?;
        match value {
            Value::Null => {
                line.option("unset", key);
            }
            Value::Object(inner) => {
                for (name, value) in inner {
                    refuse_key(name)?;
                    let name = format!("{key}.{name}");
                    match value {
                        Value::Null => line.option("unset", &name),
                        value => line.option("set", &format!("{name}={}", literal(&name, value)?)),
                    };
                }
            }
            value => {
                line.option("set", &format!("{key}={}", literal(key, value)?));
            }
        }
    }
    Ok(())
}

/// Writes a value as TOML has it.
fn literal(key: &str, value: &Value) -> Result<String, Problem> {
    match value {
        Value::Bool(is_set) => Ok(is_set.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        // TOML's escapes are those of JSON, but for that of DEL.
        Value::String(text) => Ok(json!(text).to_string().replace('\u{7f}', "\\u007f")),
        Value::Array(list) => {
            let list = list.iter().map(|value| literal(key, value));
            let list = list.collect::<Result<Vec<String>, Problem>>()?;
            Ok(format!("[{}]", list.join(", ")))
        }
        Value::Object(table) => {
            let pairs = table.iter().map(|(name, value)| {
                refuse_key(name)?;
                Ok(format!("{name} = {}", literal(key, value)?))
            });
            let pairs = pairs.collect::<Result<Vec<String>, Problem>>()?;
            Ok(format!("{{ {} }}", pairs.join(", ")))
        }
        Value::Null => Err(Problem::field(
            format!("settings.{key}"),
            "null stands for what is to be unset, and not within a list",
        )),
    }
}

fn refuse_key(key: &str) -> Result<(), Problem> {
    let is_of_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !key.is_empty() && !key.starts_with('-') && key.chars().all(is_of_key) {
        true => Ok(()),
        false => Err(Problem::field(
            format!("settings.{key}"),
            "a key has small letters, digits and '-'",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn settings_are_written_as_toml_has_them() {
        let settings = json!({
            "sources": ["/a", "/b \"c\""], "every": 2, "catch-up": false, "time-zone": "Europe/Berlin",
            "prune": {"every": 7, "hours": [3], "cron": null}, "cron": null,
            "commands": [{"name": "a", "command": "b\\c\n"}],
        });
        let mut line = Line::default();
        say(&mut line, settings.as_object().unwrap()).unwrap();
        let mut said: Vec<String> = line
            .arguments
            .iter()
            .map(|argument| argument.to_str().unwrap().to_owned())
            .collect();
        said.sort_unstable();
        let mut expected = [
            r#"--set=sources=["/a", "/b \"c\""]"#,
            "--set=every=2",
            "--set=catch-up=false",
            r#"--set=time-zone="Europe/Berlin""#,
            "--set=prune.every=7",
            "--set=prune.hours=[3]",
            "--unset=prune.cron",
            "--unset=cron",
            r#"--set=commands=[{ command = "b\\c\n", name = "a" }]"#,
        ];
        expected.sort_unstable();
        assert_eq!(said, expected);
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        for settings in [
            json!({"a=b": 1}),
            json!({"-x": 1}),
            json!({"prune": {"a.b": 1}}),
            json!({"tag": [null]}),
        ] {
            let said = say(&mut Line::default(), settings.as_object().unwrap());
            assert_eq!(said.unwrap_err().status, 400, "{settings}");
        }
    }
}
