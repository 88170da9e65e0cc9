//! What works on a repository for a while, as runs: restore, check, forget, prune.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::snapshots::snapshot;
use crate::child::Line;
use crate::policy::{is_of_bucket, is_url};
use crate::problem::Problem;
use crate::routes::{Answer, Call, Route, is_name, run};
use crate::runs::Wanted;
use crate::schema::of;
use crate::tokens::Scope;

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::post(
        "/api/v1/restores",
        Scope::Operate,
        "Restore a snapshot, or a part of it",
        |call| Box::pin(restore(call)),
    )
    .takes(of::<Restore>)
    .begins_run(),
    Route::post(
        "/api/v1/locations/{name}/check",
        Scope::Operate,
        "Check a repository",
        |call| Box::pin(check(call)),
    )
    .takes(of::<Check>)
    .begins_run(),
    Route::post(
        "/api/v1/locations/{name}/forget",
        Scope::Operate,
        "Forget snapshots by rules or by name; a dry run unless it says otherwise",
        |call| Box::pin(forget(call)),
    )
    .takes(of::<Forget>)
    .begins_run(),
    Route::delete(
        "/api/v1/locations/{name}/snapshots/{id}",
        Scope::Operate,
        "Forget a snapshot",
        |call| Box::pin(forget_one(call)),
    )
    .begins_run(),
    Route::post(
        "/api/v1/locations/{name}/prune",
        Scope::Operate,
        "Free the space that no snapshot needs; a dry run unless it says otherwise",
        |call| Box::pin(prune(call)),
    )
    .takes(of::<Prune>)
    .begins_run(),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Restore {
    location: String,
    #[serde(default = "latest")]
    snapshot: String,
    #[serde(default)]
    path: Option<String>,
    target: String,
    #[serde(default)]
    overwrite: Option<String>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    sparse: bool,
    #[serde(default)]
    verify: bool,
    #[serde(default)]
    no_owner: bool,
    #[serde(default)]
    numeric_owner: bool,
    #[serde(default)]
    in_place: bool,
    #[serde(default)]
    lost_as_zeros: bool,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Check {
    level: Option<String>,
    read_data: Option<String>,
    max_duration: Option<String>,
    max_download: Option<String>,
    max_age: Option<String>,
    sample: Option<u64>,
    read_only: bool,
    dry_run: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Forget {
    snapshots: Vec<String>,
    rules: Map<String, Value>,
    host: Vec<String>,
    tag: Vec<String>,
    path: Vec<String>,
    group_by: Option<String>,
    allow_empty: bool,
    prune: bool,
    dry_run: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Prune {
    dry_run: bool,
    max_unused: Option<String>,
    max_repack_size: Option<String>,
    max_duration: Option<String>,
    wait: bool,
}

impl Default for Forget {
    fn default() -> Self {
        Self {
            snapshots: Vec::new(),
            rules: Map::new(),
            host: Vec::new(),
            tag: Vec::new(),
            path: Vec::new(),
            group_by: None,
            allow_empty: false,
            prune: false,
            // What destroys is looked at first.
            dry_run: true,
        }
    }
}

impl Default for Prune {
    fn default() -> Self {
        Self {
            dry_run: true,
            max_unused: None,
            max_repack_size: None,
            max_duration: None,
            wait: false,
        }
    }
}

fn latest() -> String {
    "latest".to_owned()
}

async fn restore(call: Call) -> Answer {
    let wish: Restore = call.json()?;
    if !is_name(&wish.location) {
        return Err(Problem::field("location", "name a location of larder.toml"));
    }
    let id = snapshot(&wish.snapshot).map_err(|problem| Problem {
        field: Some("snapshot".to_owned()),
        ..problem
    })?;
    let path = wish.path.as_deref().filter(|path| !path.is_empty());
    let named = path.map_or_else(|| id.to_owned(), |path| format!("{id}:{path}"));
    target(&call, &wish.target).await?;
    let repository = call.service.repository(&wish.location).await?;
    let mut line = repository.line(["restore"]);
    line.option("target", &wish.target)
        .maybe("overwrite", wish.overwrite.as_deref())
        .each("include", &wish.include)
        .each("exclude", &wish.exclude)
        .flag("delete", wish.delete)
        .flag("sparse", wish.sparse)
        .flag("verify", wish.verify)
        .flag("no-owner", wish.no_owner)
        .flag("numeric-owner", wish.numeric_owner)
        .flag("in-place", wish.in_place)
        .flag("lost-as-zeros", wish.lost_as_zeros)
        .flag("dry-run", wish.dry_run)
        .operands([named]);
    begin(&call, "restore", &wish.location, wish.dry_run, line)
}

/// Looks at where is restored to: the name of a bucket's location, the URL of a bucket or database, or a folder.
async fn target(call: &Call, target: &str) -> Result<(), Problem> {
    let refused = |why: String| Err(Problem::field("target", why));
    if is_name(target) {
        let known = match call.service.usable(target).await {
            Err(problem) if problem.status == StatusCode::FORBIDDEN => return Err(problem),
            known => known.unwrap_or_default(),
        };
        let url = known.get("url").and_then(Value::as_str).unwrap_or_default();
        return match is_of_bucket(url) {
            true => Ok(()),
            false => refused(format!(
                "'{target}' is neither the location of a bucket nor an absolute path"
            )),
        };
    }
    match is_url(target) {
        true if is_of_bucket(target) => {
            call.service.policy().bucket_by_url("target")?;
            call.service.policy().url("target", target).await
        }
        true if target.starts_with("postgres://") => {
            // A database is overwritten like a folder, and no path says which.
            let scope = call.caller()?.token.scope;
            call.service.policy().postgres("target")?;
            call.service.policy().free_target(scope)?;
            call.service.policy().url("target", target).await
        }
        true => refused("it is restored into a folder, a bucket or a database".to_owned()),
        false => {
            let scope = call.caller()?.token.scope;
            call.service.policy().target(target, scope)
        }
    }
}

async fn check(call: Call) -> Answer {
    let wish: Check = call.json()?;
    let name = call.name()?;
    let mut line = call.service.repository(name).await?.line(["check"]);
    line.maybe("level", wish.level.as_deref())
        .maybe("read-data", wish.read_data.as_deref())
        .maybe("max-duration", wish.max_duration.as_deref())
        .maybe("max-download", wish.max_download.as_deref())
        .maybe("max-age", wish.max_age.as_deref())
        .maybe(
            "sample",
            wish.sample.map(|sample| sample.to_string()).as_deref(),
        )
        .flag("read-only", wish.read_only)
        .flag("dry-run", wish.dry_run);
    begin(&call, "check", name, wish.dry_run, line)
}

async fn forget(call: Call) -> Answer {
    let wish: Forget = call.json()?;
    let name = call.name()?;
    if wish.snapshots.is_empty() == wish.rules.is_empty() {
        return Err(Problem::field(
            "rules",
            "name either snapshots or rules, and not both",
        ));
    }
    let mut line = call.service.repository(name).await?.line(["forget"]);
    line.each("host", &wish.host)
        .each("tag", &wish.tag)
        .each("path", &wish.path)
        .maybe("group-by", wish.group_by.as_deref())
        .flag("allow-empty", wish.allow_empty)
        .flag("prune", wish.prune)
        .flag("dry-run", wish.dry_run);
    rules(&mut line, &wish.rules)?;
    for id in &wish.snapshots {
        snapshot(id).map_err(|problem| Problem {
            field: Some("snapshots".to_owned()),
            ..problem
        })?;
    }
    line.operands(&wish.snapshots);
    begin(&call, "forget", name, wish.dry_run, line)
}

/// Adds rules, whose names are those of larder.toml.
fn rules(line: &mut Line, rules: &Map<String, Value>) -> Result<(), Problem> {
    for (key, value) in rules {
        let is_rule = key
            .strip_prefix("keep-")
            .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        let wrong = |why: &str| Problem::field(format!("rules.{key}"), why);
        if !is_rule {
            return Err(wrong(
                "a rule is keep-last, keep-daily, keep-within or the like",
            ));
        }
        let values = match value {
            Value::Array(list) => list.iter().collect(),
            value => vec![value],
        };
        for value in values {
            match value {
                Value::String(text) => line.option(key, text),
                Value::Number(number) => line.option(key, &number.to_string()),
                _ => return Err(wrong("a rule has a number, a duration, or tags")),
            };
        }
    }
    Ok(())
}

async fn forget_one(call: Call) -> Answer {
    let name = call.name()?;
    let id = snapshot(call.param("id"))?;
    let mut line = call.service.repository(name).await?.line(["forget"]);
    line.operands([id]);
    begin(&call, "forget", name, false, line)
}

async fn prune(call: Call) -> Answer {
    let wish: Prune = call.json()?;
    let name = call.name()?;
    let mut line = call.service.repository(name).await?.line(["prune"]);
    line.maybe("max-unused", wish.max_unused.as_deref())
        .maybe("max-repack-size", wish.max_repack_size.as_deref())
        .maybe("max-duration", wish.max_duration.as_deref())
        .flag("wait", wish.wait)
        .flag("dry-run", wish.dry_run);
    begin(&call, "prune", name, wish.dry_run, line)
}

fn begin(call: &Call, kind: &'static str, location: &str, dry_run: bool, line: Line) -> Answer {
    let started = call.service.runs.start(Wanted {
        kind,
        job: None,
        location: Some(location.to_owned()),
        trigger: "manual",
        by: call.caller()?.token.name.clone(),
        dry_run,
        line,
        key: call.key()?,
    })?;
    run(&started)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_destroys_is_a_dry_run_unless_it_says_otherwise() {
        let forget: Forget = serde_json::from_str("{\"snapshots\": [\"a\"]}").unwrap();
        let prune: Prune = serde_json::from_str("{}").unwrap();
        assert!(forget.dry_run && prune.dry_run);
        let prune: Prune = serde_json::from_str("{\"dry_run\": false}").unwrap();
        assert!(!prune.dry_run);
    }

    #[test]
    fn rules_become_options_and_nothing_else() {
        let mut line = Line::default();
        let wish = json!({"keep-last": 3, "keep-within": "30d", "keep-tag": ["a", "b,c"]});
        rules(&mut line, wish.as_object().unwrap()).unwrap();
        let mut said = line.arguments;
        said.sort_unstable();
        assert_eq!(
            said,
            [
                "--keep-last=3",
                "--keep-tag=a",
                "--keep-tag=b,c",
                "--keep-within=30d"
            ]
        );
        for wrong in [
            json!({"prune": 1}),
            json!({"keep-x=y": 1}),
            json!({"keep-last": true}),
        ] {
            assert!(
                rules(&mut Line::default(), wrong.as_object().unwrap()).is_err(),
                "{wrong}"
            );
        }
    }
}
