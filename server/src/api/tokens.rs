//! Tokens.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::routes::{Answer, Call, Route, created, nothing, page_of};
use crate::schema::{Answers, CURSOR, LIMIT, What, of};
use crate::tokens::{Scope, Token, Tokens};

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/api/v1/tokens",
        Scope::Admin,
        "List the tokens, never themselves",
        |call| Box::pin(list(call)),
    )
    .query(&[LIMIT, CURSOR])
    .answers(200, Answers::Page(What::Own(of::<Token>))),
    Route::post(
        "/api/v1/tokens",
        Scope::Admin,
        "Make a token, which is shown this once",
        |call| Box::pin(add(call)),
    )
    .takes(of::<Wish>)
    .answers(201, Answers::One(What::Own(of::<Made<'static>>))),
    Route::delete(
        "/api/v1/tokens/{id}",
        Scope::Admin,
        "Revoke a token",
        |call| Box::pin(revoke(call)),
    )
    .answers(204, Answers::Nothing),
];

/// A token that was made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MadeToken")]
pub struct Made<'a> {
    #[serde(flatten)]
    made: Token,
    /// The token itself, which is never shown again.
    token: &'a str,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "TokenWish")]
#[serde(deny_unknown_fields)]
pub struct Wish {
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
    let (made, text) = tokens.add(&wish.name, wish.scope, wish.expires, Timestamp::now())?;
    created(&Made { made, token: &text })
}

async fn revoke(call: Call) -> Answer {
    call.service
        .tokens
        .revoke(call.param("id"), Timestamp::now())?;
    nothing()
}
