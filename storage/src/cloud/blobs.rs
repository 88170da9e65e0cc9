//! The user's own containers of Azure Blob Storage.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use md5::{Digest as _, Md5};

use super::blob_pages;
use super::refusal::{Ask as Asked, Refusal};
use super::requests::{Requests, Setup, Wanted};
use crate::bucket::{Answer, Ask, Bucket, OpenUpload, Page, PageFrom, Properties, Upload};
use crate::error::{ErrorKind, Operation, Reason, Result};
use crate::thaw::{Thaw, Warmth};

/// Random bytes that tell one upload's blocks from another's.
const UPLOAD_BYTES: usize = 16;

/// A container of the user's.
pub(super) struct Container(Requests);

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Container({})", self.0.setup.description)
    }
}

impl Container {
    pub(super) fn new(setup: Setup) -> Self {
        Self(Requests::new(setup))
    }

    /// Refuses to write under a name that Azure would change.
    fn refuse_changed(&self, key: &[u8]) -> Result<()> {
        if !is_changed(&[self.0.setup.prefix.as_bytes(), key].concat()) {
            return Ok(());
        }
        let cause = "Azure would store it under another name: it has a backslash, or a part that ends with a dot";
        let refusal = Refusal::new(ErrorKind::Permanent, Reason::Settings, cause);
        Err(self.0.error(Operation::Put, key, refusal))
    }
}

/// Tells whether Azure stores a blob under another name than this: backslashes become slashes, and
/// dots at the end of what stands between slashes are lost.
fn is_changed(name: &[u8]) -> bool {
    name.contains(&b'\\')
        || name
            .split(|byte| *byte == b'/')
            .any(|part| part.ends_with(b"."))
}

/// Gives the headers of a body, by which the store sees whether it arrived as it was sent.
fn of_body(body: &Bytes) -> Vec<(String, Vec<u8>)> {
    let sum = BASE64.encode(Md5::digest(body));
    vec![
        (
            "content-length".to_owned(),
            body.len().to_string().into_bytes(),
        ),
        ("content-md5".to_owned(), sum.into_bytes()),
    ]
}

/// Names a block; all names of a blob's blocks have to be equally long.
fn block_id(upload: &Upload, number: u32) -> String {
    BASE64.encode(format!("{}{number:08}", upload.0))
}

impl Bucket for Container {
    fn page(&self, from: PageFrom<'_>) -> Result<Page> {
        let Self(requests) = self;
        let prefix = requests.setup.prefix.as_str();
        let mut query = vec![("comp", "list"), ("restype", "container")];
        if !prefix.is_empty() {
            query.push(("prefix", prefix));
        }
        if let PageFrom::Next(marker) = from {
            query.push(("marker", marker));
        }
        query.sort_unstable();
        let wanted = Wanted {
            query,
            ..Wanted::default()
        };
        requests.run(Operation::List, || async {
            let listed = requests.text(Operation::List, Asked::Listing, &wanted);
            let page = blob_pages::page(&listed.await?, prefix);
            page.map_err(|why| requests.strange(Operation::List, b"", why))
        })
    }

    fn get(&self, key: &[u8], ask: &Ask<'_>) -> Result<Answer> {
        self.0.get(key, ask, None)
    }

    fn tags(&self, key: &[u8]) -> Result<Option<Properties>> {
        self.0.tags(key)
    }

    fn has_tags(&self) -> bool {
        self.0.has_tags()
    }

    fn put(&self, key: &[u8], bytes: Bytes, properties: &Properties) -> Result<()> {
        self.refuse_changed(key)?;
        self.0.pay_for_upload(bytes.len());
        let mut headers = of_body(&bytes);
        headers.push(("x-ms-blob-type".to_owned(), b"BlockBlob".to_vec()));
        headers.extend(self.0.headers_of(properties));
        let wanted = Wanted {
            method: Method::PUT,
            key: Some(key),
            headers,
            body: bytes,
            ..Wanted::default()
        };
        self.0.put(key, &wanted)
    }

    /// Asks nothing: blocks are sent at any time, and only the list of them makes a blob.
    fn begin(&self, key: &[u8], _: &Properties) -> Result<Upload> {
        self.refuse_changed(key)?;
        let mut random = [0; UPLOAD_BYTES];
        getrandom::fill(&mut random).map_err(|error| {
            let cause = format!("the system gives no randomness: {error}");
            let refusal = Refusal::new(ErrorKind::Permanent, Reason::Other, cause);
            self.0.error(Operation::Put, key, refusal)
        })?;
        let hex = random.iter().map(|byte| format!("{byte:02x}"));
        Ok(Upload(hex.collect()))
    }

    fn part(&self, key: &[u8], upload: &Upload, number: u32, bytes: Bytes) -> Result<String> {
        self.refuse_changed(key)?;
        self.0.pay_for_upload(bytes.len());
        let id = block_id(upload, number);
        let wanted = Wanted {
            method: Method::PUT,
            key: Some(key),
            query: vec![("blockid", id.as_str()), ("comp", "block")],
            headers: of_body(&bytes),
            body: bytes,
        };
        self.0.run(Operation::Put, || async {
            let sent = self.0.sent(Operation::Put, Asked::Part, &wanted);
            sent.await.map(drop)
        })?;
        Ok(id)
    }

    fn complete(
        &self,
        key: &[u8],
        _: &Upload,
        parts: &[String],
        properties: &Properties,
    ) -> Result<()> {
        self.refuse_changed(key)?;
        let body = Bytes::from(blob_pages::blocks(parts));
        let mut headers = of_body(&body);
        headers.extend(self.0.headers_of(properties));
        let wanted = Wanted {
            method: Method::PUT,
            key: Some(key),
            query: vec![("comp", "blocklist")],
            headers,
            body,
        };
        self.0.put(key, &wanted)
    }

    /// Leaves the blocks to the store, which throws them away after a week.
    fn abort(&self, _: &[u8], _: &Upload) -> Result<()> {
        Ok(())
    }

    fn uploads(&self) -> Result<Vec<OpenUpload>> {
        Ok(Vec::new())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.0.delete(key)
    }

    fn thaws(&self) -> bool {
        self.0.thaws()
    }

    fn warmth(&self, key: &[u8], _version: Option<&str>) -> Result<Option<Warmth>> {
        self.0.run(Operation::Size, || self.0.warmth(key, None))
    }

    fn thaw(&self, key: &[u8], _version: Option<&str>, warmth: &Warmth, how: &Thaw) -> Result<()> {
        self.0
            .run(Operation::Thaw, || self.0.thaw(key, None, warmth, how))
    }

    fn calls_at_once(&self) -> usize {
        self.0.setup.network.connections
    }

    fn describe(&self) -> String {
        self.0.setup.description.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_azure_would_change_are_known() {
        for name in ["a\\b", ".", "../x", "a/./b", "a./b", "a/b.", "a/.."] {
            assert!(is_changed(name.as_bytes()), "{name}");
        }
        for name in ["", "/", "a//b/", ".a", "a.b/..c", "a. /b"] {
            assert!(!is_changed(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn blocks_of_one_upload_have_names_of_one_length_and_no_other_uploads() {
        let one = Upload("0".repeat(2 * UPLOAD_BYTES));
        let two = Upload("1".repeat(2 * UPLOAD_BYTES));
        assert_eq!(block_id(&one, 1).len(), block_id(&one, 50_000).len());
        assert_ne!(block_id(&one, 1), block_id(&one, 2));
        assert_ne!(block_id(&one, 1), block_id(&two, 1));
        assert!(one.0.len() + 8 <= 64);
    }
}
