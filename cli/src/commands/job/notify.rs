//! Who is told of runs: URLs that are called, a webhook, a command, people by mail. None of them keeps anything from being run.

use std::time::Duration;

use jiff::Timestamp;
use larder_engine::hooks;
use larder_engine::storage::mail::{self, Mail};
use larder_engine::storage::notice;
use larder_jobs::history::{Kind, Outcome};
use serde::Serialize;

use super::run::Step;
use crate::jobs::{Job, MailSettings};
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

    /// A backup was made, and is far from what was usual.
    pub fn unusual(&self, step: &Step, words: &str) {
        let message = format!("this backup is far from those before: {words}");
        self.tell(Message {
            outcome: Some(step.outcome),
            exit_code: Some(step.exit_code),
            snapshot: step.snapshot.as_deref(),
            started: Some(step.started),
            ended: Some(step.ended),
            ..self.message("unusual", step.kind, &message)
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
        if let Some(settings) = &self.job.settings.mail {
            self.mail(settings, &message);
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

    /// Sends each a mail of their own: an address that the server refuses keeps it from nobody else.
    fn mail(&self, settings: &MailSettings, message: &Message<'_>) {
        let server = match settings.server() {
            Ok(server) => server,
            Err(mistake) => return self.warn(&mistake.why),
        };
        let (subject, text) = message.as_mail();
        for to in &settings.to {
            let mail = Mail {
                from: &settings.from,
                to: std::slice::from_ref(to),
                subject: &subject,
                text: &text,
            };
            if let Err(why) = mail::send(&server, &mail, ANSWER) {
                self.warn(&format!("mail to {to}: {why}"));
            }
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

impl Message<'_> {
    /// Gives subject and text of a mail that says the same.
    fn as_mail(&self) -> (String, String) {
        let happened = match self.event {
            "recovery" => "works again",
            "missed" => "was missed",
            "unusual" => "is unusual",
            _ => "failed",
        };
        let subject = format!("larder: {}: {} {happened}", self.job, self.kind.word());
        let time = |time: Timestamp| time.to_string();
        let facts = [
            ("job", Some(self.job.to_owned())),
            ("host", Some(self.host.to_owned())),
            (
                "outcome",
                self.outcome.map(|outcome| outcome.word().to_owned()),
            ),
            ("exit code", self.exit_code.map(|code| code.to_string())),
            ("started", self.started.map(time)),
            ("ended", self.ended.map(time)),
            ("snapshot", self.snapshot.map(str::to_owned)),
        ];
        let facts = facts.into_iter();
        let lines = facts.filter_map(|(name, fact)| Some(format!("{name}: {}\n", fact?)));
        let text = format!("{}\n\n{}", self.message, lines.collect::<String>());
        (subject, text)
    }
}

fn is_bad(outcome: Option<Outcome>) -> bool {
    matches!(
        outcome,
        Some(Outcome::Failure | Outcome::TimeLimit | Outcome::Died)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_mail_says_what_happened_first_and_only_what_is_known() {
        let message = Message {
            event: "failure",
            job: "nightly",
            host: "desk",
            kind: Kind::Backup,
            outcome: Some(Outcome::Failure),
            exit_code: Some(10),
            snapshot: None,
            started: Some(Timestamp::from_second(0).unwrap()),
            ended: None,
            message: "there is no repository",
        };
        let (subject, text) = message.as_mail();
        assert_eq!(subject, "larder: nightly: backup failed");
        assert_eq!(
            text,
            "there is no repository\n\njob: nightly\nhost: desk\noutcome: failure\nexit code: 10\nstarted: 1970-01-01T00:00:00Z\n"
        );
    }
}
