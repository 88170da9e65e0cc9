//! What is kept of a run.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::process::Process;

/// A run as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Its id, which begins with the time.
    pub id: String,
    /// What is run.
    pub kind: String,
    /// The job, if it is one's.
    pub job: Option<String>,
    /// The location that it works on.
    pub location: Option<String>,
    /// Why it was begun: `manual`, `schedule` or `portable`.
    pub trigger: String,
    /// The name of the token, or `schedule`.
    pub by: String,
    /// Whether it changes nothing.
    pub dry_run: bool,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it came out; none while it runs.
    pub outcome: Option<Outcome>,
    /// Its exit code; none if it is not known.
    pub exit_code: Option<u8>,
    /// What went wrong.
    pub error: Option<String>,
    /// The last message of the command, as docs/json.md has it for each.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub summary: Option<Value>,
}

/// A run as it is shown, with its progress.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Run")]
pub struct Shown {
    /// What is kept of it.
    #[serde(flatten)]
    pub record: Record,
    /// The last status of a long job, while it runs.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub progress: Option<Value>,
}

/// How a run came out.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All was done.
    Success,
    /// Something could not be read, or written.
    Incomplete,
    /// It failed, or damage was found.
    Failure,
    /// It was asked to stop.
    Interrupted,
    /// Its process died.
    Died,
}

/// A run as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// What is shown of it.
    #[serde(flatten)]
    pub record: Record,
    /// Its process, by which the next service finds it.
    pub process: Option<Process>,
    /// What it was asked for by, so that nobody begins it twice.
    pub key: Option<Key>,
}

/// An Idempotency-Key, and what came with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The id of the token that it came with.
    pub token: String,
    /// Itself.
    pub key: String,
    /// The hash of the request.
    pub request: String,
}

/// How a process ended, as far as that is known.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// Its exit code.
    pub code: Option<u8>,
    /// Whether a signal ended it.
    pub was_killed: bool,
    /// What it said last, and the exit code that it named with it.
    pub told: Option<(Option<u8>, String)>,
}

impl Outcome {
    /// Gives its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Incomplete => "incomplete",
            Self::Failure => "failure",
            Self::Interrupted => "interrupted",
            Self::Died => "died",
        }
    }
}

impl Record {
    /// Writes down how it came out.
    pub fn end(&mut self, ending: &Ending, summary: Option<Value>, now: Timestamp) {
        let told = ending.told.as_ref();
        let code = ending.code.or_else(|| told.and_then(|(code, _)| *code));
        let outcome = match code {
            Some(0) => Outcome::Success,
            Some(3) => Outcome::Incomplete,
            Some(130) => Outcome::Interrupted,
            Some(_) => Outcome::Failure,
            None if ending.was_killed => Outcome::Died,
            None => summary.as_ref().map_or(Outcome::Died, judged),
        };
        let is_bad = matches!(outcome, Outcome::Failure | Outcome::Died);
        // What is said for people alone may be a warning.
        let said = told.filter(|(code, _)| code.is_some() || is_bad);
        self.error = match outcome {
            Outcome::Success => None,
            _ => said
                .map(|(_, message)| message.clone())
                .or_else(|| summary.as_ref().and_then(first_error)),
        };
        if self.error.is_none() && outcome == Outcome::Died {
            let why = "the process was killed, or the machine went down";
            self.error = Some(why.to_owned());
        }
        self.ended = Some(now);
        self.outcome = Some(outcome);
        self.exit_code = code;
        self.summary = summary;
    }
}

/// Tells from what a run says at its end how it came out, where nobody saw its exit code.
fn judged(summary: &Value) -> Outcome {
    let count = |key: &str| summary.get(key).and_then(Value::as_u64).unwrap_or(0);
    if let Some(runs) = summary.get("runs").and_then(Value::as_array) {
        let words = runs.iter().filter_map(|run| run.get("outcome")?.as_str());
        let worst = words.map(|word| match word {
            "success" => Outcome::Success,
            "incomplete" => Outcome::Incomplete,
            "interrupted" => Outcome::Interrupted,
            _ => Outcome::Failure,
        });
        return worst.max().unwrap_or(Outcome::Success);
    }
    match () {
        () if count("loss") + count("harmless") + count("lost") > 0 => Outcome::Failure,
        () if summary.get("works") == Some(&Value::Bool(false)) => Outcome::Failure,
        () if count("failed") + count("issue_count") > 0 => Outcome::Incomplete,
        () => Outcome::Success,
    }
}

