//! The jobs of larder.toml: what is backed up where, when, and how long it is kept.

mod mail;
mod rules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use larder_engine::storage::location::{nearest, place};
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize, Serializer};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::locations::{self, Locations};
use crate::settings::{BackupSettings, ForgetSettings, unknown_key};
pub use mail::MailSettings;
pub use rules::Plan;

/// The jobs of larder.toml, by name.
#[derive(Debug, Clone, Default)]
pub struct Jobs(pub BTreeMap<String, Job>);

/// One job.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// What it says for itself.
    pub settings: JobSettings,
    /// What it says as `[backup]` might; nothing of that table is taken over.
    pub backup: BackupSettings,
    /// What is wrong with it, with its place in the file: then it cannot be run, and all others can.
    pub mistake: Option<String>,
    /// Where in the file its location stands.
    place: String,
}

/// What a job says besides what a backup is told.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct JobSettings {
    /// Where the repository is: a location's name, a path or a URL.
    pub location: String,
    /// A file that holds the passphrase.
    pub password_file: Option<PathBuf>,
    /// A shell command that prints the passphrase.
    pub password_command: Option<String>,
    /// A file that holds a raw key.
    pub key_file: Option<PathBuf>,
    /// Days from one run to the next.
    pub every: Option<i64>,
    /// Hours of the day, in UTC.
    pub hours: Vec<i64>,
    /// A cron expression in place of days and hours.
    pub cron: Option<String>,
    /// The zone of its clock.
    pub time_zone: Option<String>,
    /// Whether what was missed is made up for.
    pub catch_up: Option<bool>,
    /// By how much runs come later at most.
    pub jitter: Option<String>,
    /// How long a run may take.
    pub time_limit: Option<String>,
    /// Days for which snapshots are kept.
    pub keep_days: Option<i64>,
    /// Rules of forget in place of days.
    pub forget: Option<ForgetSettings>,
    /// When space is freed.
    pub prune: Option<PruneSettings>,
    /// When the repository is checked.
    pub check: Option<CheckSettings>,
    /// A URL that is called when a backup begins.
    pub ping_start: Option<String>,
    /// A URL that is called when one was made.
    pub ping_success: Option<String>,
    /// A URL that is called when none was made.
    pub ping_failure: Option<String>,
    /// A URL that is told of failures, recoveries, missed and unusual runs.
    pub webhook: Option<String>,
    /// A shell command that is told of them.
    pub notify_command: Option<String>,
    /// Who gets mail about them.
    pub mail: Option<MailSettings>,
}

/// When space is freed, and how.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct PruneSettings {
    /// Days from one to the next.
    pub every: Option<i64>,
    /// Hours of the day, in UTC.
    pub hours: Vec<i64>,
    /// A cron expression in place of both.
    pub cron: Option<String>,
    /// The zone of its clock.
    pub time_zone: Option<String>,
    /// How much may stay unused.
    pub max_unused: Option<String>,
    /// After what time no further pack is begun.
    pub max_duration: Option<String>,
    /// How much is copied out of at most.
    pub max_repack_size: Option<String>,
}

/// When the repository is checked, and how.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct CheckSettings {
    /// Days from one to the next.
    pub every: Option<i64>,
    /// Hours of the day, in UTC.
    pub hours: Vec<i64>,
    /// A cron expression in place of both.
    pub cron: Option<String>,
    /// The zone of its clock.
    pub time_zone: Option<String>,
    /// How thoroughly.
    pub level: Option<String>,
    /// For how long packs are read at most.
    pub max_duration: Option<String>,
    /// How much of packs is read at most.
    pub max_download: Option<String>,
    /// Only packs are read that were not verified for so long.
    pub max_age: Option<String>,
    /// Paths of a drill.
    pub sample: Option<i64>,
}

/// What is wrong in a job, and the key of which that is said.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The keys from the job's table on; none for the job itself.
    pub keys: Vec<&'static str>,
    /// What is wrong.
    pub why: String,
}

