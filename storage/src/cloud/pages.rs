//! What buckets answer in XML: pages of listings, tags, uploads. Pure, nothing is asked.

use std::fmt::Write as _;

use jiff::Timestamp;
use percent_encoding::percent_decode;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::listing;
use super::refusal::entity;
use crate::bucket::{KEY_BYTES, Listed, OpenUpload, PAGE_OBJECTS, Page, Upload};

/// Reads a page of a listing; keys lose the prefix.
///
/// # Errors
/// In words: for what is no whole page.
pub(super) fn page(text: &str, prefix: &str) -> Result<Page, String> {
    listing::whole(text)?;
    let mut raw = Raw::default();
    elements(text, &mut |path, value| raw.take(path, value))?;
    raw.finish(prefix)
}

/// A page as it stands in the answer.
#[derive(Default)]
struct Raw {
    objects: Vec<RawObject>,
    is_encoded: bool,
    /// Whether there are more pages; not all servers say.
    is_truncated: Option<bool>,
    count: Option<usize>,
    next: Option<String>,
}

/// An object as it stands in the answer.
#[derive(Default)]
pub(super) struct RawObject {
    pub key: Option<String>,
    pub size: Option<u64>,
    pub modified: Option<Timestamp>,
    pub etag: String,
    pub version: String,
    pub class: String,
}

impl Raw {
    fn take(&mut self, path: &[String], value: Option<&str>) -> Result<(), String> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let Some(value) = value else {
            if names == ["ListBucketResult", "Contents"] {
                if self.objects.len() >= PAGE_OBJECTS {
                    return Err(format!("the page has more than {PAGE_OBJECTS} objects"));
                }
                self.objects.push(RawObject::default());
            }
            return Ok(());
        };
        match names.as_slice() {
            ["ListBucketResult", "IsTruncated"] => self.is_truncated = Some(value == "true"),
            ["ListBucketResult", "EncodingType"] => self.is_encoded = value == "url",
            ["ListBucketResult", "KeyCount"] => self.count = value.parse().ok(),
            ["ListBucketResult", "NextContinuationToken"] if !value.is_empty() => {
                self.next = Some(value.to_owned());
            }
            ["ListBucketResult", "Contents", field] => {
                let object = self.objects.last_mut();
                object.map_or(Ok(()), |object| object.take(field, value))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, prefix: &str) -> Result<Page, String> {
        if self.count.is_some_and(|count| count != self.objects.len()) {
            return Err(format!(
                "the page says that it has {} objects, and has {}",
                self.count.unwrap_or_default(),
                self.objects.len()
            ));
        }
        match (self.is_truncated, &self.next) {
            (Some(true), None) => {
                return Err("the listing has more pages, but no token for the next one".to_owned());
            }
            (Some(false), Some(_)) => {
                return Err("the last page of the listing has a token for another one".to_owned());
            }
            _ => {}
        }
        let is_encoded = self.is_encoded;
        let objects = self.objects.into_iter();
        let objects: Result<Vec<Listed>, String> = objects
            .map(|object| object.finish(prefix, is_encoded))
            .collect();
        Ok(Page {
            objects: objects?,
            next: self.next,
        })
    }
}

impl RawObject {
    /// Takes the text of one of its fields.
    pub fn take(&mut self, field: &str, value: &str) -> Result<(), String> {
        match field {
            "Key" => self.key = Some(value.to_owned()),
            "Size" => {
                let size = value.parse();
                self.size = Some(size.map_err(|_| format!("{value:?} is no size"))?);
            }
            "LastModified" => {
                let time: Result<Timestamp, _> = value.parse();
                self.modified = Some(time.map_err(|_| format!("{value:?} is no time"))?);
            }
            "ETag" => self.etag = unquoted(value).to_owned(),
            "VersionId" | "Generation" => self.version = value.to_owned(),
            "StorageClass" => self.class = value.to_owned(),
            _ => {}
        }
        Ok(())
    }

