//! A bucket in memory, for tests: it lists in pages, counts what it is asked, and fails as it is told.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    Answer, Ask, Bucket, CLASS, Got, Listed, OpenUpload, Page, PageFrom, Properties, Upload,
};
use crate::error::{ErrorKind, Operation, Reason, Result, StorageError};
use crate::thaw::{Readiness, Thaw, Warmth};

/// An object of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its bytes.
    pub bytes: Bytes,
    /// What it was stored with.
    pub properties: Properties,
    /// Its ETag, new for every write.
    pub etag: String,
    /// When it was written.
    pub modified: Timestamp,
    /// Its storage class.
    pub class: String,
}

/// What was asked of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pages of listings.
    pub pages: u64,
    /// Objects, or parts of them, that were read.
    pub gets: u64,
    /// Objects whose tags alone were asked for.
    pub tags: u64,
    /// Objects that were written, and parts.
    pub puts: u64,
    /// Objects that were removed.
    pub deletes: u64,
    /// Looks at how objects stand with cold storage.
    pub looks: u64,
    /// Objects that were asked to be brought back.
    pub thaws: u64,
}

/// What goes wrong with a listing, at a page by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It fails.
    Fails,
    /// There is no such bucket.
    IsNoBucket,
    /// It comes once more.
    Repeats,
    /// Two of its objects change places.
    IsUnsorted,
    /// It has one object twice.
    HasOneTwice,
    /// Its token leads back to the page before.
    GoesBack,
    /// It says that nothing comes behind it.
    IsLast,
}

/// What happens to an object just before it is read for the so many-th time.
pub type Meanwhile = Box<dyn FnMut(&mut BTreeMap<Vec<u8>, Held>, &[u8]) + Send>;

/// A bucket in memory.
#[derive(Debug)]
pub struct MemoryBucket {
    page_objects: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Vec<u8>, Held>,
    uploads: BTreeMap<String, Begun>,
    /// What was asked to be brought back, with the looks that are left until it is there.
    thawing: BTreeMap<Vec<u8>, u32>,
    /// Uploads that were ever begun, which number them.
    begun: u64,
    writes: u64,
    counts: Counts,
    wrong: Option<(u64, Wrong)>,
    pages: u64,
    meanwhile: Option<Meanwhile>,
    /// Whom reads of later ranges wait for.
    company: Option<Arc<Barrier>>,
    /// Begins at the first key wherever a listing is to begin, as some servers do.
    knows_no_keys: bool,
    /// Lets nobody read objects.
    denies_reads: bool,
    /// Lists in an order of its own: that of the keys read backwards.
    is_unordered: bool,
}

/// An upload in parts.
struct Begun {
    key: Vec<u8>,
    at: Timestamp,
    properties: Properties,
    parts: BTreeMap<u32, Bytes>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} objects", self.objects.len())
    }
}

impl MemoryBucket {
    /// Makes an empty one whose listings have so many objects a page.
    #[must_use]
    pub fn new(page_objects: usize) -> Self {
        Self {
            page_objects: page_objects.max(1),
            state: Mutex::default(),
        }
    }

