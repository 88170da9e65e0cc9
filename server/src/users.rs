//! Users: who has locations and jobs of their own, and what they may use.
//!
//! Each has a folder below `users/` in the service's own: a larder.toml, passwords, tokens, runs, history, caches and the audit
//! log lie there, and what is run for them is run with that folder as its home. The administrator has what lies outside.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data;
use crate::policy::real;
use crate::problem::Problem;
use crate::runs;
use crate::shared::Shared;
use crate::tokens::Tokens;

/// The most characters of a user's name.
const NAME_MAX: usize = 32;

/// A kind of storage.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "StorageKind")]
pub enum Kind {
    /// A folder of the service's machine, or a bundle in one.
    Folder,
    /// S3 and its compatibles.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// SFTP.
    Sftp,
    /// FTP, with TLS or without.
    Ftp,
    /// WebDAV, with TLS or without.
    WebDav,
    /// Dropbox.
    Dropbox,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Folder,
        Self::S3,
        Self::Gs,
        Self::Az,
        Self::Sftp,
        Self::Ftp,
        Self::WebDav,
        Self::Dropbox,
    ];

    /// Gives its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
            Self::Sftp => "sftp",
            Self::Ftp => "ftp",
            Self::WebDav => "webdav",
            Self::Dropbox => "dropbox",
        }
    }

    /// Finds the one of a name.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Finds the one of a scheme of URLs.
    pub fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "file" | "bundle" => Some(Self::Folder),
            "ftps" => Some(Self::Ftp),
            "webdavs" => Some(Self::WebDav),
            scheme => Self::of_word(scheme).filter(|kind| *kind != Self::Folder),
        }
    }
}

/// What a user may use; never more than the service itself may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Folders below which sources, repositories in folders, and targets of restores have to lie; none of them without one.
    pub paths: Vec<String>,
    /// Where repositories may be.
    pub kinds: Vec<Kind>,
    /// Whether hooks and other shell commands may be set: they are run as the account of the service.
    pub commands: bool,
    /// Whether databases of PostgreSQL may be backed up and restored.
    pub postgres: bool,
    /// The most bytes of all repositories together, as they were last measured; a run is not begun beyond it.
    pub bytes_max: Option<u64>,
    /// The most locations.
    pub locations_max: Option<u64>,
    /// The most jobs.
    pub jobs_max: Option<u64>,
    /// The most runs at a time.
    pub runs_max: Option<u64>,
}

/// What is left of a user who was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Removed {
    /// Who it was.
    pub user: String,
    /// Where their larder.toml, passwords and history lie now. Their repositories are where they were.
    pub kept_in: String,
}

/// All users. The command line may change them while the service is run.
#[derive(Debug)]
pub struct Users {
    data: PathBuf,
    closed: Vec<PathBuf>,
    all: Shared<BTreeMap<String, Limits>>,
}

impl Users {
    /// Reads them from the service's folder, which is made where it is missing; no user's path may reach it, nor any of these
    /// others, such as the administrator's larder.toml.
    ///
    /// # Errors
    /// When the folder cannot be made, or the file cannot be read or understood.
    pub fn open(data: &Path, others: &[PathBuf]) -> std::io::Result<Self> {
        data::make_folder(data)?;
        let closed = [&[data.to_owned()], others].concat();
        Ok(Self {
            data: data.to_owned(),
            closed: closed.iter().map(|path| real(path)).collect(),
            all: Shared::open(data.join("users.json"))?,
        })
    }

    /// Gives all of them, by name.
    pub fn list(&self) -> BTreeMap<String, Limits> {
        self.all.read()
    }

