//! Runs of the program: what it is told, and what it answers.
//!
//! Whatever came in a request stands behind `--`, or in an argument that begins with `--name=`, so that nothing can be taken
//! for an option. Secrets go by standard input, by the environment, or as the name of a file that nobody else reads.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::problem::Problem;

/// The most bytes of one document.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
/// The most bytes of what a run says for people, of which the end is kept.
const COMPLAINT_BYTES_MAX: usize = 64 << 10;
/// The most bytes of an argument: Linux allows 128 KiB with the NUL at its end.
const ARGUMENT_BYTES_MAX: usize = (128 << 10) - 1;
/// How many questions are put to the program at a time.
const AT_ONCE_MAX: usize = 16;
/// And how many of one user's.
const USERS_AT_ONCE_MAX: usize = 4;
/// The longest time that a document is waited for.
const DOCUMENT_TIME_MAX: Duration = Duration::from_secs(300);
/// What the program answers where there is no repository.
pub const NO_REPOSITORY: u8 = 10;
/// What it answers where a job is being run already.
pub const BUSY: u8 = 11;
/// What it answers to a wrong password.
pub const WRONG_SECRET: u8 = 12;

/// The program.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What stands before every command.
    pub globals: Vec<OsString>,
    /// Who asks waits for one of these, so that many questions do not take the whole machine; runs do not.
    places: Arc<Semaphore>,
    /// All of the environment that it finds; none for that of the service.
    environment: Option<Arc<[(OsString, OsString)]>>,
}

/// One command of the program; it has secrets in it, so nothing prints it.
#[derive(Clone, Default)]
pub struct Line {
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What it reads from standard input: secrets, one a line.
    pub input: Zeroizing<Vec<u8>>,
    /// Variables that it finds: secrets.
    pub variables: Vec<(&'static str, Zeroizing<String>)>,
    /// Whether it prints what it makes itself, and no JSON.
    pub is_plain: bool,
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its exit code; none if a signal ended it, or it was never begun.
    pub code: Option<u8>,
    /// Why, in the program's own words.
    pub message: String,
}

/// A page of a list.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// What is on it.
    pub items: Vec<Value>,
    /// Whether there is more.
    pub more: bool,
    /// The last message of the command, if its end was reached.
    pub summary: Option<Value>,
}

impl Line {
    /// Begins a command.
    pub fn new<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Adds `--name`.
    pub fn flag(&mut self, name: &str, is_set: bool) -> &mut Self {
        if is_set {
            self.arguments.push(format!("--{name}").into());
        }
        self
    }

    /// Adds `--name=value`, which no value turns into anything else.
    pub fn option(&mut self, name: &str, value: &str) -> &mut Self {
        self.arguments.push(format!("--{name}={value}").into());
        self
    }

    /// Adds `--name=value`, if there is a value.
    pub fn maybe(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.option(name, value);
        }
        self
    }

    /// Adds `--name=value` for each value.
    pub fn each(&mut self, name: &str, values: &[String]) -> &mut Self {
        for value in values {
            self.option(name, value);
        }
        self
    }

    /// Adds what stands behind `--`; nothing may be added afterwards.
    pub fn operands<A: Into<OsString>>(
        &mut self,
        operands: impl IntoIterator<Item = A>,
    ) -> &mut Self {
        self.arguments.push("--".into());
        self.arguments.extend(operands.into_iter().map(Into::into));
        self
    }

    /// Says why no process can be given this, if none can.
    pub fn mistake(&self) -> Option<&'static str> {
        let mut arguments = self.arguments.iter().map(|argument| argument.as_bytes());
        arguments.find_map(|argument| match () {
            () if argument.contains(&0) => Some("there is a NUL in it"),
            () if argument.len() > ARGUMENT_BYTES_MAX => {
                Some("a part of it is longer than 128 KiB")
            }
            () => None,
        })
    }
}