    /// Gives all of its objects.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<Vec<u8>, Held> {
        self.lock().objects.clone()
    }

    /// Changes its objects behind everybody's back.
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<Vec<u8>, Held>)) {
        change(&mut self.lock().objects);
    }

    /// Gives what was asked since this was called last.
    #[must_use]
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.lock().counts)
    }

    /// Makes the listing go wrong at a page, the first being 0; pages are counted anew from here.
    pub fn go_wrong(&self, wrong: Option<(u64, Wrong)>) {
        let mut state = self.lock();
        state.wrong = wrong;
        state.pages = 0;
    }

    /// Makes listings begin at the first key wherever they are to begin.
    pub fn know_no_keys(&self) {
        self.lock().knows_no_keys = true;
    }

    /// Makes listings come in another order than that of the keys.
    pub fn list_without_order(&self) {
        self.lock().is_unordered = true;
    }

    /// Lets nobody read objects from here on, or everybody again.
    pub fn deny_reads(&self, denies: bool) {
        self.lock().denies_reads = denies;
    }

    /// Begins an upload at a time of long ago or of now, as somebody did who never went on.
    pub fn abandon(&self, key: &[u8], at: Timestamp) {
        self.lock().begin(key, &Properties::new(), at);
    }

    /// Sets what happens just before each read.
    pub fn meanwhile(&self, meanwhile: Option<Meanwhile>) {
        self.lock().meanwhile = meanwhile;
    }

    /// Lets a range that does not begin an object be read only in the company of so many others at the same time.
    pub fn meet(&self, ranges: usize) {
        self.lock().company = Some(Arc::new(Barrier::new(ranges)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, key: &[u8], properties: &Properties, at: Timestamp) -> Upload {
        self.begun += 1;
        let id = format!("upload-{}", self.begun);
        let begun = Begun {
            key: key.to_vec(),
            at,
            properties: properties.clone(),
            parts: BTreeMap::new(),
        };
        self.uploads.insert(id.clone(), begun);
        Upload(id)
    }

    fn check_rights(&self) -> Result<()> {
        if !self.denies_reads {
            return Ok(());
        }
        let why = "reading is denied";
        let denied = StorageError::new(Operation::Get, "memory", "", ErrorKind::Denied, why);
        Err(denied.because(Reason::NotPermitted))
    }

    fn store(&mut self, key: &[u8], bytes: Bytes, mut properties: Properties) {
        self.writes += 1;
        let seconds = i64::try_from(self.writes).unwrap_or(i64::MAX);
        let class = properties.remove(CLASS.as_bytes());
        let class = class.map(|class| String::from_utf8_lossy(&class).into_owned());
        let held = Held {
            bytes,
            class: class.unwrap_or_else(|| "STANDARD".to_owned()),
            properties,
            etag: format!("etag-{}", self.writes),
            modified: Timestamp::from_second(1_700_000_000 + seconds).unwrap_or_default(),
        };
        self.objects.insert(key.to_vec(), held);
    }

    fn page(&self, after: Option<&[u8]>, most: usize) -> Page {
        let turn = |key: &[u8]| -> Vec<u8> {
            match self.is_unordered {
                true => key.iter().rev().copied().collect(),
                false => key.to_vec(),
            }
        };
        let after = after.map(turn);
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let turned: BTreeMap<Vec<u8>, &[u8]> = match self.is_unordered {
            true => self
                .objects
                .keys()
                .map(|key| (turn(key), key.as_slice()))
                .collect(),
            false => BTreeMap::new(),
        };
        let range = (start, Bound::Unbounded);
        let mut behind: Box<dyn Iterator<Item = &[u8]>> = match self.is_unordered {
            true => Box::new(turned.range::<[u8], _>(range).map(|(_, key)| *key)),
            false => Box::new(
                self.objects
                    .range::<[u8], _>(range)
                    .map(|(key, _)| key.as_slice()),
            ),
        };
        let keys: Vec<&[u8]> = behind.by_ref().take(most).collect();
        let objects: Vec<Listed> = keys
            .into_iter()
            .filter_map(|key| self.listed(key))
            .collect();
        let last = objects.last().map(|last| hex(&last.key));
        Page {
            next: last.filter(|_| behind.next().is_some()),
            objects,
        }
    }

    fn listed(&self, key: &[u8]) -> Option<Listed> {
        let held = self.objects.get(key)?;
        Some(Listed {
            key: key.to_vec(),
            size: held.bytes.len() as u64,
            modified: Some(held.modified),
            etag: held.etag.clone(),
            version: String::new(),
            class: held.class.clone(),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    let bytes = digits.chunks(2).map(|pair| {
        let pair: String = pair.iter().collect();
        u8::from_str_radix(&pair, 16).unwrap_or_default()
    });
    bytes.collect()
}

impl Bucket for MemoryBucket {
    fn page(&self, from: PageFrom<'_>) -> Result<Page> {
        let mut state = self.lock();
        state.counts.pages += 1;
        let (after, next) = match from {
            PageFrom::Start => (None, None),
            PageFrom::Behind(key) if state.knows_no_keys => (None, Some(hex(key))),
            PageFrom::Behind(key) => (Some(key.to_vec()), Some(hex(key))),
            PageFrom::Next(token) => (Some(unhex(token)), Some(token.to_owned())),
        };
        let mut page = state.page(after.as_deref(), self.page_objects);
        let number = state.pages;
        state.pages += 1;
        let Some((at, wrong)) = state.wrong else {
            return Ok(page);
        };
        if at != number {
            return Ok(page);
        }
        match wrong {
            Wrong::Fails => {
                let kind = ErrorKind::Transient;
                return Err(StorageError::new(
                    Operation::List,
                    "memory",
                    "",
                    kind,
                    "it fails",
                ));
            }
            Wrong::IsNoBucket => {
                let kind = ErrorKind::NotFound;
                let why = "there is no bucket";
                let error = StorageError::new(Operation::List, "memory", "", kind, why);
                return Err(error.because(Reason::NoBucket));
            }
            Wrong::Repeats => page.next = next.or(page.next),
            Wrong::IsUnsorted => {
                let last = page.objects.len().saturating_sub(1);
                page.objects.swap(0, last);
            }
            Wrong::HasOneTwice => page.objects.extend(page.objects.last().cloned()),
            Wrong::GoesBack => page.next = Some(hex(b"")),
            Wrong::IsLast => page.next = None,
        }
        Ok(page)
    }

    fn get(&self, key: &[u8], ask: &Ask<'_>) -> Result<Answer> {
        let company = self.lock().company.clone();
        if let Some(company) = company
            && ask.range.is_some_and(|(start, _)| start > 0)
        {
            company.wait();
        }
        let mut state = self.lock();
        state.counts.gets += 1;
        if let Some(mut meanwhile) = state.meanwhile.take() {
            meanwhile(&mut state.objects, key);
            state.meanwhile = Some(meanwhile);
        }
        state.check_rights()?;
        let Some(held) = state.objects.get(key) else {
            return Ok(Answer::Missing);
        };
        let is_thawed = state.thawing.get(key) == Some(&0);
        if super::is_cold(held.class.as_bytes()) && !is_thawed {
            return Ok(Answer::Cold);
        }
        if ask.if_match.is_some_and(|etag| etag != held.etag) {
            return Ok(Answer::Changed);
        }
        let size = held.bytes.len() as u64;
        let (start, length) = ask.range.unwrap_or((0, size));
        if ask.range.is_some() && start >= size {
            return Ok(Answer::Changed);
        }
        let end = start.saturating_add(length).min(size);
        if end - start > ask.bytes_max {
            return Ok(Answer::Changed);
        }
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        Ok(Answer::Object(Box::new(Got {
            bytes: held.bytes.slice(place(start)..place(end)),
            size,
            modified: Some(held.modified),
            etag: held.etag.clone(),
            version: String::new(),
            properties: held.properties.clone(),
        })))
    }

    fn tags(&self, key: &[u8]) -> Result<Option<Properties>> {
        let mut state = self.lock();
        state.counts.tags += 1;
        state.check_rights()?;
        let held = state.objects.get(key);
        Ok(held.map(|held| {
            let mut tags = held.properties.clone();
            tags.retain(|name, _| name.starts_with(b"tag/"));
            tags
        }))
    }

    fn has_tags(&self) -> bool {
        true
    }

    fn put(&self, key: &[u8], bytes: Bytes, properties: &Properties) -> Result<()> {
        let mut state = self.lock();
        state.counts.puts += 1;
        state.store(key, bytes, properties.clone());
        Ok(())
    }

    fn begin(&self, key: &[u8], properties: &Properties) -> Result<Upload> {
        Ok(self.lock().begin(key, properties, Timestamp::now()))
    }

    fn part(&self, _: &[u8], upload: &Upload, number: u32, bytes: Bytes) -> Result<String> {
        let mut state = self.lock();
        state.counts.puts += 1;
        if let Some(begun) = state.uploads.get_mut(&upload.0) {
            begun.parts.insert(number, bytes);
        }
        Ok(number.to_string())
    }

    fn complete(&self, key: &[u8], upload: &Upload, _: &[String], _: &Properties) -> Result<()> {
        let mut state = self.lock();
        let Some(begun) = state.uploads.remove(&upload.0) else {
            let kind = ErrorKind::NotFound;
            return Err(StorageError::new(
                Operation::Put,
                "memory",
                "",
                kind,
                "no such upload",
            ));
        };
        let bytes: Vec<u8> = begun.parts.into_values().flatten().collect();
        state.store(key, bytes.into(), begun.properties);
        Ok(())
    }

    fn abort(&self, _: &[u8], upload: &Upload) -> Result<()> {
        self.lock().uploads.remove(&upload.0);
        Ok(())
    }

    fn uploads(&self) -> Result<Vec<OpenUpload>> {
        let state = self.lock();
        let open = state.uploads.iter().map(|(id, begun)| OpenUpload {
            key: begun.key.clone(),
            upload: Upload(id.clone()),
            begun: begun.at,
        });
        Ok(open.collect())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let mut state = self.lock();
        state.counts.deletes += 1;
        state.objects.remove(key);
        Ok(())
    }

    fn thaws(&self) -> bool {
        true
    }

    fn warmth(&self, key: &[u8], _: Option<&str>) -> Result<Option<Warmth>> {
        let mut state = self.lock();
        state.counts.looks += 1;
        let is_asked = state.thawing.contains_key(key);
        let is_left = state.thawing.get(key).is_some_and(|left| *left > 0);
        if let Some(left) = state.thawing.get_mut(key) {
            *left = left.saturating_sub(1);
        }
        let held = state.objects.get(key);
        Ok(held.map(|held| Warmth {
            size_bytes: held.bytes.len() as u64,
            class: held.class.clone(),
            readiness: match (super::is_cold(held.class.as_bytes()), is_asked, is_left) {
                (false, ..) => Readiness::Warm,
                (true, false, _) => Readiness::Cold,
                (true, true, true) => Readiness::Thawing,
                (true, true, false) => Readiness::Thawed(None),
            },
        }))
    }

    /// What is asked for is there at the third look.
    fn thaw(&self, key: &[u8], _: Option<&str>, _: &Warmth, _: &Thaw) -> Result<()> {
        let mut state = self.lock();
        state.counts.thaws += 1;
        state.thawing.entry(key.to_vec()).or_insert(2);
        Ok(())
    }

    fn calls_at_once(&self) -> usize {
        4
    }

    fn describe(&self) -> String {
        "s3://memory/bucket".to_owned()
    }
}
