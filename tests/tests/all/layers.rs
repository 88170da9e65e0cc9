//! The boundaries between the layers (ARCHITECTURE.md), held against `cargo metadata` and the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::source_text::{Source, root, sources};

/// The folders of what users run, as opposed to tests and benchmarks.
const SHIPPED: &[&str] = &[
    "repo-format/src",
    "chunker/src",
    "storage/src",
    "engine/src",
    "jobs/src",
    "server/src",
    "cli/src",
];

/// Modules with `unsafe` in them, each reviewed, with a proof beside each block.
const UNSAFE: &[&str] = &[
    // The allocator and panic handler of a program without std.
    "tests/no-std-probe/src/main",
    // The vector instructions of the chunker `toeplitz-aes`.
    "chunker/src/x86",
    // A setting of the C library's allocator.
    "cli/src/heap",
];

/// The parts of the engine that touch the user's files.
const USER_FILES: &[&str] = &["engine/src/calls", "engine/src/source", "engine/src/target"];

/// The parts of the engine that touch files of larder's own: storages and local state.
const OWN_FILES: &[&str] = &[
    "storage/src",
    "engine/src/bundle",
    "engine/src/index",
    "engine/src/cache",
    "engine/src/scratch",
    "engine/src/memory",
];

/// Words with another word in this project's vocabulary.
const OTHER_WORDS: &[&str] = &["archive", "vault", "dataset", "backend"];

#[test]
fn packages_depend_downwards_only() {
    let direct = direct_dependencies();
    let ours = |package: &str| -> Vec<&str> {
        direct[package]
            .iter()
            .map(String::as_str)
            .filter(|name| name.starts_with("larder"))
            .collect()
    };
    assert!(ours("larder-format").is_empty());
    assert!(ours("larder-chunker").is_empty());
    assert!(ours("larder-storage").is_empty());
    assert_eq!(
        ours("larder-engine"),
        ["larder-chunker", "larder-format", "larder-storage"]
    );
    assert!(ours("larder-jobs").is_empty());
    assert!(ours("larder-server").is_empty());
    assert_eq!(
        ours("larder"),
        ["larder-engine", "larder-jobs", "larder-server"]
    );
}

#[test]
fn what_is_due_is_decided_without_a_clock_or_a_file() {
    let mut decided = sources(&["jobs/src"]);
    decided.retain(|source| source.is_in("jobs/src/schedule") || source.is_in("jobs/src/cron"));
    assert_eq!(decided.len(), 3);
    let words = [
        "fs",
        "net",
        "process",
        "env",
        "time",
        "Instant",
        "SystemTime",
        "now",
        "rusqlite",
        "rustix",
    ];
    for source in &decided {
        let code = without_tests(&source.code);
        for word in words {
            // `now` is what they are told, and `time` what they work with: nobody is asked for either.
            for call in [
                format!("std::{word}"),
                format!("{word}::"),
                format!("::{word}("),
            ] {
                assert!(!code.contains(&call), "{} names {call}", source.path);
            }
        }
    }
}

#[test]
fn the_format_stays_pure() {
    let allowed = [
        "aes",
        "aes-gcm",
        "argon2",
        "blake3",
        "minicbor",
        "xaes-256-gcm",
        "zeroize",
        "zstd-safe",
    ];
    for name in &direct_dependencies()["larder-format"] {
        assert!(
            allowed.contains(&name.as_str()),
            "larder-format depends on {name}"
        );
    }

    let below = everything_below("larder-format");
    for name in [
        "tokio",
        "object_store",
        "rocksdb",
        "rayon",
        "rustix",
        "tempfile",
        "getrandom",
    ] {
        assert!(!below.contains(name), "{name} is below larder-format");
    }
    // The closure was read at all.
    assert!(below.contains("zstd-sys"));
}

#[test]
fn the_chunker_touches_nothing() {
    let chunker = sources(&["chunker/src"]);
    assert!(!chunker.is_empty());
    let words = [
        "fs",
        "net",
        "process",
        "env",
        "time",
        "Instant",
        "getrandom",
    ];
    assert_only_in(&chunker, &words, &[]);
    let direct = &direct_dependencies()["larder-chunker"];
    assert!(
        direct.iter().eq(["aes", "fastcdc", "zeroize"]),
        "{direct:?}"
    );
}

#[test]
fn every_package_has_one_test_binary_at_most_and_the_lints() {
    for package in metadata()["packages"].as_array().unwrap() {
        if !package["source"].is_null() {
            continue;
        }
        let name = package["name"].as_str().unwrap();
        let binaries = package["targets"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|target| target["kind"][0] == "test")
            .count();
        assert!(binaries <= 1, "{name} has {binaries} test binaries");

        let manifest = fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name} does not take the lints of the workspace"
        );
    }
}

