//! What is tried on a storage once it is reached.

use std::time::Instant;

use bytes::Bytes;

use super::creates::{self, Creates};
use super::failure::{self, Failure};
use super::scratch::{Scratch, fill};
use super::{Outcome, Run, StepName, measure};
use crate::Storage;
use crate::error::{ErrorKind, Result, StorageError};

/// All of these steps, in their order.
pub(super) const ALL: &[StepName] = &[
    StepName::Write,
    StepName::ReadBack,
    StepName::RangeRead,
    StepName::List,
    StepName::CreateIfAbsent,
    StepName::Delete,
    StepName::Latency,
    StepName::Upload,
    StepName::Download,
];

/// Bytes of the object that is written first.
const OBJECT_BYTES: usize = 64 << 10;

/// What became of one step: something worth saying, or why it failed.
type Tried = std::result::Result<Option<String>, Failure>;

/// Tries every step; what cannot be tried after another one failed is passed over.
pub(super) fn run(storage: &dyn Storage, run: &mut Run<'_>) {
    let mut bytes = vec![0; OBJECT_BYTES];
    let scratch = Scratch::new(storage).and_then(|scratch| {
        fill(storage, &mut bytes)?;
        Ok(scratch)
    });
    let scratch = match scratch {
        Ok(scratch) => scratch,
        Err(error) => {
            let failure = run.failure(StepName::Write, &error);
            return run.tell(StepName::Write, Outcome::Failed(failure), None);
        }
    };
    let bytes = Bytes::from(bytes);
    let name = scratch.name("object");
    let mut is_written = false;
    let mut is_deleted = false;
    for step in ALL {
        if run.is_stopped() {
            run.tell(*step, Outcome::Skipped("interrupted"), None);
            continue;
        }
        let needs_object = !matches!(step, StepName::Write | StepName::List);
        if needs_object && !is_written {
            run.tell(*step, Outcome::Skipped("nothing can be written"), None);
            continue;
        }
        let start = Instant::now();
        let tried = match step {
            StepName::Write => told(run, *step, storage.put(&name, bytes.clone())),
            StepName::ReadBack => read_back(storage, &name, &bytes, run),
            StepName::RangeRead => range_read(storage, &name, &bytes, run),
            StepName::List => list(storage, &scratch, is_written.then_some(&name), run),
            StepName::CreateIfAbsent => create_if_absent(storage, &scratch, run),
            StepName::Delete => delete(storage, &scratch, &name, run),
            // What could not be deleted would stay behind.
            StepName::Latency if is_deleted => return measured(storage, &scratch, run),
            _ => {
                run.tell(*step, Outcome::Skipped("nothing can be deleted"), None);
                continue;
            }
        };
        is_written |= *step == StepName::Write && tried.is_ok();
        is_deleted |= *step == StepName::Delete && tried.is_ok();
        let outcome = tried.map_or_else(Outcome::Failed, Outcome::Done);
        run.tell(*step, outcome, Some(start.elapsed().as_secs_f64()));
    }
}

fn measured(storage: &dyn Storage, scratch: &Scratch<'_>, run: &mut Run<'_>) {
    measure::run(storage, scratch, run);
    if let Err(error) = scratch.clear() {
        let failure = run.failure(StepName::Delete, &error);
        run.tell(StepName::Delete, Outcome::Failed(failure), None);
    }
}

fn told(run: &Run<'_>, step: StepName, outcome: Result<()>) -> Tried {
    outcome
        .map(|()| None)
        .map_err(|error| run.failure(step, &error))
}

fn read_back(storage: &dyn Storage, name: &str, bytes: &Bytes, run: &Run<'_>) -> Tried {
    let step = StepName::ReadBack;
    let found = storage.get(name, bytes.len() as u64);
    let found = found.map_err(|error| run.failure(step, &error))?;
    if found != *bytes {
        return Err(failure::wrong("what is read is not what was written"));
    }
    let size = storage.size(name);
    match size.map_err(|error| run.failure(step, &error))? {
        size if size == bytes.len() as u64 => Ok(None),
        size => Err(failure::wrong(format!(
            "an object of {} bytes is said to have {size}",
            bytes.len()
        ))),
    }
}

fn range_read(storage: &dyn Storage, name: &str, bytes: &Bytes, run: &Run<'_>) -> Tried {
    let (from, to) = (1000, 3000);
    let range = storage.get_range(name, from as u64, (to - from) as u64);
    let range = range.map_err(|error| run.failure(StepName::RangeRead, &error))?;
    if range != bytes.slice(from..to) {
        return Err(failure::wrong(
            "a part of an object is not what was written there",
        ));
    }
    Ok(None)
}

fn list(
    storage: &dyn Storage,
    scratch: &Scratch<'_>,
    written: Option<&String>,
    run: &Run<'_>,
) -> Tried {
    let mut found = Vec::new();
    let listed = storage.list(scratch.folder(), &mut |object| {
        // Nothing else is below a name of chance; a server may answer anything.
        if found.len() < 16 {
            found.push(object);
        }
        Ok(())
    });
    listed.map_err(|error| run.failure(StepName::List, &error))?;
    let expected = written.map(|name| (name.as_str(), OBJECT_BYTES as u64));
    let is_right = found
        .iter()
        .map(|object| (object.name.as_str(), object.size_bytes))
        .eq(expected);
    if !is_right {
        return Err(failure::wrong(format!(
            "a listing right after a write has {} objects in place of {}, or not the one that was written",
            found.len(),
            usize::from(written.is_some())
        )));
    }
    Ok(None)
}

fn create_if_absent(storage: &dyn Storage, scratch: &Scratch<'_>, run: &mut Run<'_>) -> Tried {
    let tried = creates::try_in(storage, scratch);
    let creates = tried.map_err(|error| run.failure(StepName::CreateIfAbsent, &error))?;
    run.verdict.creates_exclusively = creates == Creates::Exclusive;
    if creates == Creates::Exclusive {
        return Ok(None);
    }
    Err(Failure {
        reason: "not-exclusive",
        cause: creates.complaint(),
        advice:
            "backups work; prune will ask for --accept-racy-creates, and then nothing else may run"
                .to_owned(),
        is_fatal: false,
    })
}

fn delete(storage: &dyn Storage, scratch: &Scratch<'_>, name: &str, run: &Run<'_>) -> Tried {
    let failed = |error: &StorageError| {
        let mut failure = run.failure(StepName::Delete, error);
        failure.cause = format!(
            "{} (what was written is left below {})",
            failure.cause,
            scratch.folder()
        );
        failure
    };
    scratch.clear().map_err(|error| failed(&error))?;
    match storage.size(name) {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
        Ok(_) => Err(failure::wrong("an object that was deleted is still there")),
    }
}
