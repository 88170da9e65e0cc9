//! The service from the outside: the HTTP API over the real program, its tokens, and its end in the middle of things.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::described::{Came, Described};
use crate::program::{World, assert_same, noise, run};
use crate::source_text::root;

/// A service that ends with the value.
pub struct Server {
    child: Child,
    pub address: String,
    /// What it said when it began to listen.
    pub said: Value,
    /// How it describes its answers, against which each of them is held.
    described: Described,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether all of the body came.
    pub whole: bool,
}

impl Server {
    /// Starts the service of a world, on a port that is free.
    pub fn start(world: &World, flags: &[&str]) -> Self {
        let mut command = world.command();
        command
            .args(["--json", "serve", "--listen", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["message_type"], "listening", "{said}");
        let address = said["address"].as_str().unwrap().to_owned();
        let told = sent(&address, "GET", "/api/v1/openapi.json", &[], b"");
        Self {
            child,
            address,
            said,
            described: Described(told.expect(200)),
        }
    }

    pub fn token(&self) -> String {
        self.said["token"].as_str().unwrap().to_owned()
    }

    pub fn portable(&self) -> String {
        self.said["portable_token"].as_str().unwrap().to_owned()
    }

    fn send(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// Asks it to end, and gives its exit code.
    pub fn end(mut self) -> Option<i32> {
        self.send(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a request with these headers; what is answered has to be as the service describes it.
    #[track_caller]
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let answer = sent(&self.address, method, path, headers, body);
        if answer.whole {
            self.described.hold(&Came {
                asked: (method, path),
                status: answer.status,
                kind: answer.header("content-type").as_deref(),
                body: &answer.body,
            });
        }
        answer
    }
}

fn sent(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // An answer may come before all was read.
    let _ = stream.write_all(body);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    Answer::parse(&text)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    fn parse(text: &[u8]) -> Self {
        let end = text.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(text)));
        let head = String::from_utf8(text[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let rest = &text[end + 4..];
        let lower = head.to_lowercase();
        let (body, whole) = if lower.contains("transfer-encoding: chunked") {
            chunks(rest)
        } else {
            let length = lower.split("content-length: ").nth(1);
            let length = length.map(|rest| rest.lines().next().unwrap().trim().parse().unwrap());
            (
                rest.to_vec(),
                length.is_none_or(|length: usize| length == rest.len()),
            )
        };
        Self {
            status,
            head,
            body,
            whole,
        }
    }

    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{}\n{text}", self.head);
        assert!(self.whole, "cut off: {text}");
        if self.body.is_empty() {
            return Value::Null;
        }
        self.json()
    }

    fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().skip(1);
        let mut headers = lines.filter_map(|line| line.split_once(": "));
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_owned())
    }
}

/// Joins the chunks of a body; tells whether the last one came.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return (body, false);
        };
        let length = std::str::from_utf8(&rest[..end]).unwrap();
        let length = usize::from_str_radix(length.trim(), 16).unwrap();
        rest = &rest[end + 2..];
        if length == 0 {
            return (body, true);
        }
        if rest.len() < length + 2 {
            return (body, false);
        }
        body.extend(&rest[..length]);
        rest = &rest[length + 2..];
    }
}

/// A client with a token.
pub struct Client<'a> {
    pub server: &'a Server,
    pub token: String,
}

impl<'a> Client<'a> {
    pub fn new(server: &'a Server) -> Self {
        Self {
            server,
            token: server.token(),
        }
    }

    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("Authorization", bearer.as_str())];
        self.server.request(method, path, &headers, body)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.send("GET", path, b"").expect(200)
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value, status: u16) -> Value {
        self.send("POST", path, body.to_string().as_bytes())
            .expect(status)
    }

    /// Begins a run, and waits for its end.
    #[track_caller]
    pub fn done(&self, path: &str, body: &Value) -> Value {
        let run = self.post(path, body, 202);
        self.ended(run["id"].as_str().unwrap())
    }

    /// Waits for the end of a run, whose last event it is.
    #[track_caller]
    pub fn ended(&self, id: &str) -> Value {
        let events = self.events(id);
        let (name, record) = events.last().unwrap();
        assert_eq!(name, "end", "{events:?}");
        record.clone()
    }

    /// Follows a run to its end.
    #[track_caller]
    pub fn events(&self, id: &str) -> Vec<(String, Value)> {
        let answer = self.send("GET", &format!("/api/v1/runs/{id}/events"), b"");
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.whole, "the events were cut off");
        let text = String::from_utf8(answer.body).unwrap();
        let events = text
            .split("\n\n")
            .filter(|event| event.starts_with("event: "));
        let parsed = events.map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            let name = name.strip_prefix("event: ").unwrap();
            (name.to_owned(), serde_json::from_str(data).unwrap())
        });
        parsed.collect()
    }
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("never {what}");
}