#[test]
fn every_dependency_has_its_reason_beside_it() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let table = table.split("\n[").next().unwrap();
    let mut reason = false;
    let mut seen = 0;
    for line in table.lines() {
        if line.is_empty() {
            reason = false;
        } else if line.starts_with('#') {
            reason = !line.starts_with("# ---");
        } else if !line.contains("path = ") {
            seen += 1;
            assert!(reason, "no reason above `{line}`");
        }
    }
    assert!(seen > 10);
}

#[test]
fn the_command_line_reaches_the_format_through_the_engine() {
    assert_only_in(&sources(&["cli/src"]), &["larder_format"], &[]);
}

#[test]
fn only_the_storages_and_the_service_know_the_runtime() {
    assert_only_in(
        &sources(SHIPPED),
        &["tokio", "futures_util"],
        &["storage/src", "server/src"],
    );
    assert_only_in(&sources(SHIPPED), &["object_store"], &["storage/src"]);
}

#[test]
fn only_sources_and_targets_touch_the_users_files() {
    let mut engine = sources(&[
        "engine/src",
        "storage/src",
        "chunker/src",
        "repo-format/src",
    ]);
    engine.retain(|source| !is_test(source));
    let everywhere = [USER_FILES, OWN_FILES].concat();
    for source in engine
        .iter()
        .filter(|source| !is_in_any(source, &everywhere))
    {
        let code = without_tests(&source.code);
        for call in [
            "std::fs",
            "rustix::fs",
            "fs::",
            "File::open",
            "File::create",
        ] {
            assert!(
                !code.contains(call),
                "{} names {call}; files are opened in source/ and target/",
                source.path
            );
        }
    }

    // What only a user's tree has: owners, devices, extended attributes.
    let calls = [
        "chownat",
        "fchown",
        "mknodat",
        "setxattr",
        "fsetxattr",
        "lsetxattr",
        "listxattr",
        "uzers",
    ];
    assert_only_in(&engine, &calls, USER_FILES);
}

#[test]
fn unsafe_code_stays_in_its_modules() {
    let all = sources(&[
        "repo-format",
        "chunker",
        "engine",
        "jobs",
        "server",
        "cli",
        "tests",
        "benches",
        "fuzz",
    ]);
    assert_only_in(&all, &["unsafe"], UNSAFE);
}

#[test]
fn one_word_stands_for_each_thing() {
    for source in sources(SHIPPED).iter().filter(|source| !is_test(source)) {
        for (line, word) in source.words() {
            for part in parts(word) {
                assert!(
                    !OTHER_WORDS.contains(&part.trim_end_matches('s')),
                    "{}:{line}: `{word}`; see the vocabulary in ARCHITECTURE.md",
                    source.path
                );
            }
        }
    }
}

#[test]
fn the_documents_are_there() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "SPEC.md",
        "CHANGELOG.md",
        "LICENSE",
    ] {
        let text = fs::read_to_string(root().join(name)).unwrap_or_default();
        assert!(!text.is_empty(), "{name} is missing");
    }
}

fn assert_only_in(sources: &[Source], words: &[&str], places: &[&str]) {
    for source in sources.iter().filter(|source| !is_in_any(source, places)) {
        for (line, word) in source.words() {
            assert!(
                !words.contains(&word),
                "{}:{line}: `{word}` may stand only in {places:?}",
                source.path
            );
        }
    }
}

fn is_in_any(source: &Source, places: &[&str]) -> bool {
    places.iter().any(|place| source.is_in(place))
}

/// Cuts off the module of unit tests, which stands at a file's end.
fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]").next().unwrap_or(code)
}

/// Splits an identifier at `_` and before capitals, in lower case.
fn parts(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in word.chars() {
        if c == '_' || c.is_uppercase() {
            parts.push(String::new());
        }
        if c != '_' {
            parts.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    parts
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Package name → names of its dependencies, without those of its tests and build script.
fn direct_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut direct = BTreeMap::new();
    for package in metadata()["packages"].as_array().unwrap() {
        let names = package["dependencies"].as_array().unwrap().iter();
        let names = names
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        direct.insert(
            package["name"].as_str().unwrap().to_owned(),
            names.collect(),
        );
    }
    direct
}

/// Gives what a package brings along when it is built by itself. The metadata would not do: it has
/// the features that any package of the workspace asks for.
fn everything_below(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--prefix=none",
            "--edges=normal",
        ])
        .args(["--target=x86_64-unknown-linux-gnu", "--format={p}"])
        .args(["--package", package])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8(output.stdout).unwrap();
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Tells whether a file holds tests alone.
fn is_test(source: &Source) -> bool {
    source.path.split('/').any(|part| {
        [
            "tests",
            "tests.rs",
            "fixture.rs",
            "testing.rs",
            "behaviour.rs",
        ]
        .contains(&part)
    })
}
