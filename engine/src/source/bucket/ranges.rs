//! A bucket listed in several places at once, and its pages in key order all the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::Object;
use super::listing::{KeyRange, Listing};
use crate::error::{EngineError, Result};
use crate::storage::bucket::{Bucket, PageFrom};

/// Pages that a range may be ahead of who takes them.
const PAGES_AHEAD: usize = 8;

/// The pages of a listing that several threads make, range by range.
///
/// Memory is bounded by the ranges that are under way, one more than there are threads, and by the pages that
/// each may be ahead.
pub struct Ranges {
    bucket: Arc<dyn Bucket>,
    /// The ranges that nobody has begun, the last one first.
    waiting: Vec<KeyRange>,
    /// Where the threads get ranges from; they end when it is gone.
    to_threads: Option<Sender<Task>>,
    /// What comes of the ranges that are under way, in order.
    under_way: VecDeque<Receiver<Piece>>,
    threads: Vec<JoinHandle<()>>,
}

/// A range that is to be listed, and where its pages go.
struct Task {
    range: KeyRange,
    pages: Sender<Piece>,
}

/// What comes of a range: pages, and that there is none behind them.
enum Piece {
    Page(Result<Vec<Object>>),
    Over,
}

impl Ranges {
    /// Divides a range of a bucket's keys at `splits`, which ascend, lie in it and are in UTF-8, and begins to
    /// list.
    ///
    /// # Errors
    /// `Internal` if the operating system gives no threads.
    pub fn begin(
        bucket: &Arc<dyn Bucket>,
        whole: &KeyRange,
        splits: &[Vec<u8>],
        threads: usize,
    ) -> Result<Self> {
        let (to_threads, tasks) = unbounded::<Task>();
        let mut waiting = ranges(whole, splits);
        waiting.reverse();
        let mut ranges = Self {
            bucket: Arc::clone(bucket),
            waiting,
            to_threads: Some(to_threads),
            under_way: VecDeque::new(),
            threads: Vec::new(),
        };
        for _ in 0..threads {
            let (bucket, tasks) = (Arc::clone(bucket), tasks.clone());
            let thread = thread::Builder::new().name("list".into());
            let list = move || tasks.iter().for_each(|task| list(&bucket, task));
            let failed = |error| EngineError::Internal(format!("cannot start a thread: {error}"));
            ranges.threads.push(thread.spawn(list).map_err(failed)?);
        }
        for _ in 0..=threads {
            ranges.hand_out();
        }
        Ok(ranges)
    }

    /// Lets another range be listed, if there is one.
    fn hand_out(&mut self) {
        if let (Some(range), Some(to_threads)) = (self.waiting.pop(), &self.to_threads) {
            let (pages, receiver) = bounded(PAGES_AHEAD);
            // Nobody is left to take it only if all threads panicked: then nothing comes of it, and that is told.
            let _ = to_threads.send(Task { range, pages });
            self.under_way.push_back(receiver);
        }
    }

    /// Lists nothing more.
    fn end(&mut self) {
        self.waiting.clear();
        self.under_way.clear();
    }
}

impl Drop for Ranges {
    /// Waits for the requests that are under way: nothing is asked of the bucket any more afterwards.
    fn drop(&mut self) {
        self.end();
        self.to_threads = None;
        for thread in self.threads.drain(..) {
            // One that panicked was told of.
            let _ = thread.join();
        }
    }
}

impl Iterator for Ranges {
    type Item = Result<Vec<Object>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.under_way.front()?.recv() {
                Ok(Piece::Page(page)) => {
                    if page.is_err() {
                        self.end();
                    }
                    return Some(page);
                }
                Ok(Piece::Over) => {
                    self.under_way.pop_front();
                    self.hand_out();
                }
                // A range without its end must not look like one.
                Err(_) => {
                    self.end();
                    let bucket = self.bucket.describe();
                    let why = format!("a thread that listed {bucket} ended before its range did");
                    return Some(Err(EngineError::Internal(why)));
                }
            }
        }
    }
}

