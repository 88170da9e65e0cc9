#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use larder_format::collector::{Round, State};
use larder_format::names::session_end;
use larder_format::segment::{Owner, Segment};

use super::*;
use crate::collection::fixture::{Meddled, cells, put, round, sessions};
use crate::snapshots::fixture::{cell, init, open as open_repository};
use crate::snapshots::{self, Filter};
use crate::storage::Storage;
use crate::storage::error::Operation;
use crate::storage::faulty::{Fault, Faulty, When};
use crate::storage::object::ObjectStorage;

fn storage() -> Arc<dyn Storage> {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    storage
}

fn author() -> Author {
    Author {
        host: "desk".to_owned(),
        user: "me".to_owned(),
    }
}

fn numbered(number: u64, id: u8) -> Cell {
    Cell {
        id: SessionId::new(number, [id; 16]),
        ..cell(id, 1000)
    }
}

fn state(number: u64, live: &[&Cell]) -> State {
    State {
        number,
        live_cells: live.iter().map(|cell| cell.id).collect(),
        ..State::default()
    }
}

fn object(byte: u8) -> ObjectId {
    ObjectId([byte; 32])
}

fn listed(repository: &Repository) -> Vec<SessionId> {
    let list = snapshots::list(repository, &Filter::default(), false).unwrap();
    list.iter().map(|info| info.session).collect()
}

/// Puts a segment without packs; gives its name.
fn put_segment(repository: &Repository, owner: Owner) -> ObjectId {
    let packs = Vec::new();
    let segment = Segment { owner, packs };
    let (uid, random) = (random::bytes().unwrap(), random::bytes().unwrap());
    let (id, bytes) = segment.seal(repository.keyring(), uid, &random).unwrap();
    let name = names::segment(&id);
    repository.storage().put(&name, bytes.into()).unwrap();
    id
}

#[test]
fn cells_below_the_floor_are_dead_unless_the_state_lists_them() {
    let storage = storage();
    let repository = open_repository(&storage);
    let (kept, gone, later) = (numbered(0, 1), numbered(0, 2), numbered(1, 3));
    for cell in [&kept, &gone, &later] {
        put(&repository, cell);
    }
    assert_eq!(listed(&repository).len(), 3);
    put(&repository, &round(1));
    assert_eq!(
        listed(&repository).len(),
        3,
        "a round alone decides nothing"
    );
    put(&repository, &state(1, &[&kept]));
    assert_eq!(listed(&repository), [kept.id, later.id]);
    // What is dead may be damaged, or gone.
    let name = names::cell(&gone.id);
    storage.put(&name, Bytes::from_static(b"nothing")).unwrap();
    let view = view::read(&repository, false, None).unwrap();
    assert!(view.unusable.is_empty() && view.dead.contains(&gone.id));
    storage.delete(&name).unwrap();
    let view = view::read(&repository, false, None).unwrap();
    assert!(view.unusable.is_empty() && view.dead.is_empty());
    // What the state lists may not.
    storage.delete(&names::cell(&kept.id)).unwrap();
    let view = view::read(&repository, false, None).unwrap();
    assert_eq!(view.unusable[0].object, names::cell(&kept.id));
}

#[test]
fn older_collector_records_count_for_nothing() {
    let storage = storage();
    let repository = open_repository(&storage);
    let kept = numbered(0, 1);
    put(&repository, &kept);
    put(&repository, &round(7));
    put(&repository, &state(7, &[&kept]));
    // A round that lost, and a state from before, come late.
    put(&repository, &round(3));
    put(&repository, &state(2, &[]));
    assert_eq!(listed(&repository), [kept.id]);
    let view = view::read(&repository, false, None).unwrap();
    assert_eq!((view.collection.floor(), view.collection.newest()), (7, 7));
}

#[test]
fn a_state_that_is_gone_is_damage_and_readers_go_on() {
    let storage = storage();
    let repository = open_repository(&storage);
    let kept = numbered(0, 1);
    put(&repository, &kept);
    for number in 1..=2 {
        put(&repository, &round(number));
        put(&repository, &state(number, &[&kept]));
    }
    put(&repository, &round(3));
    storage.delete(&names::state(2)).unwrap();
    storage.delete(&names::state(1)).unwrap();
    let error = view::read(&repository, false, None).unwrap_err();
    assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
    assert_eq!(listed(&repository), [kept.id]);
    let view = view::read(&repository, true, None).unwrap();
    assert!(view.lacks_collection && view.unusable[0].object == names::COLLECTOR);
}

