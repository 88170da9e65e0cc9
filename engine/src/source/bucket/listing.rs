//! The listing of a bucket, or of a range of its keys, page by page, in key order.

use std::sync::Arc;

use larder_format::limits::{KEY_BYTES, OBJECT_CLASS_BYTES, OBJECT_TAG_BYTES};

pub use larder_format::run::KeyRange;

use super::Object;
use crate::error::{EngineError, Result};
use crate::storage::bucket::{Bucket, Listed, PageFrom};

/// The pages of a listing.
///
/// Whatever is wrong with it is an error and ends it: what a listing lacks would look deleted.
#[derive(Debug)]
pub struct Listing {
    bucket: Arc<dyn Bucket>,
    range: KeyRange,
    /// What the next page is asked for by.
    next: Option<String>,
    /// The last key so far, or the one behind which the range begins.
    last: Option<Vec<u8>>,
    /// Whether its order says nothing.
    has_no_order: bool,
    is_over: bool,
}

impl Listing {
    /// Begins before the first page; nothing is asked yet.
    #[must_use]
    pub fn new(bucket: &Arc<dyn Bucket>) -> Self {
        Self::of_range(bucket, KeyRange::default())
    }

    /// Begins before the first page of a listing that may come in any order; who takes it has to see
    /// whether an object comes twice.
    #[must_use]
    pub fn in_any_order(bucket: &Arc<dyn Bucket>) -> Self {
        Self {
            has_no_order: true,
            ..Self::new(bucket)
        }
    }

    /// Begins before the first page of a range, whose beginning is in UTF-8; nothing is asked yet.
    #[must_use]
    pub fn of_range(bucket: &Arc<dyn Bucket>, range: KeyRange) -> Self {
        Self {
            bucket: Arc::clone(bucket),
            next: None,
            last: range.behind.clone(),
            range,
            has_no_order: false,
            is_over: false,
        }
    }

    fn page(&mut self) -> Result<Vec<Object>> {
        let from = match (&self.next, &self.range.behind) {
            (Some(next), _) => PageFrom::Next(next),
            (None, Some(behind)) => PageFrom::Behind(behind),
            (None, None) => PageFrom::Start,
        };
        let page = self.bucket.page(from)?;
        if page.next.is_some() && page.next == self.next {
            return Err(self.wrong("one of its pages leads to itself"));
        }
        let mut objects = Vec::with_capacity(page.objects.len());
        for listed in page.objects {
            // What lies behind the range tells as well whether the page is in order.
            self.check(&listed)?;
            self.last = Some(listed.key.clone());
            let last = self.range.last.as_ref();
            if last.is_none_or(|last| listed.key <= *last) {
                objects.push(Object::new(&self.bucket, listed));
            } else {
                self.is_over = true;
            }
        }
        self.is_over |= page.next.is_none();
        self.next = page.next;
        Ok(objects)
    }

    fn check(&self, listed: &Listed) -> Result<()> {
        match &self.last {
            Some(last) if *last == listed.key => {
                return Err(self.wrong("it has an object twice"));
            }
            Some(last) if *last > listed.key && !self.has_no_order => {
                let why = "it is not in the byte order of the keys, or a page of it came again";
                let advice = "; if the store lists without order, give --sort-listing";
                return Err(unreliable(&self.bucket, why, Some(last), advice));
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
        unreliable(&self.bucket, why, self.last.as_deref(), "")
    }
}

/// Makes the error of a listing that cannot be relied on, near a key; the advice begins with `; `.
pub(super) fn unreliable(
    bucket: &Arc<dyn Bucket>,
    why: &str,
    last: Option<&[u8]>,
    advice: &str,
) -> EngineError {
    let bucket = bucket.describe();
    let near = match last {
        Some(last) => format!(" (behind the key {:?})", String::from_utf8_lossy(last)),
        None => String::new(),
    };
    EngineError::Request(format!(
        "the listing of {bucket} cannot be relied on: {why}{near}; nothing was taken for deleted{advice}"
    ))
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
