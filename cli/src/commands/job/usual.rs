//! What of a backup is far from what was usual for its job: pure.

use jiff::Timestamp;
use larder_engine::status::{self, Figures, USUAL_SNAPSHOTS};
use larder_jobs::history::{self, Kind, Outcome, Run};

use crate::commands::status::remark;

/// Runs of a job, of all kinds, among which those are looked for that tell what is usual.
pub const RUNS: u32 = 100;

/// Says what of a backup is far from what it was in those before, if anything is.
///
/// `before` are runs of the same job, the newest first.
#[must_use]
pub fn unusual(
    counted: &history::Figures,
    started: Timestamp,
    ended: Timestamp,
    before: &[Run],
) -> Option<String> {
    let made = before.iter().filter(|run| {
        let is_made = matches!(run.outcome, Some(Outcome::Success | Outcome::Incomplete));
        run.kind == Kind::Backup && is_made
    });
    let before = made.filter_map(|run| figures(&run.figures, run.started, run.ended?));
    let before: Vec<Figures> = before.take(USUAL_SNAPSHOTS).collect();
    let now = figures(counted, started, ended)?;
    let found = status::unusual(now, &before);
    let words: Vec<String> = found.iter().map(remark).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn figures(counted: &history::Figures, started: Timestamp, ended: Timestamp) -> Option<Figures> {
    let seconds = ended.duration_since(started).as_secs();
    Some(Figures {
        bytes: counted.bytes?,
        files: counted.files?,
        seconds: u64::try_from(seconds).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use larder_jobs::history::Trigger;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn counted(mib: u64) -> history::Figures {
        history::Figures {
            files: Some(10),
            bytes: Some(mib * MIB),
            ..history::Figures::default()
        }
    }

    fn run(kind: Kind, outcome: Outcome, mib: u64) -> Run {
        Run {
            id: 1,
            job: "nightly".to_owned(),
            kind,
            trigger: Trigger::Schedule,
            slot: None,
            started: Timestamp::from_second(1000).unwrap(),
            ended: Some(Timestamp::from_second(1100).unwrap()),
            outcome: Some(outcome),
            exit_code: Some(0),
            snapshot: None,
            figures: counted(mib),
            error: None,
        }
    }

    fn told(mib: u64, seconds: i64, before: &[Run]) -> Option<String> {
        let at = |second| Timestamp::from_second(second).unwrap();
        unusual(&counted(mib), at(5000), at(5000 + seconds), before)
    }

    #[test]
    fn a_backup_is_compared_with_those_that_came_out_well() {
        let good = || run(Kind::Backup, Outcome::Success, 100);
        let before = [good(), good(), run(Kind::Backup, Outcome::Incomplete, 100)];
        assert_eq!(told(100, 100, &before), None);
        let words = told(1, 2000, &before).unwrap();
        assert!(words.contains("usually 100"), "{words}");
        assert!(words.contains("; took "), "{words}");
        // What failed, and what is no backup, tells nothing of backups.
        let others = [
            good(),
            good(),
            run(Kind::Backup, Outcome::Failure, 100),
            run(Kind::Forget, Outcome::Success, 100),
        ];
        assert_eq!(told(1, 2000, &others), None);
    }
}
