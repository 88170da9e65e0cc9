//! The names in one folder in key order, sorted outside memory when they are too many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, RawDir, StatxFlags};

use crate::calls;

/// Bytes that the kernel fills with names at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes of one run that are read ahead while runs are merged.
const RUN_BUFFER_BYTES: usize = 16 << 10;

/// Names in plain byte order, a folder's ending in `/`: the order of keys below the folder.
#[derive(Debug)]
pub(super) enum Listing {
    /// All names are in memory.
    Memory { names: Names, next: usize },
    /// Sorted runs lie in a file that has no name, and are merged as they are read.
    Merge {
        file: File,
        runs: Vec<Run>,
        heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    },
}

impl Listing {
    /// Reads all names of the folder that `handle` stands for, except `.` and `..`.
    ///
    /// The error, if there is one, says why names may be missing from the listing.
    pub(super) fn read(
        handle: impl AsFd,
        mut builder: ListingBuilder<'_>,
    ) -> io::Result<(Self, Option<io::Error>)> {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let mut names = RawDir::new(handle.as_fd(), buffer.spare_capacity_mut());
        let mut error = None;
        while let Some(found) = names.next() {
            let found = match calls::listing(handle.as_fd()).and(found) {
                Ok(found) => found,
                Err(errno) => {
                    error = Some(errno.into());
                    break;
                }
            };
            let name = found.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let is_folder = match found.file_type() {
                FileType::Directory => true,
                // Some file systems do not say: the walk finds out what cannot be looked at.
                FileType::Unknown => is_folder(handle.as_fd(), name).unwrap_or(false),
                _ => false,
            };
            builder.push(name, is_folder)?;
        }
        Ok((builder.finish()?, error))
    }

    /// Gives the next name, or none after the last.
    ///
    /// # Errors
    /// If the scratch file cannot be read.
    pub(super) fn next(&mut self, name: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Memory { names, next } => {
                let Some(span) = names.spans.get(*next) else {
                    return Ok(false);
                };
                *next += 1;
                name.clear();
                name.extend_from_slice(span.of(&names.bytes));
                Ok(true)
            }
            Self::Merge { file, runs, heads } => {
                let Some(Reverse((first, place))) = heads.pop() else {
                    return Ok(false);
                };
                *name = first;
                if let Some(run) = runs.get_mut(place)
                    && let Some(following) = run.next(file)?
                {
                    heads.push(Reverse((following, place)));
                }
                Ok(true)
            }
        }
    }

    /// Gives the bytes of memory that the listing takes for as long as it lives.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Memory { names, .. } => names.memory_bytes(),
            Self::Merge { runs, .. } => runs.len().saturating_mul(RUN_BUFFER_BYTES),
        }
    }
}

/// Tells whether `name` is a folder, by looking at it.
pub(super) fn is_folder(parent: impl AsFd, name: &[u8]) -> io::Result<bool> {
    let found = calls::statx(
        parent,
        OsStr::from_bytes(name),
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::TYPE,
    )?;
    Ok(FileType::from_raw_mode(u32::from(found.stx_mode)) == FileType::Directory)
}

/// Names one after the other in one allocation.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        bytes
            .get(start..start + self.length as usize)
            .unwrap_or_default()
    }
}

impl Names {
    fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>()
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans
            .sort_unstable_by(|a, b| a.of(bytes).cmp(b.of(bytes)));
    }
}

/// Collects names for a [`Listing`].
#[derive(Debug)]
pub(super) struct ListingBuilder<'a> {
    names: Names,
    memory_bytes_max: usize,
    scratch_folder: &'a Path,
    spilled: Option<BufWriter<File>>,
    spilled_bytes: u64,
    runs: Vec<Run>,
}