#[test]
fn one_reading_is_of_one_moment() {
    let memory = storage();
    let storage = Meddled::new(Arc::clone(&memory));
    let (here, there): (Arc<dyn Storage>, _) = (storage.clone(), open_repository(&memory));
    let repository = open_repository(&here);
    let (kept, gone) = (numbered(0, 1), numbered(0, 2));
    put(&repository, &kept);
    put(&repository, &gone);
    put(&repository, &round(1));
    put(&repository, &state(1, &[&kept, &gone]));
    put(&repository, &round(2));
    // While round 2 is read it gets its state, and what was before goes away.
    let (also_kept, dead) = (kept.clone(), names::cell(&gone.id));
    storage.before(Operation::Get, "gc/", 1, move || {
        put(&there, &state(2, &[&also_kept]));
        there.storage().delete(&names::state(1)).unwrap();
        there.storage().delete(&names::round(1)).unwrap();
        there.storage().delete(&dead).unwrap();
    });
    let view = view::read(&repository, false, None).unwrap();
    assert!(storage.is_done() && view.unusable.is_empty());
    assert_eq!((view.collection.floor(), view.collection.newest()), (2, 2));
    assert_eq!(view.live(), [kept.id].into());
}

#[test]
fn a_segment_counts_if_its_own_owner_names_it() {
    let storage = storage();
    let repository = open_repository(&storage);
    let (before, after) = (numbered(0, 1), numbered(4, 2));
    let owners = [
        Owner::Session(after.id),
        Owner::Round(5),
        Owner::Session(before.id),
        Owner::Round(4),
        // The cell of another session, a round that is not that of its number, and a state that
        // cannot know of a session.
        Owner::Session(before.id),
        Owner::Round(4),
        Owner::Session(after.id),
        Owner::Round(5),
    ];
    let ids = owners.map(|owner| put_segment(&repository, owner));
    let unnamed = put_segment(&repository, Owner::Session(after.id));
    let sorted = |numbers: &[usize]| {
        let mut sorted: Vec<_> = numbers.iter().map(|number| ids[*number]).collect();
        sorted.sort_unstable();
        sorted
    };
    put(&repository, &before);
    let segments = sorted(&[0, 4]);
    put(&repository, &Cell { segments, ..after });
    let segments = sorted(&[2, 3, 6, 7]);
    put(
        &repository,
        &State {
            segments,
            ..state(4, &[&before])
        },
    );
    let new_segments = sorted(&[1, 5]);
    put(
        &repository,
        &Round {
            new_segments,
            ..round(5)
        },
    );
    let view = view::read(&repository, false, None).unwrap();
    let index = repository.index();
    assert_eq!(
        index.segments().unwrap(),
        ids[..4].iter().copied().collect()
    );
    let mut damaged: Vec<_> = view.unusable.iter().map(|one| one.object.clone()).collect();
    damaged.sort_unstable();
    let mut expected: Vec<_> = ids[4..].iter().map(names::segment).collect();
    expected.sort_unstable();
    assert_eq!(damaged, expected);
    assert!(!view.segments().contains(&unnamed));
}

#[test]
fn a_replaced_segment_counts_until_the_round_has_its_state() {
    let storage = storage();
    let repository = open_repository(&storage);
    let owner = numbered(0, 1);
    let old = put_segment(&repository, Owner::Session(owner.id));
    let new = put_segment(&repository, Owner::Round(1));
    let owner = Cell {
        segments: vec![old],
        ..owner
    };
    put(&repository, &owner);
    let replacing = Round {
        replaced_segments: vec![old],
        new_segments: vec![new],
        condemned_packs: vec![object(1)],
        suspect_packs: vec![object(2)],
        ..round(1)
    };
    put(&repository, &replacing);
    let view = view::read(&repository, false, None).unwrap();
    assert_eq!(view.segments(), [old, new].into());
    assert_eq!(
        view.collection.unusable_packs(),
        [object(1), object(2)].into()
    );
    let ended = State {
        segments: vec![new],
        deleted_packs: vec![object(1)],
        ..state(1, &[&owner])
    };
    put(&repository, &ended);
    storage.delete(&names::segment(&old)).unwrap();
    let view = view::read(&repository, false, None).unwrap();
    assert_eq!(view.segments(), [new].into());
    assert_eq!(view.collection.unusable_packs(), [object(1)].into());
    assert!(view.unusable.is_empty());
}

