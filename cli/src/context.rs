//! What every command needs: options, settings, the repository, progress, cancellation.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use jiff::{Timestamp, Zoned};
use larder_engine::cancel::Cancel;
use larder_engine::repository::{OpenOptions, Repository, default_state_dir, open_storage};
use larder_engine::snapshots::{self, Filter, SnapshotInfo, Spec, Which};
use larder_engine::storage::bucket::{self, Bucket};
use larder_engine::storage::location::{Layers, Location};
use zeroize::Zeroizing;

use crate::args::{Command, Globals};
use crate::commands;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::locations;
use crate::password::{self, SecretSource};
use crate::progress::{Mode, Reporter};
use crate::settings::{Settings, process_env};

/// What every command needs.
pub struct Context {
    /// The options of every command.
    pub globals: Globals,
    /// What larder.toml says.
    pub settings: Settings,
    /// The answer to SIGINT and SIGTERM.
    pub interrupt: Interrupt,
}

impl Context {
    /// Loads the settings, if the command heeds any.
    ///
    /// # Errors
    /// When they cannot be read or understood.
    pub fn new(globals: Globals, command: &Command, interrupt: Interrupt) -> anyhow::Result<Self> {
        let settings = match command {
            // These work whatever state larder.toml is in.
            Command::Completions(_) | Command::Man(_) | Command::Version => Settings::default(),
            _ => {
                // The first location or job makes the file.
                let makes = |command: &Command| {
                    matches!(
                        command,
                        Command::Location(_) | Command::Job(_) | Command::Serve(_)
                    )
                };
                let must_exist = !makes(command);
                Settings::load(globals.config.as_deref(), must_exist, &process_env)?
            }
        };
        Ok(Self {
            globals,
            settings,
            interrupt,
        })
    }

    /// Tells whether JSON is wanted.
    #[must_use]
    pub fn json(&self) -> bool {
        self.globals.json
    }

    /// Tells whether a person wants to be told what was done.
    #[must_use]
    pub fn talks(&self) -> bool {
        !self.globals.json && !self.globals.quiet
    }

    /// Gives the name, path or URL of the repository's location.
    ///
    /// # Errors
    /// When nothing names one.
    pub fn named(&self) -> anyhow::Result<String> {
        let named = self.globals.repo.clone().filter(|repo| !repo.is_empty());
        let Some(location) = named.or_else(|| process_env("LARDER_REPO")) else {
            let usual = self.settings.repository.clone();
            return usual.context(
                "no repository was named; use -r LOCATION, LARDER_REPO, or `repository` in \
                 larder.toml",
            );
        };
        match location.into_string() {
            Ok(location) => Ok(location),
            Err(location) => bail!("the location {} is not UTF-8", location.display()),
        }
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// What the engine answers, or what keeps the secret from being had.
    pub fn open(&self) -> anyhow::Result<Arc<Repository>> {
        let named = self.named()?;
        let opened = self.open_at(&self.place_of(&named)?);
        let may_be_name = locations::refuse_name(&named).is_none()
            && !self.settings.locations.0.contains_key(&named);
        match opened {
            Err(error) if may_be_name && Exit::of(&error) == Exit::NoRepository => Err(error
                .context(format!(
                    "'{named}' is no location in larder.toml, so it was taken for a folder"
                ))),
            opened => opened,
        }
    }

    /// Opens the repository to change it: a mirror is refused before anybody is asked for a password.
    ///
    /// # Errors
    /// As [`Context::open`], and for a mirror.
    pub fn open_to_change(&self) -> anyhow::Result<Arc<Repository>> {
        if let Ok(storage) = open_storage(&self.place()?, self.interrupt.flag()) {
            Repository::refuse_mirror(storage.as_ref())?;
        }
        self.open()
    }

    fn open_at(&self, place: &Location) -> anyhow::Result<Arc<Repository>> {
        let storage = open_storage(place, self.interrupt.flag())?;
        password::open(&storage, self.secret_source()?, &self.open_options())
    }

    /// Gives the repository's location with its settings.
    ///
    /// # Errors
    /// When nothing names one, or a setting makes no sense.
    pub fn place(&self) -> anyhow::Result<Location> {
        self.place_of(&self.named()?)
    }

    /// Gives the location that a name in larder.toml, a path or a URL means, with its settings.
    ///
    /// # Errors
    /// When it names none, or a setting makes no sense.
    pub fn place_of(&self, named: &str) -> anyhow::Result<Location> {
        self.place_with(named, &self.globals.options)
    }

    /// Gives a second location beside the repository's: `-o` is not for it, but these are.
    ///
    /// # Errors
    /// When it names none, or a setting makes no sense.
    pub fn second_place(
        &self,
        named: &str,
        options: &[(String, String)],
    ) -> anyhow::Result<Location> {
        self.place_with(named, options)
    }

    /// Opens the bucket that a URL, or the name of a location in larder.toml, means, as it is or as it was at
    /// a time; none if it is something else. Flags of the repository's location do not apply to it.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn bucket(
        &self,
        named: &Path,
        flags: &[(String, String)],
        at: Option<Timestamp>,
    ) -> anyhow::Result<Option<Arc<dyn Bucket>>> {
        let Some(named) = named.to_str().filter(|_| self.settings.is_bucket(named)) else {
            return Ok(None);
        };
        let location = self.place_with(named, flags)?;
        if self.settings.locations.0.contains_key(named)
            && Path::new(named).exists()
            && !self.globals.quiet
        {
            eprintln!(
                "larder: '{named}' is taken for the location of larder.toml ({}); for the file or folder of that name write ./{named}",
                location.place
            );
        }
        let stop = self.interrupt.flag();
        Ok(Some(match at {
            Some(time) => bucket::open_at(&location, time, stop)?,
            None => bucket::open(&location, stop)?,
        }))
    }

