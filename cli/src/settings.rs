//! larder.toml: the defaults that a person writes down once.
//!
//! Flags win over the environment, and the environment over the file.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use larder_engine::storage::location::nearest::nearest;
use larder_engine::storage::location::place;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use crate::jobs::Jobs;
use crate::locations::{self, Locations};
use crate::sealing;
use crate::streams::NamedCommand;

/// Looks an environment variable up; an empty one counts as unset.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's own environment.
#[must_use]
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// What larder.toml may say.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The file that says it; none if there is none and no place for one.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Where the repository is: a location's name, a path or a URL.
    pub repository: Option<String>,
    /// The passphrase itself.
    pub password: Option<SecretText>,
    /// A file that holds the passphrase.
    pub password_file: Option<PathBuf>,
    /// A shell command that prints the passphrase.
    pub password_command: Option<String>,
    /// A file that holds a raw key.
    pub key_file: Option<PathBuf>,
    /// Where local caches live.
    pub cache_dir: Option<PathBuf>,
    /// Threads for CPU work.
    pub threads: Option<usize>,
    /// Whether a progress bar is shown on a terminal.
    pub progress: Option<bool>,
    /// Defaults of `larder backup`.
    pub backup: BackupSettings,
    /// Defaults of `larder forget`.
    pub forget: ForgetSettings,
    /// Names for places.
    pub locations: Locations,
    /// What is backed up by itself.
    pub jobs: Jobs,
}

/// Defaults of `larder backup`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct BackupSettings {
    /// What is backed up when no source is named.
    pub sources: Vec<PathBuf>,
    /// Commands whose output is backed up besides.
    pub commands: Vec<NamedCommand>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// The same, whatever the case.
    pub iexclude: Vec<String>,
    /// Files of patterns.
    pub exclude_file: Vec<PathBuf>,
    /// Files of case-insensitive patterns.
    pub iexclude_file: Vec<PathBuf>,
    /// Name of the per-folder ignore files.
    pub ignore_file: Option<String>,
    /// Folders that hold such a file are left out.
    pub exclude_if_present: Vec<String>,
    /// Folders with a CACHEDIR.TAG are left out.
    pub exclude_caches: Option<bool>,
    /// Larger files are left out.
    pub exclude_larger_than: Option<String>,
    /// Other file systems are not entered.
    pub one_file_system: Option<bool>,
    /// Tags of the snapshot.
    pub tag: Vec<String>,
    /// Host name of the snapshot.
    pub host: Option<String>,
    /// Does not compare ctime.
    pub ignore_ctime: Option<bool>,
    /// Does not compare inodes.
    pub ignore_inode: Option<bool>,
    /// Keeps atime.
    pub with_atime: Option<bool>,
    /// Reads block devices and named pipes.
    pub read_special: Option<bool>,
    /// Makes no snapshot if nothing changed.
    pub skip_if_unchanged: Option<bool>,
    /// `off`, `auto`, or a level of zstd.
    pub compression: Option<String>,
    /// Whether small chunks share blocks.
    pub solid: Option<bool>,
    /// Does not open blocks before they are uploaded.
    pub no_verify_blocks: Option<bool>,
    /// Time between checkpoints.
    pub checkpoint_interval: Option<String>,
    /// Commands that are run first.
    pub before: Vec<String>,
    /// Commands that are run at the end.
    pub after: Vec<String>,
    /// Commands that are run once the snapshot is made.
    pub after_success: Vec<String>,
    /// Commands that are run if none was made.
    pub after_failure: Vec<String>,
    /// Commands that are run before each source.
    pub before_source: Vec<String>,
    /// Commands that are run after each source.
    pub after_source: Vec<String>,
    /// Commands that are run after each source that was read.
    pub after_source_success: Vec<String>,
    /// Commands that are run after each source that was not.
    pub after_source_failure: Vec<String>,
    /// How long one of them may take.
    pub hook_timeout: Option<String>,
    /// A shell command that prints the password of PostgreSQL servers.
    pub postgres_password_command: Option<String>,
}

