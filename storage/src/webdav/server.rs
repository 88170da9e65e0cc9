//! The requests of WebDAV, and what their statuses mean.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use reqwest::header::{CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, RequestBuilder};
use url::Url;
use zeroize::Zeroizing;

use super::xml::{self, Resource};
use crate::error::{ErrorKind, Operation, Reason, Result, StorageError};
use crate::http::{Answer, Http, Task};

/// How a user proves who he is.
pub(super) enum Login {
    /// Not at all.
    None,
    /// By user and password.
    Basic(String, Zeroizing<String>),
    /// By a token.
    Bearer(Zeroizing<String>),
}

/// A server and the folder on it below which everything lies.
pub(super) struct Server {
    pub(super) http: Http,
    /// The folder, with a slash at its end.
    root: Url,
    login: Login,
}

/// How a move treats what lies where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overwrite {
    /// It takes its place.
    Yes,
    /// The move fails.
    No,
}

/// One resource in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The last part of its path, decoded.
    pub segment: String,
    /// What the server says about it.
    pub resource: Resource,
}

/// What is in a folder.
pub(super) struct Folder {
    /// The server's time at the listing.
    pub date: SystemTime,
    /// What lies directly in it, sorted, each once.
    pub entries: Vec<Entry>,
}

impl Server {
    pub(super) fn new(http: Http, root: Url, login: Login) -> Self {
        Self { http, root, login }
    }

    fn request(&self, method: &'static str, url: Url) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
        let request = self.http.client().request(method, url);
        match &self.login {
            Login::None => request,
            Login::Basic(user, password) => request.basic_auth(user, Some(password.as_str())),
            Login::Bearer(token) => request.bearer_auth(token.as_str()),
        }
    }

    /// Gives the URL of an object, or of a folder with the slash that closes it.
    fn url(&self, name: &str, is_folder: bool) -> Url {
        let mut url = self.root.clone();
        if name.is_empty() {
            return url;
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(name.split('/'));
            if is_folder {
                segments.push("");
            }
        }
        url
    }

    /// Makes the error of an answer that is no success.
    pub(super) fn failure(&self, task: Task<'_>, answer: &Answer<'_>) -> StorageError {
        let error = answer.failure(task);
        match (&self.login, error.reason) {
            (Login::None, Reason::WrongLogin) => error.because(Reason::NoCredentials),
            _ => error,
        }
    }

    fn protocol(&self, task: Task<'_>, cause: &str) -> StorageError {
        let cause = format!("the server's answer makes no sense: {cause}");
        self.http
            .error(task, ErrorKind::Permanent, cause)
            .because(Reason::Protocol)
    }

    /// Writes an object, of which a reader may see a part; `false` if its folder is missing.
    pub(super) async fn put(&self, task: Task<'_>, name: &str, bytes: Bytes) -> Result<bool> {
        let request = self.request("PUT", self.url(name, false));
        let request = request.header(CONTENT_TYPE, "application/octet-stream");
        let answer = self.http.upload(task, request, bytes).await?;
        match answer.status().as_u16() {
            200 | 201 | 204 => Ok(true),
            404 | 409 => Ok(false),
            _ => Err(self.failure(task, &answer)),
        }
    }

    /// Gives an object, or a folder, another name.
    ///
    /// # Errors
    /// The outer one: nobody knows whether it took effect. The inner one: it did not.
    pub(super) async fn rename(
        &self,
        task: Task<'_>,
        from: &str,
        to: &str,
        overwrite: Overwrite,
    ) -> Result<Result<()>> {
        let to = self.url(to, false);
        // Behind a proxy that ends TLS a server may take its own URL for another server's (502): then
        // the path alone.
        let spellings = [to.as_str(), to.path()];
        let mut last = None;
        for destination in spellings {
            let request = self
                .request("MOVE", self.url(from, false))
                .header("Destination", destination)
                .header(
                    "Overwrite",
                    match overwrite {
                        Overwrite::Yes => "T",
                        Overwrite::No => "F",
                    },
                );
            let answer = self.http.send(task, request).await?;
            match answer.status().as_u16() {
                200 | 201 | 204 => return Ok(Ok(())),
                404 | 409 => {
                    let cause = "what was uploaded is gone before it got its name";
                    return Ok(Err(self.http.error(task, ErrorKind::Transient, cause)));
                }
                502 => last = Some(self.failure(task, &answer)),
                500..=599 => return Err(self.failure(task, &answer)),
                _ => return Ok(Err(self.failure(task, &answer))),
            }
        }
        Ok(Err(last.unwrap_or_else(|| {
            self.protocol(task, "it moves nothing")
        })))
    }