impl Program {
    /// Takes where it is, and what stands before every command.
    pub fn new(path: PathBuf, globals: Vec<OsString>) -> Self {
        Self {
            path,
            globals,
            places: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            environment: None,
        }
    }

    /// Gives it an environment of its own, and a share of the machine that leaves some to others.
    #[must_use]
    pub fn within(self, environment: Vec<(OsString, OsString)>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(USERS_AT_ONCE_MAX)),
            environment: Some(environment.into()),
            ..self
        }
    }

    /// Waits until a question may be asked.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let place = self.places.acquire().await;
        place.map_err(|error| Failure {
            code: None,
            message: format!("cannot run the program: {error}"),
        })
    }

    /// Prepares a process, which is the head of a group of its own: what a terminal sends to the service does not reach it.
    pub fn command(&self, line: &Line) -> Command {
        let mut command = Command::new(&self.path);
        let globals = self.globals.iter();
        let globals = globals.filter(|global| !line.is_plain || *global != "--json");
        command.args(globals).args(&line.arguments);
        if let Some(environment) = &self.environment {
            let environment = environment.iter();
            command.env_clear();
            command.envs(environment.map(|(name, value)| (name, value)));
        }
        for (name, value) in &line.variables {
            command.env(name, value.as_str());
        }
        command.stdin(match line.input.is_empty() {
            true => Stdio::null(),
            false => Stdio::piped(),
        });
        command.process_group(0);
        command
    }

    /// Runs a command to its end, and gives what it printed as JSON. Of its exit codes 0 is good, and so are these.
    ///
    /// # Errors
    /// With what the program says.
    pub async fn document<T: DeserializeOwned>(
        &self,
        line: &Line,
        good: &[u8],
    ) -> Result<T, Failure> {
        let _place = self.place().await?;
        let mut running = self.begin(line)?;
        let text = running.all();
        let text = match tokio::time::timeout(DOCUMENT_TIME_MAX, text).await {
            Ok(text) => text,
            Err(_) => return Err(too_slow()),
        };
        let text = text.map_err(|error| Failure::of_system("read what it printed", &error))?;
        running.end(good).await?;
        serde_json::from_slice(&text).map_err(|error| Failure {
            code: None,
            message: format!("the program printed no such document: {error}"),
        })
    }

    /// Runs a command that prints nothing of interest.
    ///
    /// # Errors
    /// With what the program says.
    pub async fn done(&self, line: &Line) -> Result<(), Failure> {
        let _place = self.place().await?;
        let mut running = self.begin(line)?;
        match tokio::time::timeout(DOCUMENT_TIME_MAX, running.all()).await {
            Ok(_) => running.end(&[]).await,
            Err(_) => Err(too_slow()),
        }
    }

    /// Runs a command that prints a list, an element a line, until a page of it was seen.
    ///
    /// # Errors
    /// With what the program says.
    pub async fn page(
        &self,
        line: &Line,
        skip: u64,
        limit: usize,
        good: &[u8],
    ) -> Result<Page, Failure> {
        let _place = self.place().await?;
        let mut running = self.begin(line)?;
        let read = read_page(&mut running.out, skip, limit);
        let page = match tokio::time::timeout(DOCUMENT_TIME_MAX, read).await {
            Ok(page) => page,
            Err(_) => return Err(too_slow()),
        };
        let page = page.map_err(|error| Failure::of_system("read what it printed", &error))?;
        // What is not wanted any more is ended with its reader.
        if !page.more {
            running.end(good).await?;
        }
        Ok(page)
    }

    /// Begins a command whose output is read as it comes.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn begin(&self, line: &Line) -> Result<Running, Failure> {
        let mut running = self.begin_to_feed(line)?;
        feed(&mut running.child, line);
        Ok(running)
    }

    /// The same, but what it reads is up to the caller.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn begin_to_feed(&self, line: &Line) -> Result<Running, Failure> {
        if let Some(why) = line.mistake() {
            return Err(Failure {
                code: Some(1),
                message: format!("this cannot be asked for: {why}"),
            });
        }
        let mut command = self.command(line);
        // Closed at once by whoever has nothing to say.
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let tried = format!("run {}", self.path.display());
        let mut child = command
            .spawn()
            .map_err(|error| Failure::of_system(&tried, &error))?;
        let lost = || Failure {
            code: None,
            message: "the program was begun without a pipe".to_owned(),
        };
        let out = child.stdout.take().ok_or_else(lost)?;
        let complaint = child.stderr.take().ok_or_else(lost)?;
        Ok(Running {
            out: BufReader::with_capacity(64 << 10, out),
            complaint: tokio::spawn(end_of(complaint)),
            child,
        })
    }
}

