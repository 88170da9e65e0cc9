//! Who works on the repository: each is a process with a clock of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use larder_engine::backup::{BackupOptions, CheckpointRhythm, Compression, Selection, backup};
use larder_engine::cancel::Cancel;
use larder_engine::error::{EngineError, Result};
use larder_engine::progress::Progress;
use larder_engine::repository::Repository;
use larder_engine::simulated::{self, Simulated};

use super::chance::Chance;
use super::stage::Stage;
use super::truth::{Files, Truth, open};
use crate::program::noise;

/// Contents that files have: few, so that writers share chunks, and take them up again.
const CONTENTS: u64 = 12;
/// Names that files have.
pub const NAMES: [&str; 7] = ["a", "b", "d/c", "d/e", "f", "g/h", "long"];

/// A process: what it does next is its own chance, when it does it is the stage's.
pub struct Person {
    /// Where it works.
    pub stage: Arc<Stage>,
    /// Its number on the stage.
    pub who: usize,
    /// What it has to keep.
    pub truth: Arc<Mutex<Truth>>,
    /// What it decides by.
    pub chance: Chance,
    /// Its source, if it backs up.
    pub source: PathBuf,
    files: Files,
    edits: u64,
    repository: Option<Arc<Repository>>,
}

impl Person {
    /// Makes a process with a seed of its own; its source is a folder that is not there yet.
    pub fn new(
        stage: &Arc<Stage>,
        who: usize,
        truth: &Arc<Mutex<Truth>>,
        chance: Chance,
        folder: &Path,
    ) -> Self {
        Self {
            stage: Arc::clone(stage),
            who,
            truth: Arc::clone(truth),
            chance,
            source: folder.join(format!("source-{:02}", who % 100)),
            files: Files::new(),
            edits: 0,
            repository: None,
        }
    }

    /// Takes chance and time from the seed, on this thread; the clock may be wrong by years.
    pub fn enter(&mut self) {
        const DAY_NS: i64 = 86_400 * 1_000_000_000;
        let days = match self.chance.below(3) {
            0 => self.chance.between(10_000, 40_000),
            _ => 20_400,
        };
        let now_ns = days as i64 * DAY_NS + self.chance.below(1 << 30) as i64;
        let tick = Duration::from_secs(1);
        let seed = self.chance.next();
        simulated::enter(Some(Simulated::new(seed, now_ns, tick)));
    }

    /// Gives what is true.
    pub fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something so many times, with pauses; ends when something is wrong.
    pub fn work(&mut self, rounds: u64, act: fn(&mut Self)) {
        for _ in 0..rounds {
            let bound = *self.chance.pick(&[5, 100, 600]);
            let turns = self.chance.below(bound);
            self.stage.sleep(self.who, turns);
            if self.stage.failure().is_some() {
                return;
            }
            act(self);
            // After a death the local index may be there again, or not.
            if self.stage.revive(self.who) && self.chance.hits(5000) {
                self.repository = None;
            }
        }
    }

    /// Opens the repository, or goes on with the one that is open.
    pub fn repository(&mut self) -> Result<Arc<Repository>> {
        if self.chance.hits(3000) {
            self.repository = None;
        }
        let repository = match &self.repository {
            Some(repository) => Arc::clone(repository),
            None => open(&self.stage, self.who)?,
        };
        self.repository = Some(Arc::clone(&repository));
        Ok(repository)
    }

    /// Lets go of the repository and its index.
    pub fn close(&mut self) {
        self.repository = None;
    }

