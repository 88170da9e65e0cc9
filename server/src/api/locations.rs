//! Locations: what larder.toml says of them, and the passwords of their repositories.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::api::service;
use crate::child::Line;
use crate::problem::Problem;
use crate::quota;
use crate::routes::{Answer, Call, Route, created, is_name, nothing, ok, page_of, run};
use crate::runs::Wanted;
use crate::schema::{Answers, CURSOR, LIMIT, What, of, text};
use crate::service::Repository;
use crate::tokens::Scope;

/// The routes.
pub const ROUTES: &[Route] = &[
    Route::get(
        "/api/v1/locations",
        Scope::ReadOnly,
        "List the locations",
        |call| Box::pin(list(call)),
    )
    .query(&[text("search"), LIMIT, CURSOR])
    .answers(200, Answers::Page(SHOWN)),
    Route::post(
        "/api/v1/locations",
        Scope::Admin,
        "Add a location",
        |call| Box::pin(add(call)),
    )
    .takes(of::<Wish>)
    .answers(201, Answers::One(SHOWN))
    .or(TRIED),
    Route::get(
        "/api/v1/locations/{name}",
        Scope::ReadOnly,
        "Show a location, with secrets masked",
        |call| Box::pin(show(call)),
    )
    .answers(200, Answers::One(SHOWN)),
    Route::patch(
        "/api/v1/locations/{name}",
        Scope::Admin,
        "Change a location",
        |call| Box::pin(edit(call)),
    )
    .takes(of::<Wish>)
    .answers(200, Answers::One(SHOWN))
    .or(TRIED),
    Route::delete(
        "/api/v1/locations/{name}",
        Scope::Admin,
        "Remove a location; what lies there stays",
        |call| Box::pin(remove(call)),
    )
    .answers(204, Answers::Nothing),
    Route::post(
        "/api/v1/locations/{name}/validate",
        Scope::Operate,
        "Try a location out, step by step",
        |call| Box::pin(validate(call)),
    )
    .takes(of::<Validation>)
    .begins_run(),
    Route::post(
        "/api/v1/validate",
        Scope::Admin,
        "Try out what is not saved",
        |call| Box::pin(validate_unsaved(call)),
    )
    .takes(of::<Wish>)
    .begins_run(),
    Route::post(
        "/api/v1/locations/{name}/repository",
        Scope::Admin,
        "Make the repository, and keep its password",
        |call| Box::pin(init(call)),
    )
    .takes(of::<Password>)
    .answers(201, Answers::One(What::Program("Repository"))),
    Route::put(
        "/api/v1/locations/{name}/password",
        Scope::Admin,
        "Keep the repository's password, once it opened it",
        |call| Box::pin(keep_password(call)),
    )
    .takes(of::<Password>)
    .answers(204, Answers::Nothing),
    Route::delete(
        "/api/v1/locations/{name}/password",
        Scope::Admin,
        "Forget the repository's password",
        |call| Box::pin(forget_password(call)),
    )
    .answers(204, Answers::Nothing),
];

/// A location as it is shown.
const SHOWN: What = What::ProgramAnd("Location", of::<Kept>);
/// What a dry run answers.
const TRIED: &[(u16, &str, What)] = &[(
    200,
    "of a dry run: nothing was changed",
    What::Program("Change"),
)];

/// What a location is to say.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    name: Option<String>,
    url: Option<String>,
    settings: Map<String, Value>,
    unset: Vec<String>,
    secrets: Map<String, Value>,
    #[serde(deserialize_with = "given::deserialize")]
    #[schemars(with = "Option<String>")]
    password: Option<Option<String>>,
    dry_run: bool,
    create: bool,
    keep_secrets_of: Option<String>,
}