impl PruneSettings {
    /// Gives the flags of `larder prune` that say the same.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        flags([
            ("max-unused", self.max_unused.clone()),
            ("max-duration", self.max_duration.clone()),
            ("max-repack-size", self.max_repack_size.clone()),
        ])
    }
}

impl CheckSettings {
    /// Gives the flags of `larder check` that say the same.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        flags([
            ("level", self.level.clone()),
            ("max-duration", self.max_duration.clone()),
            ("max-download", self.max_download.clone()),
            ("max-age", self.max_age.clone()),
            ("sample", self.sample.map(|sample| sample.to_string())),
        ])
    }
}

impl Jobs {
    /// Reads the jobs of a document; `at` words a mistake at a place in its text.
    ///
    /// # Errors
    /// When there is no table of jobs. What is wrong with one of them is kept with it.
    pub fn read(document: &DeTable, at: &dyn Fn(usize, &str) -> String) -> Result<Self, String> {
        let Some(jobs) = document.get("jobs") else {
            return Ok(Self::default());
        };
        let DeValue::Table(tables) = jobs.get_ref() else {
            let start = jobs.span().start;
            return Err(at(start, "jobs is no table of [jobs.NAME]"));
        };
        let read = |(name, value): (&Spanned<DeString>, &Spanned<DeValue>)| {
            let job = Job::read(name, value).unwrap_or_else(|(start, why)| Job {
                mistake: Some(at(start, &why)),
                ..Job::default()
            });
            let location = table_of(value).and_then(|table| table.get("location"));
            let start = location.map_or(name.span().start, |location| location.span().start);
            let job = Job {
                place: at(start, ""),
                ..job
            };
            (name.get_ref().to_string(), job)
        };
        Ok(Self(tables.iter().map(read).collect()))
    }

    /// Makes relative paths relative to the file's folder, and `~/` the home folder; then looks whether a
    /// repository lies in what is backed up into it.
    pub fn place_paths(&mut self, locations: &Locations, placed: &dyn Fn(&Path) -> PathBuf) {
        let is_path = |path: &Path| {
            let text = path.to_str().unwrap_or_default();
            !text.contains("://") && !locations.0.contains_key(text)
        };
        for job in self.0.values_mut() {
            let (settings, backup) = (&mut job.settings, &mut job.backup);
            let secrets = [&mut settings.password_file, &mut settings.key_file];
            let lists = [&mut backup.exclude_file, &mut backup.iexclude_file];
            let secrets = secrets.into_iter().flatten();
            let files = secrets.chain(lists.into_iter().flatten());
            let sources = backup.sources.iter_mut().filter(|path| is_path(path));
            files.chain(sources).for_each(|path| *path = placed(path));
            if let Some(mail) = &mut settings.mail {
                mail.place_paths(placed);
            }
            let location = Path::new(&settings.location);
            if !settings.location.is_empty() && is_path(location) {
                settings.location = placed(location).to_string_lossy().into_owned();
            }
            if job.mistake.is_none() {
                let why = inside(job, locations);
                job.mistake = why.map(|why| format!("{}{why}", job.place));
            }
        }
    }

    /// Gives the name that was probably meant, where `name` is none.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest::nearest(name, self.0.keys().map(String::as_str))
    }
}

impl Job {
    /// Gives when and how it is run.
    ///
    /// # Errors
    /// With what makes no sense.
    pub fn plan(&self) -> Result<Plan, Mistake> {
        rules::plan(&self.settings, &self.backup)
    }

