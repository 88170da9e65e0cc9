#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::{Barrier, Mutex};

use bytes::Bytes;

use super::super::error::{ErrorKind, Operation, Reason, Result};
use super::super::faulty::{Effect, Fault, Faulty, When};
use super::super::location::Layers;
use super::super::object::ObjectStorage;
use super::super::{Capabilities, CreateExclusive, ObjectInfo};
use super::*;

/// What a storage that lies does with its creates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Every create is a put, as s3rver and the WebDAV of rclone do it.
    Overwrites,
    /// It looks whether there is an object, and then puts, as s3s-fs does it.
    LooksFirst,
    /// It cannot, and says so.
    SaysSo,
}

struct Lying {
    inner: ObjectStorage,
    lie: Lie,
    looked: Barrier,
}

impl Lying {
    fn new(lie: Lie) -> Self {
        Self {
            inner: ObjectStorage::memory(),
            lie,
            looked: Barrier::new(16),
        }
    }
}

impl Storage for Lying {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.inner.get(name, max_bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.inner.get_range(name, offset_bytes, length_bytes)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        if self.lie == Lie::Overwrites {
            return self.inner.put(name, bytes);
        }
        if self.inner.size(name).is_ok() {
            return self.inner.create(name, bytes);
        }
        if name.contains("race") {
            self.looked.wait();
        }
        self.inner.put(name, bytes)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name)
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        self.inner.list(folder, visit)
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.inner.size(name)
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        if self.lie == Lie::SaysSo {
            capabilities.create_exclusive = CreateExclusive::None;
        }
        capabilities
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

fn names(storage: &dyn Storage) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    storage
        .list("", &mut |object| {
            names.insert(object.name);
            Ok(())
        })
        .unwrap();
    names
}

/// Runs the steps on a storage as if it were an S3 bucket.
fn tried(storage: &dyn Storage) -> (Verdict, Vec<Step>) {
    let mut steps = Vec::new();
    let mut run = Run {
        scheme: Scheme::S3,
        stop: Arc::default(),
        report: &mut |event| match event {
            Event::Step(step) => steps.push(step),
            Event::Warning(warning) => panic!("{warning}"),
        },
        verdict: Verdict {
            works: true,
            ..Verdict::default()
        },
    };
    steps::run(storage, &mut run);
    let verdict = run.verdict;
    (verdict, steps)
}

fn failures(steps: &[Step]) -> Vec<(StepName, &Failure)> {
    let failed = steps.iter().filter_map(|step| match &step.outcome {
        Outcome::Failed(failure) => Some((step.name, failure)),
        _ => None,
    });
    failed.collect()
}

fn skipped(steps: &[Step]) -> Vec<StepName> {
    let skipped = steps
        .iter()
        .filter(|step| matches!(step.outcome, Outcome::Skipped(_)));
    skipped.map(|step| step.name).collect()
}

#[test]
fn a_storage_that_works_passes_every_step_and_is_left_as_it_was() {
    let storage = ObjectStorage::memory();
    storage
        .put("config/1", Bytes::from_static(b"mine"))
        .unwrap();
    let (verdict, steps) = tried(&storage);
    let passed: Vec<_> = steps.iter().map(|step| step.name).collect();
    assert_eq!(passed, steps::ALL);
    assert!(failures(&steps).is_empty() && skipped(&steps).is_empty());
    assert!(verdict.works && verdict.creates_exclusively && !verdict.is_interrupted);
    let measured = |name| {
        steps
            .iter()
            .find(|step| step.name == name)
            .unwrap()
            .outcome
            .clone()
    };
    assert!(matches!(measured(StepName::Latency), Outcome::Seconds(_)));
    assert!(matches!(measured(StepName::Upload), Outcome::BytesPerSecond(rate) if rate > 0.0));
    assert!(matches!(measured(StepName::Download), Outcome::BytesPerSecond(rate) if rate > 0.0));
    assert_eq!(names(&storage), BTreeSet::from(["config/1".to_owned()]));
}

#[test]
fn a_folder_is_left_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().display().to_string();
    let location = Location::new(&url, &Layers::default()).unwrap();
    let mut steps = Vec::new();
    let verdict = validate(&location, Mode::Open, &Arc::default(), &mut |event| {
        steps.push(event);
    });
    assert!(verdict.works && verdict.creates_exclusively, "{steps:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn each_operation_that_fails_is_told_by_its_step_and_right_and_nothing_is_left() {
    use StepName::{Delete, List, RangeRead, ReadBack, Write};
    for (operation, step, right) in [
        (Operation::Put, Write, "s3:PutObject"),
        (Operation::Get, ReadBack, "s3:GetObject"),
        (Operation::GetRange, RangeRead, "s3:GetObject"),
        (Operation::List, List, "s3:ListBucket"),
        (Operation::Delete, Delete, "s3:DeleteObject"),
    ] {
        let memory = Arc::new(ObjectStorage::memory());
        let faulty = Faulty::new(Arc::clone(&memory) as Arc<dyn Storage>);
        faulty.inject(Fault {
            operation: Some(operation),
            lasts: true,
            ..Fault::error(1, When::Before, ErrorKind::Denied)
        });
        let (verdict, steps) = tried(&faulty);
        let (failed, failure) = *failures(&steps).first().unwrap();
        assert_eq!((failed, failure.reason), (step, "denied"));
        assert!(failure.advice.contains(right), "{failure:?}");
        assert!(!verdict.works);
        let is_left = !names(memory.as_ref()).is_empty();
        assert_eq!(is_left, step == Delete, "{operation:?}");
        assert_eq!(failure.cause.contains("is left below probe/"), is_left);
    }
}

