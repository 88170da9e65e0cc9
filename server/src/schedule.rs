//! Running what is due: the program itself says what that is, by the same pure planner as `larder job due`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;

use crate::child::{Failure, Line};
use crate::owners::Owners;
use crate::service::Service;

/// How often it is asked what is due.
const TICK: Duration = Duration::from_secs(30);
/// How many jobs of one owner the schedule runs at a time.
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
pub async fn run(owners: Arc<Owners>) {
    let mut known: HashMap<Option<String>, Arc<Mutex<Known>>> = HashMap::new();
    // Given up with this.
    let mut looks = JoinSet::new();
    loop {
        while looks.try_join_next().is_some() {}
        let all = owners.all();
        known.retain(|user, _| all.iter().any(|service| service.user == *user));
        for service in all.into_iter().filter(|service| has_jobs(service)) {
            let known = known.entry(service.user.clone()).or_default();
            // Whose storage does not answer keeps nobody else waiting, and is not looked at twice at a time.
            if let Ok(known) = Arc::clone(known).try_lock_owned() {
                looks.spawn(look(service, known));
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Begins what is due of one owner.
async fn look(service: Arc<Service>, mut known: OwnedMutexGuard<Known>) {
    match due(&service).await {
        Ok(jobs) => {
            known.complaint = None;
            begin(&service, &jobs, &mut known.begun).await;
        }
        // Told once, and again once it is another one.
        Err(failure) if known.complaint.as_ref() != Some(&failure) => {
            let user = service.user.as_deref().unwrap_or("the administrator");
            tracing::error!("cannot tell what is due of {user}: {}", failure.message);
            known.complaint = Some(failure);
        }
        Err(_) => {}
    }
}

/// What is remembered of an owner.
#[derive(Default)]
struct Known {
    begun: HashMap<String, Instant>,
    complaint: Option<Failure>,
}

/// Tells whether an owner can have a job at all: a user without a larder.toml costs nothing.
fn has_jobs(service: &Service) -> bool {
    let config = service.options.config.as_ref();
    service.user.is_none() || config.is_some_and(|config| config.is_file())
}

/// Asks which jobs have something due; one that has a mistake keeps no other from it.
async fn due(service: &Service) -> Result<BTreeSet<String>, Failure> {
    let line = Line::new(["job", "due", "--dry-run"]);
    let answer: Answer = service.program.document(&line, &[1]).await?;
    Ok(answer.due.into_iter().map(|due| due.job).collect())
}

async fn begin(service: &Service, jobs: &BTreeSet<String>, begun: &mut HashMap<String, Instant>) {
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
        let admitted = match service.user {
            None => Ok(()),
            Some(_) => match service.job(job).await {
                Ok(shown) => service.admit(&shown).await,
                Err(problem) => Err(problem),
            },
        };
        let started = admitted.and_then(|()| service.runs.start(crate::api::jobs::due(job)));
        if let Err(problem) = started {
            let user = service.user.as_deref();
            let whose = user.map_or(String::new(), |user| format!(" of {user}"));
            tracing::error!("cannot run {job}{whose}, which is due: {}", problem.detail);
        }
    }
}
