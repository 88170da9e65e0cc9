//! What people do besides backing up: read, forget, tag, undelete, rewrite, prune, check.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder_engine::amend::{Wish, amend_all};
use larder_engine::cancel::Cancel;
use larder_engine::check::{CheckOptions, CheckReport, ReadData, Severity, check};
use larder_engine::error::{EngineError, Result};
use larder_engine::forget::{self, Choice, ForgetOptions};
use larder_engine::progress::Silent;
use larder_engine::prune::plan::{Limits, MaxUnused};
use larder_engine::prune::{PruneOptions, PruneReport, prune};
use larder_engine::repository::Repository;
use larder_engine::restore::{Overwrite, RestoreOptions, restore};
use larder_engine::retention::GroupBy;
use larder_engine::rewrite::{RewriteOptions, RewriteReport, UndeleteOptions, rewrite, undelete};
use larder_engine::session::Author;
use larder_engine::snapshots::{Filter, SnapshotInfo, Which, list, list_forgotten};
use larder_engine::source::select::Excludes;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::people::{NAMES, Person};
use super::stage::NOBODY;
use super::truth::{Expected, Files};

impl Person {
    /// Reads a snapshot that is there, or restores it.
    pub fn read(&mut self) {
        let Some((repository, snapshot)) = self.some_snapshot() else {
            return;
        };
        let before = self.stage.faults(self.who);
        // Others note what they do meanwhile, so the truth is not held while this reads.
        let expected = self.truth().expected(&snapshot);
        let outcome = if self.chance.hits(5000) {
            expected.compare(&repository, &snapshot)
        } else {
            self.restore(&repository, &snapshot, &expected)
        };
        let was_hindered = self.stage.faults(self.who) != before;
        let must_be_there = self.truth().must_be_there(&snapshot.id);
        if let Err(why) = outcome
            && !was_hindered
            && must_be_there
        {
            self.fail(&format!("read: {why}"));
        }
    }

    fn restore(
        &self,
        repository: &Arc<Repository>,
        snapshot: &SnapshotInfo,
        expected: &Expected,
    ) -> std::result::Result<(), String> {
        let target = self.source.with_extension("restored");
        let options = RestoreOptions {
            target: target.clone(),
            overwrite: Overwrite::Always,
            delete: false,
            include: Vec::new(),
            exclude: Vec::new(),
            sparse: false,
            dry_run: false,
            verify: false,
            no_owner: true,
            numeric_owner: true,
            map_uid: Vec::new(),
            map_gid: Vec::new(),
            in_place: false,
            devices: false,
            lost_as_zeros: false,
        };
        let path = Some(expected.source());
        let (silent, cancel) = (Silent, Cancel::default());
        let report = restore(repository, snapshot, path, &options, &silent, &cancel);
        let mut files = Files::new();
        files_below(&target, "", &mut files);
        let _ = fs::remove_dir_all(&target);
        let report = report.map_err(|error| format!("{}: restore: {error}", snapshot.id))?;
        if let Some(issue) = report.issues.first() {
            return Err(format!("{}: restore: {issue:?}", snapshot.id));
        }
        expected.compare_files(&files, snapshot)
    }

    /// Gives any snapshot that is there.
    fn some_snapshot(&mut self) -> Option<(Arc<Repository>, SnapshotInfo)> {
        let repository = self.attempt("open", Self::repository)?;
        let listed = self.attempt("list", |_| list(&repository, &Filter::default(), false))?;
        if listed.is_empty() {
            return None;
        }
        let snapshot = self.chance.pick(&listed).clone();
        Some((repository, snapshot))
    }

    /// Lists the snapshots that are there.
    pub fn look(&mut self) {
        let listed = self.attempt("list", |me| {
            list(&*me.repository()?, &Filter::default(), true)
        });
        let outcome = self.truth().verify_listing(&listed.unwrap_or_default());
        if let Err(why) = outcome {
            self.fail(&format!("list: {why}"));
        }
    }

    /// Forgets a snapshot.
    pub fn forget(&mut self) {
        if let Some((repository, snapshot)) = self.some_snapshot() {
            self.forget_one(&repository, &snapshot.id);
        }
    }

