//! Records of one length, sorted outside of memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::{Result, ScratchError, TemporaryFolder};

/// Runs on disk before they are merged into one.
const RUNS_MAX: usize = 64;
/// Bytes that are read of a run at once.
const READ_BYTES: usize = 256 << 10;

/// Takes records of `N` bytes in any order and gives them back sorted, each once.
///
/// What does not fit into memory goes to a folder of its own below the parent, as sorted runs.
pub struct Sorter<const N: usize> {
    parent: PathBuf,
    records_max: usize,
    records: Vec<[u8; N]>,
    spilled: Option<Spilled>,
}

struct Spilled {
    folder: TemporaryFolder,
    runs: Vec<PathBuf>,
    next: u64,
}

/// Sorted records, each once; they can be walked any number of times.
pub struct Sorted<const N: usize> {
    parent: PathBuf,
    place: Place<N>,
}

enum Place<const N: usize> {
    Memory(Vec<[u8; N]>),
    Disk {
        file: PathBuf,
        _folder: TemporaryFolder,
    },
}

impl<const N: usize> Sorter<N> {
    /// Makes an empty sorter that holds about `memory_bytes_max` in memory.
    #[must_use]
    pub fn new(parent: &Path, memory_bytes_max: usize) -> Self {
        Self {
            parent: parent.to_owned(),
            records_max: (memory_bytes_max / N.max(1)).max(1),
            records: Vec::new(),
            spilled: None,
        }
    }

    /// Takes a record.
    ///
    /// # Errors
    /// When the local disk fails.
    pub fn push(&mut self, record: [u8; N]) -> Result<()> {
        if self.records.len() >= self.records_max {
            self.spill()?;
        }
        self.records.push(record);
        Ok(())
    }

    /// Sorts what was taken.
    ///
    /// # Errors
    /// When the local disk fails.
    pub fn finish(mut self) -> Result<Sorted<N>> {
        if self.spilled.is_none() {
            sort(&mut self.records);
            return Ok(Sorted {
                parent: self.parent,
                place: Place::Memory(self.records),
            });
        }
        self.spill()?;
        self.records = Vec::new();
        let parent = self.parent;
        let merged = self.spilled.take().map(|mut spilled| {
            merge_all::<N>(&mut spilled)?;
            let file = spilled.runs.pop().unwrap_or_default();
            Ok(Place::Disk {
                file,
                _folder: spilled.folder,
            })
        });
        let place = merged
            .unwrap_or(Ok(Place::Memory(Vec::new())))
            .map_err(|error| failure(&parent, "write", &error))?;
        Ok(Sorted { parent, place })
    }

    fn spill(&mut self) -> Result<()> {
        sort(&mut self.records);
        let written = self.write_run();
        written.map_err(|error| failure(&self.parent, "write", &error))?;
        self.records.clear();
        Ok(())
    }

    fn write_run(&mut self) -> io::Result<()> {
        if self.spilled.is_none() {
            self.spilled = Some(Spilled {
                folder: TemporaryFolder::new(&self.parent, "scratch")?,
                runs: Vec::new(),
                next: 0,
            });
        }
        let Some(spilled) = &mut self.spilled else {
            return Ok(());
        };
        if spilled.runs.len() >= RUNS_MAX {
            merge_all::<N>(spilled)?;
        }
        let path = spilled.next_path();
        let mut out = BufWriter::with_capacity(READ_BYTES, File::create_new(&path)?);
        for record in &self.records {
            out.write_all(record)?;
        }
        out.flush()?;
        spilled.runs.push(path);
        Ok(())
    }
}

impl Spilled {
    fn next_path(&mut self) -> PathBuf {
        self.next += 1;
        self.folder.path().join(format!("run-{}", self.next))
    }
}

impl<const N: usize> Sorted<N> {
    /// Walks the records in order; the first error is the last item.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn iter(&self) -> Result<Records<'_, N>> {
        let walk = match &self.place {
            Place::Memory(records) => Walk::Memory(records.iter()),
            Place::Disk { file, .. } => {
                let file =
                    File::open(file).map_err(|error| failure(&self.parent, "read", &error))?;
                Walk::Disk(BufReader::with_capacity(READ_BYTES, file))
            }
        };
        Ok(Records {
            parent: &self.parent,
            walk,
        })
    }

    /// Tells whether the records have left memory.
    #[must_use]
    pub fn has_spilled(&self) -> bool {
        matches!(self.place, Place::Disk { .. })
    }
}

