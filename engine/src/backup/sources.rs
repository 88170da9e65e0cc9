//! The sources of a backup, checked before anything is written.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshots::clean_path;
use crate::source::only::Only;
use crate::source::paths::{look, real_path};
use crate::source::select::{Excludes, Pattern, SelectOptions, Selection};
use crate::storage::bucket::Bucket;

use super::keys::LeftOut;
use super::{BackupOptions, Server, Stream};

/// Bytes of a file's name at most, on all usual file systems.
const NAME_BYTES_MAX: usize = 255;

/// What is tried first with each.
pub(super) const READ_SOURCE: &str = "read the source";

/// A source that is there.
pub(super) struct Prepared {
    /// The path, or the bucket, as it is recorded.
    pub name: Vec<u8>,
    /// Where it is.
    pub place: Place,
}

/// Where a source is.
pub(super) enum Place {
    /// Below a path of this machine, and what is left out of it.
    Folder(PathBuf, Box<Selection>),
    /// In a bucket, and what is left out of it.
    Bucket(Arc<dyn Bucket>, Arc<LeftOut>),
    /// What comes out of a stream.
    Stream(Stream),
    /// What the programs of a database server print.
    Database(Server),
}

/// The sources that were asked for.
pub(super) struct Sources {
    /// Those that are there.
    pub there: Vec<Prepared>,
    /// The names of those that are not, though others are.
    pub missing: Vec<Vec<u8>>,
}

impl Sources {
    /// Gives the names of all, whether they are there or not.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let there = self.there.iter().map(|source| source.name.as_slice());
        there.chain(self.missing.iter().map(Vec::as_slice))
    }
}

