//! What the tests of all clouds share: the proxy that notes and breaks requests, and the runs over it.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::sync::Arc;

use bytes::Bytes;
use larder_storage::error::{ErrorKind, Reason, StorageError};
use larder_storage::{Storage, create_or_confirm};

use super::servers::{Server, python, recipes};

/// Runs a program and gives what it printed.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A command that runs one of the recipes in Python.
pub fn recipe(name: &str) -> Command {
    let mut command = Command::new(python("python3"));
    command.arg(recipes().join(name));
    command
}

/// Gives prefixes that nobody has used yet, below a URL.
pub fn fresh(url: &str) -> impl Fn() -> String {
    let next = Cell::new(0);
    move || {
        next.set(next.get() + 1);
        format!("{url}/p{}", next.get())
    }
}

/// The proxy before a storage.
pub struct Proxy(pub Server);

impl Proxy {
    /// Starts it before a port.
    pub fn before(upstream: u16) -> Self {
        Self(Server::start(|folder, port| {
            let mut command = recipe("proxy.py");
            command
                .args([port.to_string(), upstream.to_string()])
                .current_dir(folder);
            command
        }))
    }

    /// Starts it once more on its port, after it was killed; it ends when the value is dropped.
    pub fn again(&self, upstream: u16) -> Again {
        let mut command = recipe("proxy.py");
        command
            .args([self.0.port.to_string(), upstream.to_string()])
            .current_dir(self.0.folder.path());
        Again(command.spawn().unwrap())
    }

    /// Lets the next requests fail that a mode applies to.
    pub fn break_next(&self, mode: &str, count: usize) {
        self.ask(&format!("/__break/{mode}/{count}"));
    }

    /// How many requests it has broken since.
    pub fn broken(&self) -> usize {
        self.ask("/__broken").parse().unwrap()
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0.port)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// All requests so far, each as an object with method, path, length and headers.
    pub fn requests(&self) -> Vec<serde_json::Value> {
        let path = self.0.folder.path().join("requests.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The value of a header of each request with a method whose path has a text in it.
    pub fn headers(&self, method: &str, path: &str, header: &str) -> Vec<Option<String>> {
        let has = |request: &serde_json::Value| {
            request["method"] == method && request["path"].as_str().unwrap().contains(path)
        };
        let value = |request: serde_json::Value| {
            request["headers"]
                .get(header)
                .map(|value| value.as_str().unwrap().to_owned())
        };
        self.requests().into_iter().filter(has).map(value).collect()
    }
}

/// A proxy that was started once more.
pub struct Again(Child);

impl Drop for Again {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens nothing: gives the error of what should not have opened.
pub fn refused(outcome: larder_storage::error::Result<Arc<dyn Storage>>) -> StorageError {
    outcome.err().expect("it opened")
}

/// Checks kind and reason of an error, and that it is fit for a person.
pub fn assert_reason(error: &StorageError, kind: ErrorKind, reason: Reason) {
    assert_eq!((error.kind, error.reason), (kind, reason), "{error}");
    let text = format!("{error} {error:?}");
    for mark in [
        "Generic {",
        "RetryError",
        "X-Amz-Signature",
        "sig=",
        "hunter2",
        "StringToSign",
    ] {
        assert!(!text.contains(mark), "{text}");
    }
}

/// Breaks every operation in every way, and expects each to survive.
pub fn survives_faults(proxy: &Proxy, storage: &dyn Storage) {
    let bytes = Bytes::from(vec![7; 300_000]);
    for mode in [
        "503",
        "500",
        "429",
        "rst",
        "hang",
        "trunc",
        "stallget",
        "slowget",
        "commit500",
        "commitrst",
        "ok200err",
    ] {
        let name = |what: &str| format!("faults/{mode}/{what}");
        let is_get = matches!(mode, "trunc" | "stallget" | "slowget");
        let is_put = mode.starts_with("commit");
        let breaks = |applies: bool, run: &mut dyn FnMut()| {
            proxy.break_next(
                mode,
                if mode == "hang" || mode == "stallget" {
                    1
                } else {
                    2
                },
            );
            run();
            assert!(!applies || proxy.broken() > 0, "{mode} broke nothing");
            proxy.break_next("", 0);
        };
        breaks(!is_get, &mut || {
            storage.put(&name("put"), bytes.clone()).unwrap()
        });
        assert_eq!(storage.get(&name("put"), 1 << 20).unwrap(), bytes, "{mode}");
        breaks(!is_get, &mut || {
            create_or_confirm(storage, &name("created"), &bytes).unwrap();
        });
        assert_eq!(
            storage.get(&name("created"), 1 << 20).unwrap(),
            bytes,
            "{mode}"
        );
        breaks(!is_get, &mut || {
            let other = Bytes::from_static(b"somebody else's");
            let error = create_or_confirm(storage, &name("created"), &other).unwrap_err();
            assert_eq!(error.kind, ErrorKind::AlreadyExists, "{mode}: {error}");
        });
        breaks(!is_put, &mut || {
            assert_eq!(storage.get(&name("put"), 1 << 20).unwrap(), bytes, "{mode}");
        });
        breaks(!is_put, &mut || {
            assert_eq!(
                storage.get_range(&name("put"), 1000, 200_000).unwrap(),
                bytes.slice(1000..201_000),
                "{mode}"
            );
        });
        breaks(!is_put, &mut || {
            let mut names = Vec::new();
            storage
                .list(&format!("faults/{mode}"), &mut |object| {
                    names.push(object.name);
                    Ok(())
                })
                .unwrap();
            assert_eq!(names, [name("created"), name("put")], "{mode}");
        });
        breaks(!is_get && !is_put, &mut || {
            storage.delete(&name("put")).unwrap()
        });
        let error = storage.size(&name("put")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{mode}: {error}");
    }
}
