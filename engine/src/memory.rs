//! What this machine remembers of a repository, apart from every cache: the newest things that it
//! saw there. A storage that shows older ones was rolled back, and only a memory can tell.
//!
//! Losing the memory costs nothing but that: what cannot be read counts as nothing remembered.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use larder_format::ids::{SessionId, encode_hex};
use larder_format::names;

use crate::random;
use crate::sync::lock;
use crate::view::View;

/// Cells that are remembered: the newest ones.
const CELLS_MAX: usize = 16;
/// Bytes of a file that is read at all.
const FILE_BYTES_MAX: u64 = 16 << 10;
const FIRST_LINE: &str = "larder memory 1";
const FILE: &str = "seen";

/// The newest things of a repository that were seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The highest number of a config.
    pub config: u64,
    /// The highest number of a collector round or memory.
    pub round: u64,
    /// The newest cells with the time of their ends (nanoseconds since 1970), the newest first.
    pub cells: Vec<(i64, SessionId)>,
}

impl Remembered {
    /// Gives what a reading is to be remembered by.
    pub(crate) fn of(config: u64, view: &View) -> Self {
        let cells = view.cells.values().map(|cell| (cell.ended, cell.id));
        let mut seen = Self::default();
        seen.absorb(&Self {
            config,
            round: view.collection.newest(),
            cells: cells.collect(),
        });
        seen
    }

    /// Names what was there and is not any more, though no prune may have taken it.
    pub(crate) fn lost(&self, config: u64, view: &View) -> Vec<String> {
        let mut lost = Vec::new();
        if config < self.config {
            lost.push(names::config(self.config));
        }
        if view.collection.newest() < self.round {
            lost.push(names::round(self.round));
        }
        let cells = self.cells.iter().map(|(_, id)| id);
        let gone = cells.filter(|id| !view.has_cell(id));
        lost.extend(gone.map(names::cell));
        lost
    }

    /// Takes in what another reading saw.
    fn absorb(&mut self, other: &Self) {
        self.config = self.config.max(other.config);
        self.round = self.round.max(other.round);
        self.cells.extend(other.cells.iter().copied());
        self.cells.sort_unstable_by(|one, other| other.cmp(one));
        self.cells.dedup();
        self.cells.truncate(CELLS_MAX);
    }

    fn encode(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nconfig {}\nround {}\n",
            self.config, self.round
        );
        for (ended, id) in &self.cells {
            text.push_str(&format!("cell {ended} {}\n", id.to_hex()));
        }
        let hash = blake3::hash(text.as_bytes()).to_hex();
        text.push_str(&format!("blake3 {hash}\n"));
        text
    }

    /// Reads what [`Self::encode`] wrote; none if anything about it is wrong.
    fn decode(text: &str) -> Option<Self> {
        let (body, hash) = text.split_at_checked(text.rfind("blake3 ")?)?;
        let hash = hash.strip_prefix("blake3 ")?.strip_suffix('\n')?;
        if blake3::hash(body.as_bytes()).to_hex().as_str() != hash {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut seen = Self {
            config: lines.next()?.strip_prefix("config ")?.parse().ok()?,
            round: lines.next()?.strip_prefix("round ")?.parse().ok()?,
            cells: Vec::new(),
        };
        for line in lines.take(CELLS_MAX) {
            let (ended, id) = line.strip_prefix("cell ")?.split_once(' ')?;
            seen.cells
                .push((ended.parse().ok()?, SessionId::from_hex(id)?));
        }
        Some(seen)
    }
}

/// Gives the folder of the memory of what is at a location: a copy elsewhere, with the same ids, is
/// another thing and has a memory of its own.
pub(crate) fn folder_of(base: &Path, location: &str) -> PathBuf {
    let whole = fs::canonicalize(location).unwrap_or_else(|_| location.into());
    let hash = blake3::hash(whole.as_os_str().as_bytes());
    base.join(encode_hex(
        hash.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]),
    ))
}

/// The memory of one repository; without a folder it lasts as long as the value.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    folder: Option<PathBuf>,
    seen: Mutex<Remembered>,
}