    /// Gives the folder of one.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.data.join("users").join(name)
    }

    /// Gives what no user's path may reach.
    pub fn closed(&self) -> &[PathBuf] {
        &self.closed
    }

    /// Gives what one may use.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(&self, name: &str) -> Result<Limits, Problem> {
        self.list().remove(name).ok_or_else(|| missing(name))
    }

    /// Gives the tokens of one, or those of the administrator.
    ///
    /// # Errors
    /// When there is no such user, or the tokens cannot be read.
    pub fn tokens(&self, name: Option<&str>) -> Result<Tokens, Problem> {
        let folder = match name {
            None => self.data.clone(),
            Some(name) => {
                self.find(name)?;
                self.folder(name)
            }
        };
        let tokens = Tokens::open(folder.join("tokens.json"), name.is_none());
        tokens.map_err(|error| Problem::internal(format!("cannot read the tokens: {error}")))
    }

    /// Adds a user.
    ///
    /// # Errors
    /// When the name is none or taken, a limit makes no sense, or nothing can be written.
    pub fn add(&self, name: &str, limits: Limits) -> Result<(), Problem> {
        if !is_name(name) {
            let why = format!(
                "a user's name begins with a small letter, and has small letters, digits, '-' and '_', {NAME_MAX} at most"
            );
            return Err(Problem::field("name", why));
        }
        self.refuse(&limits)?;
        self.all.change(|all| {
            if all.contains_key(name) {
                let why =
                    format!("there is a user {name} already; change it, or choose another name");
                return Err(Problem::conflict(why));
            }
            let made = data::make_folder(&self.folder(name));
            made.map_err(|error| {
                Problem::internal(format!("cannot make the folder of {name}: {error}"))
            })?;
            all.insert(name.to_owned(), limits);
            Ok(())
        })
    }

    /// Changes what a user may use.
    ///
    /// # Errors
    /// When there is none of that name, a limit makes no sense, or nothing can be written.
    pub fn edit(
        &self,
        name: &str,
        work: impl FnOnce(&mut Limits) -> Result<(), Problem>,
    ) -> Result<Limits, Problem> {
        self.all.change(|all| {
            let limits = all.get_mut(name).ok_or_else(|| missing(name))?;
            work(limits)?;
            self.refuse(limits)?;
            Ok(limits.clone())
        })
    }

    /// Removes a user who has no run, and puts their folder aside: the passwords in it may be the only ones there are.
    ///
    /// # Errors
    /// When there is none of that name, something is run for them, or nothing can be written.
    pub fn remove(&self, name: &str, now: Timestamp) -> Result<Removed, Problem> {
        let folder = self.folder(name);
        self.all.change(|all| {
            if all.remove(name).is_none() {
                return Err(missing(name));
            }
            let running = runs::running_in(&folder.join("runs"));
            if running > 0 {
                let why = format!(
                    "{name} has {running} run{}; cancel, or wait, and remove the user then",
                    if running == 1 { "" } else { "s" }
                );
                return Err(Problem::conflict(why));
            }
            let aside = self.data.join("removed");
            let kept = aside.join(format!("{name}-{}", now.strftime("%Y%m%dT%H%M%S%.3fZ")));
            let moved = data::remove(&folder.join("tokens.json"))
                .and_then(|()| data::make_folder(&aside))
                .and_then(|()| std::fs::rename(&folder, &kept));
            moved.map_err(|error| {
                Problem::internal(format!("cannot put the folder of {name} aside: {error}"))
            })?;
            Ok(Removed {
                user: name.to_owned(),
                kept_in: kept.display().to_string(),
            })
        })
    }

    fn refuse(&self, limits: &Limits) -> Result<(), Problem> {
        for path in &limits.paths {
            let named = Path::new(path);
            let goes_up = named.components().any(|part| part == Component::ParentDir);
            if !named.is_absolute() || goes_up || path.contains('\0') {
                let why = format!("'{path}' is no absolute path without '..'");
                return Err(Problem::field("paths", why));
            }
            let found = real(named);
            let reaches =
                |closed: &&PathBuf| closed.starts_with(&found) || found.starts_with(closed);
            if let Some(closed) = self.closed.iter().find(reaches) {
                let why = format!(
                    "{path} reaches {}, where secrets of the service and of all users lie; name folders beside it",
                    closed.display()
                );
                return Err(Problem::field("paths", why));
            }
        }
        match limits.kinds.is_empty() {
            false => Ok(()),
            true => {
                let all = Kind::ALL.map(Kind::word).join(", ");
                let why = format!("name at least one kind of storage; there are {all}");
                Err(Problem::field("kinds", why))
            }
        }
    }
}