    /// Checks it, and takes the prefix off its key.
    pub fn finish(self, prefix: &str, is_encoded: bool) -> Result<Listed, String> {
        let Some(key) = self.key else {
            return Err("an object of the listing has no key".to_owned());
        };
        let key = match is_encoded {
            true => percent_decode(key.replace('+', " ").as_bytes()).collect(),
            false => key.into_bytes(),
        };
        if key.len() > KEY_BYTES {
            return Err(format!("a key has more than {KEY_BYTES} bytes"));
        }
        let Some(below) = key.strip_prefix(prefix.as_bytes()) else {
            return Err("the listing has an object that does not begin with the prefix".to_owned());
        };
        let Some(size) = self.size else {
            return Err("an object of the listing has no size".to_owned());
        };
        Ok(Listed {
            key: below.to_vec(),
            size,
            modified: self.modified,
            etag: self.etag,
            version: self.version,
            class: self.class,
        })
    }
}

/// Takes the quotes of a tag away.
pub(super) fn unquoted(text: &str) -> &str {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text)
}

/// Reads the tags of an object.
///
/// # Errors
/// In words: for what is no list of tags.
pub(super) fn tags(text: &str) -> Result<Vec<(String, String)>, String> {
    const TAGS_MAX: usize = 100;
    let mut tags: Vec<(String, String)> = Vec::new();
    let mut is_list = false;
    elements(text, &mut |path, value| {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match (names.as_slice(), value) {
            // Azure calls it by another name, and what is in it by the same ones.
            (["Tagging" | "Tags"], None) => is_list = true,
            ([_, "TagSet", "Tag"], None) if tags.len() < TAGS_MAX => tags.push(Default::default()),
            ([_, "TagSet", "Tag"], None) => return Err("it has too many tags".to_owned()),
            ([_, "TagSet", "Tag", field], Some(value)) => {
                if let Some(tag) = tags.last_mut() {
                    match *field {
                        "Key" => value.clone_into(&mut tag.0),
                        "Value" => value.clone_into(&mut tag.1),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    match is_list {
        true => Ok(tags),
        false => Err("the answer is no list of tags".to_owned()),
    }
}

/// A page of open uploads.
#[derive(Default)]
pub(super) struct Uploads {
    pub open: Vec<OpenUpload>,
    /// The key and the upload that the next page is asked for by; none if this is the last one.
    pub next: Option<(String, String)>,
}

/// Reads a page of open uploads; keys lose the prefix.
///
/// # Errors
/// In words: for what is no such page.
pub(super) fn uploads(text: &str, prefix: &str) -> Result<Uploads, String> {
    const UPLOADS_MAX: usize = 1000;
    let mut raw: Vec<[String; 3]> = Vec::new();
    let (mut is_list, mut is_encoded, mut is_truncated) = (false, false, false);
    let (mut key_marker, mut id_marker) = (String::new(), String::new());
    elements(text, &mut |path, value| {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match (names.as_slice(), value) {
            (["ListMultipartUploadsResult"], None) => is_list = true,
            (["ListMultipartUploadsResult", "Upload"], None) if raw.len() < UPLOADS_MAX => {
                raw.push(Default::default());
            }
            (["ListMultipartUploadsResult", "Upload"], None) => {
                return Err(format!("the page has more than {UPLOADS_MAX} uploads"));
            }
            (["ListMultipartUploadsResult", "Upload", field], Some(value)) => {
                if let Some([key, id, begun]) = raw.last_mut() {
                    match *field {
                        "Key" => value.clone_into(key),
                        "UploadId" => value.clone_into(id),
                        "Initiated" => value.clone_into(begun),
                        _ => {}
                    }
                }
            }
            (["ListMultipartUploadsResult", field], Some(value)) => match *field {
                "EncodingType" => is_encoded = value == "url",
                "IsTruncated" => is_truncated = value == "true",
                "NextKeyMarker" => value.clone_into(&mut key_marker),
                "NextUploadIdMarker" => value.clone_into(&mut id_marker),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    })?;
    if !is_list {
        return Err("the answer is no list of uploads".to_owned());
    }
    let decoded = |key: &str| -> Vec<u8> {
        match is_encoded {
            true => percent_decode(key.replace('+', " ").as_bytes()).collect(),
            false => key.as_bytes().to_vec(),
        }
    };
    let mut open = Vec::new();
    for [key, id, begun] in raw {
        let key = decoded(&key);
        // Not all servers heed the prefix; and what has no time cannot be told to be old.
        if let (Some(below), Ok(begun)) = (key.strip_prefix(prefix.as_bytes()), begun.parse()) {
            open.push(OpenUpload {
                key: below.to_vec(),
                upload: Upload(id),
                begun,
            });
        }
    }
    let marker = String::from_utf8(decoded(&key_marker)).unwrap_or_default();
    let next = is_truncated && !marker.is_empty();
    Ok(Uploads {
        open,
        next: next.then_some((marker, id_marker)),
    })
}

/// Reads the id of an upload that was begun.
pub(super) fn upload_id(text: &str) -> Option<String> {
    let mut id = None;
    let read = elements(text, &mut |path, value| {
        if let ([_, name], Some(value)) = (path, value)
            && name == "UploadId"
        {
            id = Some(value.to_owned());
        }
        Ok(())
    });
    read.ok().and(id).filter(|id| !id.is_empty())
}

/// Says which parts an object is made of.
pub(super) fn complete(parts: &[String]) -> String {
    let mut text = String::from("<CompleteMultipartUpload>");
    for (number, etag) in (1..).zip(parts) {
        let etag = quick_xml::escape::escape(etag.as_str());
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        );
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

/// Takes the path of an element: without a text when it begins, with it when it ends.
pub(super) type Visit<'a> = dyn FnMut(&[String], Option<&str>) -> Result<(), String> + 'a;

/// Calls `visit` with the path of every element: without a text when it begins, with it when it ends.
///
/// An element whose text is said to be encoded has `Encoded` before its name.
pub(super) fn elements(text: &str, visit: &mut Visit<'_>) -> Result<(), String> {
    const DEPTH_MAX: usize = 16;
    let wrong = "the answer is no XML";
    let mut reader = Reader::from_str(text);
    let mut path: Vec<String> = Vec::new();
    let mut value = String::new();
    loop {
        match reader.read_event().map_err(|_| wrong.to_owned())? {
            Event::Start(tag) => {
                if path.len() >= DEPTH_MAX {
                    return Err("the answer is nested too deep".to_owned());
                }
                path.push(name_of(&tag));
                value.clear();
                visit(&path, None)?;
            }
            Event::Empty(tag) => {
                path.push(name_of(&tag));
                visit(&path, None)?;
                visit(&path, Some(""))?;
                path.pop();
            }
            Event::End(_) => {
                visit(&path, Some(&value))?;
                path.pop();
                value.clear();
            }
            Event::Text(text) => value.push_str(&text.decode().map_err(|_| wrong.to_owned())?),
            Event::CData(text) => value.push_str(&text.decode().map_err(|_| wrong.to_owned())?),
            Event::GeneralRef(reference) => {
                let numbered = reference.resolve_char_ref().ok().flatten();
                let named = || reference.decode().ok().and_then(|name| entity(&name));
                value.push(numbered.or_else(named).ok_or(wrong)?);
            }
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err("the answer is cut short".to_owned()),
            _ => {}
        }
    }
}

fn name_of(tag: &BytesStart<'_>) -> String {
    let name = tag.local_name();
    let name = String::from_utf8_lossy(name.as_ref());
    let encoded = tag.try_get_attribute("Encoded").ok().flatten();
    match encoded.is_some_and(|attribute| *attribute.value == *b"true") {
        true => format!("Encoded{name}"),
        false => name.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn listing(head: &str, keys: &[&str]) -> String {
        let objects: String = keys
            .iter()
            .map(|key| {
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-11-01T00:00:00.250Z</LastModified>\
                     <ETag>&quot;e1&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
            })
            .collect();
        format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\">{head}{objects}</ListBucketResult>"
        )
    }

    #[test]
    fn a_page_has_its_keys_as_they_are() {
        let text = listing(
            "<EncodingType>url</EncodingType><KeyCount>3</KeyCount><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>t&amp;1&#33;</NextContinuationToken>",
            &["p/", "p/a+b%2B%01", "p/..%2Fx"],
        );
        let found = page(&text, "p/").unwrap();
        let keys: Vec<&[u8]> = found
            .objects
            .iter()
            .map(|object| object.key.as_slice())
            .collect();
        assert_eq!(keys, [&b""[..], b"a b+\x01", b"../x"]);
        assert_eq!(found.next.as_deref(), Some("t&1!"));
        let first = found.objects.first().unwrap();
        assert_eq!(
            (first.etag.as_str(), first.size, first.class.as_str()),
            ("e1", 7, "STANDARD")
        );
        assert_eq!(first.modified.unwrap().as_millisecond() % 1000, 250);
        // What is not encoded stands as it is.
        let found = page(&listing("", &["a+b", "a%2Fb"]), "").unwrap();
        assert_eq!(found.objects.last().unwrap().key, b"a%2Fb");
    }

    #[test]
    fn what_is_no_whole_page_is_refused() {
        let whole = listing("<KeyCount>2</KeyCount>", &["a", "b"]);
        assert!(page(&whole, "").is_ok());
        let cut: Vec<String> = (0..whole.len())
            .map(|end| whole[..end].to_owned())
            .collect();
        for wrong in cut.into_iter().chain([
            listing("<KeyCount>3</KeyCount>", &["a", "b"]),
            listing("<IsTruncated>true</IsTruncated>", &["a"]),
            listing(
                "<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
                &["a"],
            ),
            whole.replace("<Size>7</Size>", ""),
            whole.replace("<Size>7</Size>", "<Size>-7</Size>"),
            whole.replace("<Key>b</Key>", ""),
            whole.replace("2026-11-01T", "yesterday "),
            listing("", &[&"k".repeat(KEY_BYTES + 1)]),
            "<Error><Code>InternalError</Code></Error>".to_owned(),
            "<html><body>Log in to the hotel</body></html>".to_owned(),
        ]) {
            assert!(page(&wrong, "").is_err(), "{wrong}");
        }
        assert!(page(&whole, "p/").is_err());
    }

    #[test]
    fn open_uploads_are_read() {
        let one = "<Upload><Key>p/a+b%2B</Key><UploadId>u1</UploadId><Initiator><ID>x</ID></Initiator>\
                   <Initiated>2026-11-01T00:00:00Z</Initiated></Upload>";
        let timeless = "<Upload><Key>p/c</Key><UploadId>u2</UploadId></Upload>";
        let page = |inside: &str| {
            format!("<ListMultipartUploadsResult>{inside}</ListMultipartUploadsResult>")
        };
        let head = "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
                    <NextKeyMarker>p%2Fc</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>";
        let found = uploads(&page(&format!("{head}{one}{timeless}")), "p/").unwrap();
        assert_eq!(found.next, Some(("p/c".to_owned(), "u2".to_owned())));
        let [only] = found.open.as_slice() else {
            unreachable!("{:?}", found.open)
        };
        assert_eq!(
            (only.key.as_slice(), only.upload.0.as_str()),
            (&b"a b+"[..], "u1")
        );
        assert_eq!(only.begun.as_second() % 86_400, 0);
        let last = uploads(&page(one), "q/").unwrap();
        assert!(last.open.is_empty() && last.next.is_none());
        for wrong in ["<Error/>", "<html/>", &page(one)[..60]] {
            assert!(uploads(wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn tags_and_uploads_are_read() {
        let text = "<Tagging><TagSet><Tag><Key>k</Key><Value>a &amp; b</Value></Tag><Tag><Key>l</Key><Value/></Tag></TagSet></Tagging>";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(tags(text).unwrap(), [pair("k", "a & b"), pair("l", "")]);
        let text = "<Tags><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tags>";
        assert_eq!(tags(text).unwrap(), [pair("k", "v")]);
        assert!(tags("<html/>").is_err());
        let text = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
        assert_eq!(upload_id(text).as_deref(), Some("u1"));
        assert_eq!(upload_id("<Error/>"), None);
        assert!(complete(&["\"e\"".to_owned()]).contains("<ETag>&quot;e&quot;</ETag>"));
    }
}
