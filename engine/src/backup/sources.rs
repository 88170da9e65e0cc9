//! The sources of a backup, checked before anything is written.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::source::only::Only;
use crate::source::paths::{look, real_path};
use crate::source::select::{Excludes, Pattern, SelectOptions, Selection};

use super::BackupOptions;

/// A source that is there, with what is left out of it.
pub(super) struct Prepared {
    /// The path as it is recorded.
    pub name: Vec<u8>,
    /// The same as a path.
    pub path: PathBuf,
    /// What is left out.
    pub selection: Selection,
}

/// Checks every source and compiles what is left out of each.
pub(super) fn prepare(
    repository: &Repository,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Vec<Prepared>> {
    let only = !options.selection.only.is_empty();
    let mut paths = options.sources.clone();
    if only && paths.is_empty() {
        paths.push(PathBuf::from("/"));
    }
    if paths.is_empty() {
        return Err(EngineError::Request(
            "there is nothing to back up; name at least one source".to_owned(),
        ));
    }
    paths.sort();
    paths.dedup();
    refuse_nested(&paths)?;
    let own = repository_folder(repository);
    paths
        .into_iter()
        .map(|path| prepare_one(path, own.as_deref(), options, progress))
        .collect()
}

fn prepare_one(
    path: PathBuf,
    own: Option<&Path>,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Prepared> {
    if !path.is_absolute() {
        let shown = path.display();
        return Err(EngineError::Request(format!(
            "the source {shown} is not an absolute path"
        )));
    }
    look(&path).map_err(|source| EngineError::File {
        operation: "read the source",
        path: path.clone(),
        source,
    })?;
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
        path,
        selection,
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

/// Refuses a source inside another: every path would be there twice.
fn refuse_nested(paths: &[PathBuf]) -> Result<()> {
    for pair in paths.windows(2) {
        if let [outer, inner] = pair
            && inner.starts_with(outer)
        {
            return Err(EngineError::Request(format!(
                "the source {} lies inside the source {}; name one of them",
                inner.display(),
                outer.display()
            )));
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
