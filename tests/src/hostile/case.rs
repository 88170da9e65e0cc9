//! One case: a repository that the bytes made hostile, and everything that anybody may do with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_engine::backup::{BackupOptions, CheckpointRhythm, Compression, Selection, backup};
use larder_engine::browse;
use larder_engine::cancel::Cancel;
use larder_engine::check::{CheckOptions, CheckReport, ReadData, Severity, check, quick};
use larder_engine::error::{EngineError, Result as EngineResult};
use larder_engine::progress::Silent;
use larder_engine::prune::plan::{Limits, MaxUnused};
use larder_engine::prune::{PruneOptions, prune};
use larder_engine::repair::{Repair, RepairOptions, past_repairs};
use larder_engine::repository::Repository;
use larder_engine::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use larder_engine::rewrite::Cut;
use larder_engine::scrub::scrub;
use larder_engine::session::Author;
use larder_engine::simulated::{self, Simulated};
use larder_engine::snapshots::{Filter, SnapshotInfo, list};
use larder_engine::storage::Storage;
use larder_format::cell::Cell;
use larder_format::ids::SessionId;
use larder_format::names::Name;

use super::edits;
use super::forge::Forge;
use super::ground::Ground;
use super::meter::Meter;
use super::restored::{Files, expected, files_below, observe};
use crate::overlay::{Objects, Overlay};

/// What went wrong; nothing if all is as it must be.
type Judged = Result<(), String>;

/// What restores of all snapshots gave.
#[derive(Default)]
struct Restored {
    /// The files of each snapshot.
    files: BTreeMap<SessionId, Files>,
    /// What is said to be lost, by anybody who was asked for it.
    lost: Vec<String>,
}

struct Case<'a> {
    ground: &'a Ground,
    forge: Forge,
    objects: Arc<Objects>,
    folder: tempfile::TempDir,
}

/// Does to the repository what the bytes say, and everything that anybody may do with what comes of it.
///
/// # Errors
/// What must not happen and did. Panics go through.
pub fn run(ground: &Ground, bytes: &[u8]) -> Judged {
    run_edited(ground, |forge| edits::edit(forge, bytes))
}

/// Does the same with edits of which each has bytes of its own.
///
/// # Errors
/// As [`run`].
pub fn run_each(ground: &Ground, edits: &[Vec<u8>]) -> Judged {
    run_edited(ground, |forge| edits::edit_each(forge, edits))
}

fn run_edited(ground: &Ground, edit: impl FnOnce(&mut Forge)) -> Judged {
    let now_ns = 1_700_200_000_000_000_000;
    simulated::enter(Some(Simulated::new(1, now_ns, Duration::from_millis(1))));
    let mut forge = ground.forge.clone();
    edit(&mut forge);
    let folder = tempfile::tempdir_in(ground.folder.path()).unwrap();
    fs::create_dir(folder.path().join("outside")).unwrap();
    fs::write(folder.path().join("outside/secret"), b"secret").unwrap();
    let case = Case {
        ground,
        objects: Arc::new(forge.objects.clone()),
        forge,
        folder,
    };
    let judged = case.run();
    simulated::enter(None);
    judged
}

