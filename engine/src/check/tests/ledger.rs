//! The ledger and the budgets, counted by a storage: who read what, and how often.

use std::time::Duration;

use larder_format::ids::{LedgerId, PackPrefix, ReplicaId};
use larder_format::ledger::{Ledger, LedgerGroup, Verification};

use super::*;
use crate::clock;
use crate::ledger;
use crate::scrub::scrub_and_record;
use crate::storage::counting::Counting;
use crate::storage::error::Operation;

/// A repository of many packs, and machines that count what they read of them.
struct Machines {
    fixture: Fixture,
    packs: BTreeMap<String, u64>,
}

impl Machines {
    fn new(backups: u8) -> Self {
        let fixture = Fixture::new();
        let repository = fixture.open().unwrap();
        for number in 0..backups {
            let source = fixture.source(&format!("s{number}"));
            fs::write(
                source.join("file"),
                pseudorandom(number, 900 + 700 * usize::from(number)),
            )
            .unwrap();
            fixture.back_up(&repository, &source);
        }
        let packs = fixture
            .objects()
            .into_iter()
            .filter(|(name, _)| name.starts_with("packs/"));
        let packs = packs
            .map(|(name, bytes)| (name, bytes.len() as u64))
            .collect();
        Self { fixture, packs }
    }

    /// Another machine checks; gives the packs that it read whole, in the order of their names.
    fn check(&self, read_data: ReadData, records: bool) -> (CheckReport, Vec<String>) {
        let counting = Arc::new(Counting::new(Arc::clone(&self.fixture.storage)));
        let repository = self.fixture.open_on(Arc::clone(&counting) as _).unwrap();
        let options = CheckOptions {
            read_data,
            records_suspects: records,
        };
        let report = check(&repository, &options, &Silent, &Cancel::default()).unwrap();
        let log = counting.take().log.into_iter();
        let read =
            log.filter(|one| one.operation == Operation::Get && one.name.starts_with("packs/"));
        let mut read: Vec<_> = read.map(|one| one.name).collect();
        read.sort_unstable();
        (report, read)
    }

    fn ledgers(&self) -> Vec<String> {
        let objects = self.fixture.objects();
        objects
            .into_keys()
            .filter(|name| name.starts_with("ledger/"))
            .collect()
    }

    fn verified(&self) -> Verified {
        ledger::verified(&self.fixture.open().unwrap()).unwrap()
    }

    /// Writes a ledger as another machine may have.
    fn write(&self, id: u8, time: i64, how: Verification, packs: &[&String], is_here: bool) {
        let repository = self.fixture.open().unwrap();
        let mut packs: Vec<_> = packs.iter().map(|name| prefix(name)).collect();
        packs.sort_unstable();
        let ledger = Ledger {
            id: LedgerId([id; 16]),
            replica: if is_here {
                repository.config().replica
            } else {
                ReplicaId([9; 16])
            },
            groups: vec![LedgerGroup { time, how, packs }],
        };
        let object = seal_record(repository.keyring(), &ledger, [1; 16], &[2; 32]).unwrap();
        let name = names::ledger(&ledger.id);
        self.fixture.storage.create(&name, object.into()).unwrap();
    }
}

fn prefix(name: &str) -> PackPrefix {
    match names::parse(name) {
        Some(Name::Pack(id)) => id.prefix(),
        _ => panic!("{name}"),
    }
}

fn due(max_bytes: u64) -> ReadData {
    ReadData::Due(Due {
        max_bytes: Some(max_bytes),
        ..Due::default()
    })
}

#[test]
fn with_a_budget_every_pack_is_read_once_before_any_is_read_twice() {
    let machines = Machines::new(7);
    let count = machines.packs.len();
    assert!(count >= 14);
    let total: u64 = machines.packs.values().sum();
    // The run that read each pack last; those that one run read are equally old, whichever is next.
    let names = machines.packs.keys().cloned();
    let mut last: BTreeMap<String, usize> = names.map(|name| (name, 0)).collect();
    for (run, budget) in (1..).zip(
        [1, total / 4]
            .into_iter()
            .flat_map(|budget| vec![budget; 2 * count]),
    ) {
        let (report, read) = machines.check(due(budget), true);
        let bytes: u64 = read.iter().map(|name| machines.packs[name]).sum();
        assert!(
            read.len() == 1 || (2..count).contains(&read.len()) && bytes <= budget,
            "{read:?}"
        );
        assert_eq!(report.packs_read, read.len() as u64);
        assert_eq!(report.ledger_not_recorded, None);
        assert_eq!(machines.ledgers().len(), 1);
        let youngest_read = read.iter().map(|name| last[name]).max();
        let unread = last.iter().filter(|(name, _)| !read.contains(name));
        let oldest_unread = unread.map(|(_, run)| *run).min();
        assert!(
            youngest_read <= oldest_unread,
            "{run}: {read:?} of {last:?}"
        );
        let verified = report.verified.unwrap();
        assert_eq!(
            (verified.bytes, machines.verified()),
            (total, verified.clone())
        );
        last.extend(read.into_iter().map(|name| (name, run)));
        if run % count == 0 {
            let oldest = last.values().min();
            assert!(
                oldest.is_some_and(|oldest| run - oldest < count),
                "{last:?}"
            );
        }
    }
}

