//! The user's own buckets: S3 and its compatibles, and Google Cloud by its API of the same kind.

use std::fmt;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;

use super::pages;
use super::refusal::Ask as Asked;
use super::requests::{Requests, Setup, Wanted};
use super::versions::{self, Marker};
use crate::bucket::{Answer, Ask, Bucket, OpenUpload, Page, PageFrom, Properties, Upload};
use crate::error::{Operation, Result};
use crate::thaw::{Thaw, Warmth};

/// The most pages of open uploads that are asked for, of 1,000 each.
const UPLOAD_PAGES_MAX: usize = 10;

/// A bucket of the user's.
pub(super) struct CloudBucket {
    requests: Requests,
    /// When what is read was there; now if none.
    as_of: Option<Timestamp>,
}

impl fmt::Debug for CloudBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudBucket({})", self.requests.setup.description)
    }
}

impl CloudBucket {
    pub(super) fn new(setup: Setup, as_of: Option<Timestamp>) -> Self {
        Self {
            requests: Requests::new(setup),
            as_of,
        }
    }

    /// Gives the version that is read; none where the newest is.
    fn version<'a>(&self, version: Option<&'a str>) -> Option<&'a str> {
        // What a bucket had before it kept versions has one of this name.
        let version = version.filter(|version| !version.is_empty());
        self.as_of.map(|_| version.unwrap_or("null"))
    }

    /// Gives a page of the listing of what there was at a time, out of that of all versions.
    fn page_at(&self, time: Timestamp, from: PageFrom<'_>) -> Result<Page> {
        let requests = &self.requests;
        let prefix = requests.setup.prefix.as_str();
        let mut query = vec![("encoding-type", "url"), ("versions", "")];
        if !prefix.is_empty() {
            query.push(("prefix", prefix));
        }
        let (behind, marker);
        match from {
            PageFrom::Start => marker = None,
            PageFrom::Next(token) => marker = Marker::decode(token),
            PageFrom::Behind(key) => {
                behind = [prefix, &*String::from_utf8_lossy(key)].concat();
                query.push(("key-marker", behind.as_str()));
                marker = None;
            }
        }
        if let Some(marker) = &marker {
            query.push(("key-marker", marker.key.as_str()));
            if !marker.version.is_empty() {
                query.push(("version-id-marker", marker.version.as_str()));
            }
        }
        query.sort_unstable();
        let wanted = Wanted {
            query,
            ..Wanted::default()
        };
        requests.run(Operation::List, || async {
            let listed = requests.text(Operation::List, Asked::Listing, &wanted);
            let page = versions::page_at(&listed.await?, prefix, time, marker.as_ref());
            page.map_err(|why| requests.strange(Operation::List, b"", why))
        })
    }
}

impl Bucket for CloudBucket {
    fn page(&self, from: PageFrom<'_>) -> Result<Page> {
        if let Some(time) = self.as_of {
            return self.page_at(time, from);
        }
        let requests = &self.requests;
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
        self.requests.get(key, ask, self.version(ask.version))
    }

    fn tags(&self, key: &[u8]) -> Result<Option<Properties>> {
        self.requests.tags(key)
    }

    fn has_tags(&self) -> bool {
        self.requests.has_tags()
    }

    fn put(&self, key: &[u8], bytes: Bytes, properties: &Properties) -> Result<()> {
        self.requests.pay_for_upload(bytes.len());
        let wanted = Wanted {
            method: Method::PUT,
            key: Some(key),
            headers: self.requests.headers_of(properties),
            body: bytes,
            ..Wanted::default()
        };
        self.requests.put(key, &wanted)
    }

    fn begin(&self, key: &[u8], properties: &Properties) -> Result<Upload> {
        let requests = &self.requests;
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
        let requests = &self.requests;
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
        self.requests.run(Operation::Put, || async {
            let completed = self.requests.text(Operation::Put, Asked::Part, &wanted);
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
        self.requests.run(Operation::Delete, || async {
            let sent = self
                .requests
                .sent(Operation::Delete, Asked::Delete, &wanted);
            sent.await.map(drop)
        })
    }

    fn uploads(&self) -> Result<Vec<OpenUpload>> {
        let requests = &self.requests;
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
        self.requests.delete(key)
    }

    fn thaws(&self) -> bool {
        self.requests.thaws()
    }

    fn warmth(&self, key: &[u8], version: Option<&str>) -> Result<Option<Warmth>> {
        let version = self.version(version);
        self.requests
            .run(Operation::Size, || self.requests.warmth(key, version))
    }

    fn thaw(&self, key: &[u8], version: Option<&str>, warmth: &Warmth, how: &Thaw) -> Result<()> {
        let version = self.version(version);
        self.requests.run(Operation::Thaw, || {
            self.requests.thaw(key, version, warmth, how)
        })
    }

    fn calls_at_once(&self) -> usize {
        self.requests.setup.network.connections
    }

    fn describe(&self) -> String {
        self.requests.setup.description.clone()
    }
}
