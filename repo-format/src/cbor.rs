//! Deterministic CBOR (SPEC.md §1), over minicbor.
//!
//! Decoding reads the fields of a map in ascending order and checks every length before it
//! allocates; then [`must_be_deterministic`] compares the bytes with what encoding the decoded
//! value gives, so that there is exactly one encoding of each value.

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use crate::error::{FormatError, Result};

/// Writes CBOR; the caller writes map keys in ascending order.
pub struct Encoder(minicbor::Encoder<Vec<u8>>);

type Written<'a> =
    core::result::Result<&'a mut minicbor::Encoder<Vec<u8>>, minicbor::encode::Error<Infallible>>;

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// Starts with nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(256)
    }

    /// Starts with room for `bytes` bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(minicbor::Encoder::new(Vec::with_capacity(bytes)))
    }

    /// Gives what was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_writer()
    }

    /// Writes a non-negative integer.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.put(|encoder| encoder.u64(value))
    }

    /// Writes an integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.put(|encoder| encoder.i64(value))
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.put(|encoder| encoder.bytes(value))
    }

    /// Writes a text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.put(|encoder| encoder.str(value))
    }

    /// Starts an array of `items` items.
    pub fn array(&mut self, items: usize) -> &mut Self {
        self.put(|encoder| encoder.array(items as u64))
    }

    /// Starts a map of `pairs` pairs.
    pub fn map(&mut self, pairs: usize) -> &mut Self {
        self.put(|encoder| encoder.map(pairs as u64))
    }

    /// Writes an array of texts.
    pub fn texts(&mut self, values: &[String]) -> &mut Self {
        self.array(values.len());
        for value in values {
            self.text(value);
        }
        self
    }

    /// Writes an array of byte strings.
    pub fn byte_strings<'a>(
        &mut self,
        values: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> &mut Self {
        self.array(values.len());
        for value in values {
            self.bytes(value);
        }
        self
    }

    fn put(
        &mut self,
        write: impl FnOnce(&mut minicbor::Encoder<Vec<u8>>) -> Written<'_>,
    ) -> &mut Self {
        // A vector takes every write: its error type has no value.
        let _ = write(&mut self.0);
        self
    }
}

/// Reads CBOR that is not trusted.
pub struct Decoder<'a> {
    what: &'static str,
    inner: minicbor::Decoder<'a>,
}

impl<'a> Decoder<'a> {
    /// Makes the error for what was just found wrong, as the end of a sentence.
    #[must_use]
    pub fn malformed(&self, why: &'static str) -> FormatError {
        FormatError::Malformed {
            what: self.what,
            at: self.inner.position(),
            why,
        }
    }

    /// Reads a non-negative integer.
    pub fn uint(&mut self) -> Result<u64> {
        let value = self.inner.u64();
        value.map_err(|_| self.malformed("a non-negative integer was expected"))
    }

    /// Reads a non-negative integer below 2³².
    pub fn u32(&mut self) -> Result<u32> {
        let value = self.inner.u32();
        value.map_err(|_| self.malformed("a 32-bit integer was expected"))
    }

    /// Reads an integer.
    pub fn int(&mut self) -> Result<i64> {
        let value = self.inner.i64();
        value.map_err(|_| self.malformed("an integer was expected"))
    }

