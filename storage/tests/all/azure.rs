//! Azure Blob Storage against Azurite, and the user's containers on a fake, too.

use std::sync::Arc;

use bytes::Bytes;
use larder_storage::bucket::{self, Answer, Ask, Bucket, PageFrom};
use larder_storage::error::{ErrorKind, Reason};
use larder_storage::thaw::{Readiness, Thaw, Tier};

use super::bucket::{got, keys, open, properties, round_trip, whole};
use super::cloud::{Proxy, recipe};
use super::servers::Server;

/// Keys that URLs or careless programs would change; Azure has none with control characters.
const HURTFUL: [&str; 11] = [
    "/",
    "/a",
    "a",
    "a b+c?d#e%2F&f=g",
    "a/",
    "a//b",
    "a/b",
    "o",
    "ä",
    "a\"<&>'",
    "€/😀",
];

fn fake() -> Server {
    Server::start(|_, port| {
        let mut command = recipe("fakeazure.py");
        command.arg(port.to_string());
        command
    })
}

fn on_fake(port: u16, url: &str, more: &[(&str, &str)]) -> Arc<dyn Bucket> {
    let endpoint = format!("http://127.0.0.1:{port}/account");
    let settings = [
        ("account", "account"),
        ("access-key", "aHVudGVyMg=="),
        ("endpoint", endpoint.as_str()),
        ("retry-for", "20s"),
    ];
    open(url, &[&settings, more].concat()).unwrap()
}

/// Writes blobs with all that they can be stored with, and finds and reads them.
fn keeps_what_blobs_are_stored_with(bucket: &dyn Bucket) {
    let stored_with = properties(&[
        ("cache-control", "no-cache"),
        ("content-disposition", "attachment"),
        ("content-encoding", "x-own"),
        ("content-language", "de"),
        ("content-type", "text/x-own"),
        ("meta/one", "1"),
        ("meta/two", "a b"),
        ("tag/k", "v =+"),
        ("tag/l", ""),
    ]);
    let mut given = stored_with.clone();
    // Azure has no header of this name.
    given.insert(
        b"expires".to_vec(),
        b"Sun, 01 Nov 2026 00:00:07 GMT".to_vec(),
    );
    given.insert(bucket::CLASS.as_bytes().to_vec(), b"Cool".to_vec());
    let digits = Bytes::from_static(b"0123456789");
    bucket.put(b"o", digits, &given).unwrap();
    bucket
        .put(b"plain", Bytes::new(), &properties(&[]))
        .unwrap();
    let object = got(bucket, "o", &whole());
    assert_eq!(
        (object.bytes.as_ref(), object.size),
        (&b"0123456789"[..], 10)
    );
    assert_eq!(object.properties, stored_with);
    let tags = properties(&[("tag/k", "v =+"), ("tag/l", "")]);
    assert_eq!(bucket.tags(b"o").unwrap(), Some(tags));
    assert_eq!(bucket.tags(b"plain").unwrap(), Some(properties(&[])));
    assert_eq!(bucket.tags(b"missing").unwrap(), None);
    let page = bucket.page(PageFrom::Start).unwrap();
    let listed = &page.objects[0];
    assert_eq!(
        (listed.etag.as_str(), listed.size),
        (object.etag.as_str(), 10)
    );
    assert_eq!(listed.modified, object.modified);
    // A tier that nobody chose is the account's own.
    let classes: Vec<&str> = page.objects.iter().map(|one| one.class.as_str()).collect();
    assert_eq!(classes, ["Cool", ""]);
    ranges_and_conditions_hold(bucket, &object.etag);
    bucket.delete(b"o").unwrap();
    bucket.delete(b"plain").unwrap();
}

fn ranges_and_conditions_hold(bucket: &dyn Bucket, etag: &str) {
    let part = Ask {
        range: Some((3, 4)),
        if_match: Some(etag),
        version: None,
        bytes_max: 4,
    };
    let found = got(bucket, "o", &part);
    assert_eq!((found.bytes.as_ref(), found.size), (&b"3456"[..], 10));
    let end = Ask {
        range: Some((8, 100)),
        bytes_max: 100,
        ..part
    };
    assert_eq!(got(bucket, "o", &end).bytes, "89");
    let behind = Ask {
        range: Some((10, 1)),
        ..part
    };
    let other = Ask {
        if_match: Some("0x0"),
        ..part
    };
    let small = Ask {
        range: None,
        bytes_max: 9,
        ..part
    };
    for changed in [behind, other, small] {
        let answer = bucket.get(b"o", &changed).unwrap();
        assert!(matches!(answer, Answer::Changed), "{answer:?}");
    }
}