pub fn encoded(path: &Path) -> String {
    let bytes = path.to_str().unwrap().bytes();
    bytes.map(|byte| format!("%{byte:02X}")).collect()
}

/// Makes a location with a repository, and a job of the world's source, all of it through the API.
fn with_job(world: &World, client: &Client<'_>) {
    let there = world.path("there");
    let location = json!({"name": "cellar", "url": there});
    client.post("/api/v1/locations", &location, 201);
    let password = json!({"password": "secret of the cellar"});
    client.post("/api/v1/locations/cellar/repository", &password, 201);
    let settings = json!({"location": "cellar", "sources": [world.source()]});
    let job = json!({"name": "nightly", "settings": settings});
    client.post("/api/v1/jobs", &job, 201);
}

#[test]
fn a_job_is_made_run_watched_browsed_and_comes_back() {
    let world = World::bare();
    world.write("letters/a.txt", "dear all");
    world.write("letters/b.bin", noise(1, 300_000));
    let server = Server::start(&world, &[]);
    let client = Client::new(&server);
    let about = client.get("/api/v1/service");
    assert_eq!(about["needs_setup"], true);
    with_job(&world, &client);
    assert_eq!(client.get("/api/v1/service")["needs_setup"], false);
    let locations = client.get("/api/v1/locations?search=CELL");
    assert_eq!(locations["items"][0]["has_password"], true);
    assert!(!locations.to_string().contains("secret of"));

    let validated = client.done("/api/v1/locations/cellar/validate", &json!({}));
    assert_eq!(
        (&validated["outcome"], &validated["summary"]["works"]),
        (&json!("success"), &json!(true))
    );
    let begun = client.post("/api/v1/jobs/nightly/run", &json!({}), 202);
    let id = begun["id"].as_str().unwrap();
    let events = client.events(id);
    assert_eq!(events[0].0, "run");
    let last = &events.last().unwrap().1;
    assert_eq!(
        (&last["outcome"], &last["by"]),
        (&json!("success"), &json!("first"))
    );
    assert!(
        events
            .iter()
            .any(|(name, line)| name == "line" && line["statistics"]["files"] == 2)
    );
    // What was seen live is in the log, and the log has pages.
    let log = client.get(&format!("/api/v1/runs/{id}/log?limit=1"));
    assert_eq!(log["items"].as_array().unwrap().len(), 1);
    assert!(log["next"].is_string(), "{log}");
    let history = client.get("/api/v1/jobs/nightly/history");
    assert_eq!(history["items"][0]["outcome"], "success");
    let health = client.get("/api/v1/health");
    assert_eq!(
        (&health["status"], &health["jobs"][0]["state"]),
        (&json!("ok"), &json!("ok"))
    );

    let here = "/api/v1/locations/cellar";
    let snapshots = client.get(&format!("{here}/snapshots"));
    let snapshot = snapshots["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        client.get(&format!("{here}/snapshots/latest"))["id"],
        snapshot.as_str()
    );
    let folder = encoded(&world.source().join("letters"));
    let listed = client.get(&format!(
        "{here}/snapshots/{snapshot}/entries?path={folder}&limit=1"
    ));
    assert!(
        listed["items"][0]["path"]
            .as_str()
            .unwrap()
            .ends_with("a.txt"),
        "{listed}"
    );
    let next = listed["next"].as_str().unwrap();
    let listed = client.get(&format!(
        "{here}/snapshots/{snapshot}/entries?path={folder}&limit=1&cursor={next}"
    ));
    assert!(
        listed["items"][0]["path"]
            .as_str()
            .unwrap()
            .ends_with("b.bin"),
        "{listed}"
    );
    assert!(listed["next"].is_null(), "{listed}");

    let file = encoded(&world.source().join("letters/b.bin"));
    let got = client.send(
        "GET",
        &format!("{here}/snapshots/latest/file?path={file}"),
        b"",
    );
    assert!(
        got.status == 200 && got.whole && got.body == noise(1, 300_000),
        "{}",
        got.head
    );
    assert!(got.header("content-disposition").unwrap().contains("b.bin"));
    let got = client.send(
        "GET",
        &format!("{here}/snapshots/latest/tar?path={folder}"),
        b"",
    );
    assert!(got.status == 200 && got.whole, "{}", got.head);
    let mut tar = tar::Archive::new(got.body.as_slice());
    assert_eq!(
        tar.entries()
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().header().entry_type().is_file())
            .count(),
        2
    );
    let missing = client.send(
        "GET",
        &format!("{here}/snapshots/latest/file?path=%2Fno"),
        b"",
    );
    assert_eq!(missing.status, 404);
    assert!(missing.json()["detail"].is_string());

    let target = world.path("restored");
    let restore = json!({"location": "cellar", "path": world.source(), "target": target});
    assert_eq!(
        client.done("/api/v1/restores", &restore)["outcome"],
        "success"
    );
    assert_same(&world.source(), &target);
    server_is_told_of(&client, &world);
    assert_eq!(server.end(), Some(0));
}

