//! A bucket as a target: one object after the other, large ones in parts.

use std::io::{self, Write};
use std::mem;

use bytes::Bytes;

use crate::storage::bucket::{Bucket, Properties, Upload};
use crate::storage::error::{Result, StorageError};

/// Bytes of a part, unless an object would have more parts than a store takes.
const PART_BYTES: u64 = 8 << 20;
/// Parts of an object; stores take 10,000.
const PARTS_MAX: u64 = 9_000;

/// An object that is being written; dropped before its end, nothing of it stays.
pub struct ObjectWriter<'a> {
    bucket: &'a dyn Bucket,
    key: &'a [u8],
    properties: &'a Properties,
    part_bytes: usize,
    is_in_parts: bool,
    buffer: Vec<u8>,
    upload: Option<Upload>,
    parts: Vec<String>,
    failure: Option<StorageError>,
}

impl<'a> ObjectWriter<'a> {
    /// Begins an object that will have so many bytes; nothing is sent yet.
    #[must_use]
    pub fn new(
        bucket: &'a dyn Bucket,
        key: &'a [u8],
        size: u64,
        properties: &'a Properties,
    ) -> Self {
        let part_bytes = PART_BYTES.max(size.div_ceil(PARTS_MAX));
        Self {
            bucket,
            key,
            properties,
            part_bytes: usize::try_from(part_bytes).unwrap_or(usize::MAX),
            is_in_parts: size > part_bytes,
            buffer: Vec::new(),
            upload: None,
            parts: Vec::new(),
            failure: None,
        }
    }

    /// Writes what is left, upon which the object is there.
    ///
    /// # Errors
    /// What the bucket answers; then the object is not there, or still the one before.
    pub fn finish(mut self) -> Result<()> {
        if !self.is_in_parts {
            let bytes = Bytes::from(mem::take(&mut self.buffer));
            return self.bucket.put(self.key, bytes, self.properties);
        }
        self.send()?;
        match &self.upload {
            Some(upload) => {
                let (parts, properties) = (&self.parts, self.properties);
                self.bucket.complete(self.key, upload, parts, properties)?;
            }
            None => return Ok(()),
        }
        // Nothing is left to be thrown away.
        self.upload = None;
        Ok(())
    }

    /// Gives what the bucket answered, if that is why a write failed.
    pub fn take_failure(&mut self) -> Option<StorageError> {
        self.failure.take()
    }

    /// Sends what is there as a part.
    fn send(&mut self) -> Result<()> {
        if self.upload.is_none() {
            self.upload = Some(self.bucket.begin(self.key, self.properties)?);
        }
        let bytes = Bytes::from(mem::take(&mut self.buffer));
        let number = u32::try_from(self.parts.len() + 1).unwrap_or(u32::MAX);
        if let Some(upload) = self.upload.as_ref().filter(|_| !bytes.is_empty()) {
            let part = self.bucket.part(self.key, upload, number, bytes)?;
            self.parts.push(part);
        }
        Ok(())
    }
}

impl Write for ObjectWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_in_parts && self.buffer.len() >= self.part_bytes {
            self.send().map_err(|error| {
                self.failure = Some(error);
                io::Error::other("a part could not be written")
            })?;
        }
        let count = match self.is_in_parts {
            true => bytes.len().min(self.part_bytes - self.buffer.len()),
            false => bytes.len(),
        };
        self.buffer
            .extend_from_slice(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ObjectWriter<'_> {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            // What cannot be thrown away now is the store's to clean up.
            let _ = self.bucket.abort(self.key, &upload);
        }
    }
}
