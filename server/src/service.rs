//! What an owner has, and what all of them share.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::api::jobs;
use crate::audit::Audit;
use crate::child::{Line, Program};
use crate::data::{self, Data};
use crate::guard::Guard;
use crate::logins::Logins;
use crate::metrics::Counters;
use crate::policy::Policy;
use crate::problem::Problem;
use crate::quota;
use crate::routes::is_name;
use crate::runs::Runs;
use crate::shared::Shared;
use crate::tokens::{Scope, Tokens};
use crate::users::Limits;
use crate::{Options, ServeError};

/// What all owners share.
pub struct Common {
    /// Who is logged in.
    pub logins: Logins,
    /// Who tried wrong tokens.
    pub guard: Guard,
    /// When the service was started.
    pub started: Timestamp,
    /// Set once it is to end.
    stop: Arc<AtomicBool>,
}

/// What one owner has: the administrator, or a user. Nothing in it leads to what another has.
pub struct Service {
    /// Whose it is; none for the administrator.
    pub user: Option<String>,
    /// What is everybody's.
    pub common: Arc<Common>,
    /// How it is run.
    pub options: Options,
    /// The program that does the work.
    pub program: Program,
    /// What requests may name.
    policy: RwLock<Arc<Policy>>,
    /// How much a user may have; nothing of it narrows the administrator.
    limits: RwLock<Limits>,
    /// The bytes of repositories, by location, as they were last measured.
    pub measured: Shared<BTreeMap<String, u64>>,
    /// Held by whoever adds something that is counted.
    pub adding: tokio::sync::Mutex<()>,
    /// Its own files.
    pub data: Data,
    /// Who may do what.
    pub tokens: Tokens,
    /// Who did what.
    pub audit: Audit,
    /// What is run, and was.
    pub runs: Arc<Runs>,
    /// Requests, counted.
    pub counters: Counters,
}

/// A repository that a command works on: its location, and how it is opened.
#[derive(Clone, Default)]
pub struct Repository {
    /// The options of the command, with what they name.
    options: Vec<(&'static str, String)>,
}

impl Common {
    /// Begins with nobody known.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        Self {
            logins: Logins::default(),
            guard: Guard::default(),
            started: Timestamp::now(),
            stop,
        }
    }
}

impl Service {
    /// Reads what a service before this one left of the administrator's.
    ///
    /// # Errors
    /// When the folder cannot be used, or another service has it.
    pub fn open(options: Options, common: Arc<Common>) -> Result<Self, ServeError> {
        let globals = [options.globals.clone(), vec!["--json".into()]].concat();
        let program = Program::new(options.program.clone(), globals);
        Self::open_with(options, common, None, program)
    }

    /// Reads what a service before this one left of a user's, in a folder of their own. What is run for them has it as its
    /// home, another larder.toml, and nothing else of the environment.
    ///
    /// # Errors
    /// When the folder cannot be used, or another service has it.
    pub fn open_user(
        all: &Options,
        common: Arc<Common>,
        name: &str,
        folder: PathBuf,
    ) -> Result<Self, ServeError> {
        let options = Options {
            config: Some(folder.join("larder.toml")),
            data: folder,
            ..all.clone()
        };
        let is_kept = |global: &&OsString| {
            let global = global.to_string_lossy();
            !global.starts_with("--config=") && !global.starts_with("--cache-dir=")
        };
        let kept = options.globals.iter().filter(is_kept);
        let mut globals: Vec<OsString> = kept.cloned().collect();
        let mut config = OsString::from("--config=");
        config.push(options.data.join("larder.toml"));
        globals.extend([config, "--json".into()]);
        let environment = environment(&options.data);
        let environment = environment.map_err(|source| ServeError::Data {
            tried: "make a folder in",
            path: options.data.clone(),
            source,
        })?;
        let program = Program::new(options.program.clone(), globals).within(environment);
        Self::open_with(options, common, Some(name.to_owned()), program)
    }