/// Tells what is null from what is not there.
mod given {
    use serde::{Deserialize, Deserializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<String>>, D::Error> {
        Option::<String>::deserialize(deserializer).map(Some)
    }
}

/// What the service knows of a location.
#[derive(Serialize, JsonSchema)]
struct Kept {
    /// Whether it keeps the password of its repository.
    has_password: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Password {
    password: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Validation {
    #[serde(default)]
    create: bool,
}

async fn list(call: Call) -> Answer {
    let mut all = service::locations(&call.service).await?;
    if let Some(search) = call.query("search") {
        let search = search.to_lowercase();
        let has = |location: &Value, key: &str| {
            let text = location
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default();
            text.to_lowercase().contains(&search)
        };
        all.retain(|location| has(location, "name") || has(location, "url"));
    }
    let all = all.into_iter().map(|location| shown(&call, location));
    page_of(&call, all.collect())
}

async fn show(call: Call) -> Answer {
    let location = call.service.location(call.name()?).await?;
    ok(&shown(&call, location))
}

async fn add(call: Call) -> Answer {
    let wish: Wish = call.json()?;
    wish.check_password()?;
    let name = wish.new_name()?;
    let _alone = call.service.adding.lock().await;
    quota::location(&call.service).await?;
    let line = wish.add_line(&call, &name).await?;
    let added: Result<Value, _> = call.service.program.document(&line, &[]).await;
    let added = added.map_err(|failure| failure.problem())?;
    if wish.dry_run {
        return ok(&added);
    }
    // A location of that name may have been removed by hand, and its password stayed.
    let password = wish.password.flatten();
    call.service.keep_password(&name, password.as_deref())?;
    let location = call.service.location(&name).await?;
    created(&shown(&call, location))
}

async fn edit(call: Call) -> Answer {
    let wish: Wish = call.json()?;
    let name = call.name()?.to_owned();
    // All that can be refused is, before anything is changed.
    wish.check_password()?;
    let new_name = wish.name.as_deref().filter(|new| *new != name);
    if let Some(new) = new_name {
        refuse_name(new)?;
        refuse_named_by_job(&call, &name, "renamed").await?;
    }
    let program = &call.service.program;
    if wish.changes_anything() {
        let mut line = wish.edit_line(&call, &name).await?;
        line.flag("dry-run", wish.dry_run).operands([&name]);
        let edited: Result<Value, _> = program.document(&line, &[]).await;
        let edited = edited.map_err(|failure| failure.problem())?;
        if wish.dry_run {
            return ok(&edited);
        }
    } else {
        let location = call.service.location(&name).await?;
        if wish.dry_run {
            return ok(&shown(&call, location));
        }
    }
    if let Some(password) = &wish.password {
        call.service.keep_password(&name, password.as_deref())?;
    }
    let mut now = name.clone();
    if let Some(new) = new_name {
        let mut line = Line::new(["location", "rename"]);
        line.operands([name.as_str(), new]);
        let renamed = program.done(&line).await;
        renamed.map_err(|failure| failure.problem())?;
        call.service.rename_password(&name, new);
        now = new.to_owned();
    }
    let location = call.service.location(&now).await?;
    ok(&shown(&call, location))
}

async fn remove(call: Call) -> Answer {
    let name = call.name()?;
    refuse_named_by_job(&call, name, "removed").await?;
    let mut line = Line::new(["location", "remove"]);
    line.operands([name]);
    let removed = call.service.program.done(&line).await;
    removed.map_err(|failure| failure.problem())?;
    call.service.keep_password(name, None)?;
    nothing()
}

async fn validate(call: Call) -> Answer {
    let wish: Validation = call.json()?;
    let name = call.name()?;
    call.service.usable(name).await?;
    let mut line = Line::new(["location", "validate"]);
    line.flag("create", wish.create).operands([name]);
    begin(&call, name, line)
}

async fn validate_unsaved(call: Call) -> Answer {
    let wish: Wish = call.json()?;
    if let Some(saved) = &wish.keep_secrets_of {
        refuse_name(saved)?;
        let mut line = wish.edit_line(&call, saved).await?;
        line.flag("validate", true)
            .flag("create", wish.create)
            .flag("dry-run", true)
            .operands([saved]);
        return begin(&call, saved, line);
    }
    let name = match &wish.name {
        Some(_) => wish.new_name()?,
        None => "new".to_owned(),
    };
    let wish = Wish {
        dry_run: true,
        ..wish
    };
    let line = wish.tried_line(&call, &name).await?;
    begin(&call, &name, line)
}

fn begin(call: &Call, name: &str, line: Line) -> Answer {
    let started = call.service.runs.start(Wanted {
        kind: "validate",
        job: None,
        location: Some(name.to_owned()),
        trigger: "manual",
        by: call.caller()?.token.name.clone(),
        dry_run: false,
        line,
        key: call.key()?,
    })?;
    run(&started)
}

async fn init(call: Call) -> Answer {
    let wish: Password = call.json()?;
    refuse_password(&wish.password)?;
    let name = call.name()?;
    call.service.usable(name).await?;
    let line = Repository::with_password(name, &wish.password, &["init"]);
    let made: Result<Value, _> = call.service.program.document(&line, &[]).await;
    let made = made.map_err(|failure| failure.problem())?;
    call.service.keep_password(name, Some(&wish.password))?;
    created(&made)
}

async fn keep_password(call: Call) -> Answer {
    let wish: Password = call.json()?;
    refuse_password(&wish.password)?;
    let name = call.name()?;
    call.service.usable(name).await?;
    let line = Repository::with_password(name, &wish.password, &["key", "list"]);
    let opened = call.service.program.done(&line).await;
    opened.map_err(|failure| failure.problem())?;
    call.service.keep_password(name, Some(&wish.password))?;
    nothing()
}

async fn forget_password(call: Call) -> Answer {
    let name = call.name()?;
    call.service.location(name).await?;
    call.service.keep_password(name, None)?;
    nothing()
}

impl Wish {
    fn new_name(&self) -> Result<String, Problem> {
        let name = self.name.as_deref().unwrap_or_default();
        refuse_name(name)?;
        Ok(name.to_owned())
    }

    fn check_password(&self) -> Result<(), Problem> {
        let password = self.password.as_ref().and_then(Option::as_deref);
        password.map_or(Ok(()), refuse_password)
    }

    fn changes_anything(&self) -> bool {
        let is_empty = self.settings.is_empty() && self.unset.is_empty() && self.secrets.is_empty();
        self.url.is_some() || !is_empty
    }

    async fn add_line(&self, call: &Call, name: &str) -> Result<Line, Problem> {
        let mut line = Line::new(["location", "add"]);
        line.flag("dry-run", self.dry_run);
        self.finish_add(call, line, name).await
    }

    async fn tried_line(&self, call: &Call, name: &str) -> Result<Line, Problem> {
        let mut line = Line::new(["location", "add", "--validate", "--dry-run"]);
        line.flag("create", self.create);
        self.finish_add(call, line, name).await
    }

    async fn finish_add(&self, call: &Call, mut line: Line, name: &str) -> Result<Line, Problem> {
        let url = self.url.as_deref().unwrap_or_default();
        if url.is_empty() {
            return Err(Problem::field("url", "a location needs a URL or a folder"));
        }
        call.service.policy().place("url", url).await?;
        self.refuse_credentials(call, None).await?;
        self.say(call, &mut line).await?;
        line.operands([name, url]);
        Ok(line)
    }

    async fn edit_line(&self, call: &Call, name: &str) -> Result<Line, Problem> {
        self.refuse_credentials(call, Some(name)).await?;
        let mut line = Line::new(["location", "edit"]);
        if let Some(url) = &self.url {
            call.service.policy().place("url", url).await?;
            line.option("url", url);
        }
        line.each("unset", &self.unset);
        for (key, _) in self.settings.iter().filter(|(_, value)| value.is_null()) {
            line.option("unset", key);
        }
        self.say(call, &mut line).await?;
        Ok(line)
    }

    /// Adds settings, and secrets, which are read from standard input.
    async fn say(&self, call: &Call, line: &mut Line) -> Result<(), Problem> {
        let settings = Value::Object(self.settings.clone());
        call.service
            .policy()
            .settings("settings", &settings)
            .await?;
        for (key, value) in self.settings.iter().filter(|(_, value)| !value.is_null()) {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(is_set) => is_set.to_string(),
                _ => {
                    let field = format!("settings.{key}");
                    return Err(Problem::field(
                        field,
                        "a setting is text, a number, or true or false",
                    ));
                }
            };
            // The service's own folder means nothing to who asks.
            let field = format!("settings.{key}");
            call.service.policy().setting(&field, key, &text)?;
            line.option("set", &format!("{}={text}", refuse_key("settings", key)?));
        }
        let mut input = Zeroizing::new(Vec::new());
        for (key, value) in &self.secrets {
            line.option("secret", refuse_key("secrets", key)?);
            input.extend(secret(key, value)?.as_bytes());
            input.push(b'\n');
        }
        line.input = input;
        // What comes by the API was typed into a form, and lies nowhere for everybody to read.
        line.flag("seal", !self.secrets.is_empty());
        Ok(())
    }

    /// Refuses a location of a user that would be reached with the credentials of the service's machine; what is not said stays
    /// as it is in the saved one.
    async fn refuse_credentials(&self, call: &Call, saved: Option<&str>) -> Result<(), Problem> {
        let policy = call.service.policy();
        if !policy.is_of_user() {
            return Ok(());
        }
        let saved = match saved {
            Some(name) => call.service.location(name).await?,
            None => Value::Null,
        };
        let of_saved = saved.get("url").and_then(Value::as_str);
        let url = self.url.as_deref().or(of_saved).unwrap_or_default();
        policy.place("url", url).await?;
        let is_set = |key: &str| {
            if self.secrets.contains_key(key) {
                return true;
            }
            match self.settings.get(key) {
                Some(value) => !value.is_null(),
                None => {
                    let is_unset = self.unset.iter().any(|unset| unset == key);
                    let there = saved.get("settings").and_then(|all| all.get(key));
                    there.is_some() && !is_unset
                }
            }
        };
        policy.credentials(url, &is_set)
    }
}

/// Gives a secret as one line.
fn secret(key: &str, value: &Value) -> Result<Zeroizing<String>, Problem> {
    let field = format!("secrets.{key}");
    let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
        return Err(Problem::field(field, "a secret is text, and not empty"));
    };
    if !text.contains(['\n', '\r']) {
        return Ok(Zeroizing::new(text.to_owned()));
    }
    // The credentials of clouds are JSON, whose line breaks mean nothing.
    if let Ok(parsed @ Value::Object(_)) = serde_json::from_str::<Value>(text) {
        return Ok(Zeroizing::new(parsed.to_string()));
    }
    let why =
        format!("a secret is one line; put a longer one into a file, and name it by {key}-file");
    Err(Problem::field(field, why))
}

fn refuse_key<'a>(table: &str, key: &'a str) -> Result<&'a str, Problem> {
    let is_of_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !key.is_empty() && !key.starts_with('-') && key.chars().all(is_of_key) {
        true => Ok(key),
        false => Err(Problem::field(
            format!("{table}.{key}"),
            "a key has small letters, digits and '-'",
        )),
    }
}