    fn place_with(&self, named: &str, flags: &[(String, String)]) -> anyhow::Result<Location> {
        let env = text_env();
        let table = self.settings.locations.0.get(named);
        if let Some(mistake) = table.and_then(|table| table.mistake.as_ref()) {
            bail!("{mistake}");
        }
        let opened = table
            .map(|table| table.opened(named, self.settings.file.as_deref(), &process_env))
            .transpose()?;
        let layers = Layers {
            flags,
            env: Some(&env),
            file: opened.as_ref(),
        };
        if table.is_none() {
            self.refuse_near_miss(named)?;
        }
        let url = table.map_or(named, |table| table.url.as_str());
        let location = Location::new(url, &layers);
        Ok(match table {
            Some(_) => location.with_context(|| format!("the location {named}"))?,
            None => location?,
        })
    }

    /// Refuses what is nearly the name of a location, before a folder of that name is made.
    fn refuse_near_miss(&self, named: &str) -> anyhow::Result<()> {
        let may_be_name = locations::refuse_name(named).is_none();
        if may_be_name
            && let Some(near) = self.settings.locations.nearest(named)
            && !Path::new(named).exists()
        {
            bail!(
                "there is no location '{named}' in larder.toml; did you mean '{near}'? For a \
                 folder of that name write ./{named}"
            );
        }
        Ok(())
    }

    /// Gives the place that the secret is taken from; none to ask for it.
    ///
    /// # Errors
    /// When more than one is named in one place.
    pub fn secret_source(&self) -> anyhow::Result<Option<SecretSource>> {
        password::choose(&self.globals.secret_flags(), &process_env, &self.settings)
    }

