//! Backups among collectors: rounds and states are made by hand, between the writer's steps.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Duration;

use larder_format::collector::Round;
use larder_format::ids::{ObjectId, SessionId};
use larder_format::names;
use larder_format::session::{Amendment, Change};

use super::super::*;
use crate::check::{CheckOptions, ReadData, check};
use crate::clock;
use crate::collection::fixture::{
    Meddled, cells, end_round, put, revoke_all, round, sessions, state_of,
};
use crate::progress::Silent;
use crate::rewrite::{RewriteOptions, UndeleteOptions, rewrite, undelete};
use crate::session::Author;
use crate::simulated::{self, Simulated};
use crate::snapshots::fixture::{init, open, options};
use crate::source::select::Excludes;
use crate::storage::Storage;
use crate::storage::error::Operation;
use crate::storage::object::ObjectStorage;

/// A storage with a repository, and a source.
struct World {
    memory: Arc<dyn Storage>,
    storage: Arc<Meddled>,
    folder: tempfile::TempDir,
}

/// What was said while something ran.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn warning(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl World {
    /// Makes a source of `count` files of several chunks.
    fn new(count: usize) -> Self {
        // An hour ahead: what was written just now shares no tick with a run.
        let ahead_ns = clock::now_ns() + 3_600_000_000_000;
        let process = Simulated::new(7, ahead_ns, Duration::from_millis(1));
        simulated::enter(Some(process));
        let memory: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        init(memory.as_ref());
        let world = Self {
            storage: Meddled::new(Arc::clone(&memory)),
            memory,
            folder: tempfile::tempdir().unwrap(),
        };
        for number in 0..count {
            world.write(&format!("f{number:02}"), number as u64);
        }
        world
    }

    fn write(&self, name: &str, seed: u64) {
        let mut bytes = vec![0; 3000];
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seed);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }

    /// Opens the repository as the writer that is meddled with.
    fn here(&self) -> Arc<Repository> {
        let storage: Arc<dyn Storage> = self.storage.clone();
        open(&storage)
    }

    /// Opens it as somebody else.
    fn there(&self) -> Arc<Repository> {
        open(&self.memory)
    }

    fn options(&self) -> BackupOptions {
        options(&[self.folder.path()])
    }

    fn back_up(&self, repository: &Arc<Repository>) -> BackupReport {
        backup(repository, &self.options(), &Silent, &Cancel::default()).unwrap()
    }

    /// Fails unless everything that lives can be read to its last byte.
    fn assert_whole(&self) {
        let options = CheckOptions {
            read_data: ReadData::All,
            records_suspects: false,
        };
        let report = check(&self.there(), &options, &Silent, &Cancel::default()).unwrap();
        let bad: Vec<_> = report
            .findings
            .iter()
            .filter(|finding| finding.severity != crate::check::Severity::Note)
            .collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

/// Gives the packs that counting segments name, but for those that hold nodes if not asked for.
fn packs(repository: &Arc<Repository>) -> BTreeSet<ObjectId> {
    view::read(repository, false, None).unwrap();
    let mut packs = BTreeSet::new();
    let mut take = |pack: crate::index::PackInfo| {
        packs.insert(pack.id);
        ControlFlow::Continue(())
    };
    repository.index().packs(&mut take).unwrap();
    packs
}

fn forget(repository: &Arc<Repository>, id: SessionId) {
    let amendment = Amendment {
        cell: id,
        number: 1,
        change: Change::Forget,
        time: 0,
        host: String::new(),
        user: String::new(),
    };
    let keyring = repository.keyring();
    let (uid, random) = (
        crate::random::bytes().unwrap(),
        crate::random::bytes().unwrap(),
    );
    let object = larder_format::record::seal_record(keyring, &amendment, uid, &random).unwrap();
    let name = names::amendment(&id, 1);
    repository.storage().create(&name, object.into()).unwrap();
}

/// Condemns packs in a new round.
fn condemn(repository: &Arc<Repository>, number: u64, packs: BTreeSet<ObjectId>) {
    let condemned_packs = packs.into_iter().collect();
    put(
        repository,
        &Round {
            condemned_packs,
            ..round(number)
        },
    );
}

fn session_of(report: &BackupReport, repository: &Arc<Repository>) -> SessionId {
    let view = view::read_cells(repository, None).unwrap();
    let name = report.snapshot.as_deref().unwrap();
    snapshots::by_prefix(&view, name).unwrap().id
}

#[test]
fn nothing_is_deduplicated_against_condemned_deleted_or_suspect_packs() {
    for what in ["condemned", "suspect", "deleted"] {
        let world = World::new(6);
        let first = world.back_up(&world.here());
        assert!(first.statistics.chunks_added > 12);
        let there = world.there();
        let all: Vec<_> = packs(&there).into_iter().collect();
        match what {
            "condemned" => put(
                &there,
                &Round {
                    condemned_packs: all,
                    ..round(1)
                },
            ),
            "suspect" => put(
                &there,
                &Round {
                    suspect_packs: all,
                    ..round(1)
                },
            ),
            _ => {
                // Somebody moved everything away; the old packs are listed and still there.
                put(&there, &round(1));
                let state = state_of(&there, all);
                put(&there, &state);
            }
        }
        let forced = BackupOptions {
            force: true,
            ..world.options()
        };
        let again = backup(&world.here(), &forced, &Silent, &Cancel::default()).unwrap();
        assert_eq!(
            again.statistics.chunks_added, first.statistics.chunks_added,
            "{what}"
        );
    }
}

#[test]
fn a_trusted_parent_costs_no_read_and_an_untrusted_one_only_what_is_not_usable() {
    let world = World::new(6);
    let first = world.back_up(&world.here());
    let there = world.there();
    let id = session_of(&first, &there);
    let again = world.back_up(&world.here());
    assert_eq!(again.statistics.bytes_read, 0);
    // Forgotten after the parent was chosen, and before the writer registered; all is usable.
    forget(&there, session_of(&again, &there));
    let other = world.there();
    world
        .storage
        .before(Operation::Create, "sessions/", 1, move || {
            forget(&other, id)
        });
    let untrusted = world.back_up(&world.here());
    assert!(world.storage.is_done());
    assert_eq!(
        (
            untrusted.statistics.bytes_read,
            untrusted.statistics.unchanged
        ),
        (0, 7)
    );
    world.assert_whole();
}

#[test]
fn a_forgotten_parent_whose_packs_are_condemned_is_read_again() {
    // Whole entries are taken over, or contents alone while attributes are read.
    for ignore_ctime in [false, true] {
        a_condemned_parent_is_read_again(ignore_ctime);
    }
}

fn a_condemned_parent_is_read_again(ignore_ctime: bool) {
    let world = World::new(6);
    let first = world.back_up(&world.here());
    let there = world.there();
    let id = session_of(&first, &there);
    world
        .storage
        .before(Operation::Create, "sessions/", 1, move || {
            forget(&there, id);
            let all = packs(&there);
            condemn(&there, 1, all);
        });
    let options = BackupOptions {
        ignore_ctime,
        ..world.options()
    };
    let second = backup(&world.here(), &options, &Silent, &Cancel::default()).unwrap();
    assert_eq!(second.statistics.bytes_read, 6 * 3000);
    assert_eq!(second.statistics.unchanged, 7, "{:?}", second.statistics);
    // The round ends; what it condemned is nobody's.
    end_round(&world.there());
    world.assert_whole();
    let there = world.there();
    assert_eq!(cells(&there, CellKind::Complete).len(), 1);
}

#[test]
fn a_revoked_session_is_carried_on_and_reads_no_file_again() {
    let world = World::new(6);
    let there = world.there();
    world
        .storage
        .before(Operation::Create, "snapshots/", 1, move || {
            let view = view::read(&there, false, None).unwrap();
            revoke_all(&there, &view);
        });
    let heard = Heard::default();
    let report = backup(&world.here(), &world.options(), &heard, &Cancel::default()).unwrap();
    assert!(world.storage.is_done());
    assert_eq!(report.statistics.bytes_read, 6 * 3000);
    let told = heard.0.into_inner().unwrap();
    assert!(
        told.len() == 1 && told[0].contains("ended this backup's session"),
        "{told:?}"
    );
    let there = world.there();
    assert_eq!(sessions(&there).len(), 2);
    // Packs of the revoked session are not adopted: all that counts is of the new one.
    let view = view::read(&there, false, None).unwrap();
    let cell = &cells(&there, CellKind::Complete)[0];
    assert_eq!(view.segments(), cell.segments.iter().copied().collect());
    world.assert_whole();
    condemn_orphans(&there);
    end_round(&world.there());
    world.assert_whole();
}

/// Condemns and deletes every pack that no counting segment names.
fn condemn_orphans(there: &Arc<Repository>) {
    let named = packs(there);
    let mut orphans = BTreeSet::new();
    let mut take = |object: crate::storage::ObjectInfo| {
        if let Some(names::Name::Pack(id)) = names::parse(&object.name) {
            orphans.insert(id);
        }
        Ok(())
    };
    there.storage().list("packs", &mut take).unwrap();
    let newest = view::read_cells(there, None).unwrap().collection.newest();
    condemn(
        there,
        newest + 1,
        orphans.difference(&named).copied().collect(),
    );
}

#[test]
fn what_a_revoked_session_needs_from_its_parent_need_not_be_looked_up() {
    let world = World::new(20);
    world.back_up(&world.here());
    world.write("f19", 99);
    let there = world.there();
    world
        .storage
        .before(Operation::Create, "snapshots/", 1, move || {
            let view = view::read(&there, false, None).unwrap();
            revoke_all(&there, &view);
        });
    let report = world.back_up(&world.here());
    assert_eq!(report.statistics.bytes_read, 3000);
    world.assert_whole();
}

#[test]
fn a_session_revoked_at_every_checkpoint_ends_whole() {
    let world = World::new(4);
    for nth in 1..=4 {
        let there = world.there();
        world
            .storage
            .before(Operation::Create, "snapshots/", 2 * nth - 1, move || {
                let view = view::read(&there, false, None).unwrap();
                revoke_all(&there, &view);
            });
    }
    let options = BackupOptions {
        checkpoints: CheckpointRhythm::every_entries(1),
        ..world.options()
    };
    let heard = Heard::default();
    let report = backup(&world.here(), &options, &heard, &Cancel::default()).unwrap();
    assert!(world.storage.is_done());
    assert_eq!(report.statistics.bytes_read, 4 * 3000);
    assert_eq!(heard.0.into_inner().unwrap().len(), 1);
    let there = world.there();
    assert_eq!(cells(&there, CellKind::Revoked).len(), 4);
    world.assert_whole();
    condemn_orphans(&there);
    end_round(&world.there());
    world.assert_whole();
}

#[test]
fn a_void_commit_is_made_anew() {
    let world = World::new(4);
    let there = world.there();
    // A whole prune passes: the session is revoked, and then cleared away with its floor.
    world
        .storage
        .before(Operation::Create, "snapshots/", 1, move || {
            put(&there, &round(1));
            end_round(&there);
            for id in sessions(&there) {
                there.storage().delete(&names::cell(&id)).unwrap();
                there.storage().delete(&names::session(&id)).unwrap();
            }
        });
    let report = world.back_up(&world.here());
    assert_eq!(report.statistics.bytes_read, 4 * 3000);
    let there = world.there();
    let view = view::read(&there, false, None).unwrap();
    // The void cell, and the session that the writer gave up when it saw the state.
    assert_eq!((view.cells.len(), view.dead.len()), (1, 2));
    let id = session_of(&report, &there);
    assert_eq!(id.round(), 1);
    assert_eq!(view.cells[&id].seen_round, 1);
    world.assert_whole();
}

#[test]
fn what_is_gone_before_it_was_carried_is_read_again() {
    let world = World::new(4);
    let (there, memory) = (world.there(), Arc::clone(&world.memory));
    world
        .storage
        .before(Operation::Create, "snapshots/", 1, move || {
            let view = view::read(&there, false, None).unwrap();
            revoke_all(&there, &view);
            let mut packs = Vec::new();
            let mut take = |object: crate::storage::ObjectInfo| {
                packs.push(object.name);
                Ok(())
            };
            memory.list("packs", &mut take).unwrap();
            for name in packs {
                memory.delete(&name).unwrap();
            }
        });
    let heard = Heard::default();
    let report = backup(&world.here(), &world.options(), &heard, &Cancel::default()).unwrap();
    assert_eq!(report.statistics.files, 4);
    let told = heard.0.into_inner().unwrap();
    assert!(
        told.len() == 2 && told[1].contains("read again"),
        "{told:?}"
    );
    world.assert_whole();
    // Nothing waits for anybody.
    let there = world.there();
    let view = view::read(&there, false, None).unwrap();
    assert!(
        sessions(&there)
            .iter()
            .all(|id| view.cells.contains_key(id))
    );
}

/// The loss that reuse from the parent would cause: only the base, a checkpoint, is protected.
#[test]
fn after_a_checkpoint_the_parent_is_no_longer_relied_on() {
    let world = World::new(8);
    let first = world.back_up(&world.here());
    let there = world.there();
    let id = session_of(&first, &there);
    // Between the first checkpoint and its successor the parent is forgotten, and all of a round
    // passes that keeps what the checkpoint needs and no more.
    world
        .storage
        .before(Operation::Create, "sessions/", 2, move || {
            forget(&there, id);
            let all = packs(&there);
            let own = cells(&there, CellKind::Partial);
            let own: BTreeSet<_> = own.iter().flat_map(|cell| cell.segments.clone()).collect();
            assert!(!own.is_empty());
            condemn(&there, 1, all);
        });
    let options = BackupOptions {
        checkpoints: CheckpointRhythm::every_entries(1),
        ..world.options()
    };
    let report = backup(&world.here(), &options, &Silent, &Cancel::default()).unwrap();
    assert!(world.storage.is_done());
    assert!(
        report.statistics.bytes_read >= 7 * 3000,
        "{:?}",
        report.statistics
    );
    let there = world.there();
    let id = session_of(&report, &there);
    // Everything that the snapshot needs is outside of what was condemned.
    end_round(&there);
    let view = view::read(&there, false, None).unwrap();
    assert!(view.live().contains(&id));
    world.assert_whole();
}

#[test]
fn two_writers_take_turns_and_both_snapshots_are_whole() {
    let world = World::new(6);
    for nth in [1, 2] {
        let other = World {
            memory: Arc::clone(&world.memory),
            storage: Meddled::new(Arc::clone(&world.memory)),
            folder: tempfile::tempdir().unwrap(),
        };
        other.write("other", 3);
        other.write("more", 1000 + nth as u64);
        world
            .storage
            .before(Operation::Put, "index/", nth, move || {
                other.back_up(&other.here());
            });
    }
    world.back_up(&world.here());
    world.write("f00", 500);
    world.back_up(&world.here());
    assert!(world.storage.is_done());
    assert_eq!(cells(&world.there(), CellKind::Complete).len(), 4);
    world.assert_whole();
}

#[test]
fn a_run_that_makes_no_snapshot_ends_its_session() {
    let world = World::new(3);
    world.back_up(&world.here());
    let options = BackupOptions {
        skip_if_unchanged: true,
        ..world.options()
    };
    let report = backup(&world.here(), &options, &Silent, &Cancel::default()).unwrap();
    assert_eq!(report.snapshot, None);
    let there = world.there();
    assert_eq!(cells(&there, CellKind::Revoked).len(), 1);
    // So does one that fails, or is interrupted after its checkpoint.
    let cancel = Cancel::default();
    cancel.request();
    let error = backup(&world.here(), &world.options(), &Silent, &cancel).unwrap_err();
    assert!(matches!(error, EngineError::Interrupted));
    let view = view::read(&there, false, None).unwrap();
    assert!(
        sessions(&there)
            .iter()
            .all(|id| view.cells.contains_key(id))
    );
    world.assert_whole();
}

fn restore_into(world: &World, target: &std::path::Path) -> crate::restore::RestoreReport {
    let repository = world.here();
    let list = snapshots::list(&repository, &snapshots::Filter::default(), false).unwrap();
    let options = crate::restore::RestoreOptions {
        target: target.to_path_buf(),
        overwrite: crate::restore::Overwrite::Always,
        delete: false,
        include: Vec::new(),
        exclude: Vec::new(),
        sparse: false,
        dry_run: false,
        verify: true,
        no_owner: true,
        numeric_owner: false,
        map_uid: Vec::new(),
        map_gid: Vec::new(),
        in_place: false,
        devices: false,
        lost_as_zeros: false,
    };
    let path = world.folder.path().canonicalize().unwrap();
    let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
    let (silent, cancel) = (Silent, Cancel::default());
    crate::restore::restore(
        &repository,
        &list[0],
        Some(&path),
        &options,
        &silent,
        &cancel,
    )
    .unwrap()
}

#[test]
fn a_reader_finds_what_a_prune_moved_under_it() {
    // A node is read first, and then the contents.
    for nth in [1, 2] {
        let world = World::new(12);
        world.back_up(&world.here());
        let there = world.there();
        let forced = BackupOptions {
            force: true,
            ..world.options()
        };
        // All chunks are put in again elsewhere, and then what was there is deleted.
        world
            .storage
            .before(Operation::GetRange, "packs/", nth, move || {
                condemn(&there, 1, packs(&there));
                backup(&there, &forced, &Silent, &Cancel::default()).unwrap();
                end_round(&there);
            });
        let target = tempfile::tempdir().unwrap();
        let report = restore_into(&world, target.path());
        assert!(world.storage.is_done());
        assert_eq!(
            (report.failed, report.files),
            (0, 12),
            "{nth}: {:?}",
            report.issues
        );
    }
}

#[test]
fn a_long_restore_is_a_session_that_ends_and_does_without_where_it_may_not_write() {
    let world = World::new(2);
    fs::write(world.folder.path().join("long"), vec![7; 2 << 20]).unwrap();
    world.back_up(&world.here());
    let there = world.there();
    let target = tempfile::tempdir().unwrap();
    assert_eq!(restore_into(&world, target.path()).files, 3);
    let view = view::read(&there, false, None).unwrap();
    assert_eq!(sessions(&there).len(), 2);
    assert!(
        sessions(&there)
            .iter()
            .all(|id| view.cells.contains_key(id))
    );
    let faulty = Arc::new(crate::storage::faulty::Faulty::new(Arc::clone(
        &world.memory,
    )));
    faulty.inject(crate::storage::faulty::Fault {
        nth: 1,
        operation: Some(Operation::Create),
        lasts: true,
        effect: crate::storage::faulty::Effect::Error(
            crate::storage::faulty::When::Before,
            crate::storage::error::ErrorKind::Denied,
        ),
    });
    let read_only = World {
        storage: Meddled::new(faulty),
        memory: Arc::clone(&world.memory),
        folder: world.folder,
    };
    let target = tempfile::tempdir().unwrap();
    assert_eq!(restore_into(&read_only, target.path()).files, 3);
    assert_eq!(sessions(&there).len(), 2);
}

fn author() -> Author {
    Author {
        host: "desk".to_owned(),
        user: "me".to_owned(),
    }
}

#[test]
fn a_forgotten_snapshot_comes_back_with_its_facts() {
    let world = World::new(5);
    let tagged = BackupOptions {
        tags: vec!["weekly".to_owned()],
        ..world.options()
    };
    let report = backup(&world.here(), &tagged, &Silent, &Cancel::default()).unwrap();
    let there = world.there();
    let id = session_of(&report, &there);
    let options = UndeleteOptions {
        author: author(),
        dry_run: false,
    };
    let name = id.snapshot_name();
    let undo = |repository| undelete(repository, &name, &options, &Silent, &Cancel::default());
    assert!(undo(&there).is_err(), "it is not forgotten");
    forget(&there, id);
    let all = packs(&there);
    condemn(&there, 1, all.clone());
    // Condemned packs are there to be read, and not to be relied on.
    let dry = UndeleteOptions {
        dry_run: true,
        ..options.clone()
    };
    let made = undelete(&there, &name, &dry, &Silent, &Cancel::default()).unwrap();
    assert_eq!((made.snapshot, sessions(&there).len()), (None, 1));
    let made = undo(&world.here()).unwrap();
    assert!(made.bytes_stored > 5 * 3000, "{made:?}");
    end_round(&world.there());
    world.assert_whole();
    let there = world.there();
    let view = view::read(&there, false, None).unwrap();
    let new = snapshots::by_prefix(&view, &made.snapshot.unwrap()).unwrap();
    assert_eq!(
        (new.tags.as_slice(), new.host.as_str()),
        (&["weekly".to_owned()][..], "desk")
    );
    assert_eq!(new.statistics.files, 5);
    // Once its packs are gone there is nothing to bring back.
    forget(&there, new.id);
    let (last, segments) = (new.id.snapshot_name(), packs(&there));
    condemn(&there, 2, segments);
    end_round(&there);
    let gone = undelete(&world.there(), &last, &options, &Silent, &Cancel::default());
    assert!(matches!(gone, Err(EngineError::NotFound(_))), "{gone:?}");
}

fn excludes(patterns: &[&str]) -> Excludes {
    Excludes {
        exclude: patterns.iter().map(ToString::to_string).collect(),
        ..Excludes::default()
    }
}

#[test]
fn a_snapshot_is_rewritten_without_what_matches() {
    let world = World::new(5);
    fs::create_dir(world.folder.path().join("secret")).unwrap();
    world.write("secret/one", 70);
    world.write("secret/two", 71);
    let report = world.back_up(&world.here());
    let options = RewriteOptions {
        exclude: excludes(&["secret/", "f03"]),
        keep_original: true,
        author: author(),
        dry_run: true,
    };
    let name = report.snapshot.unwrap();
    let run = |options: &RewriteOptions| {
        rewrite(&world.here(), &name, options, &Silent, &Cancel::default())
    };
    let dry = run(&options).unwrap();
    let counts = (
        dry.snapshot,
        dry.entries,
        dry.entries_removed,
        dry.bytes_removed >= 9000,
    );
    assert_eq!(counts, (None, 5, 4, true));
    let there = world.there();
    assert_eq!(sessions(&there).len(), 1);
    let options = RewriteOptions {
        dry_run: false,
        ..options
    };
    let made = run(&options).unwrap();
    let view = view::read(&there, false, None).unwrap();
    let (old, new) = (
        snapshots::by_prefix(&view, &name).unwrap(),
        snapshots::by_prefix(&view, &made.snapshot.unwrap()).unwrap(),
    );
    assert_eq!(
        (new.started, new.ended, &new.host),
        (old.started, old.ended, &old.host)
    );
    assert_eq!((new.statistics.files, new.sources[0].entries), (4, 5));
    let new_name = new.id.snapshot_name();
    world.assert_whole();
    // Patterns that match nothing make no snapshot, and leave nobody waiting.
    let nothing = RewriteOptions {
        exclude: excludes(&["absent"]),
        ..options.clone()
    };
    assert_eq!(run(&nothing).unwrap().snapshot, None);
    let view = view::read(&there, false, None).unwrap();
    assert!(
        sessions(&there)
            .iter()
            .all(|id| view.cells.contains_key(id))
    );
    // As if interrupted before the old one was forgotten: the new one is not made again.
    let forgetting = RewriteOptions {
        keep_original: false,
        ..options
    };
    let again = run(&forgetting).unwrap();
    assert_eq!(
        (again.existed, again.forgotten, again.snapshot),
        (true, true, Some(new_name.clone()))
    );
    let view = view::read(&there, false, None).unwrap();
    let left: Vec<_> = view
        .snapshots()
        .map(|cell| cell.id.snapshot_name())
        .collect();
    assert_eq!(left, [new_name]);
    // What was forgotten that way comes back, though a part of it is there as another snapshot.
    let undo = UndeleteOptions {
        author: author(),
        dry_run: false,
    };
    let undo = || undelete(&world.here(), &name, &undo, &Silent, &Cancel::default()).unwrap();
    let (once, twice) = (undo(), undo());
    assert_eq!((once.existed, once.entries), (false, 9));
    assert_eq!((twice.existed, twice.snapshot), (true, once.snapshot));
    world.assert_whole();
}

/// Every snapshot is rewritten long after later ones: their times stay believed, and take the place
/// of those of which they are copies.
#[test]
fn retention_takes_a_copy_for_what_it_is_a_copy_of() {
    use crate::forget;
    use crate::retention::{Count, Period, Policy};

    let world = World::new(2);
    world.write("secret", 70);
    let mut names = Vec::new();
    for day in 0..5 {
        let hours = Duration::from_secs(24 * 3600 * day);
        let ahead_ns = clock::now_ns() + i64::try_from(hours.as_nanos()).unwrap();
        let process = Simulated::new(100 + day, ahead_ns, Duration::from_millis(1));
        simulated::enter(Some(process));
        names.push(world.back_up(&world.here()).snapshot.unwrap());
        // Rounds come between, so that sessions are ordered by their numbers as well.
        if day == 2 {
            put(&world.there(), &round(1));
            end_round(&world.there());
        }
    }
    let options = RewriteOptions {
        exclude: excludes(&["secret"]),
        keep_original: false,
        author: author(),
        dry_run: false,
    };
    let oldest_first = names[..3].iter();
    for name in oldest_first {
        let (silent, cancel) = (Silent, Cancel::default());
        let made = rewrite(&world.here(), name, &options, &silent, &cancel).unwrap();
        assert!(made.forgotten);
    }
    let policy = Policy {
        counts: [(Period::Day, Count::Some(3))].into(),
        ..Policy::default()
    };
    let options = forget::ForgetOptions {
        choice: forget::Choice::Policy(Box::new(policy), Vec::new()),
        filter: snapshots::Filter::default(),
        group_by: crate::retention::GroupBy::default(),
    };
    let now = jiff::Timestamp::from_nanosecond(i128::from(clock::now_ns()) + 1).unwrap();
    let now = now.to_zoned(jiff::tz::TimeZone::UTC);
    let plan = forget::plan(&world.here(), &options, &now).unwrap();
    let decided: Vec<_> = plan.groups[0]
        .snapshots
        .iter()
        .map(|one| (one.forget, one.reasons.join(",")))
        .collect();
    let daily = || (false, "daily".to_owned());
    let gone = || (true, String::new());
    assert_eq!(decided, [gone(), gone(), daily(), daily(), daily()]);
}
