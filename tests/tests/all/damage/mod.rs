//! The damage matrix: whatever happens to any region of any kind of object, checks find it, restores
//! write nothing wrong and all that can be had, nothing makes it worse, and a repair brings back what there is.
//!
//! The rules are stated in `exhibits.rs`, by kind; what can be had is computed in `oracle.rs`, from bytes alone.

mod deeds;
mod errors;
mod exhibits;
mod harms;
mod oracle;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use deeds::Deed;
use exhibits::Museum;
use harms::{Case, product};
use larder_tests::overlay;

/// Failures that are told.
const TOLD_MAX: usize = 30;

/// Does everything to the repository of one case; gives what went wrong.
fn failures_of(museum: &Museum, case: &Case) -> Vec<String> {
    let mut failures = Vec::new();
    let scene = deeds::Scene::new(museum, case);
    for deed in Deed::ALL {
        let done = catch_unwind(AssertUnwindSafe(|| scene.act(deed)));
        let why = match done {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why,
            Err(_) => "it panicked".to_owned(),
        };
        failures.push(format!("{} / {deed:?}: {why}", case.describe()));
    }
    failures
}

#[test]
fn every_damage_is_found_costs_nothing_else_and_is_mended_where_it_can_be() {
    let museum = Museum::new();
    let mut cases = product(&museum);
    if let Ok(only) = std::env::var("LARDER_DAMAGE") {
        cases.retain(|case| case.describe().starts_with(&only));
    } else {
        assert!(cases.len() * Deed::ALL.len() >= 5000, "{}", cases.len());
    }
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    failures.lock().unwrap().extend(failures_of(&museum, case));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for failure in failures.iter().take(TOLD_MAX) {
        println!("{failure}");
    }
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{count} cases fail; replay those of one damage: LARDER_DAMAGE='NUMBER:' cargo nextest run --release -p larder-tests every_damage_is_found_costs"
    );
}

#[test]
fn an_overlay_keeps_the_contract_of_storages() {
    use larder_engine::storage::contract;
    contract::run(&|| std::sync::Arc::new(overlay::Overlay::new(&std::sync::Arc::default())));
}
