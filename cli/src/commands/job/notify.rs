//! Who is told of runs: URLs that are called, a webhook, a command. None of them keeps anything from being run.

use std::time::Duration;

use jiff::Timestamp;
use larder_engine::hooks;
use larder_engine::storage::notice;
use larder_jobs::history::{Kind, Outcome};
use serde::Serialize;

use super::run::Step;
use crate::jobs::Job;
use crate::person;
use crate::settings::process_env;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the command may take.
const COMMAND: Duration = Duration::from_secs(60);
/// How often a URL is called before that is given up.
const ATTEMPTS: usize = 2;

/// Tells of the runs of one job.
pub struct Notifier<'a> {
    /// The job's name.
    pub name: &'a str,
    /// Whom it names.
    pub job: &'a Job,
}

/// What is told: the body of the webhook.
#[derive(Debug, Serialize)]
struct Message<'a> {
    event: &'static str,
    job: &'a str,
    host: &'a str,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Timestamp>,
    message: &'a str,
}

impl Notifier<'_> {
    /// A backup begins.
    pub fn begun(&self) {
        self.ping("ping-start", &self.job.settings.ping_start, None);
    }

    /// A run ended; `before` is how the one before it did.
    pub fn ended(&self, step: &Step, before: Option<Outcome>) {
        let is_good = matches!(step.outcome, Outcome::Success | Outcome::Incomplete);
        let settings = &self.job.settings;
        if step.kind == Kind::Backup {
            match is_good {
                true => self.ping("ping-success", &settings.ping_success, None),
                false => self.ping(
                    "ping-failure",
                    &settings.ping_failure,
                    step.error.as_deref(),
                ),
            }
        }
        let (event, message) = match (is_good, is_bad(before)) {
            // Whoever asked a run to stop knows of it.
            (false, _) if step.outcome == Outcome::Interrupted => return,
            (false, _) => ("failure", step.error.clone().unwrap_or_default()),
            (true, true) => ("recovery", "it works again".to_owned()),
            (true, false) => return,
        };
        self.tell(Message {
            outcome: Some(step.outcome),
            exit_code: Some(step.exit_code),
            snapshot: step.snapshot.as_deref(),
            started: Some(step.started),
            ended: Some(step.ended),
            ..self.message(event, step.kind, &message)
        });
    }

    /// A run was missed.
    pub fn missed(&self, kind: Kind, due: Timestamp, is_made_up_for: bool) {
        let then = match is_made_up_for {
            true => "it is made up for now",
            false => "it is not made up for",
        };
        let message = format!("the run that was due at {due} was missed; {then}");
        self.tell(self.message("missed", kind, &message));
    }

    /// A run died.
    pub fn died(&self, kind: Kind) {
        let message =
            "the last run died: it was killed, or the machine went down; it is begun again now";
        self.tell(Message {
            outcome: Some(Outcome::Died),
            ..self.message("failure", kind, message)
        });
    }

    fn message<'a>(&'a self, event: &'static str, kind: Kind, message: &'a str) -> Message<'a> {
        Message {
            event,
            job: self.name,
            host: "",
            kind,
            outcome: None,
            exit_code: None,
            snapshot: None,
            started: None,
            ended: None,
            message,
        }
    }

    fn tell(&self, message: Message<'_>) {
        let host = self.job.backup.host.as_deref();
        let host = person::host_name(None, host, &process_env).unwrap_or_default();
        let message = Message {
            host: &host,
            ..message
        };
        if let Some(url) = &self.job.settings.webhook {
            let body = serde_json::to_string(&message).unwrap_or_default();
            self.call("webhook", url, Some(("application/json", body)));
        }
        if let Some(command) = &self.job.settings.notify_command {
            self.run(command, &message);
        }
    }

    fn run(&self, command: &str, message: &Message<'_>) {
        let optional = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let variables = [
            ("LARDER_EVENT", message.event.to_owned()),
            ("LARDER_JOB", message.job.to_owned()),
            ("LARDER_HOST", message.host.to_owned()),
            ("LARDER_KIND", message.kind.word().to_owned()),
            (
                "LARDER_OUTCOME",
                optional(message.outcome.map(Outcome::word)),
            ),
            (
                "LARDER_EXIT_CODE",
                message
                    .exit_code
                    .map_or_else(String::new, |code| code.to_string()),
            ),
            ("LARDER_SNAPSHOT", optional(message.snapshot)),
            // No variable can hold a NUL.
            ("LARDER_MESSAGE", message.message.replace('\0', " ")),
        ];
        match hooks::run("notify-command", command, &variables, COMMAND) {
            Ok(report) if report.succeeded => {}
            Ok(report) => self.warn(&report.failure()),
            Err(error) => self.warn(&error.to_string()),
        }
    }

    fn ping(&self, key: &str, url: &Option<String>, text: Option<&str>) {
        if let Some(url) = url {
            let body = text.map(|text| ("text/plain; charset=utf-8", text.to_owned()));
            self.call(key, url, body);
        }
    }

    fn call(&self, key: &str, url: &str, body: Option<(&'static str, String)>) {
        let mut answer = Ok(());
        for _ in 0..ATTEMPTS {
            answer = notice::send(url, body.clone(), ANSWER);
            if answer.is_ok() {
                return;
            }
        }
        if let Err(why) = answer {
            self.warn(&format!("{key}: {why}"));
        }
    }

    fn warn(&self, why: &str) {
        eprintln!("larder: warning: {}: {why}", self.name);
    }
}

fn is_bad(outcome: Option<Outcome>) -> bool {
    matches!(
        outcome,
        Some(Outcome::Failure | Outcome::TimeLimit | Outcome::Died)
    )
}
