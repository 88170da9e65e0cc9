//! Choosing what is read: patterns, marks in folders, sizes, file systems.
//!
//! Patterns are those of gitignore(5): the last one that matches decides, `!` takes a match
//! back, `/` at the start or in the middle ties a pattern to the source, and nothing below an
//! excluded folder can be taken back. A pattern that begins with the source's own absolute path
//! is tied there as well, so `--exclude /home/me/.cache` does what it says for `/home/me`. The
//! source itself is never excluded. What the options say goes before what ignore files in
//! folders say, and the deepest of those that says something decides.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::only::Only;

/// First bytes of a file `CACHEDIR.TAG` that marks a cache (bford.info/cachedir).
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// A pattern and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern as it was written.
    pub text: String,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// The file and line (from 1) that it was read from; none for an option.
    pub origin: Option<(PathBuf, usize)>,
}

/// What a person asked for.
#[derive(Debug, Clone, Default)]
pub struct SelectOptions {
    /// What is excluded; later patterns win.
    pub patterns: Vec<Pattern>,
    /// Names of files that hold patterns for the folder they lie in.
    pub ignore_file_names: Vec<String>,
    /// `NAME` or `NAME:HEADER`: a folder that holds such a file is kept with that file alone.
    pub exclude_if_present: Vec<String>,
    /// The same for `CACHEDIR.TAG` with its signature.
    pub exclude_caches: bool,
    /// Regular files of more bytes than this are left out.
    pub exclude_larger_than_bytes: Option<u64>,
    /// Mount points are kept as folders, without what is mounted there.
    pub one_file_system: bool,
    /// An exact list of what is to be read.
    pub only: Option<Only>,
}

/// A choice that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A pattern is no glob.
    #[error("the pattern {text:?}{} is not valid: {reason}", origin_text(.origin.as_ref()))]
    Pattern {
        /// The pattern as it was written.
        text: String,
        /// The file and line that it was read from.
        origin: Option<(PathBuf, usize)>,
        /// What is wrong with it.
        reason: String,
    },
    /// All patterns together are too much.
    #[error("the patterns cannot be used together: {0}")]
    Patterns(String),
    /// A name of a marking file or ignore file is not one of a file in a folder.
    #[error("{0:?} is not the name of a file: give a name without \"/\"")]
    Name(String),
    /// A file of patterns cannot be read.
    #[error("cannot read the pattern file {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

fn origin_text(origin: Option<&(PathBuf, usize)>) -> String {
    origin.map_or_else(String::new, |(path, line)| {
        format!(" ({} line {line})", path.display())
    })
}

/// Patterns as a person gives them: as options, and in files.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    /// gitignore-style patterns; `!` takes back.
    pub exclude: Vec<String>,
    /// The same, whatever the case.
    pub iexclude: Vec<String>,
    /// Files with such patterns, one a line.
    pub exclude_files: Vec<PathBuf>,
    /// The same, whatever the case.
    pub iexclude_files: Vec<PathBuf>,
}

impl Excludes {
    /// Gathers all patterns: those of options before those of files.
    ///
    /// # Errors
    /// If a file cannot be read or is not UTF-8.
    pub fn patterns(&self) -> Result<Vec<Pattern>, SelectError> {
        let mut patterns = Vec::new();
        for (texts, ignore_case) in [(&self.exclude, false), (&self.iexclude, true)] {
            patterns.extend(texts.iter().map(|text| Pattern {
                text: text.clone(),
                ignore_case,
                origin: None,
            }));
        }
        for (files, ignore_case) in [(&self.exclude_files, false), (&self.iexclude_files, true)] {
            for file in files {
                patterns.extend(read_pattern_file(file, ignore_case)?);
            }
        }
        Ok(patterns)
    }
}

/// Reads a file of patterns, one a line; empty lines and lines with `#` in front say nothing.
///
/// # Errors
/// If the file cannot be read or is not UTF-8.
pub fn read_pattern_file(path: &Path, ignore_case: bool) -> Result<Vec<Pattern>, SelectError> {
    let text = std::fs::read_to_string(path).map_err(|error| SelectError::File {
        path: path.to_path_buf(),
        error,
    })?;
    let lines = text.trim_start_matches('\u{feff}').lines().zip(1..);
    Ok(lines
        .filter(|(line, _)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(line, number)| Pattern {
            text: line.to_owned(),
            ignore_case,
            origin: Some((path.to_path_buf(), number)),
        })
        .collect())
}