/// Writes a blob in blocks, and another that is given up.
fn writes_in_blocks(bucket: &dyn Bucket) {
    let stored_with = properties(&[
        ("content-type", "text/x-own"),
        ("meta/one", "1"),
        ("tag/k", "v"),
    ]);
    let upload = bucket.begin(b"a//large", &stored_with).unwrap();
    let first = Bytes::from(vec![1; 5 << 20]);
    let parts = [
        bucket.part(b"a//large", &upload, 1, first).unwrap(),
        bucket
            .part(b"a//large", &upload, 2, Bytes::from_static(b"end"))
            .unwrap(),
    ];
    assert!(keys(bucket).is_empty());
    let completed = bucket.complete(b"a//large", &upload, &parts, &stored_with);
    completed.unwrap();
    let upload = bucket.begin(b"a//large", &stored_with).unwrap();
    let never = Bytes::from_static(b"x");
    bucket.part(b"a//large", &upload, 1, never).unwrap();
    bucket.abort(b"a//large", &upload).unwrap();
    assert!(bucket.uploads().unwrap().is_empty());
    let tail = Ask {
        range: Some(((5 << 20) - 1, 100)),
        if_match: None,
        version: None,
        bytes_max: 100,
    };
    assert_eq!(got(bucket, "a//large", &tail).bytes.as_ref(), b"\x01end");
    let head = Ask {
        range: Some((0, 1)),
        ..tail
    };
    assert_eq!(got(bucket, "a//large", &head).properties, stored_with);
    assert_eq!(keys(bucket), ["a//large"]);
    bucket.delete(b"a//large").unwrap();
}

#[test]
fn a_container_of_the_users_keeps_keys_and_what_blobs_were_stored_with() {
    let server = fake();
    for url in ["az://test", "az://test/some prefix+/ü"] {
        let bucket = on_fake(server.port, url, &[]);
        round_trip(bucket.as_ref(), &HURTFUL);
        keeps_what_blobs_are_stored_with(bucket.as_ref());
        writes_in_blocks(bucket.as_ref());
    }
    refuses_names_that_would_be_changed(on_fake(server.port, "az://test", &[]).as_ref());
}

/// Writes nothing under names that Azure would change.
fn refuses_names_that_would_be_changed(bucket: &dyn Bucket) {
    let upload = bucket.begin(b"a", &properties(&[])).unwrap();
    for key in ["../x", "a/./b", "a/..", "a./b", "a.", "a\\b"] {
        let key = key.as_bytes();
        for outcome in [
            bucket.put(key, Bytes::new(), &properties(&[])),
            bucket.begin(key, &properties(&[])).map(drop),
            bucket.part(key, &upload, 1, Bytes::new()).map(drop),
            bucket.complete(key, &upload, &[], &properties(&[])),
        ] {
            let error = outcome.unwrap_err();
            assert_eq!(
                (error.kind, error.reason),
                (ErrorKind::Permanent, Reason::Settings)
            );
            assert!(error.to_string().contains("another name"), "{error}");
        }
    }
    assert!(keys(bucket).is_empty());
}

#[test]
fn tiers_and_refusals_are_told_apart() {
    let server = fake();
    let bucket = on_fake(server.port, "az://test/p", &[("access-tier", "Archive")]);
    let warm = properties(&[(bucket::CLASS, "Hot")]);
    bucket
        .put(b"cold", Bytes::from_static(b"x"), &warm)
        .unwrap();
    let page = bucket.page(PageFrom::Start).unwrap();
    assert!(bucket::is_cold(page.objects[0].class.as_bytes()));
    let answer = bucket.get(b"cold", &whole()).unwrap();
    assert!(matches!(answer, Answer::Cold), "{answer:?}");
    let missing = on_fake(server.port, "az://missing", &[]);
    let error = missing.page(PageFrom::Start).unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (ErrorKind::NotFound, Reason::NoBucket)
    );
    // Neither is text that can be signed, nor a name that Azure takes.
    for (name, value) in [("meta/one", "ü"), ("meta/one-two", "1")] {
        let error = bucket.put(b"o", Bytes::new(), &properties(&[(name, value)]));
        assert_eq!(error.unwrap_err().kind, ErrorKind::Permanent);
    }
}

