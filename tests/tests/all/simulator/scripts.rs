//! The rules whose absence seeds hardly ever meet: one script each, played by the engine itself. It loses
//! nothing as the engine is, and something without the rule.
//!
//! The scripts follow the ways to a loss that the model finds without the rule (`collection.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use larder_engine::backup::{BackupOptions, CheckpointRhythm};
use larder_engine::check::ReadData;
use larder_engine::error::EngineError;
use larder_engine::protocol::{Rule, keeps};
use larder_engine::prune::plan::MaxUnused;
use larder_engine::storage::error::Operation;

use super::people::{Person, StopAfter};
use super::scene::Scene;
use super::stage::{Cue, Fate, Objects};
use crate::left_out::without;
use crate::program::noise;

/// Where a pack's header tells its kind, and the kind of packs with contents of files.
const KIND_AT: usize = 9;
const DATA: u8 = 3;

/// A script for each of these rules.
macro_rules! scripts {
    ($($name:ident: $rule:ident,)*) => {
        /// What is tested here.
        pub const TESTED: &[Rule] = &[$(Rule::$rule),*];
        $(#[test] fn $name() {
            let test = concat!(module_path!(), "::", stringify!($name));
            assert_needed(Rule::$rule, test, scene::$name);
        })*
    };
}

scripts! {
    commit_supersedes: CommitSupersedes,
    keep_bases: KeepBases,
    stop_at_unresolved: StopAtUnresolved,
    dead_supersede_not: DeadSupersedeNot,
    avoid_suspects: AvoidSuspects,
    carry_suspects: CarrySuspects,
    sound_first: SoundFirst,
    avoid_missing: AvoidMissing,
    read_cells_first: ReadCellsFirst,
    see_base_live: SeeBaseLive,
    cells_first: CellsFirst,
    create_round: CreateRound,
    look_before_delete: LookBeforeDelete,
}

fn assert_needed(rule: Rule, test: &str, script: fn(&mut Scene)) {
    let play = || {
        let mut scene = Scene::new();
        script(&mut scene);
        scene.stage.failure()
    };
    assert_eq!(play(), None);
    without(rule, test, || {
        let why = play().unwrap_or_else(|| panic!("nobody misses {rule:?}"));
        println!("{rule:?}: {why}");
    });
}

/// The scripts themselves.
mod scene {
    use super::*;

    /// A writer dies after a checkpoint, and a prune ends the session that went on from it: the
    /// checkpoint stays.
    pub fn commit_supersedes(scene: &mut Scene) {
        let dying = scene.person();
        let dying = scene.begin(dying, back_up_in_steps);
        let mut cells = 0;
        dying.end_with(Box::new(move |operation, name| {
            cells += u32::from(creates(operation, name, "snapshots/"));
            if cells < 2 {
                Cue::Go
            } else {
                Cue::Meet(Fate::Dead)
            }
        }));
        scene.expect_checkpoint();
        let collector = scene.person();
        let (_, report) = scene.act(collector, Person::free);
        assert_eq!(report.unwrap().sessions_revoked, 1);
        scene.verify(None);
    }

    /// A session whose number was revoked, and whose revocation was cleared, commits below the floor and
    /// dies before it looks: the checkpoint that it went on from stays.
    pub fn dead_supersede_not(scene: &mut Scene) {
        let late = scene.person();
        let late = scene.begin(late, back_up_in_steps);
        let mut cells = 0;
        late.until(move |operation, name| {
            cells += u32::from(creates(operation, name, "snapshots/"));
            cells == 2
        });
        scene.expect_checkpoint();
        let collector = scene.person();
        let (collector, _) = scene.act(collector, Person::free);
        let count = |objects: &mut Objects| below(objects, "snapshots/").len();
        assert_eq!(scene.stage.meddle(count), 1);
        late.end_with(Box::new(|operation, name| {
            if creates(operation, name, "snapshots/") {
                Cue::Meet(Fate::DeadAfter)
            } else {
                Cue::Go
            }
        }));
        assert_eq!(scene.stage.meddle(count), 2);
        scene.verify(None);
        scene.act(collector, Person::free);
        scene.verify(None);
    }

