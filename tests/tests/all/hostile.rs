//! Hostile repositories, from seeds: whatever their holder wrote, nothing panics or goes on for ever, nothing wrong is
//! restored and nothing beside the target, and checks find what is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use larder_tests::hostile::{Ground, run};

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

fn failure(ground: &Ground, bytes: &[u8]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(ground, bytes))) {
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
                    if let Some(why) = failure(&ground, &bytes_of(seed)) {
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
