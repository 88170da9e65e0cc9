#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::Arc;

use larder_format::cell::Source;
use larder_format::ids::ChunkId;

use super::*;
use crate::progress::Silent;
use crate::retention::{Count, Period, parse_duration};
use crate::snapshots::fixture::{cell, commit, init, open};
use crate::snapshots::{list, list_forgotten};
use crate::storage::Storage;
use crate::storage::object::ObjectStorage;

const DAY: i64 = 86_400;

/// Makes the cell `id` of a day's backup of `/home` on `host`.
fn daily(id: u8, host: &str, day: i64) -> Cell {
    let source = Source {
        path: b"/home/".to_vec(),
        root: ChunkId([1; 32]),
        level: 0,
        entries: 1,
        bytes: 1,
    };
    Cell {
        host: host.to_owned(),
        sources: vec![source],
        ..cell(id, day * DAY)
    }
}

fn repository(cells: &[Cell]) -> Arc<Repository> {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    let repository = open(&storage);
    for cell in cells {
        commit(&repository, cell);
    }
    repository
}

fn now() -> Zoned {
    let time: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    time.in_tz("UTC").unwrap()
}

fn last(count: u64) -> Policy {
    Policy {
        last: Some(Count::Some(count)),
        ..Policy::default()
    }
}

fn options(choice: Choice) -> ForgetOptions {
    ForgetOptions {
        choice,
        filter: Filter::default(),
        group_by: GroupBy::default(),
    }
}

fn by_policy(policy: Policy) -> ForgetOptions {
    options(Choice::Policy(Box::new(policy), Vec::new()))
}

fn named(names: &[&str]) -> ForgetOptions {
    let prefix = |name: &&str| Which::Prefix((*name).to_owned());
    options(Choice::Named(names.iter().map(prefix).collect()))
}

fn author() -> Author {
    Author {
        host: "admin".to_owned(),
        user: "root".to_owned(),
    }
}

fn run(repository: &Repository, plan: &ForgetPlan) -> Result<ForgetReport> {
    apply(repository, plan, &author(), &Silent, &Cancel::default())
}

/// Gives the first two digits of each id.
fn short<'a>(ids: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    ids.into_iter().map(|id| &id[..2]).collect()
}

fn left(repository: &Repository) -> Vec<String> {
    let all = list(repository, &Filter::default(), true).unwrap();
    all.iter().map(|one| one.id[..2].to_owned()).collect()
}

fn pin(repository: &Repository, id: &SessionId) {
    let mut view = snapshots::read(repository).unwrap();
    let outcome = amend(repository, &mut view, id, &Wish::Pin, &author());
    assert_eq!(outcome.unwrap(), Outcome::Amended);
}

#[test]
fn a_plan_changes_nothing_and_says_what_is_done() {
    let cells = [
        daily(0x11, "desk", 10),
        daily(0x22, "desk", 11),
        daily(0x33, "desk", 12),
        daily(0x44, "lap", 1),
        daily(0x55, "lap", 2),
    ];
    let repository = repository(&cells);
    let plan_now = || plan(&repository, &by_policy(last(1)), &now()).unwrap();
    let plan = plan_now();
    assert_eq!(left(&repository), ["44", "55", "11", "22", "33"]);
    let shown: Vec<_> = plan
        .groups
        .iter()
        .map(|group| {
            let one = |one: &PlannedSnapshot| {
                (
                    one.snapshot.id[..2].to_owned(),
                    one.forget,
                    one.reasons.join("+"),
                )
            };
            (
                group.describe(),
                group.snapshots.iter().map(one).collect::<Vec<_>>(),
            )
        })
        .collect();
    let one = |id: &str, forget: bool, why: &str| (id.to_owned(), forget, why.to_owned());
    assert_eq!(
        shown,
        [
            (
                "host desk, path /home".to_owned(),
                vec![
                    one("11", true, ""),
                    one("22", true, ""),
                    one("33", false, "last")
                ]
            ),
            (
                "host lap, path /home".to_owned(),
                vec![one("44", true, ""), one("55", false, "last")]
            ),
        ]
    );
    assert_eq!((plan.forgotten().count(), plan.kept()), (3, 2));
    plan.refuse_empty().unwrap();
    let report = run(&repository, &plan).unwrap();
    assert_eq!(
        short(report.forgotten.iter().map(String::as_str)),
        ["11", "22", "44"]
    );
    assert_eq!(left(&repository), ["55", "33"]);
    let forgotten = list_forgotten(&repository, &Filter::default(), false).unwrap();
    assert_eq!(
        short(forgotten.iter().map(|one| one.snapshot.id.as_str())),
        ["11", "22", "44"]
    );
    let first = &forgotten[0];
    assert_eq!(
        (first.forgotten_on.as_str(), first.forgotten_by.as_str()),
        ("admin", "root")
    );
    assert!(first.forgotten > now().timestamp());
    // Done is done.
    assert_eq!(plan_now().forgotten().count(), 0);
    assert_eq!(run(&repository, &plan_now()).unwrap().forgotten.len(), 0);
    // The old plan still says what was done, and nothing is done twice.
    run(&repository, &plan).unwrap();
    let view = snapshots::read(&repository).unwrap();
    assert!(view.amendments.values().all(|list| list.len() == 1));
}