    /// A session that registers beside a round trusts a base, whose content is condemned, and the base is
    /// forgotten before the collector looks again.
    pub fn keep_bases(scene: &mut Scene) {
        let (ann, bob, collector) = (scene.person(), scene.person(), scene.person());
        let (ann, first) = scene.act(ann, |me| back_up(me, "a", 1));
        let (ann, ()) = scene.act(ann, move |me| forget(me, &first));
        // Nothing needs the content, as far as the collector has read.
        let collector = scene.begin(collector, Person::free);
        collector.until(|operation, name| creates(operation, name, "gc/"));
        let (bob, base) = scene.act(bob, |me| back_up(me, "a", 1));
        // It has listed the sessions that it waits for: none.
        collector.until(has_listed_sessions());
        let bob = scene.begin(bob, |me| back_up(me, "b", 2));
        bob.until(|operation, name| creates(operation, name, "snapshots/"));
        scene.act(ann, move |me| forget(me, &base));
        collector.end();
        bob.end();
        scene.verify(None);
    }

    /// What a tree needs cannot be known while its nodes are away, and must be there when they come back.
    pub fn stop_at_unresolved(scene: &mut Scene) {
        let (ann, bob, collector) = (scene.person(), scene.person(), scene.person());
        scene.act(ann, |me| back_up(me, "a", 1));
        let (bob, gone) = scene.act(bob, |me| back_up(me, "b", 2));
        scene.act(bob, move |me| forget(me, &gone));
        let away = scene.stage.meddle(|objects| {
            let mut packs = below(objects, "packs/");
            packs.retain(|_, bytes| bytes[KIND_AT] != DATA);
            objects.retain(|name, _| !packs.contains_key(name));
            packs
        });
        assert!(!away.is_empty());
        let (_, outcome) = scene.act(collector, |me| {
            me.try_prune(MaxUnused::Bytes(0), Duration::ZERO, false)
        });
        if keeps(Rule::StopAtUnresolved) {
            assert!(matches!(outcome, Err(EngineError::Damaged { .. })));
        }
        scene.stage.meddle(|objects| objects.extend(away));
        scene.verify(None);
    }

    /// A pack turned out damaged: who has its content puts it in anew.
    pub fn avoid_suspects(scene: &mut Scene) {
        let collector = scene.person();
        rot(scene, collector);
        let bob = scene.person();
        scene.act(bob, |me| back_up(me, "a", 1));
    }

    /// The same long after the round that found the damage.
    pub fn carry_suspects(scene: &mut Scene) {
        let collector = scene.person();
        let collector = rot(scene, collector);
        scene.act(collector, Person::free);
        let bob = scene.person();
        scene.act(bob, |me| back_up(me, "a", 1));
    }

    /// Somebody took a pack away: who has its content puts it in anew.
    pub fn avoid_missing(scene: &mut Scene) {
        let (ann, bob) = (scene.person(), scene.person());
        scene.act(ann, |me| back_up(me, "a", 1));
        let away = scene.stage.meddle(|objects| {
            let mut packs = below(objects, "packs/");
            packs.retain(|_, bytes| bytes[KIND_AT] == DATA);
            objects.retain(|name, _| !packs.contains_key(name));
            packs
        });
        assert_eq!(away.len(), 1);
        scene.act(bob, |me| back_up(me, "a", 1));
    }

    /// A content is in a suspect pack and in a sound one that is condemned, and is needed again: the sound
    /// one stays.
    pub fn sound_first(scene: &mut Scene) {
        let (bob, eve, collector) = (scene.person(), scene.person(), scene.person());
        let collector = rot(scene, collector);
        let (bob, gone) = scene.act(bob, |me| back_up(me, "a", 1));
        scene.act(bob, move |me| forget(me, &gone));
        let collector = scene.begin(collector, Person::free);
        collector.until(|operation, name| creates(operation, name, "gc/"));
        let (_, again) = scene.act(eve, |me| back_up(me, "a", 1));
        let (_, report) = collector.end();
        if keeps(Rule::SoundFirst) {
            assert!(report.unwrap().packs_rescued > 0);
        }
        scene.verify(Some(&again));
    }

