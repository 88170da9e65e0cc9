//! Documents of the service that another run of the program may change: each is read anew once its file is another one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data;
use crate::problem::Problem;

/// A document, as it was when its file was last looked at.
#[derive(Debug)]
pub struct Shared<T> {
    path: PathBuf,
    state: Mutex<(Option<Stamp>, T)>,
}

/// What tells one file of a name from the one before: each is a new one, written whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl<T: Clone + Default + Serialize + DeserializeOwned> Shared<T> {
    /// Reads a document; where there is no file it is an empty one.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let state = Mutex::new(load(&path)?);
        Ok(Self { path, state })
    }

    /// Gives the document as it is now. One that is not understood any more changes nothing but the log.
    pub fn read(&self) -> T {
        let mut state = self.state();
        if stamp(&self.path) != state.0 {
            match load(&self.path) {
                Ok(new) => *state = new,
                Err(error) => tracing::error!("cannot read {}: {error}", self.path.display()),
            }
        }
        state.1.clone()
    }

    /// Changes the document as it is now, with nobody else at it.
    ///
    /// # Errors
    /// What `work` refuses, and when the file cannot be read or written; nothing is changed then.
    pub fn change<R>(&self, work: impl FnOnce(&mut T) -> Result<R, Problem>) -> Result<R, Problem> {
        let failed = |tried: &str| {
            let what = format!("cannot {tried} {}", self.path.display());
            move |error: io::Error| Problem::internal(format!("{what}: {error}"))
        };
        let _alone = lock(&self.path.with_extension("lock")).map_err(failed("lock"))?;
        let mut state = self.state();
        let (_, mut value) = load(&self.path).map_err(failed("read"))?;
        let result = work(&mut value)?;
        let text = serde_json::to_vec_pretty(&value).map_err(io::Error::from);
        let written = text.and_then(|text| data::write(&self.path, &text));
        written.map_err(failed("write"))?;
        *state = (stamp(&self.path), value);
        Ok(result)
    }

    fn state(&self) -> MutexGuard<'_, (Option<Stamp>, T)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a file, and before it what tells whether it is another one afterwards.
fn load<T: Default + DeserializeOwned>(path: &Path) -> io::Result<(Option<Stamp>, T)> {
    let stamp = stamp(path);
    let value = match data::read(path)? {
        Some(text) => serde_json::from_slice(&text)?,
        None => T::default(),
    };
    Ok((stamp, value))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: file.ino(),
        length: file.len(),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

/// Waits until nobody else changes the document; given up with the file.
fn lock(path: &Path) -> io::Result<File> {
    let file = data::append(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_another_process_writes_is_seen_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        let (one, other) = (
            Shared::<Vec<u32>>::open(path.clone()),
            Shared::<Vec<u32>>::open(path.clone()),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        let push = |to: &Shared<Vec<u32>>, number| {
            to.change(|list| {
                list.push(number);
                Ok(())
            })
        };
        for number in 0..10 {
            push(if number % 2 == 0 { &one } else { &other }, number).unwrap();
        }
        assert_eq!(one.read(), (0..10).collect::<Vec<_>>());
        assert_eq!(other.read(), one.read());
        // What is refused, and what is not understood, changes nothing.
        let refused: Result<(), Problem> = one.change(|list| {
            list.clear();
            Err(Problem::bad("no"))
        });
        assert!(refused.is_err());
        assert_eq!(one.read().len(), 10);
        fs::write(&path, "{").unwrap();
        assert_eq!(one.read().len(), 10);
        assert!(push(&one, 1).is_err() && Shared::<Vec<u32>>::open(path).is_err());
    }
}
