//! Users, for the administrator: who they are, what they may use, and their tokens.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::api::{service, tokens};
use crate::problem::Problem;
use crate::quota;
use crate::routes::{Answer, Call, Route, created, nothing, ok, page_of};
use crate::schema::{Answers, CURSOR, LIMIT, What, of, text};
use crate::service::Service;
use crate::tokens::{Scope, Token};
use crate::users::{Kind, Limits, Removed};

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/api/v1/users",
        Scope::Admin,
        "List the users, and what they may use",
        |call| Box::pin(list(call)),
    )
    .query(&[text("search"), LIMIT, CURSOR])
    .answers(200, Answers::Page(USER))
    .of_administrator(),
    Route::post("/api/v1/users", Scope::Admin, "Add a user", |call| {
        Box::pin(add(call))
    })
    .takes(of::<Fresh>)
    .answers(201, Answers::One(USER))
    .of_administrator(),
    Route::get(
        "/api/v1/users/{user}",
        Scope::Admin,
        "Show a user, and how much they use",
        |call| Box::pin(show(call)),
    )
    .answers(200, Answers::One(What::Own(of::<Used>)))
    .of_administrator(),
    Route::patch(
        "/api/v1/users/{user}",
        Scope::Admin,
        "Change what a user may use; null takes a limit away",
        |call| Box::pin(edit(call)),
    )
    .takes(of::<Change>)
    .answers(200, Answers::One(USER))
    .of_administrator(),
    Route::delete(
        "/api/v1/users/{user}",
        Scope::Admin,
        "Remove a user who has no run; their repositories stay",
        |call| Box::pin(remove(call)),
    )
    .answers(200, Answers::One(What::Own(of::<Gone>)))
    .of_administrator(),
    Route::get(
        "/api/v1/users/{user}/tokens",
        Scope::Admin,
        "List the tokens of a user, never themselves",
        |call| Box::pin(list_tokens(call)),
    )
    .query(&[LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Own(of::<Token>)))
    .of_administrator(),
    Route::post(
        "/api/v1/users/{user}/tokens",
        Scope::Admin,
        "Make a token for a user, which is shown this once",
        |call| Box::pin(add_token(call)),
    )
    .takes(of::<tokens::Wish>)
    .answers(201, Answers::One(What::Own(of::<tokens::Made<'static>>)))
    .of_administrator(),
    Route::delete(
        "/api/v1/users/{user}/tokens/{id}",
        Scope::Admin,
        "Revoke a token of a user",
        |call| Box::pin(revoke_token(call)),
    )
    .answers(204, Answers::Nothing)
    .of_administrator(),
];

/// A user as everywhere.
const USER: What = What::Own(of::<User<'static>>);

/// A user, and what they may use.
#[derive(Serialize, JsonSchema)]
struct User<'a> {
    name: &'a str,
    #[serde(flatten)]
    limits: &'a Limits,
}

/// A user, what they may use, and how much they do: how much, and not what it is called.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UserAndUse")]
struct Used<'a> {
    #[serde(flatten)]
    user: User<'a>,
    locations: usize,
    jobs: usize,
    /// Bytes of all repositories together, as they were last measured.
    bytes: u64,
    /// Runs at the moment.
    running: usize,
}

/// A user who was removed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RemovedUser")]
struct Gone {
    #[serde(flatten)]
    removed: Removed,
    /// What was left alone.
    stays: &'static str,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "FreshUser")]
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
#[derive(Default, Deserialize, JsonSchema)]
#[schemars(rename = "UserChange")]
#[serde(default, deny_unknown_fields)]
struct Change {
    paths: Option<Vec<String>>,
    kinds: Option<Vec<Kind>>,
    commands: Option<bool>,
    postgres: Option<bool>,
    #[serde(deserialize_with = "given")]
    bytes_max: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    locations_max: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    jobs_max: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    runs_max: Option<Option<u64>>,
}

/// Tells what is null from what is not there.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(Some)
}

async fn list(call: Call) -> Answer {
    let search = call.query("search").unwrap_or_default().to_lowercase();
    let users = call.owners.users.list();
    let found = users.iter().filter(|(name, _)| name.contains(&search));
    let shown = found.map(|(name, limits)| json!(User { name, limits }));
    page_of(&call, shown.collect())
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
    created(&User {
        name: &wish.name,
        limits: &limits,
    })
}

async fn show(call: Call) -> Answer {
    let name = call.param("user");
    let limits = call.owners.users.find(name)?;
    let service = of_user(&call)?;
    ok(&Used {
        user: User {
            name,
            limits: &limits,
        },
        locations: service::locations(&service).await?.len(),
        jobs: service::jobs(&service).await?.len(),
        bytes: quota::used(&service),
        running: service.runs.running(),
    })
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
    ok(&User {
        name,
        limits: &limits,
    })
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
    ok(&Gone {
        removed,
        stays: "repositories stay as they are, and what opens them lies in kept_in",
    })
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
}
