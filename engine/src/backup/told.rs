//! A bucket without its listing: what the parent snapshot has, and what somebody says has changed since.

use std::collections::VecDeque;
use std::sync::Arc;

use larder_format::cell::{Cell, Source};
use larder_format::entry::{Entry, EntryType};
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;

use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::rewrite::COPY_OF;
use crate::scratch::ScratchMap;
use crate::snapshots::times::escaped;
use crate::source::bucket::{Known, Object, feed};
use crate::storage::bucket::Bucket;

use super::ChangedKeys;

/// What the names of the options begin with that tell how a bucket was gone through (SPEC.md §11).
const PREFIX: &str = "listed/";
/// Objects of a page.
const PAGE_OBJECTS: usize = 1000;
/// Memory of the keys before they go to disk.
const KEYS_BYTES: usize = 4 << 20;

/// How a bucket is gone through, as its cell records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passage {
    /// Snapshots in a row that took from their parents what nobody named; 0 if this one lists the bucket.
    pub unlisted: u64,
    /// What leaves objects out.
    pub left_out: String,
}

impl Passage {
    /// Gives the name and the value of the option.
    pub fn option(&self, source: &[u8]) -> (String, String) {
        let name = format!("{PREFIX}{}", escaped(source));
        (name, format!("{} {}", self.unlisted, self.left_out))
    }

    /// Decides how a bucket is gone through whose parent is `parent`: by its listing unless the keys that
    /// changed are told, the parent has all else, and not too many before it went without a listing.
    pub fn decide(
        parent: Option<&Cell>,
        source: &[u8],
        left_out: String,
        told: Option<&ChangedKeys>,
    ) -> Self {
        let before = parent.and_then(|cell| {
            let (name, _) = Self {
                unlisted: 0,
                left_out: String::new(),
            }
            .option(source);
            let (unlisted, before) = cell.options.get(&name)?.split_once(' ')?;
            let is_whole = before == left_out && !cell.options.contains_key(COPY_OF);
            is_whole.then(|| unlisted.parse::<u64>().ok()).flatten()
        });
        let unlisted = match (before, told) {
            (Some(before), Some(told)) => {
                let next = before.saturating_add(1);
                if next < told.list_every { next } else { 0 }
            }
            _ => 0,
        };
        Self { unlisted, left_out }
    }
}

/// What a bucket has by its parent snapshot and by what is told, in key order.
pub(super) struct Told {
    bucket: Arc<dyn Bucket>,
    parent: Cursor<ChunkReader>,
    /// The parent's next entry.
    kept: Option<Entry>,
    keys: ScratchMap,
    /// The next keys that are told, and the last one that was taken out of all.
    next: VecDeque<Vec<u8>>,
    last: Option<Vec<u8>>,
    is_over: bool,
}

impl Told {
    /// Reads the keys that changed, and begins with the parent's tree.
    ///
    /// # Errors
    /// `File` or `Request` for a feed that cannot be read; what the storage answers.
    pub fn begin(
        repository: &Arc<Repository>,
        bucket: &Arc<dyn Bucket>,
        parent: &Source,
        told: &ChangedKeys,
    ) -> Result<Self> {
        let mut keys = ScratchMap::new(repository.cache_dir(), KEYS_BYTES);
        feed::read_file(&told.file, &bucket.describe(), &mut |key| {
            Ok(keys.insert(key, &[])?)
        })?;
        let root = Root {
            id: parent.root,
            level: parent.level,
            entries: parent.entries,
            bytes: parent.bytes,
        };
        let mut told = Self {
            bucket: Arc::clone(bucket),
            parent: Cursor::new(ChunkReader::new(repository)?, &root),
            kept: None,
            keys,
            next: VecDeque::new(),
            last: None,
            is_over: false,
        };
        told.kept = told.parent_entry()?;
        Ok(told)
    }