fn refuse_name(name: &str) -> Result<(), Problem> {
    match is_name(name) {
        true => Ok(()),
        false => Err(Problem::field(
            "name",
            "a name begins with a letter, a digit or '_', and has letters, digits, '-', '_' and '.'",
        )),
    }
}

/// Refuses passwords that no file with a line in it could hold.
fn refuse_password(password: &str) -> Result<(), Problem> {
    if password.is_empty() || password.contains(['\n', '\r', '\0']) {
        return Err(Problem::field(
            "password",
            "a password is one line, and not empty",
        ));
    }
    Ok(())
}

/// Refuses to take a name away that a job needs.
async fn refuse_named_by_job(call: &Call, name: &str, what: &str) -> Result<(), Problem> {
    let jobs = service::jobs(&call.service).await?;
    let named = jobs
        .iter()
        .find(|job| job.get("location").is_some_and(|location| location == name));
    match named.and_then(|job| job.get("name")?.as_str()) {
        Some(job) => Err(Problem::new(
            StatusCode::CONFLICT,
            format!("the location {name} cannot be {what}, since the job {job} backs up to it"),
        )),
        None => Ok(()),
    }
}

/// Adds what the service knows of a location.
fn shown(call: &Call, mut location: Value) -> Value {
    let name = location
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let kept = json!(Kept {
        has_password: call.service.password_file(name).is_some(),
    });
    if let (Some(location), Value::Object(kept)) = (location.as_object_mut(), kept) {
        location.extend(kept);
    }
    location
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let line = |value: Value| secret("k", &value).map(|secret| secret.as_str().to_owned());
        assert_eq!(line(json!("a b")).unwrap(), "a b");
        assert_eq!(
            line(json!("{\n \"a\": \"x\\ny\"\n}")).unwrap(),
            "{\"a\":\"x\\ny\"}"
        );
        for wrong in [json!("a\nb"), json!(""), json!(1), json!("[\n1]")] {
            assert_eq!(line(wrong).unwrap_err().field.unwrap(), "secrets.k");
        }
    }

    #[test]
    fn what_is_null_is_not_what_is_not_there() {
        let read = |text: &str| serde_json::from_str::<Wish>(text).unwrap().password;
        assert_eq!(read("{}"), None);
        assert_eq!(read("{\"password\": null}"), Some(None));
        assert_eq!(read("{\"password\": \"x\"}"), Some(Some("x".to_owned())));
        assert!(serde_json::from_str::<Wish>("{\"pasword\": \"x\"}").is_err());
    }

    #[test]
    fn a_password_that_is_no_line_is_refused_wherever_it_comes() {
        let check = |text: &str| {
            let wish: Wish = serde_json::from_str(text).unwrap();
            wish.check_password().is_ok()
        };
        assert!(check("{}") && check("{\"password\": null}") && check("{\"password\": \"x\"}"));
        assert!(!check("{\"password\": \"\"}") && !check("{\"password\": \"a\\nb\"}"));
    }

    #[test]
    fn a_key_is_no_option_and_has_no_value_in_it() {
        assert!(refuse_key("settings", "path-style").is_ok());
        for key in ["", "-x", "a=b", "A", "a b"] {
            assert!(refuse_key("settings", key).is_err(), "{key}");
        }
    }
}
