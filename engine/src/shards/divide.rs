//! Where to divide a bucket's keys among the shards of a run: by the tree of the snapshot before, or by what its
//! listing shows.
//!
//! Nothing depends on how well the ranges are balanced but how long the shards take.

use std::collections::BTreeSet;
use std::sync::Arc;

use larder_format::cell::Source;
use larder_format::limits::RUN_KEY_BYTES;

use crate::backup::splits;
use crate::error::Result;
use crate::repository::Repository;
use crate::source::bucket::ranges::begins_behind;
use crate::storage::bucket::{Bucket, Page, PageFrom};

/// Divisions to choose from, for each shard.
const CHOICES: u64 = 16;
/// Pages that are listed before a bucket is sampled.
const PAGES_WHOLE: usize = 100;
/// Keys of a listing that are kept to choose from.
const KEYS_MAX: usize = 1 << 16;
/// Pages that a sample takes: so many, and more for each shard, but not more than so many.
const PROBES: usize = 128;
const PROBES_PER_SHARD: usize = 32;
const PROBES_MAX: usize = 1024;
/// Bytes behind what two keys have in common that tell how far they are from each other.
const DIGITS: usize = 7;
/// A stretch is not taken to have more keys than so many times those of its page.
const SHARE_MAX: f64 = 1e18;

/// Gives at most `count - 1` keys, ascending, that divide a bucket into ranges of about as many keys each.
///
/// # Errors
/// What the bucket answers.
pub(super) fn divide(
    repository: &Arc<Repository>,
    bucket: &Arc<dyn Bucket>,
    parent: Option<&Source>,
    count: u64,
) -> Result<Vec<Vec<u8>>> {
    if let Some(tree) = parent {
        let each = tree.entries / count.saturating_mul(CHOICES).max(1);
        // A tree that cannot be read is told of by whoever compares with it.
        let fine = splits(repository, tree, each.max(1)).unwrap_or_default();
        if fine.len() as u64 >= count.saturating_mul(2) {
            return Ok(evenly(fine, count));
        }
    }
    by_listing(bucket, count)
}

/// Takes `count - 1` of many keys between which lie equally many others.
fn evenly(keys: Vec<Vec<u8>>, count: u64) -> Vec<Vec<u8>> {
    let ranges = keys.len() as u64 + 1;
    let at = |number: u64| number.saturating_mul(ranges) / count.max(1);
    let wanted: Vec<u64> = (1..count).map(at).collect();
    let numbered = (1..).zip(keys);
    let chosen = numbered.filter(|(number, _)| wanted.binary_search(number).is_ok());
    chosen
        .map(|(_, key)| key)
        .filter(|key| can_divide(key))
        .collect()
}

/// Tells whether listings may begin behind a key.
fn can_divide(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= RUN_KEY_BYTES && std::str::from_utf8(key).is_ok()
}

fn by_listing(bucket: &Arc<dyn Bucket>, count: u64) -> Result<Vec<Vec<u8>>> {
    let mut page = |from: PageFrom<'_>| Ok(bucket.page(from)?);
    let mut keys = Keys::default();
    let next = keys.list(&mut page, PageFrom::Start, PAGES_WHOLE)?;
    let (Some(next), Some(last)) = (next, keys.last.clone()) else {
        return Ok(keys.divisions(count));
    };
    if can_divide(&last) && begins_behind(bucket, &last)? {
        return sample(&mut page, &Alphabet::of(&keys.kept), count);
    }
    // Whoever cannot list from a key on lists all of it in any case.
    keys.list(&mut page, PageFrom::Next(&next), usize::MAX)?;
    Ok(keys.divisions(count))
}

