//! Hostile repositories, from seeds: whatever their holder wrote, nothing panics or goes on for ever, nothing wrong is
//! restored and nothing beside the target, and checks find what is lost.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use larder_engine::cancel::Cancel;
use larder_engine::check::{CheckOptions, ReadData, Severity, check};
use larder_engine::progress::Silent;
use larder_engine::storage::Storage;
use larder_format::cell::Cell;
use larder_format::entry::{Content, Entry, EntryType};
use larder_format::names::{self, Name};
use larder_tests::hostile::forge::{Forge, Part};
use larder_tests::hostile::inputs::{cross, edits_of, input_of, mutate};
use larder_tests::hostile::trees::recommit;
use larder_tests::hostile::{Ground, run, run_each};
use larder_tests::overlay::Overlay;

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

/// Puts a tree of files in the place of that of some snapshot.
fn put_tree(forge: &mut Forge, files: &[Entry]) {
    let source = Entry {
        kind: EntryType::Directory,
        mode: 0o755,
        links: 1,
        ..Entry::default()
    };
    let entries = files.iter().chain([&source]);
    let entries: BTreeMap<_, _> = entries.map(|one| (one.key.clone(), one.clone())).collect();
    let root = forge.tree(&entries);
    let cells = forge.objects.keys().filter_map(|name| names::parse(name));
    let cells: Vec<Cell> = cells
        .filter(|name| matches!(name, Name::Cell(_)))
        .filter_map(|name| forge.open(&name))
        .collect();
    let cell = cells.into_iter().find(|cell| !cell.sources.is_empty());
    recommit(forge, cell.unwrap(), |cell| {
        cell.sources.truncate(1);
        let source = &mut cell.sources[0];
        (source.root, source.level) = (root.id, root.level);
        (source.entries, source.bytes) = (root.entries, root.bytes);
    });
}

/// Gives the paths that a check says are lost.
fn lost_paths(ground: &Ground, forge: &Forge, read_data: ReadData) -> Vec<String> {
    let objects = Arc::new(forge.objects.clone());
    let storage: Arc<dyn Storage> = Arc::new(Overlay::new(&objects));
    let repository = ground.open(&storage).unwrap();
    let options = CheckOptions {
        read_data,
        records_suspects: false,
    };
    let report = check(&repository, &options, &Silent, &Cancel::default()).unwrap();
    let losses = report.findings.into_iter();
    let losses = losses.filter(|one| one.severity == Severity::Loss);
    losses.flat_map(|one| one.paths).collect()
}

#[test]
fn checks_tell_chunks_apart_whose_ids_begin_alike() {
    let ground = Ground::new();
    let mut forge = ground.forge.clone();
    let (size, content) = forge.content(&[Part::Data(&[7; 500])]);
    let Content::Whole(mut other) = content else {
        panic!("{content:?}");
    };
    other.0[31] ^= 1;
    let right = Entry {
        key: b"right".to_vec(),
        mode: 0o600,
        links: 1,
        size,
        content,
        ..Entry::default()
    };
    let wrong = Entry {
        key: b"wrong".to_vec(),
        content: Content::Whole(other),
        ..right.clone()
    };
    let named = |found: &[String], name: &str| found.iter().any(|path| path.ends_with(name));
    // Where files mean both, they are read.
    let mut both = forge.clone();
    put_tree(&mut both, &[right, wrong.clone()]);
    for read_data in [ReadData::No, ReadData::All] {
        let found = lost_paths(&ground, &both, read_data);
        assert!(named(&found, "wrong"), "{read_data:?}: {found:?}");
        assert!(!named(&found, "right"), "{read_data:?}: {found:?}");
    }
    // Where files mean one of them, it is known once the packs are opened.
    put_tree(&mut forge, &[wrong]);
    let found = lost_paths(&ground, &forge, ReadData::All);
    assert!(named(&found, "wrong"), "{found:?}");
}
