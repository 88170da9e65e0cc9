//! A folder in a Dropbox, be it an app's own folder or all of the account.
//!
//! An upload takes its name whole or not at all, and `mode=add` with `strict_conflict` fails where
//! something is. Dropbox takes no note of case in names; those of objects are lower case.

mod api;
mod failure;
mod hash;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use url::Url;

use self::api::{Api, Credentials};
use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::http::{Answer, Http, Task, is_this_machine};
use super::location::Location;
use super::network::Network;
use super::open::Mode;
use super::retry::Retry;
use super::{
    Capabilities, CreateExclusive, ObjectInfo, Storage, check_folder, check_name, is_valid_name,
    runtime,
};

/// What Dropbox takes in one request: 150 MB; more goes in parts.
const UPLOAD_BYTES_MAX: usize = 150_000_000;
/// The bytes of a part: Dropbox wants multiples of 4 MiB.
const PART_BYTES: usize = 64 << 20;
/// The largest file that Dropbox takes.
const OBJECT_BYTES_MAX: u64 = 350_000_000_000;
/// How many objects a page of a listing may have.
const PAGE_OBJECTS: u64 = 2000;
/// How many pages without an object are borne in a row.
const EMPTY_PAGES_MAX: u32 = 1000;
/// The task of reaching the storage itself.
const OPENING: Task<'static> = Task {
    operation: Operation::Open,
    name: "",
};

/// Opens a folder in a Dropbox.
pub(crate) fn open(location: &Location, network: &Network, mode: Mode) -> Result<Arc<dyn Storage>> {
    let description = location.place.to_string();
    let refuse = |reason: Reason, cause: String| {
        let kind = ErrorKind::Permanent;
        StorageError::new(Operation::Open, description.as_str(), "", kind, cause).because(reason)
    };
    let settings = |cause| refuse(Reason::Settings, cause);
    let api = endpoint(location, "api-endpoint", "https://api.dropboxapi.com").map_err(settings)?;
    let files = endpoint(
        location,
        "content-endpoint",
        "https://content.dropboxapi.com",
    );
    let files = files.map_err(settings)?;
    let missing = |cause| refuse(Reason::NoCredentials, cause);
    let credentials = credentials(location).map_err(settings)?.map_err(missing)?;
    let http = Http::new(network, description.clone()).map_err(settings)?;
    let mut storage = Dropbox {
        api: Api::new(http, api, files, credentials),
        root: location.place.path.trim_end_matches('/').to_owned(),
        retry: network.retry.clone(),
        description,
    };
    storage.root = network
        .retry
        .run(|| storage.run(OPENING, storage.find_root(mode)))?;
    Ok(Arc::new(storage))
}

