//! Users, for the administrator: who they are, what they may use, and their tokens.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::api::{service, tokens};
use crate::problem::Problem;
use crate::quota;
use crate::routes::{Answer, Call, Route, created, nothing, ok, page_of};
use crate::service::Service;
use crate::tokens::Scope;
use crate::users::{Kind, Limits};

/// What a user may be allowed.
const FIELDS: &[&str] = &[
    "paths",
    "kinds",
    "commands",
    "postgres",
    "bytes_max",
    "locations_max",
    "jobs_max",
    "runs_max",
];

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/api/v1/users",
        Scope::Admin,
        "List the users, and what they may use",
        |call| Box::pin(list(call)),
    )
    .query(&["search", "limit", "cursor"])
    .of_administrator(),
    Route::post("/api/v1/users", Scope::Admin, "Add a user", |call| {
        Box::pin(add(call))
    })
    .fields(&[
        "name",
        "paths",
        "kinds",
        "commands",
        "postgres",
        "bytes_max",
        "locations_max",
        "jobs_max",
        "runs_max",
    ])
    .status(201)
    .of_administrator(),
    Route::get(
        "/api/v1/users/{user}",
        Scope::Admin,
        "Show a user, and how much they use",
        |call| Box::pin(show(call)),
    )
    .of_administrator(),
    Route::patch(
        "/api/v1/users/{user}",
        Scope::Admin,
        "Change what a user may use; null takes a limit away",
        |call| Box::pin(edit(call)),
    )
    .fields(FIELDS)
    .of_administrator(),
    Route::delete(
        "/api/v1/users/{user}",
        Scope::Admin,
        "Remove a user who has no run; their repositories stay",
        |call| Box::pin(remove(call)),
    )
    .of_administrator(),
    Route::get(
        "/api/v1/users/{user}/tokens",
        Scope::Admin,
        "List the tokens of a user, never themselves",
        |call| Box::pin(list_tokens(call)),
    )
    .query(&["limit", "cursor"])
    .of_administrator(),
    Route::post(
        "/api/v1/users/{user}/tokens",
        Scope::Admin,
        "Make a token for a user, which is shown this once",
        |call| Box::pin(add_token(call)),
    )
    .fields(&["name", "scope", "expires"])
    .status(201)
    .of_administrator(),
    Route::delete(
        "/api/v1/users/{user}/tokens/{id}",
        Scope::Admin,
        "Revoke a token of a user",
        |call| Box::pin(revoke_token(call)),
    )
    .status(204)
    .of_administrator(),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fresh {
    name: String,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    kinds: Vec<Kind>,
    #[serde(default)]
    commands: bool,
    #[serde(default)]
    postgres: bool,
    #[serde(default)]
    bytes_max: Option<u64>,
    #[serde(default)]
    locations_max: Option<u64>,
    #[serde(default)]
    jobs_max: Option<u64>,
    #[serde(default)]
    runs_max: Option<u64>,
}

/// What is null is taken away, and what is not there stays.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Change {
    paths: Option<Vec<String>>,
    kinds: Option<Vec<Kind>>,
    commands: Option<bool>,
    postgres: Option<bool>,
    #[serde(with = "given")]
    bytes_max: Option<Option<u64>>,
    #[serde(with = "given")]
    locations_max: Option<Option<u64>>,
    #[serde(with = "given")]
    jobs_max: Option<Option<u64>>,
    #[serde(with = "given")]
    runs_max: Option<Option<u64>>,
}

