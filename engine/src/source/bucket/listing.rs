//! The listing of a bucket, page by page, in key order.

use std::sync::Arc;

use larder_format::limits::{KEY_BYTES, OBJECT_CLASS_BYTES, OBJECT_TAG_BYTES};

use super::Object;
use crate::error::{EngineError, Result};
use crate::storage::bucket::{Bucket, Listed};

/// The pages of a listing.
///
/// Whatever is wrong with it is an error and ends it: what a listing lacks would look deleted.
#[derive(Debug)]
pub struct Listing {
    bucket: Arc<dyn Bucket>,
    /// What the next page is asked for by.
    next: Option<String>,
    /// The last key so far.
    last: Option<Vec<u8>>,
    is_over: bool,
}

impl Listing {
    /// Begins before the first page; nothing is asked yet.
    #[must_use]
    pub fn new(bucket: &Arc<dyn Bucket>) -> Self {
        Self {
            bucket: Arc::clone(bucket),
            next: None,
            last: None,
            is_over: false,
        }
    }

    fn page(&mut self) -> Result<Vec<Object>> {
        let page = self.bucket.page(self.next.as_deref())?;
        if page.next.is_some() && page.next == self.next {
            return Err(self.wrong("one of its pages leads to itself"));
        }
        let mut objects = Vec::with_capacity(page.objects.len());
        for listed in page.objects {
            self.check(&listed)?;
            self.last = Some(listed.key.clone());
            objects.push(Object::new(&self.bucket, listed));
        }
        self.is_over = page.next.is_none();
        self.next = page.next;
        Ok(objects)
    }

    fn check(&self, listed: &Listed) -> Result<()> {
        match &self.last {
            Some(last) if *last == listed.key => {
                return Err(self.wrong("it has an object twice"));
            }
            Some(last) if *last > listed.key => {
                return Err(self
                    .wrong("it is not in the byte order of the keys, or a page of it came again"));
            }
            _ => {}
        }
        let is_too_long = listed.key.len() > KEY_BYTES
            || listed.etag.len().max(listed.version.len()) > OBJECT_TAG_BYTES
            || listed.class.len() > OBJECT_CLASS_BYTES;
        if is_too_long {
            return Err(self.wrong("an object's key, tag or class is too long"));
        }
        Ok(())
    }

    fn wrong(&self, why: &str) -> EngineError {
        let bucket = self.bucket.describe();
        let near = match &self.last {
            Some(last) => format!(" (behind the key {:?})", String::from_utf8_lossy(last)),
            None => String::new(),
        };
        EngineError::Request(format!(
            "the listing of {bucket} cannot be relied on: {why}{near}; nothing was taken for deleted"
        ))
    }
}

impl Iterator for Listing {
    type Item = Result<Vec<Object>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let page = self.page();
        self.is_over |= page.is_err();
        Some(page)
    }
}
