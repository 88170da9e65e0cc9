//! The versions of a bucket's objects, and what there was at a time: pure, nothing is asked.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::pages::{RawObject, elements};
use crate::bucket::{Listed, PAGE_OBJECTS, Page};

/// Where a page of versions begins, behind one of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// The whole key.
    pub key: String,
    /// The version; empty where all of the key's were listed.
    pub version: String,
    /// Whether it is known already what the key was at the time.
    is_decided: bool,
}

impl Marker {
    /// Writes it as what the next page is asked for by.
    fn encode(&self) -> String {
        let Self {
            key,
            version,
            is_decided,
        } = self;
        format!("{}{version} {key}", u8::from(*is_decided))
    }

    /// Reads it back; none for what was never written so.
    pub fn decode(text: &str) -> Option<Self> {
        let (is_decided, rest) = match text.strip_prefix('1') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('0')?),
        };
        let (version, key) = rest.split_once(' ')?;
        Some(Self {
            key: key.to_owned(),
            version: version.to_owned(),
            is_decided,
        })
    }
}

/// Reads a page of versions, the newest of each key first, and gives the objects that were there at a
/// time; keys lose the prefix.
///
/// # Errors
/// In words: for what is no whole page.
pub(super) fn page_at(
    text: &str,
    prefix: &str,
    time: Timestamp,
    from: Option<&Marker>,
) -> Result<Page, String> {
    let mut raw = Raw::default();
    elements(text, &mut |path, value| raw.take(path, value))?;
    if !raw.is_list {
        return Err("the answer is no list of versions".to_owned());
    }
    let decided = from.filter(|from| from.is_decided);
    let decided = decided.and_then(|from| from.key.strip_prefix(prefix));
    let mut decided = decided.map(|key| key.as_bytes().to_vec());
    let next = raw.next()?;
    let mut objects = Vec::new();
    for version in raw.finish(prefix)? {
        let mut listed = version.listed;
        let modified = listed.modified.ok_or("a version has no time")?;
        if modified > time || decided.as_ref() == Some(&listed.key) {
            continue;
        }
        decided = Some(listed.key.clone());
        if !version.is_deletion {
            if listed.version == "null" {
                listed.version.clear();
            }
            objects.push(listed);
        }
    }
    let next = next.map(|mut next| {
        let key = next.key.strip_prefix(prefix).map(str::as_bytes);
        next.is_decided = key.is_some() && decided.as_deref() == key;
        next.encode()
    });
    Ok(Page { objects, next })
}

/// A version of an object, or that it was deleted.
struct Version<T> {
    listed: T,
    is_deletion: bool,
    is_latest: bool,
}

/// Sorts a page on which all versions stand together and all deletions, as some servers have it.
///
/// What is in the order of S3 stays in it: dates alone would not tell it, since an upload in parts has
/// that of its begin.
fn bring_together(versions: &mut [Version<Listed>]) {
    let pairs = versions.iter().zip(versions.iter().skip(1));
    let mut changes = pairs.filter(|(one, two)| one.is_deletion != two.is_deletion);
    let is_apart = match (changes.next(), changes.next()) {
        (Some((one, two)), None) => two.listed.key <= one.listed.key,
        _ => false,
    };
    if is_apart {
        versions.sort_by(|one, two| {
            let keys = one.listed.key.cmp(&two.listed.key);
            keys.then(two.is_latest.cmp(&one.is_latest))
                .then(two.listed.modified.cmp(&one.listed.modified))
        });
    }
}

/// A page as it stands in the answer.
#[derive(Default)]
struct Raw {
    versions: Vec<Version<RawObject>>,
    is_list: bool,
    is_encoded: bool,
    is_truncated: Option<bool>,
    next_key: String,
    next_version: String,
}