/// Defaults of `larder forget`; counts of -1 keep all.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ForgetSettings {
    /// The newest snapshots.
    pub keep_last: Option<i64>,
    /// The newest of each hour.
    pub keep_hourly: Option<i64>,
    /// The newest of each day.
    pub keep_daily: Option<i64>,
    /// The newest of each week.
    pub keep_weekly: Option<i64>,
    /// The newest of each month.
    pub keep_monthly: Option<i64>,
    /// The newest of each quarter.
    pub keep_quarterly: Option<i64>,
    /// The newest of each year.
    pub keep_yearly: Option<i64>,
    /// All that are so near to the newest.
    pub keep_within: Option<String>,
    /// Of those, the newest of each hour.
    pub keep_within_hourly: Option<String>,
    /// Of those, the newest of each day.
    pub keep_within_daily: Option<String>,
    /// Of those, the newest of each week.
    pub keep_within_weekly: Option<String>,
    /// Of those, the newest of each month.
    pub keep_within_monthly: Option<String>,
    /// Of those, the newest of each quarter.
    pub keep_within_quarterly: Option<String>,
    /// Of those, the newest of each year.
    pub keep_within_yearly: Option<String>,
    /// What has all tags of one of these lists.
    pub keep_tag: Vec<String>,
    /// What is younger.
    pub keep_minimum_age: Option<String>,
    /// What makes snapshots one group.
    pub group_by: Option<String>,
    /// The zone of days and hours.
    pub time_zone: Option<String>,
}

/// A secret in larder.toml, which is never shown and is wiped when it is dropped.
#[derive(Clone)]
pub enum SecretText {
    /// It stands there itself.
    Clear(Zeroizing<String>),
    /// It stands there sealed.
    Sealed(String),
}

/// How it may stand there.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a secret is text, or { sealed = \"...\" }")]
enum SecretForm {
    Clear(String),
    Sealed(Sealed),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    sealed: String,
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SecretForm::deserialize(deserializer)? {
            SecretForm::Clear(text) => Ok(Self::Clear(Zeroizing::new(text))),
            SecretForm::Sealed(Sealed { sealed }) => match sealing::refuse_form(&sealed) {
                Some(why) => Err(serde::de::Error::custom(why)),
                None => Ok(Self::Sealed(sealed)),
            },
        }
    }
}

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(secret)")
    }
}

impl Settings {
    /// Tells whether a source or target names something other than a path: by its URL, or by the name
    /// of a location that is no folder.
    #[must_use]
    pub fn is_bucket(&self, named: &Path) -> bool {
        let Some(named) = named.to_str() else {
            return false;
        };
        let table = self.locations.0.get(named);
        let url = table.map_or(named, |table| table.url.as_str());
        place::parse(url).map_or_else(
            |_| url.contains("://"),
            |place| url.contains("://") && place.folder().is_none(),
        )
    }

    /// Gives the path that a source or target means: that of a `file://` URL, else itself.
    ///
    /// # Errors
    /// When it is a URL and none of a folder, so that it would be taken for the name of one.
    pub fn path(&self, named: &Path) -> anyhow::Result<PathBuf> {
        let text = named.to_str().filter(|text| text.contains("://"));
        let Some(text) = text.filter(|text| has_scheme(text)) else {
            return Ok(named.to_owned());
        };
        let place = place::parse(text).map_err(anyhow::Error::msg)?;
        place
            .folder()
            .with_context(|| format!("{text} is a URL and no path"))
    }