#[test]
fn requests_that_fail_for_the_moment_are_sent_again() {
    let server = fake();
    let proxy = Proxy::before(server.port);
    let bucket = on_fake(proxy.0.port, "az://test/p", &[]);
    let bytes = Bytes::from(vec![7; 300_000]);
    for mode in ["503", "500", "rst", "flip"] {
        proxy.break_next(mode, 1);
        bucket.put(b"o", bytes.clone(), &properties(&[])).unwrap();
        assert_eq!(proxy.broken(), 1, "{mode}");
    }
    for mode in ["503", "rst", "trunc"] {
        proxy.break_next(mode, 1);
        assert_eq!(got(bucket.as_ref(), "o", &whole()).bytes, bytes, "{mode}");
        assert_eq!(proxy.broken(), 1, "{mode}");
        proxy.break_next(mode, 1);
        assert_eq!(keys(bucket.as_ref()), ["o"], "{mode}");
        assert_eq!(proxy.broken(), 1, "{mode}");
    }
}

/// Brings a blob back out of the archive, which can be asked for again meanwhile.
fn brings_back(bucket: &dyn Bucket, is_at_once: bool) {
    let cold = properties(&[(bucket::CLASS, "Archive")]);
    bucket
        .put(b"cold", Bytes::from_static(b"c"), &cold)
        .unwrap();
    bucket
        .put(b"warm", Bytes::from_static(b"w"), &properties(&[]))
        .unwrap();
    let readiness = |key: &str| {
        let warmth = bucket.warmth(key.as_bytes(), None).unwrap();
        warmth.map(|warmth| (warmth.readiness, warmth.size_bytes))
    };
    assert_eq!(readiness("missing"), None);
    assert_eq!(readiness("warm"), Some((Readiness::Warm, 1)));
    assert_eq!(readiness("cold"), Some((Readiness::Cold, 1)));
    let answer = bucket.get(b"cold", &whole()).unwrap();
    assert!(matches!(answer, Answer::Cold), "{answer:?}");
    let how = Thaw {
        tier: Tier::Expedited,
        days: 1,
    };
    let warmth = bucket.warmth(b"cold", None).unwrap().unwrap();
    bucket.thaw(b"cold", None, &warmth, &how).unwrap();
    if !is_at_once {
        assert_eq!(readiness("cold"), Some((Readiness::Thawing, 1)));
    }
    bucket.thaw(b"cold", None, &warmth, &how).unwrap();
    assert!((0..10).any(|_| readiness("cold") == Some((Readiness::Warm, 1))));
    assert_eq!(got(bucket, "cold", &whole()).bytes, "c");
}

#[test]
fn blobs_are_brought_back_out_of_the_archive() {
    let server = fake();
    brings_back(on_fake(server.port, "az://test/p", &[]).as_ref(), false);
}

/// Against a server that takes long to install.
mod heavy {
    use std::process::Command;
    use std::sync::Arc;

    use bytes::Bytes;
    use larder_storage::error::{ErrorKind, Reason, Result};
    use larder_storage::{Mode, Storage, contract};

    use super::super::cloud::{
        Proxy, assert_reason, fresh, output, recipe, refused, survives_faults,
    };
    use super::super::servers::{self, Certificates, Server, free_port, node};

    const ACCOUNT: &str = "devstoreaccount1";
    /// The one that Azurite is known by.
    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    fn azurite(arguments: &[&str]) -> Server {
        Server::start(|folder, port| {
            let mut command = Command::new(node("azurite-blob"));
            command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
            command.arg("-l").arg(folder).args(arguments);
            command
        })
    }

    /// Makes the container `test`, and gives a shared access signature.
    fn prepare(endpoint: &str) -> String {
        output(recipe("mkaz.py").args([ACCOUNT, KEY, endpoint, "test"]))
            .trim()
            .to_owned()
    }

    fn open_at(endpoint: &str, url: &str, settings: &[(&str, &str)]) -> Result<Arc<dyn Storage>> {
        let endpoint = format!("{endpoint}/{ACCOUNT}");
        let mut all = vec![
            ("endpoint", endpoint.as_str()),
            ("account", ACCOUNT),
            ("retry-for", "60s"),
        ];
        all.extend(settings);
        servers::open(url, &all, Mode::Open)
    }

    fn at(port: u16) -> String {
        format!("http://127.0.0.1:{port}")
    }

    #[test]
    fn azurite_keeps_the_contract_with_key_and_signature() {
        let server = azurite(&[]);
        let sas = prepare(&at(server.port));
        let next = fresh("az://test/deep");
        contract::run(&|| open_at(&at(server.port), &next(), &[("access-key", KEY)]).unwrap());
        let storage = open_at(&at(server.port), "az://test/sas", &[("sas-token", &sas)]).unwrap();
        storage.put("a/b", Bytes::from_static(b"x")).unwrap();
        assert_eq!(storage.get("a/b", 9).unwrap(), "x");
    }

