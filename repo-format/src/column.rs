//! Columns: many values of one field, in the one form that the rule allows (SPEC.md §9).

use alloc::vec::Vec;

use crate::codec::{Reader, put_varint, unzigzag, varint_len, zigzag};
use crate::error::{FormatError, Result};

const CONSTANT: u8 = 0;
const PLAIN: u8 = 1;
const DELTA: u8 = 2;
const SCALED: u8 = 3;

/// The largest power of ten that form 3 divides by.
const SCALE_MAX: u32 = 9;

/// Appends a column of integers in the form that the rule picks. `values` has at least one.
pub fn put_integers(out: &mut Vec<u8>, values: &[u64]) {
    let choice = Choice::of(values);
    out.push(choice.form);
    match choice.form {
        CONSTANT => put_varint(out, values.first().copied().unwrap_or_default()),
        PLAIN => values.iter().for_each(|value| put_varint(out, *value)),
        DELTA => deltas(values).for_each(|delta| put_varint(out, delta)),
        _ => {
            out.push(choice.scale as u8);
            let divisor = 10_u64.pow(choice.scale);
            values
                .iter()
                .for_each(|value| put_varint(out, value / divisor));
        }
    }
}

/// Reads a column of `count` integers that fills `bytes`, into `values` in place of what is there.
///
/// Refuses every form but the one that [`put_integers`] picks for the same values. The caller
/// bounds `count`; no more than that is allocated.
pub fn read_integers(bytes: &[u8], count: usize, values: &mut Vec<u64>) -> Result<()> {
    let mut reader = Reader::new("column of integers", bytes);
    values.clear();
    let form = reader.u8()?;
    if form == CONSTANT {
        let value = reader.varint()?;
        values.resize(count, value);
        return reader.finish();
    }
    if count > bytes.len() {
        return Err(reader.malformed("it is too short for its values"));
    }
    values.reserve(count);
    let mut scale = 0;
    match form {
        PLAIN => {
            for _ in 0..count {
                values.push(reader.varint()?);
            }
        }
        DELTA => {
            let mut value = 0_u64;
            for _ in 0..count {
                value = value.wrapping_add(unzigzag(reader.varint()?) as u64);
                values.push(value);
            }
        }
        SCALED => {
            scale = u32::from(reader.u8()?);
            if scale == 0 || scale > SCALE_MAX {
                return Err(reader.malformed("its scale is not 1 to 9"));
            }
            let factor = 10_u64.pow(scale);
            for _ in 0..count {
                let value = reader.varint()?.checked_mul(factor);
                values.push(value.ok_or_else(|| reader.malformed("a scaled value is too large"))?);
            }
        }
        _ => return Err(reader.malformed("its form is unknown")),
    }
    let choice = Choice::of(values);
    if choice.form != form || (form == SCALED && choice.scale != scale) {
        return Err(reader.malformed("it is not in the shortest form"));
    }
    reader.finish()
}

/// Appends a column of strings: their lengths, then the strings joined.
pub fn put_strings<'a>(out: &mut Vec<u8>, strings: impl Iterator<Item = &'a [u8]> + Clone) {
    let lengths: Vec<u64> = strings.clone().map(|string| string.len() as u64).collect();
    let mut column = Vec::new();
    put_integers(&mut column, &lengths);
    put_varint(out, column.len() as u64);
    out.extend_from_slice(&column);
    strings.for_each(|string| out.extend_from_slice(string));
}

/// Reads a column of `count` strings that fills `bytes`; each is at most `limit` bytes long.
pub fn read_strings<'a>(
    bytes: &'a [u8],
    count: usize,
    what: &'static str,
    limit: usize,
) -> Result<Vec<&'a [u8]>> {
    let mut reader = Reader::new("column of strings", bytes);
    let column_bytes = reader.varint_below("bytes of the lengths of strings", bytes.len())?;
    let mut lengths = Vec::new();
    read_integers(reader.take(column_bytes)?, count, &mut lengths)?;
    let mut strings = Vec::with_capacity(count);
    for found in lengths {
        if found > limit as u64 {
            return Err(FormatError::Limit {
                what,
                found,
                limit: limit as u64,
            });
        }
        strings.push(reader.take(found as usize)?);
    }
    reader.finish()?;
    Ok(strings)
}

/// Constant for equal values; else the form of the fewest bytes, and of equals the lowest.
struct Choice {
    form: u8,
    scale: u32,
}

impl Choice {
    fn of(values: &[u64]) -> Self {
        let Some((first, rest)) = values.split_first() else {
            return Self::unscaled(CONSTANT);
        };
        if rest.iter().all(|value| value == first) {
            return Self::unscaled(CONSTANT);
        }
        let plain: usize = values.iter().map(|value| varint_len(*value)).sum();
        let delta: usize = deltas(values).map(varint_len).sum();
        let scale = common_scale(values);
        let mut best = Self::unscaled(PLAIN);
        let mut bytes = plain;
        if delta < bytes {
            best.form = DELTA;
            bytes = delta;
        }
        if scale > 0 {
            let divisor = 10_u64.pow(scale);
            let scaled = values.iter().map(|value| varint_len(value / divisor));
            if 1 + scaled.sum::<usize>() < bytes {
                best = Self {
                    form: SCALED,
                    scale,
                };
            }
        }
        best
    }