    /// Loads the file that the flag or `LARDER_CONFIG` names, else the usual one if it is there.
    ///
    /// # Errors
    /// When the named file is not there although it `must_exist`, or a file cannot be read or
    /// understood.
    pub fn load(flag: Option<&Path>, must_exist: bool, env: Env) -> anyhow::Result<Self> {
        let named = flag
            .map(Path::to_owned)
            .or(env("LARDER_CONFIG").map(PathBuf::from));
        let Some(path) = named.clone().or_else(|| usual_path(env)) else {
            return Ok(Self::default());
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if (named.is_none() || !must_exist) && is_absent(&error) => {
                return Ok(Self {
                    file: Some(path),
                    ..Self::default()
                });
            }
            Err(error) => {
                let tried = format!("cannot read the settings in {}", path.display());
                return Err(error).context(tried);
            }
        };
        let settings = Self::read(&text, &path, env)?;
        settings.warn_of_open_permissions(&path);
        Ok(settings)
    }

    /// Reads the text of a settings file, whose paths are relative to its folder.
    ///
    /// # Errors
    /// As [`Settings::parse`].
    pub fn read(text: &str, path: &Path, env: Env) -> anyhow::Result<Self> {
        let mut settings = Self::parse(text, path)?;
        settings.file = Some(path.to_owned());
        let base = path.parent().unwrap_or(Path::new(""));
        settings.place_paths(base, env("HOME").as_deref().map(Path::new));
        Ok(settings)
    }

    /// Parses the text of a settings file.
    ///
    /// # Errors
    /// With line and column; an unknown key also with the nearest known one. A mistake in a location or
    /// job is kept with it.
    pub fn parse(text: &str, path: &Path) -> anyhow::Result<Self> {
        let place = |at: usize, message: &str| {
            let (line, column) = line_and_column(text, at);
            anyhow::anyhow!(
                "{}, line {line}, column {column}: {message}",
                path.display()
            )
        };
        let failed = |error: toml::de::Error| {
            place(error.span().map_or(0, |span| span.start), error.message())
        };
        let document = DeTable::parse(text).map_err(failed)?;
        let known = serde_json::to_value(Self::default())?;
        if let Some((at, message)) = unknown_key(document.get_ref(), &known, "") {
            return Err(place(at, &message));
        }
        let worded = |at: usize, message: &str| place(at, message).to_string();
        let locations = Locations::read(document.get_ref(), &worded).map_err(anyhow::Error::msg)?;
        let jobs = Jobs::read(document.get_ref(), &worded).map_err(anyhow::Error::msg)?;
        Ok(Self {
            locations,
            jobs,
            ..toml::from_str(text).map_err(failed)?
        })
    }

    /// Makes relative paths relative to the file's folder, and `~/` the home folder.
    fn place_paths(&mut self, base: &Path, home: Option<&Path>) {
        let placed = |path: &Path| match (path.strip_prefix("~"), home) {
            (Ok(below), Some(home)) => home.join(below),
            _ => base.join(path),
        };
        let place = |path: &mut PathBuf| *path = placed(path);
        let one = [
            &mut self.password_file,
            &mut self.key_file,
            &mut self.cache_dir,
        ];
        one.into_iter().flatten().for_each(place);
        let backup = &mut self.backup;
        let locations = &self.locations.0;
        let is_path = |path: &&mut PathBuf| {
            let text = path.to_str().unwrap_or_default();
            !text.contains("://") && !locations.contains_key(text)
        };
        backup.sources.iter_mut().filter(is_path).for_each(place);
        let lists = [&mut backup.exclude_file, &mut backup.iexclude_file];
        lists.into_iter().flatten().for_each(place);
        let placed_text = |path: &Path| placed(path).to_string_lossy().into_owned();
        if let Some(repository) = &mut self.repository
            && !repository.is_empty()
            && !repository.contains("://")
            && !self.locations.0.contains_key(repository)
        {
            *repository = placed_text(Path::new(repository));
        }
        self.locations.place_paths(&placed_text);
        self.jobs.place_paths(&self.locations, &placed);
    }

