//! What a request may name: paths, URLs, and settings that are commands.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

use crate::Options;
use crate::problem::Problem;
use crate::tokens::Scope;
use crate::users::{Kind, Limits};

/// Where PostgreSQL listens, unless it is said.
const DATABASE_PORT: u16 = 5432;
/// Names under which clouds answer with a machine's own credentials.
const METADATA_NAMES: [&str; 3] = [
    "metadata.google.internal",
    "metadata.goog",
    "instance-data.ec2.internal",
];

/// Settings of locations that let the service's machine prove who it is, and not the user.
const OF_MACHINE: [&str; 5] = [
    "agent",
    "identity-endpoint",
    "managed-identity",
    "metadata-endpoint",
    "profile",
];

/// What may be used.
#[derive(Debug, Clone)]
pub struct Policy {
    paths: Vec<PathBuf>,
    commands: bool,
    link_local: bool,
    /// Whose it is, unless it is the administrator's.
    user: Option<OfUser>,
}

/// What narrows a user's.
#[derive(Debug, Clone)]
struct OfUser {
    /// Nothing without one.
    paths: Vec<PathBuf>,
    /// What none of them may reach, wherever links lead by now.
    closed: Vec<PathBuf>,
    kinds: Vec<Kind>,
    postgres: bool,
}

impl Policy {
    /// Takes what the service was started with.
    pub fn new(options: &Options) -> Self {
        let paths = options.allow_paths.iter();
        Self {
            paths: paths.map(|path| real(path)).collect(),
            commands: options.allow_commands,
            link_local: options.allow_link_local,
            user: None,
        }
    }

    /// Narrows that to what a user may use.
    pub fn of_user(options: &Options, limits: &Limits, closed: &[PathBuf]) -> Self {
        let all = Self::new(options);
        let paths = limits.paths.iter();
        Self {
            commands: all.commands && limits.commands,
            // The machine's own credentials are the administrator's.
            link_local: false,
            user: Some(OfUser {
                paths: paths.map(|path| real(Path::new(path))).collect(),
                closed: closed.to_owned(),
                kinds: limits.kinds.clone(),
                postgres: limits.postgres,
            }),
            ..all
        }
    }

    /// Tells whether it is a user's.
    pub fn is_of_user(&self) -> bool {
        self.user.is_some()
    }

