//! Running what is due: the program itself says what that is, by the same pure planner as `larder job due`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::child::{Failure, Line};
use crate::service::Service;

/// How often it is asked what is due.
const TICK: Duration = Duration::from_secs(30);
/// How many jobs the schedule runs at a time.
const AT_ONCE_MAX: usize = 4;
/// A job is not begun anew before that time, whatever the program says.
const PAUSE: Duration = Duration::from_secs(60);

/// What the program says is due.
#[derive(Deserialize)]
struct Answer {
    due: Vec<Due>,
}

#[derive(Deserialize)]
struct Due {
    job: String,
}

/// Runs jobs as they become due, until it is given up.
pub async fn run(service: Arc<Service>) {
    let mut begun: HashMap<String, Instant> = HashMap::new();
    let mut complaint = None;
    loop {
        match due(&service).await {
            Ok(jobs) => {
                complaint = None;
                begin(&service, &jobs, &mut begun);
            }
            // Told once, and again once it is another one.
            Err(failure) if complaint.as_ref() != Some(&failure) => {
                tracing::error!("cannot tell what is due: {}", failure.message);
                complaint = Some(failure);
            }
            Err(_) => {}
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Asks which jobs have something due; one that has a mistake keeps no other from it.
async fn due(service: &Service) -> Result<BTreeSet<String>, Failure> {
    let line = Line::new(["job", "due", "--dry-run"]);
    let answer: Answer = service.program.document(&line, &[1]).await?;
    Ok(answer.due.into_iter().map(|due| due.job).collect())
}

fn begin(service: &Service, jobs: &BTreeSet<String>, begun: &mut HashMap<String, Instant>) {
    begun.retain(|_, at| at.elapsed() < PAUSE);
    for job in jobs {
        let running = service.runs.newest_first();
        let running = running.iter().map(|run| run.record());
        let is_of_schedule =
            |record: &crate::runs::Record| record.outcome.is_none() && record.trigger == "schedule";
        if running.filter(is_of_schedule).count() >= AT_ONCE_MAX {
            return;
        }
        if begun.contains_key(job) || service.runs.running_job(job).is_some() {
            continue;
        }
        begun.insert(job.clone(), Instant::now());
        let wanted = crate::api::jobs::due(job);
        if let Err(problem) = service.runs.start(wanted) {
            tracing::error!("cannot run {job}, which is due: {}", problem.detail);
        }
    }
}
