//! Explores one setting of the collection protocol, however long it takes:
//! `cargo run --release -p larder-tests --example model -- NAME [THREADS]`.

use std::fs;
use std::process::ExitCode;

use larder_tests::collection::{explore_in_depth, settings};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let threads = arguments
        .next()
        .and_then(|threads| threads.parse().ok())
        .unwrap_or(2);
    let settings = [settings::small(), settings::large()].concat();
    let Some((_, setting)) = settings.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
        eprintln!("no setting {name:?}; there are {}", names.join(", "));
        return ExitCode::from(1);
    };
    let found = explore_in_depth(setting, threads);
    println!(
        "{name}: {} states, depth {}, {:.0} s, {}",
        found.states,
        found.depth,
        found.seconds,
        peak_memory()
    );
    println!("happened: {}", found.happened.join(", "));
    for (promise, steps) in &found.broken {
        println!("BROKEN {promise}: {steps}");
    }
    ExitCode::from(u8::from(!found.broken.is_empty()))
}

fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or("memory unknown".to_owned(), |peak| {
        format!("{} of memory", peak.trim())
    })
}
