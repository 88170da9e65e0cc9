//! Many writers, readers and collectors on one storage, in schedules and with faults that a seed
//! decides: whatever was reported as done restores byte for byte at any later moment.
//!
//! A seed that fails is replayed exactly, and every call of the storage printed, by
//! `LARDER_SEED=… cargo nextest run --release -p larder-tests -E 'test(=simulator::a_seed)'`, with
//! `LARDER_WITHOUT=…` where a rule is to be left out. The long form is
//! `LARDER_SEEDS=1000000 cargo test --release -p larder-tests many_seeds -- --ignored`.

mod acts;
mod chance;
mod people;
mod scene;
mod scripts;
mod seat;
mod stage;
mod truth;
mod without;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use larder_engine::protocol::{Rule, leave_out};
use larder_engine::repository::Repository;
use larder_engine::simulated::{self, Simulated};

use crate::fixture::init_options;
use chance::Chance;
use people::Person;
use seat::Seat;
use stage::{Call, Habits, NOBODY, Objects, Stage};
use truth::{Truth, key};

/// Seeds that CI runs.
const SEEDS: u64 = 2000;

/// What came of a seed.
struct Outcome {
    failure: Option<String>,
    calls: Vec<Call>,
}

/// Runs a seed to its end.
fn run(seed: u64) -> Outcome {
    let folder = tempfile::Builder::new()
        .prefix("larder-simulation-")
        .rand_bytes(8)
        .tempdir_in(memory_folder())
        .unwrap();
    let mut chance = Chance::new(seed, 0);
    let habits = Habits::of(&mut chance);
    let mut acts: Vec<fn(&mut Person)> = Vec::new();
    let writers = *chance.pick(&[2, 2, 3, 4, 8]);
    acts.extend((0..writers).map(|_| Person::back_up as fn(&mut Person)));
    let others: [fn(&mut Person); 7] = [
        Person::prune,
        Person::prune,
        Person::forget,
        Person::forget,
        Person::tidy,
        Person::read,
        Person::check,
    ];
    acts.extend(others);
    let rounds = if writers > 4 { 2 } else { chance.between(2, 6) };
    let stage = Stage::new(chance.clone(), habits, Objects::new(), acts.len());
    let truth = Arc::new(Mutex::new(Truth::default()));
    init(&stage, seed);
    let mut people: Vec<_> = (0..acts.len())
        .map(|who| {
            let chance = Chance::new(seed, 1 + who as u64);
            Person::new(&stage, who, &truth, chance, folder.path())
        })
        .collect();
    thread::scope(|scope| {
        for (person, act) in people.iter_mut().zip(&acts) {
            scope.spawn(|| be(person, rounds, *act));
        }
        stage.begin();
    });
    if stage.failure().is_none() {
        settle(&stage, &mut people[..writers], seed);
    }
    Outcome {
        failure: stage.failure(),
        calls: stage.calls(),
    }
}

/// Makes the repository, before anything can go wrong.
fn init(stage: &Arc<Stage>, seed: u64) {
    simulated::enter(Some(Simulated::new(seed, 0, Duration::from_secs(1))));
    let seat = Seat {
        stage: Arc::clone(stage),
        who: NOBODY,
    };
    Repository::init_on(&seat, &key(), &init_options()).unwrap();
    simulated::enter(None);
}

/// Is a process from its first turn to its last.
fn be(person: &mut Person, rounds: u64, act: fn(&mut Person)) {
    let (stage, who) = (Arc::clone(&person.stage), person.who);
    person.enter();
    stage.enter(who);
    let outcome = catch_unwind(AssertUnwindSafe(|| person.work(rounds, act)));
    if outcome.is_err() {
        stage.fail(format!("process {who} panicked"));
    }
    stage.leave(who);
}

/// Lets everything come to rest: one more backup each, then nothing is lost.
fn settle(stage: &Arc<Stage>, writers: &mut [Person], seed: u64) {
    stage.calm();
    simulated::enter(Some(Simulated::new(!seed, 0, Duration::from_secs(1))));
    for writer in writers.iter_mut() {
        writer.settle();
        writer.back_up();
        writer.check();
    }
    writers[0].clean_up();
    writers[0].verify("all", None);
    simulated::enter(None);
}

/// Gives a folder in memory if there is one.
fn memory_folder() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// Runs seeds on all cores until so many have failed; gives those and why.
fn failures(seeds: impl Iterator<Item = u64> + Send, most: usize) -> Vec<(u64, String)> {
    let seeds = Mutex::new(seeds);
    let failures = Mutex::new(Vec::new());
    let next = || {
        if failures.lock().unwrap().len() >= most {
            return None;
        }
        seeds.lock().unwrap().next()
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    if let Some(why) = run(seed).failure {
                        failures.lock().unwrap().push((seed, why));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

fn number_of(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect(name))
}

/// Fails if a seed does, with what replays it.
fn assert_none_fails(seeds: std::ops::Range<u64>) {
    const MOST: usize = 20;
    let failures = failures(seeds, MOST);
    for (seed, why) in &failures {
        println!("{seed}: {why}");
    }
    if let Some((seed, _)) = failures.first() {
        panic!(
            "seeds fail; replay one: LARDER_SEED={seed} cargo nextest run --release -p larder-tests -E 'test(=simulator::a_seed)'"
        );
    }
}

#[test]
fn the_first_quarter_of_the_seeds() {
    assert_none_fails(0..SEEDS / 4);
}

#[test]
fn the_second_quarter_of_the_seeds() {
    assert_none_fails(SEEDS / 4..SEEDS / 2);
}

#[test]
fn the_third_quarter_of_the_seeds() {
    assert_none_fails(SEEDS / 2..SEEDS / 4 * 3);
}

#[test]
fn the_last_quarter_of_the_seeds() {
    assert_none_fails(SEEDS / 4 * 3..SEEDS);
}

#[test]
#[ignore = "the long form: as many seeds as LARDER_SEEDS says, from LARDER_SEED on, perhaps LARDER_WITHOUT a rule"]
fn many_seeds() {
    let first = number_of("LARDER_SEED").unwrap_or(SEEDS);
    let count = number_of("LARDER_SEEDS").unwrap_or(1_000_000);
    leave_out_what_is_asked_for();
    assert_none_fails(first..first + count);
}

fn leave_out_what_is_asked_for() {
    if let Ok(name) = std::env::var("LARDER_WITHOUT") {
        let rule = Rule::ALL.iter().find(|rule| format!("{rule:?}") == name);
        leave_out(Some(
            *rule.unwrap_or_else(|| panic!("there is no rule {name}")),
        ));
    }
}

#[test]
fn a_seed() {
    leave_out_what_is_asked_for();
    let seed = number_of("LARDER_SEED").unwrap_or(1);
    let outcome = run(seed);
    if let Some(why) = outcome.failure {
        for (number, call) in outcome.calls.iter().enumerate() {
            let Call {
                who,
                operation,
                name,
                fate,
            } = call;
            println!("{number:6} process {who}: {operation:?} {name} {fate}");
        }
        panic!("seed {seed}: {why}");
    }
}

#[test]
fn a_seed_gives_the_same_calls_twice() {
    for seed in 0..20 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(
            first.failure.is_some(),
            second.failure.is_some(),
            "seed {seed}"
        );
        let differs = first
            .calls
            .iter()
            .zip(&second.calls)
            .position(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.calls.len(), second.calls.len(), "seed {seed}");
        assert!(first.calls.len() > 50, "seed {seed}: few calls");
    }
}
