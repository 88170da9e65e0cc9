//! Whether the answer to a listing is whole, and what in it can be no object of a repository.

use object_store::path::Path;
use quick_xml::escape::unescape;
use quick_xml::events::Event;

/// Checks the XML of a page of a listing, and leaves out entries whose name object_store refuses or
/// changes: one such name would fail the page, or stand out of order.
///
/// # Errors
/// In words: when it is no listing, is cut short, or says that there is more without saying how to
/// get at it. An error in a listing's place must never pass for "no objects".
pub(super) fn checked(page: &str) -> Result<String, String> {
    let (entry, name) = whole(page)?;
    Ok(without_foreign(page, entry, name))
}

/// Checks that a page is one and not cut short; gives the names of its entries, and of what names them.
pub(super) fn whole(page: &str) -> Result<(&'static str, &'static str), String> {
    let end = match root(page).as_deref() {
        Some("ListBucketResult") => "</ListBucketResult>",
        Some("EnumerationResults") => "</EnumerationResults>",
        Some(other) => return Err(format!("the answer is no listing but {other:?}")),
        None => return Err("the answer is no listing".to_owned()),
    };
    if !page.trim_end().ends_with(end) {
        return Err("the listing is cut short".to_owned());
    }
    let is_truncated = page.contains("<IsTruncated>true</IsTruncated>");
    if is_truncated && !page.contains("<NextContinuationToken>") {
        return Err("the listing has more pages, but no token for the next one".to_owned());
    }
    Ok(match end {
        "</EnumerationResults>" => ("Blob", "Name"),
        _ => ("Contents", "Key"),
    })
}

/// Gives the name of the outermost element.
fn root(page: &str) -> Option<String> {
    let mut reader = quick_xml::Reader::from_str(page);
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag) | Event::Empty(tag)) => {
                let name = tag.local_name();
                return Some(
                    String::from_utf8_lossy(name.as_ref())
                        .chars()
                        .take(50)
                        .collect(),
                );
            }
            Ok(Event::Eof) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn without_foreign(page: &str, entry: &str, name: &str) -> String {
    let (open, close) = (format!("<{entry}>"), format!("</{entry}>"));
    let mut kept = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(&open) {
        kept.push_str(before);
        let Some((inside, behind)) = after.split_once(&close) else {
            kept.push_str(&open);
            rest = after;
            break;
        };
        if is_a_path(inside, name) {
            kept.push_str(&open);
            kept.push_str(inside);
            kept.push_str(&close);
        }
        rest = behind;
    }
    kept.push_str(rest);
    kept
}

fn is_a_path(entry: &str, name: &str) -> bool {
    let open = format!("<{name}>");
    let close = format!("</{name}>");
    let found = entry
        .split_once(&open)
        .and_then(|(_, after)| after.split_once(&close));
    // object_store drops slashes at both ends, and so would take one key for another.
    let is_same = |name: &str| Path::parse(name).is_ok_and(|path| path.as_ref() == name);
    // What has no name is left to object_store to complain about.
    found.is_none_or(|(name, _)| unescape(name).is_ok_and(|name| is_same(&name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const HEAD: &str = "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";

    #[test]
    fn a_listing_is_whole_or_an_error() {
        let whole = format!("{HEAD}<IsTruncated>false</IsTruncated></ListBucketResult>\n");
        assert_eq!(checked(&whole).unwrap(), whole);
        let azure = "<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>";
        assert_eq!(checked(azure).unwrap(), azure);
        for wrong in [
            "",
            "<Error><Code>InternalError</Code></Error>",
            "<html><body>Log in to the hotel</body></html>",
            "{}",
            HEAD,
            &whole[..whole.len() - 9],
            &format!("{HEAD}<IsTruncated>true</IsTruncated></ListBucketResult>"),
        ] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_object_store_refuses_or_changes_are_passed_over() {
        let entry = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
        let page = |keys: &[&str]| {
            let entries: String = keys.iter().map(|key| entry(key)).collect();
            format!("{HEAD}{entries}</ListBucketResult>")
        };
        let given = page(&["/x", "a/b", "a//b", "a/../b", "p/", "a&amp;b", "&#x1;", "c"]);
        assert_eq!(checked(&given).unwrap(), page(&["a/b", "a&amp;b", "c"]));
    }
}
