//! The requests of Dropbox's API, with an access token that is renewed when it gets old.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, RANGE};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

use super::failure;
use crate::error::{ErrorKind, Reason, Result, StorageError};
use crate::http::{Answer, Http, Task, loggable};

/// The most bytes of an answer; a page of a listing has some 2,000 objects of 500 bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long before its end an access token is renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);
/// The longest time that a token is believed to last.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What an app shows to get an access token.
pub(super) struct Credentials {
    pub app_key: String,
    /// An app that got its refresh token by PKCE needs none.
    pub app_secret: Option<Zeroizing<String>>,
    pub refresh_token: Zeroizing<String>,
}

/// Dropbox's API for one account.
pub(super) struct Api {
    pub(super) http: Http,
    /// Where calls go, without a slash at the end.
    api: Url,
    /// Where files go and come from.
    files: Url,
    credentials: Credentials,
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    text: Zeroizing<String>,
    until: Instant,
}

impl Api {
    pub(super) fn new(http: Http, api: Url, files: Url, credentials: Credentials) -> Self {
        Self {
            http,
            api,
            files,
            credentials,
            token: Mutex::default(),
        }
    }

    /// Calls a function that takes and gives JSON.
    pub(super) async fn call(
        &self,
        task: Task<'_>,
        function: &str,
        argument: &Value,
    ) -> Result<Value> {
        let url = joined(&self.api, function);
        let send = || {
            let request = self.http.client().post(url.clone());
            let request = request
                .header(CONTENT_TYPE, "application/json")
                .body(argument.to_string());
            (request, None)
        };
        let answer = self.authorized(task, &send).await?;
        self.json(task, answer).await
    }

    /// Calls a function that takes bytes and gives JSON.
    pub(super) async fn upload(
        &self,
        task: Task<'_>,
        function: &str,
        argument: &Value,
        bytes: Bytes,
    ) -> Result<Value> {
        let url = joined(&self.files, function);
        let send = || {
            let request = self.http.client().post(url.clone());
            let request = request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header("Dropbox-API-Arg", ascii(argument));
            (request, Some(bytes.clone()))
        };
        let answer = self.authorized(task, &send).await?;
        self.json(task, answer).await
    }

    /// Asks for a file or a part of it; the status may be 416 if it ends before the part.
    pub(super) async fn download(
        &self,
        task: Task<'_>,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Answer<'_>> {
        let url = joined(&self.files, "files/download");
        let argument = ascii(&json!({ "path": path }));
        let send = || {
            let request = self.http.client().post(url.clone());
            let request = request.header("Dropbox-API-Arg", argument.as_str());
            match range {
                Some((first, last)) => {
                    (request.header(RANGE, format!("bytes={first}-{last}")), None)
                }
                None => (request, None),
            }
        };
        self.authorized(task, &send).await
    }

    /// Sends a request with an access token, and once more with a new one if that is refused.
    async fn authorized(
        &self,
        task: Task<'_>,
        make: &(dyn Fn() -> (RequestBuilder, Option<Bytes>) + Sync),
    ) -> Result<Answer<'_>> {
        let mut is_renewed = false;
        loop {
            let token = self.token(task).await?;
            let (request, bytes) = make();
            let request = request.bearer_auth(token.text.as_str());
            let answer = match bytes {
                Some(bytes) => self.http.upload(task, request, bytes).await?,
                None => self.http.send(task, request).await?,
            };
            if matches!(answer.status().as_u16(), 200 | 206 | 416) {
                return Ok(answer);
            }
            let (error, is_token_stale) = self.failure(task, answer, &token).await?;
            if !is_token_stale || is_renewed {
                return Err(error);
            }
            is_renewed = true;
            self.forget(&token).await;
        }
    }

