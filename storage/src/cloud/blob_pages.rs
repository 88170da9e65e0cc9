//! What Azure answers in XML: pages of a container's listing. Pure, nothing is asked.

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

use super::facts::http_time;
use super::listing;
use super::pages::{RawObject, elements, unquoted};
use crate::bucket::{PAGE_OBJECTS, Page};

/// Reads a page of a listing; keys lose the prefix.
///
/// # Errors
/// In words: for what is no whole page.
pub(super) fn page(text: &str, prefix: &str) -> Result<Page, String> {
    listing::whole(text)?;
    let mut blobs: Vec<RawBlob> = Vec::new();
    let mut next = None;
    elements(text, &mut |path, value| {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match (names.as_slice(), value) {
            (["EnumerationResults", "NextMarker"], Some(value)) => next = Some(value.to_owned()),
            (["EnumerationResults", "Blobs", "Blob"], None) => {
                if blobs.len() >= PAGE_OBJECTS {
                    return Err(format!("the page has more than {PAGE_OBJECTS} objects"));
                }
                blobs.push(RawBlob::default());
            }
            (["EnumerationResults", "Blobs", "Blob", rest @ ..], Some(value)) => {
                if let Some(blob) = blobs.last_mut() {
                    blob.take(rest, value)?;
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    // The last page has an empty one.
    let next = next.ok_or("the listing does not say whether it has more pages")?;
    let objects = blobs.into_iter().map(|blob| blob.finish(prefix));
    Ok(Page {
        objects: objects.collect::<Result<_, String>>()?,
        next: Some(next).filter(|next| !next.is_empty()),
    })
}

#[derive(Default)]
struct RawBlob {
    object: RawObject,
    /// `BlockBlob`, as what is written here, or of another kind.
    kind: String,
    /// Whether the tier is the account's own, so that nobody chose it for this blob.
    has_no_tier: bool,
}

impl RawBlob {
    fn take(&mut self, path: &[&str], value: &str) -> Result<(), String> {
        let object = &mut self.object;
        match path {
            ["Name"] => object.key = Some(value.to_owned()),
            ["EncodedName"] => {
                let decoded = percent_decode_str(value).decode_utf8();
                let decoded = decoded.map_err(|_| "a name is no UTF-8".to_owned())?;
                object.key = Some(decoded.into_owned());
            }
            ["VersionId"] => value.clone_into(&mut object.version),
            ["Properties", "Content-Length"] => {
                let size = value.parse();
                object.size = Some(size.map_err(|_| format!("{value:?} is no size"))?);
            }
            ["Properties", "Last-Modified"] => {
                let time = http_time(value).ok_or_else(|| format!("{value:?} is no time"))?;
                object.modified = Some(time);
            }
            ["Properties", "Etag"] => unquoted(value).clone_into(&mut object.etag),
            ["Properties", "AccessTier"] => value.clone_into(&mut object.class),
            ["Properties", "AccessTierInferred"] => self.has_no_tier = value == "true",
            ["Properties", "BlobType"] => value.clone_into(&mut self.kind),
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self, prefix: &str) -> Result<crate::bucket::Listed, String> {
        // The tiers of page blobs are sizes of disks, and mean nothing for what is restored.
        let is_block_blob = matches!(self.kind.as_str(), "" | "BlockBlob");
        if self.has_no_tier || !is_block_blob {
            self.object.class.clear();
        }
        self.object.finish(prefix, false)
    }
}

/// Says which blocks a blob is made of.
pub(super) fn blocks(ids: &[String]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for id in ids {
        // Writing to a string cannot fail, and no id has a character that XML knows.
        let _ = write!(text, "<Latest>{id}</Latest>");
    }
    text.push_str("</BlockList>");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn blob(name: &str, more: &str) -> String {
        format!(
            "<Blob>{name}<Properties><Last-Modified>Sun, 01 Nov 2026 00:00:07 GMT</Last-Modified>\
             <Etag>0x8D1</Etag><Content-Length>7</Content-Length><BlobType>BlockBlob</BlobType>\
             <AccessTier>Cool</AccessTier>{more}</Properties></Blob>"
        )
    }

    fn listing(blobs: &str, next: &str) -> String {
        format!(
            "\u{feff}<?xml version=\"1.0\"?><EnumerationResults ServiceEndpoint=\"http://x/\" ContainerName=\"c\">\
             <Prefix>p/</Prefix><Blobs>{blobs}</Blobs>{next}</EnumerationResults>"
        )
    }

    #[test]
    fn a_page_has_its_keys_as_they_are() {
        let inferred = "<AccessTierInferred>true</AccessTierInferred>";
        let blobs = [
            blob("<Name>p/</Name>", ""),
            blob("<Name>p/a+b%2B &amp; c</Name>", inferred),
            blob("<Name Encoded=\"true\">p/a%20%EF%BF%BE+</Name>", ""),
            blob("<Name>p/d</Name>", "").replace("BlockBlob", "PageBlob"),
        ];
        let text = listing(&blobs.concat(), "<NextMarker>2!8&amp;</NextMarker>");
        let found = page(&text, "p/").unwrap();
        let keys = found.objects.iter().map(|object| object.key.as_slice());
        let keys: Vec<&[u8]> = keys.collect();
        let expected: [&[u8]; 4] = [b"", b"a+b%2B & c", "a \u{fffe}+".as_bytes(), b"d"];
        assert_eq!(keys, expected);
        assert_eq!(found.next.as_deref(), Some("2!8&"));
        let first = &found.objects[0];
        assert_eq!((first.etag.as_str(), first.size), ("0x8D1", 7));
        assert_eq!(first.modified.unwrap().as_second() % 60, 7);
        // A tier that nobody chose is none, and a disk's is none of ours.
        let classes: Vec<&str> = found
            .objects
            .iter()
            .map(|object| object.class.as_str())
            .collect();
        assert_eq!(classes, ["Cool", "", "Cool", ""]);
        let last = page(&listing("", "<NextMarker/>"), "p/").unwrap();
        assert!(last.objects.is_empty() && last.next.is_none());
    }

    #[test]
    fn what_is_no_whole_page_is_refused() {
        let whole = listing(&blob("<Name>a</Name>", ""), "<NextMarker/>");
        assert!(page(&whole, "").is_ok());
        for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            assert!(page(&whole[..end], "").is_err(), "{end}");
        }
        for wrong in [
            whole.replace("<NextMarker/>", ""),
            whole.replace("<Content-Length>7</Content-Length>", ""),
            whole.replace(">7<", ">-7<"),
            whole.replace("<Name>a</Name>", ""),
            whole.replace("Sun, 01 Nov", "yesterday"),
            "<Error><Code>InternalError</Code></Error>".to_owned(),
        ] {
            assert!(page(&wrong, "").is_err(), "{wrong}");
        }
        assert!(page(&whole, "p/").is_err());
    }

    #[test]
    fn blocks_are_named_in_their_order() {
        let ids = ["MQ==".to_owned(), "Mg==".to_owned()];
        let text = blocks(&ids);
        assert!(text.ends_with("<Latest>MQ==</Latest><Latest>Mg==</Latest></BlockList>"));
    }
}