    /// A reader is in the middle of its reading while a forgotten snapshot is cleared, and its cell comes
    /// back, since its writer's request arrives a second time.
    pub fn read_cells_first(scene: &mut Scene) {
        let (ann, bob, collector) = (scene.person(), scene.person(), scene.person());
        let (ann, gone) = scene.act(ann, |me| back_up(me, "a", 1));
        let sent = scene.stage.meddle(|objects| below(objects, "snapshots/"));
        scene.act(bob, |me| back_up(me, "b", 2));
        scene.act(ann, move |me| forget(me, &gone));
        let reader = scene.person();
        let reader = scene.begin(reader, Person::look);
        let mut first = None;
        reader.until(move |operation, name| {
            if operation != Operation::List || !["snapshots", "gc"].contains(&name) {
                return false;
            }
            first.get_or_insert_with(|| name.to_owned()) != name
        });
        scene.act(collector, Person::free);
        scene.stage.meddle(|objects| {
            for (name, bytes) in sent {
                assert!(objects.insert(name, bytes).is_none());
            }
        });
        reader.end();
        scene.verify(None);
    }

    /// A base that its writer chose is forgotten, and a collector has looked for open sessions before the
    /// writer registers: what the base has is about to go.
    pub fn see_base_live(scene: &mut Scene) {
        let (ann, bob, collector) = (scene.person(), scene.person(), scene.person());
        let (bob, base) = scene.act(bob, |me| back_up(me, "a", 1));
        let late = scene.begin(bob, |me| back_up(me, "b", 2));
        late.until(|operation, name| creates(operation, name, "sessions/"));
        scene.act(ann, move |me| forget(me, &base));
        let collector = scene.begin(collector, Person::free);
        collector.until(creates_state);
        // The number that it had is too low by now: it registers anew.
        let mut registered = 0;
        late.until(move |operation, name| {
            registered += u32::from(creates(operation, name, "sessions/"));
            registered == 2 && creates(operation, name, "snapshots/")
        });
        let (_, report) = collector.end();
        assert!(report.unwrap().packs_deleted > 0);
        late.end();
        scene.verify(None);
    }

    /// A session registers beside a round and trusts a base, whose content is condemned, and the base is
    /// forgotten: all after the collector's last look at one of the two, and before that at the other.
    pub fn cells_first(scene: &mut Scene) {
        let (ann, bob, collector) = (scene.person(), scene.person(), scene.person());
        let (ann, first) = scene.act(ann, |me| back_up(me, "a", 1));
        let (ann, ()) = scene.act(ann, move |me| forget(me, &first));
        // Somebody died, so that the round has to end their session.
        let dead = scene.person();
        let dead = scene.begin(dead, |me| back_up(me, "d", 4));
        dead.end_with(Box::new(|operation, name| {
            if creates(operation, name, "snapshots/") {
                Cue::Meet(Fate::Dead)
            } else {
                Cue::Go
            }
        }));
        let collector = scene.begin(collector, Person::free);
        collector.until(|operation, name| creates(operation, name, "gc/"));
        let (bob, base) = scene.act(bob, |me| back_up(me, "a", 1));
        let mut has_waited = false;
        collector.until(move |operation, name| {
            has_waited |= creates(operation, name, "snapshots/");
            has_waited && (operation, name) == (Operation::List, "snapshots")
        });
        let bob = scene.begin(bob, |me| back_up(me, "b", 2));
        bob.until(|operation, name| creates(operation, name, "snapshots/"));
        scene.act(ann, move |me| forget(me, &base));
        collector.end();
        bob.end();
        scene.verify(None);
    }

    /// Two collectors make the same round: one found more to condemn, and a session trusts the other's.
    pub fn create_round(scene: &mut Scene) {
        let (ann, bob, eve) = (scene.person(), scene.person(), scene.person());
        let (ann, first) = scene.act(ann, |me| back_up(me, "a", 1));
        let (bob, second) = scene.act(bob, |me| back_up(me, "b", 2));
        scene.act(bob, move |me| forget(me, &second));
        let [one, other] = [scene.person(), scene.person()];
        let one = scene.begin(one, Person::free);
        one.until(writes_round);
        scene.act(ann, move |me| forget(me, &first));
        let other = scene.begin(other, Person::free);
        other.until(writes_round);
        // It has listed the sessions that it waits for: none.
        one.until(has_listed_sessions());
        let eve = scene.begin(eve, |me| back_up(me, "a", 1));
        eve.until(|operation, name| creates(operation, name, "snapshots/"));
        other.end_with(Box::new(|operation, name| {
            if writes_round(operation, name) {
                Cue::Meet(Fate::DeadAfter)
            } else {
                Cue::Go
            }
        }));
        one.end();
        eve.end();
        scene.verify(None);
    }