/// A command that is being run for one answer, and ends with it.
pub struct Running {
    /// What it prints.
    pub out: BufReader<tokio::process::ChildStdout>,
    /// The process.
    pub child: Child,
    complaint: JoinHandle<Vec<u8>>,
}

impl Running {
    /// Reads all that it prints.
    ///
    /// # Errors
    /// When that is more than a document has.
    pub async fn all(&mut self) -> std::io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut bounded = (&mut self.out).take(DOCUMENT_BYTES_MAX + 1);
        bounded.read_to_end(&mut text).await?;
        if text.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(std::io::Error::other(
                "it is more than 64 MiB; narrow it, or use the command line",
            ));
        }
        Ok(text)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// With what the program says, unless its exit code is 0 or one of these.
    pub async fn end(mut self, good: &[u8]) -> Result<(), Failure> {
        let ended = self.child.wait().await;
        let status = ended.map_err(|error| Failure::of_system("wait for its end", &error))?;
        let complaint = self.complaint.await.unwrap_or_default();
        let code = code_of(status);
        match code {
            Some(0) => Ok(()),
            Some(code) if good.contains(&code) => Ok(()),
            _ => Err(Failure::of_complaint(code, &complaint)),
        }
    }
}

impl Failure {
    /// Takes the reason from what a command wrote for people: with `--json` its last line is for programs.
    pub fn of_complaint(code: Option<u8>, complaint: &[u8]) -> Self {
        let text = String::from_utf8_lossy(complaint);
        let told = text.lines().rev().find_map(|line| {
            let told: Told = serde_json::from_str(line).ok()?;
            (told.message_type == "error").then_some(told)
        });
        let message = match told {
            Some(told) => told.message,
            None if text.trim().is_empty() => match code {
                Some(code) => format!("the program ended with {code} and did not say why"),
                None => "the program was killed".to_owned(),
            },
            None => text.trim().trim_start_matches("larder: ").to_owned(),
        };
        Self { code, message }
    }

    /// Says that the operating system did not do something.
    pub fn of_system(tried: &str, error: &std::io::Error) -> Self {
        Self {
            code: None,
            message: format!("cannot {tried}: {error}"),
        }
    }