    fn open_with(
        options: Options,
        common: Arc<Common>,
        user: Option<String>,
        program: Program,
    ) -> Result<Self, ServeError> {
        let data = Data::open(&options.data)?;
        let failed = |tried: &'static str, name: &str| {
            let path = data.path(name);
            move |source| ServeError::Data {
                tried,
                path,
                source,
            }
        };
        let tokens = Tokens::open(data.path("tokens.json"), user.is_none());
        let tokens = tokens.map_err(failed("read the tokens in", "tokens.json"))?;
        let measured = Shared::open(data.path("measured.json"));
        let measured = measured.map_err(failed("read what was measured in", "measured.json"))?;
        let audit = Audit::open(&data.path(""));
        let audit = audit.map_err(failed("write the audit log", "audit.jsonl"))?;
        let runs = Runs::open(data.path("runs"), program.clone());
        let runs = runs.map_err(failed("read the runs in", "runs"))?;
        Ok(Self {
            policy: RwLock::new(Arc::new(Policy::new(&options))),
            limits: RwLock::default(),
            measured,
            adding: tokio::sync::Mutex::default(),
            counters: Counters::default(),
            user,
            common,
            options,
            program,
            data,
            tokens,
            audit,
            runs,
        })
    }

    /// Tells whether it is to end.
    pub fn is_stopping(&self) -> bool {
        self.common.stop.load(Ordering::Relaxed)
    }

    /// Gives what requests may name now.
    pub fn policy(&self) -> Arc<Policy> {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&policy)
    }

    /// Lets a user use this from now on.
    pub fn narrow(&self, limits: &Limits, closed: &[PathBuf]) {
        let policy = Policy::of_user(&self.options, limits, closed);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.runs.limit(limits.runs_max);
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits.clone();
    }

    /// Gives how much there may be.
    pub fn limits(&self) -> Limits {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        limits.clone()
    }

    /// Asks for a location that may be used: a user's policy may be narrower by now than when it was made.
    ///
    /// # Errors
    /// When there is none of that name, or it may not be used any more.
    pub async fn usable(&self, name: &str) -> Result<Value, Problem> {
        let location = self.location(name).await?;
        self.policy().location(&location).await?;
        Ok(location)
    }

    /// Looks whether the job of a user may be run: what it says, where it leads by now, and how much is stored already.
    ///
    /// # Errors
    /// With the first thing that is not allowed any more.
    pub async fn admit(&self, job: &Value) -> Result<(), Problem> {
        if self.user.is_none() {
            return Ok(());
        }
        let settings = job.get("settings").and_then(Value::as_object);
        let settings = settings.ok_or_else(|| Problem::internal("the job has no settings"))?;
        jobs::refuse(self, settings).await?;
        match settings.get("location").and_then(Value::as_str) {
            // As the run will open it: another password would measure nothing.
            Some(location) => quota::bytes(self, location, &self.repository_of_job(job)?).await,
            None => Err(Problem::internal("the job names no location")),
        }
    }

    /// Makes the first tokens, where there is none: one that opens everything, and one for portable backups.
    ///
    /// # Errors
    /// When they cannot be kept.
    pub fn first_tokens(&self) -> Result<Option<[Zeroizing<String>; 2]>, Problem> {
        if !self.tokens.is_empty() {
            return Ok(None);
        }
        let now = Timestamp::now();
        let (_, admin) = self.tokens.add("first", Scope::Admin, None, now)?;
        let (_, portable) = self.tokens.add("portable", Scope::Portable, None, now)?;
        Ok(Some([admin, portable]))
    }

    /// Asks for a location of larder.toml.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn location(&self, name: &str) -> Result<Value, Problem> {
        let mut line = Line::new(["location", "show"]);
        line.operands([name]);
        let shown: Result<Value, _> = self.program.document(&line, &[]).await;
        shown.map_err(|failure| failure.problem())
    }

    /// Asks for a job of larder.toml.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn job(&self, name: &str) -> Result<Value, Problem> {
        let mut line = Line::new(["job", "show"]);
        line.operands([name]);
        let shown: Result<Value, _> = self.program.document(&line, &[]).await;
        shown.map_err(|failure| failure.problem())
    }

    /// Finds out how the repository at a location is opened: with the password that is kept here, or as a job of that
    /// location says, or as it is usual.
    ///
    /// # Errors
    /// When there is no such location.
    pub async fn repository(&self, location: &str) -> Result<Repository, Problem> {
        self.usable(location).await?;
        let mut options = vec![("repo", location.to_owned())];
        match self.password_file(location) {
            Some(file) => options.push(("password-file", file)),
            None => options.extend(self.secret_of_jobs(location).await),
        }
        Ok(Repository { options })
    }

    /// Gives how the repository of a job is opened.
    ///
    /// # Errors
    /// When there is no such job, or it names no location that can be told.
    pub fn repository_of_job(&self, job: &Value) -> Result<Repository, Problem> {
        let settings = job.get("settings").unwrap_or(&Value::Null);
        let location = settings.get("location").and_then(Value::as_str);
        let location = location.ok_or_else(|| Problem::internal("the job names no location"))?;
        let mut options = vec![("repo", location.to_owned())];
        match (secret_of(settings), self.password_file(location)) {
            (Some(secret), _) => options.push(secret),
            (None, Some(file)) => options.push(("password-file", file)),
            (None, None) => {}
        }
        Ok(Repository { options })
    }

    /// Gives the file with the password of a location, if it is kept here.
    pub fn password_file(&self, location: &str) -> Option<String> {
        // A job may name a folder or a URL in place of a location, and that would lead out of the folder of passwords.
        if !is_name(location) {
            return None;
        }
        let file = self.password_path(location);
        file.is_file().then(|| file.to_string_lossy().into_owned())
    }

    /// Tells whether a path is that of a password that is kept here.
    pub fn is_own_password(&self, path: &str) -> bool {
        let folder = self.data.path("passwords");
        Path::new(path).parent() == Some(folder.as_path())
    }

    /// Keeps the password of a location, or forgets it.
    ///
    /// # Errors
    /// When the file cannot be written or removed.
    pub fn keep_password(&self, location: &str, password: Option<&str>) -> Result<(), Problem> {
        let file = self.password_path(location);
        let done = match password {
            Some(password) => data::write(&file, password.as_bytes()),
            None => data::remove(&file),
        };
        done.map_err(|error| {
            Problem::internal(format!("cannot keep the password of {location}: {error}"))
        })
    }

    /// Carries the password over where a location gets another name.
    pub fn rename_password(&self, old: &str, new: &str) {
        let renamed = std::fs::rename(self.password_path(old), self.password_path(new));
        if let Err(error) = renamed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("cannot carry the password of {old} over to {new}: {error}");
        }
    }

    fn password_path(&self, location: &str) -> PathBuf {
        // Names have no slash, and may well be "." or "..".
        self.data
            .path("passwords")
            .join(format!("{location}.password"))
    }

    async fn secret_of_jobs(&self, location: &str) -> Option<(&'static str, String)> {
        let jobs: Result<Vec<Value>, _> = self
            .program
            .document(&Line::new(["job", "list"]), &[])
            .await;
        let mut jobs = jobs.ok()?.into_iter();
        let job = jobs.find(|job| job.get("location").is_some_and(|named| named == location))?;
        secret_of(job.get("settings")?)
    }
}

