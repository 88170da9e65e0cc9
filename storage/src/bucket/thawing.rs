//! A bucket that is read although some of it lies in archives: what is met of that is asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Answer, Ask, Bucket, OpenUpload, Page, PageFrom, Properties, Upload};
use crate::error::Result;
use crate::thaw::{Readiness, Thaw, Warmth};

/// Objects that are looked at to know whether what was asked for is there: those that were met last.
const WATCHED: usize = 100;

/// Passes everything on to a bucket, and asks for objects that cannot be read as they lie in an archive.
///
/// Who reads one is told that it is cold all the same; once [`Thawing::is_on_its_way`] says no more, it is
/// worth reading again.
#[derive(Debug)]
pub struct Thawing {
    inner: Arc<dyn Bucket>,
    how: Thaw,
    asked: Mutex<Asked>,
}

/// What was met in archives since that was last taken.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last of them, with their versions.
    watched: VecDeque<(Vec<u8>, Option<String>)>,
}

impl Thawing {
    /// Wraps a bucket.
    #[must_use]
    pub fn new(inner: Arc<dyn Bucket>, how: Thaw) -> Self {
        Self {
            inner,
            how,
            asked: Mutex::default(),
        }
    }

    /// Gives what was asked for and begins anew.
    #[must_use]
    pub fn take(&self) -> Asked {
        std::mem::take(&mut *self.lock())
    }

    /// Looks at what was asked for last, and tells whether some of it is still on its way.
    ///
    /// # Errors
    /// What the bucket answers.
    pub fn is_on_its_way(&self, asked: &mut Asked) -> Result<bool> {
        while let Some((key, version)) = asked.watched.front() {
            let warmth = self.inner.warmth(key, version.as_deref())?;
            if warmth.is_some_and(|warmth| warmth.readiness == Readiness::Thawing) {
                return Ok(true);
            }
            asked.watched.pop_front();
        }
        Ok(false)
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, key: &[u8], version: Option<&str>) -> Result<()> {
        let Some(warmth) = self.inner.warmth(key, version)? else {
            return Ok(());
        };
        if warmth.readiness == Readiness::Cold {
            self.inner.thaw(key, version, &warmth, &self.how)?;
        }
        let mut asked = self.lock();
        asked.objects += 1;
        asked.bytes = asked.bytes.saturating_add(warmth.size_bytes);
        if asked.watched.len() == WATCHED {
            asked.watched.pop_front();
        }
        let version = version.map(str::to_owned);
        asked.watched.push_back((key.to_vec(), version));
        Ok(())
    }
}

impl Bucket for Thawing {
    fn page(&self, from: PageFrom<'_>) -> Result<Page> {
        self.inner.page(from)
    }

    fn get(&self, key: &[u8], ask: &Ask<'_>) -> Result<Answer> {
        let answer = self.inner.get(key, ask)?;
        if matches!(answer, Answer::Cold) {
            self.ask(key, ask.version)?;
        }
        Ok(answer)
    }

    fn tags(&self, key: &[u8]) -> Result<Option<Properties>> {
        self.inner.tags(key)
    }

    fn has_tags(&self) -> bool {
        self.inner.has_tags()
    }

    fn put(&self, key: &[u8], bytes: Bytes, properties: &Properties) -> Result<()> {
        self.inner.put(key, bytes, properties)
    }

    fn begin(&self, key: &[u8], properties: &Properties) -> Result<Upload> {
        self.inner.begin(key, properties)
    }

    fn part(&self, key: &[u8], upload: &Upload, number: u32, bytes: Bytes) -> Result<String> {
        self.inner.part(key, upload, number, bytes)
    }

    fn complete(
        &self,
        key: &[u8],
        upload: &Upload,
        parts: &[String],
        properties: &Properties,
    ) -> Result<()> {
        self.inner.complete(key, upload, parts, properties)
    }

    fn abort(&self, key: &[u8], upload: &Upload) -> Result<()> {
        self.inner.abort(key, upload)
    }

    fn uploads(&self) -> Result<Vec<OpenUpload>> {
        self.inner.uploads()
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.inner.delete(key)
    }

    fn thaws(&self) -> bool {
        self.inner.thaws()
    }

    fn reads_cold(&self) -> bool {
        self.inner.thaws()
    }

    fn warmth(&self, key: &[u8], version: Option<&str>) -> Result<Option<Warmth>> {
        self.inner.warmth(key, version)
    }

    fn thaw(&self, key: &[u8], version: Option<&str>, warmth: &Warmth, how: &Thaw) -> Result<()> {
        self.inner.thaw(key, version, warmth, how)
    }

    fn calls_at_once(&self) -> usize {
        self.inner.calls_at_once()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