    fn warn_of_open_permissions(&self, path: &Path) {
        let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        if let Some(warning) = self.open_permissions(path, mode) {
            eprintln!("larder: warning: {warning}");
        }
    }

    fn open_permissions(&self, path: &Path, mode: u32) -> Option<String> {
        let has_secret = matches!(self.password, Some(SecretText::Clear(_)))
            || self.locations.0.values().any(locations::Table::has_secret);
        (has_secret && mode & 0o077 != 0).then(|| {
            let path = path.display();
            let mode = mode & 0o777;
            format!(
                "{path} holds a secret and can be reached by others (mode {mode:04o}); \
                 run `chmod 600 {path}`, seal it (`larder location seal`), or name a file or command that \
                 gives it, as with password-command"
            )
        })
    }
}

fn usual_path(env: Env) -> Option<PathBuf> {
    // The XDG specification has relative values ignored.
    let config = env("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let config = config.or_else(|| Some(PathBuf::from(env("HOME")?).join(".config")))?;
    Some(config.join("larder/larder.toml"))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

/// Finds the first key, in the order of the text, that the defaults do not have.
pub fn unknown_key(
    table: &DeTable,
    known: &serde_json::Value,
    section: &str,
) -> Option<(usize, String)> {
    let known = known.as_object()?;
    let mut found: Vec<(usize, String)> = Vec::new();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match (known.get(name), value.get_ref()) {
            // Their names are anybody's choice; they are looked at by themselves.
            (Some(_), _) if section.is_empty() && ["jobs", "locations"].contains(&name) => {}
            (Some(inner), DeValue::Table(table)) => {
                let section = match section {
                    "" => name.to_owned(),
                    section => format!("{section}.{name}"),
                };
                found.extend(unknown_key(table, inner, &section));
            }
            (Some(_), _) => {}
            (None, _) => found.push((key.span().start, complaint(name, known, section))),
        }
    }
    found.into_iter().min()
}

fn complaint(
    name: &str,
    known: &serde_json::Map<String, serde_json::Value>,
    section: &str,
) -> String {
    let place = match section {
        "" => String::new(),
        section => format!(" in [{section}]"),
    };
    if let Some(key) = nearest(name, known.keys().map(String::as_str)) {
        return format!("there is no key '{name}'{place}; did you mean '{key}'?");
    }
    let keys: Vec<&str> = known.keys().map(String::as_str).collect();
    format!(
        "there is no key '{name}'{place}; there are {}",
        keys.join(", ")
    )
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Tells whether a text begins as a URL does.
fn has_scheme(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    !scheme.is_empty() && scheme.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use larder_engine::storage::location::keys;

    fn parse(text: &str) -> anyhow::Result<Settings> {
        Settings::parse(text, Path::new("larder.toml"))
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_annotated_example_is_understood_and_names_every_key() {
        let text = include_str!("../../docs/larder.toml");
        let settings = parse(text).unwrap();
        assert_eq!(settings.repository.as_deref(), Some("/srv/backup/larder"));

        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        parse(&uncommented).unwrap();
        let named: toml::Table = uncommented.parse().unwrap();
        let known = serde_json::to_value(Settings::default()).unwrap();
        for (key, value) in known.as_object().unwrap() {
            let here = named.get(key);
            assert!(here.is_some(), "{key} is not in the example");
            for inner in value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(inner, _)| inner)
            {
                let there = here.and_then(|table| table.get(inner));
                assert!(there.is_some(), "{key}.{inner} is not in the example");
            }
        }
    }

    #[test]
    fn the_annotated_example_names_every_key_of_a_job() {
        fn look(named: &toml::Table, known: &serde_json::Value, place: &str) {
            for (key, value) in known.as_object().into_iter().flatten() {
                // What a backup is told stands with [backup].
                let is_of_backup = |key: &str| {
                    serde_json::to_value(BackupSettings::default())
                        .unwrap()
                        .get(key)
                        .is_some()
                };
                let is_of_schedule =
                    ["every", "hours", "cron", "time-zone"].contains(&key.as_str());
                let is_told_elsewhere = match place {
                    "jobs" => is_of_backup(key) || key == "forget",
                    _ => is_of_schedule,
                };
                if is_told_elsewhere {
                    continue;
                }
                let found = named.get(key);
                assert!(found.is_some(), "{place}.{key} is not in the example");
                if let Some(inner) = found.and_then(toml::Value::as_table) {
                    look(inner, value, key);
                }
            }
        }
        let text = include_str!("../../docs/larder.toml").replace("\n#: ", "\n");
        let named: toml::Table = text.parse().unwrap();
        let tables = named.get("jobs").and_then(toml::Value::as_table).unwrap();
        let mut all = toml::Table::new();
        for (key, value) in tables.values().filter_map(toml::Value::as_table).flatten() {
            let there = all.entry(key).or_insert_with(|| value.clone());
            if let (Some(there), Some(table)) = (there.as_table_mut(), value.as_table()) {
                there.extend(table.clone());
            }
        }
        look(&all, &crate::jobs::known(), "jobs");
        for job in parse(&text).unwrap().jobs.0.values() {
            // What stands commented in the example are other ways to say the same.
            let mistake = job.mistake.as_deref().unwrap_or_default();
            assert!(
                mistake.is_empty() || mistake.contains("more than one of password-file"),
                "{mistake}"
            );
        }
        let text = include_str!("../../docs/larder.toml");
        let jobs = parse(text).unwrap().jobs.0;
        assert_eq!(jobs.len(), 2);
        for job in jobs.values() {
            assert_eq!(job.mistake, None);
        }
    }

    #[test]
    fn the_annotated_example_names_every_setting_of_every_storage() {
        let text = include_str!("../../docs/larder.toml").replace("\n#: ", "\n");
        let Locations(tables) = parse(&text).unwrap().locations;
        for key in keys::KEYS {
            let names = |table: &locations::Table| {
                let named = table.settings.keys();
                named
                    .filter_map(|name| keys::find(table.scheme(), name))
                    .any(|(found, _)| found == key)
            };
            assert!(
                tables.values().any(names),
                "{} is not in the example",
                key.name
            );
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        assert_eq!(
            error("repository = '/a'\n\n  pasword-file = 'x'\n"),
            "larder.toml, line 3, column 3: there is no key 'pasword-file'; \
             did you mean 'password-file'?"
        );
        assert_eq!(
            error("[backup]\nexlude = []\n"),
            "larder.toml, line 2, column 1: there is no key 'exlude' in [backup]; \
             did you mean 'exclude'?"
        );
        assert!(error("[bakup]\nexclude = []\n").ends_with("did you mean 'backup'?"));
        assert!(error("zzzzzzzzzzzz = 1").contains("there are backup, cache-dir,"));
        assert!(error("b2 = 1\na1 = 2\n").contains("line 1, column 1: there is no key 'b2'"));
    }

    #[test]
    fn values_of_the_wrong_kind_and_bad_syntax_name_their_place() {
        assert!(error("threads = 'many'\n").starts_with("larder.toml, line 1, column 11: "));
        assert!(error("repository = \n").starts_with("larder.toml, line 1, column "));
        assert!(error("backup = 3").starts_with("larder.toml, line 1, column 10: "));
    }

    #[test]
    fn paths_are_relative_to_the_file_and_know_the_home_folder() {
        let mut settings = parse(
            "repository = '~/repo'\npassword-file = 'secret'\nkey-file = '~/k'\n\
             [backup]\nsources = ['/etc', 'here']",
        )
        .unwrap();
        settings.place_paths(Path::new("/conf"), Some(Path::new("/home/me")));
        assert_eq!(settings.repository.as_deref(), Some("/home/me/repo"));
        assert_eq!(
            settings.password_file.as_deref(),
            Some(Path::new("/conf/secret"))
        );
        assert_eq!(settings.key_file.as_deref(), Some(Path::new("/home/me/k")));
        assert_eq!(
            settings.backup.sources,
            [Path::new("/etc"), Path::new("/conf/here")]
        );
    }

    #[test]
    fn the_repository_may_be_a_location_by_its_name() {
        let location = "[locations.nas]\nurl = 'here'";
        for (repository, expected) in [("nas", "nas"), ("./nas", "/conf/./nas"), ("na", "/conf/na")]
        {
            let mut settings = parse(&format!("repository = '{repository}'\n{location}")).unwrap();
            settings.place_paths(Path::new("/conf"), None);
            assert_eq!(settings.repository.as_deref(), Some(expected));
            let Locations(tables) = &settings.locations;
            assert_eq!(tables.get("nas").unwrap().url, "/conf/here");
        }
    }

    #[test]
    fn a_mistake_in_a_location_names_its_place() {
        let mistake = |text: &str| {
            let settings = parse(text).unwrap();
            settings
                .locations
                .0
                .get("nas")
                .unwrap()
                .mistake
                .clone()
                .unwrap()
        };
        assert_eq!(
            mistake("[locations.nas]\nurl = 's3://bucket'\nreigon = 'x'\n"),
            "larder.toml, line 3, column 1: the setting reigon: s3:// has no setting \"reigon\"; \
             did you mean region?"
        );
        assert!(mistake("[locations]\nnas = 3\n").starts_with("larder.toml, line 2, column 1: "));
        assert!(error("locations = 3\n").starts_with("larder.toml, line 1, column 13: "));
        assert!(error("[location.nas]\nurl = '/x'").contains("did you mean 'locations'?"));
    }

    #[test]
    fn a_secret_that_others_can_read_is_warned_of_and_never_shown() {
        let path = Path::new("/c/larder.toml");
        let settings = parse("password = 'hunter2'").unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(
            settings
                .open_permissions(path, 0o100_644)
                .unwrap()
                .contains("mode 0644")
        );
        assert!(settings.open_permissions(path, 0o100_600).is_none());
        let settings = parse("password-file = 'x'").unwrap();
        assert!(settings.open_permissions(path, 0o100_644).is_none());
        let of_a_location = |key: &str| {
            parse(&format!(
                "[locations.a]\nurl = 'ftp://h'\n{key} = 'hunter2'"
            ))
            .unwrap()
        };
        let settings = of_a_location("password");
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(settings.open_permissions(path, 0o100_644).is_some());
        assert!(settings.open_permissions(path, 0o100_600).is_none());
        let settings = of_a_location("password-command");
        assert!(settings.open_permissions(path, 0o100_644).is_none());
    }

    #[test]
    fn the_usual_file_is_below_the_config_folder() {
        let at = |config: Option<&'static str>| {
            usual_path(&move |name| match name {
                "XDG_CONFIG_HOME" => config.map(OsString::from),
                _ => Some("/home/me".into()),
            })
        };
        assert_eq!(at(Some("/x")).unwrap(), Path::new("/x/larder/larder.toml"));
        assert_eq!(at(Some("x")), at(None));
        assert_eq!(
            at(None).unwrap(),
            Path::new("/home/me/.config/larder/larder.toml")
        );
    }

    #[test]
    fn a_named_file_that_is_not_there_is_an_error_and_the_usual_one_is_not() {
        let none = |_: &str| None;
        assert!(Settings::load(Some(Path::new("/nowhere/larder.toml")), true, &none).is_err());
        assert!(Settings::load(Some(Path::new("/nowhere/larder.toml")), false, &none).is_ok());
        let usual = |name: &str| (name == "HOME").then(|| OsString::from("/nowhere"));
        assert!(
            Settings::load(None, true, &usual)
                .unwrap()
                .repository
                .is_none()
        );
    }
}