/// Tells whether a bucket can list from a key on; some servers begin with the first one wherever they are to.
///
/// # Errors
/// What the bucket answers.
pub fn begins_behind(bucket: &Arc<dyn Bucket>, key: &[u8]) -> Result<bool> {
    let page = bucket.page(PageFrom::Behind(key))?;
    let first = page.objects.first();
    Ok(first.is_none_or(|first| first.key.as_slice() > key))
}

fn ranges(whole: &KeyRange, splits: &[Vec<u8>]) -> Vec<KeyRange> {
    let mut ranges = Vec::with_capacity(splits.len() + 1);
    let mut behind = whole.behind.clone();
    for split in splits {
        ranges.push(KeyRange {
            behind: behind.replace(split.clone()),
            last: Some(split.clone()),
        });
    }
    ranges.push(KeyRange {
        behind,
        last: whole.last.clone(),
    });
    ranges
}

/// Lists one range; ends early when nobody takes its pages.
fn list(bucket: &Arc<dyn Bucket>, task: Task) {
    let pages = Listing::of_range(bucket, task.range).map(Piece::Page);
    for piece in pages.chain([Piece::Over]) {
        if task.pages.send(piece).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::storage::bucket::Properties;
    use crate::storage::bucket::memory::{MemoryBucket, Wrong};

    fn bucket(keys: impl IntoIterator<Item = Vec<u8>>) -> Arc<MemoryBucket> {
        let bucket = MemoryBucket::new(5);
        for key in keys {
            let bytes = Bytes::from_static(b"x");
            bucket.put(&key, bytes, &Properties::new()).unwrap();
        }
        Arc::new(bucket)
    }

    fn numbered(count: u32) -> Vec<Vec<u8>> {
        let key = |number| format!("k{number:04}").into_bytes();
        (0..count).map(key).collect()
    }

    fn listed(bucket: &Arc<MemoryBucket>, splits: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        let bucket: Arc<dyn Bucket> = bucket.clone();
        let mut keys = Vec::new();
        for page in Ranges::begin(&bucket, &KeyRange::default(), splits, 3)? {
            keys.extend(page?.into_iter().map(|object| object.entry.key));
        }
        Ok(keys)
    }

    proptest! {
        #[test]
        fn the_pages_are_those_of_one_listing(
            keys in prop::collection::btree_set("[a-c]{0,4}", 0..80),
            splits in prop::collection::btree_set("[a-c]{1,4}", 0..12),
        ) {
            let bytes = |text: String| text.into_bytes();
            let keys: Vec<Vec<u8>> = keys.into_iter().map(bytes).collect();
            let splits: Vec<Vec<u8>> = splits.into_iter().map(bytes).collect();
            prop_assert_eq!(listed(&bucket(keys.clone()), &splits).unwrap(), keys);
        }
    }

    #[test]
    fn what_is_wrong_with_any_range_ends_the_listing() {
        let keys = numbered(200);
        let splits: Vec<Vec<u8>> = keys.iter().step_by(23).skip(1).cloned().collect();
        let bucket = bucket(keys);
        for wrong in [Wrong::Fails, Wrong::IsUnsorted, Wrong::HasOneTwice] {
            for at in 0..40 {
                bucket.go_wrong(Some((at, wrong)));
                let keys = listed(&bucket, &splits);
                assert!(keys.is_err(), "{wrong:?} at {at}: {keys:?}");
            }
        }
        bucket.go_wrong(None);
        assert_eq!(listed(&bucket, &splits).unwrap().len(), 200);
    }

    #[test]
    fn a_bucket_that_cannot_begin_behind_a_key_is_found_out() {
        let bucket = bucket(numbered(20));
        let as_it_is: Arc<dyn Bucket> = bucket.clone();
        assert!(begins_behind(&as_it_is, b"k0009").unwrap());
        assert!(begins_behind(&as_it_is, b"z").unwrap());
        bucket.know_no_keys();
        assert!(!begins_behind(&as_it_is, b"k0009").unwrap());
        // Where it was not asked for, no key is taken for another range's.
        assert!(listed(&bucket, &[b"k0009".to_vec()]).is_err());
    }
}