/// Gives the URL of a part of Dropbox, which the tests set.
fn endpoint(location: &Location, setting: &str, usual: &str) -> std::result::Result<Url, String> {
    let given = location.settings.text(setting).unwrap_or(usual);
    let url = Url::parse(given).map_err(|error| format!("{setting} is no URL ({error})"))?;
    let host = url
        .host_str()
        .ok_or_else(|| format!("{setting} names no host"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_machine(host) => Ok(url),
        _ => Err(format!("{setting} has to begin with https://")),
    }
}

/// Gathers what the app shows; the inner error names what is missing.
fn credentials(
    location: &Location,
) -> std::result::Result<std::result::Result<Credentials, String>, String> {
    let settings = &location.settings;
    let app_secret = settings.secret("app-secret")?;
    let refresh_token = settings.secret("refresh-token")?;
    let app_key = settings.text("app-key");
    Ok(match (app_key, refresh_token) {
        (Some(app_key), Some(refresh_token)) => Ok(Credentials {
            app_key: app_key.to_owned(),
            app_secret,
            refresh_token,
        }),
        (None, _) => Err("the setting app-key is missing".to_owned()),
        (_, None) => Err("the setting refresh-token is missing".to_owned()),
    })
}

/// A storage in a folder of a Dropbox.
struct Dropbox {
    api: Api,
    /// The folder as Dropbox writes it in `path_lower`: empty for all that the app may see, else with a
    /// slash in front.
    root: String,
    retry: Retry,
    description: String,
}

impl Dropbox {
    fn run<T>(&self, task: Task<'_>, future: impl Future<Output = Result<T>>) -> Result<T> {
        runtime::block_on(future)
            .map_err(|cause| self.api.http.error(task, ErrorKind::Transient, cause))?
    }

    /// Begins an operation on an object.
    fn task<'a>(&self, operation: Operation, name: &'a str) -> Result<Task<'a>> {
        check_name(operation, &self.description, name)?;
        Ok(Task { operation, name })
    }

    fn error(&self, task: Task<'_>, kind: ErrorKind, cause: impl Into<String>) -> StorageError {
        self.api.http.error(task, kind, cause)
    }

    fn path(&self, name: &str) -> String {
        match name {
            "" => self.root.clone(),
            name => format!("{}/{name}", self.root),
        }
    }

    /// Finds the folder of the repository, or makes it; gives its path in Dropbox's own spelling.
    async fn find_root(&self, mode: Mode) -> Result<String> {
        if self.root.is_empty() {
            // Of the root nothing can be asked but what is in it.
            let argument = json!({ "path": "", "limit": 1 });
            self.api
                .call(OPENING, "files/list_folder", &argument)
                .await?;
            return Ok(String::new());
        }
        let found = match self.metadata(OPENING, "").await {
            Err(error) if error.kind == ErrorKind::NotFound => match mode {
                Mode::Open => return Err(self.no_root(error)),
                Mode::Create => {
                    self.make_root().await?;
                    self.metadata(OPENING, "").await?
                }
            },
            outcome => outcome?,
        };
        if tag(&found) != "folder" {
            return Err(self.error(OPENING, ErrorKind::Permanent, "it is no folder"));
        }
        let path = found.get("path_lower").and_then(Value::as_str);
        let path = path.filter(|path| path.starts_with('/') && path.len() > 1);
        path.map(str::to_owned)
            .ok_or_else(|| self.api.nonsense(OPENING, "the folder has no path"))
    }

    fn no_root(&self, error: StorageError) -> StorageError {
        StorageError {
            kind: ErrorKind::NotFound,
            reason: Reason::NoFolder,
            cause: "there is no such folder".to_owned(),
            ..error
        }
    }

    /// Makes the folder with its parents; one that somebody made meanwhile is as good.
    async fn make_root(&self) -> Result<()> {
        let argument = json!({ "path": self.root, "autorename": false });
        let made = self
            .api
            .call(OPENING, "files/create_folder_v2", &argument)
            .await;
        match made {
            Err(error) if error.kind != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    async fn metadata(&self, task: Task<'_>, name: &str) -> Result<Value> {
        let argument = json!({ "path": self.path(name) });
        self.api.call(task, "files/get_metadata", &argument).await
    }

    async fn write(&self, task: Task<'_>, bytes: Bytes, mode: &str) -> Result<()> {
        let hash = hash::of(&bytes);
        let commit = json!({
            "path": self.path(task.name),
            "mode": mode,
            "autorename": false,
            "mute": true,
            "strict_conflict": true,
        });
        let written = if bytes.len() > UPLOAD_BYTES_MAX {
            self.write_parts(task, bytes, commit).await?
        } else {
            self.api
                .upload(task, "files/upload", &commit, bytes)
                .await?
        };
        let found = written.get("content_hash").and_then(Value::as_str);
        if found == Some(hash.as_str()) {
            return Ok(());
        }
        let cause = "what Dropbox has kept is not what was sent";
        Err(self.error(task, ErrorKind::Transient, cause))
    }

    /// Uploads in parts; the object appears with the last request.
    async fn write_parts(&self, task: Task<'_>, mut left: Bytes, commit: Value) -> Result<Value> {
        let first = left.split_to(PART_BYTES.min(left.len()));
        let mut offset = first.len();
        let argument = json!({ "close": false });
        let begun = self
            .api
            .upload(task, "files/upload_session/start", &argument, first)
            .await?;
        let session = begun.get("session_id").and_then(Value::as_str);
        let session =
            session.ok_or_else(|| self.api.nonsense(task, "the upload has no session"))?;
        let cursor = |offset: usize| json!({ "session_id": session, "offset": offset });
        while left.len() > PART_BYTES {
            let part = left.split_to(PART_BYTES);
            let argument = json!({ "cursor": cursor(offset), "close": false });
            offset += part.len();
            self.api
                .upload(task, "files/upload_session/append_v2", &argument, part)
                .await?;
        }
        let argument = json!({ "cursor": cursor(offset), "commit": commit });
        self.api
            .upload(task, "files/upload_session/finish", &argument, left)
            .await
    }

    async fn read(&self, task: Task<'_>, max_bytes: u64) -> Result<Bytes> {
        let answer = self.api.download(task, &self.path(task.name), None).await?;
        if answer.status().as_u16() != 200 {
            return Err(self.api.nonsense(task, "it sends a part of the object"));
        }
        let claimed = answer.length_bytes();
        let bytes = answer.body(task, max_bytes).await?;
        match claimed {
            Some(claimed) if claimed != bytes.len() as u64 => Err(self.cut_short(task)),
            _ => Ok(bytes),
        }
    }

    /// Reads the bytes, which are some, from `first` to `last`.
    async fn read_range(&self, task: Task<'_>, first: u64, last: u64) -> Result<Bytes> {
        let path = self.path(task.name);
        let answer = self.api.download(task, &path, Some((first, last))).await?;
        let skipped_bytes = match answer.status().as_u16() {
            206 => self.check_range(task, &answer, first, last).map(|()| 0)?,
            200 if answer.length_bytes().is_some_and(|size| size > last) => first,
            _ => return Err(self.past_the_end(task, "it ends before that")),
        };
        let length_bytes = last - first + 1;
        let (bytes, _) = answer.part(task, skipped_bytes, length_bytes).await?;
        match bytes.len() as u64 == length_bytes {
            true => Ok(bytes),
            false => Err(self.cut_short(task)),
        }
    }

    fn check_range(
        &self,
        task: Task<'_>,
        answer: &Answer<'_>,
        first: u64,
        last: u64,
    ) -> Result<()> {
        match answer.range() {
            Some((from, to, _)) if (from, to) == (first, last) => Ok(()),
            Some((from, to, Some(size_bytes)))
                if from == first && to < last && to.checked_add(1) == Some(size_bytes) =>
            {
                Err(self.past_the_end(task, &format!("it has {size_bytes} bytes")))
            }
            _ => Err(self
                .api
                .nonsense(task, "it sends another part than it was asked for")),
        }
    }

    fn past_the_end(&self, task: Task<'_>, cause: &str) -> StorageError {
        let cause = format!("{cause}, too few for the part that was asked for");
        self.error(task, ErrorKind::Truncated, cause)
    }

    fn cut_short(&self, task: Task<'_>) -> StorageError {
        let cause = "Dropbox sent fewer bytes than it said";
        self.error(task, ErrorKind::Transient, cause)
    }

    async fn measure(&self, task: Task<'_>) -> Result<u64> {
        let found = self.metadata(task, task.name).await?;
        if tag(&found) != "file" {
            return Err(self.error(task, ErrorKind::NotFound, "there is no such object"));
        }
        let size = found.get("size").and_then(Value::as_u64);
        size.ok_or_else(|| self.api.nonsense(task, "the object has no size"))
    }

    async fn remove(&self, task: Task<'_>) -> Result<()> {
        let argument = json!({ "path": self.path(task.name) });
        match self.api.call(task, "files/delete_v2", &argument).await {
            Err(error) if error.kind != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives one page of a listing: the first one, or the one that a cursor stands for.
    ///
    /// `None`: there is no such folder.
    async fn page(&self, task: Task<'_>, cursor: Option<&str>) -> Result<Option<Value>> {
        let Some(cursor) = cursor else {
            let path = self.path(task.name);
            let argument = json!({ "path": path, "recursive": true, "limit": PAGE_OBJECTS });
            return match self.api.call(task, "files/list_folder", &argument).await {
                Err(error) if error.kind == ErrorKind::NotFound => self.check_root(task).await,
                Err(error) if error.cause.contains("not_folder") => Ok(None),
                outcome => outcome.map(Some),
            };
        };
        let argument = json!({ "cursor": cursor });
        let next = self
            .api
            .call(task, "files/list_folder/continue", &argument)
            .await;
        match next {
            // The folder went while it was listed: nothing may be said of it.
            Err(error) if error.kind == ErrorKind::NotFound => Err(StorageError {
                kind: ErrorKind::Permanent,
                cause: "the folder vanished while it was listed".to_owned(),
                ..error
            }),
            outcome => outcome.map(Some),
        }
    }

    /// Tells a folder that is missing from a repository that is gone.
    async fn check_root(&self, task: Task<'_>) -> Result<Option<Value>> {
        if self.root.is_empty() {
            return Ok(None);
        }
        match self.metadata(task, "").await {
            Err(error) if error.kind == ErrorKind::NotFound => Err(self.no_root(error)),
            outcome => outcome.map(|_| None),
        }
    }

    /// Visits the objects of a page.
    fn visit_page(
        &self,
        task: Task<'_>,
        entries: &[Value],
        visit: &mut dyn FnMut(ObjectInfo) -> Result<()>,
    ) -> Result<()> {
        for entry in entries.iter().filter(|entry| tag(entry) == "file") {
            let path = entry
                .get("path_lower")
                .and_then(Value::as_str)
                .unwrap_or("");
            let below = path.strip_prefix(self.root.as_str());
            let Some(name) = below.and_then(|below| below.strip_prefix('/')) else {
                return Err(self
                    .api
                    .nonsense(task, "it lists what is not in the folder"));
            };
            if is_valid_name(name) {
                let size = entry.get("size").and_then(Value::as_u64);
                let size = size.ok_or_else(|| self.api.nonsense(task, "an object has no size"))?;
                visit(ObjectInfo {
                    name: name.to_owned(),
                    size_bytes: size,
                })?;
            }
        }
        Ok(())
    }
}

impl Storage for Dropbox {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let task = self.task(Operation::Get, name)?;
        self.run(task, self.read(task, max_bytes))
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let task = self.task(Operation::GetRange, name)?;
        let end = offset_bytes.checked_add(length_bytes);
        match end.filter(|_| length_bytes > 0) {
            Some(end) => self.run(task, self.read_range(task, offset_bytes, end - 1)),
            // A range of nothing cannot be asked for, nor one that no object can have.
            None => {
                let size_bytes = self.run(task, self.measure(task))?;
                match end.is_some_and(|end| end <= size_bytes) {
                    true => Ok(Bytes::new()),
                    false => Err(self.past_the_end(task, &format!("it has {size_bytes} bytes"))),
                }
            }
        }
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let task = self.task(Operation::Put, name)?;
        self.run(task, self.write(task, bytes, "overwrite"))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        let task = self.task(Operation::Create, name)?;
        self.run(task, self.write(task, bytes, "add"))
    }

    fn delete(&self, name: &str) -> Result<()> {
        let task = self.task(Operation::Delete, name)?;
        self.run(task, self.remove(task))
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        let task = Task {
            operation: Operation::List,
            name: folder,
        };
        let mut cursor: Option<String> = None;
        let mut empty_pages = 0;
        loop {
            // Each page is tried again on its own: what was visited is not visited again.
            let get = || self.run(task, self.page(task, cursor.as_deref()));
            let Some(page) = self.retry.run(get)? else {
                return Ok(());
            };
            let entries = page.get("entries").and_then(Value::as_array);
            let entries =
                entries.ok_or_else(|| self.api.nonsense(task, "a page has no entries"))?;
            self.visit_page(task, entries, visit)?;
            match page.get("has_more").and_then(Value::as_bool) {
                Some(false) => return Ok(()),
                Some(true) => {}
                None => {
                    return Err(self
                        .api
                        .nonsense(task, "a page does not say if it is the last"));
                }
            }
            empty_pages = if entries.is_empty() {
                empty_pages + 1
            } else {
                0
            };
            let next = page.get("cursor").and_then(Value::as_str);
            match next.filter(|_| empty_pages < EMPTY_PAGES_MAX) {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Err(self.api.nonsense(task, "the listing does not go on")),
            }
        }
    }

    fn size(&self, name: &str) -> Result<u64> {
        let task = self.task(Operation::Size, name)?;
        self.run(task, self.measure(task))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            create_exclusive: CreateExclusive::Native,
            sorted_listing: false,
            atomic_put: true,
            object_bytes_max: Some(OBJECT_BYTES_MAX),
            thaws: false,
        }
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

fn tag(entry: &Value) -> &str {
    entry.get(".tag").and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::location::Layers;
    use super::*;

    fn location(settings: &[(&str, &str)]) -> Location {
        let file = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into()))
            .collect();
        let layers = Layers {
            file: Some(&file),
            ..Layers::default()
        };
        Location::new("dropbox:///x", &layers).unwrap()
    }

    #[test]
    fn tokens_go_nowhere_without_tls() {
        let of = |url: &str| endpoint(&location(&[("api-endpoint", url)]), "api-endpoint", "");
        assert!(of("https://elsewhere").is_ok() && of("http://127.0.0.1:1").is_ok());
        for wrong in [
            "http://elsewhere",
            "ftp://127.0.0.1",
            "elsewhere",
            "https://",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |settings: &[_]| credentials(&location(settings)).unwrap().err();
        let token = ("refresh-token", "x");
        assert!(missing(&[token]).unwrap().contains("app-key"));
        let key = ("app-key", "x");
        assert!(missing(&[key]).unwrap().contains("refresh-token"));
        assert!(missing(&[key, token]).is_none());
    }
}