impl Limits {
    /// Gives a user as it is shown.
    pub fn shown(&self, name: &str) -> Value {
        let mut shown = serde_json::json!(self);
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("name".to_owned(), name.into());
        }
        shown
    }
}

fn missing(name: &str) -> Problem {
    Problem::missing(format!("there is no user {name}"))
}

/// Tells whether a text may be a user's name: it is the name of a folder, and in a metric.
fn is_name(text: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    begins && text.len() <= NAME_MAX && text.chars().all(is_of_name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::tokens::Scope;

    fn limits(path: &Path) -> Limits {
        Limits {
            paths: vec![path.to_str().unwrap().to_owned()],
            kinds: vec![Kind::Folder],
            ..Limits::default()
        }
    }

    #[test]
    fn users_are_added_changed_and_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("serve");
        let mine = folder.path().join("mine");
        let users = Users::open(&data, &[]).unwrap();
        users.add("ann", limits(&mine)).unwrap();
        assert_eq!(users.add("ann", limits(&mine)).unwrap_err().status, 409);
        for wrong in ["", "Ann", "a/b", "..", "-a", "a b", &"a".repeat(33)] {
            assert_eq!(
                users.add(wrong, limits(&mine)).unwrap_err().status,
                400,
                "{wrong}"
            );
        }
        // Another run of the program sees it.
        let others = Users::open(&data, &[]).unwrap();
        let set = |limits: &mut Limits| {
            limits.jobs_max = Some(3);
            Ok(())
        };
        others.edit("ann", set).unwrap();
        assert_eq!(users.find("ann").unwrap().jobs_max, Some(3));
        assert_eq!(users.edit("bob", set).unwrap_err().status, 404);
        let tokens = users.tokens(Some("ann")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        tokens.add("x", Scope::Admin, None, now).unwrap();
        assert!(users.tokens(None).unwrap().is_empty());
        std::fs::write(users.folder("ann").join("larder.toml"), "x").unwrap();
        let removed = others.remove("ann", now).unwrap();
        assert_eq!(users.find("ann").unwrap_err().status, 404);
        let kept = Path::new(&removed.kept_in);
        assert!(kept.join("larder.toml").is_file() && !kept.join("tokens.json").exists());
        // Whoever is called so later has nothing of it.
        users.add("ann", limits(&mine)).unwrap();
        assert!(!users.folder("ann").join("larder.toml").exists());
    }

    #[test]
    fn no_path_of_a_user_reaches_what_the_service_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("state/serve");
        let config = folder.path().join("etc/larder.toml");
        let users = Users::open(&data, &[config]).unwrap();
        std::fs::create_dir(folder.path().join("mine")).unwrap();
        std::os::unix::fs::symlink(&data, folder.path().join("mine/way")).unwrap();
        for path in [
            "",
            "state",
            "state/serve",
            "state/serve/users/bob",
            "etc",
            "mine/way",
        ] {
            let refused = users.add("ann", limits(&folder.path().join(path)));
            assert_eq!(refused.unwrap_err().field.unwrap(), "paths", "{path}");
        }
        for path in ["x/y", "/a/../b"] {
            assert!(users.add("ann", limits(Path::new(path))).is_err(), "{path}");
        }
        let none = Limits::default();
        assert_eq!(users.add("ann", none).unwrap_err().field.unwrap(), "kinds");
        users
            .add("ann", limits(&folder.path().join("mine")))
            .unwrap();
    }

    #[test]
    fn kinds_are_those_of_urls() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_word(kind.word()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
        assert_eq!(Kind::of_scheme("webdavs"), Some(Kind::WebDav));
        assert_eq!(Kind::of_scheme("folder"), None);
        assert_eq!(Kind::of_scheme("http"), None);
    }
}
