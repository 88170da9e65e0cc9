//! Progress of long jobs: a bar for people, status lines for programs, or nothing.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use larder_engine::progress::Progress;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{output, render};

/// Milliseconds between two status lines.
const STATUS_INTERVAL_MS: u64 = 1000;
/// Milliseconds between two changes of what the bar says beside it.
const BAR_INTERVAL_MS: u64 = 100;
/// Milliseconds in which the rate is measured before a time left is told.
const ESTIMATE_AFTER_MS: u64 = 2000;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Silent,
    /// As a bar on standard error.
    Bar,
    /// As JSON objects on standard output, one a line.
    Json {
        /// Whether there are status lines, or warnings alone.
        status: bool,
    },
}

/// Shows what a long job tells.
pub struct Reporter {
    mode: Mode,
    bar: ProgressBar,
    started: Instant,
    next_ms: AtomicU64,
    items_done: AtomicU64,
    bytes_done: AtomicU64,
    phase: Mutex<Phase>,
}

#[derive(Debug, Clone, Default)]
struct Phase {
    name: &'static str,
    begun_ms: u64,
    items_total: Option<u64>,
    bytes_total: Option<u64>,
    current: Vec<u8>,
}

/// One status line, and what the bar shows.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status<'a> {
    phase: &'a str,
    seconds_elapsed: f64,
    seconds_remaining: Option<f64>,
    items_done: u64,
    items_total: Option<u64>,
    bytes_done: u64,
    bytes_total: Option<u64>,
    current: Option<String>,
}

#[derive(Debug, Serialize)]
struct Warning<'a> {
    message: &'a str,
}

impl Reporter {
    /// Begins to show progress.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let bar = match mode {
            Mode::Bar => ProgressBar::no_length(),
            Mode::Silent | Mode::Json { .. } => ProgressBar::hidden(),
        };
        if mode == Mode::Bar {
            bar.set_style(style("{spinner} {prefix}  {wide_msg}"));
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self {
            mode,
            bar,
            started: Instant::now(),
            next_ms: AtomicU64::new(if mode == Mode::Bar {
                0
            } else {
                STATUS_INTERVAL_MS
            }),
            items_done: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            phase: Mutex::default(),
        }
    }

    /// Says something on standard error, above the bar.
    pub fn above(&self, text: &str) {
        let line = format!("larder: {}\n", render::printable(text.as_bytes()));
        self.bar.suspend(|| {
            let _ = std::io::stderr().write_all(line.as_bytes());
        });
    }

    /// Takes the bar away, before a summary is written.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn phase_of(&self) -> std::sync::MutexGuard<'_, Phase> {
        // A thread that panicked while it held the lock left nothing half done.
        self.phase
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Shows the state of things if it is time to.
    fn show(&self) {
        let interval = match self.mode {
            Mode::Bar => BAR_INTERVAL_MS,
            Mode::Json { status: true } => STATUS_INTERVAL_MS,
            Mode::Json { status: false } | Mode::Silent => return,
        };
        let now = self.elapsed_ms();
        let next = self.next_ms.load(Ordering::Relaxed);
        let due = now >= next
            && self
                .next_ms
                .compare_exchange(next, now + interval, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !due {
            return;
        }
        let phase = self.phase_of().clone();
        let items = self.items_done.load(Ordering::Relaxed);
        let bytes = self.bytes_done.load(Ordering::Relaxed);
        if self.mode == Mode::Bar {
            self.bar.set_message(beside(&phase, items, bytes, now));
            self.bar.set_position(if phase.bytes_total.is_some() {
                bytes
            } else {
                items
            });
            return;
        }
        // A reader that has gone does not end the job.
        let status = status(&phase, items, bytes, now);
        let _ = output::message(&mut std::io::stdout().lock(), "status", &status);
    }
}

