//! What Prometheus is told.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use crate::child::Line;
use crate::problem::Problem;
use crate::service::Service;

/// Requests by the first digit of how they were answered, since the service was started.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; 6]);

impl Counters {
    /// Counts a request.
    pub fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        if let Some(counter) = self.0.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A metric of jobs: its name, what it says, and how it is read from `larder job list`.
type OfJob = (&'static str, &'static str, fn(&Value) -> Option<f64>);

/// All metrics of jobs.
const OF_JOBS: [OfJob; 9] = [
    (
        "larder_job_last_success_timestamp_seconds",
        "When the newest backup ended that made a snapshot.",
        |job| time(job.get("last_success")?),
    ),
    (
        "larder_job_next_timestamp_seconds",
        "When it is backed up next.",
        |job| time(job.get("next")?),
    ),
    (
        "larder_job_running",
        "Whether a backup is under way.",
        |job| Some(truth(job.get("running")?.as_bool()?)),
    ),
    (
        "larder_job_failing",
        "Whether the newest backup that ended made no snapshot, or the job has a mistake.",
        |job| Some(truth(crate::api::service::state(job).0.is_bad())),
    ),
    (
        "larder_job_last_duration_seconds",
        "How long the newest backup took.",
        |job| {
            let last = job.get("last")?;
            Some(time(last.get("ended")?)? - time(last.get("started")?)?)
        },
    ),
    (
        "larder_job_last_files",
        "Files of the newest backup.",
        |job| job.get("last")?.get("files")?.as_f64(),
    ),
    (
        "larder_job_last_bytes",
        "Bytes of all files of the newest backup.",
        |job| job.get("last")?.get("bytes")?.as_f64(),
    ),
    (
        "larder_job_last_read_bytes",
        "Bytes that the newest backup read.",
        |job| job.get("last")?.get("bytes_read")?.as_f64(),
    ),
    (
        "larder_job_last_stored_bytes",
        "Bytes that the newest backup wrote to the repository.",
        |job| job.get("last")?.get("bytes_stored")?.as_f64(),
    ),
];

/// Writes all metrics.
///
/// # Errors
/// When the program does not tell of its jobs.
pub async fn text(service: &Service) -> Result<String, Problem> {
    let jobs: Result<Vec<Value>, _> = service
        .program
        .document(&Line::new(["job", "list"]), &[])
        .await;
    let jobs = jobs.map_err(|failure| failure.problem())?;
    let mut text = String::new();
    let version = label(service.options.version);
    head(&mut text, "larder_service_info", "gauge", "The version.");
    line(
        &mut text,
        "larder_service_info",
        &[("version", &version)],
        1.0,
    );
    head(
        &mut text,
        "larder_service_start_timestamp_seconds",
        "gauge",
        "When the service was started.",
    );
    line(
        &mut text,
        "larder_service_start_timestamp_seconds",
        &[],
        seconds(service.common.started),
    );
    head(
        &mut text,
        "larder_http_requests_total",
        "counter",
        "Requests by how they were answered.",
    );
    for (class, counter) in service.counters.0.iter().enumerate().skip(1) {
        let class = format!("{class}xx");
        let count = counter.load(Ordering::Relaxed) as f64;
        line(
            &mut text,
            "larder_http_requests_total",
            &[("status", &class)],
            count,
        );
    }
    head(
        &mut text,
        "larder_runs_running",
        "gauge",
        "Runs of this service that are under way.",
    );
    line(
        &mut text,
        "larder_runs_running",
        &[],
        service.runs.running() as f64,
    );
    head(
        &mut text,
        "larder_runs_total",
        "counter",
        "Runs of this service that ended, by kind and outcome.",
    );
    for ((kind, outcome), count) in service.runs.counts() {
        let labels = [("kind", kind.as_str()), ("outcome", outcome.word())];
        line(&mut text, "larder_runs_total", &labels, count as f64);
    }
    of_jobs(&mut text, &jobs);
    Ok(text)
}

fn of_jobs(text: &mut String, jobs: &[Value]) {
    for (name, help, value) in OF_JOBS {
        head(text, name, "gauge", help);
        for job in jobs {
            let job_name = job.get("name").and_then(Value::as_str).unwrap_or_default();
            let job_name = label(job_name);
            if let Some(value) = value(job) {
                line(text, name, &[("job", &job_name)], value);
            }
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    let labels = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""));
    let labels = labels.collect::<Vec<_>>().join(",");
    let braced = match labels.is_empty() {
        true => String::new(),
        false => format!("{{{labels}}}"),
    };
    let _ = writeln!(text, "{name}{braced} {value}");
}

fn label(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.replace('\n', "\\n")
}

fn time(value: &Value) -> Option<f64> {
    Some(seconds(value.as_str()?.parse().ok()?))
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

fn truth(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_are_told_in_the_form_of_prometheus() {
        let jobs = [json!({
            "name": "a\"b", "running": false, "next": null, "last_success": "1970-01-01T00:00:02Z",
            "last": {"started": "1970-01-01T00:00:00.5Z", "ended": "1970-01-01T00:00:02Z", "outcome": "failure", "files": 3, "bytes": null}
        })];
        let mut text = String::new();
        of_jobs(&mut text, &jobs);
        for expected in [
            "# TYPE larder_job_running gauge",
            "larder_job_last_success_timestamp_seconds{job=\"a\\\"b\"} 2\n",
            "larder_job_last_duration_seconds{job=\"a\\\"b\"} 1.5\n",
            "larder_job_failing{job=\"a\\\"b\"} 1\n",
            "larder_job_running{job=\"a\\\"b\"} 0\n",
            "larder_job_last_files{job=\"a\\\"b\"} 3\n",
        ] {
            assert!(text.contains(expected), "no {expected} in {text}");
        }
        assert!(!text.contains("last_bytes{") && !text.contains("next_timestamp_seconds{"));
    }
}
