//! What the headers of an answer say of an object: pure.

use http::HeaderMap;
use jiff::Timestamp;

use super::pages;
use crate::bucket::{HEADERS, Properties};

/// What the headers of an answer say of an object.
#[derive(Default)]
pub(super) struct Facts {
    pub length: Option<u64>,
    /// Where the part begins, and how long the whole is.
    pub range: Option<(u64, u64)>,
    pub modified: Option<Timestamp>,
    pub etag: String,
    pub version: String,
    pub tags: u64,
    pub properties: Properties,
}

impl Facts {
    /// Reads them; `own` is what the store's own headers begin with.
    pub fn read(headers: &HeaderMap, own: &str) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut facts = Self {
            length: text("content-length").and_then(|value| value.parse().ok()),
            range: text("content-range").and_then(content_range),
            modified: text("last-modified").and_then(http_time),
            etag: pages::unquoted(text("etag").unwrap_or_default()).to_owned(),
            tags: ["x-amz-tagging-count", "x-ms-tag-count"]
                .into_iter()
                .find_map(text)
                .and_then(|value| value.parse().ok())
                .unwrap_or(0),
            ..Self::default()
        };
        let version = [format!("{own}version-id"), format!("{own}generation")];
        let version = version.iter().find_map(|name| text(name));
        facts.version = version
            .filter(|id| *id != "null")
            .unwrap_or_default()
            .to_owned();
        let meta = format!("{own}meta-");
        for (name, value) in headers {
            let name = name.as_str();
            let property = match name.strip_prefix(&meta) {
                Some(name) => [b"meta/", name.as_bytes()].concat(),
                None if HEADERS.contains(&name) => name.as_bytes().to_vec(),
                None => continue,
            };
            facts.properties.insert(property, value.as_bytes().to_vec());
        }
        facts
    }
}

fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, whole.parse().ok()?))
}

/// Reads a time as headers have it.
pub(super) fn http_time(text: &str) -> Option<Timestamp> {
    Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn headers_tell_what_they_hold_and_no_more() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| {
                    let name = HeaderName::from_static(name);
                    (name, HeaderValue::from_static(value))
                })
                .collect()
        };
        let given = headers(&[
            ("content-length", "4"),
            ("content-range", "bytes 3-6/10"),
            ("content-type", "text/plain"),
            ("etag", "\"e1\""),
            ("last-modified", "Sun, 01 Nov 2026 00:00:07 GMT"),
            ("server", "s"),
            ("x-amz-meta-one", "1"),
            ("x-amz-tagging-count", "2"),
            ("x-amz-version-id", "v1"),
            ("x-goog-meta-two", "2"),
        ]);
        let facts = Facts::read(&given, "x-amz-");
        assert_eq!((facts.length, facts.range), (Some(4), Some((3, 10))));
        assert_eq!((facts.etag.as_str(), facts.version.as_str()), ("e1", "v1"));
        assert_eq!(facts.modified.unwrap().as_second() % 60, 7);
        assert_eq!(facts.tags, 2);
        let names: Vec<&[u8]> = facts.properties.keys().map(Vec::as_slice).collect();
        assert_eq!(names, [&b"content-type"[..], b"meta/one"]);
        let of_azure = headers(&[
            ("x-ms-meta-two", "2"),
            ("x-ms-tag-count", "3"),
            ("x-ms-version", "2023-11-03"),
            ("x-ms-version-id", "v2"),
        ]);
        let facts = Facts::read(&of_azure, "x-ms-");
        assert_eq!((facts.version.as_str(), facts.tags), ("v2", 3));
        assert!(facts.properties.keys().eq([b"meta/two"]));
        // A bucket without versions says so by this word.
        let facts = Facts::read(&headers(&[("x-amz-version-id", "null")]), "x-amz-");
        assert!(facts.version.is_empty() && facts.length.is_none() && facts.modified.is_none());
        assert!(facts.range.is_none());
        for wrong in ["bytes */10", "bytes 3-6/*", "3-6/10"] {
            assert_eq!(content_range(wrong), None);
        }
    }
}