impl Progress for Reporter {
    fn phase(&self, name: &'static str, items: Option<u64>, bytes: Option<u64>) {
        {
            let mut phase = self.phase_of();
            *phase = Phase {
                name,
                begun_ms: self.elapsed_ms(),
                items_total: items,
                bytes_total: bytes,
                current: Vec::new(),
            };
            self.items_done.store(0, Ordering::Relaxed);
            self.bytes_done.store(0, Ordering::Relaxed);
        }
        if self.mode == Mode::Bar {
            self.bar.set_prefix(name);
            match bytes.or(items) {
                Some(total) => {
                    self.bar.set_length(total);
                    self.bar
                        .set_style(style("{prefix}  [{bar:24}] {percent:>3}%  {wide_msg}"));
                }
                None => self.bar.set_style(style("{spinner} {prefix}  {wide_msg}")),
            }
        }
        self.show();
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.items_done.fetch_add(items, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.show();
    }

    fn total(&self, items: u64, bytes: u64) {
        {
            let mut phase = self.phase_of();
            phase.items_total = Some(items);
            phase.bytes_total = Some(bytes);
        }
        if self.mode == Mode::Bar {
            self.bar.set_length(bytes);
            self.bar
                .set_style(style("{prefix}  [{bar:24}] {percent:>3}%  {wide_msg}"));
        }
        self.show();
    }

    fn wants_totals(&self) -> bool {
        self.mode != Mode::Silent
    }

    fn current(&self, path: &[u8]) {
        if self.mode == Mode::Silent {
            return;
        }
        {
            let mut phase = self.phase_of();
            phase.current.clear();
            phase.current.extend_from_slice(path);
        }
        self.show();
    }

    fn warning(&self, text: &str) {
        if let Mode::Json { .. } = self.mode {
            let warning = Warning { message: text };
            let _ = output::message(&mut std::io::stdout().lock(), "warning", &warning);
            return;
        }
        let line = format!("larder: warning: {}\n", render::printable(text.as_bytes()));
        self.bar.suspend(|| {
            let _ = std::io::stderr().write_all(line.as_bytes());
        });
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Describes how far a phase has come, `now` milliseconds after the job's start.
fn status(phase: &Phase, items: u64, bytes: u64, now: u64) -> Status<'_> {
    let current =
        (!phase.current.is_empty()).then(|| String::from_utf8_lossy(&phase.current).into_owned());
    Status {
        phase: phase.name,
        seconds_elapsed: now as f64 / 1000.0,
        seconds_remaining: remaining(phase, items, bytes, now),
        items_done: items,
        items_total: phase.items_total,
        bytes_done: bytes,
        bytes_total: phase.bytes_total,
        current,
    }
}

/// Estimates the seconds left of a phase from its mean rate.
fn remaining(phase: &Phase, items: u64, bytes: u64, now: u64) -> Option<f64> {
    let spent = now.saturating_sub(phase.begun_ms);
    let (done, total) = match (phase.bytes_total, phase.items_total) {
        (Some(total), _) if total > 0 => (bytes, total),
        (_, Some(total)) => (items, total),
        _ => return None,
    };
    if spent < ESTIMATE_AFTER_MS || done == 0 {
        return None;
    }
    let left = total.saturating_sub(done) as f64;
    Some(left * spent as f64 / 1000.0 / done as f64)
}

/// Says what stands beside the bar: amounts, rate, time left, path.
fn beside(phase: &Phase, items: u64, bytes: u64, now: u64) -> String {
    let mut parts = Vec::new();
    let of = |done: String, total: Option<String>| match total {
        Some(total) => format!("{done} / {total}"),
        None => done,
    };
    if items > 0 || phase.items_total.is_some() {
        parts.push(of(
            render::count(items),
            phase.items_total.map(render::count),
        ));
    }
    if bytes > 0 || phase.bytes_total.is_some() {
        parts.push(of(render::size(bytes), phase.bytes_total.map(render::size)));
        let spent = now.saturating_sub(phase.begun_ms);
        if let Some(rate) = (u128::from(bytes) * 1000).checked_div(u128::from(spent)) {
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            parts.push(format!("{}/s", render::size(rate)));
        }
    }
    if let Some(seconds) = remaining(phase, items, bytes, now) {
        parts.push(format!("{} left", render::duration(seconds)));
    }
    if !phase.current.is_empty() {
        parts.push(render::printable(&phase.current));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn phase() -> Phase {
        Phase {
            name: "backing up",
            begun_ms: 1000,
            items_total: Some(10),
            bytes_total: Some(4 << 20),
            current: b"/home/a\xff".to_vec(),
        }
    }

    #[test]
    fn a_status_line_has_every_field() {
        let status = serde_json::to_value(status(&phase(), 4, 1 << 20, 5000)).unwrap();
        let expected = serde_json::json!({
            "phase": "backing up",
            "seconds_elapsed": 5.0,
            "seconds_remaining": 12.0,
            "items_done": 4,
            "items_total": 10,
            "bytes_done": 1 << 20,
            "bytes_total": 4 << 20,
            "current": "/home/a\u{fffd}",
        });
        assert_eq!(status, expected);
    }

    #[test]
    fn the_bar_says_amounts_rate_time_left_and_path() {
        let text = beside(&phase(), 4, 1 << 20, 5000);
        let expected = "4 / 10  1.000 MiB / 4.000 MiB  256.000 KiB/s  12.0 s left  /home/a\\xff";
        assert_eq!(text, expected);
        assert_eq!(beside(&Phase::default(), 3, 0, 9000), "3");
    }

    #[test]
    fn no_time_left_is_told_before_the_rate_is_known() {
        assert_eq!(remaining(&phase(), 4, 1 << 20, 2500), None);
        assert_eq!(remaining(&phase(), 0, 0, 9000), None);
        assert_eq!(remaining(&Phase::default(), 5, 5, 9000), None);
    }

    #[test]
    fn a_new_phase_counts_from_nothing() {
        let reporter = Reporter::new(Mode::Silent);
        reporter.phase("reading", None, None);
        reporter.advance(3, 30);
        reporter.phase("writing", Some(7), None);
        reporter.advance(1, 10);
        assert_eq!(reporter.items_done.load(Ordering::Relaxed), 1);
        assert_eq!(reporter.bytes_done.load(Ordering::Relaxed), 10);
        reporter.total(9, 90);
        assert_eq!(reporter.phase_of().bytes_total, Some(90));
    }
}