    #[test]
    fn a_container_of_the_users_keeps_keys_and_what_blobs_were_stored_with() {
        let server = azurite(&[]);
        let sas = prepare(&at(server.port));
        let endpoint = format!("{}/{ACCOUNT}", at(server.port));
        for (url, secret) in [
            ("az://test", ("access-key", KEY)),
            ("az://test/some prefix+/ü", ("sas-token", sas.as_str())),
        ] {
            let settings = [
                ("endpoint", endpoint.as_str()),
                ("account", ACCOUNT),
                ("retry-for", "60s"),
                secret,
            ];
            let bucket = super::open(url, &settings).unwrap();
            super::round_trip(bucket.as_ref(), &super::HURTFUL);
            super::keeps_what_blobs_are_stored_with(bucket.as_ref());
            super::writes_in_blocks(bucket.as_ref());
            super::brings_back(bucket.as_ref(), true);
        }
    }

    #[test]
    fn what_cannot_be_opened_is_told_apart() {
        let server = azurite(&[]);
        prepare(&at(server.port));
        let key = ("access-key", KEY);
        let open = |url: &str, settings: &[(&str, &str)]| {
            refused(open_at(&at(server.port), url, settings))
        };
        let wrong = ("access-key", "aHVudGVyMg==");
        assert_reason(
            &open("az://test/p", &[wrong]),
            ErrorKind::Denied,
            Reason::WrongSecret,
        );
        let error = open("az://missing/p", &[key]);
        assert_reason(&error, ErrorKind::NotFound, Reason::NoBucket);
        let error = refused(open_at(&at(free_port()), "az://test/p", &[key]));
        assert_reason(&error, ErrorKind::Permanent, Reason::Refused);
        assert_reason(
            &open("az://test/p", &[]),
            ErrorKind::Denied,
            Reason::NoCredentials,
        );
    }

    #[test]
    fn a_client_with_its_secret_is_let_in_over_tls() {
        let certificates = Certificates::make();
        let (pem, key) = (certificates.path("srv.pem"), certificates.path("srv.key"));
        let server = azurite(&["--cert", &pem, "--key", &key, "--oauth", "basic"]);
        let endpoint = format!("https://127.0.0.1:{}", server.port);
        prepare(&endpoint);
        let oauth = Server::start(|_, port| {
            let mut command = recipe("fakeoauth.py");
            command.arg(port.to_string());
            command
        });
        let (authority, ca) = (at(oauth.port), certificates.path("ca.pem"));
        let open = |secret: &str| {
            let settings = [
                ("tenant-id", "t"),
                ("client-id", "c"),
                ("client-secret", secret),
                ("authority-host", &authority),
                ("ca-certificate", &ca),
            ];
            open_at(&endpoint, "az://test/p", &settings)
        };
        let storage = open("good").unwrap();
        storage.put("a/b", Bytes::from_static(b"x")).unwrap();
        let error = refused(open("hunter2"));
        assert_reason(&error, ErrorKind::Denied, Reason::WrongSecret);
        let error = refused(open_at(&endpoint, "az://test/p", &[("access-key", KEY)]));
        assert_reason(&error, ErrorKind::Permanent, Reason::Certificate);
    }

    #[test]
    fn every_fault_is_survived() {
        let server = azurite(&[]);
        prepare(&at(server.port));
        let proxy = Proxy::before(server.port);
        let settings = [
            ("access-key", KEY),
            ("read-timeout", "2s"),
            ("access-tier", "Cool"),
        ];
        let storage = open_at(&at(proxy.0.port), "az://test/p", &settings).unwrap();
        survives_faults(&proxy, &*storage);
        let pack = Bytes::from([b"\x89LARDER\n\x01\x03".as_slice(), &[0; 54]].concat());
        proxy.break_next("flip", 1);
        storage.put("packs/ab/ab", pack.clone()).unwrap();
        assert_eq!(proxy.broken(), 1);
        assert_eq!(storage.get("packs/ab/ab", 99).unwrap(), pack);
        let tiers = proxy.headers("PUT", "packs/ab/ab", "x-ms-access-tier");
        assert_eq!(tiers, vec![Some("Cool".to_owned()); 2]);
        assert_eq!(
            proxy.headers("PUT", "created", "x-ms-access-tier").pop(),
            Some(None)
        );
    }

    #[test]
    fn a_repository_lives_in_a_container() {
        let server = azurite(&[]);
        prepare(&at(server.port));
        let endpoint = format!("{}/{ACCOUNT}", at(server.port));
        let settings = [
            ("endpoint", endpoint.as_str()),
            ("account", ACCOUNT),
            ("access-key", KEY),
        ];
        crate::life::live("az://test/larder", &settings);
    }
}
