//! What must be true whatever happens: a plain map of what every snapshot holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use larder_engine::browse;
use larder_engine::repository::{Cache, OpenOptions, Repository, Secret};
use larder_engine::snapshots::{Filter, SnapshotInfo, list};
use larder_engine::storage::Storage;
use zeroize::Zeroizing;

use super::seat::Seat;
use super::stage::{NOBODY, Stage};

/// Path below the source → bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// All that anybody tried, and what was reported of it.
#[derive(Default)]
pub struct Truth {
    /// By the tag that every snapshot of an attempt has.
    attempts: BTreeMap<String, Attempt>,
    /// Snapshots that were reported as done, by id.
    reported: BTreeMap<String, Reported>,
    /// Snapshots that somebody tried to forget, by id.
    forgotten: BTreeMap<String, Forgotten>,
}

/// A backup, and what was made of its snapshots later.
struct Attempt {
    source: Vec<u8>,
    /// What it was to hold, and what it may hold after paths were left out of it.
    variants: Vec<Files>,
}

/// A snapshot that was reported.
struct Reported {
    /// Which of the attempt's variants it holds; any if nobody knows.
    variant: Option<usize>,
    /// Tags that somebody added, and was told so.
    tags: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Forgotten {
    /// Somebody tried, and may have succeeded.
    Perhaps,
    Yes,
}

/// What a snapshot may hold.
pub struct Expected {
    source: Vec<u8>,
    variants: Vec<Files>,
}

impl Truth {
    /// Notes a backup that is about to begin; gives its tag.
    pub fn begin(&mut self, source: &Path, files: &Files) -> String {
        let tag = format!("attempt-{:04}", self.attempts.len());
        let attempt = Attempt {
            source: source.as_os_str().as_encoded_bytes().to_vec(),
            variants: vec![files.clone()],
        };
        self.attempts.insert(tag.clone(), attempt);
        tag
    }

    /// Notes that paths may be left out of a snapshot; gives the number of what is left.
    ///
    /// Nothing if nobody knows what it holds.
    pub fn leave_out(
        &mut self,
        from: &SnapshotInfo,
        stays: impl Fn(&str) -> bool,
    ) -> Option<usize> {
        let variant = self.reported.get(&from.id)?.variant?;
        let variants = &mut self.attempts.get_mut(tag_of(from))?.variants;
        let mut left = variants[variant].clone();
        left.retain(|name, _| stays(name));
        variants.push(left);
        Some(variants.len() - 1)
    }

    /// Gives what a snapshot holds, if it was reported.
    pub fn variant(&self, snapshot: &SnapshotInfo) -> Option<usize> {
        self.reported.get(&snapshot.id)?.variant
    }

    /// Notes that a snapshot was reported as done.
    pub fn committed(&mut self, snapshot: String, variant: Option<usize>) {
        let tags = BTreeSet::new();
        self.reported.insert(snapshot, Reported { variant, tags });
    }

    /// Notes that a tag was reported as added.
    pub fn tagged(&mut self, snapshot: &str, tag: String) {
        if let Some(reported) = self.reported.get_mut(snapshot) {
            reported.tags.insert(tag);
        }
    }

    /// Notes that somebody tries to forget a snapshot.
    pub fn forgetting(&mut self, snapshot: &str) {
        let known = self.forgotten.entry(snapshot.to_owned());
        known.or_insert(Forgotten::Perhaps);
    }

    /// Notes that it was reported as forgotten.
    pub fn forgot(&mut self, snapshot: &str) {
        self.forgotten.insert(snapshot.to_owned(), Forgotten::Yes);
    }

    /// Tells whether a snapshot was reported as done, and nobody tried to forget it.
    pub fn must_be_there(&self, snapshot: &str) -> bool {
        self.reported.contains_key(snapshot) && !self.forgotten.contains_key(snapshot)
    }

    /// Gives the bytes of contents that snapshots may need: each content once.
    pub fn needed(&self, snapshots: &[SnapshotInfo]) -> usize {
        let attempts = snapshots.iter().map(|one| &self.attempts[tag_of(one)]);
        let files = attempts.flat_map(|attempt| &attempt.variants);
        let contents: BTreeSet<&Vec<u8>> = files.flat_map(BTreeMap::values).collect();
        contents.iter().map(|content| content.len()).sum()
    }

