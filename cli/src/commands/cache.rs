//! `larder cache`.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::render::{self, Side, Table};
use crate::settings::{Env, process_env};

/// List or remove local caches
///
/// A cache holds what larder need not fetch again. Deleting one costs time, never data. Without a
/// command they are listed.
///
/// Example: larder cache clean
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the caches with their size
    List,
    /// Remove caches: all, or those named
    Clean {
        /// Names of caches, or beginnings of them, as `larder cache list` shows them
        names: Vec<String>,
        /// Say what would be removed, and remove nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// One cache; its folder is named after the repository and its replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Cache {
    name: String,
    repository: String,
    size: u64,
    used: Option<String>,
    path: String,
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Serialize)]
struct Cleaned {
    removed: Vec<Cache>,
    size: u64,
    dry_run: bool,
}

/// Lists or removes caches.
///
/// # Errors
/// When the folder of caches cannot be read, or a cache not removed.
pub fn run(context: &Context, args: &CacheArgs) -> anyhow::Result<Exit> {
    let root = match context.cache_dir() {
        Some(folder) => folder,
        None => usual_root(&process_env).context(
            "cannot tell where caches live: neither XDG_CACHE_HOME nor HOME is set; use --cache-dir",
        )?,
    };
    let caches = caches(&root)?;
    match &args.what {
        None | Some(What::List) => show(context, &caches, &root)?,
        Some(What::Clean { names, dry_run }) => clean(context, &chosen(caches, names)?, *dry_run)?,
    }
    Ok(Exit::Success)
}

fn usual_root(env: Env) -> Option<PathBuf> {
    let cache = env("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(env("HOME")?).join(".cache")))?;
    Some(cache.join("larder"))
}

/// Finds the caches; other things in the folder are not looked at, so a wrong `--cache-dir`
/// harms nothing.
fn caches(root: &Path) -> anyhow::Result<Vec<Cache>> {
    let tried = || format!("cannot read the folder of caches {}", root.display());
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(tried),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(tried)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().with_context(tried)?.is_dir();
        let Some(repository) = repository_of(&name).filter(|_| is_folder) else {
            continue;
        };
        let mut used = None;
        let size = measure(&entry.path(), &mut used);
        found.push(Cache {
            repository: repository.to_owned(),
            name,
            size,
            used: used.map(|used: Timestamp| used.to_string()),
            path: entry.path().to_string_lossy().into_owned(),
            folder: entry.path(),
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Gives the repository's id if the name is one of a cache: two ids of 32 hex digits.
fn repository_of(name: &str) -> Option<&str> {
    let (repository, replica) = name.split_once('-')?;
    let is_id = |id: &str| {
        id.len() == 32
            && id
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    (is_id(repository) && is_id(replica)).then_some(repository)
}

/// Adds up what a folder takes on disk, and finds when it was last written; what vanishes while
/// it is looked at does not count.
fn measure(folder: &Path, used: &mut Option<Timestamp>) -> u64 {
    let mut size = 0_u64;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        size = size.saturating_add(metadata.blocks().saturating_mul(512));
        let time = metadata
            .modified()
            .ok()
            .and_then(|time| Timestamp::try_from(time).ok());
        *used = time.max(*used);
        if metadata.is_dir() {
            size = size.saturating_add(measure(&entry.path(), used));
        }
    }
    size
}

/// Picks the caches whose names begin as asked; all if nothing was asked.
fn chosen(caches: Vec<Cache>, names: &[String]) -> anyhow::Result<Vec<Cache>> {
    let missing = |name: &&String| !caches.iter().any(|cache| cache.name.starts_with(*name));
    if let Some(name) = names.iter().find(missing) {
        bail!("there is no cache whose name begins with '{name}'; see `larder cache list`");
    }
    let named = |cache: &Cache| names.iter().any(|name| cache.name.starts_with(name));
    Ok(caches
        .into_iter()
        .filter(|cache| names.is_empty() || named(cache))
        .collect())
}

fn show(context: &Context, caches: &[Cache], root: &Path) -> anyhow::Result<()> {
    if context.json() {
        return output::json(&caches);
    }
    let zone = TimeZone::system();
    let row = |cache: &Cache| {
        let used = cache.used.as_ref().and_then(|used| used.parse().ok());
        let used = used.map_or_else(|| "-".to_owned(), |used| render::time(used, &zone));
        [cache.name.clone(), used, render::size(cache.size)]
            .map(|cell| vec![cell])
            .to_vec()
    };
    let total = caches.iter().map(|cache| cache.size).sum();
    let number = render::counted(caches.len() as u64, "cache", "caches");
    let table = Table {
        columns: &[
            ("Repository and replica", Side::Left),
            ("Last used", Side::Left),
            ("Size", Side::Right),
        ],
        rows: caches.iter().map(row).collect(),
        footer: format!("{number} in {}, {}", root.display(), render::size(total)),
    };
    let mut out = Output::new();
    table.write(&mut out)?;
    Ok(io::Write::flush(&mut out)?)
}

fn clean(context: &Context, caches: &[Cache], dry_run: bool) -> anyhow::Result<()> {
    for cache in caches.iter().filter(|_| !dry_run) {
        let tried = || format!("cannot remove the cache {}", cache.path);
        std::fs::remove_dir_all(&cache.folder).with_context(tried)?;
    }
    let size = caches.iter().map(|cache| cache.size).sum();
    if context.json() {
        return output::json(&Cleaned {
            removed: caches.to_vec(),
            size,
            dry_run,
        });
    }
    if context.talks() {
        let verb = if dry_run { "would remove" } else { "removed" };
        let number = render::counted(caches.len() as u64, "cache", "caches");
        output::line(&format!("{verb} {number}, {}", render::size(size)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_folders_that_are_caches_are_found_and_chosen() {
        let root = tempfile::tempdir().unwrap();
        let name = |digit: &str| format!("{}-{}", digit.repeat(32), "0".repeat(32));
        for folder in [name("a"), name("b"), "letters".into(), name("A")] {
            std::fs::create_dir_all(root.path().join(&folder).join("index")).unwrap();
            std::fs::write(root.path().join(&folder).join("index/x"), [1; 5000]).unwrap();
        }
        std::fs::write(root.path().join(name("c")), "a file").unwrap();
        let found = caches(root.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|cache| cache.name.as_str()).collect();
        assert_eq!(names, [name("a"), name("b")]);
        assert!(
            found
                .iter()
                .all(|cache| cache.size >= 5000 && cache.used.is_some())
        );

        assert_eq!(chosen(found.clone(), &[]).unwrap(), found);
        assert_eq!(
            chosen(found.clone(), &["b".into()]).unwrap(),
            found.get(1..).unwrap()
        );
        assert!(chosen(found, &["f".into()]).is_err());
        assert!(caches(&root.path().join("nowhere")).unwrap().is_empty());
    }
}