    /// Removes an object; one that is not there is removed already.
    pub(super) async fn delete(&self, task: Task<'_>, name: &str) -> Result<()> {
        // Depth 0 lets no folder be taken for an object and deleted with all that is in it.
        let request = self
            .request("DELETE", self.url(name, false))
            .header("Depth", "0");
        self.finish_delete(task, request).await
    }

    /// Removes a folder with all that is in it; one that is not there is removed already.
    pub(super) async fn delete_folder(&self, task: Task<'_>, name: &str) -> Result<()> {
        let request = self.request("DELETE", self.url(name, true));
        self.finish_delete(task, request).await
    }

    async fn finish_delete(&self, task: Task<'_>, request: RequestBuilder) -> Result<()> {
        let answer = self.http.send(task, request).await?;
        match answer.status().as_u16() {
            200 | 202 | 204 | 404 | 410 => Ok(()),
            _ => Err(self.failure(task, &answer)),
        }
    }

    /// Asks for an object, or for a part of it: then the status says whether the part came (206),
    /// everything (200), or that there is no such part (416).
    pub(super) async fn get(
        &self,
        task: Task<'_>,
        range: Option<(u64, u64)>,
    ) -> Result<Answer<'_>> {
        let mut request = self.request("GET", self.url(task.name, false));
        if let Some((first, last)) = range {
            request = request.header(RANGE, format!("bytes={first}-{last}"));
        }
        let answer = self.http.send(task, request).await?;
        let is_page = answer
            .header(CONTENT_TYPE)
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"));
        match answer.status().as_u16() {
            // A folder is a page for people on some servers, and nothing to get on others.
            200 if is_page && self.is_folder(task).await? => Err(self.missing(task)),
            403 | 405 if self.is_folder(task).await? => Err(self.missing(task)),
            200 | 206 => Ok(answer),
            416 if range.is_some() => Ok(answer),
            300..=399 if self.is_sent_to_folder(task, &answer) => Err(self.missing(task)),
            _ => Err(self.failure(task, &answer)),
        }
    }

    async fn is_folder(&self, task: Task<'_>) -> Result<bool> {
        let found = self.look(task, task.name, false).await?;
        Ok(found.is_none_or(|resource| resource.is_folder))
    }

    fn is_sent_to_folder(&self, task: Task<'_>, answer: &Answer<'_>) -> bool {
        let url = self.url(task.name, false);
        let to = answer.header(LOCATION).and_then(|to| url.join(to).ok());
        to.is_some_and(|to| to.path().strip_suffix('/') == Some(url.path()))
    }

    fn missing(&self, task: Task<'_>) -> StorageError {
        let cause = "there is no such object";
        self.http.error(task, ErrorKind::NotFound, cause)
    }

    /// Tells what is at a name: `None` for nothing.
    pub(super) async fn look(
        &self,
        task: Task<'_>,
        name: &str,
        is_folder: bool,
    ) -> Result<Option<Resource>> {
        let url = self.url(name, is_folder);
        let Some((_, found)) = self.properties(task, &url, "0").await? else {
            return Ok(None);
        };
        self.only_one(task, &found)
    }

    /// Gives the one resource that was asked about: `None` for nothing.
    fn only_one(&self, task: Task<'_>, found: &[Resource]) -> Result<Option<Resource>> {
        let [resource] = found else {
            let cause = format!("it tells of {} resources in place of one", found.len());
            return Err(self.protocol(task, &cause));
        };
        match resource.status {
            None | Some(200..=299) => Ok(Some(resource.clone())),
            Some(404 | 410) => Ok(None),
            Some(status) => {
                let cause = format!("it has the status {status}");
                Err(self.protocol(task, &cause))
            }
        }
    }

    /// Makes a folder that is not there; `false` if it is, or if another makes it at this moment.
    pub(super) async fn claim_folder(&self, task: Task<'_>, name: &str) -> Result<bool> {
        const ATTEMPTS: usize = 3;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let request = self.request("MKCOL", self.url(name, true));
            let answer = self.http.send(task, request).await?;
            match answer.status().as_u16() {
                201 => return Ok(true),
                405 | 423 => return Ok(false),
                _ => last = Some(self.failure(task, &answer)),
            }
            drop(answer);
            // Where another makes it meanwhile, some servers speak of rights (403) or fail (500); it may
            // even be gone again by now.
            if self.look(task, name, true).await?.is_some() {
                return Ok(false);
            }
        }
        Err(last.unwrap_or_else(|| self.protocol(task, "it makes no folder")))
    }

    /// Tells whether the server makes the root again, which is there, as if it were not.
    pub(super) async fn makes_what_is_there(&self, task: Task<'_>) -> Result<bool> {
        let request = self.request("MKCOL", self.url("", true));
        let answer = self.http.send(task, request).await?;
        Ok(answer.status().as_u16() == 201)
    }

    /// Gives how long ago a folder was made, by the server's own clock; `None` if it is not there or the
    /// server does not say.
    pub(super) async fn age(&self, task: Task<'_>, folder: &str) -> Result<Option<Duration>> {
        let url = self.url(folder, true);
        let Some((now, found)) = self.properties(task, &url, "0").await? else {
            return Ok(None);
        };
        let made = self
            .only_one(task, &found)?
            .and_then(|folder| folder.modified);
        Ok(now
            .zip(made)
            .and_then(|(now, made)| now.duration_since(made).ok()))
    }

    /// Lists a folder: `None` if there is none.
    pub(super) async fn list(&self, folder: &str) -> Result<Option<Folder>> {
        let task = Task {
            operation: Operation::List,
            name: folder,
        };
        let url = self.url(folder, true);
        let Some((date, found)) = self.properties(task, &url, "1").await? else {
            return Ok(None);
        };
        let Some(own) = decoded(url.path()) else {
            return Err(self.protocol(task, "its path is no UTF-8"));
        };
        let mut entries = Vec::new();
        let mut itself = None;
        for resource in found {
            match segment_below(&url, &own, &resource.href) {
                Some(segment) if segment.is_empty() => itself = Some(resource),
                Some(segment) => entries.push(Entry { segment, resource }),
                None => tracing::debug!("a path elsewhere in the listing of {folder:?}"),
            }
        }
        // What a server tells of other paths alone, as behind a proxy that changes them, would
        // otherwise look like an empty folder.
        match itself {
            None => return Err(self.protocol(task, "the folder itself is not in its listing")),
            Some(itself) if !itself.is_folder => return Ok(None),
            Some(_) => {}
        }
        entries.sort_by(|a, b| a.segment.cmp(&b.segment));
        entries.dedup_by(|a, b| a.segment == b.segment);
        let date = date.unwrap_or_else(SystemTime::now);
        Ok(Some(Folder { date, entries }))
    }

    /// Asks for the properties of a resource and, at depth 1, of what lies directly in it.
    async fn properties(
        &self,
        task: Task<'_>,
        url: &Url,
        depth: &'static str,
    ) -> Result<Option<(Option<SystemTime>, Vec<Resource>)>> {
        let request = self
            .request("PROPFIND", url.clone())
            .header("Depth", depth)
            .header(CONTENT_TYPE, "application/xml; charset=utf-8")
            .body(xml::PROPERTIES);
        let answer = self.http.send(task, request).await?;
        match answer.status().as_u16() {
            207 => {}
            404 | 410 => return Ok(None),
            // A server of another kind, or a folder in which it does not speak WebDAV.
            200 | 204 | 400 | 405 | 501 => {
                let cause = "what answers is no WebDAV server at this URL";
                return Err(StorageError {
                    cause: format!("{cause} (status {})", answer.status().as_u16()),
                    ..self.protocol(task, "")
                });
            }
            _ => return Err(self.failure(task, &answer)),
        }
        let date = answer.date();
        let body = match answer.body(task, xml::ANSWER_BYTES_MAX).await {
            Err(error) if error.kind == ErrorKind::Oversized => {
                return Err(self.protocol(task, &error.cause));
            }
            outcome => outcome?,
        };
        let found = xml::parse(&body).map_err(|cause| self.protocol(task, &cause))?;
        Ok(Some((date, found)))
    }

    /// Makes a folder whose parent is there; `false` if the parent is missing.
    ///
    /// One that is there already is as good.
    pub(super) async fn make_folder(&self, task: Task<'_>, name: &str) -> Result<bool> {
        let url = self.url(name, true);
        self.make(task, url).await
    }

    async fn make(&self, task: Task<'_>, url: Url) -> Result<bool> {
        let request = self.request("MKCOL", url.clone());
        let answer = self.http.send(task, request).await?;
        match answer.status().as_u16() {
            200 | 201 | 204 => Ok(true),
            404 | 409 => Ok(false),
            status => {
                let refused = self.failure(task, &answer);
                drop(answer);
                if status == 401 || refused.kind == ErrorKind::Transient {
                    return Err(refused);
                }
                // 405 is usual where it exists already; what counts is that it does.
                let found = self.properties(task, &url, "0").await?;
                let is_there =
                    found.is_some_and(|(_, found)| found.iter().any(|resource| resource.is_folder));
                is_there.then_some(true).ok_or(refused)
            }
        }
    }

    /// Makes the root, and above it what is missing.
    pub(super) async fn make_root(&self, task: Task<'_>) -> Result<()> {
        let mut missing = vec![self.root.clone()];
        while let Some(url) = missing.last() {
            if self.make(task, url.clone()).await? {
                missing.pop();
                continue;
            }
            let parent = parent(url).filter(|_| missing.len() <= PARENTS_MAX);
            let Some(parent) = parent else {
                let cause = "neither the folder nor any of its parents can be made";
                return Err(self
                    .http
                    .error(task, ErrorKind::NotFound, cause)
                    .because(Reason::NoFolder));
            };
            missing.push(parent);
        }
        Ok(())
    }
}