/// What asks for a page of a listing.
type Ask<'a> = &'a mut dyn FnMut(PageFrom<'_>) -> Result<Page>;

/// Keys of a listing, evenly thinned out once there are too many.
#[derive(Default)]
struct Keys {
    kept: Vec<Vec<u8>>,
    /// Of so many keys one is kept.
    stride: u64,
    seen: u64,
    last: Option<Vec<u8>>,
}

impl Keys {
    /// Lists so many pages; gives what the next one is asked for by, if there is one.
    fn list(&mut self, page: Ask<'_>, from: PageFrom<'_>, pages: usize) -> Result<Option<String>> {
        let mut found = page(from)?;
        for number in 1.. {
            for object in found.objects {
                self.take(object.key);
            }
            match found.next {
                Some(next) if number < pages => found = page(PageFrom::Next(&next))?,
                next => return Ok(next),
            }
        }
        Ok(None)
    }

    fn take(&mut self, key: Vec<u8>) {
        if self.kept.len() == KEYS_MAX {
            let mut number = 0_u64;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.stride = self.stride.max(1) * 2;
        }
        if self.seen.is_multiple_of(self.stride.max(1)) {
            self.kept.push(key.clone());
        }
        self.seen += 1;
        self.last = Some(key);
    }

    /// Divides them: a division is the last key of its range.
    fn divisions(mut self, count: u64) -> Vec<Vec<u8>> {
        self.kept.sort();
        self.kept.dedup();
        let all = self.kept.len() as u64;
        let ends = (1..count).filter_map(|number| {
            let keys = number.saturating_mul(all) / count.max(1);
            // With all of them before it, the range behind it would be empty.
            let at = keys.checked_sub(1).filter(|_| keys < all)?;
            self.kept.get(usize::try_from(at).ok()?)
        });
        let mut divisions: Vec<Vec<u8>> = ends.filter(|key| can_divide(key)).cloned().collect();
        divisions.dedup();
        divisions
    }
}

/// The bytes that keys are made of, as far as keys were seen: what lies between two of them is guessed by these.
struct Alphabet(Vec<u8>);

impl Alphabet {
    fn of(keys: &[Vec<u8>]) -> Self {
        let bytes: BTreeSet<u8> = keys.iter().flatten().copied().collect();
        let printable = bytes
            .into_iter()
            .filter(|byte| (b' '..=b'~').contains(byte));
        Self(printable.collect())
    }

    fn base(&self) -> f64 {
        self.0.len() as f64 + 1.0
    }

    /// Gives where a key lies between 0 and 1 by the bytes behind its first ones.
    fn place(&self, key: &[u8], from: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let digit = |byte: &u8| self.0.partition_point(|other| other < byte).min(last) as f64 + 1.0;
        let bytes = key.get(from..).unwrap_or_default().iter().take(DIGITS);
        let (sum, _) = bytes.fold((0.0, 1.0 / self.base()), |(sum, unit), byte| {
            (sum + digit(byte) * unit, unit / self.base())
        });
        sum
    }

    /// Makes a key between two others; none if they lie too close, or it is nothing that a listing can begin
    /// behind.
    fn middle(&self, low: &[u8], high: Option<&[u8]>) -> Option<Vec<u8>> {
        let is_between =
            |key: &[u8]| low < key && high.is_none_or(|high| key < high) && can_divide(key);
        let common = common(low, high.unwrap_or_default());
        let end = high.map_or(1.0, |high| self.place(high, common));
        let mut rest = f64::midpoint(self.place(low, common), end);
        let mut key = low.get(..common)?.to_vec();
        for _ in 0..DIGITS {
            rest *= self.base();
            let digit = rest.floor();
            rest -= digit;
            let at = (digit as usize).checked_sub(1)?;
            key.push(*self.0.get(at.min(self.0.len().saturating_sub(1)))?);
            // As short as it can be.
            if is_between(&key) {
                return Some(key);
            }
        }
        None
    }
}

/// A part of a bucket's keys, and what one page shows of it.
#[derive(Debug, Clone)]
struct Stretch {
    /// Its keys lie up to this one, behind the stretch before; none at the end.
    high: Option<Vec<u8>>,
    /// The keys of its first page.
    page: Vec<Vec<u8>>,
    /// Whether no key lies behind that page.
    is_whole: bool,
}

impl Stretch {
    /// Guesses how many keys it has, by how close those of its page lie to each other.
    fn keys(&self, alphabet: &Alphabet) -> f64 {
        let inside = |key: &&Vec<u8>| self.high.as_ref().is_none_or(|high| *key <= high);
        let found = self.page.iter().filter(inside).count() as f64;
        let (Some(first), Some(last)) = (self.page.first(), self.page.last()) else {
            return found;
        };
        if self.is_known() {
            return found;
        }
        let high = self.high.as_deref();
        let whole = common(first, high.unwrap_or_default());
        let end = high.map_or(1.0, |high| alphabet.place(high, whole));
        let close = common(first, last);
        let deeper = i32::try_from(close.saturating_sub(whole)).unwrap_or(i32::MAX);
        let covered = alphabet.place(last, close) - alphabet.place(first, close);
        let covered = covered * alphabet.base().powi(-deeper);
        // Keys too close to be told apart have no share that is a number.
        let share = match covered > 0.0 {
            true => (end - alphabet.place(first, whole)) / covered,
            false => SHARE_MAX,
        };
        found * share.clamp(1.0, SHARE_MAX)
    }

    /// Tells whether its page shows all that it has.
    fn is_known(&self) -> bool {
        let is_behind = |last: &Vec<u8>| self.high.as_ref().is_some_and(|high| last > high);
        self.is_whole || self.page.last().is_none_or(is_behind)
    }

    /// Gives a key in the middle of what its page does not show.
    fn middle(&self, alphabet: &Alphabet) -> Option<Vec<u8>> {
        alphabet.middle(self.page.first()?, self.high.as_deref())
    }
}

/// Divides a bucket that is too large to list it, by pages here and there: where most keys seem to lie, it looks
/// once more.
fn sample(page: Ask<'_>, alphabet: &Alphabet, count: u64) -> Result<Vec<Vec<u8>>> {
    let mut look = |from: PageFrom<'_>, high: Option<Vec<u8>>| -> Result<Stretch> {
        let found = page(from)?;
        Ok(Stretch {
            high,
            is_whole: found.next.is_none(),
            page: found.objects.into_iter().map(|object| object.key).collect(),
        })
    };
    let mut stretches = vec![look(PageFrom::Start, None)?];
    let shards = usize::try_from(count).unwrap_or(PROBES_MAX);
    let wanted = PROBES.saturating_add(shards.saturating_mul(PROBES_PER_SHARD));
    for _ in 0..wanted.min(PROBES_MAX) {
        let open = stretches.iter().enumerate();
        let open = open
            .filter(|(_, one)| !one.is_known())
            .filter_map(|(at, one)| {
                let middle = one.middle(alphabet)?;
                Some((at, one.keys(alphabet), middle))
            });
        let Some((at, _, middle)) = open.max_by(|one, two| one.1.total_cmp(&two.1)) else {
            break;
        };
        let Some(old) = stretches.get_mut(at) else {
            break;
        };
        let high = old.high.replace(middle.clone());
        let upper = look(PageFrom::Behind(&middle), high)?;
        stretches.insert(at + 1, upper);
    }
    Ok(of_stretches(&stretches, alphabet, count))
}