    /// Answers with what was asked for and is not there, contradicts what is there, or failed.
    pub fn problem(self) -> Problem {
        let status = match self.code {
            Some(NO_REPOSITORY | BUSY | WRONG_SECRET) => StatusCode::CONFLICT,
            Some(1) if self.message.starts_with("there is no ") => StatusCode::NOT_FOUND,
            Some(1) if self.message.contains(" already") => StatusCode::CONFLICT,
            Some(1) => StatusCode::BAD_REQUEST,
            Some(3) => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem {
            code: self.code,
            ..Problem::new(status, self.message)
        }
    }
}

/// What the program says of an error, for programs.
#[derive(Deserialize)]
struct Told {
    message_type: String,
    message: String,
}

/// Gives the exit code; none if a signal ended the process.
pub fn code_of(status: ExitStatus) -> Option<u8> {
    status.code().and_then(|code| u8::try_from(code).ok())
}

/// Hands secrets over, and closes the pipe.
pub fn feed(child: &mut Child, line: &Line) {
    if let Some(mut pipe) = child.stdin.take() {
        let input = line.input.clone();
        tokio::spawn(async move {
            // Whoever does not read it says itself why.
            let _ = pipe.write_all(&input).await;
        });
    }
}

/// Reads one element a line, whether the list is an array or one message after the other.
async fn read_page(
    out: &mut (impl AsyncBufRead + Unpin),
    skip: u64,
    limit: usize,
) -> std::io::Result<Page> {
    let mut page = Page {
        items: Vec::new(),
        more: false,
        summary: None,
    };
    let mut left = skip;
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut *out).take(DOCUMENT_BYTES_MAX);
        if bounded.read_until(b'\n', &mut line).await? == 0 {
            return Ok(page);
        }
        let text = line.trim_ascii();
        let text = text.strip_suffix(b",").unwrap_or(text);
        if matches!(text, b"" | b"[" | b"]" | b"[]") {
            continue;
        }
        if left > 0 && !is_message(text, "summary") {
            left -= 1;
            continue;
        }
        let item: Value = serde_json::from_slice(text)?;
        match item.get("message_type").and_then(Value::as_str) {
            Some("summary") => page.summary = Some(item),
            // Neither is what was asked for.
            Some("status" | "warning") => {}
            _ if page.items.len() == limit => {
                page.more = true;
                return Ok(page);
            }
            _ => page.items.push(item),
        }
    }
}

/// Tells whether a line is a message of a type, which stands first in it.
fn is_message(line: &[u8], kind: &str) -> bool {
    line.starts_with(format!("{{\"message_type\":\"{kind}\"").as_bytes())
}

/// Reads what a run says to its end, and gives the last of it.
async fn end_of(mut complaint: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = [0_u8; 4096];
    while let Ok(read) = complaint.read(&mut piece).await {
        if read == 0 {
            break;
        }
        kept.extend(piece.iter().take(read));
        if kept.len() > 2 * COMPLAINT_BYTES_MAX {
            kept.drain(..kept.len() - COMPLAINT_BYTES_MAX);
        }
    }
    kept
}

