//! Keys in nodes: each takes only what it does not share with the one before.

use alloc::vec::Vec;

use crate::codec::Reader;
use crate::error::{FormatError, Result};
use crate::limits::KEY_BYTES;
use crate::page::{PageReader, PageWriter};

/// A key with its version ordinal: what entries are ordered by.
pub(crate) type Place = (Vec<u8>, u64);

/// Gives the separator between two neighbours: the shortest prefix of `first` that is greater
/// than `previous`, with ordinal 0; or `first` itself if only the ordinals differ.
#[must_use]
pub fn separator(previous: (&[u8], u64), first: (&[u8], u64)) -> (Vec<u8>, u64) {
    let shared = shared_bytes(previous.0, first.0);
    match first.0.get(..=shared) {
        Some(prefix) => (prefix.to_vec(), 0),
        None => (first.0.to_vec(), first.1),
    }
}

/// Gives how many bytes two keys have in common at their start.
fn shared_bytes(one: &[u8], two: &[u8]) -> usize {
    let pairs = one.iter().zip(two);
    pairs.take_while(|(one, two)| one == two).count()
}

/// Writes fields 1 to 4. The keys must ascend strictly, and keep the bounds of [`read_keys`].
pub(super) fn put_keys<'a>(
    page: &mut PageWriter,
    keys: impl Iterator<Item = (&'a [u8], u64)> + Clone,
    bytes_max: usize,
    items_free: usize,
) -> Result<()> {
    let mut split = Vec::new();
    let mut previous: Option<(&[u8], u64)> = None;
    let mut total = 0;
    for key in keys.clone() {
        check_total(total, split.len(), bytes_max, items_free)?;
        total += key.0.len();
        if previous.is_some_and(|previous| previous >= key) {
            return Err(malformed("its keys do not ascend"));
        }
        let shared = previous.map_or(0, |previous| shared_bytes(previous.0, key.0));
        split.push((shared, key.0.get(shared..).unwrap_or_default()));
        previous = Some(key);
    }
    page.integers(1, 0, split.iter().map(|(shared, _)| *shared as u64));
    page.integers(2, 0, split.iter().map(|(_, suffix)| suffix.len() as u64));
    page.raw(3, split.iter().map(|(_, suffix)| *suffix));
    page.integers(4, 0, keys.map(|(_, ordinal)| ordinal));
    Ok(())
}

/// Reads fields 1 to 4. At most `bytes_max` key bytes may precede the last item, if there are
/// more than `items_free` items; this bounds what prefixes expand to.
pub(super) fn read_keys(
    page: &mut PageReader<'_>,
    bytes_max: usize,
    items_free: usize,
) -> Result<Vec<Place>> {
    let (mut shared, mut lengths, mut ordinals) = (Vec::new(), Vec::new(), Vec::new());
    page.integers(1, 0, &mut shared)?;
    page.integers(2, 0, &mut lengths)?;
    let mut suffixes = Reader::new("keys of a node", page.raw(3));
    page.integers(4, 0, &mut ordinals)?;
    let mut places: Vec<Place> = Vec::with_capacity(page.items);
    let mut total = 0;
    for ((shared, length), ordinal) in shared.iter().zip(&lengths).zip(&ordinals) {
        check_total(total, places.len(), bytes_max, items_free)?;
        let suffix = suffixes.take(usize::try_from(*length).unwrap_or(usize::MAX))?;
        let shared = usize::try_from(*shared).unwrap_or(usize::MAX);
        let key = match places.last() {
            Some(previous) => join(page, previous, shared, suffix, *ordinal)?,
            None if shared == 0 => suffix.to_vec(),
            None => return Err(page.malformed("its first key shares bytes with nothing")),
        };
        if key.len() > KEY_BYTES {
            return Err(FormatError::Limit {
                what: "bytes of a key",
                found: key.len() as u64,
                limit: KEY_BYTES as u64,
            });
        }
        total += key.len();
        places.push((key, *ordinal));
    }
    suffixes.finish()?;
    Ok(places)
}

/// Makes a key from its predecessor, and checks order and that as much as possible was shared.
fn join(
    page: &PageReader<'_>,
    (previous, previous_ordinal): &Place,
    shared: usize,
    suffix: &[u8],
    ordinal: u64,
) -> Result<Vec<u8>> {
    let (prefix, rest) = previous
        .split_at_checked(shared)
        .ok_or_else(|| page.malformed("a key shares more bytes than its predecessor has"))?;
    let ascends = match (rest.first(), suffix.first()) {
        (Some(old), Some(new)) => new > old,
        (None, Some(_)) => true,
        (Some(_), None) => false,
        (None, None) => ordinal > *previous_ordinal,
    };
    if !ascends {
        return Err(page.malformed("its keys do not ascend, or share fewer bytes than they could"));
    }
    let mut key = Vec::with_capacity(shared + suffix.len());
    key.extend_from_slice(prefix);
    key.extend_from_slice(suffix);
    Ok(key)
}

fn check_total(total: usize, items: usize, bytes_max: usize, items_free: usize) -> Result<()> {
    if total < bytes_max || items < items_free {
        return Ok(());
    }
    Err(FormatError::Limit {
        what: "key bytes in a node before its last item",
        found: total as u64,
        limit: bytes_max as u64 - 1,
    })
}

fn malformed(why: &'static str) -> FormatError {
    FormatError::Malformed {
        what: "node of a tree",
        at: 0,
        why,
    }
}