    /// Makes an error of a refusal, and tells whether another access token may help.
    async fn failure(
        &self,
        task: Task<'_>,
        answer: Answer<'_>,
        token: &Token,
    ) -> Result<(StorageError, bool)> {
        let plain = answer.failure(task);
        let status = answer.status();
        let body = answer.explanation(task).await?;
        let Some(meaning) = failure::of(status, &body) else {
            return Ok((plain, false));
        };
        // Some of Dropbox's messages repeat the header with the token.
        let words = meaning.words.replace(token.text.as_str(), "********");
        let asked = meaning.wait_seconds.map(Duration::from_secs);
        let error = StorageError {
            kind: meaning.kind,
            reason: meaning.reason,
            cause: match meaning.kind {
                ErrorKind::NotFound => "there is no such object".to_owned(),
                ErrorKind::AlreadyExists => "it exists already".to_owned(),
                _ => format!("Dropbox says: {}", loggable(&words)),
            },
            retry_after: plain.retry_after.max(asked),
            ..plain
        };
        Ok((error, meaning.is_token_stale))
    }

    async fn json(&self, task: Task<'_>, answer: Answer<'_>) -> Result<Value> {
        let body = match answer.body(task, ANSWER_BYTES_MAX).await {
            Err(error) if error.kind == ErrorKind::Oversized => {
                return Err(self.nonsense(task, &error.cause));
            }
            outcome => outcome?,
        };
        serde_json::from_slice(&body)
            .map_err(|error| self.nonsense(task, &format!("it is no JSON ({error})")))
    }

    /// Makes the error of an answer that no Dropbox gives.
    pub(super) fn nonsense(&self, task: Task<'_>, cause: &str) -> StorageError {
        let cause = format!("Dropbox's answer makes no sense: {cause}");
        self.http
            .error(task, ErrorKind::Permanent, cause)
            .because(Reason::Protocol)
    }

    /// Gives an access token that lasts for a while; one caller fetches it for all.
    async fn token(&self, task: Task<'_>) -> Result<Token> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.until > Instant::now()) {
            return Ok(token.clone());
        }
        let token = self.fetch(task).await?;
        *held = Some(token.clone());
        Ok(token)
    }

    /// Drops an access token that was refused, unless somebody has replaced it already.
    async fn forget(&self, refused: &Token) {
        let mut held = self.token.lock().await;
        if held
            .as_ref()
            .is_some_and(|token| token.text == refused.text)
        {
            *held = None;
        }
    }

    async fn fetch(&self, task: Task<'_>) -> Result<Token> {
        let Credentials {
            app_key,
            app_secret,
            refresh_token,
        } = &self.credentials;
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.as_str()),
            ("client_id", app_key.as_str()),
        ];
        if let Some(secret) = app_secret {
            form.push(("client_secret", secret.as_str()));
        }
        let mut url = self.api.clone();
        url.set_path("/oauth2/token");
        let asked = Instant::now();
        let request = self.http.client().post(url).form(&form);
        let answer = self.http.send(task, request).await?;
        if answer.status().as_u16() != 200 {
            let plain = answer.failure(task);
            let status = answer.status();
            let body = answer.explanation(task).await?;
            return Err(match failure::of_login(status, &body) {
                Some((reason, cause)) => StorageError {
                    kind: ErrorKind::Denied,
                    reason,
                    cause: cause.to_owned(),
                    ..plain
                },
                None => plain,
            });
        }
        let answer = self.json(task, answer).await?;
        let text = answer.get("access_token").and_then(Value::as_str);
        let text = text.ok_or_else(|| self.nonsense(task, "it has no access token"))?;
        let seconds = answer.get("expires_in").and_then(Value::as_u64);
        let life = seconds
            .map_or(Duration::ZERO, Duration::from_secs)
            .min(LIFE_MAX);
        Ok(Token {
            text: Zeroizing::new(text.to_owned()),
            until: asked + life.saturating_sub(RENEWED_BEFORE.min(life / 2)),
        })
    }
}

fn joined(endpoint: &Url, function: &str) -> Url {
    let mut url = endpoint.clone();
    url.set_path(&format!("/2/{function}"));
    url
}

/// Writes JSON as a header can hold it: what is not ASCII is escaped.
fn ascii(value: &Value) -> String {
    let mut escaped = String::new();
    for character in value.to_string().chars() {
        if (' '..='~').contains(&character) {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn arguments_are_ascii_and_the_same_json() {
        let value = json!({ "path": "/Zürich/\u{1f5c4}/a\"b\u{7f}" });
        let escaped = ascii(&value);
        assert!(escaped.is_ascii() && escaped.contains("Z\\u00fcrich/\\ud83d\\uddc4"));
        assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
    }
}