/// Divides at the ends of stretches.
fn of_stretches(stretches: &[Stretch], alphabet: &Alphabet, count: u64) -> Vec<Vec<u8>> {
    let all: f64 = stretches.iter().map(|one| one.keys(alphabet)).sum();
    let mut divisions: Vec<Vec<u8>> = Vec::new();
    let mut before = 0.0;
    for stretch in stretches {
        before += stretch.keys(alphabet);
        let next = divisions.len() as u64 + 1;
        let wanted = next as f64 * all / count as f64;
        if let Some(high) = &stretch.high
            && before >= wanted
            && before < all
            && next < count
        {
            divisions.push(high.clone());
        }
    }
    divisions
}

/// Counts the bytes with which two keys begin alike.
fn common(one: &[u8], two: &[u8]) -> usize {
    let pairs = one.iter().zip(two);
    pairs.take_while(|(one, two)| one == two).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::storage::bucket::Properties;
    use crate::storage::bucket::memory::MemoryBucket;

    fn bucket(keys: &BTreeSet<Vec<u8>>, page: usize) -> Arc<MemoryBucket> {
        let bucket = MemoryBucket::new(page);
        for key in keys {
            let put = bucket.put(key, Bytes::from_static(b"x"), &Properties::new());
            put.unwrap();
        }
        Arc::new(bucket)
    }

    fn shares(keys: &BTreeSet<Vec<u8>>, divisions: &[Vec<u8>]) -> Vec<usize> {
        assert!(divisions.is_sorted_by(|one, two| one < two));
        let mut shares = vec![0; divisions.len() + 1];
        for key in keys {
            shares[divisions.partition_point(|division| division < key)] += 1;
        }
        shares
    }

    #[test]
    fn a_bucket_that_can_be_listed_is_divided_evenly() {
        let keys: BTreeSet<Vec<u8>> = (0..103)
            .map(|number| format!("k{number:03}").into())
            .collect();
        let bucket: Arc<dyn Bucket> = bucket(&keys, 10);
        let divisions = by_listing(&bucket, 4).unwrap();
        assert_eq!(shares(&keys, &divisions), [25, 26, 26, 26]);
        assert!(by_listing(&bucket, 1).unwrap().is_empty());
        // More shards than keys: as many as there are keys.
        assert_eq!(by_listing(&bucket, 500).unwrap().len(), 102);
        let empty: Arc<dyn Bucket> = Arc::new(MemoryBucket::new(10));
        assert!(by_listing(&empty, 4).unwrap().is_empty());
    }

    #[test]
    fn a_large_bucket_is_sampled_and_no_share_is_far_from_another() {
        let plain = |number: u64| format!("k{number:05}");
        let dated = |number: u64| {
            let (day, rest) = (number % 28 + 1, number / 28);
            format!("logs/2026/11/{day:02}/server-{}/{rest:04}.gz", rest % 3)
        };
        let hashed = |number: u64| blake3::hash(&number.to_le_bytes()).to_hex()[..20].to_string();
        let lopsided = |number: u64| match number % 10 {
            0 => format!("a/{number:06}"),
            _ => format!("zebra/stripes/{number:06}"),
        };
        let makers: [&dyn Fn(u64) -> String; 4] = [&plain, &dated, &hashed, &lopsided];
        for make in makers {
            let keys: BTreeSet<Vec<u8>> = (0..12_000).map(|number| make(number).into()).collect();
            let bucket = bucket(&keys, 20);
            let _ = bucket.take_counts();
            let as_it_is: Arc<dyn Bucket> = bucket.clone();
            let divisions = by_listing(&as_it_is, 4).unwrap();
            let shares = shares(&keys, &divisions);
            assert_eq!(shares.len(), 4, "{shares:?}");
            let most = *shares.iter().max().unwrap();
            assert!(most < 12_000 / 2, "{shares:?} of {}", make(0));
            assert!(bucket.take_counts().pages <= 100 + 2 + 256);
        }
    }

    #[test]
    fn a_bucket_that_cannot_begin_behind_a_key_is_listed_whole() {
        let keys: BTreeSet<Vec<u8>> = (0..500)
            .map(|number| format!("{number:03}").into())
            .collect();
        let bucket = bucket(&keys, 2);
        bucket.know_no_keys();
        let bucket: Arc<dyn Bucket> = bucket;
        let divisions = by_listing(&bucket, 5).unwrap();
        assert_eq!(shares(&keys, &divisions), [100; 5]);
    }

    proptest! {
        #[test]
        fn divisions_ascend_and_are_keys_that_listings_can_begin_behind(
            keys in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 0..6), 0..300),
            count in 1_u64..9,
            page in 1_usize..9,
        ) {
            let bucket: Arc<dyn Bucket> = bucket(&keys, page);
            let divisions = by_listing(&bucket, count).unwrap();
            prop_assert!((divisions.len() as u64) < count);
            prop_assert!(divisions.is_sorted_by(|one, two| one < two));
            prop_assert!(divisions.iter().all(|key| can_divide(key)));
        }

        #[test]
        fn what_lies_between_two_keys_does(low in "[ -~]{0,9}", high in "[ -~]{0,9}", seen in "[a-z/0-9]{1,9}") {
            let (low, high) = (low.as_bytes(), high.as_bytes());
            for alphabet in [Alphabet::of(&[seen.into()]), Alphabet::of(&[low.to_vec(), high.to_vec()]), Alphabet(Vec::new())] {
                if let Some(key) = alphabet.middle(low, Some(high)) {
                    prop_assert!(low < key.as_slice() && key.as_slice() < high);
                }
                if let Some(key) = alphabet.middle(low, None) {
                    prop_assert!(low < key.as_slice());
                }
            }
        }
    }
}