    /// Looks at all that a table of settings says, in whatever depth.
    ///
    /// # Errors
    /// With the key that is not allowed, and why.
    pub async fn settings(&self, key: &str, value: &Value) -> Result<(), Problem> {
        let mut left = vec![(key.to_owned(), value)];
        while let Some((key, value)) = left.pop() {
            let last = key.rsplit('.').next().unwrap_or_default();
            if is_command(last) && !is_nothing(value) {
                self.command(&key)?;
            }
            match value {
                Value::Object(inner) => {
                    left.extend(
                        inner
                            .iter()
                            .map(|(name, value)| (format!("{key}.{name}"), value)),
                    );
                }
                Value::Array(list) => left.extend(list.iter().map(|value| (key.clone(), value))),
                // A server of mail stands there without a scheme.
                Value::String(text) if key.ends_with("mail.server") => {
                    self.url(&key, &format!("smtp://{text}")).await?;
                }
                Value::String(text) if text.contains("://") || has_host(text) => {
                    self.url(&key, text).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses a shell command unless they are allowed.
    ///
    /// # Errors
    /// With the way to allow them.
    pub fn command(&self, key: &str) -> Result<(), Problem> {
        if self.commands {
            return Ok(());
        }
        let why = match self.user {
            None => format!(
                "{key} is run by a shell of the service's machine; write it into larder.toml there, or start the service with --allow-commands"
            ),
            Some(_) => format!(
                "{key} is run by a shell of the service's machine, which the administrator does not allow you"
            ),
        };
        Err(Problem {
            field: Some(key.to_owned()),
            ..Problem::forbidden(why)
        })
    }

    /// Refuses a path that is not absolute, or lies outside what is allowed; links are followed as far as they are there.
    ///
    /// # Errors
    /// With what is allowed.
    pub fn path(&self, key: &str, path: &str) -> Result<PathBuf, Problem> {
        let named = Path::new(path);
        let refused = |status: Problem| Problem {
            field: Some(key.to_owned()),
            ..status
        };
        if !named.is_absolute() || path.contains('\0') {
            let why = format!("'{path}' is no absolute path; the service has no folder of its own");
            return Err(refused(Problem::bad(why)));
        }
        if named.components().any(|part| part == Component::ParentDir) {
            let why = format!("'{path}' goes up by '..'; name the folder itself");
            return Err(refused(Problem::bad(why)));
        }
        let real = real(named);
        let is_below = |all: &[PathBuf]| all.iter().any(|allowed| real.starts_with(allowed));
        let is_of_service = self.paths.is_empty() || is_below(&self.paths);
        let is_of_user = self.user.as_ref().is_none_or(|user| {
            let reaches = |closed: &PathBuf| closed.starts_with(&real) || real.starts_with(closed);
            is_below(&user.paths) && !user.closed.iter().any(reaches)
        });
        if is_of_service && is_of_user {
            return Ok(real);
        }
        let allowed = self.paths();
        let allowed = allowed.iter().map(|path| path.display().to_string());
        let allowed = allowed.collect::<Vec<_>>().join(", ");
        let why = match &self.user {
            None => format!("{path} lies outside what the service may use: {allowed}"),
            Some(_) if allowed.is_empty() => {
                "you may use no folder of the service's machine".to_owned()
            }
            Some(_) => format!("{path} lies outside what you may use: {allowed}"),
        };
        Err(refused(Problem::forbidden(why)))
    }

    /// The same for a file that a setting names, where `~/` stands for the home folder.
    ///
    /// # Errors
    /// With what is allowed.
    pub fn file(&self, key: &str, text: &str) -> Result<(), Problem> {
        if self.user.is_some() {
            // What is in it could be another user's secret, or the service's.
            let why = format!(
                "{key} names a file of the service's machine, which settings of users do not; give the secret itself, and it is kept sealed"
            );
            return Err(Problem {
                field: Some(key.to_owned()),
                ..Problem::forbidden(why)
            });
        }
        match (text.strip_prefix("~/"), std::env::home_dir()) {
            // Behind another slash it would lead from the root.
            (Some(rest), Some(home)) if !rest.starts_with('/') => {
                let path = home.join(rest);
                self.path(key, &path.to_string_lossy()).map(drop)
            }
            _ => self.path(key, text).map(drop),
        }
    }

    /// The same for a certificate: a file, unless it stands there itself.
    ///
    /// # Errors
    /// With what is allowed.
    pub fn certificate(&self, key: &str, text: &str) -> Result<(), Problem> {
        match text.contains("-----BEGIN") {
            true => Ok(()),
            false => self.file(key, text),
        }
    }

    /// Refuses a folder as a target: where no paths are named, only an administrator chooses one freely.
    ///
    /// # Errors
    /// With who may, and what is allowed.
    pub fn target(&self, path: &str, scope: Scope) -> Result<(), Problem> {
        self.path("target", path)?;
        self.free_target(scope)
    }

    /// Refuses a target that no path of what is allowed narrows, unless an administrator chose it.
    ///
    /// # Errors
    /// With who may.
    pub fn free_target(&self, scope: Scope) -> Result<(), Problem> {
        if self.user.is_none() && self.paths.is_empty() && !scope.allows(Scope::Admin) {
            return Err(Problem {
                field: Some("target".to_owned()),
                ..Problem::forbidden(
                    "only an admin may restore into any folder or database; start the service with --allow-path to name folders for others",
                )
            });
        }
        Ok(())
    }

    /// Gives the folders that may be used. Nothing means everything for the administrator, and nothing for a user.
    pub fn paths(&self) -> Vec<PathBuf> {
        let Some(user) = &self.user else {
            return self.paths.clone();
        };
        if self.paths.is_empty() {
            return user.paths.clone();
        }
        // Of two that lie within each other the inner one is what is left.
        let inner = |a: &PathBuf, b: &PathBuf| match (a.starts_with(b), b.starts_with(a)) {
            (true, _) => Some(a.clone()),
            (_, true) => Some(b.clone()),
            _ => None,
        };
        let pairs = user.paths.iter();
        let pairs = pairs.flat_map(|own| self.paths.iter().filter_map(move |all| inner(own, all)));
        pairs.collect()
    }

    /// Refuses databases where they are not allowed.
    ///
    /// # Errors
    /// With who may allow them.
    pub fn postgres(&self, key: &str) -> Result<(), Problem> {
        match &self.user {
            Some(user) if !user.postgres => Err(Problem {
                field: Some(key.to_owned()),
                ..Problem::forbidden("the administrator does not allow you databases")
            }),
            _ => Ok(()),
        }
    }

    /// Refuses a source or target that is the URL of a bucket, where only those of locations are.
    ///
    /// # Errors
    /// With what is to be named.
    pub fn bucket_by_url(&self, key: &str) -> Result<(), Problem> {
        match self.user {
            None => Ok(()),
            // The machine's own credentials would open it.
            Some(_) => Err(Problem {
                field: Some(key.to_owned()),
                ..Problem::forbidden("name a location of yours, which has its own credentials")
            }),
        }
    }

    /// Looks at a setting of a location by itself.
    ///
    /// # Errors
    /// With what is not allowed.
    pub fn setting(&self, field: &str, key: &str, text: &str) -> Result<(), Problem> {
        match key {
            "ca-certificate" => self.certificate(field, text),
            key if is_path(key) => self.file(field, text),
            key if self.user.is_some() && OF_MACHINE.contains(&key) => Err(Problem {
                field: Some(field.to_owned()),
                ..Problem::forbidden(format!(
                    "{key} would have the service's machine prove who it is; give credentials of your own"
                ))
            }),
            _ => Ok(()),
        }
    }

    /// Refuses a user's location without credentials: those of the service's machine would be found.
    ///
    /// # Errors
    /// With what is missing.
    pub fn credentials(&self, url: &str, has: &dyn Fn(&str) -> bool) -> Result<(), Problem> {
        if self.user.is_none() {
            return Ok(());
        }
        let (is_whole, needed) = match kind_of(url) {
            Some(Kind::S3) => (
                has("access-key-id") && has("secret-access-key"),
                "access-key-id and secret-access-key",
            ),
            Some(Kind::Gs) => (has("service-account-key"), "service-account-key"),
            Some(Kind::Az) => {
                let is_app = has("tenant-id") && has("client-id") && has("client-secret");
                (
                    is_app || has("access-key") || has("sas-token"),
                    "access-key, sas-token, or tenant-id, client-id and client-secret",
                )
            }
            _ => (true, ""),
        };
        match is_whole {
            true => Ok(()),
            false => Err(Problem::field(
                "settings",
                format!("the location needs credentials of your own: {needed}"),
            )),
        }
    }

    /// Looks at a whole location of a user, as the program shows it: what may be used can be less than when it was made.
    ///
    /// # Errors
    /// With the first thing that is not allowed.
    pub async fn location(&self, shown: &Value) -> Result<(), Problem> {
        if self.user.is_none() {
            return Ok(());
        }
        let url = shown.get("url").and_then(Value::as_str).unwrap_or_default();
        self.place("url", url).await?;
        let settings = shown.get("settings").unwrap_or(&Value::Null);
        self.settings("settings", settings).await?;
        let all = settings.as_object().into_iter().flatten();
        for (key, value) in all {
            let text = value.as_str().unwrap_or_default();
            self.setting(&format!("settings.{key}"), key, text)?;
        }
        self.credentials(url, &|key| settings.get(key).is_some())
    }

    /// Tells whether settings may be shell commands.
    pub fn commands(&self) -> bool {
        self.commands
    }

    /// Looks at where a repository is to be: a URL, or a folder.
    ///
    /// # Errors
    /// As for either.
    pub async fn place(&self, key: &str, text: &str) -> Result<(), Problem> {
        if let Some(user) = &self.user {
            let kind = kind_of(text);
            if !kind.is_some_and(|kind| user.kinds.contains(&kind)) {
                let allowed: Vec<_> = user.kinds.iter().map(|kind| kind.word()).collect();
                let why = format!(
                    "this is no kind of storage that you may use; there are: {}",
                    allowed.join(", ")
                );
                return Err(Problem {
                    field: Some(key.to_owned()),
                    ..Problem::forbidden(why)
                });
            }
        }
        match text.strip_prefix("bundle:") {
            Some(path) => self.path(key, path).map(drop),
            None if is_url(text) => {
                self.url(key, text).await?;
                match text.split_once("://") {
                    Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") => {
                        let rest = rest.strip_prefix("localhost").unwrap_or(rest);
                        let path = percent_decode_str(rest).decode_utf8_lossy();
                        self.links(key, &self.path(key, &path)?)
                    }
                    _ => Ok(()),
                }
            }
            None => self.links(key, &self.path(key, text)?),
        }
    }

    /// Refuses a user's folder of a repository in which a link leads out of what they may use: the program follows links
    /// there, and what it takes for its own it removes.
    fn links(&self, key: &str, folder: &Path) -> Result<(), Problem> {
        if self.user.is_none() {
            return Ok(());
        }
        // Folders of packs lie one below another, and nothing that is followed lies deeper.
        let mut left = vec![(folder.to_owned(), 0)];
        while let Some((folder, depth)) = left.pop() {
            // What cannot be listed, the program tells better.
            let items = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            for item in items {
                let Ok(kind) = item.file_type() else {
                    continue;
                };
                if kind.is_symlink() {
                    self.path(key, &item.path().to_string_lossy())?;
                } else if kind.is_dir() && depth == 0 {
                    left.push((item.path(), depth + 1));
                }
            }
        }
        Ok(())
    }

    /// Refuses a URL whose host is, or is at, a link-local address. A path as a URL is looked at as a path.
    ///
    /// # Errors
    /// With the way to allow it.
    pub async fn url(&self, key: &str, text: &str) -> Result<(), Problem> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let scheme = scheme.to_ascii_lowercase();
        if matches!(scheme.as_str(), "file" | "bundle") {
            // As the program reads it: a URL type would drop what goes up, and decode nothing.
            let rest = rest.strip_prefix("localhost").unwrap_or(rest);
            let path = percent_decode_str(rest).decode_utf8();
            let path = path.map_err(|_| Problem::field(key, "the path of the URL is not UTF-8"))?;
            return self.path(key, &path).map(drop);
        }
        if scheme.starts_with("postgres") {
            if self.user.is_some() {
                parameters_of_user(key, rest)?;
            }
            for host in hosts_of_database(rest) {
                self.host(key, &host, DATABASE_PORT).await?;
            }
            return Ok(());
        }
        let Ok(url) = Url::parse(text) else {
            // The program says better what is wrong with it.
            return Ok(());
        };
        // These name buckets; where they are asked for stands in `endpoint`.
        let is_bucket = matches!(url.scheme(), "s3" | "gs" | "az" | "dropbox");
        let port = url.port_or_known_default().unwrap_or(443);
        match url.host_str().filter(|_| !is_bucket) {
            Some(host) => self.host(key, host, port).await,
            None => Ok(()),
        }
    }

    /// Refuses a host that is, or is at, a link-local address.
    async fn host(&self, key: &str, host: &str, port: u16) -> Result<(), Problem> {
        if self.link_local || !self.is_refused_name(host, port).await {
            return Ok(());
        }
        let way = match self.user {
            None => "; if it is meant, start the service with --allow-link-local",
            Some(_) => "",
        };
        let why = format!(
            "{host} is a link-local address, where clouds give away the credentials of the service's own machine{way}"
        );
        Err(Problem {
            field: Some(key.to_owned()),
            ..Problem::forbidden(why)
        })
    }

    async fn is_refused_name(&self, name: &str, port: u16) -> bool {
        // The program decodes what is escaped in a host.
        let name = percent_decode_str(name).decode_utf8_lossy();
        let name = name.trim_matches(['[', ']']);
        let name = name.split('%').next().unwrap_or_default();
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        // Of schemes that the URL standard does not know, an address stays text.
        if let Ok(address) = name.parse::<IpAddr>() {
            return is_link_local(address);
        }
        if METADATA_NAMES.contains(&name.as_str()) {
            return true;
        }
        match tokio::net::lookup_host((name.as_str(), port)).await {
            Ok(mut found) => found.any(|address| is_link_local(address.ip())),
            // Nothing is reached by a name that nobody knows.
            Err(_) => false,
        }
    }
}

/// Tells whether clouds answer at an address with what belongs to the machine alone.
fn is_link_local(address: IpAddr) -> bool {
    const AWS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address.to_canonical() {
        // Alibaba's lies beside those of all others.
        IpAddr::V4(address) => address.is_link_local() || address.octets() == [100, 100, 100, 200],
        IpAddr::V6(address) => address.is_unicast_link_local() || address == AWS_V6,
    }
}

/// Tells whether a text is a URL, as the program does: what is none is a path, whatever stands in it.
pub fn is_url(text: &str) -> bool {
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(is_of_scheme)
    })
}