/// The second half: what changes, and what is worked on a repository.
fn server_is_told_of(client: &Client<'_>, world: &World) {
    let here = "/api/v1/locations/cellar";
    world.write("letters/a.txt", "dear both");
    client.done("/api/v1/jobs/nightly/run", &json!({}));
    let snapshots = client.get(&format!("{here}/snapshots"));
    let ids: Vec<&str> = snapshots["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    let [newest, oldest] = ids.as_slice() else {
        panic!("{ids:?}");
    };
    let diff = client.get(&format!("{here}/snapshots/{newest}/diff?from={oldest}"));
    assert_eq!(diff["summary"]["content_changed"], 1, "{diff}");
    let found = client.get(&format!("{here}/find?pattern=a.txt"));
    assert_eq!(found["items"].as_array().unwrap().len(), 2, "{found}");
    let path = encoded(&world.source().join("letters/a.txt"));
    let versions = client.get(&format!("{here}/history?path={path}"));
    assert_eq!(versions["items"].as_array().unwrap().len(), 2, "{versions}");
    assert_eq!(client.get(&format!("{here}/stats"))["snapshots"], 2);
    assert_eq!(
        client.get(&format!("{here}/status"))["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let checked = client.done(&format!("{here}/check"), &json!({"level": "data"}));
    assert_eq!(
        (&checked["outcome"], &checked["summary"]["loss"]),
        (&json!("success"), &json!(0))
    );
    // Nothing is forgotten, and nothing freed, unless that is said.
    let rules = json!({"rules": {"keep-last": 1}});
    let forgot = client.done(&format!("{here}/forget"), &rules);
    assert_eq!(forgot["summary"]["forgotten"], json!([oldest]), "{forgot}");
    assert_eq!(client.get(&format!("{here}/snapshots"))["total"], 2);
    assert_eq!(
        client.done(&format!("{here}/prune"), &json!({}))["summary"]["dry_run"],
        true
    );
    let rules = json!({"rules": {"keep-last": 1}, "dry_run": false});
    assert_eq!(
        client.done(&format!("{here}/forget"), &rules)["outcome"],
        "success"
    );
    assert_eq!(client.get(&format!("{here}/snapshots"))["total"], 1);
    let pruned = client.done(&format!("{here}/prune"), &json!({"dry_run": false}));
    assert_eq!(pruned["outcome"], "success", "{pruned}");

    let metrics = client.send("GET", "/metrics", b"");
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(
        metrics.contains("larder_job_last_success_timestamp_seconds{job=\"nightly\"} "),
        "{metrics}"
    );
    assert!(
        metrics.contains("larder_runs_total{kind=\"job\",outcome=\"success\"} 2\n"),
        "{metrics}"
    );
    let audit = client.get("/api/v1/audit?limit=1000");
    let audit = audit["items"].as_array().unwrap();
    let has = |path: &str| {
        audit
            .iter()
            .any(|entry| entry["path"] == path && entry["by"] == "first")
    };
    assert!(
        has("/api/v1/jobs")
            && has("/api/v1/restores")
            && has("/api/v1/locations/cellar/snapshots/latest/file")
    );
    assert!(!json!(audit).to_string().contains("secret of"));
}

/// Each answer is held against the document where it comes; here none is left out.
#[test]
fn whatever_looks_answers_as_it_is_described() {
    let world = World::bare();
    world.write("letters/a.txt", "dear all");
    let server = Server::start(&world, &[]);
    let client = Client::new(&server);
    with_job(&world, &client);
    client.post(
        "/api/v1/users",
        &json!({"name": "ann", "kinds": ["s3"]}),
        201,
    );
    let run = client.done("/api/v1/jobs/nightly/run", &json!({}));
    let folder = encoded(&world.source().join("letters"));
    let file = encoded(&world.source().join("letters/a.txt"));
    let paths = server.described.0["paths"].as_object().unwrap();
    let mut count = 0;
    for (template, operations) in paths {
        let Some(look) = operations.get("get") else {
            continue;
        };
        let name = match template.contains("/jobs/") {
            true => "nightly",
            false => "cellar",
        };
        let id = match template.contains("/runs/") {
            true => run["id"].as_str().unwrap(),
            false => "latest",
        };
        let mut path = template.replace("{name}", name).replace("{id}", id);
        path = path.replace("{user}", "ann");
        if template.ends_with("/find") {
            // It needs one of several.
            path.push_str("?pattern=a.txt");
        }
        let needed = look["parameters"].as_array().unwrap().iter();
        let needed = needed.filter(|one| one["in"] == "query" && one["required"] == true);
        for (index, parameter) in needed.enumerate() {
            let value = match parameter["name"].as_str().unwrap() {
                "path" if template.ends_with("/file") => file.as_str(),
                "path" => folder.as_str(),
                "from" => "latest",
                other => panic!("what is {other} of {template}?"),
            };
            let before = if index == 0 { '?' } else { '&' };
            path.push_str(&format!(
                "{before}{}={value}",
                parameter["name"].as_str().unwrap()
            ));
        }
        let answer = client.send("GET", &path, b"");
        assert_eq!(
            answer.status,
            200,
            "{path}\n{}",
            String::from_utf8_lossy(&answer.body)
        );
        assert!(answer.whole, "{path}");
        count += 1;
    }
    assert!(count >= 25, "{count} routes look");
    // Where the job and the repository are not there, that is told as it is described, too.
    for path in [
        "/api/v1/jobs/other",
        "/api/v1/locations/other/snapshots",
        "/api/v1/locations/cellar/snapshots/0123/entries",
        "/api/v1/runs/none",
        "/api/v1/jobs?limit=0",
    ] {
        let answer = client.send("GET", path, b"");
        assert!(
            matches!(answer.status, 400 | 404),
            "{path}: {}",
            answer.status
        );
    }
    let tried = json!({"name": "attic", "url": world.path("attic"), "dry_run": true});
    client.post("/api/v1/locations", &tried, 200);
    let settings =
        json!({"location": "cellar", "sources": [world.source()], "every": 1, "hours": [3]});
    let tried = json!({"name": "daily", "settings": settings, "dry_run": true});
    let told = client.post("/api/v1/jobs", &tried, 200);
    assert_eq!(told["upcoming"]["backup"].as_array().unwrap().len(), 5);
}

/// Gives the names in a text that metrics of larder have.
fn names_of_metrics(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    let names = words.filter(|word| word.starts_with("larder_") && !word.ends_with('_'));
    names.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let world = World::bare();
    world.write("letters/a.txt", "dear all");
    let server = Server::start(&world, &[]);
    let client = Client::new(&server);
    with_job(&world, &client);
    // So that there is a next time, too.
    let settings = json!({"settings": {"every": 1, "hours": [3]}});
    let edited = client.send(
        "PATCH",
        "/api/v1/jobs/nightly",
        settings.to_string().as_bytes(),
    );
    edited.expect(200);
    client.done("/api/v1/jobs/nightly/run", &json!({}));
    let metrics = String::from_utf8(client.send("GET", "/metrics", b"").body).unwrap();
    let told = metrics.lines().filter(|line| !line.starts_with('#'));
    let told: BTreeSet<String> = told.flat_map(names_of_metrics).collect();
    let documented = fs::read_to_string(root().join("docs/serve.md")).unwrap();
    let documented = documented.split("## Metrics").nth(1).unwrap();
    assert_eq!(
        names_of_metrics(documented),
        told,
        "docs/serve.md and /metrics"
    );
    let dashboard = fs::read_to_string(root().join("deploy/grafana/larder.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(
                target["datasource"]["uid"], "${source}",
                "{}",
                panel["title"]
            );
            let query = target["expr"].as_str().unwrap();
            let names = names_of_metrics(query);
            assert!(!names.is_empty(), "{query}");
            shown.extend(names);
        }
    }
    assert_eq!(shown, told, "the dashboard and /metrics");
    let job = &dashboard["templating"]["list"][1];
    assert_eq!(
        job["query"]["query"],
        "label_values(larder_job_running, job)"
    );
}

#[test]
fn a_token_opens_what_its_scope_says_and_a_wrong_one_nothing() {
    let world = World::bare();
    let server = Server::start(&world, &[]);
    let admin = Client::new(&server);
    let healthy = server.request("GET", "/healthz", &[], b"");
    assert_eq!(healthy.status, 200);
    let policy = healthy.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(server.request("GET", "/", &[], b"").status, 200);
    let openapi = server
        .request("GET", "/api/v1/openapi.json", &[], b"")
        .expect(200);
    assert!(openapi["paths"]["/api/v1/jobs/{name}/run"]["post"].is_object());
    let refused = server.request("GET", "/api/v1/jobs", &[], b"");
    assert_eq!(
        refused.header("content-type").unwrap(),
        "application/problem+json"
    );
    assert_eq!(refused.expect(401)["status"], 401);
    let with = |scope: &str| {
        let made = admin.post(
            "/api/v1/tokens",
            &json!({"name": scope, "scope": scope}),
            201,
        );
        let client = Client {
            server: &server,
            token: made["token"].as_str().unwrap().to_owned(),
        };
        (client, made["id"].as_str().unwrap().to_owned())
    };
    let (reader, reader_id) = with("read-only");
    let (operator, _) = with("operate");
    assert_eq!(reader.get("/api/v1/jobs")["total"], 0);
    for (client, method, path) in [
        (&reader, "POST", "/api/v1/jobs/x/run"),
        (&reader, "GET", "/api/v1/tokens"),
        (
            &reader,
            "GET",
            "/api/v1/locations/x/snapshots/latest/file?path=/x",
        ),
        (&operator, "POST", "/api/v1/jobs"),
        (&operator, "POST", "/api/v1/tokens"),
        (&operator, "GET", "/api/v1/audit"),
    ] {
        assert_eq!(
            client.send(method, path, b"{}").status,
            403,
            "{method} {path}"
        );
    }
    // The two portable calls have a token of their own, which opens nothing else.
    let portable = Client {
        server: &server,
        token: server.portable(),
    };
    assert_eq!(portable.send("GET", "/api/v1/jobs", b"").status, 403);
    for path in ["/_backup/api/v1/backup", "/_backup/api/v1/restore"] {
        assert_eq!(
            admin.send("POST", path, b"{\"password\":\"x\"}").status,
            401
        );
        assert_eq!(server.request("POST", path, &[], b"").status, 401);
    }
    let revoked = admin.send("DELETE", &format!("/api/v1/tokens/{reader_id}"), b"");
    assert_eq!(revoked.status, 204);
    assert_eq!(reader.send("GET", "/api/v1/jobs", b"").status, 401);
    let kept =
        fs::read_to_string(world.path("home/.local/state/larder/serve/tokens.json")).unwrap();
    assert!(!kept.contains(&server.token()) && !kept.contains(&server.portable()));
    // One was wrong already, since it was revoked.
    let wrong = Client {
        server: &server,
        token: "larder_wrong".to_owned(),
    };
    let answers: Vec<u16> = (0..12)
        .map(|_| wrong.send("GET", "/api/v1/jobs", b"").status)
        .collect();
    assert_eq!((answers[0], answers[11]), (401, 429), "{answers:?}");
    assert_eq!(admin.send("GET", "/api/v1/jobs", b"").status, 429);
    let token = server.token();
    assert_eq!(server.end(), Some(0));
    // The tokens outlive the service, and are not told again.
    let server = Server::start(&world, &[]);
    assert!(server.said["token"].is_null(), "{}", server.said);
    let admin = Client {
        server: &server,
        token,
    };
    admin.get("/api/v1/jobs");
}

#[test]
fn a_browser_logs_in_and_changes_nothing_without_its_second_secret() {
    let world = World::bare();
    let server = Server::start(&world, &[]);
    let login = json!({"token": server.token()}).to_string();
    let answer = server.request("POST", "/login", &[], login.as_bytes());
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let csrf = answer.expect(200)["csrf"].as_str().unwrap().to_owned();
    let with_cookie = [("Cookie", cookie.as_str())];
    let known = server
        .request("GET", "/session", &with_cookie, b"")
        .expect(200);
    assert_eq!(
        (&known["scope"], &known["csrf"]),
        (&json!("admin"), &json!(csrf))
    );
    let make = json!({"name": "x", "scope": "read-only"}).to_string();
    let make = make.as_bytes();
    let forged = [with_cookie[0], ("X-CSRF-Token", "guess")];
    assert_eq!(
        server
            .request("POST", "/api/v1/tokens", &with_cookie, make)
            .status,
        403
    );
    assert_eq!(
        server
            .request("POST", "/api/v1/tokens", &forged, make)
            .status,
        403
    );
    let right = [with_cookie[0], ("X-CSRF-Token", csrf.as_str())];
    server
        .request("POST", "/api/v1/tokens", &right, make)
        .expect(201);
    assert_eq!(
        server.request("POST", "/logout", &with_cookie, b"").status,
        204
    );
    assert_eq!(
        server.request("GET", "/session", &with_cookie, b"").status,
        401
    );
    let portable = json!({"token": server.portable()}).to_string();
    assert_eq!(
        server
            .request("POST", "/login", &[], portable.as_bytes())
            .status,
        403
    );
}

#[test]
fn what_is_wrong_is_refused_with_its_reason() {
    let world = World::bare();
    let inside = world.path("inside");
    fs::create_dir(&inside).unwrap();
    let allowed = ["--allow-path", inside.to_str().unwrap()];
    let server = Server::start(&world, &allowed);
    let client = Client::new(&server);
    let place = |name: &str, url: &str| json!({"name": name, "url": url});
    let here = inside.to_str().unwrap();
    client.post("/api/v1/locations", &place("good", here), 201);
    client.post("/api/v1/locations", &place("good", here), 409);
    for (body, status) in [
        (place("--all", here), 400),
        (place("a/b", here), 400),
        (place("meta", "webdav://169.254.169.254/x"), 403),
        (place("out", "/etc"), 403),
        (place("up", &format!("{here}/../x")), 400),
        (
            json!({"name": "x", "url": here, "settings": {"password-command": "id"}}),
            403,
        ),
        (json!({"name": "x", "url": here, "colour": 1}), 400),
        (json!({"name": "x"}), 400),
    ] {
        let why = client.post("/api/v1/locations", &body, status);
        assert!(!why["detail"].as_str().unwrap().is_empty(), "{body}");
    }
    let job = |settings: Value| json!({"name": "j", "settings": settings});
    for (settings, status) in [
        (json!({"location": "good", "sources": ["/etc"]}), 403),
        (
            json!({"location": "good", "sources": [here], "before": ["id"]}),
            403,
        ),
        (
            json!({"location": "good", "sources": [here], "webhook": "http://169.254.169.254/"}),
            403,
        ),
        (
            json!({"location": "good", "sources": [inside.join("s")], "hours": [24]}),
            400,
        ),
        (
            json!({"location": "good", "sources": [inside.join("s")], "no-such-key": 1}),
            400,
        ),
    ] {
        let why = client.post("/api/v1/jobs", &job(settings), status);
        assert!(!why["detail"].as_str().unwrap().is_empty());
    }
    for (method, path, status) in [
        ("GET", "/api/v1/locations/none", 404),
        ("GET", "/api/v1/locations/..%2F..%2Fetc", 404),
        ("GET", "/api/v1/locations/good/snapshots", 409),
        ("GET", "/api/v1/locations?limit=0", 400),
        ("GET", "/api/v1/locations?colour=red", 400),
        ("GET", "/api/v1/runs/none", 404),
        ("GET", "/api/v1/paths?path=/etc", 403),
        ("GET", "/api/v1/nothing", 404),
        ("PUT", "/api/v1/jobs", 405),
        ("POST", "/api/v1/jobs/none/run", 404),
    ] {
        assert_eq!(
            client.send(method, path, b"").status,
            status,
            "{method} {path}"
        );
    }
    let long = vec![b' '; (1 << 20) + 1];
    assert_eq!(client.send("POST", "/api/v1/jobs", &long).status, 413);
    let restore = json!({"location": "good", "target": "/etc/larder"});
    client.post("/api/v1/restores", &restore, 403);
    // Nothing of it was written.
    assert_eq!(client.get("/api/v1/locations")["total"], 1);
    assert_eq!(client.get("/api/v1/jobs")["total"], 0);
}

#[test]
fn plain_http_to_other_machines_has_to_be_asked_for() {
    let world = World::bare();
    world
        .run(["serve", "--listen", "0.0.0.0:0"])
        .expect(1)
        .says("--allow-plain-http");
    world
        .run([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            "/no/cert",
            "--tls-key",
            "/no/key",
        ])
        .expect(1)
        .says("/no/cert");
    let server = Server::start(&world, &[]);
    world
        .run(["serve", "--listen", "127.0.0.1:0"])
        .expect(1)
        .says("another service has ");
    drop(server);
}

/// Adds a command to what the job backs up, which waits for a file, and says that it does.
fn with_wait(world: &World) -> (PathBuf, PathBuf) {
    let (waits, go) = (world.path("waits"), world.path("go"));
    let script = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done; echo done",
        waits.display(),
        go.display()
    );
    let command = json!([{"name": "wait.txt", "command": script}]);
    let literal = format!(
        "commands=[{{ name = \"wait.txt\", command = {} }}]",
        command[0]["command"]
    );
    world.ok(["job", "edit", "nightly", "--set", &literal]);
    (waits, go)
}