    /// Reads a byte string of at most `limit` bytes; `what` names it in the error.
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8]> {
        let value = self.inner.bytes();
        let value = value.map_err(|_| self.malformed("a byte string was expected"))?;
        within(what, value.len(), limit)?;
        Ok(value)
    }

    /// Reads a byte string of exactly `N` bytes.
    pub fn array_of<const N: usize>(&mut self) -> Result<[u8; N]> {
        let value = self.inner.bytes();
        let value = value.map_err(|_| self.malformed("a byte string was expected"))?;
        value
            .try_into()
            .map_err(|_| self.malformed("a byte string has the wrong length"))
    }

    /// Reads a text string of at most `limit` bytes; `what` names it in the error.
    pub fn text(&mut self, what: &'static str, limit: usize) -> Result<String> {
        let value = self.inner.str();
        let value = value.map_err(|_| self.malformed("a text was expected"))?;
        within(what, value.len(), limit)?;
        Ok(String::from(value))
    }

    /// Starts an array of at most `limit` items and gives their number; `what` names them.
    ///
    /// The number is never above that of the bytes left, so that room for it can be made.
    pub fn array(&mut self, what: &'static str, limit: usize) -> Result<usize> {
        let items = self.inner.array();
        let items = items.map_err(|_| self.malformed("an array was expected"))?;
        self.count(items, what, limit)
    }

    /// Starts a map of at most `limit` pairs and gives their number; `what` names them.
    pub fn pairs(&mut self, what: &'static str, limit: usize) -> Result<usize> {
        let pairs = self.inner.map();
        let pairs = pairs.map_err(|_| self.malformed("a map was expected"))?;
        self.count(pairs, what, limit)
    }

    /// Starts a map with numbered fields, which are then read in ascending order.
    pub fn map(&mut self) -> Result<Map> {
        let left = self.pairs("fields of a record", 64)?;
        Ok(Map { left })
    }

    /// Reads an array of at most `limit` texts of at most `length` bytes each.
    pub fn texts(
        &mut self,
        what: &'static str,
        limit: usize,
        length: usize,
    ) -> Result<Vec<String>> {
        let count = self.array(what, limit)?;
        (0..count).map(|_| self.text(what, length)).collect()
    }

    /// Reads an array of at most `limit` byte strings of `N` bytes each.
    pub fn arrays_of<const N: usize>(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<Vec<[u8; N]>> {
        let count = self.array(what, limit)?;
        (0..count).map(|_| self.array_of()).collect()
    }

    fn count(&self, count: Option<u64>, what: &'static str, limit: usize) -> Result<usize> {
        let count = count.ok_or_else(|| self.malformed("a length is indefinite"))?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        within(what, count, limit)?;
        let left = self
            .inner
            .input()
            .len()
            .saturating_sub(self.inner.position());
        if count > left {
            return Err(self.malformed("it ends too early"));
        }
        Ok(count)
    }
}

/// The fields of a map that have not been read.
pub struct Map {
    left: usize,
}

impl Map {
    /// Goes to the value of the field `key` if that is the next field; false if it is not.
    pub fn optional(&mut self, decoder: &mut Decoder<'_>, key: u64) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        let mut probe = decoder.inner.probe();
        if probe.u64().is_ok_and(|found| found == key) {
            self.left -= 1;
            decoder.uint()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Goes to the value of the field `key`, which must be the next field.
    pub fn required(&mut self, decoder: &mut Decoder<'_>, key: u64) -> Result<()> {
        if self.optional(decoder, key)? {
            Ok(())
        } else {
            Err(decoder.malformed("a field is missing, unknown or out of order"))
        }
    }

    /// Ends the map; an error if it has more fields.
    pub fn finish(self, decoder: &Decoder<'_>) -> Result<()> {
        if self.left == 0 {
            Ok(())
        } else {
            Err(decoder.malformed("a field is unknown or out of order"))
        }
    }
}

/// Decodes all of `bytes` with `read`; `what` names the structure in errors.
pub fn decode<'a, T>(
    what: &'static str,
    bytes: &'a [u8],
    read: impl FnOnce(&mut Decoder<'a>) -> Result<T>,
) -> Result<T> {
    let mut decoder = Decoder {
        what,
        inner: minicbor::Decoder::new(bytes),
    };
    let value = read(&mut decoder)?;
    if decoder.inner.position() == bytes.len() {
        Ok(value)
    } else {
        Err(decoder.malformed("bytes follow its end"))
    }
}

/// Refuses `bytes` unless they are `encoded`, what encoding the decoded value gave.
pub fn must_be_deterministic(what: &'static str, bytes: &[u8], encoded: &[u8]) -> Result<()> {
    let same = bytes
        .iter()
        .zip(encoded)
        .take_while(|(a, b)| a == b)
        .count();
    if bytes == encoded {
        Ok(())
    } else {
        Err(FormatError::Malformed {
            what,
            at: same,
            why: "its encoding is not deterministic",
        })
    }
}

/// Checks a length or count against its limit.
pub(crate) fn within(what: &'static str, found: usize, limit: usize) -> Result<()> {
    if found <= limit {
        Ok(())
    } else {
        Err(FormatError::Limit {
            what,
            found: found as u64,
            limit: limit as u64,
        })
    }
}
