//! The sorted walk of one source.
//!
//! Entries come depth first in plain byte order of their keys, which is the order of a tree:
//! a folder sorts by its name and `/`. Nothing is recursive, nothing grows with the number of
//! entries, and nothing that goes wrong below the source ends the walk.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::Gitignore;
use larder_format::entry::EntryType;
use larder_format::limits::KEY_BYTES;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::folder::{Folder, open_folder};
use super::listing::{Listing, ListingBuilder, is_folder};
use super::marks::{ignore_files_in, marks_in};
use super::select::{Selection, verdict};
use super::stat::{Common, Identity, Place, STATX_MASK, WalkIssue, Walked};
use crate::calls;

/// Bytes of names that any listing may keep in memory, however many there are above it.
const LISTING_BYTES_MIN: usize = 64 << 10;

/// How a source is walked.
#[derive(Debug, Clone)]
pub struct WalkOptions {
    /// Whether entries keep the time of the last read.
    pub atime: bool,
    /// Whether block devices and named pipes are taken as files.
    pub read_special: bool,
    /// Where listings go that are too large for memory.
    pub scratch_folder: PathBuf,
    /// Bytes of names of all folders being listed that are kept in memory.
    pub listing_memory_bytes: usize,
    /// Folders below the source whose handles are open at a time.
    pub open_folders_max: usize,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self {
            atime: false,
            read_special: false,
            scratch_folder: std::env::temp_dir(),
            listing_memory_bytes: 4 << 20,
            open_folders_max: 64,
        }
    }
}

/// What a walk comes upon.
#[derive(Debug)]
pub enum Step {
    /// An entry.
    Entry(Box<Walked>),
    /// Something that could not be read; the run is to end with exit code 3.
    Issue(WalkIssue),
}

/// A walk that goes on as it is asked.
#[derive(Debug)]
pub struct Walk {
    common: Arc<Common>,
    selection: Selection,
    options: WalkOptions,
    source_device: u64,
    frames: Vec<Frame>,
    /// Ignore files of the folders above, by the number of frames and bytes of key there.
    ignores: Vec<(usize, usize, Gitignore)>,
    /// What was found and not asked for yet.
    found: VecDeque<Step>,
    listing_bytes: usize,
    key: Vec<u8>,
    name: Vec<u8>,
}

/// A folder whose entries are being walked.
#[derive(Debug)]
struct Frame {
    folder: Arc<Folder>,
    listing: Listing,
    listing_bytes: usize,
    key_length: usize,
    /// The part of an exact list that is below the folder; none if all is wanted.
    part: Option<Range<usize>>,
}

impl Walk {
    /// Starts at `source`: a folder, or any single file, whose last component is not followed
    /// if it is a symbolic link.
    ///
    /// # Errors
    /// An issue that ends the run if nothing is there, or it cannot be looked at.
    pub fn start(
        source: &Path,
        selection: Selection,
        options: WalkOptions,
    ) -> Result<Self, WalkIssue> {
        let common = Common::new(
            source,
            options.open_folders_max,
            options.atime,
            options.read_special,
        );
        let common = Arc::new(common);
        let fail = |error| WalkIssue {
            path: source.to_path_buf(),
            operation: "read",
            error,
        };
        let place = Place::Source(Arc::clone(&common.source));
        let found = place.look().map_err(fail)?;
        let walked = common.describe(Vec::new(), place, &found).map_err(fail)?;
        let mut walk = Self {
            common,
            selection,
            options,
            source_device: walked.identity.device,
            frames: Vec::new(),
            ignores: Vec::new(),
            found: VecDeque::new(),
            listing_bytes: 0,
            key: Vec::new(),
            name: Vec::new(),
        };
        if walked.entry.kind == EntryType::Directory {
            let part = walk
                .selection
                .only
                .as_ref()
                .and_then(super::only::Only::start);
            walk.enter(walked, part);
        } else {
            walk.found.push_back(Step::Entry(Box::new(walked)));
        }
        Ok(walk)
    }