    /// Reads a job, or finds its first mistake with its place in the text.
    fn read(name: &Spanned<DeString>, value: &Spanned<DeValue>) -> Result<Self, (usize, String)> {
        let start = name.span().start;
        let name = name.get_ref().as_ref();
        if let Some(why) = refuse_name(name) {
            return Err((start, why));
        }
        let Some(table) = table_of(value) else {
            return Err((start, format!("the job {name} is no table with a location")));
        };
        let of_backup = serde_json::to_value(BackupSettings::default()).unwrap_or_default();
        if let Some(found) = unknown_key(table, &known(), &format!("jobs.{name}")) {
            return Err(found);
        }
        let is_of_backup = |key: &str| of_backup.get(key).is_some();
        let part = |backup: bool| -> DeTable {
            let keys = table.iter();
            let keys = keys.filter(|(key, _)| is_of_backup(key.get_ref()) == backup);
            keys.map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let job = Self {
            settings: understood(part(false), value.span())?,
            backup: understood(part(true), value.span())?,
            ..Self::default()
        };
        match job.plan() {
            Ok(_) => Ok(job),
            Err(mistake) => Err((start_of(table, &mistake.keys).unwrap_or(start), mistake.why)),
        }
    }
}

/// Says what is wrong with a name for a job, if anything is.
#[must_use]
pub fn refuse_name(name: &str) -> Option<String> {
    locations::refuse_name(name).map(|why| why.replace("of a location", "of a job"))
}

/// Gives all that a job may say, with tables where there may be tables.
#[must_use]
pub fn known() -> serde_json::Value {
    let own = JobSettings {
        forget: Some(ForgetSettings::default()),
        prune: Some(PruneSettings::default()),
        check: Some(CheckSettings::default()),
        mail: Some(MailSettings::default()),
        ..JobSettings::default()
    };
    let mut all = serde_json::to_value(own).unwrap_or_default();
    let backup = serde_json::to_value(BackupSettings::default()).unwrap_or_default();
    if let (Some(all), serde_json::Value::Object(backup)) = (all.as_object_mut(), backup) {
        all.extend(backup);
    }
    all
}

fn flags<const N: usize>(said: [(&str, Option<String>); N]) -> Vec<String> {
    let flag = |(name, value): (&str, Option<String>)| Some(format!("--{name}={}", value?));
    said.into_iter().filter_map(flag).collect()
}

fn understood<T: DeserializeOwned>(
    table: DeTable,
    span: std::ops::Range<usize>,
) -> Result<T, (usize, String)> {
    let start = span.start;
    let deserializer = toml::de::Deserializer::from(Spanned::new(span, table));
    T::deserialize(deserializer).map_err(|error| {
        let start = error.span().map_or(start, |span| span.start);
        (start, error.message().to_owned())
    })
}

fn table_of<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Option<&'a DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// Finds the place of a key's value, or of the table nearest to it.
fn start_of(table: &DeTable, keys: &[&str]) -> Option<usize> {
    let (first, rest) = keys.split_first()?;
    let value = table.get(*first)?;
    let inner = table_of(value).and_then(|table| start_of(table, rest));
    Some(inner.unwrap_or(value.span().start))
}

/// Says so, if a folder of backups lies in what is backed up into it.
fn inside(job: &Job, locations: &Locations) -> Option<String> {
    let named = job.settings.location.as_str();
    let url = locations.0.get(named).map_or(named, |table| &table.url);
    let folder = place::parse(url).ok()?.folder()?;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    // What is not there yet lies in what is there of it.
    let there = folder.ancestors().find(|path| path.exists());
    let below = there.and_then(|there| folder.strip_prefix(there).ok());
    let folder_real = match (there, below) {
        (Some(there), Some(below)) => real(there).join(below),
        _ => folder.clone(),
    };
    let excluded = |exclude: &String| {
        let path = exclude.trim_end_matches("/**").trim_end_matches("/*");
        let path = path.trim_end_matches('/');
        path.starts_with('/') && (folder.starts_with(path) || folder_real.starts_with(path))
    };
    if job.backup.exclude.iter().any(excluded) {
        return None;
    }
    let mut sources = job.backup.sources.iter();
    let around = sources.find(|source| {
        let is_path = !source.to_string_lossy().contains("://");
        is_path && (folder.starts_with(source) || folder_real.starts_with(real(source)))
    })?;
    Some(format!(
        "the repository {} lies in {}, which is backed up into it, so that every backup would save the ones before; \
         choose another place, or leave it out: exclude = [\"{}\"]",
        folder.display(),
        around.display(),
        folder.display()
    ))
}

impl Serialize for Jobs {
    /// As an empty map: which names there are is not known beforehand.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BTreeMap::<String, String>::new().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Jobs {
    /// As none: [`Jobs::read`] reads them.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self::default())
    }
}

#[cfg(test)]
mod tests;