    /// Forgets the snapshot of an id.
    pub fn forget_one(&mut self, repository: &Arc<Repository>, id: &str) {
        self.truth().forgetting(id);
        let options = ForgetOptions {
            choice: Choice::Named(vec![Which::Prefix(id.to_owned())]),
            filter: Filter::default(),
            group_by: GroupBy::default(),
        };
        let now = Zoned::new(Timestamp::UNIX_EPOCH, TimeZone::UTC);
        let author = self.author();
        let report = self.attempt("forget", |_| {
            // Somebody else may have forgotten it meanwhile.
            let plan = match forget::plan(repository, &options, &now) {
                Err(EngineError::NotFound(_)) => return Ok(None),
                other => other?,
            };
            forget::apply(repository, &plan, &author, &Silent, &Cancel::default()).map(Some)
        });
        if let Some(Some(report)) = report
            && report.forgotten.iter().any(|one| one == id)
        {
            self.truth().forgot(id);
        }
    }

    fn author(&self) -> Author {
        Author {
            host: format!("host-{:02}", self.who % 100),
            user: "me".to_owned(),
        }
    }

    /// Changes snapshots: one gets a tag, is brought back, or loses some of its paths.
    pub fn tidy(&mut self) {
        let acts: [fn(&mut Self); 3] = [Self::tag, Self::undelete, Self::rewrite];
        let act = *self.chance.pick(&acts);
        act(self);
    }

    /// Adds a tag to a snapshot.
    fn tag(&mut self) {
        let Some((repository, snapshot)) = self.some_snapshot() else {
            return;
        };
        let tag = format!("tag-{:04}", self.chance.below(10_000));
        let wish = Wish::ChangeTags {
            remove: Vec::new(),
            add: vec![tag.clone()],
        };
        let names = [Which::Prefix(snapshot.id.clone())];
        let author = self.author();
        let done = self.attempt("tag", |_| {
            let (filter, cancel) = (Filter::default(), Cancel::default());
            match amend_all(&repository, &names, &filter, &wish, &author, false, &cancel) {
                // Somebody forgot it meanwhile.
                Err(EngineError::NotFound(_)) => Ok(false),
                other => other.map(|_| true),
            }
        });
        if done == Some(true) {
            self.truth().tagged(&snapshot.id, tag);
        }
    }

    /// Brings a forgotten snapshot back, if all of it is still there.
    fn undelete(&mut self) {
        let Some(repository) = self.attempt("open", Self::repository) else {
            return;
        };
        let filter = Filter::default();
        let listed = self.attempt("list", |_| list_forgotten(&repository, &filter, false));
        let listed = listed.unwrap_or_default();
        if listed.is_empty() {
            return;
        }
        let snapshot = &self.chance.pick(&listed).snapshot;
        let variant = self.truth().variant(snapshot);
        let options = UndeleteOptions {
            author: self.author(),
            dry_run: false,
        };
        let made = self.attempt("undelete", |_| {
            let (silent, cancel) = (Silent, Cancel::default());
            or_gone(undelete(
                &repository,
                &snapshot.id,
                &options,
                &silent,
                &cancel,
            ))
        });
        self.take(made, variant, "undelete");
    }

    /// Leaves some paths out of a snapshot, and keeps the other one, too.
    fn rewrite(&mut self) {
        let Some((repository, snapshot)) = self.some_snapshot() else {
            return;
        };
        let name = self.chance.pick(&NAMES);
        let (pattern, _) = name.split_once('/').unwrap_or((name, ""));
        let stays = |path: &str| path.split('/').all(|part| part != pattern);
        let Some(variant) = self.truth().leave_out(&snapshot, stays) else {
            return;
        };
        let options = RewriteOptions {
            exclude: Excludes {
                exclude: vec![pattern.to_owned()],
                ..Excludes::default()
            },
            keep_original: self.chance.hits(5000),
            author: self.author(),
            dry_run: false,
        };
        if !options.keep_original {
            self.truth().forgetting(&snapshot.id);
        }
        let made = self.attempt("rewrite", |_| {
            let (silent, cancel) = (Silent, Cancel::default());
            or_gone(rewrite(
                &repository,
                &snapshot.id,
                &options,
                &silent,
                &cancel,
            ))
        });
        self.take(made, Some(variant), "rewrite");
    }

    /// Notes a snapshot that was made of another one.
    fn take(&mut self, made: Option<Option<RewriteReport>>, variant: Option<usize>, how: &str) {
        if let Some(snapshot) = made.flatten().and_then(|report| report.snapshot) {
            self.truth().committed(snapshot.clone(), variant);
            self.verify(how, Some(&snapshot));
        }
    }