impl Raw {
    fn take(&mut self, path: &[String], value: Option<&str>) -> Result<(), String> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match (names.as_slice(), value) {
            (["ListVersionsResult"], None) => self.is_list = true,
            (["ListVersionsResult", kind @ ("Version" | "DeleteMarker")], None) => {
                if self.versions.len() >= PAGE_OBJECTS {
                    return Err(format!("the page has more than {PAGE_OBJECTS} versions"));
                }
                let is_deletion = *kind == "DeleteMarker";
                let object = RawObject {
                    // What was deleted has none.
                    size: is_deletion.then_some(0),
                    ..RawObject::default()
                };
                self.versions.push(Version {
                    listed: object,
                    is_deletion,
                    is_latest: false,
                });
            }
            (["ListVersionsResult", "Version" | "DeleteMarker", field], Some(value)) => {
                match self.versions.last_mut() {
                    Some(version) if *field == "IsLatest" => version.is_latest = value == "true",
                    Some(version) => version.listed.take(field, value)?,
                    None => {}
                }
            }
            (["ListVersionsResult", field], Some(value)) => match *field {
                "IsTruncated" => self.is_truncated = Some(value == "true"),
                "EncodingType" => self.is_encoded = value == "url",
                "NextKeyMarker" => value.clone_into(&mut self.next_key),
                "NextVersionIdMarker" => value.clone_into(&mut self.next_version),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    /// Gives where the next page begins; none if this is the last one.
    fn next(&self) -> Result<Option<Marker>, String> {
        match self.is_truncated {
            Some(true) => {}
            Some(false) => return Ok(None),
            None => return Err("the listing does not say whether it has more pages".to_owned()),
        }
        if self.next_key.is_empty() {
            return Err("the listing has more pages, but no token for the next one".to_owned());
        }
        let key = match self.is_encoded {
            true => {
                let spaced = self.next_key.replace('+', " ");
                let decoded = percent_decode_str(&spaced).decode_utf8();
                let decoded = decoded.map_err(|_| "a key is no UTF-8".to_owned())?;
                decoded.into_owned()
            }
            false => self.next_key.clone(),
        };
        Ok(Some(Marker {
            key,
            version: self.next_version.clone(),
            is_decided: false,
        }))
    }

    /// Checks the versions, the newest of each key first.
    fn finish(self, prefix: &str) -> Result<Vec<Version<Listed>>, String> {
        let mut versions = Vec::with_capacity(self.versions.len());
        for version in self.versions {
            versions.push(Version {
                listed: version.listed.finish(prefix, self.is_encoded)?,
                is_deletion: version.is_deletion,
                is_latest: version.is_latest,
            });
        }
        bring_together(&mut versions);
        Ok(versions)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    /// Makes a version, or a deletion, of a key in a minute.
    fn element(key: &str, minute: u32, is_deletion: bool, is_latest: bool) -> String {
        let (kind, size) = match is_deletion {
            true => ("DeleteMarker", ""),
            false => ("Version", "<ETag>&quot;e&quot;</ETag><Size>7</Size>"),
        };
        format!(
            "<{kind}><Key>{key}</Key><VersionId>v{minute}</VersionId><IsLatest>{is_latest}</IsLatest>\
             <LastModified>2026-11-01T00:{minute:02}:00.000Z</LastModified>{size}</{kind}>"
        )
    }

    /// Makes versions, each with its key, the minute when it came, and whether it is a deletion; of each
    /// key the newest comes first.
    fn elements_of(versions: &[(&str, u32, bool)]) -> Vec<String> {
        let mut last = None;
        let versions = versions.iter().map(|(key, minute, is_deletion)| {
            let is_latest = last.replace(key) != Some(key);
            element(key, *minute, *is_deletion, is_latest)
        });
        versions.collect()
    }

    /// Makes a page of versions.
    fn page_of(versions: &[String], next: Option<(&str, &str)>) -> String {
        let next = match next {
            None => "<IsTruncated>false</IsTruncated>".to_owned(),
            Some((key, version)) => format!(
                "<IsTruncated>true</IsTruncated><NextKeyMarker>{key}</NextKeyMarker>\
                 <NextVersionIdMarker>{version}</NextVersionIdMarker>"
            ),
        };
        let versions = versions.concat();
        format!(
            "<ListVersionsResult><EncodingType>url</EncodingType>{next}{versions}</ListVersionsResult>"
        )
    }

    fn listing(versions: &[(&str, u32, bool)], next: Option<(&str, &str)>) -> String {
        page_of(&elements_of(versions), next)
    }

    fn at(minute: u32) -> Timestamp {
        format!("2026-11-01T00:{minute:02}:00Z").parse().unwrap()
    }

    fn found(page: &Page) -> Vec<String> {
        let shown = page.objects.iter().map(|listed| {
            let key = String::from_utf8_lossy(&listed.key);
            format!("{key} {}", listed.version)
        });
        shown.collect()
    }

    #[test]
    fn of_each_key_there_is_what_was_there_at_the_time() {
        let text = listing(
            &[
                ("p/a", 9, false),
                ("p/a", 5, false),
                ("p/a", 1, false),
                ("p/b+c", 7, true),
                ("p/b+c", 3, false),
                ("p/new", 8, false),
            ],
            None,
        );
        for (minute, expected) in [
            (0, &[][..]),
            (1, &["a v1"]),
            (4, &["a v1", "b c v3"]),
            (5, &["a v5", "b c v3"]),
            (7, &["a v5"]),
            (59, &["a v9", "new v8"]),
        ] {
            let page = page_at(&text, "p/", at(minute), None).unwrap();
            assert_eq!(found(&page), expected, "at {minute}");
            assert!(page.next.is_none());
        }
    }

    #[test]
    fn a_key_whose_versions_lie_on_several_pages_is_decided_once() {
        let first = listing(
            &[("p/a", 9, false), ("p/k+x", 5, false)],
            Some(("p/k+x", "v5")),
        );
        let second = listing(
            &[("p/k+x", 3, true), ("p/k+x", 1, false), ("p/z", 1, false)],
            None,
        );
        for (minute, on_first, on_second) in [
            (6, &["k x v5"][..], &["z v1"][..]),
            (4, &[], &["z v1"]),
            (2, &[], &["k x v1", "z v1"]),
        ] {
            let page = page_at(&first, "p/", at(minute), None).unwrap();
            assert_eq!(found(&page), on_first);
            let marker = Marker::decode(page.next.as_deref().unwrap()).unwrap();
            assert_eq!(
                (marker.key.as_str(), marker.version.as_str()),
                ("p/k x", "v5")
            );
            let page = page_at(&second, "p/", at(minute), Some(&marker)).unwrap();
            assert_eq!(found(&page), on_second, "at {minute}");
        }
        // An object from before the bucket kept versions has none.
        let old = listing(&[("a", 1, false)], None).replace("v1", "null");
        assert_eq!(found(&page_at(&old, "", at(2), None).unwrap()), ["a "]);
    }

    #[test]
    fn deletions_may_stand_behind_or_before_all_versions() {
        let whole = elements_of(&[
            ("a", 9, false),
            ("a", 5, false),
            ("a", 3, true),
            ("a", 1, false),
            ("back", 9, false),
            ("back", 5, true),
            ("back", 1, false),
            ("gone", 7, true),
            ("gone", 3, false),
            ("new", 8, false),
        ]);
        let (deletions, versions): (Vec<String>, Vec<String>) = whole
            .iter()
            .cloned()
            .partition(|one| one.starts_with("<Delete"));
        for minute in 0..=10 {
            let expected = found(&page_at(&page_of(&whole, None), "", at(minute), None).unwrap());
            for apart in [
                [versions.clone(), deletions.clone()].concat(),
                [deletions.clone(), versions.clone()].concat(),
            ] {
                let page = page_at(&page_of(&apart, None), "", at(minute), None).unwrap();
                assert_eq!(found(&page), expected, "at {minute}");
            }
        }
        // Which one is the latest no date has to tell: an upload in parts has that of its begin.
        let late = [element("a", 2, false, true), element("a", 3, true, false)];
        for order in [[0, 1], [1, 0]] {
            let page = page_of(&order.map(|at| late[at].clone()), None);
            assert_eq!(found(&page_at(&page, "", at(4), None).unwrap()), ["a v2"]);
        }
    }

    #[test]
    fn what_is_no_whole_page_is_refused() {
        let whole = listing(&[("a", 1, false)], Some(("a", "v1")));
        assert!(page_at(&whole, "", at(2), None).is_ok());
        let cut = (0..whole.len()).map(|end| whole.get(..end).unwrap().to_owned());
        for wrong in cut.chain([
            whole.replace("<NextKeyMarker>a</NextKeyMarker>", ""),
            whole.replace("<IsTruncated>true</IsTruncated>", ""),
            whole.replace("<Size>7</Size>", ""),
            whole.replace("2026-11-01T", "yesterday "),
            "<ListBucketResult></ListBucketResult>".to_owned(),
        ]) {
            assert!(page_at(&wrong, "", at(2), None).is_err(), "{wrong}");
        }
        for wrong in ["", "2v k", "0v", "token"] {
            assert_eq!(Marker::decode(wrong), None);
        }
    }
}