/// Tells whether a text is a URL with a host although it is not written as one: `http:host/` and `http:\\host` are.
fn has_host(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.has_host())
}

/// Tells whether a URL is that of a bucket, which can be a source and a target.
pub fn is_of_bucket(url: &str) -> bool {
    ["s3://", "gs://", "az://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

/// Gives the kind of storage that a place is of.
fn kind_of(text: &str) -> Option<Kind> {
    match text.split_once("://") {
        _ if text.starts_with("bundle:") => Some(Kind::Folder),
        Some((scheme, _)) if is_url(text) => Kind::of_scheme(&scheme.to_ascii_lowercase()),
        _ => Some(Kind::Folder),
    }
}

/// Tells whether the value of a setting is the path of a file.
fn is_path(key: &str) -> bool {
    key.ends_with("-file") || matches!(key, "known-hosts" | "application-credentials")
}

/// Gives all hosts of the URL of a database, behind its scheme: there may be several, and its parameters may name others.
fn hosts_of_database(rest: &str) -> Vec<String> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let named = authority.rsplit('@').next().unwrap_or_default();
    let mut hosts: Vec<String> = named.split(',').map(without_port).collect();
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = percent_decode_str(name).decode_utf8_lossy();
        if matches!(name.to_ascii_lowercase().as_str(), "host" | "hostaddr") {
            let value = percent_decode_str(value).decode_utf8_lossy();
            hosts.extend(value.split(',').map(str::to_owned));
        }
    }
    // A folder with a socket is no host.
    hosts.retain(|host| !host.is_empty() && !host.starts_with(['/', '@']));
    hosts
}

