//! Google Cloud Storage against a fake of its XML API.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use larder_storage::error::{ErrorKind, Reason, Result};
use larder_storage::{Mode, Storage, contract};

use super::cloud::{Proxy, assert_reason, fresh, output, recipe, refused, survives_faults};
use super::servers::{self, Server, free_port};

fn fake() -> Server {
    Server::start(|_, port| {
        let mut command = recipe("fakegcs.py");
        command.arg(port.to_string());
        command
    })
}

/// Makes the JSON key of a service account.
fn account(server: &Server, email: &str) -> String {
    let key = output(Command::new("openssl").args(["genpkey", "-algorithm", "RSA"]));
    let json = serde_json::json!({
        "type": "service_account",
        "private_key": key,
        "private_key_id": "1",
        "client_email": email,
        "client_id": "1",
    });
    let path = server.folder.path().join(format!("{email}.json"));
    std::fs::write(&path, json.to_string()).unwrap();
    path.display().to_string()
}

fn open(port: u16, url: &str, settings: &[(&str, &str)]) -> Result<Arc<dyn Storage>> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut all = vec![("endpoint", endpoint.as_str()), ("retry-for", "60s")];
    all.extend(settings);
    servers::open(url, &all, Mode::Open)
}

#[test]
fn the_fake_keeps_the_contract() {
    let server = fake();
    let account = account(&server, "sa@x.iam.gserviceaccount.com");
    let next = fresh("gs://test/deep");
    contract::run(&|| open(server.port, &next(), &[("service-account-file", &account)]).unwrap());
    let key = std::fs::read_to_string(account).unwrap();
    open(server.port, "gs://test/p", &[("service-account-key", &key)]).unwrap();
}

#[test]
fn what_cannot_be_opened_is_told_apart() {
    let server = fake();
    let good = account(&server, "sa@x.iam.gserviceaccount.com");
    let good = ("service-account-file", good.as_str());
    let other = account(&server, "other@x.iam.gserviceaccount.com");
    let error = refused(open(
        server.port,
        "gs://test/p",
        &[("service-account-file", &other)],
    ));
    assert_reason(&error, ErrorKind::Denied, Reason::NotPermitted);
    assert!(
        error.to_string().contains("storage.objects.list"),
        "{error}"
    );
    let error = refused(open(server.port, "gs://missing/p", &[good]));
    assert_reason(&error, ErrorKind::NotFound, Reason::NoBucket);
    let error = refused(open(free_port(), "gs://test/p", &[good]));
    assert_reason(&error, ErrorKind::Permanent, Reason::Refused);
    let inline = ("service-account-key", "{\"private_key\":\"hunter2\"}");
    let error = refused(open(server.port, "gs://test/p", &[inline]));
    assert_reason(&error, ErrorKind::Permanent, Reason::Settings);
}

#[test]
fn every_fault_is_survived() {
    let server = fake();
    let account = account(&server, "sa@x.iam.gserviceaccount.com");
    let proxy = Proxy::before(server.port);
    let settings = [
        ("service-account-file", account.as_str()),
        ("read-timeout", "1s"),
    ];
    let storage = open(proxy.0.port, "gs://test/p", &settings).unwrap();
    survives_faults(&proxy, &*storage);
}

#[test]
fn a_damaged_upload_is_refused_and_sent_again() {
    let server = fake();
    let account = account(&server, "sa@x.iam.gserviceaccount.com");
    let proxy = Proxy::before(server.port);
    let settings = [
        ("service-account-file", account.as_str()),
        ("storage-class", "NEARLINE"),
    ];
    let storage = open(proxy.0.port, "gs://test/p", &settings).unwrap();
    let pack = Bytes::from([b"\x89LARDER\n\x01\x03".as_slice(), &[0; 54]].concat());
    proxy.break_next("flip", 1);
    storage.put("packs/ab/ab", pack.clone()).unwrap();
    assert_eq!(proxy.broken(), 1);
    assert_eq!(storage.get("packs/ab/ab", 99).unwrap(), pack);
    let classes = proxy.headers("PUT", "ab", "x-goog-storage-class");
    assert_eq!(classes, vec![Some("NEARLINE".to_owned()); 2]);
}

#[test]
fn a_repository_lives_in_a_bucket() {
    let server = fake();
    let account = account(&server, "sa@x.iam.gserviceaccount.com");
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let settings = [
        ("endpoint", endpoint.as_str()),
        ("service-account-file", &account),
    ];
    crate::life::live("gs://test/larder", &settings);
}

#[test]
fn a_bucket_of_the_users_keeps_its_keys() {
    let server = fake();
    let account = account(&server, "sa@x.iam.gserviceaccount.com");
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let settings = [
        ("endpoint", endpoint.as_str()),
        ("retry-for", "60s"),
        ("service-account-file", &account),
    ];
    let bucket = super::bucket::open("gs://test/p", &settings).unwrap();
    super::bucket::round_trip(bucket.as_ref(), &["../x", "a", "a/", "a//b", "a/b", "ä"]);
}
