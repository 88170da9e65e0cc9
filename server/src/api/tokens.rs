//! Tokens.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::routes::{Answer, Call, Route, created, nothing, page_of};
use crate::tokens::{Scope, Tokens};

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/api/v1/tokens",
        Scope::Admin,
        "List the tokens, never themselves",
        |call| Box::pin(list(call)),
    )
    .query(&["limit", "cursor"]),
    Route::post(
        "/api/v1/tokens",
        Scope::Admin,
        "Make a token, which is shown this once",
        |call| Box::pin(add(call)),
    )
    .fields(&["name", "scope", "expires"])
    .status(201),
    Route::delete(
        "/api/v1/tokens/{id}",
        Scope::Admin,
        "Revoke a token",
        |call| Box::pin(revoke(call)),
    )
    .status(204),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
    scope: Scope,
    #[serde(default)]
    expires: Option<Timestamp>,
}

async fn list(call: Call) -> Answer {
    let all = call.service.tokens.list();
    page_of(&call, all.iter().map(|token| json!(token)).collect())
}

async fn add(call: Call) -> Answer {
    add_to(&call.service.tokens, &call)
}

/// Makes a token of an owner, as the body says.
///
/// # Errors
/// When that makes no sense.
pub fn add_to(tokens: &Tokens, call: &Call) -> Answer {
    let wish: Wish = call.json()?;
    let (token, text) = tokens.add(&wish.name, wish.scope, wish.expires, Timestamp::now())?;
    let mut shown = json!(token);
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("token".to_owned(), Value::from(text.as_str()));
    }
    created(&shown)
}

async fn revoke(call: Call) -> Answer {
    call.service
        .tokens
        .revoke(call.param("id"), Timestamp::now())?;
    nothing()
}
