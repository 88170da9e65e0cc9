//! What a request may name: paths, URLs, and settings that are commands.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use url::{Host, Url};

use crate::Options;
use crate::problem::Problem;
use crate::tokens::Scope;

/// Keys of jobs whose values are run by a shell.
const COMMANDS: [&str; 6] = [
    "before",
    "after",
    "after-success",
    "after-failure",
    "notify-command",
    "commands",
];
/// Names under which clouds answer with a machine's own credentials.
const METADATA_NAMES: [&str; 3] = [
    "metadata.google.internal",
    "metadata.goog",
    "instance-data.ec2.internal",
];

/// What the administrator allows.
#[derive(Debug, Clone)]
pub struct Policy {
    paths: Vec<PathBuf>,
    commands: bool,
    link_local: bool,
}

impl Policy {
    /// Takes what the service was started with.
    pub fn new(options: &Options) -> Self {
        let paths = options.allow_paths.iter();
        Self {
            paths: paths.map(|path| real(path)).collect(),
            commands: options.allow_commands,
            link_local: options.allow_link_local,
        }
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
                Value::String(text) if text.contains("://") => self.url(&key, text).await?,
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
        let why = format!(
            "{key} is run by a shell of the service's machine; write it into larder.toml there, or start the service with --allow-commands"
        );
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
        if self.paths.is_empty() || self.paths.iter().any(|allowed| real.starts_with(allowed)) {
            return Ok(real);
        }
        let allowed = self.paths.iter().map(|path| path.display().to_string());
        let allowed = allowed.collect::<Vec<_>>().join(", ");
        let why = format!("{path} lies outside what the service may use: {allowed}");
        Err(refused(Problem::forbidden(why)))
    }

    /// Refuses a folder as a target: where no paths are named, only an administrator chooses one freely.
    ///
    /// # Errors
    /// With who may, and what is allowed.
    pub fn target(&self, path: &str, scope: Scope) -> Result<(), Problem> {
        self.path("target", path)?;
        if self.paths.is_empty() && !scope.allows(Scope::Admin) {
            return Err(Problem {
                field: Some("target".to_owned()),
                ..Problem::forbidden(
                    "only an admin may restore into any folder; start the service with --allow-path to name folders for others",
                )
            });
        }
        Ok(())
    }

    /// Gives what the service may use; nothing means everything.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
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
        match text.strip_prefix("bundle:") {
            Some(path) => self.path(key, path).map(drop),
            None if text.contains("://") => self.url(key, text).await,
            None => self.path(key, text).map(drop),
        }
    }

    /// Refuses a URL whose host is, or is at, a link-local address. A path as a URL is looked at as a path.
    ///
    /// # Errors
    /// With the way to allow it.
    pub async fn url(&self, key: &str, text: &str) -> Result<(), Problem> {
        let Ok(url) = Url::parse(text) else {
            // The program says better what is wrong with it.
            return Ok(());
        };
        if matches!(url.scheme(), "file" | "bundle") {
            let path = url.path().to_owned();
            return self.path(key, &path).map(drop);
        }
        // These name buckets; where they are asked for stands in `endpoint`.
        let is_bucket = matches!(url.scheme(), "s3" | "gs" | "az" | "dropbox");
        if self.link_local || is_bucket {
            return Ok(());
        }
        let port = url.port_or_known_default().unwrap_or(443);
        let is_refused = match url.host() {
            None => false,
            Some(Host::Ipv4(address)) => is_link_local(address.into()),
            Some(Host::Ipv6(address)) => is_link_local(address.into()),
            Some(Host::Domain(name)) => self.is_refused_name(name, port).await,
        };
        if is_refused {
            let host = url.host_str().unwrap_or_default();
            let why = format!(
                "{host} is a link-local address, where clouds give away the credentials of the service's own machine; \
                 if it is meant, start the service with --allow-link-local"
            );
            return Err(Problem {
                field: Some(key.to_owned()),
                ..Problem::forbidden(why)
            });
        }
        Ok(())
    }

    async fn is_refused_name(&self, name: &str, port: u16) -> bool {
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

fn is_command(key: &str) -> bool {
    key.ends_with("-command") || COMMANDS.contains(&key)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Follows links as far as a path is there, and takes the rest as it stands.
fn real(path: &Path) -> PathBuf {
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
    fn only_an_admin_restores_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let open = policy(&[]);
        assert!(open.target(path, Scope::Admin).is_ok());
        assert_eq!(open.target(path, Scope::Operate).unwrap_err().status, 403);
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
        ] {
            let refused = block_on(policy.url("url", url)).unwrap_err();
            assert_eq!(refused.status, 403, "{url}");
        }
        for url in [
            "http://127.0.0.1:9000/x",
            "s3://bucket/x",
            "http://10.0.0.1",
            "no url",
        ] {
            block_on(policy.url("url", url)).unwrap();
        }
        let settings = json!({"webhook": "http://169.254.169.254/", "every": 1});
        let refused = block_on(policy.settings("settings", &settings)).unwrap_err();
        assert_eq!(refused.field.unwrap(), "settings.webhook");
    }

    #[test]
    fn commands_are_refused_in_whatever_depth() {
        let policy = policy(&[]);
        for settings in [
            json!({"before": ["x"]}),
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
