//! Hostile repositories, from seeds: whatever their holder wrote, nothing panics or goes on for ever, nothing wrong is
//! restored and nothing beside the target, and checks find what is lost.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::thread;

use larder_tests::hostile::inputs::{cross, edits_of, input_of, mutate};
use larder_tests::hostile::{Ground, run, run_each};

/// Seeds of an ordinary run.
const SEEDS: u64 = 200;
/// Bytes that decide what a case does.
const BYTES: usize = 60;

/// Gives the bytes of a seed; how many edits they make goes by the seed, too.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 6 + (seed as usize * 7) % BYTES];
    let mut hasher = blake3::Hasher::new_derive_key("larder hostile seed");
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn failure(judge: impl FnOnce() -> Result<(), String>) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(judge)) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(_) => Some("it panicked".to_owned()),
    }
}

#[test]
fn an_untouched_repository_is_whole() {
    run(&Ground::new(), &[]).unwrap();
}

#[test]
fn hostile_repositories_do_no_harm() {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let (from, count) = match number("LARDER_HOSTILE") {
        Some(seed) => (seed, 1),
        None => (0, number("LARDER_HOSTILE_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(from);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let ground = Ground::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        break;
                    }
                    if let Some(why) = failure(|| run(&ground, &bytes_of(seed))) {
                        println!("seed {seed}: {why}");
                        failures.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "seeds {failures:?} fail; replay one: LARDER_HOSTILE=SEED cargo nextest run --release -p larder-tests hostile_repositories"
    );
}

/// The inputs that the fuzz target `repository` starts from, those among them in which it once found something.
#[test]
fn the_seeds_of_the_fuzz_target_do_no_harm() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/repository");
    let paths = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = paths.map(|item| item.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 18, "a seed for each kind of edit");
    let ground = Ground::new();
    for path in paths {
        let edits = edits_of(&fs::read(&path).unwrap());
        if let Some(why) = failure(|| run_each(&ground, &edits)) {
            panic!("{}: {why}", path.display());
        }
    }
}

#[test]
fn what_the_mutator_makes_of_inputs_are_inputs_within_bounds() {
    let mut inputs = vec![Vec::new(), vec![200, 1, 2]];
    for seed in 0..3000 {
        let one = inputs[seed as usize % inputs.len()].clone();
        let other = inputs[(seed as usize * 7) % inputs.len()].clone();
        for max_bytes in [0, 5, 100, 4096] {
            for made in [
                mutate(&one, max_bytes, seed),
                cross(&one, &other, max_bytes, seed),
            ] {
                assert!(made.len() <= max_bytes);
                assert_eq!(input_of(&edits_of(&made), 4096), made);
            }
        }
        if inputs.len() < 100 {
            inputs.push(mutate(&one, 4096, seed));
        }
    }
    let edits: Vec<usize> = inputs.iter().map(|input| edits_of(input).len()).collect();
    assert!((1..=6).all(|count| edits.contains(&count)), "{edits:?}");
    assert_eq!(edits_of(&[2, 8, 9, 0, 5, 7]), [vec![8, 9], vec![], vec![7]]);
}
