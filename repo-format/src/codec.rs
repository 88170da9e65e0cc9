//! Reading and writing the binary pieces of the format (SPEC.md §1).

use alloc::vec::Vec;

use crate::error::{FormatError, Result};

/// Bytes of the longest varint.
pub const VARINT_BYTES_MAX: usize = 10;

/// A cursor over bytes that are not trusted: every read is checked and no read allocates.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`; `what` names the structure in errors.
    #[must_use]
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            what,
            bytes,
            position: 0,
        }
    }

    /// Gives the offset in bytes of the next read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Gives all bytes that have not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// Makes the error for what was just found wrong, as the end of a sentence.
    #[must_use]
    pub fn malformed(&self, why: &'static str) -> FormatError {
        FormatError::Malformed {
            what: self.what,
            at: self.position,
            why,
        }
    }

    /// Reads `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, _) = self
            .rest()
            .split_at_checked(length)
            .ok_or_else(|| self.malformed("it ends too early"))?;
        self.position += length;
        Ok(taken)
    }

    /// Reads exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let array = *self
            .rest()
            .first_chunk::<N>()
            .ok_or_else(|| self.malformed("it ends too early"))?;
        self.position += N;
        Ok(array)
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Reads four bytes, lowest first.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads eight bytes, lowest first.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads an unsigned LEB128 integer in its shortest form, the only one allowed.
    pub fn varint(&mut self) -> Result<u64> {
        let start = self.position;
        let mut value = 0_u64;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.u8()?;
            let last_of_ten = index + 1 == VARINT_BYTES_MAX;
            if (byte == 0 && index > 0) || (last_of_ten && byte > 1) {
                self.position = start;
                return Err(self.malformed("an integer is not in its shortest form"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        self.position = start;
        Err(self.malformed("an integer is longer than 64 bits"))
    }

    /// Reads a varint that may be `limit` at most; `what` names it in the error.
    pub fn varint_below(&mut self, what: &'static str, limit: usize) -> Result<usize> {
        let found = self.varint()?;
        match usize::try_from(found) {
            Ok(value) if value <= limit => Ok(value),
            _ => Err(FormatError::Limit {
                what,
                found,
                limit: limit as u64,
            }),
        }
    }

    /// Ends the reading; an error if anything is left.
    pub fn finish(self) -> Result<()> {
        if self.position == self.bytes.len() {
            Ok(())
        } else {
            Err(self.malformed("bytes follow its end"))
        }
    }

    /// Ends the reading; an error if anything but zero bytes is left.
    pub fn finish_padding(mut self) -> Result<()> {
        match self.rest().iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(offset) => {
                self.position += offset;
                Err(self.malformed("its padding is not zero"))
            }
        }
    }
}

/// Appends `value` as an unsigned LEB128 integer.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Gives the number of bytes that [`put_varint`] appends for `value`.
#[must_use]
pub fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Maps a signed integer to an unsigned one so that small magnitudes stay small.
#[must_use]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[must_use]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Gives the zero bytes that bring `length` to a multiple of `unit`.
pub(crate) fn padding_to(length: usize, unit: usize) -> usize {
    length.next_multiple_of(unit) - length
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn varints_have_one_form() {
        for (value, bytes) in [
            (0, vec![0]),
            (127, vec![0x7f]),
            (128, vec![0x80, 1]),
            (300, vec![0xac, 2]),
            (u64::MAX, [[0xff; 9].as_slice(), &[1]].concat()),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(varint_len(value), bytes.len());
            assert_eq!(Reader::new("test", &bytes).varint(), Ok(value));
        }
        for bad in [
            &[0x80, 0][..],
            &[0xff, 0x80, 0],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x80],
            &[],
        ] {
            assert!(Reader::new("test", bad).varint().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_and_ends_are_checked() {
        assert!(Reader::new("test", &[5]).varint_below("things", 5).is_ok());
        assert_eq!(
            Reader::new("test", &[6]).varint_below("things", 5),
            Err(FormatError::Limit {
                what: "things",
                found: 6,
                limit: 5
            })
        );
        assert!(Reader::new("test", &[0, 0]).finish().is_err());
        assert!(Reader::new("test", &[0, 0]).finish_padding().is_ok());
        assert!(Reader::new("test", &[0, 1]).finish_padding().is_err());
        assert!(Reader::new("test", &[0, 1]).take(3).is_err());
    }

    proptest! {
        #[test]
        fn integers_go_both_ways(value: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(Reader::new("test", &out).varint(), Ok(value));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }
}