/// How many folders may be missing above the root.
const PARENTS_MAX: usize = 64;

/// Gives the folder that a folder lies in.
fn parent(url: &Url) -> Option<Url> {
    let path = url.path().strip_suffix('/')?;
    let (parent, last) = path.rsplit_once('/')?;
    if last.is_empty() || parent.is_empty() {
        return None;
    }
    let mut url = url.clone();
    url.set_path(&format!("{parent}/"));
    Some(url)
}

fn decoded(path: &str) -> Option<String> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// Gives the name that a path has in a folder: empty for the folder itself, `None` for a path that does
/// not lie directly in it.
fn segment_below(folder: &Url, own: &str, href: &str) -> Option<String> {
    // The join takes out `..`, whether it is encoded or not.
    let path = decoded(folder.join(href).ok()?.path())?;
    if own.strip_suffix('/') == Some(path.as_str()) {
        return Some(String::new());
    }
    let below = path.strip_prefix(own)?;
    let segment = below.strip_suffix('/').unwrap_or(below);
    (!segment.contains('/')).then(|| segment.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_what_lies_directly_in_the_folder_counts() {
        let folder = Url::parse("https://host:1/r%20x/packs/").unwrap();
        let below = |href: &str| segment_below(&folder, "/r x/packs/", href);
        for itself in [
            "/r%20x/packs/",
            "/r%20x/packs",
            "http://other/r%20x/packs/",
            "./",
        ] {
            assert_eq!(below(itself).unwrap(), "", "{itself}");
        }
        for child in [
            "/r%20x/packs/ab",
            "/r%20x/packs/%61b",
            "/r%20x/packs/ab/",
            "ab",
        ] {
            assert_eq!(below(child).unwrap(), "ab", "{child}");
        }
        for other in [
            "/r%20x/packs/../ab",
            "/r%20x/packs/%2e%2e/ab",
            "/r%20x/packs/a/b",
            "/r%20x/packs/a%2Fb",
            "/",
            "",
            "/r%20x/packs/%ff",
            "http://[",
            "mailto:x",
        ] {
            let found = below(other);
            assert!(found.is_none_or(|segment| segment.is_empty()), "{other}");
        }
    }

    #[test]
    fn parents_end_below_the_servers_own_root() {
        let url = Url::parse("https://host/a/b/").unwrap();
        let above = parent(&url).unwrap();
        assert_eq!(above.as_str(), "https://host/a/");
        assert_eq!(parent(&above), None);
        assert_eq!(parent(&Url::parse("https://host/").unwrap()), None);
    }
}
