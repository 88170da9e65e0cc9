//! Feeds: keys of a bucket that somebody else saw change.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use percent_encoding::percent_decode;
use serde::Deserialize;

use crate::error::{EngineError, Result};
use crate::storage::bucket::KEY_BYTES;

/// Bytes of a line at most: a notification may name some hundred keys.
const LINE_BYTES: u64 = 4 << 20;

/// How the lines of a feed are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A key a line, as it is.
    Keys,
    /// A notification of S3, EventBridge or Google a line, as JSON.
    Notifications,
    /// An S3 inventory in CSV: bucket and key first.
    Inventory,
}

/// Reads the feed in a file; see [`read`].
///
/// # Errors
/// `File` if it cannot be opened, and what [`read`] answers.
pub fn read_file(
    path: &Path,
    bucket: &str,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).map_err(|source| EngineError::File {
        operation: "read the changed keys in",
        path: path.to_owned(),
        source,
    })?;
    read(&mut BufReader::new(file), bucket, take)
}

/// Reads a feed, and hands on each key of the bucket `bucket` (as it describes itself) below its prefix,
/// in the order of the feed.
///
/// The first line tells in which form it is.
///
/// # Errors
/// `Request` for what is no feed, with the number of the line; what reading answers; what `take` does.
pub fn read(
    input: &mut dyn BufRead,
    bucket: &str,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let place = Place::of(bucket);
    let mut form = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let failed = |error| refused(number, format!("cannot be read: {error}"));
        let limited = &mut (&mut *input).take(LINE_BYTES);
        let length = limited.read_until(b'\n', &mut line).map_err(failed)?;
        if length == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if length as u64 == LINE_BYTES {
            return Err(refused(number, "is too long".to_owned()));
        }
        if line.is_empty() {
            continue;
        }
        let form = *form.get_or_insert_with(|| form_of(&line));
        let keys = match form {
            Form::Keys => vec![line.clone()],
            Form::Notifications => place.notified(&line).map_err(|why| refused(number, why))?,
            Form::Inventory => {
                let key = place
                    .inventoried(&line)
                    .map_err(|why| refused(number, why))?;
                key.into_iter().collect()
            }
        };
        for key in keys {
            if key.len() > KEY_BYTES {
                return Err(refused(number, "has a key that is too long".to_owned()));
            }
            if let Some(key) = key.strip_prefix(place.prefix.as_bytes()) {
                take(key)?;
            }
        }
    }
    Ok(())
}

fn refused(number: u64, why: String) -> EngineError {
    EngineError::Request(format!(
        "line {number} of the changed keys {why}; it has to be a list of keys, one a line, notifications as JSON, one a line, or an inventory in CSV"
    ))
}

fn form_of(line: &[u8]) -> Form {
    match line {
        [b'{', ..] if serde_json::from_slice::<Notification>(line).is_ok() => Form::Notifications,
        [b'"', ..] if split_csv(line).is_some() => Form::Inventory,
        _ => Form::Keys,
    }
}

/// A bucket's name, and what the keys in it begin with that are backed up.
struct Place<'a> {
    name: &'a str,
    prefix: Cow<'a, str>,
}

impl<'a> Place<'a> {
    fn of(bucket: &'a str) -> Self {
        let path = bucket.split_once("://").map_or(bucket, |(_, path)| path);
        match path.split_once('/') {
            Some((name, prefix)) => Self {
                name,
                prefix: Cow::Owned(format!("{prefix}/")),
            },
            None => Self {
                name: path,
                prefix: Cow::Borrowed(""),
            },
        }
    }

    /// Gives the keys that a notification names of this bucket.
    fn notified(&self, line: &[u8]) -> std::result::Result<Vec<Vec<u8>>, String> {
        let notification: Notification =
            serde_json::from_slice(line).map_err(|error| format!("is no notification: {error}"))?;
        let mut keys = Vec::new();
        for record in notification.records {
            if record.s3.bucket.name == self.name {
                keys.push(form_decoded(record.s3.object.key.as_bytes()));
            }
        }
        if let Some(detail) = notification.detail
            && detail.bucket.name == self.name
        {
            keys.push(detail.object.key.into_bytes());
        }
        if notification.kind.as_deref() == Some("storage#object")
            && notification.bucket.as_deref() == Some(self.name)
        {
            keys.extend(notification.name.map(String::into_bytes));
        }
        Ok(keys)
    }

