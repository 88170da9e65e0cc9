#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::{Arc, Barrier};

use larder_format::cell::Cell;
use proptest::prelude::*;

use super::*;
use crate::snapshots::fixture::{cell, commit, init, open};
use crate::storage::Storage;
use crate::storage::error::Operation;
use crate::storage::faulty::{Effect, Fault, Faulty, When};
use crate::storage::object::ObjectStorage;
use crate::view::read_cells;

struct Repo {
    storage: Arc<Faulty>,
    repository: Arc<Repository>,
}

impl Repo {
    fn with(cells: &[Cell]) -> Self {
        let storage = Arc::new(Faulty::new(Arc::new(ObjectStorage::memory())));
        init(storage.as_ref());
        let shared: Arc<dyn Storage> = Arc::clone(&storage) as _;
        let repository = open(&shared);
        for cell in cells {
            commit(&repository, cell);
        }
        Self {
            storage,
            repository,
        }
    }

    fn view(&self) -> View {
        read_cells(&self.repository, None).unwrap()
    }

    fn amend(&self, view: &mut View, id: &SessionId, wish: &Wish) -> Outcome {
        amend(&self.repository, view, id, wish, &author()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut visit = |object: crate::storage::ObjectInfo| {
            let found = names::parse(&object.name);
            if let Some(Name::Amendment(_, number)) = found {
                names.push(number);
            }
            Ok(())
        };
        self.storage.list("snapshots", &mut visit).unwrap();
        names.sort_unstable();
        names.iter().map(u64::to_string).collect()
    }
}

fn author() -> Author {
    Author {
        host: "desk".to_owned(),
        user: "me".to_owned(),
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|one| (*one).to_owned()).collect()
}

fn change(remove: &[&str], add: &[&str]) -> Wish {
    Wish::ChangeTags {
        remove: strings(remove),
        add: strings(add),
    }
}

#[test]
fn wishes_are_carried_out_once() {
    let first = Cell {
        tags: strings(&["a", "b"]),
        ..cell(1, 100)
    };
    let id = first.id;
    let repo = Repo::with(std::slice::from_ref(&first));
    let mut view = repo.view();
    let tags = |view: &View| view.tags(&first).join(" ");
    for (wish, outcome, count, tags_now, pinned) in [
        (
            change(&["a"], &["c", "d"]),
            Outcome::Amended,
            1,
            "b c d",
            false,
        ),
        (
            change(&["a"], &["c"]),
            Outcome::Unchanged,
            1,
            "b c d",
            false,
        ),
        (
            Wish::SetTags(strings(&["y", "x", "y"])),
            Outcome::Amended,
            2,
            "x y",
            false,
        ),
        (
            Wish::SetTags(strings(&["x", "y"])),
            Outcome::Unchanged,
            2,
            "x y",
            false,
        ),
        (Wish::Unpin, Outcome::Unchanged, 2, "x y", false),
        (Wish::Pin, Outcome::Amended, 3, "x y", true),
        (Wish::Pin, Outcome::Unchanged, 3, "x y", true),
        (Wish::Forget, Outcome::Pinned, 3, "x y", true),
        (Wish::Unpin, Outcome::Amended, 4, "x y", false),
        (Wish::SetTags(Vec::new()), Outcome::Amended, 5, "", false),
        (Wish::Forget, Outcome::Amended, 6, "", false),
        (Wish::Forget, Outcome::Unchanged, 6, "", false),
        (Wish::Pin, Outcome::Forgotten, 6, "", false),
        (change(&[], &["z"]), Outcome::Forgotten, 6, "", false),
    ] {
        assert_eq!(repo.amend(&mut view, &id, &wish), outcome, "{wish:?}");
        // What the caller's view has learned is what the storage says.
        for view in [&view, &repo.view()] {
            assert_eq!(view.amendments.get(&id).unwrap().len(), count, "{wish:?}");
            assert_eq!(tags(view), tags_now, "{wish:?}");
            assert_eq!(view.is_pinned(&id), pinned, "{wish:?}");
            assert!(is_settled(view, &id));
        }
    }
    assert!(repo.view().is_forgotten(&id));
    let last = &repo.view().amendments[&id][5];
    assert_eq!((last.host.as_str(), last.user.as_str()), ("desk", "me"));
    assert!(last.time > 0);
}

#[test]
fn who_comes_second_decides_again() {
    let id = cell(1, 100).id;
    // (what came first, what is asked for with an older view, its outcome, what there is then)
    for (first, second, outcome, count) in [
        (Wish::Pin, Wish::Forget, Outcome::Pinned, 1),
        (Wish::Forget, Wish::Pin, Outcome::Forgotten, 1),
        (Wish::Forget, Wish::Forget, Outcome::Unchanged, 1),
        (Wish::Pin, Wish::Pin, Outcome::Unchanged, 1),
        (change(&[], &["a"]), Wish::Forget, Outcome::Amended, 2),
        (
            change(&[], &["a"]),
            change(&[], &["b"]),
            Outcome::Amended,
            2,
        ),
    ] {
        let repo = Repo::with(&[cell(1, 100)]);
        let mut old = repo.view();
        repo.amend(&mut repo.view(), &id, &first);
        assert_eq!(repo.amend(&mut old, &id, &second), outcome, "{second:?}");
        let now = repo.view();
        assert_eq!(now.amendments[&id].len(), count);
        assert_eq!(now.amendments, old.amendments);
        if let Wish::ChangeTags { .. } = second {
            assert_eq!(now.tags(&now.cells[&id]), ["a", "b"]);
        }
    }
}

#[test]
fn of_many_at_once_each_gets_a_number_and_nothing_is_lost() {
    const WRITERS: usize = 12;
    let id = cell(1, 100).id;
    let repo = Repo::with(&[cell(1, 100)]);
    let barrier = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (repo, barrier) = (&repo, &barrier);
            scope.spawn(move || {
                let mut view = repo.view();
                barrier.wait();
                let tag = format!("{writer:02}");
                let outcome = repo.amend(&mut view, &id, &change(&[], &[&tag]));
                assert_eq!(outcome, Outcome::Amended);
            });
        }
    });
    let expected: Vec<String> = (0..WRITERS).map(|writer| format!("{writer:02}")).collect();
    let view = repo.view();
    assert_eq!(view.tags(&view.cells[&id]), expected);
    let numbers: Vec<String> = (1..=WRITERS).map(|number| number.to_string()).collect();
    assert_eq!(repo.names(), numbers);
}