impl Memory {
    /// Opens the memory in a folder, which need not be there.
    pub(crate) fn open(folder: Option<PathBuf>) -> Self {
        let seen = folder.as_deref().and_then(read).unwrap_or_default();
        Self {
            folder,
            seen: Mutex::new(seen),
        }
    }

    /// Gives the newest things that were seen.
    pub(crate) fn seen(&self) -> Remembered {
        lock(&self.seen).clone()
    }

    /// Remembers what was seen just now.
    pub(crate) fn note(&self, now: &Remembered) {
        let mut seen = lock(&self.seen);
        let before = seen.clone();
        seen.absorb(now);
        if *seen == before {
            return;
        }
        // Another process may have seen something since.
        if let Some(there) = self.folder.as_deref().and_then(read) {
            seen.absorb(&there);
        }
        self.keep(&seen);
    }

    /// Forgets what was seen, for a repository that was put back to an older state on purpose.
    pub(crate) fn forget(&self) {
        let mut seen = lock(&self.seen);
        *seen = Remembered::default();
        self.keep(&seen);
    }

    fn keep(&self, seen: &Remembered) {
        if let Some(folder) = &self.folder
            && let Err(error) = write(folder, seen)
        {
            let folder = folder.display();
            tracing::warn!(
                "cannot remember the newest snapshots in {folder}: {error}; a rollback may go unnoticed"
            );
        }
    }
}

fn read(folder: &Path) -> Option<Remembered> {
    let path = folder.join(FILE);
    let is_small = fs::metadata(&path).ok()?.len() <= FILE_BYTES_MAX;
    is_small
        .then(|| fs::read_to_string(path).ok())
        .flatten()
        .and_then(|text| Remembered::decode(&text))
}

/// Writes a file of its own and gives it the name of the one before, so that there is always one.
fn write(folder: &Path, seen: &Remembered) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let random = random::bytes::<8>().map_err(io::Error::other)?;
    let path = folder.join(format!("{FILE}.{}", encode_hex(&random)));
    let kept = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(seen.encode().as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&path, folder.join(FILE)));
    if kept.is_err() {
        drop(fs::remove_file(&path));
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    fn cell(number: u8) -> (i64, SessionId) {
        (i64::from(number), SessionId::new(0, [number; 16]))
    }

    #[test]
    fn only_the_newest_is_remembered_and_outlives_the_process() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("memory/one");
        let memory = Memory::open(Some(folder.clone()));
        assert_eq!(memory.seen(), Remembered::default());
        assert!(!folder.exists());
        let seen = |config, cells: &[u8]| Remembered {
            config,
            round: 0,
            cells: cells.iter().map(|number| cell(*number)).collect(),
        };
        memory.note(&seen(3, &[1, 2, 3]));
        // Another process saw more, and then this one sees an older memory.
        Memory::open(Some(folder.clone())).note(&seen(4, &[9]));
        memory.note(&seen(2, &[4]));
        let kept = Memory::open(Some(folder.clone())).seen();
        assert_eq!(kept, seen(4, &[9, 4, 3, 2, 1]));
        memory.note(&seen(1, &(10..40).collect::<Vec<_>>()));
        let kept = Memory::open(Some(folder.clone())).seen();
        assert_eq!(kept, seen(4, &(24..40).rev().collect::<Vec<_>>()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        memory.forget();
        assert_eq!(Memory::open(Some(folder)).seen(), Remembered::default());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_failure() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let memory = Memory::open(Some(file.join("memory")));
        let seen = Remembered {
            config: 1,
            ..Remembered::default()
        };
        memory.note(&seen);
        assert_eq!(memory.seen(), seen);
    }

    proptest! {
        #[test]
        fn a_damaged_memory_is_none(at in 0_usize..400, bit in 0_u8..7) {
            let seen = Remembered { config: 7, round: 2, cells: (0..5).rev().map(cell).collect() };
            let text = seen.encode();
            prop_assert_eq!(Remembered::decode(&text), Some(seen));
            let mut bytes = text.into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(damaged) = String::from_utf8(bytes.clone()) {
                prop_assert_eq!(Remembered::decode(&damaged), None);
            }
            bytes.truncate(at);
            if let Ok(short) = String::from_utf8(bytes) {
                prop_assert_eq!(Remembered::decode(&short), None);
            }
        }
    }
}
