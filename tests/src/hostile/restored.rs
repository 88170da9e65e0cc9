//! What restores wrote, compared with what the snapshots' own trees say; and what they must not have touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use larder_format::cell::{Cell, Source};
use larder_format::entry::{Entry, EntryType};

use super::forge::Forge;
use super::truth::{self, COMPARED_BYTES_MAX};

/// Files below a target: their paths in it, and what they hold as far as that is compared.
pub type Files = BTreeMap<Vec<u8>, Held>;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many that nobody compares them.
    Long(u64),
}

/// Reads all regular files below a folder, through no link.
pub fn files_below(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let Ok(listing) = fs::read_dir(&next) else {
            continue;
        };
        for item in listing {
            let path = item.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() {
                let name = path.strip_prefix(folder).unwrap();
                let name = name.as_os_str().as_bytes().to_vec();
                let held = match metadata.len() > COMPARED_BYTES_MAX {
                    true => Held::Long(metadata.len()),
                    false => Held::Bytes(fs::read(&path).unwrap()),
                };
                files.insert(name, held);
            }
        }
    }
    files
}

/// What trees say of the files that a restore of a snapshot makes.
#[derive(Default)]
pub struct Expected {
    /// Entries that a path may be of: several only if sources or hard links overlap.
    files: BTreeMap<Vec<u8>, Vec<Entry>>,
    /// Whether all that the trees have is known.
    pub is_whole: bool,
}

/// Tells what a restore of all sources of a cell may write.
pub fn expected(forge: &Forge, cell: &Cell) -> Expected {
    let mut expected = Expected {
        is_whole: true,
        ..Expected::default()
    };
    for source in &cell.sources {
        let truth = truth::read(forge, source);
        expected.is_whole &= truth.is_whole;
        let place = place_of(source);
        for entry in truth.entries.values() {
            if !matches!(entry.kind, EntryType::File | EntryType::Object) {
                continue;
            }
            let parts = [place.as_slice(), entry.key.as_slice()];
            let path: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            let path = path.join(&b'/');
            let group = |other: &&Entry| {
                other.key == entry.key
                    || (entry.is_hard_linked()
                        && other.is_hard_linked()
                        && (other.filesystem, other.inode) == (entry.filesystem, entry.inode))
            };
            let entries = truth.entries.values().filter(group).cloned();
            expected.files.entry(path).or_default().extend(entries);
        }
    }
    expected
}

/// Gives the folder below the target that a source goes to.
pub fn place_of(source: &Source) -> Vec<u8> {
    let is_part = |part: &&[u8]| !part.is_empty();
    let parts = source
        .path
        .split(|byte| *byte == b'/' || (*byte == b':' && is_url(&source.path)));
    let parts: Vec<&[u8]> = parts.filter(is_part).collect();
    parts.join(&b'/')
}

fn is_url(path: &[u8]) -> bool {
    path.windows(3).any(|three| three == b"://")
}

impl Expected {
    /// Fails if a file was written that no tree has, or that holds something else than its tree says.
    pub fn judge(&self, forge: &Forge, found: &Files) -> Result<(), String> {
        for (path, held) in found {
            let shown = String::from_utf8_lossy(path);
            let Some(entries) = self.files.get(path) else {
                return Err(format!("{shown} is in no tree"));
            };
            let is_right = |entry: &Entry| match (held, truth::bytes_of(forge, entry)) {
                (Held::Bytes(bytes), Some(right)) => *bytes == right,
                (Held::Long(length), None) => *length == entry.size,
                _ => false,
            };
            if !entries.iter().any(is_right) {
                return Err(format!("{shown} has wrong bytes; {entries:?}"));
            }
        }
        Ok(())
    }

    /// Gives a file that a restore without any failure should have written and has not.
    pub fn missing(&self, found: &Files) -> Option<String> {
        let paths = self.files.keys();
        let mut missing = paths.filter(|path| !found.contains_key(*path));
        missing
            .next()
            .map(|path| String::from_utf8_lossy(path).into_owned())
    }
}

/// Describes everything below a folder, to the last time stamp.
pub fn observe(folder: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode();
        let (mtime, ctime) = (metadata.mtime_nsec(), metadata.ctime_nsec());
        let (seconds, links) = (metadata.ctime(), metadata.nlink());
        seen.push(format!(
            "{path:?} {mode:o} {mtime} {seconds}.{ctime} {links}"
        ));
        if metadata.is_dir() {
            paths.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|item| item.unwrap().path()),
            );
        } else if metadata.is_file() {
            seen.push(format!("{:?}", fs::read(&path).unwrap()));
        }
    }
    seen.sort();
    seen
}
