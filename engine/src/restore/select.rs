//! Which entries are restored: include and exclude patterns.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::error::{EngineError, Result};
use crate::source::select::{Pattern, SelectOptions, Selection};

/// What is said of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is restored.
    Selected,
    /// It is restored only if it is a directory with something in it that is.
    OnlyAsParent,
    /// Neither it nor anything below it is restored.
    Excluded,
}

/// The compiled patterns, for one root.
pub(crate) struct Choice {
    include: Option<Selection>,
    exclude: Option<Selection>,
}

impl Choice {
    /// Compiles the patterns; `root` is the path that was backed up under the root's key.
    pub(crate) fn compile(include: &[String], exclude: &[String], root: &[u8]) -> Result<Self> {
        let plain = |texts: &[String]| {
            let pattern = |text: &String| Pattern {
                text: text.clone(),
                ignore_case: false,
                origin: None,
            };
            texts.iter().map(pattern).collect()
        };
        Ok(Self {
            include: selection(plain(include), root)?,
            exclude: selection(plain(exclude), root)?,
        })
    }

    /// Compiles patterns of what is excluded, of everything that is in a root.
    pub(crate) fn excluding(patterns: &[Pattern], root: &[u8]) -> Result<Self> {
        Ok(Self {
            include: None,
            exclude: selection(patterns.to_vec(), root)?,
        })
    }

    /// Decides on a key relative to the root; a directory's ends in `/`.
    pub(crate) fn verdict(&self, key: &[u8]) -> Verdict {
        let matched = |selection: &Selection, stop_at_match: bool| {
            let mut last = None;
            for (path, is_folder) in prefixes(key) {
                last = selection.verdict(path, is_folder).or(last);
                if stop_at_match && last == Some(true) {
                    break;
                }
            }
            last == Some(true)
        };
        if let Some(exclude) = &self.exclude
            && matched(exclude, true)
        {
            return Verdict::Excluded;
        }
        match &self.include {
            Some(include) if !matched(include, false) => Verdict::OnlyAsParent,
            _ => Verdict::Selected,
        }
    }
}

/// Compiles patterns; none match nothing.
fn selection(patterns: Vec<Pattern>, root: &[u8]) -> Result<Option<Selection>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let select = SelectOptions {
        patterns,
        ..SelectOptions::default()
    };
    Selection::compile(select, Path::new(OsStr::from_bytes(root)))
        .map(Some)
        .map_err(|error| EngineError::Request(error.to_string()))
}

/// Gives every path from the first component down to the whole key, and whether it is a folder.
fn prefixes(key: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let (whole, is_folder) = match key.strip_suffix(b"/") {
        Some(path) => (path, true),
        None => (key, false),
    };
    let slashes = whole.iter().enumerate();
    slashes
        .filter(|(_, byte)| **byte == b'/')
        .map(move |(end, _)| (whole.get(..end).unwrap_or_default(), true))
        .chain((!whole.is_empty()).then_some((whole, is_folder)))
}