#[test]
fn what_cannot_be_tried_is_said_to_be_skipped() {
    let faulty = Faulty::new(Arc::new(ObjectStorage::memory()));
    faulty.limit_room(100);
    let (verdict, steps) = tried(&faulty);
    let all = failures(&steps);
    let [(StepName::Write, failure)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(failure.reason, "full");
    assert!(failure.advice.contains("free some space"));
    assert_eq!(skipped(&steps).len(), steps::ALL.len() - 2, "{steps:?}");
    assert!(!verdict.works);
}

#[test]
fn wrong_answers_are_found() {
    for (operation, effect, step) in [
        (Operation::Get, Effect::Flip(77), StepName::ReadBack),
        (Operation::GetRange, Effect::Flip(7), StepName::RangeRead),
    ] {
        let faulty = Faulty::new(Arc::new(ObjectStorage::memory()));
        faulty.inject(Fault {
            nth: 1,
            operation: Some(operation),
            lasts: false,
            effect,
        });
        let (verdict, steps) = tried(&faulty);
        let all = failures(&steps);
        assert_eq!(all.len(), 1);
        assert!(
            all.iter()
                .all(|(name, failure)| *name == step && failure.is_fatal)
        );
        assert!(!verdict.works);
    }
}

#[test]
fn a_storage_that_lies_about_creates_is_found_out() {
    assert_eq!(
        try_creates(&ObjectStorage::memory()).unwrap(),
        Creates::Exclusive
    );
    let lying = Lying::new(Lie::Overwrites);
    assert_eq!(try_creates(&lying).unwrap(), Creates::Overwrites);
    assert!(names(&lying).is_empty());
    let lying = Lying::new(Lie::LooksFirst);
    let creates = try_creates(&lying).unwrap();
    assert!(
        matches!(creates, Creates::Races(winners) if winners > 1),
        "{creates:?}"
    );
    assert!(names(&lying).is_empty());
    let honest = Lying::new(Lie::SaysSo);
    assert_eq!(try_creates(&honest).unwrap(), Creates::Undecided);
    // Backups would work, so it is no failure of the whole.
    for lie in [Lie::Overwrites, Lie::LooksFirst, Lie::SaysSo] {
        let (verdict, steps) = tried(&Lying::new(lie));
        let all = failures(&steps);
        let [(StepName::CreateIfAbsent, failure)] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert!(!failure.is_fatal && failure.advice.contains("--accept-racy-creates"));
        assert!(verdict.works && !verdict.creates_exclusively);
    }
}

#[test]
fn a_create_whose_answer_was_lost_is_no_lie() {
    for nth in 1..20 {
        let faulty = Faulty::new(Arc::new(ObjectStorage::memory()));
        faulty.inject(Fault {
            operation: Some(Operation::Create),
            ..Fault::error(nth, When::After, ErrorKind::Transient)
        });
        assert_eq!(try_creates(&faulty).unwrap(), Creates::Exclusive, "{nth}");
    }
}

#[test]
fn a_process_that_is_asked_to_stop_leaves_nothing_behind() {
    let storage = ObjectStorage::memory();
    let stop = Arc::new(AtomicBool::new(false));
    let steps = Mutex::new(Vec::new());
    let mut run = Run {
        scheme: Scheme::S3,
        stop: Arc::clone(&stop),
        report: &mut |event| {
            stop.store(true, Ordering::Relaxed);
            steps.lock().unwrap().push(event);
        },
        verdict: Verdict::default(),
    };
    steps::run(&storage, &mut run);
    assert!(run.verdict.is_interrupted);
    assert_eq!(steps.lock().unwrap().len(), steps::ALL.len());
    assert!(names(&storage).is_empty());
}

#[test]
fn a_place_that_cannot_be_reached_fails_at_its_step_and_the_rest_is_skipped() {
    let tried = |url: &str| {
        let location = Location::new(url, &Layers::default()).unwrap();
        let mut steps = Vec::new();
        let verdict = validate(&location, Mode::Open, &Arc::default(), &mut |event| {
            if let Event::Step(step) = event {
                steps.push(step);
            }
        });
        assert!(!verdict.works);
        steps
    };
    let steps = tried("/nowhere/at/all");
    let all = failures(&steps);
    let [(StepName::Find, failure)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(failure.reason, "not-found");
    assert!(failure.advice.contains("--create"), "{failure:?}");
    assert_eq!(skipped(&steps), steps::ALL);

    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let steps = tried(&format!("sftp://127.0.0.1:{port}/x"));
    let all = failures(&steps);
    let [(StepName::Connect, failure)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(failure.reason, Reason::Refused.name());
    let expected = [StepName::HostKey, StepName::Authenticate, StepName::Find];
    let expected: Vec<_> = expected.iter().chain(steps::ALL).copied().collect();
    assert_eq!(skipped(&steps), expected);
}