    /// Tells how a repository is opened.
    #[must_use]
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            cache_dir: self.cache_dir(),
            state_dir: default_state_dir(),
            threads: self.globals.threads.or(self.settings.threads).unwrap_or(0),
            ..OpenOptions::default()
        }
    }

    /// Gives the folder of local caches that was asked for; none for the usual one.
    #[must_use]
    pub fn cache_dir(&self) -> Option<std::path::PathBuf> {
        let named = self.globals.cache_dir.clone();
        named
            .or_else(|| process_env("LARDER_CACHE_DIR").map(Into::into))
            .or_else(|| self.settings.cache_dir.clone())
    }

    /// Begins to show the progress of a long job.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        let globals = &self.globals;
        let wanted = !globals.quiet && !globals.no_progress;
        let wanted = wanted && self.settings.progress.unwrap_or(true);
        Reporter::new(if globals.json {
            Mode::Json {
                status: !globals.quiet && !globals.no_progress,
            }
        } else if wanted && globals.verbose == 0 && std::io::stderr().is_terminal() {
            Mode::Bar
        } else {
            Mode::Silent
        })
    }

    /// Gives the flag that a long job looks at; from now on the first signal only sets it.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        self.interrupt.graceful()
    }
}

/// Gives the variables of the environment that are text.
#[must_use]
pub fn text_env() -> BTreeMap<String, Zeroizing<String>> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let value = Zeroizing::new(value.into_string().ok()?);
            Some((name.into_string().ok()?, value))
        })
        .collect()
}

/// Parses how a person names a snapshot.
///
/// # Errors
/// `Request`, with what is wrong and an example.
pub fn parse_spec(text: &std::ffi::OsStr) -> anyhow::Result<Spec> {
    Ok(Spec::parse(text, &Zoned::now())?)
}

/// Parses how a person names a whole snapshot, without a path in it.
///
/// # Errors
/// `Request`, with what is wrong and an example.
pub fn parse_whole(text: &std::ffi::OsStr) -> anyhow::Result<Which> {
    let spec = parse_spec(text)?;
    if spec.path.is_some() {
        bail!(
            "'{}' names a path in a snapshot; leave the path away",
            text.display()
        );
    }
    Ok(spec.which)
}

/// What a command looks at.
pub struct Picked {
    /// The snapshots: one, or with `--at` one or more, each with those sources alone that are meant.
    pub snapshots: Vec<SnapshotInfo>,
    /// The path in them; none for all.
    pub path: Option<Vec<u8>>,
}

/// Finds what a person means by `SNAPSHOT[:PATH]`, or with `--at` by the path alone.
///
/// # Errors
/// What the engine answers: nothing found, or more than one; or a time that is none.
pub fn pick(
    repository: &Repository,
    named: Option<&std::ffi::OsStr>,
    at: Option<&str>,
    filter: &Filter,
) -> anyhow::Result<Picked> {
    let Some(at) = at else {
        let spec = parse_spec(named.context("name a snapshot, or a time by --at")?)?;
        return Ok(Picked {
            snapshots: vec![resolve(repository, &spec, filter)?],
            path: spec.path,
        });
    };
    let time = snapshots::parse_time(at, &Zoned::now()).context("--at")?;
    let path = named.map(path_at).transpose()?;
    let snapshots = snapshots::at(repository, time, filter, path.as_deref())?;
    Ok(Picked { snapshots, path })
}

/// Gives the path that stands alone beside `--at`: a URL as it is, all else made absolute.
fn path_at(named: &std::ffi::OsStr) -> anyhow::Result<Vec<u8>> {
    let bytes = named.as_bytes();
    if bytes.starts_with(b"latest") && !Path::new(named).exists() || bytes.starts_with(b"@[") {
        bail!(
            "'{}' names a snapshot; with --at give the path alone",
            named.display()
        );
    }
    if named.to_str().is_some_and(|named| named.contains("://")) {
        return Ok(bytes.to_vec());
    }
    let current = std::env::current_dir().context("cannot tell the current folder")?;
    let path = commands::backup::absolute(Path::new(named), &current)?;
    Ok(path.into_os_string().into_vec())
}

/// Finds the snapshot that is meant, and the path in it.
///
/// # Errors
/// What the engine answers: nothing found, or more than one.
pub fn resolve(
    repository: &Repository,
    spec: &Spec,
    filter: &Filter,
) -> anyhow::Result<SnapshotInfo> {
    Ok(snapshots::resolve(repository, &spec.which, filter)?)
}