#[test]
fn what_was_verified_is_told_by_bytes_and_forgotten_with_its_packs() {
    let machines = Machines::new(3);
    let total: u64 = machines.packs.values().sum();
    let verified = machines.verified();
    assert_eq!(
        (verified.bytes, verified.never, verified.days_90),
        (total, total, 0)
    );
    let names: Vec<&String> = machines.packs.keys().collect();
    let day = |days: i64| clock::now_s() - days * 86_400 + 100;
    machines.write(1, day(7), Verification::Opened, &names[..1], true);
    machines.write(2, day(20), Verification::Opened, &names[..2], true);
    machines.write(3, day(89), Verification::Hashed, &names[2..3], true);
    machines.write(4, day(200), Verification::Opened, &names[3..4], true);
    // Of another storage, and of a clock that is far ahead: these say nothing.
    machines.write(5, day(0), Verification::Opened, &names, false);
    machines.write(6, day(-9), Verification::Opened, &names, true);
    let size = |at: usize| machines.packs[names[at]];
    let verified = machines.verified();
    let told = (
        verified.days_7,
        verified.days_30,
        verified.days_90,
        verified.never,
    );
    let rest: u64 = (4..names.len()).map(size).sum();
    assert_eq!(
        told,
        (
            size(0),
            size(0) + size(1),
            size(0) + size(1) + size(2),
            rest
        )
    );
    // What is older than so many days, and what was never read.
    let old = ReadData::Due(Due {
        max_age: Some(Duration::from_secs(30 * 86_400)),
        ..Due::default()
    });
    let (_, read) = machines.check(old, true);
    assert_eq!(
        read,
        names[2..]
            .iter()
            .map(|name| (*name).clone())
            .collect::<Vec<_>>()
    );
    assert_eq!(machines.ledgers().len(), 1, "all were merged into one");
    assert_eq!(machines.check(old, true).1, [""; 0]);
    assert_eq!(machines.verified().days_30, total);
    // A pack that is gone is forgotten by a prune, and by whoever records.
    let repository = machines.fixture.open().unwrap();
    let Some(Name::Pack(first)) = names::parse(names[0]) else {
        panic!()
    };
    ledger::forget(&repository, &[first]).unwrap();
    assert_eq!(machines.verified().never, size(0));
    machines.fixture.storage.delete(names[1]).unwrap();
    machines.check(due(1), true);
    machines
        .fixture
        .storage
        .put(names[1], Bytes::new())
        .unwrap();
    assert_eq!(machines.verified().never, size(1));
}

#[test]
fn a_time_budget_of_nothing_still_goes_on_pack_by_pack() {
    let machines = Machines::new(2);
    let none = ReadData::Due(Due {
        max_duration: Some(Duration::ZERO),
        ..Due::default()
    });
    let mut read = BTreeSet::new();
    for _ in 0..machines.packs.len() {
        let (report, one) = machines.check(none, true);
        assert_eq!(report.packs_read, 1);
        read.extend(one);
    }
    assert_eq!(read.len(), machines.packs.len());
    // Who changes nothing records nothing.
    let before = machines.ledgers();
    machines.check(ReadData::All, false);
    assert_eq!(machines.ledgers(), before);
}

#[test]
fn scrubs_and_checks_record_beside_each_other() {
    let machines = Machines::new(2);
    let total: u64 = machines.packs.values().sum();
    let repository = machines.fixture.open().unwrap();
    let scrub = || {
        let scratch = repository.cache_dir();
        scrub_and_record(&repository, scratch, &Silent, &Cancel::default()).unwrap()
    };
    let report = scrub();
    assert_eq!((report.not_recorded, report.loss), (None, 0));
    assert_eq!(machines.verified().days_7, total);
    // A damaged pack counts as not verified, and is the first to be read.
    let name = machines.packs.keys().next_back().unwrap();
    let bytes = machines.fixture.objects()[name].clone();
    let mut damaged = bytes.to_vec();
    damaged[100] ^= 1;
    machines.fixture.storage.put(name, damaged.into()).unwrap();
    assert_eq!(scrub().loss, 1);
    assert_eq!(machines.verified().never, machines.packs[name]);
    let (report, read) = machines.check(due(1), true);
    // It is read twice before it is called damaged, and judged again by what the index says.
    assert!(
        !read.is_empty() && read.iter().all(|one| one == name),
        "{read:?}"
    );
    let found: Vec<_> = report
        .findings
        .iter()
        .filter(|one| one.object == *name)
        .collect();
    let plain = machines.check(ReadData::All, false).0;
    let expected: Vec<_> = plain
        .findings
        .iter()
        .filter(|one| one.object == *name)
        .collect();
    assert_eq!(found.len(), 1);
    let told = |one: &Finding| (one.severity, one.snapshots.clone(), one.paths.clone());
    assert_eq!(told(found[0]), told(expected[0]));
    machines.fixture.storage.put(name, bytes).unwrap();
    machines.check(due(1), true);
    assert_eq!(machines.verified().never, 0);
}