fn too_slow() -> Failure {
    Failure {
        code: None,
        message: "it took longer than 5 minutes and was ended; narrow it, or use the command line"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn shell(script: &str) -> (Program, Line) {
        let program = Program::new("/bin/sh".into(), vec!["-c".into(), script.into()]);
        (program, Line::new(["sh"]))
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(work)
    }

    #[test]
    fn what_comes_in_a_request_is_never_an_option() {
        let mut line = Line::new(["restore"]);
        line.option("target", "--delete")
            .maybe("at", None)
            .flag("sparse", true)
            .flag("verify", false)
            .each("include", &["-x".to_owned()])
            .operands(["--all"]);
        let expected = [
            "restore",
            "--target=--delete",
            "--sparse",
            "--include=-x",
            "--",
            "--all",
        ];
        assert_eq!(line.arguments, expected);
    }

    #[test]
    fn a_document_is_read_and_a_failure_is_told_in_the_programs_words() {
        let (program, line) = shell("cat; echo \"{\\\"x\\\": \\\"$SECRET\\\"}\"");
        let line = Line {
            variables: vec![("SECRET", Zeroizing::new("s".to_owned()))],
            ..line
        };
        let found: Value = block_on(program.document(&line, &[])).unwrap();
        assert_eq!(found, json!({"x": "s"}));

        let told =
            r#"echo 'larder: no'; echo '{"message_type":"error","code":12,"message":"no key"}'"#;
        let (program, line) = shell(&format!("{{ {told}; }} >&2; echo '[1]'; exit 12"));
        let failed = block_on(program.document::<Value>(&line, &[])).unwrap_err();
        let expected = Failure {
            code: Some(12),
            message: "no key".to_owned(),
        };
        assert_eq!(failed, expected);
        assert_eq!(failed.problem().status, StatusCode::CONFLICT);
        let found: Value = block_on(program.document(&line, &[12])).unwrap();
        assert_eq!(found, json!([1]));

        let (program, line) = shell("kill -9 $$");
        let failed = block_on(program.document::<Value>(&line, &[])).unwrap_err();
        assert_eq!(failed.code, None);
        assert_eq!(failed.problem().status, StatusCode::INTERNAL_SERVER_ERROR);
        let (mut program, line) = shell("");
        program.path = "/does/not/exist".into();
        assert!(block_on(program.done(&line)).is_err());
    }

    #[test]
    fn what_no_process_can_be_given_is_refused() {
        let (program, mut line) = shell("true");
        line.operands(["a\0b"]);
        let failed = block_on(program.done(&line)).unwrap_err();
        assert_eq!(failed.problem().status, StatusCode::BAD_REQUEST);
        let (program, mut line) = shell("true");
        line.operands(["x".repeat(ARGUMENT_BYTES_MAX)]);
        block_on(program.done(&line)).unwrap();
        line.arguments
            .push("x".repeat(ARGUMENT_BYTES_MAX + 1).into());
        let failed = block_on(program.done(&line)).unwrap_err();
        assert_eq!(failed.problem().status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_question_waits_while_too_many_are_asked() {
        let (program, line) = shell("echo 1");
        block_on(async {
            let all = u32::try_from(AT_ONCE_MAX).unwrap();
            let taken = program.places.acquire_many(all).await.unwrap();
            let mut asked = std::pin::pin!(program.document::<Value>(&line, &[]));
            let is_waiting = futures_util::future::poll_immediate(&mut asked)
                .await
                .is_none();
            assert!(is_waiting && program.places.available_permits() == 0);
            drop(taken);
            assert_eq!(asked.await.unwrap(), json!(1));
            assert_eq!(program.places.available_permits(), AT_ONCE_MAX);
        });
    }

    #[test]
    fn secrets_are_read_from_standard_input() {
        let (program, mut line) = shell("read -r a; read -r b; echo \"[\\\"$b\\\", \\\"$a\\\"]\"");
        line.input = Zeroizing::new(b"one\ntwo\n".to_vec());
        let found: Value = block_on(program.document(&line, &[])).unwrap();
        assert_eq!(found, json!(["two", "one"]));
    }

    #[test]
    fn a_page_of_a_list_is_cut_out_of_it() {
        let cut = |text: &str, skip, limit| {
            let mut out = text.as_bytes();
            block_on(read_page(&mut out, skip, limit)).unwrap()
        };
        let array = "[\n{\"n\":1},\n{\"n\":2},\n{\"n\":3}\n]\n";
        let page = |numbers: &[i32], more| Page {
            items: numbers.iter().map(|n| json!({"n": n})).collect(),
            more,
            summary: None,
        };
        assert_eq!(cut(array, 0, 2), page(&[1, 2], true));
        assert_eq!(cut(array, 2, 2), page(&[3], false));
        assert_eq!(cut(array, 0, 3), page(&[1, 2, 3], false));
        assert_eq!(cut(array, 9, 3), page(&[], false));
        assert_eq!(cut("[]\n", 0, 3), page(&[], false));
        let messages =
            "{\"message_type\":\"change\",\"n\":1}\n{\"message_type\":\"summary\",\"added\":1}\n";
        let found = cut(messages, 1, 5);
        assert_eq!(found.items, Vec::<Value>::new());
        assert_eq!(found.summary.unwrap()["added"], 1);
    }

    #[test]
    fn an_endless_list_is_ended_with_its_page() {
        let (program, line) = shell("echo '['; while echo '{\"n\":1},'; do :; done");
        let found = block_on(program.page(&line, 1, 2, &[])).unwrap();
        assert!(found.items.len() == 2 && found.more);
    }
}