#[test]
fn what_would_leave_nothing_is_refused_by_name() {
    let mut partial = daily(0x66, "alone", 5);
    partial.kind = CellKind::Partial;
    let cells = [daily(0x11, "desk", 1), daily(0x22, "lap", 2), partial];
    let repository = repository(&cells);
    let plan = |options: &ForgetOptions| plan(&repository, options, &now());
    let error = |options: &ForgetOptions| match plan(options).and_then(|plan| plan.refuse_empty()) {
        Err(EngineError::Request(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(error(&by_policy(Policy::default())).contains("--keep-last 7"));
    let age = Policy {
        minimum_age: Some(parse_duration("1d").unwrap()),
        ..Policy::default()
    };
    assert!(error(&by_policy(age)).contains("no rule"));
    let all = error(&by_policy(last(0)));
    assert!(
        all.contains("host desk, path /home and of one more group"),
        "{all}"
    );
    assert!(all.contains("--allow-empty"), "{all}");
    let tagged = Policy {
        tags: vec![vec!["none".into()]],
        ..Policy::default()
    };
    assert!(error(&by_policy(tagged)).contains("one more group"));
    assert!(error(&named(&["22"])).contains("host lap, path /home"));
    // A checkpoint is nobody's last snapshot.
    plan(&named(&["66"])).unwrap().refuse_empty().unwrap();
    // It is the caller who decides; the plan itself can be carried out.
    run(&repository, &plan(&by_policy(last(0))).unwrap()).unwrap();
    assert_eq!(left(&repository), ["66"]);
}

#[test]
fn a_pinned_snapshot_does_not_make_up_for_a_policy_that_keeps_nothing() {
    let cells = [daily(0x11, "desk", 1), daily(0x22, "desk", 2)];
    let repository = repository(&cells);
    pin(&repository, &cells[0].id);
    let planned = |policy| plan(&repository, &by_policy(policy), &now()).unwrap();
    let typo = Policy {
        tags: vec![vec!["typo".into()]],
        ..Policy::default()
    };
    assert!(matches!(
        planned(typo).refuse_empty(),
        Err(EngineError::Request(why)) if why.contains("host desk")
    ));
    planned(last(1)).refuse_empty().unwrap();
    // Nothing is lost where all that there is is pinned.
    pin(&repository, &cells[1].id);
    planned(last(0)).refuse_empty().unwrap();
}

#[test]
fn snapshots_are_forgotten_by_name() {
    let cells = [
        daily(0x11, "desk", 1),
        daily(0x22, "desk", 2),
        daily(0x33, "desk", 3),
        daily(0x44, "lap", 4),
    ];
    let repository = repository(&cells);
    pin(&repository, &cells[2].id);
    let plan = |options: &ForgetOptions| plan(&repository, options, &now());
    let error = plan(&named(&["11", "33"])).unwrap_err().to_string();
    assert!(error.contains("larder unpin 3333"), "{error}");
    let error = plan(&named(&["99"])).unwrap_err();
    assert!(matches!(error, EngineError::NotFound(_)), "{error}");
    let mut latest = options(Choice::Named(vec![Which::Latest(1)]));
    latest.filter.hosts = vec!["desk".to_owned()];
    let found = plan(&latest).unwrap();
    assert_eq!(found.groups.len(), 1);
    assert_eq!(found.kept(), 2);
    found.refuse_empty().unwrap();
    run(&repository, &found).unwrap();
    assert_eq!(left(&repository), ["11", "33", "44"]);
}

#[test]
fn what_a_policy_does_not_look_at_stays() {
    let mut cells = vec![
        daily(0x11, "desk", 1),
        daily(0x22, "desk", 2),
        daily(0x33, "desk", 3),
        daily(0x44, "lap", 1),
        daily(0x55, "lap", 2),
    ];
    cells[0].tags = vec!["a".into()];
    let repository = repository(&cells);
    pin(&repository, &cells[1].id);
    let mut options = options(Choice::Policy(
        Box::new(last(1)),
        vec![Which::Prefix("44".into())],
    ));
    options.group_by.host = false;
    let plan_with = |options: &ForgetOptions| plan(&repository, options, &now()).unwrap();
    let gone = |plan: &ForgetPlan| {
        let mut ids: Vec<String> = plan
            .forgotten()
            .map(|one| one.snapshot.id[..2].into())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(gone(&plan_with(&options)), ["11", "55"]);
    options.filter.hosts = vec!["lap".to_owned()];
    let plan = plan_with(&options);
    assert_eq!((gone(&plan), plan.kept()), (Vec::new(), 2));
    options.choice = Choice::Policy(Box::new(last(1)), Vec::new());
    assert_eq!(gone(&plan_with(&options)), ["44"]);
    options.filter = Filter {
        tags: vec!["a".into()],
        ..Filter::default()
    };
    assert_eq!(gone(&plan_with(&options)), [""; 0]);
}

#[test]
fn what_changed_since_the_plan_counts() {
    let cells = [
        daily(0x11, "desk", 1),
        daily(0x22, "desk", 2),
        daily(0x33, "desk", 3),
        daily(0x44, "lap", 4),
        daily(0x55, "lap", 5),
    ];
    let repository = repository(&cells);
    let stale = plan(&repository, &by_policy(last(1)), &now()).unwrap();
    pin(&repository, &cells[0].id);
    run(
        &repository,
        &plan(&repository, &named(&["22"]), &now()).unwrap(),
    )
    .unwrap();
    let report = run(&repository, &stale).unwrap();
    assert_eq!(short(report.pinned.iter().map(String::as_str)), ["11"]);
    assert_eq!(
        short(report.forgotten.iter().map(String::as_str)),
        ["22", "44"]
    );
    assert_eq!(left(&repository), ["11", "33", "55"]);

    // One forgets all but the newest, another the newest: together they leave something.
    let oldest = plan(&repository, &named(&["11"]), &now()).unwrap_err();
    assert!(matches!(oldest, EngineError::Request(_)));
    let stale = plan(&repository, &by_policy(last(1)), &now()).unwrap();
    commit(&repository, &daily(0x66, "desk", 6));
    let with_new = plan(&repository, &by_policy(last(1)), &now()).unwrap();
    run(
        &repository,
        &plan(&repository, &named(&["66"]), &now()).unwrap(),
    )
    .unwrap();
    assert_eq!(stale.forgotten().count(), 0);
    let before = left(&repository);
    let report = run(&repository, &with_new);
    // The pinned one was to stay as well, so something of the group is left.
    assert_eq!(
        short(report.unwrap().forgotten.iter().map(String::as_str)),
        ["33"]
    );
    assert_eq!(before.len(), left(&repository).len() + 1);
}

#[test]
fn two_that_each_leave_one_do_not_together_leave_none() {
    let cells = [daily(0x11, "desk", 1), daily(0x22, "desk", 2)];
    let repository = repository(&cells);
    let one = plan(&repository, &named(&["11"]), &now()).unwrap();
    let other = plan(&repository, &named(&["22"]), &now()).unwrap();
    run(&repository, &one).unwrap();
    let error = run(&repository, &other).unwrap_err();
    assert!(error.to_string().contains("meanwhile"), "{error}");
    assert_eq!(left(&repository), ["22"]);
}

#[test]
fn checkpoints_that_nobody_needs_go_and_superseded_ones_are_not_shown() {
    let partial = |id, day| Cell {
        kind: CellKind::Partial,
        ..daily(id, "desk", day)
    };
    let cells = [
        partial(0x11, 1),
        partial(0x22, 2),
        Cell {
            predecessor: Some(cell(0x22, 0).id),
            ..partial(0x33, 3)
        },
        daily(0x44, "desk", 4),
        partial(0x55, 5),
        // It goes on from a checkpoint of its own, and was forgotten since.
        partial(0x66, 6),
        Cell {
            predecessor: Some(cell(0x66, 0).id),
            ..daily(0x77, "desk", 7)
        },
        daily(0x88, "lap", 1),
    ];
    let repository = repository(&cells);
    run(
        &repository,
        &plan(&repository, &named(&["77"]), &now()).unwrap(),
    )
    .unwrap();
    assert_eq!(
        left(&repository),
        ["11", "88", "33", "44", "55"].map(String::from).to_vec()
    );
    let plan = plan(&repository, &by_policy(last(5)), &now()).unwrap();
    let gone: Vec<&str> = plan
        .forgotten()
        .map(|one| one.snapshot.id.as_str())
        .collect();
    assert_eq!(short(gone), ["11", "33"]);
    run(&repository, &plan).unwrap();
    assert_eq!(
        list(&repository, &Filter::default(), true).unwrap().len(),
        3
    );
    let forgotten = |partial| {
        list_forgotten(&repository, &Filter::default(), partial)
            .unwrap()
            .len()
    };
    assert_eq!((forgotten(false), forgotten(true)), (1, 3));
}

#[test]
fn an_interrupted_run_leaves_the_rest_for_the_next() {
    let cells: Vec<Cell> = (1..=6).map(|n| daily(n * 0x11, "desk", n.into())).collect();
    let repository = repository(&cells);
    let plan_now = || plan(&repository, &by_policy(last(1)), &now()).unwrap();
    struct StopAtThree(Cancel, std::sync::atomic::AtomicU64);
    impl Progress for StopAtThree {
        fn advance(&self, _: u64, _: u64) {
            if self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2 {
                self.0.request();
            }
        }
    }
    let cancel = Cancel::default();
    let progress = StopAtThree(cancel.clone(), 0.into());
    let error = apply(&repository, &plan_now(), &author(), &progress, &cancel).unwrap_err();
    assert!(matches!(error, EngineError::Interrupted), "{error}");
    assert_eq!(left(&repository), ["44", "55", "66"]);
    run(&repository, &plan_now()).unwrap();
    assert_eq!(left(&repository), ["66"]);
}

#[test]
fn a_snapshot_whose_pin_cannot_be_read_stays() {
    let cells = [daily(0x11, "desk", 1), daily(0x22, "desk", 2)];
    let repository = repository(&cells);
    pin(&repository, &cells[0].id);
    let name = larder_format::names::amendment(&cells[0].id, 1);
    let storage = repository.storage();
    let mut object = storage.get(&name, 1 << 20).unwrap().to_vec();
    object[70] ^= 1;
    storage.put(&name, object.into()).unwrap();
    let mut policy = last(1);
    policy.counts.insert(Period::Day, Count::Some(1));
    let plan = plan(&repository, &by_policy(policy), &now()).unwrap();
    assert_eq!(plan.forgotten().count(), 0);
    assert!(plan.groups[0].snapshots[0].reasons[0].contains("cannot be read"));
}