#[test]
fn a_service_that_is_killed_in_the_middle_of_a_run_loses_and_doubles_nothing() {
    let world = World::bare();
    world.write("a", "content");
    let server = Server::start(&world, &[]);
    let token = server.token();
    let client = Client::new(&server);
    with_job(&world, &client);
    let (waits, go) = with_wait(&world);
    let key = [
        ("Authorization", format!("Bearer {token}")),
        ("Idempotency-Key", "once".to_owned()),
    ];
    let key = key.each_ref().map(|(name, value)| (*name, value.as_str()));
    let begin = |server: &Server| server.request("POST", "/api/v1/jobs/nightly/run", &key, b"");
    let begun = begin(&server).expect(202);
    let id = begun["id"].as_str().unwrap().to_owned();
    wait_until("waits", || waits.exists());
    server.kill();

    let server = Server::start(&world, &[]);
    let client = Client {
        server: &server,
        token: token.clone(),
    };
    let path = format!("/api/v1/runs/{id}");
    assert!(client.get(&path)["outcome"].is_null());
    assert_eq!(
        client.get("/api/v1/jobs/nightly/history")["items"][0]["outcome"],
        Value::Null
    );
    // Whoever asks again with the same key gets the same run, and without one none beside it.
    assert_eq!(begin(&server).expect(200)["id"], id.as_str());
    assert_eq!(
        client.post("/api/v1/jobs/nightly/run", &json!({}), 409)["code"],
        11
    );
    fs::write(&go, "").unwrap();
    let ended = client.ended(&id);
    assert_eq!(ended["outcome"], "success", "{ended}");
    let history = client.get("/api/v1/jobs/nightly/history");
    assert_eq!(history["items"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!(history["items"][0]["outcome"], "success");
    assert_eq!(client.get("/api/v1/locations/cellar/snapshots")["total"], 1);
    assert_eq!(client.get("/api/v1/runs?kind=job")["total"], 1);
}

#[test]
fn a_service_that_ends_lets_runs_come_to_a_safe_point() {
    let world = World::bare();
    world.write("a", "content");
    let server = Server::start(&world, &[]);
    let token = server.token();
    let client = Client::new(&server);
    with_job(&world, &client);
    let (waits, _) = with_wait(&world);
    let begun = client.post("/api/v1/jobs/nightly/run", &json!({}), 202);
    wait_until("waits", || waits.exists());
    assert_eq!(server.end(), Some(0));
    let server = Server::start(&world, &[]);
    let client = Client {
        server: &server,
        token,
    };
    let run = client.get(&format!("/api/v1/runs/{}", begun["id"].as_str().unwrap()));
    assert_eq!(run["outcome"], "interrupted", "{run}");
    let history = client.get("/api/v1/jobs/nightly/history");
    assert_eq!(history["items"][0]["outcome"], "interrupted", "{history}");
    // Cancelled by a request it ends the same way.
    fs::remove_file(&waits).unwrap();
    let begun = client.post("/api/v1/jobs/nightly/run", &json!({}), 202);
    wait_until("waits", || waits.exists());
    client.post("/api/v1/jobs/nightly/cancel", &json!({}), 202);
    let ended = client.ended(begun["id"].as_str().unwrap());
    assert_eq!(ended["outcome"], "interrupted", "{ended}");
    client.post("/api/v1/jobs/nightly/cancel", &json!({}), 409);
}

#[test]
fn what_is_due_is_run_by_the_service() {
    let world = World::bare();
    world.write("a", "content");
    let server = Server::start(&world, &[]);
    let token = server.token();
    let client = Client::new(&server);
    with_job(&world, &client);
    // Far from now, whenever that is.
    let hour = jiff::Timestamp::now().as_second() / 3600 % 24;
    let hour = (hour + 12) % 24;
    let change = json!({"settings": {"every": 1, "hours": [hour]}});
    client
        .send(
            "PATCH",
            "/api/v1/jobs/nightly",
            change.to_string().as_bytes(),
        )
        .expect(200);
    assert_eq!(
        client.get("/api/v1/jobs/nightly/next")["upcoming"]["backup"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    server.end();
    long_ago(&world);
    // It was missed for days, and is made up for once.
    let server = Server::start(&world, &[]);
    let client = Client {
        server: &server,
        token,
    };
    wait_until("run", || {
        let runs = client.get("/api/v1/runs?kind=job&running=false");
        runs["total"] == 1
    });
    let runs = client.get("/api/v1/runs");
    let run = &runs["items"][0];
    assert_eq!(
        (&run["trigger"], &run["outcome"]),
        (&json!("schedule"), &json!("success")),
        "{run}"
    );
    let history = client.get("/api/v1/history");
    assert_eq!(history["items"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!(history["items"][0]["trigger"], "catch-up");
}

/// Dates all that is remembered of jobs back by ten days.
fn long_ago(world: &World) {
    let script = "import sqlite3, sys\n\
                  with sqlite3.connect(sys.argv[1]) as db:\n\
                  \tdb.execute('UPDATE jobs SET known_since = known_since - 864000000')\n";
    let database = world.path("home/.local/state/larder/jobs/history.db");
    run(Command::new("python3").args(["-c", script]).arg(database)).expect(0);
}

#[test]
fn the_unit_for_systemd_runs_a_command_that_there_is() {
    let unit = root().join("deploy/systemd/larder-serve.service");
    let unit = fs::read_to_string(unit).unwrap();
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let mut words = command.split(' ').map(|word| word.trim_matches('"'));
    assert_eq!(words.next(), Some("/usr/local/bin/larder"));
    let world = World::bare();
    let help = world.ok(words.chain(["--help"]));
    assert!(help.contains("--allow-plain-http"), "{help}");
}

/// Sends a form with two fields, as curl does.
fn form(server: &Server, token: &str, config: &[u8], snapshot: &[u8]) -> Answer {
    let mut body = Vec::new();
    for (name, content) in [("config", config), ("snapshot", snapshot)] {
        let head = format!(
            "--edge\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        body.extend(head.as_bytes());
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--edge--\r\n");
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "multipart/form-data; boundary=edge"),
    ];
    server.request("POST", "/_backup/api/v1/restore", &headers, &body)
}

/// Runs a line as an operator types it; none where there is no curl.
fn curl(world: &World, server: &Server, token: &str, line: &str) -> Option<(i32, String)> {
    if Command::new("curl").arg("--version").output().is_err() {
        return None;
    }
    let line = line.replace("https://HOST", &format!("http://{}", server.address));
    let ran = run(Command::new("sh")
        .args([
            "-c",
            // A proxy of the machine has nothing to do with it.
            &format!("{line} --silent --noproxy '*' --write-out '%{{http_code}}'"),
        ])
        .env("TOKEN", token)
        .current_dir(world.path("tmp")));
    Some((ran.code, ran.stdout))
}

#[test]
fn the_two_portable_calls_carry_all_into_a_second_installation() {
    let (first, second) = (World::bare(), World::bare());
    first.write("letters/a.txt", "dear all");
    first.write("big", noise(7, 3_000_000));
    let one = Server::start(&first, &[]);
    with_job(&first, &Client::new(&one));
    fs::write(
        first.path("tmp/payload.json"),
        "{ \"password\": \"on the way\" }",
    )
    .unwrap();
    let backup = "curl --header \"Authorization: Bearer $TOKEN\" --request POST --data @payload.json --output backup.blob https://HOST/_backup/api/v1/backup";
    let bearer = format!("Bearer {}", one.portable());
    let headers = [("Authorization", bearer.as_str())];
    let call = |body: &[u8]| one.request("POST", "/_backup/api/v1/backup", &headers, body);
    let blob = match curl(&first, &one, &one.portable(), backup) {
        Some(ran) => {
            assert_eq!(ran, (0, "200".to_owned()));
            fs::read(first.path("tmp/backup.blob")).unwrap()
        }
        None => {
            let answer = call(b"{ \"password\": \"on the way\" }");
            assert!(answer.status == 200 && answer.whole, "{}", answer.head);
            answer.body
        }
    };
    assert!(blob.len() > 3_000_000 && !blob.windows(8).any(|eight| eight == b"dear all"));
    for wrong in ["", "{}", "password", "{\"password\": \"\"}"] {
        assert_eq!(call(wrong.as_bytes()).status, 400, "{wrong}");
    }

    // Another installation, with a repository, a password and a folder of its own.
    let two = Server::start(&second, &[]);
    let client = Client::new(&two);
    with_job(&second, &client);
    second.write("mine", "was here before");
    let (config, token) = (b"{\"password\": \"on the way\"}", two.portable());
    let untouched = || {
        assert_eq!(client.get("/api/v1/locations/cellar/snapshots")["total"], 0);
        assert_eq!(fs::read_dir(second.source()).unwrap().count(), 1);
    };
    let altered = {
        let mut altered = blob.clone();
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        altered
    };
    for (config, snapshot) in [
        (&b"{\"password\": \"wrong\"}"[..], &blob[..]),
        (config, &blob[..blob.len() - 1]),
        (config, &blob[..blob.len() / 2]),
        (config, &altered),
        (config, b""),
        (config, b"no bundle at all"),
        (b"{}", &blob),
        (b"nothing", &blob),
    ] {
        let answer = form(&two, &token, config, snapshot);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 400, "{text}");
        untouched();
    }
    // Refused before it is read, so nothing long is sent.
    assert_eq!(form(&two, &two.token(), config, b"x").status, 401);
    untouched();

    fs::write(second.path("tmp/backup.blob"), &blob).unwrap();
    fs::write(second.path("tmp/request.json"), config).unwrap();
    let restore = "curl --header \"Authorization: Bearer $TOKEN\" --request POST --form config=@request.json --form snapshot=@backup.blob https://HOST/_backup/api/v1/restore";
    match curl(&second, &two, &token, restore) {
        Some((code, said)) => assert!(code == 0 && said.ends_with("200"), "{code} {said}"),
        None => drop(form(&two, &token, config, &blob).expect(200)),
    }
    assert!(second.source().join("mine").exists());
    fs::remove_file(second.source().join("mine")).unwrap();
    // Its time is that of the folder once the file is gone: compared is what was carried.
    assert_same(
        &first.source().join("letters"),
        &second.source().join("letters"),
    );
    assert_eq!(
        fs::read(second.source().join("big")).unwrap(),
        noise(7, 3_000_000)
    );
    assert_eq!(client.get("/api/v1/locations/cellar/snapshots")["total"], 1);
}
