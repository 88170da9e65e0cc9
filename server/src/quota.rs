//! Quotas of users: how many locations and jobs there may be, and how many bytes in their repositories.
//!
//! Bytes are looked at before a backup begins, and only then: one that is under way goes beyond, and what a user stores by other
//! means than this service is seen the next time that the repository is measured, if it lies in it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::service as all;
use crate::child::NO_REPOSITORY;
use crate::problem::Problem;
use crate::service::{Repository, Service};

/// Refuses one more location than there may be.
///
/// # Errors
/// With how many there are, and may be.
pub async fn location(service: &Service) -> Result<(), Problem> {
    match service.limits().locations_max {
        None => Ok(()),
        Some(max) => counted(all::locations(service).await?.len(), max, "locations"),
    }
}

/// Refuses one more job than there may be.
///
/// # Errors
/// With how many there are, and may be.
pub async fn job(service: &Service) -> Result<(), Problem> {
    match service.limits().jobs_max {
        None => Ok(()),
        Some(max) => counted(all::jobs(service).await?.len(), max, "jobs"),
    }
}

/// Measures the repository at a location, and refuses to write into it if all of the user's have as many bytes as they may.
///
/// # Errors
/// With how many there are, and may be.
pub async fn bytes(
    service: &Service,
    location: &str,
    repository: &Repository,
) -> Result<(), Problem> {
    let Some(max) = service.limits().bytes_max else {
        return Ok(());
    };
    let named = all::locations(service).await?;
    let named = named.iter().filter_map(|one| one.get("name")?.as_str());
    let named: BTreeSet<&str> = named.collect();
    let found = measure(service, location, repository).await;
    let used = service.measured.change(|measured| {
        measured.retain(|name, _| named.contains(name.as_str()));
        // What cannot be measured now counts as it did, and what never was does not count as nothing.
        match found {
            Some(found) => {
                measured.insert(location.to_owned(), found);
            }
            None if measured.contains_key(location) => {}
            None => {
                return Err(Problem::conflict(format!(
                    "the repository at {location} cannot be measured, and there is a limit for its size; try the location out"
                )));
            }
        }
        Ok(sum(measured.values()))
    })?;
    match used < max {
        true => Ok(()),
        false => Err(Problem::forbidden(format!(
            "your repositories have {used} bytes, as they were last measured, and may have {max}; forget snapshots and prune, or ask \
             the administrator for more"
        ))),
    }
}

/// Gives the bytes of a user's repositories, as they were last measured.
pub fn used(service: &Service) -> u64 {
    sum(service.measured.read().values())
}

fn sum<'a>(all: impl Iterator<Item = &'a u64>) -> u64 {
    all.fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

/// Counts what a repository holds; none if that cannot be told now.
async fn measure(service: &Service, location: &str, repository: &Repository) -> Option<u64> {
    let mut line = repository.line(["stats"]);
    line.flag("no-progress", true);
    match service.program.document::<Value>(&line, &[]).await {
        Ok(stats) => stats.get("stored_bytes").and_then(Value::as_u64),
        Err(failure) if failure.code == Some(NO_REPOSITORY) => Some(0),
        Err(failure) => {
            tracing::warn!("cannot measure {location}: {}", failure.message);
            None
        }
    }
}

fn counted(there: usize, max: u64, what: &str) -> Result<(), Problem> {
    match (there as u64) < max {
        true => Ok(()),
        false => Err(Problem::forbidden(format!(
            "you have {there} {what}, and may have {max}; remove one, or ask the administrator for more"
        ))),
    }
}
