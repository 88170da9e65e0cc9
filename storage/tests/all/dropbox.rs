//! Dropbox, against a fake of its API over TLS.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use larder_storage::error::{ErrorKind, Reason, Result, StorageError};
use larder_storage::{Mode, ObjectInfo, Storage, contract, create_or_confirm};

use crate::answers::{reply, serve};
use crate::servers::{Certificates, Server, open, python, recipes};

/// The fake with some faults, and the certificates with which it is reached.
struct Fake {
    server: Server,
    made: Certificates,
}

impl Fake {
    fn start(faults: &[&str]) -> Self {
        let made = Certificates::make();
        let server = Server::start(|folder, port| {
            let tls = folder.join("tls");
            std::fs::create_dir_all(&tls).unwrap();
            for name in ["srv.pem", "srv.key"] {
                std::fs::copy(made.path(name), tls.join(name)).unwrap();
            }
            let mut command = Command::new(python("python3"));
            command
                .arg(recipes().join("fakedropbox.py"))
                .arg(port.to_string())
                .args(faults)
                .current_dir(folder);
            command
        });
        Self { server, made }
    }

    /// Opens a folder; what `settings` says goes before what is usual.
    fn open(&self, path: &str, settings: &[(&str, &str)], mode: Mode) -> Result<Arc<dyn Storage>> {
        let url = format!("https://localhost:{}", self.server.port);
        let ca = self.made.path("ca.pem");
        let usual = [
            ("app-key", "CID"),
            ("app-secret", "CS"),
            ("refresh-token", "RT"),
            ("ca-certificate", ca.as_str()),
            ("api-endpoint", url.as_str()),
            ("content-endpoint", url.as_str()),
        ];
        let is_set = |name: &str| settings.iter().any(|(set, _)| *set == name);
        let usual = usual.into_iter().filter(|(name, _)| !is_set(name));
        let given = settings
            .iter()
            .copied()
            .filter(|(_, value)| !value.is_empty());
        let all: Vec<_> = usual.chain(given).collect();
        open(&format!("dropbox://{path}"), &all, mode)
    }

    fn refused(&self, path: &str, settings: &[(&str, &str)]) -> StorageError {
        match self.open(path, settings, Mode::Open) {
            Ok(_) => panic!("it was opened"),
            Err(error) => error,
        }
    }

    fn keeps_the_contract(&self) {
        let next = AtomicU64::new(0);
        contract::run(&|| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let path = format!("/Made/Zürich \u{1f5c4} {number}");
            self.open(&path, &[], Mode::Create).unwrap()
        });
    }
}

fn kind_and_reason(error: &StorageError) -> (ErrorKind, Reason) {
    (error.kind, error.reason)
}

fn names(storage: &dyn Storage, folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut note = |object: ObjectInfo| {
        names.push(object.name);
        Ok(())
    };
    storage.list(folder, &mut note).unwrap();
    names.sort();
    names
}

#[test]
fn it_keeps_the_contract() {
    Fake::start(&[]).keeps_the_contract();
}

#[test]
fn it_keeps_the_contract_with_tokens_that_expire_and_short_pages() {
    Fake::start(&["expire", "small"]).keeps_the_contract();
}

#[test]
fn the_whole_dropbox_is_a_folder_too() {
    let fake = Fake::start(&["pkce"]);
    let storage = fake.open("/", &[("app-secret", "")], Mode::Open).unwrap();
    storage.put("packs/ab", "x".into()).unwrap();
    assert_eq!(names(&*storage, ""), ["packs/ab"]);
    assert_eq!(names(&*storage, "packs"), ["packs/ab"]);
    assert!(names(&*storage, "nothing").is_empty());
}

#[test]
fn what_is_wrong_at_the_start_is_told_apart_and_at_once() {
    let fake = Fake::start(&[]);
    let at = |settings: &[(&str, &str)]| {
        let error = fake.refused("/Missing", settings);
        let text = error.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        kind_and_reason(&error)
    };
    assert_eq!(at(&[]), (ErrorKind::NotFound, Reason::NoFolder));
    let denied = |reason| (ErrorKind::Denied, reason);
    assert_eq!(at(&[("refresh-token", "hunter2")]), denied(Reason::Expired));
    assert_eq!(at(&[("app-key", "other")]), denied(Reason::WrongSecret));
    let permanent = |reason| (ErrorKind::Permanent, reason);
    assert_eq!(at(&[("app-key", "")]), permanent(Reason::NoCredentials));
    assert_eq!(
        at(&[("ca-certificate", "")]),
        permanent(Reason::Certificate)
    );
    let nobody = ("api-endpoint", "https://127.0.0.1:9");
    assert_eq!(at(&[nobody]), permanent(Reason::Refused));
    let elsewhere = ("api-endpoint", "http://example.com");
    assert_eq!(at(&[elsewhere]), permanent(Reason::Settings));
}

#[test]
fn too_many_requests_are_waited_for() {
    let fake = Fake::start(&["429"]);
    let storage = fake.open("/r", &[], Mode::Create).unwrap();
    for name in ["a", "b", "c"] {
        storage.put(name, "x".into()).unwrap();
    }
    create_or_confirm(&*storage, "d", &"x".into()).unwrap();
    assert_eq!(names(&*storage, ""), ["a", "b", "c", "d"]);
}