/// Refuses parameters of a database's URL that could name a file of the service's machine, such as `passfile` and `sslkey`.
fn parameters_of_user(key: &str, rest: &str) -> Result<(), Problem> {
    const KNOWN: [&str; 14] = [
        "",
        "application_name",
        "channel_binding",
        "connect_timeout",
        "globals",
        "gssencmode",
        "host",
        "hostaddr",
        "options",
        "port",
        "sslmode",
        "sslnegotiation",
        "target_session_attrs",
        "user",
    ];
    let (_, query) = rest.split_once('?').unwrap_or((rest, ""));
    for parameter in query.split('&') {
        let name = parameter.split('=').next().unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8_lossy();
        if !KNOWN.contains(&name.as_ref()) {
            let why = format!("users give no parameter {name} of a database");
            return Err(Problem {
                field: Some(key.to_owned()),
                ..Problem::forbidden(why)
            });
        }
    }
    Ok(())
}

fn without_port(host: &str) -> String {
    let host = percent_decode_str(host).decode_utf8_lossy();
    match (host.find(']'), host.split_once(':')) {
        (Some(end), _) => host.get(..end).unwrap_or_default().to_owned(),
        (None, Some((name, _))) => name.to_owned(),
        (None, None) => host.into_owned(),
    }
}