impl<'a> ListingBuilder<'a> {
    /// Starts a listing that keeps about `memory_bytes_max` in memory, and the rest in a file
    /// without a name in `scratch_folder`.
    pub(super) fn new(memory_bytes_max: usize, scratch_folder: &'a Path) -> Self {
        Self {
            names: Names::default(),
            // Places in the buffer are 32 bits wide.
            memory_bytes_max: memory_bytes_max.min(1 << 30),
            scratch_folder,
            spilled: None,
            spilled_bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Adds a name.
    ///
    /// # Errors
    /// If the scratch file cannot be written.
    pub(super) fn push(&mut self, name: &[u8], is_folder: bool) -> io::Result<()> {
        if self.names.memory_bytes() + name.len() + 1 > self.memory_bytes_max {
            self.spill()?;
        }
        let names = &mut self.names;
        let start = u32::try_from(names.bytes.len()).map_err(io::Error::other)?;
        names.bytes.extend_from_slice(name);
        if is_folder {
            names.bytes.push(b'/');
        }
        let length = u32::try_from(name.len()).map_err(io::Error::other)? + u32::from(is_folder);
        names.spans.push(Span { start, length });
        Ok(())
    }

    /// Sorts what was added.
    ///
    /// # Errors
    /// If the scratch file cannot be written or read.
    pub(super) fn finish(mut self) -> io::Result<Listing> {
        if self.spilled.is_none() {
            self.names.sort();
            self.names.bytes.shrink_to_fit();
            self.names.spans.shrink_to_fit();
            return Ok(Listing::Memory {
                names: self.names,
                next: 0,
            });
        }
        self.spill()?;
        let Some(writer) = self.spilled else {
            return Err(io::Error::other("a listing lost its scratch file"));
        };
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        let mut heads = BinaryHeap::with_capacity(self.runs.len());
        for (place, run) in self.runs.iter_mut().enumerate() {
            if let Some(first) = run.next(&file)? {
                heads.push(Reverse((first, place)));
            }
        }
        Ok(Listing::Merge {
            file,
            runs: self.runs,
            heads,
        })
    }

    /// Writes the names in memory to the scratch file as one sorted run.
    fn spill(&mut self) -> io::Result<()> {
        if self.names.spans.is_empty() {
            return Ok(());
        }
        self.names.sort();
        if self.spilled.is_none() {
            let file = tempfile::tempfile_in(self.scratch_folder)?;
            self.spilled = Some(BufWriter::with_capacity(READ_BYTES, file));
        }
        let start = self.spilled_bytes;
        if let Some(writer) = &mut self.spilled {
            for span in &self.names.spans {
                writer.write_all(&span.length.to_le_bytes())?;
                writer.write_all(span.of(&self.names.bytes))?;
                self.spilled_bytes += 4 + u64::from(span.length);
            }
        }
        self.runs.push(Run {
            at: start,
            end: self.spilled_bytes,
            ..Run::default()
        });
        self.names.bytes.clear();
        self.names.spans.clear();
        Ok(())
    }
}

/// A sorted run of names in a scratch file: each name's length (32 bits) and bytes.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Where in the file the bytes begin that have not been read.
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Run {
    fn next(&mut self, file: &File) -> io::Result<Option<Vec<u8>>> {
        if self.used == self.buffer.len() && self.at == self.end {
            return Ok(None);
        }
        let mut length = [0; 4];
        length.copy_from_slice(self.take(file, 4)?);
        let length = u32::from_le_bytes(length) as usize;
        self.take(file, length).map(|name| Some(name.to_vec()))
    }

    fn take(&mut self, file: &File, length: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.used < length {
            self.buffer.drain(..self.used);
            self.used = 0;
            let wanted = RUN_BUFFER_BYTES.max(length) - self.buffer.len();
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let had = self.buffer.len();
            self.buffer.resize(had + wanted.min(left), 0);
            let fresh = self.buffer.get_mut(had..).unwrap_or_default();
            file.read_exact_at(fresh, self.at)?;
            self.at += fresh.len() as u64;
        }
        let start = self.used;
        let taken = self.buffer.get(start..start + length);
        self.used += length;
        taken.ok_or_else(|| io::Error::other("a listing's scratch file is shorter than written"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(mut listing: Listing) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut name = Vec::new();
        while listing.next(&mut name).unwrap() {
            all.push(name.clone());
        }
        all
    }

    fn build(names: &BTreeSet<(Vec<u8>, bool)>, memory_bytes_max: usize) -> Listing {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = ListingBuilder::new(memory_bytes_max, folder.path());
        // Added backwards, so that runs overlap and nothing is sorted by accident.
        for (name, is_folder) in names.iter().rev() {
            builder.push(name, *is_folder).unwrap();
        }
        builder.finish().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_spilled_listing_equals_one_in_memory(
            names in prop::collection::btree_set(
                (prop::collection::vec(1u8..=255, 1..40), any::<bool>()), 0..200),
            memory_bytes_max in 1usize..2_000,
        ) {
            let mut expected: Vec<Vec<u8>> = names
                .iter()
                .map(|(name, is_folder)| {
                    let mut name = name.clone();
                    if *is_folder { name.push(b'/'); }
                    name
                })
                .collect();
            expected.sort();
            let in_memory = build(&names, usize::MAX);
            let fits = matches!(in_memory, Listing::Memory { .. });
            prop_assert!(fits);
            prop_assert_eq!(all(in_memory), expected.clone());
            prop_assert_eq!(all(build(&names, memory_bytes_max)), expected);
        }
    }

    #[test]
    fn runs_longer_than_their_buffer_are_read_whole() {
        let names: BTreeSet<(Vec<u8>, bool)> = (0..5_000)
            .map(|n: u32| (format!("{:0200}", n * 7 % 5_000).into_bytes(), false))
            .collect();
        let listing = build(&names, 500_000);
        assert!(matches!(&listing, Listing::Merge { runs, .. } if runs.len() > 1));
        assert!(listing.memory_bytes() < 200_000);
        assert_eq!(
            all(listing),
            names.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
    }
}
