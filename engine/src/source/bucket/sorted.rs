//! The listing of a bucket that lists without order, sorted outside of memory.

use std::path::Path;
use std::slice;
use std::sync::Arc;

use larder_format::entry::{Entry, EntryFlags};
use larder_format::node::{decode_leaf, encode_leaf};

use super::listing::{Listing, unreliable};
use super::{Known, Object};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::scratch::ScratchMap;
use crate::storage::bucket::Bucket;

/// Memory of the objects before they go to the disk.
pub const MEMORY_BYTES: usize = 16 << 20;
/// Objects of a page.
const PAGE_OBJECTS: usize = 1000;

/// The objects of a listing in key order, whatever order they came in.
///
/// All of it is read before the first page is given. What is not whole, or has an object twice, is an
/// error as in any listing; a page that comes again has its objects twice.
pub struct SortedListing {
    bucket: Arc<dyn Bucket>,
    /// What is still to be read.
    listing: Option<Listing>,
    objects: ScratchMap,
    /// The last key that was given.
    last: Option<Vec<u8>>,
    cancel: Cancel,
    is_over: bool,
}

impl SortedListing {
    /// Begins before the first page; nothing is asked yet. What takes more than `memory_bytes` goes to a
    /// folder below `scratch_folder`.
    #[must_use]
    pub fn new(
        bucket: &Arc<dyn Bucket>,
        scratch_folder: &Path,
        memory_bytes: usize,
        cancel: &Cancel,
    ) -> Self {
        Self {
            bucket: Arc::clone(bucket),
            listing: Some(Listing::in_any_order(bucket)),
            objects: ScratchMap::new(scratch_folder, memory_bytes),
            last: None,
            cancel: cancel.clone(),
            is_over: false,
        }
    }

    fn page(&mut self) -> Result<Vec<Object>> {
        if let Some(listing) = self.listing.take() {
            self.collect(listing)?;
        }
        // The first key behind the last one.
        let start = self.last.as_ref().map(|last| [last, &[0][..]].concat());
        let items = self.objects.iter_from(&start.unwrap_or_default());
        let mut objects = Vec::new();
        for item in items.take(PAGE_OBJECTS) {
            let (_, leaf) = item?;
            let entry = decode_leaf(&leaf)?.into_iter().next().unwrap_or_default();
            objects.push(Object {
                entry: Entry {
                    flags: EntryFlags::default(),
                    ..entry
                },
                bucket: Arc::clone(&self.bucket),
                known: Known::Listed,
            });
        }
        self.is_over = objects.len() < PAGE_OBJECTS;
        if let Some(object) = objects.last() {
            self.last = Some(object.entry.key.clone());
        }
        Ok(objects)
    }

    fn collect(&mut self, listing: Listing) -> Result<()> {
        let mut highest: Option<Vec<u8>> = None;
        for page in listing {
            self.cancel.check()?;
            for object in page? {
                // What has no content yet is no whole entry, unless it says so.
                let flags = EntryFlags {
                    unreadable: true,
                    ..EntryFlags::default()
                };
                let entry = Entry {
                    flags,
                    ..object.entry
                };
                let is_highest = highest.as_ref().is_none_or(|highest| *highest < entry.key);
                if !is_highest && self.objects.get(&entry.key)?.is_some() {
                    let why = "it has an object twice";
                    return Err(unreliable(&self.bucket, why, Some(&entry.key), ""));
                }
                self.objects
                    .insert(&entry.key, &encode_leaf(slice::from_ref(&entry))?)?;
                if is_highest {
                    highest = Some(entry.key);
                }
            }
        }
        Ok(())
    }
}

impl Iterator for SortedListing {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::*;
    use crate::storage::bucket::Properties;
    use crate::storage::bucket::memory::{MemoryBucket, Wrong};

    fn bucket(count: u32) -> Arc<MemoryBucket> {
        let bucket = MemoryBucket::new(7);
        bucket.list_without_order();
        for number in 0..count {
            let key = format!("k{number:04}/{}", number % 7);
            let bytes = Bytes::from(vec![b'x'; number as usize % 5]);
            bucket
                .put(key.as_bytes(), bytes, &Properties::new())
                .unwrap();
        }
        Arc::new(bucket)
    }

    fn sorted(bucket: &Arc<MemoryBucket>, memory_bytes: usize) -> Result<Vec<Entry>> {
        let folder = tempfile::tempdir().unwrap();
        let bucket: Arc<dyn Bucket> = bucket.clone();
        let listing = SortedListing::new(&bucket, folder.path(), memory_bytes, &Cancel::default());
        let pages: Result<Vec<Vec<Object>>> = listing.collect();
        let objects = pages?.into_iter().flatten();
        Ok(objects.map(|object| object.entry).collect())
    }

    #[test]
    fn objects_come_in_order_and_as_they_were_listed_in_memory_and_beyond() {
        for count in [0, 1, 20, 2500] {
            let bucket = bucket(count);
            let objects = bucket.objects();
            for memory_bytes in [0, usize::MAX] {
                let found = sorted(&bucket, memory_bytes).unwrap();
                assert!(found.iter().map(|entry| &entry.key).eq(objects.keys()));
                for (entry, held) in found.iter().zip(objects.values()) {
                    assert_eq!(entry.size, held.bytes.len() as u64);
                    assert_eq!(entry.etag, held.etag.as_bytes());
                    assert_eq!(entry.mtime.seconds, held.modified.as_second());
                    assert_eq!(entry.flags, EntryFlags::default());
                }
            }
        }
        // Without sorting, the first page that is out of order is an error.
        let unsorted: Arc<dyn Bucket> = bucket(20);
        let error = Listing::new(&unsorted).find_map(Result::err).unwrap();
        assert!(error.to_string().contains("--sort-listing"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_the_listing_is_an_error_all_the_same() {
        let bucket = bucket(40);
        let wrongs = [
            Wrong::Fails,
            Wrong::Repeats,
            Wrong::HasOneTwice,
            Wrong::GoesBack,
        ];
        for wrong in wrongs {
            for at in 1..5 {
                bucket.go_wrong(Some((at, wrong)));
                let found = sorted(&bucket, 1 << 20);
                assert!(found.is_err(), "{wrong:?} at {at}");
            }
        }
        bucket.go_wrong(None);
        assert_eq!(sorted(&bucket, 1 << 20).unwrap().len(), 40);
    }

    #[test]
    fn whoever_stops_it_does_not_wait_for_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let bucket: Arc<dyn Bucket> = bucket(40);
        let cancel = Cancel::default();
        cancel.request();
        let mut listing = SortedListing::new(&bucket, folder.path(), MEMORY_BYTES, &cancel);
        assert!(listing.next().unwrap().is_err());
        assert!(listing.next().is_none());
    }
}