#[test]
fn a_writer_that_finds_a_newer_round_registers_anew_and_ends_what_it_was() {
    let memory = storage();
    let storage = Meddled::new(Arc::clone(&memory));
    let (here, there): (Arc<dyn Storage>, _) = (storage.clone(), open_repository(&memory));
    let repository = open_repository(&here);
    storage.before(Operation::Create, "sessions/", 1, move || {
        put(&there, &round(1))
    });
    let opened = open(&repository, Base::None, &author(), View::default()).unwrap();
    assert_eq!(opened.id.round(), 1);
    assert_eq!(sessions(&repository).len(), 2);
    let given_up = cells(&repository, CellKind::Revoked);
    assert!(given_up.len() == 1 && given_up[0].id.round() == 0);
    assert_eq!(given_up[0].seen_round, 1);
}

#[test]
fn a_commit_is_settled_by_what_is_there() {
    let storage = storage();
    let repository = open_repository(&storage);
    let seen = Collection::default();
    let has_end = |cell: &Cell| storage.size(&session_end(&cell.id)).is_ok();
    let (mine, ended, foreign) = (cell(1, 1), cell(2, 2), cell(3, 3));
    assert_eq!(
        commit(&repository, &mine, &seen).unwrap(),
        Outcome::Committed
    );
    assert!(has_end(&mine));
    let view = View::default();
    put(
        &repository,
        &revoked(&repository, ended.id, Base::None, &author(), &view),
    );
    assert_eq!(
        commit(&repository, &ended, &seen).unwrap(),
        Outcome::Revoked
    );
    assert!(!has_end(&ended));
    put(&repository, &foreign);
    let error = commit(&repository, &foreign, &seen).unwrap_err();
    assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
}

#[test]
fn a_revocation_that_is_cleared_while_a_commit_reads_it_is_one() {
    let storage = storage();
    let (mine, view) = (cell(1, 1), View::default());
    let there = open_repository(&storage);
    put(
        &there,
        &revoked(&there, mine.id, Base::None, &author(), &view),
    );
    let meddled = Meddled::new(Arc::clone(&storage));
    let name = names::cell(&mine.id);
    // The first look tells that something else is there, the second what.
    meddled.before(Operation::Get, "snapshots/", 2, move || {
        storage.delete(&name).unwrap();
    });
    let here: Arc<dyn Storage> = meddled.clone();
    let repository = open_repository(&here);
    let outcome = commit(&repository, &mine, &Collection::default()).unwrap();
    assert_eq!(outcome, Outcome::Revoked);
    assert!(meddled.is_done());
}

#[test]
fn an_ambiguous_commit_is_read_back() {
    let storage = storage();
    let seen = Collection::default();
    for (id, when) in [(1, When::Before), (2, When::After)] {
        let faulty = Arc::new(Faulty::new(Arc::clone(&storage)));
        let failing: Arc<dyn Storage> = faulty.clone();
        let repository = open_repository(&failing);
        faulty.inject(Fault::error(1, when, ErrorKind::Transient));
        let outcome = commit(&repository, &cell(id, 1), &seen).unwrap();
        assert_eq!(outcome, Outcome::Committed);
    }
    assert_eq!(listed(&open_repository(&storage)).len(), 2);
}

#[test]
fn a_commit_below_a_floor_is_void_and_shows_nowhere() {
    let storage = storage();
    let repository = open_repository(&storage);
    put(&repository, &round(1));
    // Without its state the round will find the cell.
    let seen = Collection::default();
    let outcome = commit(&repository, &cell(1, 1), &seen).unwrap();
    assert_eq!(outcome, Outcome::Committed);
    put(&repository, &state(1, &[&cell(1, 1)]));
    let late = cell(2, 2);
    let outcome = commit(&repository, &late, &seen).unwrap();
    assert_eq!(outcome, Outcome::Void);
    assert!(storage.size(&session_end(&late.id)).is_err());
    assert_eq!(listed(&repository), [cell(1, 1).id]);
}

#[test]
fn a_void_commit_supersedes_nothing() {
    let storage = storage();
    let repository = open_repository(&storage);
    let checkpoint = Cell {
        kind: CellKind::Partial,
        ..cell(1, 1)
    };
    let late = Cell {
        predecessor: Some(checkpoint.id),
        ..cell(2, 2)
    };
    put(&repository, &checkpoint);
    put(&repository, &round(1));
    put(&repository, &state(1, &[&checkpoint]));
    put(&repository, &late);
    let view = view::read(&repository, false, None).unwrap();
    assert_eq!(view.live(), [checkpoint.id].into());
    assert!(view.superseded().is_empty());
}