    /// A collector is about to end a round that another one ended otherwise, and whose records are cleared
    /// by now: its state comes too late, and lists a pack that is in use.
    pub fn look_before_delete(scene: &mut Scene) {
        let (ann, bob, dan) = (scene.person(), scene.person(), scene.person());
        let (slow, quick) = (scene.person(), scene.person());
        let (ann, first) = scene.act(ann, |me| back_up(me, "a", 1));
        let (bob, second) = scene.act(bob, |me| back_up(me, "b", 2));
        let (ann, ()) = scene.act(ann, move |me| forget(me, &first));
        let slow = scene.begin(slow, Person::free);
        slow.until(writes_round);
        // The content that is about to be condemned is needed once more, as far as the quick one reads.
        let (ann, again) = scene.act(ann, |me| back_up(me, "a", 1));
        slow.until(|operation, name| !writes_round(operation, name));
        let quick = scene.begin(quick, Person::free);
        quick.until(creates_state);
        let (ann, ()) = scene.act(ann, move |me| forget(me, &again));
        scene.act(bob, move |me| forget(me, &second));
        slow.until(creates_state);
        quick.until(|operation, name| !creates_state(operation, name));
        // It was rescued, so it may be used; and what was forgotten meanwhile brings another round.
        let (ann, third) = scene.act(ann, |me| back_up(me, "a", 1));
        quick.until(writes_round);
        quick.until(has_listed_sessions());
        let dan = scene.begin(dan, |me| back_up(me, "a", 1));
        dan.until(|operation, name| creates(operation, name, "snapshots/"));
        quick.end();
        scene.act(ann, move |me| forget(me, &third));
        // Listings miss what comes and goes while they are told. Both of a reading do that here.
        let newer = scene.stage.meddle(|objects| {
            let newer = below(objects, "gc/");
            objects.retain(|name, _| !newer.contains_key(name));
            newer
        });
        assert_eq!(newer.len(), 2);
        slow.until(|operation, name| (operation, name) == (Operation::List, ""));
        scene.stage.meddle(|objects| objects.extend(newer));
        slow.end();
        dan.end();
        scene.verify(None);
    }
}

#[test]
fn a_base_that_was_let_go_stops_no_collector() {
    let mut scene = Scene::new();
    let (ann, bob, collector) = (scene.person(), scene.person(), scene.person());
    let (ann, first) = scene.act(ann, |me| back_up(me, "a", 1));
    let (ann, ()) = scene.act(ann, move |me| forget(me, &first));
    let collector = scene.begin(collector, Person::free);
    collector.until(|operation, name| creates(operation, name, "gc/"));
    let (bob, older) = scene.act(bob, |me| back_up(me, "a", 1));
    collector.until(has_listed_sessions());
    // It trusts the one before it, so that it needs what is condemned.
    let (bob, newer) = scene.act(bob, |me| back_up(me, "b", 2));
    // This one compares with that, and registers too late to trust it.
    let late = scene.begin(bob, |me| back_up(me, "c", 3));
    late.until(|operation, name| creates(operation, name, "sessions/"));
    for id in [older, newer] {
        let eve = scene.person();
        scene.act(eve, move |me| forget(me, &id));
    }
    collector.until(|operation, name| (operation, name) == (Operation::List, ""));
    late.until(|operation, name| creates(operation, name, "snapshots/"));
    let (_, report) = collector.end();
    assert!(report.is_some_and(|report| report.packs_deleted > 0));
    late.end();
    scene.act(ann, Person::free);
    scene.verify(None);
    assert_eq!(scene.stage.failure(), None);
}