/// A compiled choice for one source.
#[derive(Debug, Clone)]
pub struct Selection {
    patterns: Gitignore,
    pub(super) ignore_file_names: Vec<String>,
    pub(super) marks: Vec<Mark>,
    pub(super) size_bytes_max: Option<u64>,
    pub(super) one_file_system: bool,
    pub(super) only: Option<Only>,
}

/// A file whose presence excludes what else lies in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) name: Vec<u8>,
    /// What the file has to begin with.
    pub(super) header: Vec<u8>,
}

impl Selection {
    /// Compiles what was asked for, for the source at the absolute path `source`.
    ///
    /// # Errors
    /// A bad pattern or name, by its text.
    pub fn compile(options: SelectOptions, source: &Path) -> Result<Self, SelectError> {
        let mut marks = Vec::new();
        for text in &options.exclude_if_present {
            let (name, header) = text.split_once(':').unwrap_or((text, ""));
            check_name(name)?;
            marks.push(Mark {
                name: name.into(),
                header: header.into(),
            });
        }
        if options.exclude_caches {
            marks.push(Mark {
                name: b"CACHEDIR.TAG".into(),
                header: CACHE_SIGNATURE.into(),
            });
        }
        for name in &options.ignore_file_names {
            check_name(name)?;
        }
        Ok(Self {
            patterns: compile_patterns(&options.patterns, source)?,
            ignore_file_names: options.ignore_file_names,
            marks,
            size_bytes_max: options.exclude_larger_than_bytes,
            one_file_system: options.one_file_system,
            only: options.only,
        })
    }

    /// Tells what the patterns of the options say of a path relative to the source: excluded,
    /// taken back, or nothing.
    pub(crate) fn verdict(&self, path: &[u8], is_folder: bool) -> Option<bool> {
        verdict(&self.patterns, path, is_folder)
    }
}

/// Tells what a matcher says of a path relative to its folder: excluded, taken back, or nothing.
pub(super) fn verdict(patterns: &Gitignore, path: &[u8], is_folder: bool) -> Option<bool> {
    match patterns.matched(OsStr::from_bytes(path), is_folder) {
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
        Match::None => None,
    }
}

/// Compiles an ignore file; lines that are not valid are left out and given with the reason.
pub(super) fn compile_ignore_file(bytes: &[u8]) -> (Gitignore, Vec<String>) {
    let mut builder = GitignoreBuilder::new("");
    let mut errors = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let result = std::str::from_utf8(line)
            .map_err(|error| error.to_string())
            .and_then(|line| {
                builder
                    .add_line(None, line)
                    .map(|_| ())
                    .map_err(|error| error.to_string())
            });
        if let Err(reason) = result {
            errors.push(format!("line {number}: {reason}"));
        }
    }
    let compiled = builder.build().unwrap_or_else(|error| {
        errors.push(error.to_string());
        Gitignore::empty()
    });
    (compiled, errors)
}

fn compile_patterns(patterns: &[Pattern], source: &Path) -> Result<Gitignore, SelectError> {
    let mut builder = GitignoreBuilder::new("");
    // A bracket that is never closed is rather a mistake than a name.
    builder.allow_unclosed_class(false);
    for pattern in patterns {
        let line = tie_to_source(pattern, source);
        let added = builder
            .case_insensitive(pattern.ignore_case)
            .and_then(|builder| builder.add_line(None, &line));
        if let Err(error) = added {
            let reason = match error {
                ignore::Error::Glob { err, .. } => err,
                error => error.to_string(),
            };
            let origin = pattern.origin.clone();
            return Err(SelectError::Pattern {
                text: pattern.text.clone(),
                origin,
                reason,
            });
        }
    }
    builder
        .build()
        .map_err(|error| SelectError::Patterns(error.to_string()))
}

/// Rewrites a pattern that begins with the source's path to one that is relative to it.
fn tie_to_source<'a>(pattern: &'a Pattern, source: &Path) -> Cow<'a, str> {
    let text = pattern.text.as_str();
    let (sign, path) = text
        .strip_prefix('!')
        .map_or(("", text), |path| ("!", path));
    let source = source.to_str().map(|source| source.trim_end_matches('/'));
    let inside = source
        .filter(|source| !source.is_empty())
        .and_then(|source| path.strip_prefix(source))
        .filter(|inside| inside.starts_with('/') && inside.len() > 1);
    match inside {
        Some(inside) => Cow::Owned(format!("{sign}{inside}")),
        // Only a file has comments: an option is meant.
        None if pattern.origin.is_none() && text.starts_with('#') => {
            Cow::Owned(format!("\\{text}"))
        }
        None => Cow::Borrowed(text),
    }
}