impl Case<'_> {
    fn run(&self) -> Judged {
        let outside = self.folder.path().join("outside");
        let seen = observe(&outside);
        let before = self.look()?;
        self.browse()?;
        self.repair(false, false, &before)?;
        self.repair(true, false, &before)?;
        self.repair(true, true, &before)?;
        self.back_up(&before)?;
        self.prune()?;
        match observe(&outside) == seen {
            true => Ok(()),
            false => Err("something was written beside the target".to_owned()),
        }
    }

    /// Gives the repository anew, as the bytes made it.
    fn storage(&self) -> Arc<Overlay> {
        Arc::new(Overlay::new(&self.objects))
    }

    /// Does something with a storage, within bounds.
    fn within<T>(
        &self,
        what: &str,
        storage: &Arc<Overlay>,
        deed: impl FnOnce(&Arc<dyn Storage>) -> T,
    ) -> Result<T, String> {
        let meter = Arc::new(Meter::new(storage));
        let done = deed(&(Arc::clone(&meter) as Arc<dyn Storage>));
        match meter.is_over() {
            false => Ok(done),
            true => Err(format!("{what} asks for too much")),
        }
    }

    fn open(&self, storage: &Arc<dyn Storage>) -> EngineResult<Arc<Repository>> {
        self.ground.open(storage)
    }

    /// Checks and restores: nothing is written but below the target, and what is lost is found.
    fn look(&self) -> Result<Restored, String> {
        let storage = self.storage();
        let cancel = Cancel::default();
        let checked = |read_data| {
            self.within("a check", &storage, |metered| {
                let options = CheckOptions {
                    read_data,
                    records_suspects: false,
                };
                check(&self.open(metered)?, &options, &Silent, &cancel)
            })
        };
        drop(checked(ReadData::No)?);
        let report = checked(ReadData::All)?;
        let quick =
            |metered: &Arc<dyn Storage>| quick(&self.open(metered)?, false, &Silent, &cancel);
        drop(self.within("a quick check", &storage, quick)?);
        let scratch = self.folder.path();
        let scrub = |metered: &Arc<dyn Storage>| scrub(metered, scratch, false, &Silent, &cancel);
        drop(self.within("a scrub", &storage, scrub)?);
        if storage.objects() != *self.objects {
            return Err("a check wrote".to_owned());
        }
        let restored = self.restore_all(&storage, "a restore")?;
        match (&report, restored.lost.first()) {
            (Ok(report), Some(lost)) if is_clean(report) => {
                Err(format!("a check of all data finds nothing, but {lost}"))
            }
            _ => Ok(restored),
        }
    }

    /// Restores all snapshots, and judges what stands there then.
    fn restore_all(&self, storage: &Arc<Overlay>, what: &str) -> Result<Restored, String> {
        let mut restored = Restored::default();
        let listed = self.within(what, storage, |metered| {
            list(&*self.open(metered)?, &Filter::default(), true)
        })?;
        for snapshot in listed.unwrap_or_default() {
            let target = self.folder.path().join("target");
            let done = self.within(what, storage, |metered| {
                let repository = self.open(metered)?;
                let options = restore_options(&target);
                restore(
                    &repository,
                    &snapshot,
                    None,
                    &options,
                    &Silent,
                    &Cancel::default(),
                )
            })?;
            let found = files_below(&target);
            self.judge(&snapshot, &done, &found, &mut restored)?;
            // A checkpoint may be replaced by whatever goes on from it.
            if !snapshot.partial {
                restored.files.insert(snapshot.session, found);
            }
            clear(&target);
        }
        Ok(restored)
    }

    fn judge(
        &self,
        snapshot: &SnapshotInfo,
        done: &EngineResult<RestoreReport>,
        found: &Files,
        restored: &mut Restored,
    ) -> Judged {
        let id = &snapshot.id;
        let cell: Option<Cell> = self.forge.open(&Name::Cell(snapshot.session));
        let Some(cell) = cell else {
            // One that a backup on top made.
            return Ok(());
        };
        let expected = expected(&self.forge, &cell);
        let judged = expected.judge(&self.forge, found);
        judged.map_err(|why| format!("in the restore of {id}: {why}; {done:?}"))?;
        match done {
            Ok(report) if report.lost > 0 => {
                let lost = format!("{id} has lost: {:?}", report.issues);
                restored.lost.push(lost);
            }
            Ok(report) if report.failed == 0 && report.warnings.is_empty() => {
                if let Some(path) = expected.missing(found).filter(|_| expected.is_whole) {
                    return Err(format!("{path} of {id} is not restored: {report:?}"));
                }
            }
            Err(error @ EngineError::Damaged { .. }) => {
                restored
                    .lost
                    .push(format!("{id} does not restore: {error}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Lists, finds, compares and dumps.
    fn browse(&self) -> Judged {
        let storage = self.storage();
        self.within("browsing", &storage, |metered| -> EngineResult<()> {
            let repository = self.open(metered)?;
            let listed = list(&repository, &Filter::default(), true)?;
            for snapshot in &listed {
                drop(browse::list(&repository, snapshot, None, true, &mut |_| {
                    Ok(())
                }));
                for path in &snapshot.sources {
                    let mut sink = Sink(8 << 20);
                    drop(browse::dump(
                        &repository,
                        snapshot,
                        path.as_bytes(),
                        &mut sink,
                    ));
                }
            }
            drop(past_repairs(metered.as_ref(), &Silent));
            Ok(())
        })
        .map(drop)
    }

    fn repair(&self, apply: bool, cuts_lost: bool, before: &Restored) -> Judged {
        let storage = self.storage();
        let done = self.within("a repair", &storage, |metered| {
            let options = RepairOptions {
                apply,
                read_data: true,
                cuts_lost,
                author: author(),
            };
            let (cancel, scratch) = (Cancel::default(), self.folder.path());
            let repair = Repair::prepare(metered, None, scratch, &options, &Silent, &cancel)?;
            let open = self.ground.open_options();
            let opened = Repository::open_on(repair.storage(), &Ground::secret(), &open)?;
            repair.run(&opened, &open)
        })?;
        if !apply {
            return match storage.objects() == *self.objects {
                true => Ok(()),
                false => Err("a repair that was to write nothing wrote".to_owned()),
            };
        }
        let after = self.restore_all(&storage, "a restore after a repair")?;
        let cuts = done.as_ref().map_or(&[][..], |report| &report.cuts);
        no_less(before, &after, cuts).map_err(|why| format!("after a repair: {why}: {done:?}"))
    }

    fn back_up(&self, before: &Restored) -> Judged {
        let storage = self.storage();
        let done = self.within("a backup", &storage, |metered| {
            let repository = self.open(metered)?;
            let options = backup_options(self.ground.source.clone());
            backup(&repository, &options, &Silent, &Cancel::default())
        })?;
        let after = self.restore_all(&storage, "a restore after a backup")?;
        no_less(before, &after, &[]).map_err(|why| format!("after a backup: {why}: {done:?}"))
    }

    fn prune(&self) -> Judged {
        let storage = self.storage();
        self.within("a prune", &storage, |metered| -> EngineResult<()> {
            let repository = self.open(metered)?;
            prune(&repository, &prune_options(), &Silent, &Cancel::default()).map(drop)
        })?
        .unwrap_or_default();
        self.restore_all(&storage, "a restore after a prune")
            .map(drop)
    }
}

fn is_clean(report: &CheckReport) -> bool {
    let mut findings = report.findings.iter();
    findings.all(|one| one.severity == Severity::Note)
}

/// Fails if a file that was restored before is not, or is another; of what was cut the new snapshot counts.
fn no_less(before: &Restored, after: &Restored, cuts: &[Cut]) -> Judged {
    for (id, files) in &before.files {
        let cut = cuts.iter().find(|cut| cut.from == id.snapshot_name());
        let mut sessions = after.files.iter();
        let now = match cut {
            Some(cut) => sessions.find(|(session, _)| session.snapshot_name() == cut.snapshot),
            None => sessions.find(|(session, _)| *session == id),
        };
        let now = now.map(|(_, files)| files);
        for (path, held) in files {
            if now.and_then(|now| now.get(path)) != Some(held) {
                let path = String::from_utf8_lossy(path);
                return Err(format!("{path} of {} was restored", id.snapshot_name()));
            }
        }
    }
    Ok(())
}

/// Takes so many bytes and no more.
struct Sink(usize);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => {
                self.0 = left;
                Ok(bytes.len())
            }
            None => Err(io::Error::other("it is enough")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes a restored tree, whatever permissions it has.
fn clear(target: &Path) {
    if target.symlink_metadata().is_ok() {
        fs::remove_dir_all(target).unwrap();
    }
}

fn author() -> Author {
    Author {
        host: "desk".to_owned(),
        user: "me".to_owned(),
    }
}

fn restore_options(target: &Path) -> RestoreOptions {
    RestoreOptions {
        target: target.to_owned(),
        overwrite: Overwrite::Always,
        delete: false,
        include: Vec::new(),
        exclude: Vec::new(),
        sparse: false,
        dry_run: false,
        verify: true,
        no_owner: true,
        numeric_owner: true,
        map_uid: Vec::new(),
        map_gid: Vec::new(),
        in_place: false,
        devices: false,
        lost_as_zeros: false,
    }
}

fn backup_options(source: PathBuf) -> BackupOptions {
    BackupOptions {
        sources: vec![source],
        buckets: Default::default(),
        streams: Default::default(),
        selection: Selection::default(),
        host: "desk".to_owned(),
        user: "me".to_owned(),
        tags: Vec::new(),
        time: None,
        parent: None,
        force: false,
        ignore_ctime: true,
        ignore_inode: true,
        with_atime: false,
        read_special: false,
        skip_if_unchanged: false,
        dry_run: false,
        compression: Compression::Auto,
        solid: true,
        verify_blocks: true,
        checkpoints: CheckpointRhythm::every_seconds(300),
        hooks: Default::default(),
        shard: None,
    }
}

fn prune_options() -> PruneOptions {
    PruneOptions {
        limits: Limits {
            max_unused: MaxUnused::Percent(0.0),
            max_repack_bytes: None,
        },
        max_duration: None,
        wait: true,
        patience: Duration::ZERO,
        dry_run: false,
        accept_rollback: false,
        assume_forgotten: Default::default(),
        accept_racy_creates: false,
        thaw: None,
        author: author(),
    }
}