/// Tells what is null from what is not there.
mod given {
    use serde::{Deserialize, Deserializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<u64>>, D::Error> {
        Option::<u64>::deserialize(deserializer).map(Some)
    }
}

async fn list(call: Call) -> Answer {
    let search = call.query("search").unwrap_or_default().to_lowercase();
    let users = call.owners.users.list();
    let found = users.iter().filter(|(name, _)| name.contains(&search));
    page_of(
        &call,
        found.map(|(name, limits)| limits.shown(name)).collect(),
    )
}

async fn add(call: Call) -> Answer {
    let wish: Fresh = call.json()?;
    let limits = Limits {
        paths: wish.paths,
        kinds: wish.kinds,
        commands: wish.commands,
        postgres: wish.postgres,
        bytes_max: wish.bytes_max,
        locations_max: wish.locations_max,
        jobs_max: wish.jobs_max,
        runs_max: wish.runs_max,
    };
    refuse_wider(&call, &limits)?;
    call.owners.users.add(&wish.name, limits.clone())?;
    created(&limits.shown(&wish.name))
}

async fn show(call: Call) -> Answer {
    let name = call.param("user");
    let limits = call.owners.users.find(name)?;
    let mut shown = limits.shown(name);
    let service = of_user(&call)?;
    let (locations, jobs) = (
        service::locations(&service).await?,
        service::jobs(&service).await?,
    );
    if let Some(shown) = shown.as_object_mut() {
        // How much, and not what it is called.
        shown.insert("locations".to_owned(), json!(locations.len()));
        shown.insert("jobs".to_owned(), json!(jobs.len()));
        shown.insert("bytes".to_owned(), json!(quota::used(&service)));
        shown.insert("running".to_owned(), json!(service.runs.running()));
    }
    ok(&shown)
}

async fn edit(call: Call) -> Answer {
    let wish: Change = call.json()?;
    let name = call.param("user");
    let limits = call.owners.users.edit(name, |limits| {
        let Change {
            paths,
            kinds,
            commands,
            postgres,
            bytes_max,
            locations_max,
            jobs_max,
            runs_max,
        } = wish;
        *limits = Limits {
            paths: paths.unwrap_or_else(|| limits.paths.clone()),
            kinds: kinds.unwrap_or_else(|| limits.kinds.clone()),
            commands: commands.unwrap_or(limits.commands),
            postgres: postgres.unwrap_or(limits.postgres),
            bytes_max: bytes_max.unwrap_or(limits.bytes_max),
            locations_max: locations_max.unwrap_or(limits.locations_max),
            jobs_max: jobs_max.unwrap_or(limits.jobs_max),
            runs_max: runs_max.unwrap_or(limits.runs_max),
        };
        refuse_wider(&call, limits)
    })?;
    ok(&limits.shown(name))
}

async fn remove(call: Call) -> Answer {
    let name = call.param("user");
    let running = of_user(&call)?.runs.running();
    if running > 0 {
        return Err(Problem::conflict(format!(
            "something is run for {name} ({running}); cancel it, or wait, and remove the user then"
        )));
    }
    let removed = call.owners.users.remove(name, Timestamp::now())?;
    ok(&json!({
        "user": removed.user,
        "kept_in": removed.kept_in,
        "stays": "repositories stay as they are, and what opens them lies in kept_in",
    }))
}

async fn list_tokens(call: Call) -> Answer {
    let all = of_user(&call)?.tokens.list();
    page_of(&call, all.iter().map(|token| json!(token)).collect())
}

async fn add_token(call: Call) -> Answer {
    tokens::add_to(&of_user(&call)?.tokens, &call)
}

async fn revoke_token(call: Call) -> Answer {
    let service = of_user(&call)?;
    service.tokens.revoke(call.param("id"), Timestamp::now())?;
    nothing()
}

fn of_user(call: &Call) -> Result<Arc<Service>, Problem> {
    let name = call.param("user");
    let found = call.owners.of(Some(name));
    found.ok_or_else(|| Problem::missing(format!("there is no user {name}")))
}

/// Refuses what the service itself may not use: it would be promised, and then refused.
fn refuse_wider(call: &Call, limits: &Limits) -> Result<(), Problem> {
    let policy = call.owners.administrator().policy();
    for path in &limits.paths {
        policy.path("paths", path)?;
    }
    match limits.commands {
        true => policy.command("commands"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_null_is_taken_away_and_what_is_not_there_stays() {
        let read = |text: &str| serde_json::from_str::<Change>(text).unwrap().jobs_max;
        assert_eq!(read("{}"), None);
        assert_eq!(read("{\"jobs_max\": null}"), Some(None));
        assert_eq!(read("{\"jobs_max\": 0}"), Some(Some(0)));
        assert!(serde_json::from_str::<Change>("{\"name\": \"x\"}").is_err());
    }

    #[test]
    fn a_user_may_be_added_with_all_that_may_be_changed() {
        let add = ROUTES.iter().find(|route| route.method == "POST");
        let fields = add.unwrap().fields;
        assert_eq!(fields.strip_prefix(&["name"]).unwrap(), FIELDS);
    }
}
