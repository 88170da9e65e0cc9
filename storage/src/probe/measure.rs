//! How fast a storage is.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::scratch::{Scratch, fill};
use super::{Outcome, Run, StepName};
use crate::Storage;
use crate::error::Result;

/// Small requests whose median counts.
const REQUESTS: usize = 7;
/// Bytes of one object that is moved.
const OBJECT_BYTES: usize = 4 << 20;
/// Objects that are moved, unless it takes too long.
const OBJECTS: usize = 3;
/// No further object is moved after this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures latency, then both directions; what was written is the caller's to remove.
pub(super) fn run(storage: &dyn Storage, scratch: &Scratch<'_>, run: &mut Run<'_>) {
    let start = Instant::now();
    let latency = latency(storage, scratch).map(Outcome::Seconds);
    tell(run, StepName::Latency, latency, start);
    let mut bytes = vec![0; OBJECT_BYTES];
    let filled = fill(storage, &mut bytes);
    let bytes = Bytes::from(bytes);
    let name = scratch.name("large");
    let start = Instant::now();
    let upload = filled.and_then(|()| rate(run, || storage.put(&name, bytes.clone())));
    let is_there = upload.is_ok();
    tell(run, StepName::Upload, upload, start);
    if !is_there {
        run.tell(
            StepName::Download,
            Outcome::Skipped("nothing was written"),
            None,
        );
        return;
    }
    let start = Instant::now();
    let download = rate(run, || storage.get(&name, OBJECT_BYTES as u64).map(|_| ()));
    tell(run, StepName::Download, download, start);
}

fn tell(run: &mut Run<'_>, name: StepName, outcome: Result<Outcome>, start: Instant) {
    let outcome = outcome.unwrap_or_else(|error| Outcome::Failed(run.failure(name, &error)));
    run.tell(name, outcome, Some(start.elapsed().as_secs_f64()));
}

fn latency(storage: &dyn Storage, scratch: &Scratch<'_>) -> Result<f64> {
    let name = scratch.name("small");
    storage.put(&name, Bytes::from_static(b"small"))?;
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let start = Instant::now();
        storage.size(&name)?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(median(times))
}

fn rate(run: &mut Run<'_>, mut transfer: impl FnMut() -> Result<()>) -> Result<Outcome> {
    let began = Instant::now();
    let mut times = Vec::with_capacity(OBJECTS);
    while times.len() < OBJECTS && (times.is_empty() || began.elapsed() < PATIENCE) {
        let start = Instant::now();
        transfer()?;
        times.push(start.elapsed().as_secs_f64());
        if run.is_stopped() {
            break;
        }
    }
    // A clock that is too coarse must not make it infinite.
    Ok(Outcome::BytesPerSecond(
        OBJECT_BYTES as f64 / median(times).max(1e-9),
    ))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_request_does_not_move_the_median() {
        assert!((median(vec![0.3, 9.0, 0.1]) - 0.3).abs() < f64::EPSILON);
        assert!(median(Vec::new()).abs() < f64::EPSILON);
    }
}
