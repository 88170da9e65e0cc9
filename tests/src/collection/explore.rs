//! Runs an exploration and says what it found.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::{Setting, State, Step};

/// What an exploration found.
#[derive(Debug)]
pub struct Outcome {
    /// Different states that were reached.
    pub states: usize,
    /// Steps of the longest way that was followed.
    pub depth: usize,
    /// Promises that were broken, with the steps to it.
    pub broken: Vec<(&'static str, String)>,
    /// The useful things that happened somewhere.
    pub happened: Vec<&'static str>,
    /// How long it took.
    pub seconds: f32,
}

/// Explores all states that a setting can reach, or until a promise is broken.
///
/// The search is in breadth, so that a way to a loss is short. If no promise is broken, every state
/// was looked at; two states are taken for one if their 64-bit hashes are equal.
#[must_use]
pub fn explore(setting: &Setting, threads: usize) -> Outcome {
    run(setting.clone().checker().threads(threads), false)
}

/// As [`explore`], in depth: it needs a third of the memory, and ways are long.
#[must_use]
pub fn explore_in_depth(setting: &Setting, threads: usize) -> Outcome {
    run(setting.clone().checker().threads(threads), true)
}

fn run(checker: stateright::CheckerBuilder<Setting>, in_depth: bool) -> Outcome {
    let start = Instant::now();
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    if in_depth {
        outcome(&checker.spawn_dfs().join(), start)
    } else {
        outcome(&checker.spawn_bfs().join(), start)
    }
}

fn outcome(checker: &impl Checker<Setting>, start: Instant) -> Outcome {
    let mut found = checker.discoveries();
    let properties = checker.model().properties();
    let mut broken = Vec::new();
    let mut happened = Vec::new();
    for property in properties {
        let Some(path) = found.remove(property.name) else {
            continue;
        };
        if property.expectation.discovery_is_failure() {
            let steps: Vec<(State, Option<Step>)> = path.into_vec();
            let steps = steps.iter().filter_map(|(_, step)| step.as_ref());
            let steps: Vec<String> = steps.map(|step| format!("{step:?}")).collect();
            broken.push((property.name, steps.join("; ")));
        } else {
            happened.push(property.name);
        }
    }
    Outcome {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        broken,
        happened,
        seconds: start.elapsed().as_secs_f32(),
    }
}