/// The records of a [`Sorted`] in order.
pub struct Records<'a, const N: usize> {
    parent: &'a Path,
    walk: Walk<'a, N>,
}

enum Walk<'a, const N: usize> {
    Memory(std::slice::Iter<'a, [u8; N]>),
    Disk(BufReader<File>),
}

impl<const N: usize> Iterator for Records<'_, N> {
    type Item = Result<[u8; N]>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.walk {
            Walk::Memory(records) => records.next().map(|record| Ok(*record)),
            Walk::Disk(file) => read_record(file)
                .map_err(|error| failure(self.parent, "read", &error))
                .transpose(),
        }
    }
}

fn sort<const N: usize>(records: &mut Vec<[u8; N]>) {
    records.sort_unstable();
    records.dedup();
}

/// Merges all runs into one.
fn merge_all<const N: usize>(spilled: &mut Spilled) -> io::Result<()> {
    if spilled.runs.len() < 2 {
        return Ok(());
    }
    let path = spilled.next_path();
    let mut out = BufWriter::with_capacity(READ_BYTES, File::create_new(&path)?);
    let mut files = Vec::with_capacity(spilled.runs.len());
    let mut heads = BinaryHeap::new();
    for run in &spilled.runs {
        let mut file = BufReader::with_capacity(READ_BYTES, File::open(run)?);
        if let Some(record) = read_record::<N>(&mut file)? {
            heads.push(Reverse((record, files.len())));
        }
        files.push(file);
    }
    let mut last = None;
    while let Some(Reverse((record, number))) = heads.pop() {
        if last != Some(record) {
            out.write_all(&record)?;
            last = Some(record);
        }
        let next = match files.get_mut(number) {
            Some(file) => read_record(file)?,
            None => None,
        };
        if let Some(next) = next {
            heads.push(Reverse((next, number)));
        }
    }
    out.flush()?;
    for run in std::mem::replace(&mut spilled.runs, vec![path]) {
        fs::remove_file(run)?;
    }
    Ok(())
}

/// Reads one record; none at the end, and an error where the file ends within one.
fn read_record<const N: usize>(file: &mut BufReader<File>) -> io::Result<Option<[u8; N]>> {
    let mut record = [0; N];
    let mut have = 0;
    while have < N {
        match file.read(record.get_mut(have..).unwrap_or_default())? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => have += more,
        }
    }
    Ok(Some(record))
}

fn failure(parent: &Path, action: &'static str, error: &io::Error) -> ScratchError {
    ScratchError {
        action,
        folder: parent.display().to_string(),
        cause: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn records_come_back_sorted_and_once_on_either_side_of_the_limit(
            records in proptest::collection::vec(any::<[u8; 2]>(), 0..600),
            limit in 0..400_usize,
        ) {
            let parent = tempfile::tempdir().unwrap();
            let mut sorter = Sorter::new(parent.path(), limit);
            for record in &records {
                sorter.push(*record).unwrap();
            }
            let sorted = sorter.finish().unwrap();
            let truth: Vec<_> = records.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            for _ in 0..2 {
                let found: Vec<_> = sorted.iter().unwrap().collect::<Result<_>>().unwrap();
                prop_assert_eq!(&found, &truth);
            }
            prop_assert_eq!(sorted.has_spilled(), records.len() > (limit / 2).max(1));
            drop(sorted);
            prop_assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_run_that_lost_its_end_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::<4>::new(parent.path(), 8);
        for number in 0..9_u32 {
            sorter.push(number.to_be_bytes()).unwrap();
        }
        let sorted = sorter.finish().unwrap();
        assert!(sorted.has_spilled());
        if let Place::Disk { file, .. } = &sorted.place {
            let file = File::options().write(true).open(file).unwrap();
            file.set_len(34).unwrap();
        }
        let outcome: Result<Vec<_>> = sorted.iter().unwrap().collect();
        assert!(outcome.unwrap_err().to_string().contains("scratch data"));
    }
}