/// Checks every source and compiles what is left out of each.
pub(super) fn prepare(
    repository: &Repository,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Sources> {
    let only = !options.selection.only.is_empty();
    let mut paths = options.sources.clone();
    if only && paths.is_empty() {
        paths.push(PathBuf::from("/"));
    }
    let buckets = &options.buckets.sources;
    let streams = &options.streams.sources;
    let databases = &options.streams.databases;
    let others = buckets.len() + streams.len() + databases.len();
    if paths.is_empty() && others == 0 {
        return Err(EngineError::Request(
            "there is nothing to back up; name at least one source".to_owned(),
        ));
    }
    paths.sort();
    paths.dedup();
    refuse_relative(&paths)?;
    refuse_nested(&paths, streams)?;
    // One that is not there keeps no other from being backed up.
    let may_miss = others > 0 || paths.iter().any(|path| look(path).is_ok());
    let own = repository_folder(repository);
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for path in paths {
        match look(&path) {
            Ok(()) => there.push(prepare_one(path, own.as_deref(), options, progress)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_miss => {
                missing.push(path.into_os_string().into_vec());
            }
            Err(source) => {
                return Err(EngineError::File {
                    operation: READ_SOURCE,
                    path,
                    source,
                });
            }
        }
    }
    there.extend(prepare_buckets(repository, options)?);
    there.extend(streams.iter().map(|stream| Prepared {
        name: stream.path.clone(),
        place: Place::Stream(stream.clone()),
    }));
    there.extend(prepare_databases(databases)?);
    let turn = |name: &Vec<u8>| {
        let mut order = options.streams.order.iter();
        order.position(|one| one == name).unwrap_or(usize::MAX)
    };
    there.sort_by_key(|source| (turn(&source.name), source.name.clone()));
    Ok(Sources { there, missing })
}

fn prepare_buckets(repository: &Repository, options: &BackupOptions) -> Result<Vec<Prepared>> {
    let buckets = &options.buckets.sources;
    let mut names: Vec<String> = buckets.iter().map(|bucket| bucket.describe()).collect();
    names.push(repository.location().to_owned());
    for (at, one) in names.iter().enumerate() {
        let others = names.iter().skip(at + 1);
        let within = |one: &str, two: &str| format!("{one}/").starts_with(&format!("{two}/"));
        for two in others {
            let is_repository = two == repository.location();
            if within(one, two) || within(two, one) {
                return Err(EngineError::Request(match is_repository {
                    true => format!(
                        "the bucket {one} and the repository {two} lie within each other; choose a prefix for each"
                    ),
                    false => format!(
                        "the buckets {one} and {two} lie within each other; name one of them"
                    ),
                }));
            }
        }
    }
    let select = select_options(options)?;
    let larger_than = select.exclude_larger_than_bytes;
    if options.buckets.changed_keys.is_some() {
        refuse_changed_keys(options, larger_than)?;
    }
    let sources = buckets.iter().map(|bucket| {
        let name = bucket.describe().into_bytes();
        let left_out = LeftOut::new(&select.patterns, larger_than, &name)?;
        Ok(Prepared {
            name,
            place: Place::Bucket(Arc::clone(bucket), Arc::new(left_out)),
        })
    });
    sources.collect()
}

/// Refuses changed keys that cannot be told from others, or not be left out by their size.
fn refuse_changed_keys(options: &BackupOptions, larger_than: Option<u64>) -> Result<()> {
    let why = match options.buckets.sources.len() {
        _ if options.force => "reading everything anew and only what changed exclude each other",
        _ if larger_than.is_some() => {
            "objects cannot be left out by their size where only the keys are known that changed"
        }
        1 => return Ok(()),
        _ => "changed keys are of one bucket, which has to be the only one that is backed up",
    };
    Err(EngineError::Request(why.to_owned()))
}

/// Refuses a database beside all of its server: it would be there twice.
fn prepare_databases(databases: &[Server]) -> Result<Vec<Prepared>> {
    let mut names: Vec<String> = databases.iter().map(Server::name).collect();
    names.sort();
    for pair in names.windows(2) {
        if let [one, two] = pair
            && format!("{two}/").starts_with(&format!("{one}/"))
        {
            return Err(EngineError::Request(format!(
                "the databases {one} and {two} lie within each other; name one of them"
            )));
        }
    }
    let sources = databases.iter().map(|server| Prepared {
        name: server.name().into_bytes(),
        place: Place::Database(server.clone()),
    });
    Ok(sources.collect())
}

fn prepare_one(
    path: PathBuf,
    own: Option<&Path>,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Prepared> {
    let mut select = select_options(options)?;
    if let Some(own) = own {
        let real = real_path(&path).unwrap_or_else(|| path.clone());
        if real.starts_with(own) {
            let (shown, own) = (path.display(), own.display());
            return Err(EngineError::Request(format!(
                "the source {shown} lies inside the repository {own}; choose another source or repository"
            )));
        }
        if let Ok(inside) = own.strip_prefix(&real) {
            progress.warning(&format!(
                "the repository {} lies inside the source {}; it is left out",
                own.display(),
                path.display()
            ));
            select.patterns.push(literal_pattern(inside)?);
        }
    }
    if !options.selection.only.is_empty() {
        let list = options.selection.only.iter();
        let lines: Vec<&[u8]> = list.map(|path| path.as_os_str().as_bytes()).collect();
        let only = Only::from_lines(&lines.join(&0), 0, &path);
        let only = only.map_err(|error| EngineError::Request(error.to_string()))?;
        select.only = Some(only);
    }
    let selection = Selection::compile(select, &path)
        .map_err(|error| EngineError::Request(error.to_string()))?;
    Ok(Prepared {
        name: path.as_os_str().as_bytes().to_vec(),
        place: Place::Folder(path, Box::new(selection)),
    })
}

fn select_options(options: &BackupOptions) -> Result<SelectOptions> {
    let chosen = &options.selection;
    let excludes = Excludes {
        exclude: chosen.exclude.clone(),
        iexclude: chosen.iexclude.clone(),
        exclude_files: chosen.exclude_files.clone(),
        iexclude_files: chosen.iexclude_files.clone(),
    };
    let patterns = excludes.patterns();
    let patterns = patterns.map_err(|error| EngineError::Request(error.to_string()))?;
    Ok(SelectOptions {
        patterns,
        ignore_file_names: chosen.ignore_file.clone().into_iter().collect(),
        exclude_if_present: chosen.exclude_if_present.clone(),
        exclude_caches: chosen.exclude_caches,
        exclude_larger_than_bytes: chosen.exclude_larger_than,
        one_file_system: chosen.one_file_system,
        ..SelectOptions::default()
    })
}

/// Makes a pattern that matches exactly one path below the source.
fn literal_pattern(inside: &Path) -> Result<Pattern> {
    let text = inside.to_str().ok_or_else(|| {
        EngineError::Request(format!(
            "the repository's folder {} lies inside the source and is not UTF-8; exclude it by hand",
            inside.display()
        ))
    })?;
    let mut escaped = String::from("/");
    for char in text.chars() {
        if "\\*?[]!# ".contains(char) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    Ok(Pattern {
        text: escaped,
        ignore_case: false,
        origin: None,
    })
}

fn refuse_relative(paths: &[PathBuf]) -> Result<()> {
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(EngineError::Request(format!(
            "the source {} is not an absolute path",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Refuses a source inside another: every path would be there twice.
fn refuse_nested(paths: &[PathBuf], streams: &[Stream]) -> Result<()> {
    for stream in streams {
        let path = &stream.path;
        let is_plain = path.starts_with(b"/") && path.len() > 1 && clean_path(path) == *path;
        let has_parents = path.split(|byte| *byte == b'/').any(|part| part == b"..");
        let is_long = path
            .split(|byte| *byte == b'/')
            .any(|part| part.len() > NAME_BYTES_MAX);
        if is_long {
            return Err(EngineError::Request(format!(
                "the name of a stream has a part of more than {NAME_BYTES_MAX} bytes, which no file can be called: '{}'",
                String::from_utf8_lossy(path)
            )));
        }
        if !is_plain || has_parents || path.contains(&0) {
            return Err(EngineError::Request(format!(
                "'{}' is no name for a stream; it has to be a path of names, e.g. db.sql or dumps/db.sql",
                String::from_utf8_lossy(path)
            )));
        }
    }
    let streams = streams.iter();
    let mut all: Vec<PathBuf> = streams
        .map(|stream| OsStr::from_bytes(&stream.path).into())
        .collect();
    all.extend_from_slice(paths);
    all.sort();
    for pair in all.windows(2) {
        if let [outer, inner] = pair
            && inner.starts_with(outer)
        {
            return Err(EngineError::Request(match outer == inner {
                true => format!("two sources have the name {}", outer.display()),
                false => format!(
                    "the source {} lies inside the source {}; name one of them",
                    inner.display(),
                    outer.display()
                ),
            }));
        }
    }
    Ok(())
}

/// Gives the folder of a repository that is on this machine.
fn repository_folder(repository: &Repository) -> Option<PathBuf> {
    let location = repository.location();
    let path = location.strip_prefix("file://").unwrap_or(location);
    real_path(Path::new(path))
}