impl Repository {
    /// Begins a command on it.
    pub fn line<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Line {
        let mut line = Line::default();
        for (name, value) in &self.options {
            line.option(name, value);
        }
        let arguments = arguments.into_iter();
        line.arguments
            .extend(arguments.map(|argument| argument.as_ref().into()));
        line
    }

    /// Gives it with another password in the environment, whatever is kept.
    pub fn with_password(location: &str, password: &str, arguments: &[&str]) -> Line {
        let repository = Self {
            options: vec![("repo", location.to_owned())],
        };
        let mut line = repository.line(arguments);
        let password = Zeroizing::new(password.to_owned());
        line.variables.push(("LARDER_PASSWORD", password));
        line
    }
}

/// Gives all of the environment that what is run for a user finds, and makes the folders in it. Whatever else the service has
/// there could be a secret, and credentials of the machine are not theirs.
fn environment(folder: &Path) -> std::io::Result<Vec<(OsString, OsString)>> {
    const PASSED_ON: [&str; 17] = [
        "PATH",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "RUST_BACKTRACE",
    ];
    let passed_on = PASSED_ON.iter();
    let passed_on = passed_on.filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    let mut all: Vec<(OsString, OsString)> = passed_on.collect();
    for (variable, name) in [
        ("HOME", "home"),
        ("XDG_CONFIG_HOME", "home/.config"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_CACHE_HOME", "cache"),
    ] {
        let inner = folder.join(name);
        data::make_folder(&inner)?;
        all.push((variable.into(), inner.into()));
    }
    all.push(("AWS_EC2_METADATA_DISABLED".into(), "true".into()));
    Ok(all)
}

/// Gives the option that says what a job says of its password.
fn secret_of(settings: &Value) -> Option<(&'static str, String)> {
    ["password-file", "password-command", "key-file"]
        .into_iter()
        .find_map(|key| Some((key, settings.get(key)?.as_str()?.to_owned())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_names_its_repository_in_arguments_that_are_nothing_else() {
        let repository = Repository {
            options: vec![("repo", "--x".to_owned())],
        };
        let mut line = repository.line(["ls"]);
        line.operands(["latest"]);
        assert_eq!(line.arguments, ["--repo=--x", "ls", "--", "latest"]);
        let settings = json!({"key-file": "/k", "location": "nas"});
        assert_eq!(secret_of(&settings), Some(("key-file", "/k".to_owned())));
        assert_eq!(secret_of(&json!({})), None);
    }
}
