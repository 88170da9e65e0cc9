//! An exact list of what is to be read (`--files-from`, `--files-from0`).
//!
//! The list is relative to the source. The folders above a listed path are visited for their
//! metadata alone; a listed folder is taken with all that is below it; the source itself is
//! always an entry. Exclusions count for listed paths as for any other. A listed path that is
//! not there is an issue of the walk, and so is one that leads through a symbolic link: links
//! are not followed. The list is kept in memory.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Listed paths relative to a source, sorted folder by folder, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Only {
    /// Without `/` at the end; the empty path is the whole source.
    paths: Vec<Vec<u8>>,
}

/// A listed path that cannot be one of the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnlyError {
    /// The path lies elsewhere.
    #[error(
        "the listed path {} is not below the source {}: name a source that holds it",
        path.display(), source_path.display()
    )]
    Outside {
        /// The path as it was listed.
        path: PathBuf,
        /// The source.
        source_path: PathBuf,
    },
    /// The path has a component `..`, whose meaning depends on symbolic links.
    #[error("the listed path {} contains \"..\": write it without", .0.display())]
    Parent(PathBuf),
}

impl Only {
    /// Takes the lines of a file, separated by newlines or, if `separator` is 0, by NUL.
    ///
    /// Empty lines are skipped and a carriage return is part of the name. Absolute paths have
    /// to be below `source`; relative ones are relative to it, whatever the working directory.
    ///
    /// # Errors
    /// The first path that is not one of the source.
    pub fn from_lines(bytes: &[u8], separator: u8, source: &Path) -> Result<Self, OnlyError> {
        let mut paths = Vec::new();
        for line in bytes
            .split(|byte| *byte == separator)
            .filter(|line| !line.is_empty())
        {
            paths.push(relative(Path::new(OsStr::from_bytes(line)), source)?);
        }
        Ok(Self::from_paths(paths))
    }

    fn from_paths(mut paths: Vec<Vec<u8>>) -> Self {
        paths.sort_unstable_by(|a, b| compare(a, b));
        paths.dedup();
        Self { paths }
    }

    /// Gives the part of the list that is below the source, or none if all of it is listed.
    pub(super) fn start(&self) -> Option<Range<usize>> {
        let whole = self.paths.first().is_some_and(Vec::is_empty);
        (!whole).then_some(0..self.paths.len())
    }

    /// Calls `take` with each name that is listed in a folder, and whether it must be a folder
    /// itself; `part` is the folder's part of the list, and its key has `key_length` bytes.
    pub(super) fn children<E>(
        &self,
        part: Range<usize>,
        key_length: usize,
        mut take: impl FnMut(&[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut last: Option<(&[u8], bool)> = None;
        for path in self.paths.get(part).unwrap_or_default() {
            let (name, is_longer) = first_name(path, key_length);
            match &mut last {
                Some((same, must_be_folder)) if *same == name => *must_be_folder |= is_longer,
                _ => {
                    if let Some((name, must_be_folder)) = last.replace((name, is_longer)) {
                        take(name, must_be_folder)?;
                    }
                }
            }
        }
        last.map_or(Ok(()), |(name, must_be_folder)| take(name, must_be_folder))
    }

    /// Gives the part of the list below the folder `name`, or none if all of it is listed.
    pub(super) fn below(
        &self,
        part: Range<usize>,
        key_length: usize,
        name: &[u8],
    ) -> Option<Range<usize>> {
        let paths = self.paths.get(part.clone()).unwrap_or_default();
        let before = paths.partition_point(|path| first_name(path, key_length).0 < name);
        let after = paths.partition_point(|path| first_name(path, key_length).0 <= name);
        let is_listed = paths
            .get(before)
            .is_some_and(|path| path.len() == key_length + name.len() && before < after);
        (!is_listed).then_some(part.start + before..part.start + after)
    }
}

fn relative(path: &Path, source: &Path) -> Result<Vec<u8>, OnlyError> {
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(OnlyError::Parent(path.to_path_buf()));
    }
    let inside = if path.is_absolute() {
        path.strip_prefix(source).map_err(|_| OnlyError::Outside {
            path: path.to_path_buf(),
            source_path: source.to_path_buf(),
        })?
    } else {
        path
    };
    let mut relative = Vec::with_capacity(inside.as_os_str().len());
    for part in inside.components() {
        if let Component::Normal(name) = part {
            if !relative.is_empty() {
                relative.push(b'/');
            }
            relative.extend_from_slice(name.as_bytes());
        }
    }
    Ok(relative)
}

/// Orders paths name by name, so that what is below a folder stays together.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|byte| *byte == b'/')
        .cmp(b.split(|byte| *byte == b'/'))
}

fn first_name(path: &[u8], key_length: usize) -> (&[u8], bool) {
    let rest = path.get(key_length..).unwrap_or_default();
    match rest.iter().position(|byte| *byte == b'/') {
        Some(end) => (rest.get(..end).unwrap_or_default(), true),
        None => (rest, false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn children(only: &Only, part: Range<usize>, key_length: usize) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        only.children::<()>(part, key_length, |name, is_folder| {
            all.push((String::from_utf8(name.to_vec()).unwrap(), is_folder));
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn lists_are_walked_folder_by_folder() {
        let lines = b"/s/a/x\na.c\n\n./a/b//c\n/s/a/b\nzz/\n";
        let only = Only::from_lines(lines, b'\n', Path::new("/s")).unwrap();
        let part = only.start().unwrap();
        let expected = [
            ("a".into(), true),
            ("a.c".into(), false),
            ("zz".into(), false),
        ];
        assert_eq!(children(&only, part.clone(), 0), expected);
        assert_eq!(only.below(part.clone(), 0, b"zz"), None);
        let below = only.below(part, 0, b"a").unwrap();
        assert_eq!(
            children(&only, below.clone(), 2),
            [("b".into(), true), ("x".into(), false)]
        );
        assert_eq!(only.below(below, 2, b"b"), None);
    }

    #[test]
    fn names_may_hold_newlines_when_nul_separates() {
        let only = Only::from_lines(b"a\nb\0c\0", 0, Path::new("/s")).unwrap();
        let expected = [("a\nb".into(), false), ("c".into(), false)];
        assert_eq!(children(&only, only.start().unwrap(), 0), expected);
    }

    #[test]
    fn paths_elsewhere_are_refused_by_name() {
        let refused = |line: &[u8]| Only::from_lines(line, b'\n', Path::new("/s")).unwrap_err();
        assert!(refused(b"/t/x").to_string().contains("/t/x"));
        assert!(matches!(refused(b"/sx"), OnlyError::Outside { .. }));
        assert!(matches!(refused(b"a/../b"), OnlyError::Parent(_)));
        let whole = Only::from_lines(b"x\n/s/\n", b'\n', Path::new("/s")).unwrap();
        assert_eq!(whole.start(), None);
    }
}