/// Tells whether a key is of what a shell runs: any hook, whatever it is run before or after.
fn is_command(key: &str) -> bool {
    let is_hook = |when: &str| {
        let rest = key.strip_prefix(when);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    key.ends_with("-command") || key == "commands" || is_hook("before") || is_hook("after")
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Follows links as far as a path is there, and takes the rest as it stands.
pub fn real(path: &Path) -> PathBuf {
    for there in path.ancestors() {
        if let Ok(found) = there.canonicalize() {
            let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
            return match rest.as_os_str().is_empty() {
                true => found,
                false => found.join(rest),
            };
        }
        // A link that leads nowhere yet leads somewhere once that is made.
        if let Ok(target) = there.read_link() {
            let parent = there.parent().unwrap_or(Path::new("/"));
            let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
            let parent = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
            let target = parent.join(target);
            let is_whole = !target.components().any(|part| part == Component::ParentDir);
            // Nothing is allowed below what cannot be told.
            return match is_whole {
                true => target.join(rest),
                false => PathBuf::new(),
            };
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn policy(paths: &[&Path]) -> Policy {
        Policy {
            paths: paths.iter().map(|path| real(path)).collect(),
            commands: false,
            link_local: false,
            user: None,
        }
    }

    /// One of a service that may use all, or only these.
    fn of_user(service: &[&Path], own: &[&Path], change: impl FnOnce(&mut OfUser)) -> Policy {
        let mut user = OfUser {
            paths: own.iter().map(|path| real(path)).collect(),
            closed: Vec::new(),
            kinds: vec![Kind::Folder, Kind::S3],
            postgres: false,
        };
        change(&mut user);
        Policy {
            user: Some(user),
            ..policy(service)
        }
    }

    #[test]
    fn a_user_may_never_use_more_than_the_service() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["srv/ann", "srv/bob", "home/ann"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::os::unix::fs::symlink(at("srv/bob"), at("srv/ann/way")).unwrap();
        let may =
            |policy: &Policy, path: &str| policy.path("x", at(path).to_str().unwrap()).is_ok();
        let nothing = of_user(&[], &[], |_| {});
        assert!(!may(&nothing, "srv/ann") && nothing.paths().is_empty());
        let one = of_user(&[&at("srv")], &[&at("srv/ann"), &at("home/ann")], |_| {});
        assert!(may(&one, "srv/ann") && may(&one, "srv/ann/new/folder"));
        for path in [
            "srv",
            "srv/bob",
            "srv/annabel",
            "home/ann",
            "srv/ann/way",
            "srv/ann/way/x",
        ] {
            assert!(!may(&one, path), "{path}");
        }
        assert_eq!(one.paths(), [real(&at("srv/ann"))]);
        let wide = of_user(&[&at("srv/ann")], &[&at("srv")], |_| {});
        assert!(may(&wide, "srv/ann") && !may(&wide, "srv/bob"));
        // What the service keeps stays closed, whatever is allowed around it.
        let closed = of_user(&[], &[&at("srv")], |user| {
            user.closed = vec![real(&at("srv/bob"))]
        });
        assert!(may(&closed, "srv/ann") && !may(&closed, "srv/bob/x") && !may(&closed, "srv"));
        // Options are narrowed, never widened.
        let options = |commands| Options {
            program: PathBuf::new(),
            globals: Vec::new(),
            version: "1",
            documents: &[],
            config: None,
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            allow_plain_http: false,
            data: PathBuf::new(),
            allow_paths: Vec::new(),
            allow_commands: commands,
            allow_link_local: true,
            patience: std::time::Duration::ZERO,
        };
        let limits = Limits {
            commands: true,
            ..Limits::default()
        };
        let may_run = |commands, limits: &Limits| {
            Policy::of_user(&options(commands), limits, &[])
                .command("before")
                .is_ok()
        };
        assert!(may_run(true, &limits) && !may_run(false, &limits));
        assert!(!may_run(true, &Limits::default()));
        assert!(!Policy::of_user(&options(true), &limits, &[]).link_local);
    }

    #[test]
    fn a_user_names_neither_files_nor_the_credentials_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let user = of_user(&[], &[folder.path()], |_| {});
        for key in [
            "password-file",
            "identity-file",
            "known-hosts",
            "application-credentials",
            "web-identity-token-file",
            "ca-certificate",
            "agent",
            "managed-identity",
            "profile",
        ] {
            assert_eq!(
                user.setting("x", key, path).unwrap_err().status,
                403,
                "{key}"
            );
        }
        user.setting("x", "ca-certificate", "-----BEGIN CERTIFICATE-----")
            .unwrap();
        user.setting("x", "region", "eu").unwrap();
        let place = |url: &str| block_on(user.place("url", url)).is_ok();
        assert!(place(path) && place("s3://bucket/x") && place("S3://bucket"));
        for url in [
            "gs://bucket",
            "ftp://127.0.0.1",
            "what://x",
            "bundle:/etc/x",
            "file:///etc",
            "/etc",
        ] {
            assert!(!place(url), "{url}");
        }
        assert!(
            !of_user(&[], &[folder.path()], |user| user.kinds = vec![Kind::S3])
                .paths()
                .is_empty()
        );
        let closed = of_user(&[], &[folder.path()], |user| user.kinds = vec![Kind::S3]);
        assert!(block_on(closed.place("url", path)).is_err());
        assert!(user.postgres("x").is_err() && user.bucket_by_url("x").is_err());
        let has = |all: &'static [&'static str]| move |key: &str| all.contains(&key);
        for (url, missing, whole) in [
            (
                "s3://b",
                &["access-key-id"][..],
                &["access-key-id", "secret-access-key"][..],
            ),
            ("gs://b", &[], &["service-account-key"]),
            ("az://b", &["client-id", "tenant-id"], &["sas-token"]),
        ] {
            assert!(user.credentials(url, &has(missing)).is_err(), "{url}");
            user.credentials(url, &has(whole)).unwrap();
            policy(&[]).credentials(url, &has(&[])).unwrap();
        }
        let shown = json!({"url": "s3://b", "settings": {"access-key-id": "A", "secret-access-key": "********"}});
        block_on(user.location(&shown)).unwrap();
        for (key, value) in [
            ("region-command", "x"),
            ("endpoint", "http://169.254.169.254/"),
            ("profile", "x"),
        ] {
            let mut shown = shown.clone();
            shown["settings"][key] = json!(value);
            assert!(block_on(user.location(&shown)).is_err(), "{key}");
            block_on(policy(&[]).location(&shown)).unwrap();
        }
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(work)
    }

    #[test]
    fn a_path_stays_in_what_is_allowed_whatever_links_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(inside.join("a")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("away")).unwrap();
        std::os::unix::fs::symlink(outside.join("later"), inside.join("nowhere")).unwrap();
        std::os::unix::fs::symlink("../out/later", inside.join("up")).unwrap();
        let policy = policy(&[&inside]);
        let allowed = |name: &str| {
            let path = inside.join(name);
            policy.path("target", path.to_str().unwrap()).is_ok()
        };
        assert!(allowed("") && allowed("a") && allowed("a/new/folder"));
        for name in [
            "away",
            "away/x",
            "nowhere",
            "nowhere/x",
            "up",
            "up/x",
            "a/../../out",
            "../out",
        ] {
            assert!(!allowed(name), "{name}");
        }
        assert!(policy.path("x", outside.to_str().unwrap()).is_err());
        assert!(policy.path("x", &format!("{}x", inside.display())).is_err());
        for path in ["relative", "", "/a\0b"] {
            assert_eq!(policy.path("x", path).unwrap_err().status, 400, "{path}");
        }
    }

    #[test]
    fn a_path_that_is_written_as_something_else_is_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let policy = policy(&[folder.path()]);
        let inside = folder.path().display();
        let status = |text: String| {
            let placed = block_on(policy.place("url", &text));
            placed.map_or_else(|refused| refused.status.as_u16(), |()| 200)
        };
        assert_eq!(status(format!("{inside}/a")), 200);
        assert_eq!(status(format!("file://{inside}/a%20b")), 200);
        assert_eq!(status(format!("file://localhost{inside}/a")), 200);
        assert_eq!(status(format!("bundle:{inside}/a")), 200);
        assert_eq!(status("/out://repo".to_owned()), 403);
        assert_eq!(status("FILE:///out".to_owned()), 403);
        assert_eq!(status("file:///%6fut".to_owned()), 403);
        for up in ["..%2f..%2fetc", "%2e%2e/etc", "../etc"] {
            assert_eq!(status(format!("file://{inside}/{up}")), 400, "{up}");
        }
        assert!(is_url("s3://b") && is_url("postgres+basebackup://h"));
        assert!(!is_url("/a://b") && !is_url("://b") && !is_url("1a://b") && !is_url("a"));
    }

    #[test]
    fn a_file_of_the_home_folder_is_looked_at_too() {
        let folder = tempfile::tempdir().unwrap();
        let closed = policy(&[folder.path()]);
        assert_eq!(closed.file("x", "~/.ssh/id").unwrap_err().status, 403);
        assert_eq!(closed.file("x", "~/../x").unwrap_err().status, 400);
        assert_eq!(closed.certificate("x", "/etc/x").unwrap_err().status, 403);
        closed
            .certificate("x", "-----BEGIN CERTIFICATE-----")
            .unwrap();
        let home = std::env::home_dir().unwrap();
        let open = policy(&[&home]);
        open.file("x", "~/.ssh/id").unwrap();
        assert_eq!(open.file("x", "~//etc/x").unwrap_err().status, 400);
    }

    #[test]
    fn only_an_admin_restores_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let open = policy(&[]);
        assert!(open.target(path, Scope::Admin).is_ok());
        assert_eq!(open.target(path, Scope::Operate).unwrap_err().status, 403);
        assert_eq!(open.free_target(Scope::Operate).unwrap_err().status, 403);
        assert!(open.free_target(Scope::Admin).is_ok());
        let closed = policy(&[folder.path()]);
        assert!(closed.target(path, Scope::Operate).is_ok());
        assert_eq!(closed.target("/etc", Scope::Admin).unwrap_err().status, 403);
    }

    #[test]
    fn a_url_does_not_reach_what_belongs_to_the_machine() {
        let policy = policy(&[]);
        for url in [
            "http://169.254.169.254/latest",
            "http://[fe80::1]/x",
            "http://[fd00:ec2::254]/x",
            "http://[::ffff:169.254.169.254]/x",
            "http://100.100.100.200/x",
            "http://2852039166/x",
            "ftp://169.254.169.254/x",
            "sftp://me@169.254.1.1/x",
            "webdavs://METADATA.google.internal./x",
            "sftp://%31%36%39.254.169.254/x",
            "sftp://[fe80::1]/x",
            "postgres://169.254.169.254/db",
            "postgres://me@127.0.0.1:1,169.254.169.254:5432/db",
            "postgres://[fe80::1]:5432/db",
            "postgres:///db?host=169.254.169.254",
            "postgres://127.0.0.1/db?sslmode=require&h%6fstaddr=127.0.0.1,169%2e254.169.254",
            "postgres+basebackup://169.254.169.254",
        ] {
            let refused = block_on(policy.url("url", url)).unwrap_err();
            assert_eq!(refused.status, 403, "{url}");
        }
        for url in [
            "http://127.0.0.1:9000/x",
            "s3://bucket/x",
            "http://10.0.0.1",
            "postgres:///db?host=/run/pg",
            "postgres://me@127.0.0.1,127.0.0.2:5433/db",
            "no url",
        ] {
            block_on(policy.url("url", url)).unwrap();
        }
        let settings = json!({"webhook": "http://169.254.169.254/", "every": 1});
        let refused = block_on(policy.settings("settings", &settings)).unwrap_err();
        assert_eq!(refused.field.unwrap(), "settings.webhook");
        for server in ["169.254.169.254:25", "[fe80::1]"] {
            let settings = json!({"mail": {"server": server}});
            let refused = block_on(policy.settings("settings", &settings)).unwrap_err();
            assert_eq!(refused.field.unwrap(), "settings.mail.server");
        }
        for url in [
            "http:169.254.169.254/latest",
            "http:/169.254.169.254/latest",
            "http:\\\\169.254.169.254\\latest",
            "ht\ntp:169.254.169.254",
            " http:169.254.169.254",
        ] {
            let settings = json!({"webhook": url});
            assert!(
                block_on(policy.settings("settings", &settings)).is_err(),
                "{url}"
            );
        }
        let settings = json!({"mail": {"server": "127.0.0.1:25"}});
        block_on(policy.settings("settings", &settings)).unwrap();
    }

    #[test]
    fn commands_are_refused_in_whatever_depth() {
        let policy = policy(&[]);
        for settings in [
            json!({"before": ["x"]}),
            json!({"before-source": ["x"]}),
            json!({"after-source-failure": ["x"]}),
            json!({"notify-command": "x"}),
            json!({"password-command": "x"}),
            json!({"inner": {"secret-access-key-command": "x"}}),
            json!({"commands": [{"name": "a", "command": "b"}]}),
        ] {
            let refused = block_on(policy.settings("settings", &settings)).unwrap_err();
            assert_eq!(refused.status, 403, "{settings}");
        }
        for settings in [
            json!({"before": null}),
            json!({"commands": []}),
            json!({"a": "b"}),
        ] {
            block_on(policy.settings("settings", &settings)).unwrap();
        }
    }
}