#[test]
fn an_answer_that_was_lost_makes_no_second_amendment() {
    for when in [When::Before, When::After] {
        let id = cell(1, 100).id;
        let repo = Repo::with(&[cell(1, 100)]);
        repo.storage.inject(Fault {
            nth: 1,
            operation: Some(Operation::Create),
            lasts: false,
            effect: Effect::Error(when, ErrorKind::Transient),
        });
        assert_eq!(
            repo.amend(&mut repo.view(), &id, &Wish::Forget),
            Outcome::Amended
        );
        assert_eq!(repo.names(), ["1"]);
        assert!(repo.view().is_forgotten(&id));
    }
}

#[test]
fn an_amendment_that_cannot_be_read_keeps_its_number() {
    let id = cell(1, 100).id;
    let repo = Repo::with(&[cell(1, 100)]);
    let mut old = repo.view();
    repo.amend(&mut repo.view(), &id, &Wish::Pin);
    let name = names::amendment(&id, 1);
    let mut object = repo.storage.get(&name, 1 << 20).unwrap().to_vec();
    object[70] ^= 1;
    repo.storage.put(&name, Bytes::from(object)).unwrap();
    assert!(!is_settled(&repo.view(), &id));
    // One who had not seen it, and one who had.
    assert_eq!(
        repo.amend(&mut old, &id, &change(&[], &["a"])),
        Outcome::Amended
    );
    assert_eq!(
        repo.amend(&mut repo.view(), &id, &change(&[], &["b"])),
        Outcome::Amended
    );
    assert_eq!(repo.names(), ["1", "2", "3"]);
    let view = repo.view();
    assert_eq!(view.tags(&view.cells[&id]), ["a", "b"]);
    assert!(!is_settled(&view, &id) && !is_settled(&old, &id));
    // A gap is none to fill either.
    repo.storage.delete(&name).unwrap();
    assert!(!is_settled(&repo.view(), &id));
    assert_eq!(
        repo.amend(&mut repo.view(), &id, &change(&[], &["c"])),
        Outcome::Amended
    );
    assert_eq!(repo.names(), ["2", "3", "4"]);
}

