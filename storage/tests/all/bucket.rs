//! The user's own buckets, on moto and the fakes of Google and Azure.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use larder_storage::bucket::{self, Answer, Ask, Bucket, Got, PageFrom, Properties};
use larder_storage::error::{ErrorKind, Reason, Result};
use larder_storage::location::{Layers, Location};

use super::cloud::{output, recipe};
use super::servers::{Server, python};

/// Keys that file systems, URLs or careless programs would change.
const HURTFUL: [&str; 14] = [
    "../x",
    "/",
    "/a",
    "a",
    "a b+c?d#e%2F&f=g",
    "a/",
    "a/./b",
    "a//b",
    "a/b",
    "a/b/..",
    "o",
    "ä",
    "a\"<&>'",
    "a\u{1}b",
];

fn moto() -> Server {
    let server = Server::start(|_, port| {
        let mut command = Command::new(python("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    });
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    output(recipe("bucket.py").args([endpoint.as_str(), "test"]));
    server
}

/// Opens the bucket at a URL with settings as larder.toml would have them.
pub fn open(url: &str, settings: &[(&str, &str)]) -> Result<Arc<dyn Bucket>> {
    let file = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into()))
        .collect();
    let layers = Layers {
        file: Some(&file),
        ..Layers::default()
    };
    bucket::open(
        &Location::new(url, &layers)?,
        Arc::new(AtomicBool::new(false)),
    )
}

fn on_moto(server: &Server, url: &str) -> Arc<dyn Bucket> {
    on_moto_with(server, url, &[])
}

fn on_moto_with(server: &Server, url: &str, more: &[(&str, &str)]) -> Arc<dyn Bucket> {
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let settings = [
        ("access-key-id", "AK"),
        ("secret-access-key", "hunter2"),
        ("endpoint", endpoint.as_str()),
        ("retry-for", "20s"),
    ];
    open(url, &[&settings, more].concat()).unwrap()
}

pub fn whole() -> Ask<'static> {
    Ask {
        range: None,
        if_match: None,
        version: None,
        bytes_max: 1 << 20,
    }
}

pub fn got(bucket: &dyn Bucket, key: &str, ask: &Ask<'_>) -> Got {
    match bucket.get(key.as_bytes(), ask).unwrap() {
        Answer::Object(got) => *got,
        other => panic!("{key:?}: {other:?}"),
    }
}

pub fn keys(bucket: &dyn Bucket) -> Vec<String> {
    let (mut keys, mut next) = (Vec::new(), None);
    loop {
        let page = bucket
            .page(next.as_deref().map_or(PageFrom::Start, PageFrom::Next))
            .unwrap();
        let listed = page.objects.into_iter();
        keys.extend(listed.map(|object| String::from_utf8(object.key).unwrap()));
        next = page.next;
        if next.is_none() {
            return keys;
        }
    }
}

pub fn properties(pairs: &[(&str, &str)]) -> Properties {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

/// Writes objects under keys, finds them in the listing, reads and removes them.
pub fn round_trip(bucket: &dyn Bucket, all: &[&str]) {
    for key in all {
        let bytes = Bytes::from(format!("of {key}"));
        bucket
            .put(key.as_bytes(), bytes, &Properties::new())
            .unwrap();
    }
    let mut expected: Vec<String> = all.iter().map(|key| (*key).to_owned()).collect();
    expected.sort();
    assert_eq!(keys(bucket), expected);
    for key in all {
        assert_eq!(got(bucket, key, &whole()).bytes, format!("of {key}"));
        bucket.delete(key.as_bytes()).unwrap();
        bucket.delete(key.as_bytes()).unwrap();
        let answer = bucket.get(key.as_bytes(), &whole()).unwrap();
        assert!(matches!(answer, Answer::Missing), "{answer:?}");
    }
    assert!(keys(bucket).is_empty());
}

#[test]
fn keys_go_there_and_back_as_they_are() {
    let server = moto();
    for url in ["s3://test", "s3://test/some prefix+/ü"] {
        let bucket = on_moto(&server, url);
        round_trip(bucket.as_ref(), &HURTFUL);
    }
    let bucket = on_moto(&server, "s3://test");
    let error = bucket.get(b"..", &whole()).unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (ErrorKind::Permanent, Reason::Settings)
    );
}

#[test]
fn metadata_ranges_and_conditions_hold() {
    let server = moto();
    let bucket = on_moto(&server, "s3://test/p");
    let stored_with = properties(&[
        ("cache-control", "no-cache"),
        ("content-disposition", "attachment"),
        ("content-encoding", "x-own"),
        ("content-language", "de"),
        ("content-type", "text/x-own"),
        ("meta/one", "1"),
        ("meta/two", "a b"),
        ("tag/k", "v =+"),
    ]);
    bucket
        .put(b"o", Bytes::from_static(b"0123456789"), &stored_with)
        .unwrap();
    let object = got(bucket.as_ref(), "o", &whole());
    assert_eq!(
        (object.bytes.as_ref(), object.size),
        (&b"0123456789"[..], 10)
    );
    assert_eq!(object.properties, stored_with);
    let tags = properties(&[("tag/k", "v =+")]);
    assert!(bucket.has_tags());
    assert_eq!(bucket.tags(b"o").unwrap(), Some(tags));
    assert_eq!(bucket.tags(b"missing").unwrap(), None);
    let page = bucket.page(PageFrom::Start).unwrap();
    let listed = &page.objects[0];
    assert_eq!(
        (listed.etag.as_str(), listed.size),
        (object.etag.as_str(), 10)
    );
    assert_eq!(listed.class, "STANDARD");
    assert_eq!(
        listed.modified.unwrap().as_second(),
        object.modified.unwrap().as_second()
    );
    let part = Ask {
        range: Some((3, 4)),
        if_match: Some(&object.etag),
        version: None,
        bytes_max: 4,
    };
    let found = got(bucket.as_ref(), "o", &part);
    assert_eq!((found.bytes.as_ref(), found.size), (&b"3456"[..], 10));
    // Beyond its end a range is cut; behind it there is none.
    let end = Ask {
        range: Some((8, 100)),
        ..part
    };
    assert_eq!(
        got(
            bucket.as_ref(),
            "o",
            &Ask {
                bytes_max: 100,
                ..end
            }
        )
        .bytes,
        "89"
    );
    for changed in [
        Ask {
            range: Some((10, 1)),
            ..part
        },
        Ask {
            if_match: Some("another"),
            ..part
        },
        Ask {
            range: None,
            bytes_max: 9,
            ..part
        },
    ] {
        let answer = bucket.get(b"o", &changed).unwrap();
        assert!(matches!(answer, Answer::Changed), "{answer:?}");
    }
    let missing = on_moto(&server, "s3://missing")
        .page(PageFrom::Start)
        .unwrap_err();
    assert_eq!(
        (missing.kind, missing.reason),
        (ErrorKind::NotFound, Reason::NoBucket)
    );
}

#[test]
fn an_upload_in_parts_appears_whole_or_not_at_all() {
    let server = moto();
    let bucket = on_moto(&server, "s3://test/p");
    let stored_with = properties(&[("content-type", "text/x-own"), ("meta/one", "1")]);
    let upload = bucket.begin(b"../large", &stored_with).unwrap();
    let first = Bytes::from(vec![1; 5 << 20]);
    let parts = [
        bucket.part(b"../large", &upload, 1, first).unwrap(),
        bucket
            .part(b"../large", &upload, 2, Bytes::from_static(b"end"))
            .unwrap(),
    ];
    assert!(keys(bucket.as_ref()).is_empty());
    bucket
        .complete(b"../large", &upload, &parts, &stored_with)
        .unwrap();
    let tail = Ask {
        range: Some(((5 << 20) - 1, 100)),
        if_match: None,
        version: None,
        bytes_max: 100,
    };
    let object = got(bucket.as_ref(), "../large", &tail);
    assert_eq!(object.bytes.as_ref(), b"\x01end");
    assert_eq!(object.properties, stored_with);
    let upload = bucket.begin(b"other", &stored_with).unwrap();
    bucket
        .part(b"other", &upload, 1, Bytes::from_static(b"x"))
        .unwrap();
    let open = bucket.uploads().unwrap();
    let keys_open: Vec<&[u8]> = open.iter().map(|one| one.key.as_slice()).collect();
    assert_eq!(keys_open, [b"other"]);
    assert_eq!(open.first().map(|one| &one.upload), Some(&upload));
    bucket.abort(b"other", &upload).unwrap();
    assert!(bucket.uploads().unwrap().is_empty());
    assert_eq!(keys(bucket.as_ref()), ["../large"]);
}

#[test]
fn a_storage_class_is_given_and_the_setting_goes_before_it() {
    let server = moto();
    let class_of = |bucket: &dyn Bucket| {
        let page = bucket.page(PageFrom::Start).unwrap();
        page.objects.first().unwrap().class.clone()
    };
    let stored_with = properties(&[(bucket::CLASS, "STANDARD_IA")]);
    let bucket = on_moto(&server, "s3://test/p");
    bucket.put(b"o", Bytes::new(), &stored_with).unwrap();
    assert_eq!(class_of(bucket.as_ref()), "STANDARD_IA");
    let bucket = on_moto_with(&server, "s3://test/q", &[("storage-class", "ONEZONE_IA")]);
    bucket.put(b"o", Bytes::new(), &stored_with).unwrap();
    assert_eq!(class_of(bucket.as_ref()), "ONEZONE_IA");
}

#[test]
fn a_listing_has_as_many_pages_as_it_takes() {
    let server = moto();
    let bucket = on_moto(&server, "s3://test/many");
    for number in 0..1_005 {
        let key = format!("{number:04}");
        bucket
            .put(key.as_bytes(), Bytes::new(), &Properties::new())
            .unwrap();
    }
    let first = bucket.page(PageFrom::Start).unwrap();
    assert!(first.objects.len() < 1_005 && first.next.is_some());
    let expected: Vec<String> = (0..1_005).map(|number| format!("{number:04}")).collect();
    assert_eq!(keys(bucket.as_ref()), expected);
    // From a key on, below the prefix, whether there is such a key or not.
    for (behind, first) in [("0499", "0500"), ("04990", "0500"), ("!", "0000")] {
        let page = bucket.page(PageFrom::Behind(behind.as_bytes())).unwrap();
        assert_eq!(page.objects[0].key, first.as_bytes());
    }
    let last = bucket.page(PageFrom::Behind(b"1004")).unwrap();
    assert!(last.objects.is_empty() && last.next.is_none());
}

#[test]
fn what_is_no_bucket_is_refused() {
    for url in ["sftp://host/path", "webdav://host/path", "/folder"] {
        let error = open(url, &[]).unwrap_err();
        assert_eq!(
            (error.kind, error.reason),
            (ErrorKind::Permanent, Reason::Settings)
        );
    }
}