    /// Prunes the repository, with more or less zeal.
    pub fn prune(&mut self) {
        let max_unused = *self.chance.pick(&[
            MaxUnused::Bytes(0),
            MaxUnused::Bytes(0),
            MaxUnused::Percent(30.0),
            MaxUnused::Unlimited,
        ]);
        let patience = Duration::from_secs(*self.chance.pick(&[0, 20, 1_000_000]));
        let wait = patience.as_secs() < 1000 && self.chance.hits(5000);
        self.prune_with(max_unused, patience, wait);
        self.verify("prune", None);
    }

    fn prune_with(
        &mut self,
        max_unused: MaxUnused,
        patience: Duration,
        wait: bool,
    ) -> Option<PruneReport> {
        self.attempt("prune", |me| me.try_prune(max_unused, patience, wait))
    }

    /// Frees all that can be freed now.
    pub fn free(&mut self) -> Option<PruneReport> {
        self.prune_with(MaxUnused::Bytes(0), Duration::ZERO, false)
    }

    /// Prunes; what goes wrong is for the caller to judge.
    pub fn try_prune(
        &mut self,
        max_unused: MaxUnused,
        patience: Duration,
        wait: bool,
    ) -> Result<PruneReport> {
        let options = PruneOptions {
            limits: Limits {
                max_unused,
                max_repack_bytes: None,
            },
            max_duration: None,
            wait,
            patience,
            dry_run: false,
            accept_rollback: false,
            assume_forgotten: Default::default(),
            accept_racy_creates: false,
            thaw: None,
            author: self.author(),
        };
        let repository = self.repository()?;
        prune(&repository, &options, &Silent, &Cancel::default())
    }

    /// Checks the repository.
    pub fn check(&mut self) {
        self.check_with(ReadData::No);
    }

    fn check_with(&mut self, read_data: ReadData) {
        let before = self.stage.faults(self.who);
        let report = self.attempt("check", |me| me.try_check(read_data));
        if self.stage.faults(self.who) != before {
            // What it could not read is a loss as far as it knows.
            return;
        }
        let findings = report.map(|report| report.findings).unwrap_or_default();
        if let Some(loss) = findings.iter().find(|one| one.severity == Severity::Loss) {
            self.fail(&format!("check: {loss:?}"));
        }
    }

    /// Checks the repository; what is found is for the caller to judge.
    pub fn try_check(&mut self, read_data: ReadData) -> Result<CheckReport> {
        let repository = self.repository()?;
        let options = CheckOptions {
            read_data,
            records_suspects: false,
        };
        check(&repository, &options, &Silent, &Cancel::default())
    }

    /// Becomes somebody for whom nothing goes wrong, after everybody has ended.
    pub fn settle(&mut self) {
        self.who = NOBODY;
        self.close();
    }

    /// Prunes until nothing is left to do, and looks for anything that nothing needs.
    pub fn clean_up(&mut self) {
        const RUNS_MAX: usize = 4;
        for _ in 0..RUNS_MAX {
            let report = self.prune_with(MaxUnused::Bytes(0), Duration::ZERO, true);
            let Some(report) = report else { return };
            if report.round.is_none() {
                break;
            }
        }
        self.check_with(ReadData::All);
        let objects = self.stage.objects();
        let count = |folder: &str| {
            objects
                .keys()
                .filter(|name| name.starts_with(folder))
                .count()
        };
        let sizes = objects
            .iter()
            .filter(|(name, _)| name.starts_with("packs/"));
        let stored: usize = sizes.map(|(_, bytes)| bytes.len()).sum();
        let listed = self.attempt("list", |me| {
            list(&*me.repository()?, &Filter::default(), true)
        });
        let Some(listed) = listed else { return };
        let needed = self.truth().needed(&listed);
        // Each pack has a directory and is padded, each snapshot has some nodes of its own.
        let allowed = needed + needed / 8 + 2048 * count("packs/") + 4096 * listed.len();
        if stored > allowed {
            self.fail(&format!(
                "after all: packs have {stored} bytes, {needed} bytes of content are needed"
            ));
        }
        if count("gc/") > 2 {
            self.fail(&format!("after all: {} collector records", count("gc/")));
        }
    }
}

/// A snapshot that somebody forgot meanwhile, or whose parts a prune has deleted, is no failure.
fn or_gone(made: Result<RewriteReport>) -> Result<Option<RewriteReport>> {
    match made {
        Err(EngineError::NotFound(_)) => Ok(None),
        other => other.map(Some),
    }
}

fn files_below(folder: &Path, prefix: &str, files: &mut Files) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}