    /// Does something, and fails the run if it does although nothing went wrong for it.
    pub fn attempt<T>(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Option<T> {
        let before = self.stage.faults(self.who);
        match act(self) {
            Ok(done) => Some(done),
            Err(error) => {
                let is_its_own = self.stage.faults(self.who) == before;
                // Who was overtaken says so, and asks to be run again.
                let is_asked_for =
                    matches!(error, EngineError::Interrupted | EngineError::Request(_));
                if is_its_own && !is_asked_for {
                    self.fail(&format!("{what}: {error}"));
                }
                None
            }
        }
    }

    /// Ends the run, since something is wrong.
    pub fn fail(&self, why: &str) {
        self.stage.fail(format!("process {}: {why}", self.who));
    }

    /// Looks at every snapshot from outside, or at one.
    pub fn verify(&self, after: &str, only: Option<&str>) {
        if self.stage.failure().is_some() {
            return;
        }
        let outcome = self.truth().verify(&self.stage, only);
        if let Err(why) = outcome {
            self.fail(&format!("after {after}: {why}"));
        }
    }

    /// Edits the source and backs it up.
    pub fn back_up(&mut self) {
        self.edit();
        let options = self.backup_options();
        let stop = StopAfter::new(&mut self.chance);
        self.save(options, &stop);
    }

    /// Backs the source up as it is; gives the snapshot.
    pub fn save(&mut self, mut options: BackupOptions, stop: &StopAfter) -> Option<String> {
        options.tags = vec![self.truth().begin(&self.source, &self.files)];
        let report = self.attempt("backup", |me| {
            let repository = me.repository()?;
            backup(&repository, &options, stop, &stop.cancel)
        });
        let snapshot = report?.snapshot?;
        self.truth().committed(snapshot.clone(), Some(0));
        self.verify("backup", Some(&snapshot));
        Some(snapshot)
    }

    /// Gives options, some of which chance decides.
    pub fn backup_options(&mut self) -> BackupOptions {
        BackupOptions {
            sources: vec![self.source.clone()],
            buckets: Default::default(),
            streams: Default::default(),
            selection: Selection::default(),
            host: format!("host-{:02}", self.who % 100),
            user: "me".to_owned(),
            tags: Vec::new(),
            time: None,
            parent: None,
            force: self.chance.hits(500),
            ignore_ctime: self.chance.hits(5000),
            ignore_inode: false,
            with_atime: false,
            read_special: false,
            skip_if_unchanged: false,
            dry_run: false,
            compression: Compression::Off,
            solid: self.chance.hits(7000),
            verify_blocks: true,
            checkpoints: CheckpointRhythm::every_seconds(
                *self.chance.pick(&[3, 6, 100_000, 100_000]),
            ),
            hooks: Default::default(),
            shard: None,
        }
    }

    /// Changes some files of the source, and dates everything back so that it differs from before.
    fn edit(&mut self) {
        let changes = if self.edits == 0 {
            5
        } else {
            self.chance.below(4)
        };
        for _ in 0..changes {
            let name = *self.chance.pick(&NAMES);
            self.edits += 1;
            if self.edits > 5 && self.chance.hits(2500) {
                if self.files.contains_key(name) {
                    self.remove(name);
                }
                continue;
            }
            let bytes = self.content(name);
            self.write(name, bytes);
        }
        for folder in ["d", "g", "."] {
            let path = self.source.join(folder);
            if path.exists() {
                date(&path, self.edits);
            }
        }
    }

    /// Makes a file of the source hold something.
    pub fn write(&mut self, name: &str, bytes: Vec<u8>) {
        let path = self.source.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap();
        date(&path, self.edits);
        self.files.insert(name.to_owned(), bytes);
    }

    /// Takes a file out of the source.
    pub fn remove(&mut self, name: &str) {
        fs::remove_file(self.source.join(name)).unwrap();
        self.files.remove(name);
    }

    fn content(&mut self, name: &str) -> Vec<u8> {
        let number = self.chance.below(CONTENTS);
        let length = if name == "long" { 5000 } else { 300 };
        noise(number, length + 40 * number as usize)
    }
}

fn date(path: &Path, number: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000_000 + number);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// Asks for a stop after some entries, at times.
#[derive(Default)]
pub struct StopAfter {
    entries: Mutex<u64>,
    cancel: Cancel,
}

impl StopAfter {
    fn new(chance: &mut Chance) -> Self {
        let entries = if chance.hits(1500) {
            chance.below(8) + 1
        } else {
            0
        };
        Self {
            entries: Mutex::new(entries),
            cancel: Cancel::default(),
        }
    }
}

impl Progress for StopAfter {
    fn current(&self, _: &[u8]) {
        let mut entries = self.entries.lock().unwrap();
        if *entries == 1 {
            self.cancel.request();
        }
        *entries = entries.saturating_sub(1);
    }
}