    /// Takes the next name of the innermost folder; false when the source is done.
    fn advance(&mut self) -> bool {
        let Some(frame) = self.frames.last_mut() else {
            return false;
        };
        match frame.listing.next(&mut self.name) {
            Ok(true) => {
                self.key.truncate(frame.key_length);
                self.key.extend_from_slice(&self.name);
                let (folder, part) = (Arc::clone(&frame.folder), frame.part.clone());
                self.visit(&folder, part);
            }
            Ok(false) => self.leave(),
            Err(error) => {
                let key_length = frame.key_length;
                self.key.truncate(key_length);
                self.report("list all of", error);
                self.leave();
            }
        }
        true
    }

    fn leave(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.listing_bytes = self.listing_bytes.saturating_sub(frame.listing_bytes);
        }
        let depth = self.frames.len();
        while self.ignores.last().is_some_and(|(at, ..)| *at > depth) {
            self.ignores.pop();
        }
    }

    /// Looks at what `self.name` names in `folder`; `self.key` is its key.
    fn visit(&mut self, folder: &Arc<Folder>, part: Option<Range<usize>>) {
        let (name, expects_folder) = match self.name.strip_suffix(b"/") {
            Some(name) => (name, true),
            None => (self.name.as_slice(), false),
        };
        if self.key.len() > KEY_BYTES {
            return self.report("keep the path of", Errno::NAMETOOLONG.into());
        }
        let place = Place::Below(Arc::clone(folder), name.into());
        let bare_key = self.key.len() - usize::from(expects_folder);
        let key_length = bare_key - name.len();
        if self.is_excluded(self.key.get(..bare_key).unwrap_or_default(), expects_folder) {
            return;
        }
        let found = place.look();
        let walked = found.and_then(|found| self.common.describe(self.key.clone(), place, &found));
        let walked = match walked {
            Ok(walked) => walked,
            // Gone since the folder was listed: it is not there to be backed up, which is no
            // failure. A path that a person listed is expected to be there.
            Err(error) if part.is_none() && error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.report("look at", error),
        };
        let is_folder = walked.entry.kind == EntryType::Directory;
        if is_folder != expects_folder {
            // Its place in the order is another one, and may have passed.
            let why = if part.is_some() && expects_folder {
                "a listed path leads through it, but it is not a folder"
            } else {
                "it was replaced by another kind of file while its folder was read"
            };
            return self.report("back up", io::Error::other(why));
        }
        if is_folder {
            let part = match (part, &self.selection.only) {
                (Some(part), Some(only)) => {
                    let name = self.name.strip_suffix(b"/").unwrap_or_default();
                    only.below(part, key_length, name)
                }
                _ => None,
            };
            return self.enter(walked, part);
        }
        let is_too_large = |max| walked.entry.kind == EntryType::File && walked.entry.size > max;
        if !self.selection.size_bytes_max.is_some_and(is_too_large) {
            self.found.push_back(Step::Entry(Box::new(walked)));
        }
    }

    fn is_excluded(&self, path: &[u8], is_folder: bool) -> bool {
        if let Some(excluded) = self.selection.verdict(path, is_folder) {
            return excluded;
        }
        self.ignores
            .iter()
            .rev()
            .find_map(|(_, key_length, patterns)| {
                verdict(patterns, path.get(*key_length..)?, is_folder)
            })
            .unwrap_or(false)
    }

    /// Takes a folder as an entry, and goes on with what is in it.
    fn enter(&mut self, mut walked: Walked, part: Option<Range<usize>>) {
        if self.is_elsewhere(walked.identity) {
            self.found.push_back(Step::Entry(Box::new(walked)));
            return;
        }
        let place = self.found.len();
        match self.open(&mut walked) {
            Ok(Some(handle)) => {
                if !self.list(&walked, handle, part) {
                    walked.entry.flags.unreadable = true;
                }
            }
            Ok(None) => {}
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && !walked.entry.key.is_empty() =>
            {
                return;
            }
            Err(error) => {
                self.report("open", error);
                walked.entry.flags.unreadable = true;
            }
        }
        self.found.insert(place, Step::Entry(Box::new(walked)));
    }

    fn is_elsewhere(&self, identity: Identity) -> bool {
        self.selection.one_file_system && identity.device != self.source_device
    }

    /// Opens a folder; if that was found to be another one meanwhile (a file system that is
    /// mounted when it is used, for one), `walked` tells of the one that was opened.
    fn open(&self, walked: &mut Walked) -> io::Result<Option<OwnedFd>> {
        let handle = walked.place.with(open_folder)?;
        let found = calls::statx(&handle, c"", AtFlags::EMPTY_PATH, STATX_MASK)?;
        if Identity::of(&found) != walked.identity {
            let key = walked.entry.key.clone();
            *walked = self.common.describe(key, walked.place.clone(), &found)?;
            if self.is_elsewhere(walked.identity) {
                return Ok(None);
            }
        }
        Ok(Some(handle))
    }

    /// Lists a folder and makes it the innermost one; false if names may be missing.
    fn list(&mut self, walked: &Walked, handle: OwnedFd, part: Option<Range<usize>>) -> bool {
        let key_length = walked.entry.key.len();
        let mut issues = Vec::new();
        let marks = marks_in(&self.selection.marks, handle.as_fd(), &mut issues);
        let depth = self.frames.len() + 1;
        let ignores = ignore_files_in(&self.selection, handle.as_fd(), &mut issues);
        let ignores = ignores
            .into_iter()
            .map(|patterns| (depth, key_length, patterns));
        self.ignores.extend(ignores);
        let listing = self.names(handle.as_fd(), key_length, &marks, part.as_ref());
        self.found
            .extend(issues.into_iter().map(|(name, operation, error)| {
                let path = walked.path().join(name);
                Step::Issue(WalkIssue {
                    path,
                    operation,
                    error,
                })
            }));
        let (listing, error) = match listing {
            Ok((listing, error)) => (Some(listing), error),
            Err(error) => (None, Some(error)),
        };
        let is_whole = error.is_none();
        if let Some(error) = error {
            self.found
                .push_back(Step::Issue(walked.issue("list", error)));
        }
        let Some(listing) = listing else {
            let depth = self.frames.len();
            self.ignores.retain(|(at, ..)| *at <= depth);
            return false;
        };
        let folder = match &walked.place {
            Place::Below(parent, name) => Folder::below(parent, name, handle, walked.identity),
            Place::Source(_) => {
                Folder::source(handle, walked.identity, Arc::clone(&self.common.handles))
            }
        };
        let listing_bytes = listing.memory_bytes();
        self.listing_bytes += listing_bytes;
        self.frames.push(Frame {
            folder,
            listing,
            listing_bytes,
            key_length,
            part,
        });
        is_whole
    }

    /// Gives the names in a folder that are to be looked at: its marks, or what an exact list
    /// names of it, or all; and why some may be missing.
    fn names(
        &self,
        handle: BorrowedFd<'_>,
        key_length: usize,
        marks: &[Vec<u8>],
        part: Option<&Range<usize>>,
    ) -> io::Result<(Listing, Option<io::Error>)> {
        let free = self
            .options
            .listing_memory_bytes
            .saturating_sub(self.listing_bytes);
        let mut builder =
            ListingBuilder::new(free.max(LISTING_BYTES_MIN), &self.options.scratch_folder);
        if !marks.is_empty() {
            for name in marks {
                builder.push(name, false)?;
            }
        } else if let (Some(part), Some(only)) = (part, &self.selection.only) {
            only.children(part.clone(), key_length, |name, must_be_folder| {
                // What cannot be looked at is reported when it is visited.
                let is_folder = must_be_folder || is_folder(handle, name).unwrap_or(false);
                builder.push(name, is_folder)
            })?;
        } else {
            return Listing::read(handle, builder);
        }
        Ok((builder.finish()?, None))
    }

    /// Reports that what `self.key` stands for could not be read.
    fn report(&mut self, operation: &'static str, error: io::Error) {
        let path = self.common.path(&self.key);
        self.found.push_back(Step::Issue(WalkIssue {
            path,
            operation,
            error,
        }));
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.found.pop_front() {
                return Some(step);
            }
            if !self.advance() {
                return None;
            }
        }
    }
}