#[test]
fn a_ledger_that_is_lost_or_damaged_costs_reading_again() {
    let machines = Machines::new(2);
    machines.check(ReadData::All, true);
    let [name] = machines.ledgers().try_into().unwrap();
    let bytes = machines.fixture.objects()[&name].clone();
    for at in [9, 30, 70, bytes.len() - 1] {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        machines.fixture.storage.put(&name, damaged.into()).unwrap();
        let (report, _) = machines.check(ReadData::No, true);
        let of_ledger: Vec<_> = report
            .findings
            .iter()
            .filter(|one| one.object == name)
            .collect();
        assert_eq!(of_ledger.len(), 1);
        assert_eq!(of_ledger[0].severity, Severity::Harmless);
        assert_eq!(machines.verified().days_90, 0);
    }
    machines.check(ReadData::All, true);
    let after = machines.ledgers();
    assert!(
        after.len() == 1 && after[0] != name,
        "the damaged one was replaced"
    );
    machines.fixture.storage.delete(&after[0]).unwrap();
    let (report, _) = machines.check(ReadData::No, true);
    assert!(
        report
            .findings
            .iter()
            .all(|one| one.severity == Severity::Note)
    );
    assert_eq!(machines.verified().days_90, 0);
}

#[test]
fn whoever_dies_while_recording_loses_nothing_that_was_recorded() {
    let machines = Machines::new(2);
    let names: Vec<&String> = machines.packs.keys().collect();
    let time = clock::now_s() - 1000;
    let known = |machines: &Machines| {
        let verified = machines.verified();
        verified.bytes - verified.never
    };
    let mut deaths = 0;
    for nth in 1.. {
        for old in machines.ledgers() {
            machines.fixture.storage.delete(&old).unwrap();
        }
        machines.write(1, time, Verification::Opened, &names[..1], true);
        machines.write(2, time, Verification::Opened, &names[1..2], true);
        let before = known(&machines);
        for when in [When::Before, When::After] {
            let faulty = Arc::new(Faulty::new(Arc::clone(&machines.fixture.storage)));
            let repository = machines.fixture.open_on(Arc::clone(&faulty) as _).unwrap();
            faulty.inject(Fault {
                lasts: true,
                ..Fault::error(nth, when, ErrorKind::Permanent)
            });
            let found = ledger::Findings {
                sound: vec![prefix(names[2])],
                damaged: Vec::new(),
            };
            let ids = names.iter().filter_map(|name| match names::parse(name) {
                Some(Name::Pack(id)) => Some(Ok(id)),
                _ => None,
            });
            let recorded = ledger::record(&repository, Verification::Opened, &found, &mut { ids });
            assert!(known(&machines) >= before, "death {nth} {when:?}");
            if recorded.is_ok() {
                assert_eq!(machines.ledgers().len(), 1);
                assert!(deaths > 6, "{deaths}");
                return;
            }
            deaths += 1;
        }
    }
}

#[test]
fn two_that_record_at_once_keep_what_both_found() {
    let machines = Machines::new(2);
    let names: Vec<&String> = machines.packs.keys().collect();
    let time = clock::now_s() - 1000;
    machines.write(1, time, Verification::Opened, &names[..1], true);
    // Another machine read the same ledger before, and writes its own after this one.
    machines.check(due(1), true);
    machines.write(2, time + 1, Verification::Opened, &names[2..3], true);
    assert_eq!(machines.ledgers().len(), 2);
    let all: u64 = machines.packs.values().sum();
    let left = machines.verified().never;
    assert_eq!(
        all - left,
        names[..3]
            .iter()
            .map(|name| machines.packs[*name])
            .sum::<u64>()
    );
    machines.check(due(1), true);
    assert_eq!(machines.ledgers().len(), 1);
    assert!(machines.verified().never < left);
}