/// Gives the first error that a run of jobs tells.
fn first_error(summary: &Value) -> Option<String> {
    let runs = summary.get("runs")?.as_array()?;
    let error = runs.iter().find_map(|run| run.get("error")?.as_str());
    error.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        Record {
            id: "x".to_owned(),
            kind: "job".to_owned(),
            job: Some("nightly".to_owned()),
            location: None,
            trigger: "manual".to_owned(),
            by: "me".to_owned(),
            dry_run: false,
            started: Timestamp::UNIX_EPOCH,
            ended: None,
            outcome: None,
            exit_code: None,
            error: None,
            summary: None,
        }
    }

    fn ended(ending: &Ending, summary: Option<Value>) -> (Outcome, Option<String>) {
        let mut record = record();
        record.end(ending, summary, Timestamp::UNIX_EPOCH);
        (record.outcome.unwrap(), record.error)
    }

    #[test]
    fn the_exit_code_decides_where_it_is_known() {
        let by_code = |code| {
            let ending = Ending {
                code: Some(code),
                ..Ending::default()
            };
            ended(&ending, None).0
        };
        assert_eq!(by_code(0), Outcome::Success);
        assert_eq!(by_code(3), Outcome::Incomplete);
        assert_eq!(by_code(130), Outcome::Interrupted);
        assert_eq!(by_code(4), Outcome::Failure);
        let killed = Ending {
            was_killed: true,
            ..Ending::default()
        };
        assert_eq!(ended(&killed, Some(json!({}))).0, Outcome::Died);
    }

    #[test]
    fn what_nobody_waited_for_is_judged_by_what_it_said() {
        let unknown = Ending::default();
        assert_eq!(ended(&unknown, None).0, Outcome::Died);
        assert_eq!(
            ended(&unknown, Some(json!({"files": 1}))).0,
            Outcome::Success
        );
        assert_eq!(
            ended(&unknown, Some(json!({"loss": 1}))).0,
            Outcome::Failure
        );
        assert_eq!(
            ended(&unknown, Some(json!({"failed": 1}))).0,
            Outcome::Incomplete
        );
        let runs = json!({"runs": [{"outcome": "success", "error": null}, {"outcome": "time-limit", "error": "late"}]});
        let (outcome, error) = ended(&unknown, Some(runs));
        assert_eq!(
            (outcome, error.as_deref()),
            (Outcome::Failure, Some("late"))
        );
        let told = Ending {
            told: Some((Some(130), "stopped".to_owned())),
            ..Ending::default()
        };
        let (outcome, error) = ended(&told, None);
        assert_eq!(
            (outcome, error.as_deref()),
            (Outcome::Interrupted, Some("stopped"))
        );
        // A warning is no reason for an end that was not bad.
        let mut warned = Ending {
            code: Some(3),
            told: Some((None, "warning".to_owned())),
            ..Ending::default()
        };
        assert_eq!(ended(&warned, None), (Outcome::Incomplete, None));
        warned.code = Some(1);
        assert_eq!(ended(&warned, None).1.as_deref(), Some("warning"));
    }

    #[test]
    fn a_run_is_kept_and_read_again() {
        let kept = Kept {
            record: record(),
            process: None,
            key: Some(Key {
                token: "t".to_owned(),
                key: "k".to_owned(),
                request: "r".to_owned(),
            }),
        };
        let text = serde_json::to_string(&kept).unwrap();
        let again: Kept = serde_json::from_str(&text).unwrap();
        assert_eq!((again.record, again.key), (kept.record, kept.key));
    }
}