#[test]
fn a_check_that_is_overtaken_looks_again_and_then_gives_up() {
    for times in 0..4 {
        let mut scene = Scene::new();
        let (mut ann, checker) = (scene.person(), scene.person());
        let mut collector = scene.person();
        let mut snapshot;
        (ann, snapshot) = scene.act(ann, |me| back_up(me, "a", 1));
        let checker = scene.begin(checker, |me| me.try_check(ReadData::No));
        for time in 0..times {
            let mut has_listed = false;
            checker.until(move |operation, name| {
                has_listed |= (operation, name) == (Operation::List, "gc");
                has_listed && operation == Operation::GetRange
            });
            (ann, _) = scene.act(ann, move |me| forget(me, &snapshot));
            (ann, snapshot) = scene.act(ann, move |me| {
                me.remove("a");
                back_up(me, "a", 10 + time)
            });
            (collector, _) = scene.act(collector, Person::free);
        }
        let (_, outcome) = checker.end();
        if times < 3 {
            assert_eq!(outcome.unwrap().findings.len(), 0, "{times}");
        } else {
            assert!(matches!(outcome, Err(EngineError::Request(_))), "{times}");
        }
        assert_eq!(scene.stage.failure(), None);
    }
}

/// Leaves a pack that a prune found damaged: it has the content 1, which only a forgotten snapshot needs.
fn rot(scene: &mut Scene, collector: Person) -> Person {
    let ann = scene.person();
    let (ann, gone) = scene.act(ann, |me| {
        me.write("x", content(1));
        back_up(me, "y", 3)
    });
    let (ann, _) = scene.act(ann, |me| {
        me.remove("x");
        back_up(me, "z", 4)
    });
    scene.act(ann, move |me| forget(me, &gone));
    scene.stage.meddle(|objects| {
        let first = objects.iter_mut().filter(|(name, bytes)| {
            name.starts_with("packs/") && bytes[KIND_AT] == DATA && bytes.len() > 2 * LENGTH
        });
        for (_, bytes) in first {
            let mut rotten = bytes.to_vec();
            rotten[LENGTH / 2] ^= 1;
            *bytes = rotten.into();
        }
    });
    let (collector, report) = scene.act(collector, Person::free);
    assert_eq!(report.unwrap().round, Some(1));
    collector
}

/// Bytes of each file.
const LENGTH: usize = 4000;

fn content(number: u64) -> Vec<u8> {
    noise(number, LENGTH)
}

/// Writes a file and backs all up; gives the snapshot, whatever became of it.
fn back_up(me: &mut Person, name: &str, number: u64) -> String {
    me.write(name, content(number));
    let options = options(me, CheckpointRhythm::every_seconds(u64::MAX));
    me.save(options, &StopAfter::default()).unwrap_or_default()
}

/// Backs some files up, with a checkpoint after each.
fn back_up_in_steps(me: &mut Person) {
    for number in 10..14 {
        me.write(&format!("f{number}"), content(number));
    }
    let options = options(me, CheckpointRhythm::every_entries(1));
    me.save(options, &StopAfter::default());
}

fn options(me: &mut Person, checkpoints: CheckpointRhythm) -> BackupOptions {
    BackupOptions {
        force: false,
        ignore_ctime: false,
        solid: true,
        verify_blocks: true,
        checkpoints,
        ..me.backup_options()
    }
}

fn forget(me: &mut Person, snapshot: &str) {
    let repository = me.repository().unwrap();
    me.forget_one(&repository, snapshot);
}

fn creates(operation: Operation, name: &str, folder: &str) -> bool {
    operation == Operation::Create && name.starts_with(folder)
}

/// Tells whether a collector has listed the sessions that its round waits for, and is about to read anew.
fn has_listed_sessions() -> impl FnMut(Operation, &str) -> bool {
    let mut has_listed = false;
    move |operation, name| {
        has_listed |= (operation, name) == (Operation::List, "sessions");
        has_listed && name == "snapshots"
    }
}

/// Tells whether a collector is about to end its round.
fn creates_state(operation: Operation, name: &str) -> bool {
    creates(operation, name, "gc/") && name.ends_with(".final")
}

/// Tells whether a collector is about to make its round, however it does.
fn writes_round(operation: Operation, name: &str) -> bool {
    matches!(operation, Operation::Create | Operation::Put) && name.starts_with("gc/")
}

/// Gives the objects of a folder.
fn below(objects: &Objects, folder: &str) -> BTreeMap<String, Bytes> {
    let found = objects.iter().filter(|(name, _)| name.starts_with(folder));
    found
        .map(|(name, bytes)| (name.clone(), bytes.clone()))
        .collect()
}