#[test]
fn what_is_no_snapshot_is_not_changed() {
    let revoked = Cell {
        kind: CellKind::Revoked,
        ..cell(2, 100)
    };
    let partial = Cell {
        kind: CellKind::Partial,
        ..cell(3, 100)
    };
    let removed = cell(4, 100);
    let repo = Repo::with(&[revoked, partial.clone(), removed.clone()]);
    let try_to = |view: &mut View, id: &SessionId, wish: &Wish| {
        amend(&repo.repository, view, id, wish, &author())
    };
    let mut view = repo.view();
    for id in [cell(1, 1).id, cell(2, 1).id] {
        let error = try_to(&mut view, &id, &Wish::Forget).unwrap_err();
        assert!(matches!(error, EngineError::NotFound(_)), "{error}");
    }
    let error = try_to(&mut view, &partial.id, &Wish::Pin).unwrap_err();
    assert!(matches!(error, EngineError::Request(_)), "{error}");
    assert_eq!(
        repo.amend(&mut view, &partial.id, &Wish::Forget),
        Outcome::Amended
    );
    // A collector cleared it meanwhile: nobody is told that it is pinned now.
    repo.storage.delete(&names::cell(&removed.id)).unwrap();
    let error = try_to(&mut view, &removed.id, &Wish::Pin).unwrap_err();
    assert!(error.to_string().contains("removed"), "{error}");
}

#[test]
fn tags_that_cannot_be_are_refused() {
    let long = "x".repeat(257);
    for tag in ["", " ", "a,b", "a\nb", &long] {
        let error = clean_tags(&strings(&["fine", tag])).unwrap_err();
        assert!(matches!(error, EngineError::Request(_)), "{tag:?}");
    }
    let many: Vec<String> = (0..=TAGS).map(|number| number.to_string()).collect();
    assert!(clean_tags(&many).is_err());
    assert_eq!(clean_tags(&strings(&[" b", "a", "b"])).unwrap(), ["a", "b"]);
    assert!(clean_tags(&["x".repeat(256)]).is_ok());
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let tags = || proptest::collection::vec("[a-d]", 0..3);
    prop_oneof![
        tags().prop_map(Wish::SetTags),
        (tags(), tags()).prop_map(|(remove, add)| Wish::ChangeTags { remove, add }),
        Just(Wish::Pin),
        Just(Wish::Unpin),
        Just(Wish::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Two clients with old views write what one client with plain sets would.
    #[test]
    fn old_views_do_no_harm(wishes in proptest::collection::vec((any::<bool>(), any_wish()), 1..12)) {
        let id = cell(1, 100).id;
        let repo = Repo::with(&[cell(1, 100)]);
        let mut views = [repo.view(), repo.view()];
        let (mut tags, mut pinned, mut forgotten) = (BTreeSet::new(), false, false);
        for (second, wish) in wishes {
            let view = &mut views[usize::from(second)];
            let mut outcome = repo.amend(view, &id, &wish);
            if outcome != Outcome::Amended {
                // To leave it as it is was right when the view was read.
                *view = repo.view();
                outcome = repo.amend(view, &id, &wish);
            }
            let before = (tags.clone(), pinned, forgotten);
            let expected = match &wish {
                Wish::Forget if !forgotten && pinned => Some(Outcome::Pinned),
                Wish::Forget => { forgotten = true; None }
                _ if forgotten => Some(Outcome::Forgotten),
                Wish::Pin => { pinned = true; None }
                Wish::Unpin => { pinned = false; None }
                Wish::SetTags(set) => { tags = set.iter().cloned().collect(); None }
                Wish::ChangeTags { remove, add } => {
                    tags.retain(|tag| !remove.contains(tag));
                    tags.extend(add.iter().cloned());
                    None
                }
            };
            let changed = before != (tags.clone(), pinned, forgotten);
            let expected = expected.unwrap_or(if changed { Outcome::Amended } else { Outcome::Unchanged });
            prop_assert_eq!(outcome, expected);
        }
        let view = repo.view();
        prop_assert_eq!(view.is_pinned(&id), pinned);
        prop_assert_eq!(view.is_forgotten(&id), forgotten);
        let now: Vec<String> = tags.into_iter().collect();
        prop_assert_eq!(view.tags(&view.cells[&id]), now);
    }
}
