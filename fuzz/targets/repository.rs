//! A small repository that the input makes hostile, below its seals, too: it is opened, checked, scrubbed, restored,
//! browsed, repaired, backed up to and pruned, within bounds, and what comes of that is judged by the trees themselves.

#![no_main]

use std::sync::LazyLock;

use larder_tests::hostile::inputs::{cross, edits_of, mutate};
use larder_tests::hostile::{Ground, run_each};
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target};

/// It is never dropped, so the folder has to be cleared by who starts the target.
static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::below(&std::env::temp_dir()));

fuzz_target!(|input: &[u8]| {
    if let Err(why) = run_each(&GROUND, &edits_of(input)) {
        panic!("{why}");
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mutated = mutate(&data[..size], max_size, seed.into());
    data[..mutated.len()].copy_from_slice(&mutated);
    mutated.len()
});

fuzz_crossover!(|data1: &[u8], data2: &[u8], out: &mut [u8], seed: u32| {
    let crossed = cross(data1, data2, out.len(), seed.into());
    out[..crossed.len()].copy_from_slice(&crossed);
    crossed.len()
});