#[test]
fn a_full_dropbox_a_missing_permission_and_wrong_bytes_are_told() {
    let put = |fault: &str| {
        let fake = Fake::start(&[fault]);
        let storage = fake
            .open("/r", &[("retry-for", "1s")], Mode::Create)
            .unwrap();
        storage.put("a", "x".into()).unwrap_err()
    };
    assert_eq!(put("full").kind, ErrorKind::Full);
    let error = put("readonly");
    assert_eq!(
        kind_and_reason(&error),
        (ErrorKind::Denied, Reason::NotPermitted)
    );
    assert!(error.to_string().contains("files.content.write"), "{error}");
    assert_eq!(put("corrupt").kind, ErrorKind::Transient);
}

#[test]
fn a_listing_whose_cursor_is_lost_is_an_error() {
    let fake = Fake::start(&["reset", "small"]);
    let storage = fake
        .open("/r", &[("retry-for", "1s")], Mode::Create)
        .unwrap();
    for at in 0..9 {
        storage.put(&format!("a{at}"), "x".into()).unwrap();
    }
    let mut visits = 0;
    let outcome = storage.list("", &mut |_| {
        visits += 1;
        Ok(())
    });
    assert!(outcome.is_err() && visits < 9, "{visits}");
}

#[test]
fn what_is_too_large_for_one_request_goes_in_parts() {
    let fake = Fake::start(&[]);
    let storage = fake.open("/r", &[], Mode::Create).unwrap();
    let bytes = Bytes::from_iter((0..151_000_000_u32).map(|at| (at >> 7) as u8));
    storage.create("packs/ab", bytes.clone()).unwrap();
    assert_eq!(storage.size("packs/ab").unwrap(), 151_000_000);
    let range = storage.get_range("packs/ab", 150_000_000, 1000).unwrap();
    assert!(range == bytes.slice(150_000_000..150_001_000));
    let again = storage.create("packs/ab", bytes);
    assert_eq!(again.unwrap_err().kind, ErrorKind::AlreadyExists);
}

#[test]
fn a_token_that_an_error_repeats_is_not_shown() {
    let port = serve(|request, stream| match request.path() {
        "/oauth2/token" => {
            let body = br#"{"access_token":"hunter2","expires_in":14400}"#;
            reply(stream, "200 OK", body);
        }
        _ => reply(
            stream,
            "400 Bad Request",
            b"Invalid header Authorization: \"Bearer hunter2\"\x1b[2J",
        ),
    });
    let url = format!("http://127.0.0.1:{port}");
    let settings = [
        ("app-key", "CID"),
        ("refresh-token", "RT"),
        ("api-endpoint", url.as_str()),
        ("content-endpoint", url.as_str()),
    ];
    let error = match open("dropbox:///r", &settings, Mode::Open) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("Bearer ********"), "{error}");
    assert!(
        !error.contains("hunter2") && !error.contains('\u{1b}'),
        "{error}"
    );
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    let pages = [
        "null",
        "[",
        r#"{"entries":[],"has_more":true}"#,
        r#"{"entries":[],"has_more":true,"cursor":"same"}"#,
        r#"{"entries":[]}"#,
        r#"{"entries":[{".tag":"file","path_lower":"/r/a"}],"has_more":false}"#,
        r#"{"entries":[{".tag":"file","path_lower":"/other/a","size":1}],"has_more":false}"#,
        r#"{"entries":7,"has_more":false}"#,
    ];
    for page in pages {
        let port = serve(move |request, stream| match request.path() {
            "/oauth2/token" => reply(
                stream,
                "200 OK",
                br#"{"access_token":"AT","expires_in":14400}"#,
            ),
            "/2/files/get_metadata" => {
                reply(stream, "200 OK", br#"{".tag":"folder","path_lower":"/r"}"#)
            }
            _ => reply(stream, "200 OK", page.as_bytes()),
        });
        let url = format!("http://127.0.0.1:{port}");
        let settings = [
            ("app-key", "CID"),
            ("refresh-token", "RT"),
            ("api-endpoint", url.as_str()),
            ("content-endpoint", url.as_str()),
        ];
        let storage = open("dropbox:///r", &settings, Mode::Open).unwrap();
        let error = storage.list("", &mut |_| Ok(())).unwrap_err();
        assert_eq!(
            kind_and_reason(&error),
            (ErrorKind::Permanent, Reason::Protocol),
            "{page}"
        );
    }
}

#[test]
fn a_repository_lives_in_a_folder() {
    let fake = Fake::start(&[]);
    let url = format!("https://localhost:{}", fake.server.port);
    let ca = fake.made.path("ca.pem");
    let settings = [
        ("app-key", "CID"),
        ("app-secret", "CS"),
        ("refresh-token", "RT"),
        ("ca-certificate", &ca),
        ("api-endpoint", &url),
        ("content-endpoint", &url),
    ];
    crate::life::live("dropbox:///Backups/larder", &settings);
}