    fn unscaled(form: u8) -> Self {
        Self { form, scale: 0 }
    }
}

/// Gives what form 2 writes: the first value, then the differences, all zigzag.
fn deltas(values: &[u64]) -> impl Iterator<Item = u64> {
    let mut previous = 0_u64;
    values.iter().map(move |value| {
        let delta = value.wrapping_sub(previous);
        previous = *value;
        zigzag(delta as i64)
    })
}

/// Gives the largest power of ten, 9 at most, that divides every value; 0 if all are zero.
fn common_scale(values: &[u64]) -> u32 {
    let mut scale = SCALE_MAX;
    let mut any = false;
    for value in values.iter().filter(|value| **value != 0) {
        any = true;
        while scale > 0 && value % 10_u64.pow(scale) != 0 {
            scale -= 1;
        }
        if scale == 0 {
            return 0;
        }
    }
    if any { scale } else { 0 }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// Every form that can hold the values, straight from the table in SPEC.md.
    fn all_forms(values: &[u64]) -> Vec<Vec<u8>> {
        let mut forms = Vec::new();
        if values.iter().all(|value| *value == values[0]) {
            let mut form = vec![0];
            put_varint(&mut form, values[0]);
            return vec![form];
        }
        let mut plain = vec![1];
        values.iter().for_each(|v| put_varint(&mut plain, *v));
        forms.push(plain);
        let mut delta = vec![2];
        put_varint(&mut delta, zigzag(values[0] as i64));
        for pair in values.windows(2) {
            put_varint(&mut delta, zigzag(pair[1].wrapping_sub(pair[0]) as i64));
        }
        forms.push(delta);
        if values.iter().any(|value| *value != 0) {
            let k = (1..=9_u32)
                .rev()
                .find(|k| values.iter().all(|v| v % 10_u64.pow(*k) == 0));
            if let Some(k) = k {
                let mut scaled = vec![3, k as u8];
                values
                    .iter()
                    .for_each(|v| put_varint(&mut scaled, v / 10_u64.pow(k)));
                forms.push(scaled);
            }
        }
        forms
    }

    fn columns() -> impl Strategy<Value = Vec<u64>> {
        let value = prop_oneof![
            Just(0_u64),
            0..300_u64,
            any::<u64>(),
            (1..90_u64, 0..18_u32).prop_map(|(v, k)| v * 10_u64.pow(k)),
            (1_u64 << 33)..((1 << 33) + 200),
        ];
        prop_oneof![
            prop::collection::vec(value, 1..40),
            (any::<u64>(), 1..40_usize).prop_map(|(v, n)| vec![v; n]),
            (any::<u64>(), prop::collection::vec(0..9_u64, 1..40)).prop_map(|(start, steps)| {
                steps
                    .iter()
                    .scan(start, |at, step| {
                        *at = at.wrapping_add(*step);
                        Some(*at)
                    })
                    .collect()
            }),
        ]
    }

    proptest! {
        #[test]
        fn the_shortest_form_is_written_and_no_other_is_read(values in columns()) {
            let forms = all_forms(&values);
            let shortest = forms.iter().map(Vec::len).min().unwrap();
            let expected = forms.iter().find(|form| form.len() == shortest).unwrap();
            let mut column = Vec::new();
            put_integers(&mut column, &values);
            prop_assert_eq!(&column, expected);
            let mut read = Vec::new();
            for form in &forms {
                let result = read_integers(form, values.len(), &mut read);
                prop_assert_eq!(result.is_ok(), form == expected);
                if result.is_ok() {
                    prop_assert_eq!(&read, &values);
                }
            }
        }

        #[test]
        fn what_is_read_is_written_alike(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 1..20_usize) {
            let mut values = Vec::new();
            if read_integers(&bytes, count, &mut values).is_ok() {
                let mut again = Vec::new();
                put_integers(&mut again, &values);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn strings_go_both_ways(strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..20)) {
            let mut column = Vec::new();
            put_strings(&mut column, strings.iter().map(Vec::as_slice));
            let read = read_strings(&column, strings.len(), "string", 8).unwrap();
            prop_assert_eq!(&read, &strings);
            let longest = strings.iter().map(Vec::len).max().unwrap();
            if longest > 0 {
                prop_assert!(read_strings(&column, strings.len(), "string", longest - 1).is_err());
            }
            prop_assert!(read_strings(&column[..column.len() - 1], strings.len(), "string", 8).is_err());
        }
    }

    #[test]
    fn known_columns() {
        for (values, hex) in [
            (&[7_u64, 7, 7][..], &[0_u8, 7][..]),
            (&[1, 2, 300], &[1, 1, 2, 0xac, 2]),
            (&[1000, 1001, 1003, 1002], &[2, 0xd0, 0x0f, 2, 4, 1]),
            (&[0, 5_000_000, 120_000_000], &[3, 6, 0, 5, 120]),
        ] {
            let mut column = Vec::new();
            put_integers(&mut column, values);
            assert_eq!(column, hex);
        }
    }
}