    fn page(&mut self) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        while objects.len() < PAGE_OBJECTS {
            let Some(object) = self.object()? else {
                self.is_over = true;
                break;
            };
            objects.push(object);
        }
        Ok(objects)
    }

    /// Gives the next object: the parent's, unless its key is told.
    fn object(&mut self) -> Result<Option<Object>> {
        self.look_at_keys()?;
        let told = self.next.front();
        let (entry, known) = match (&self.kept, told) {
            (None, None) => return Ok(None),
            (Some(kept), Some(told)) if kept.key == *told => {
                // A guess, by which it is asked for: of the rest nothing is known.
                let entry = Entry {
                    size: kept.size,
                    class: kept.class.clone(),
                    ..unknown(told)
                };
                self.kept = self.parent_entry()?;
                self.next.pop_front();
                (entry, Known::Told)
            }
            (Some(kept), told) if told.is_none_or(|told| kept.key < *told) => {
                let entry = kept.clone();
                self.kept = self.parent_entry()?;
                (entry, Known::Kept)
            }
            (_, Some(told)) => {
                let entry = unknown(told);
                self.next.pop_front();
                (entry, Known::Told)
            }
            (Some(_), None) => return Ok(None),
        };
        Ok(Some(Object {
            entry,
            bucket: Arc::clone(&self.bucket),
            known,
        }))
    }

    fn look_at_keys(&mut self) -> Result<()> {
        if !self.next.is_empty() {
            return Ok(());
        }
        // The first key behind the last one.
        let start = self.last.as_ref().map(|last| [last, &[0][..]].concat());
        let items = self.keys.iter_from(&start.unwrap_or_default());
        for item in items.take(PAGE_OBJECTS) {
            let (key, _) = item?;
            self.next.push_back(key);
        }
        if let Some(last) = self.next.back() {
            self.last = Some(last.clone());
        }
        Ok(())
    }

    fn parent_entry(&mut self) -> Result<Option<Entry>> {
        self.parent.next_entry().map_err(|error| {
            let bucket = self.bucket.describe();
            EngineError::Request(format!(
                "what the parent snapshot has of {bucket} cannot be read, so that what did not change is not known ({error}); back it up once without --changed-keys"
            ))
        })
    }
}

impl Iterator for Told {
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

fn unknown(key: &[u8]) -> Entry {
    Entry {
        key: key.to_vec(),
        kind: EntryType::Object,
        ..Entry::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::snapshots::fixture::cell;

    #[test]
    fn a_bucket_is_listed_unless_the_parent_stands_for_what_nobody_names() {
        let told = ChangedKeys {
            file: PathBuf::new(),
            list_every: 3,
        };
        let decide = |parent: Option<&Cell>, left_out: &str, told| {
            Passage::decide(parent, b"s3://b", left_out.to_owned(), told).unlisted
        };
        let mut parent = cell(1, 1);
        let mut after = |unlisted, left_out: &str| {
            let passage = Passage {
                unlisted,
                left_out: left_out.to_owned(),
            };
            parent.options.extend([passage.option(b"s3://b")]);
            parent.clone()
        };
        assert_eq!(decide(None, "x", Some(&told)), 0);
        assert_eq!(decide(Some(&cell(1, 1)), "x", Some(&told)), 0);
        assert_eq!(decide(Some(&after(0, "x")), "x", Some(&told)), 1);
        assert_eq!(decide(Some(&after(1, "x")), "x", Some(&told)), 2);
        assert_eq!(decide(Some(&after(2, "x")), "x", Some(&told)), 0);
        assert_eq!(decide(Some(&after(0, "x")), "x", None), 0);
        assert_eq!(decide(Some(&after(0, "y")), "x", Some(&told)), 0);
        let mut copy = after(0, "x");
        copy.options.insert(COPY_OF.to_owned(), String::new());
        assert_eq!(decide(Some(&copy), "x", Some(&told)), 0);
    }
}