    /// Gives the key that a line of an inventory names, if it is of this bucket.
    fn inventoried(&self, line: &[u8]) -> std::result::Result<Option<Vec<u8>>, String> {
        let (bucket, key) = split_csv(line)
            .ok_or("does not begin with a bucket and a key, both in quotation marks")?;
        let is_ours = bucket == self.name.as_bytes();
        Ok(is_ours.then(|| form_decoded(key)))
    }
}

/// Takes the first two fields of a line of CSV, which are in quotation marks and have none in them.
fn split_csv(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = line.strip_prefix(b"\"")?.split(|byte| *byte == b'"');
    let (bucket, comma, key) = (parts.next()?, parts.next()?, parts.next()?);
    // What ends the key's field is a mark, too.
    parts.next()?;
    (comma == b",").then_some((bucket, key))
}

/// Decodes a key as forms encode it: `+` for a space, `%` and two hex digits for any byte.
fn form_decoded(key: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = key
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&spaced).collect()
}

/// What is read of a notification: S3 has records, EventBridge a detail, Google names the object itself.
#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
    detail: Option<Detail>,
    kind: Option<String>,
    bucket: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    s3: Detail,
}

#[derive(Deserialize)]
struct Detail {
    bucket: BucketName,
    object: ObjectKey,
}

#[derive(Deserialize)]
struct BucketName {
    name: String,
}

#[derive(Deserialize)]
struct ObjectKey {
    key: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn keys(feed: &str, bucket: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        read(&mut feed.as_bytes(), bucket, &mut |key| {
            keys.push(String::from_utf8_lossy(key).into_owned());
            Ok(())
        })?;
        Ok(keys)
    }

    #[test]
    fn keys_are_taken_as_they_are_below_the_prefix() {
        let feed = "b\na/b c+%20\n\nother\na/\n a/x\na/é";
        assert_eq!(
            keys(feed, "s3://bucket").unwrap(),
            ["b", "a/b c+%20", "other", "a/", " a/x", "a/é"]
        );
        assert_eq!(keys(feed, "s3://bucket/a").unwrap(), ["b c+%20", "", "é"]);
        assert!(keys("", "s3://bucket").unwrap().is_empty());
        // What is no notification and no inventory is a key.
        let odd = "{not json\n\"quoted\"";
        assert_eq!(keys(odd, "s3://b").unwrap(), ["{not json", "\"quoted\""]);
    }

    #[test]
    fn notifications_name_keys_of_their_bucket() {
        let feed = concat!(
            r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"p/a+b%2Fc%C3%A9","size":3}}},"#,
            r#"{"eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"b"},"object":{"key":"p/gone"}}},"#,
            r#"{"s3":{"bucket":{"name":"other"},"object":{"key":"p/x"}}}]}"#,
            "\n",
            r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}"#,
            "\n",
            r#"{"detail-type":"Object Created","detail":{"bucket":{"name":"b"},"object":{"key":"p/a+b"}}}"#,
            "\n",
            r#"{"kind":"storage#object","bucket":"b","name":"p/g"}"#,
            "\n",
        );
        let below = ["a b/cé", "gone", "a+b", "g"];
        assert_eq!(keys(feed, "s3://b/p").unwrap(), below);
        assert!(keys(feed, "s3://b/q").unwrap().is_empty());
        let torn = format!("{feed}{{\"Records\":[");
        let error = keys(&torn, "s3://b").unwrap_err().to_string();
        assert!(error.contains("line 5 of the changed keys"), "{error}");
    }

    #[test]
    fn an_inventory_names_bucket_and_key_first() {
        let feed = "\"b\",\"p/a%2Fb+c\",\"12\",\"2026-11-01T00:00:00.000Z\"\n\"other\",\"p/x\"\n\"b\",\"p/%22\"\n";
        assert_eq!(keys(feed, "s3://b/p").unwrap(), ["a/b c", "\""]);
        let error = keys(&format!("{feed}p/x\n"), "s3://b").unwrap_err();
        assert!(error.to_string().contains("line 4"), "{error}");
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_kept() {
        let long = "k".repeat(KEY_BYTES + 1);
        assert!(keys(&long, "s3://b").is_err());
        let endless = "k".repeat(usize::try_from(LINE_BYTES).unwrap() + 1);
        let error = keys(&endless, "s3://b").unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("too long"));
    }
}