    /// Looks at all snapshots from outside, or at one; says what is wrong.
    ///
    /// What was reported and not forgotten is there. Whatever is listed restores byte for byte,
    /// and a checkpoint as far as it goes.
    pub fn verify(&self, stage: &Arc<Stage>, only: Option<&str>) -> Result<(), String> {
        let repository = open(stage, NOBODY).map_err(|error| format!("open: {error}"))?;
        let listed = list(&repository, &Filter::default(), true);
        let listed = listed.map_err(|error| format!("snapshots: {error}"))?;
        self.verify_listing(&listed)?;
        for snapshot in &listed {
            if let Some(reported) = self.reported.get(&snapshot.id)
                && let Some(tag) = reported
                    .tags
                    .iter()
                    .find(|tag| !snapshot.tags.contains(tag))
            {
                return Err(format!("{} lost its tag {tag}", snapshot.id));
            }
            if only.is_none_or(|only| snapshot.id == only) {
                self.expected(snapshot).compare(&repository, snapshot)?;
            }
        }
        Ok(())
    }

    /// Looks at which snapshots somebody found listed; says what is wrong.
    pub fn verify_listing(&self, listed: &[SnapshotInfo]) -> Result<(), String> {
        let ids: BTreeSet<&str> = listed.iter().map(|one| one.id.as_str()).collect();
        for id in self.reported.keys() {
            if self.must_be_there(id) && !ids.contains(id.as_str()) {
                return Err(format!("{id} was reported, and is not listed"));
            }
        }
        for (id, forgotten) in &self.forgotten {
            if *forgotten == Forgotten::Yes && ids.contains(id.as_str()) {
                return Err(format!("{id} was forgotten, and is listed"));
            }
        }
        Ok(())
    }

    /// Gives what a snapshot should hold.
    pub fn expected(&self, snapshot: &SnapshotInfo) -> Expected {
        let attempt = &self.attempts[tag_of(snapshot)];
        let variants = match self.variant(snapshot) {
            Some(variant) => vec![attempt.variants[variant].clone()],
            None => attempt.variants.clone(),
        };
        Expected {
            source: attempt.source.clone(),
            variants,
        }
    }
}

impl Expected {
    /// Reads a snapshot and compares it with what it should hold.
    pub fn compare(
        &self,
        repository: &Arc<Repository>,
        snapshot: &SnapshotInfo,
    ) -> Result<(), String> {
        let mut out = Vec::new();
        browse::dump(repository, snapshot, &self.source, &mut out)
            .map_err(|error| format!("{} does not restore: {error}", snapshot.id))?;
        self.compare_files(&files_of(&out), snapshot)
    }

    /// Compares what was restored of a snapshot with what it should hold.
    pub fn compare_files(&self, files: &Files, snapshot: &SnapshotInfo) -> Result<(), String> {
        let is_it = |variant: &Files| {
            if snapshot.partial {
                let is_held = |(name, bytes)| variant.get(name) == Some(bytes);
                files.iter().all(is_held)
            } else {
                files == variant
            }
        };
        if self.variants.iter().any(is_it) {
            return Ok(());
        }
        Err(format!("{} restores to other bytes", snapshot.id))
    }

    /// Gives the path of the source.
    pub fn source(&self) -> &[u8] {
        &self.source
    }
}

/// Gives the tag by which a snapshot's attempt is known.
fn tag_of(snapshot: &SnapshotInfo) -> &str {
    let mut tags = snapshot.tags.iter();
    tags.find(|tag| tag.starts_with("attempt-")).unwrap()
}

/// The one key of simulated repositories: raw, so that nothing is spent on deriving it.
pub fn key() -> Secret {
    Secret::RawKey(Zeroizing::new([7; 32]))
}

/// Opens the repository for a process, with an index in memory.
pub fn open(stage: &Arc<Stage>, who: usize) -> larder_engine::error::Result<Arc<Repository>> {
    let seat: Arc<dyn Storage> = Arc::new(Seat {
        stage: Arc::clone(stage),
        who,
    });
    let options = OpenOptions {
        cache_dir: Some("/nonexistent".into()),
        state_dir: None,
        threads: 1,
        cache: Cache::Memory,
        in_order: true,
    };
    Repository::open_on(seat, &key(), &options)
}

fn files_of(stream: &[u8]) -> Files {
    let mut files = Files::new();
    for entry in tar::Archive::new(stream).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(name.trim_start_matches("./").to_owned(), bytes);
        }
    }
    files
}
