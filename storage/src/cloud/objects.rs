//! The user's own buckets: S3 and its compatibles, and Google Cloud by its API of the same kind.

use std::fmt;

use bytes::Bytes;
use http::Method;

use super::pages;
use super::refusal::Ask as Asked;
use super::requests::{Requests, Setup, Wanted};
use crate::bucket::{Answer, Ask, Bucket, OpenUpload, Page, PageFrom, Properties, Upload};
use crate::error::{Operation, Result};

/// The most pages of open uploads that are asked for, of 1,000 each.
const UPLOAD_PAGES_MAX: usize = 10;

/// A bucket of the user's.
pub(super) struct CloudBucket(Requests);

impl fmt::Debug for CloudBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudBucket({})", self.0.setup.description)
    }
}

impl CloudBucket {
    pub(super) fn new(setup: Setup) -> Self {
        Self(Requests::new(setup))
    }
}

impl Bucket for CloudBucket {
    fn page(&self, from: PageFrom<'_>) -> Result<Page> {
        let Self(requests) = self;
        let prefix = requests.setup.prefix.as_str();
        let mut query = vec![("encoding-type", "url"), ("list-type", "2")];
        if !prefix.is_empty() {
            query.push(("prefix", prefix));
        }
        let behind;
        match from {
            PageFrom::Start => {}
            PageFrom::Next(token) => query.push(("continuation-token", token)),
            PageFrom::Behind(key) => {
                behind = [prefix, &*String::from_utf8_lossy(key)].concat();
                query.push(("start-after", &behind));
            }
        }
        query.sort_unstable();
        let wanted = Wanted {
            query,
            ..Wanted::default()
        };
        requests.run(Operation::List, || async {
            let listed = requests.text(Operation::List, Asked::Listing, &wanted);
            let text = listed.await?;
            pages::page(&text, prefix).map_err(|why| requests.strange(Operation::List, b"", why))
        })
    }

    fn get(&self, key: &[u8], ask: &Ask<'_>) -> Result<Answer> {
        self.0.get(key, ask)
    }

    fn tags(&self, key: &[u8]) -> Result<Option<Properties>> {
        self.0.tags(key)
    }

    fn has_tags(&self) -> bool {
        self.0.has_tags()
    }

    fn put(&self, key: &[u8], bytes: Bytes, properties: &Properties) -> Result<()> {
        self.0.pay_for_upload(bytes.len());
        let wanted = Wanted {
            method: Method::PUT,
            key: Some(key),
            headers: self.0.headers_of(properties),
            body: bytes,
            ..Wanted::default()
        };
        self.0.put(key, &wanted)
    }

    fn begin(&self, key: &[u8], properties: &Properties) -> Result<Upload> {
        let Self(requests) = self;
        let wanted = Wanted {
            method: Method::POST,
            key: Some(key),
            query: vec![("uploads", "")],
            headers: requests.headers_of(properties),
            ..Wanted::default()
        };
        requests.run(Operation::Put, || async {
            let text = requests.text(Operation::Put, Asked::Part, &wanted).await?;
            let why = "the answer names no upload";
            let upload = pages::upload_id(&text).map(Upload);
            upload.ok_or_else(|| requests.strange(Operation::Put, key, why))
        })
    }

    fn part(&self, key: &[u8], upload: &Upload, number: u32, bytes: Bytes) -> Result<String> {
        let Self(requests) = self;
        requests.pay_for_upload(bytes.len());
        let number = number.to_string();
        let wanted = Wanted {
            method: Method::PUT,
            key: Some(key),
            query: vec![
                ("partNumber", number.as_str()),
                ("uploadId", upload.0.as_str()),
            ],
            body: bytes,
            ..Wanted::default()
        };
        requests.run(Operation::Put, || async {
            let sent = requests.sent(Operation::Put, Asked::Part, &wanted).await?;
            let etag = sent.headers().get(http::header::ETAG);
            let etag = etag.and_then(|value| value.to_str().ok());
            let none = || requests.strange(Operation::Put, key, "the part has no tag");
            etag.map(str::to_owned).ok_or_else(none)
        })
    }

    fn complete(
        &self,
        key: &[u8],
        upload: &Upload,
        parts: &[String],
        _were_told_when_it_began: &Properties,
    ) -> Result<()> {
        let wanted = Wanted {
            method: Method::POST,
            key: Some(key),
            query: vec![("uploadId", upload.0.as_str())],
            body: pages::complete(parts).into(),
            ..Wanted::default()
        };
        self.0.run(Operation::Put, || async {
            let completed = self.0.text(Operation::Put, Asked::Part, &wanted);
            completed.await.map(drop)
        })
    }

    fn abort(&self, key: &[u8], upload: &Upload) -> Result<()> {
        let wanted = Wanted {
            method: Method::DELETE,
            key: Some(key),
            query: vec![("uploadId", upload.0.as_str())],
            ..Wanted::default()
        };
        self.0.run(Operation::Delete, || async {
            let sent = self.0.sent(Operation::Delete, Asked::Delete, &wanted);
            sent.await.map(drop)
        })
    }

    fn uploads(&self) -> Result<Vec<OpenUpload>> {
        let Self(requests) = self;
        let prefix = requests.setup.prefix.as_str();
        let mut found = Vec::new();
        let mut next: Option<(String, String)> = None;
        for _ in 0..UPLOAD_PAGES_MAX {
            let mut query = vec![("encoding-type", "url"), ("uploads", "")];
            if !prefix.is_empty() {
                query.push(("prefix", prefix));
            }
            if let Some((key, id)) = &next {
                query.push(("key-marker", key));
                query.push(("upload-id-marker", id));
            }
            query.sort_unstable();
            let wanted = Wanted {
                query,
                ..Wanted::default()
            };
            let page = requests.run(Operation::List, || async {
                let text = requests.text(Operation::List, Asked::Part, &wanted).await?;
                let page = pages::uploads(&text, prefix);
                page.map_err(|why| requests.strange(Operation::List, b"", why))
            })?;
            found.extend(page.open);
            match page.next {
                Some(marker) if next.as_ref() != Some(&marker) => next = Some(marker),
                _ => break,
            }
        }
        Ok(found)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.0.delete(key)
    }

    fn calls_at_once(&self) -> usize {
        self.0.setup.network.connections
    }

    fn describe(&self) -> String {
        self.0.setup.description.clone()
    }
}
