//! Streams with checkpoints while they are read.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use super::super::*;
use crate::browse;
use crate::collection::fixture::Meddled;
use crate::progress::Silent;
use crate::prune::PruneOptions;
use crate::prune::tests::world as pruning;
use crate::snapshots::fixture::{back_up, init, open, options};
use crate::snapshots::{Filter, list};
use crate::storage::Storage;
use crate::storage::error::Operation;
use crate::storage::object::ObjectStorage;

fn stream(name: &str, line: &str) -> Stream {
    Stream {
        path: name.as_bytes().to_vec(),
        origin: Origin::Command(line.to_owned()),
    }
}

fn options_of(streams: Vec<Stream>) -> BackupOptions {
    BackupOptions {
        streams: Streams {
            sources: streams,
            databases: Vec::new(),
            order: Vec::new(),
        },
        checkpoints: CheckpointRhythm {
            seconds: u64::MAX,
            entries: u64::MAX,
            bytes: 10_000,
        },
        ..options(&[])
    }
}

#[test]
fn checkpoints_within_a_stream_lose_nothing_of_it() {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    let repository = open(&storage);
    let lines = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let both = options_of(vec![stream("/a", "echo small"), stream("/b", lines)]);
    let first = back_up(&repository, &both);
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    let mut bytes = Vec::new();
    let snapshots = list(&repository, &Filter::default(), false).unwrap();
    browse::dump(&repository, &snapshots[0], b"/b", &mut bytes).unwrap();
    assert!(bytes == expected.as_bytes());
    assert_eq!(first.statistics.bytes, expected.len() as u64 + 6);

    let second = back_up(&repository, &both);
    assert!(second.unchanged, "{second:?}");
    assert_eq!(second.statistics.unchanged, 2);
}

#[test]
fn prunes_beside_a_stream_leave_what_was_read_of_it() {
    let memory: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(memory.as_ref());
    let meddled = Meddled::new(Arc::clone(&memory));
    // At every second commit, between what was read of it and the rest.
    for nth in 1..=4 {
        let memory = Arc::clone(&memory);
        let patient = PruneOptions {
            patience: std::time::Duration::from_secs(3600),
            ..pruning::options()
        };
        let prune = move || pruning::run(&memory, &patient).map(drop).unwrap();
        meddled.before(Operation::Create, "snapshots/", 2 * nth, prune);
    }
    let storage: Arc<dyn Storage> = meddled.clone();
    let repository = open(&storage);
    let lines = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    back_up(&repository, &options_of(vec![stream("/b", lines)]));
    assert!(meddled.is_done());
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    let mut bytes = Vec::new();
    let there = open(&memory);
    let snapshots = list(&there, &Filter::default(), false).unwrap();
    browse::dump(&there, &snapshots[0], b"/b", &mut bytes).unwrap();
    assert!(bytes == expected.as_bytes());
}

#[test]
fn what_was_read_before_a_failure_is_not_stored_again() {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    let repository = open(&storage);
    let lines = "i=0; while [ $i -lt 9999 ]; do echo line $i; i=$((i+1)); done";
    let fails = options_of(vec![stream("/a", lines), stream("/b", "echo x; exit 1")]);
    let failed = backup(&repository, &fails, &Silent, &Cancel::default());
    let failed = failed.unwrap_err().to_string();
    assert!(failed.contains("exit code 1"), "{failed}");
    assert!(
        list(&repository, &Filter::default(), false)
            .unwrap()
            .is_empty()
    );

    let works = options_of(vec![stream("/a", lines), stream("/b", "echo x")]);
    let done = back_up(&repository, &works);
    assert!(done.resumed_from.is_some());
    let added = done.statistics.bytes_added;
    assert!(added < 5_000, "{added}");
}