fn check_name(name: &str) -> Result<(), SelectError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(SelectError::Name(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn patterns(texts: &[&str], ignore_case: bool) -> SelectOptions {
        let pattern = |text: &&str| Pattern {
            text: (*text).to_owned(),
            ignore_case,
            origin: None,
        };
        SelectOptions {
            patterns: texts.iter().map(pattern).collect(),
            ..SelectOptions::default()
        }
    }

    fn excludes(texts: &[&str], path: &str) -> bool {
        let compiled = Selection::compile(patterns(texts, false), Path::new("/home/me")).unwrap();
        let (path, is_folder) = path
            .strip_suffix('/')
            .map_or((path, false), |path| (path, true));
        compiled.verdict(path.as_bytes(), is_folder) == Some(true)
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        for (texts, path, expected) in [
            (&["*.o"][..], "a/b/x.o", true),
            (&["*.o"], "a/b/x.oo", false),
            (&["*.o", "!keep.o"], "a/keep.o", false),
            (&["!keep.o", "*.o"], "a/keep.o", true),
            (&["/top"], "top", true),
            (&["/top"], "a/top", false),
            (&["a/b"], "a/b", true),
            (&["a/b"], "c/a/b", false),
            (&["**/a/b"], "c/a/b", true),
            (&["target/"], "x/target/", true),
            (&["target/"], "x/target", false),
            (&["a/**/z"], "a/b/c/z", true),
            (&["a/*/z"], "a/b/c/z", false),
            (&["x?[a-c]"], "xyb", true),
            (&["x?[!a-c]"], "xyb", false),
            (&["#old"], "#old", true),
            (&["\\!odd"], "!odd", true),
            (&["a\\*"], "ab", false),
            (&["with\nline"], "with\nline", true),
            (&["/home/me/.cache"], ".cache/", true),
            (&["/home/me/.cache"], "x/.cache/", false),
            (&["*", "!/home/me/keep"], "keep/", false),
            (&["/home/mean"], "an", false),
            (&["/home/me"], "x", false),
        ] {
            assert_eq!(excludes(texts, path), expected, "{texts:?} {path:?}");
        }
    }

    #[test]
    fn case_counts_unless_asked_otherwise() {
        let compile =
            |ignore_case| Selection::compile(patterns(&["*.JPG"], ignore_case), Path::new("/"));
        assert_eq!(compile(false).unwrap().verdict(b"a.jpg", false), None);
        assert_eq!(compile(true).unwrap().verdict(b"a.jpg", false), Some(true));
    }

    #[test]
    fn names_need_not_be_text() {
        let compiled = Selection::compile(patterns(&["*.o"], false), Path::new("/")).unwrap();
        assert_eq!(compiled.verdict(b"a/\xff\xfe.o", false), Some(true));
        assert_eq!(compiled.verdict(b"a/\xff\xfe", false), None);
    }

    #[test]
    fn a_bad_pattern_is_named_with_the_reason() {
        for bad in ["a[b", "x{a", "[z-a]"] {
            let error = Selection::compile(patterns(&[bad], false), Path::new("/")).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(&format!("{bad:?}")) && text.contains("not valid: "),
                "{text}"
            );
        }
        let origin = Some((PathBuf::from("list"), 7));
        let options = SelectOptions {
            patterns: vec![Pattern {
                text: "a[".into(),
                ignore_case: false,
                origin,
            }],
            ..SelectOptions::default()
        };
        let text = Selection::compile(options, Path::new("/"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("list line 7"), "{text}");
    }

    #[test]
    fn ignore_files_keep_their_good_lines() {
        let (compiled, errors) = compile_ignore_file(b"*.o\r\n{a\n# x\n\xff\n!k.o\n");
        assert_eq!(errors.len(), 2);
        assert!(
            errors.iter().any(|error| error.starts_with("line 2: ")),
            "{errors:?}"
        );
        assert_eq!(verdict(&compiled, b"x.o", false), Some(true));
        assert_eq!(verdict(&compiled, b"k.o", false), Some(false));
        assert_eq!(verdict(&compiled, b"x", false), None);
    }

    #[test]
    fn marks_are_names() {
        let options = |text: &str| SelectOptions {
            exclude_if_present: vec![text.to_owned()],
            ..SelectOptions::default()
        };
        let compiled = Selection::compile(options(".nobackup:head:er"), Path::new("/")).unwrap();
        let expected = Mark {
            name: b".nobackup".into(),
            header: b"head:er".into(),
        };
        assert_eq!(compiled.marks, [expected]);
        for bad in ["", "a/b", "..", ":x"] {
            assert!(
                Selection::compile(options(bad), Path::new("/")).is_err(),
                "{bad:?}"
            );
        }
    }
}
