//! The ledger: when each pack was last verified, and how (SPEC.md §11, §12).
//!
//! Nothing depends on it: a ledger that is lost or damaged costs reading packs again that were read
//! not long ago. So whatever fails here is said and ends nothing.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use jiff::Timestamp;
use larder_format::ids::{LedgerId, ObjectId, PackPrefix};
use larder_format::ledger::{Ledger, LedgerGroup, Verification};
use larder_format::limits::{COLLECTOR_IDS, LEDGER_BYTES, LEDGER_GROUPS};
use larder_format::names::{self, Name};
use larder_format::record::{open_record, seal_record};
use serde::Serialize;

use crate::check::{Problem, attempt};
use crate::clock;
use crate::error::Result;
use crate::random;
use crate::repository::Repository;
use crate::storage::create_or_confirm;
use crate::view;

/// Times that the ledgers are listed anew because somebody merged them meanwhile.
const READINGS_MAX: usize = 5;
/// How far ahead of this machine's clock a time may lie to be believed.
const SKEW_SECONDS: i64 = 86_400;
const DAY_SECONDS: i64 = 86_400;

/// When a pack was verified, in seconds since 1970, and how.
pub(crate) type Entry = (i64, Verification);

/// What all ledgers of a repository say together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    packs: BTreeMap<PackPrefix, Entry>,
    /// Ledgers that were read, and that mean nothing here.
    read: Vec<LedgerId>,
    /// Ledgers that cannot be used, and why.
    pub damaged: Vec<(LedgerId, String)>,
}

/// What share of a repository's packs was verified, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Bytes of all packs that count.
    pub bytes: u64,
    /// Those verified within 7 days.
    pub days_7: u64,
    /// Those verified within 30 days.
    pub days_30: u64,
    /// Those verified within 90 days.
    pub days_90: u64,
    /// Those never verified, as far as the ledger knows.
    pub never: u64,
    /// When the pack was verified that was verified longest ago, of those that were (RFC 3339, UTC).
    pub oldest: Option<String>,
}

/// Tells what share of the repository's packs was verified lately.
///
/// # Errors
/// What the storage answers.
pub fn verified(repository: &Repository) -> Result<Verified> {
    let view = view::read(repository, true, None)?;
    let book = read(repository)?;
    let found = coverage(repository, &view, &book);
    repository.index().drop_pending()?;
    found
}

/// Reads all ledgers.
pub(crate) fn read(repository: &Repository) -> Result<Book> {
    let mut book = Book::default();
    for _ in 0..READINGS_MAX {
        let (reading, is_whole) = read_once(repository)?;
        book = reading;
        if is_whole {
            break;
        }
    }
    Ok(book)
}

/// Reads all ledgers; tells whether none went away meanwhile.
fn read_once(repository: &Repository) -> Result<(Book, bool)> {
    let mut book = Book::default();
    let mut ids = Vec::new();
    repository.storage().list(names::LEDGERS, &mut |object| {
        if let Some(Name::Ledger(id)) = names::parse(&object.name) {
            ids.push(id);
        }
        Ok(())
    })?;
    ids.sort_unstable();
    let mut is_whole = true;
    let replica = repository.config().replica;
    let believed = clock::now_s().saturating_add(SKEW_SECONDS);
    for id in ids {
        let name = Name::Ledger(id);
        let read = attempt(|| {
            let object = repository
                .storage()
                .get(&name.to_string(), LEDGER_BYTES as u64)?;
            Ok(open_record::<Ledger>(repository.keyring(), &name, &object)?)
        })?;
        match read {
            Ok(ledger) => {
                book.read.push(id);
                // What was verified elsewhere says nothing of the bytes here.
                if ledger.replica == replica {
                    book.absorb(&ledger, believed);
                }
            }
            Err(Problem::Missing) => is_whole = false,
            Err(Problem::Damaged(why)) => book.damaged.push((id, why)),
        }
    }
    Ok((book, is_whole))
}

impl Book {
    fn absorb(&mut self, ledger: &Ledger, believed: i64) {
        for group in ledger.groups.iter().filter(|group| group.time <= believed) {
            for pack in &group.packs {
                self.note(*pack, (group.time, group.how));
            }
        }
    }

    fn note(&mut self, pack: PackPrefix, entry: Entry) {
        let known = self.packs.entry(pack).or_insert(entry);
        *known = entry.max(*known);
    }

    /// Gives when a pack was verified last.
    pub(crate) fn of(&self, pack: &ObjectId) -> Option<Entry> {
        self.packs.get(&pack.prefix()).copied()
    }

    /// Gives the time that belongs to what was verified now: after all that was verified before,
    /// whatever the clocks of other machines say.
    fn next_time(&self) -> i64 {
        let newest = self.packs.values().map(|entry| entry.0).max();
        let newest = newest.unwrap_or(i64::MIN).saturating_add(1);
        clock::now_s().max(newest)
    }

    /// Keeps the packs that are listed: `listed` gives their ids in ascending order.
    fn retain(&mut self, listed: &mut dyn Iterator<Item = Result<ObjectId>>) -> Result<()> {
        let mut kept = BTreeMap::new();
        for id in listed {
            let prefix = id?.prefix();
            kept.extend(self.packs.get(&prefix).map(|entry| (prefix, *entry)));
        }
        self.packs = kept;
        Ok(())
    }

    /// Gives what a ledger says of all that is known.
    fn groups(&self) -> Vec<LedgerGroup> {
        let mut groups: BTreeMap<Entry, Vec<PackPrefix>> = BTreeMap::new();
        for (pack, entry) in &self.packs {
            groups.entry(*entry).or_default().push(*pack);
        }
        limit(&mut groups, LEDGER_GROUPS, COLLECTOR_IDS);
        let groups = groups.into_iter();
        groups
            .map(|((time, how), packs)| LedgerGroup { time, how, packs })
            .collect()
    }
}

/// Brings groups within limits: the oldest are taken for as old as the oldest of them, and what is
/// too much of packs is forgotten, the oldest first.
fn limit(groups: &mut BTreeMap<Entry, Vec<PackPrefix>>, groups_max: usize, packs_max: usize) {
    let mut packs: usize = groups.values().map(Vec::len).sum();
    while packs > packs_max
        && let Some(mut oldest) = groups.first_entry()
    {
        let excess = packs - packs_max;
        let left = oldest.get().len().saturating_sub(excess);
        packs -= oldest.get().len() - left;
        oldest.get_mut().truncate(left);
        if left == 0 {
            oldest.remove();
        }
    }
    while groups.len() > groups_max
        && let Some((oldest, mut packs)) = groups.pop_first()
        && let Some((_, more)) = groups.pop_first()
    {
        packs.extend(more);
        packs.sort_unstable();
        groups.insert((oldest.0, Verification::Hashed.min(oldest.1)), packs);
    }
}

/// What a run found out about packs.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Packs that are as they were written.
    pub sound: Vec<PackPrefix>,
    /// Packs that are not.
    pub damaged: Vec<PackPrefix>,
}

/// Writes a ledger of what all others say and what was found, and removes the others.
///
/// `listed` gives the packs that are there, ascending: all others are forgotten.
pub(crate) fn record(
    repository: &Repository,
    how: Verification,
    found: &Findings,
    listed: &mut dyn Iterator<Item = Result<ObjectId>>,
) -> Result<Book> {
    repository.check_write()?;
    let mut book = read(repository)?;
    let is_known = |pack: &PackPrefix| book.packs.contains_key(pack);
    if found.sound.is_empty() && !found.damaged.iter().any(is_known) {
        return Ok(book);
    }
    let time = book.next_time();
    for pack in &found.sound {
        book.note(*pack, (time, how));
    }
    for pack in &found.damaged {
        book.packs.remove(pack);
    }
    book.retain(listed)?;
    write(repository, &book)?;
    Ok(book)
}

/// Forgets packs that were deleted, if any of them stands in a ledger.
pub(crate) fn forget(repository: &Repository, packs: &[ObjectId]) -> Result<()> {
    let mut book = read(repository)?;
    let before = book.packs.len();
    for pack in packs {
        book.packs.remove(&pack.prefix());
    }
    if book.packs.len() < before {
        write(repository, &book)?;
    }
    Ok(())
}

/// Writes one ledger in place of all that were read.
///
/// The new one is there before the others go; whoever wrote one beside it keeps his own, and the next
/// writer merges both.
fn write(repository: &Repository, book: &Book) -> Result<()> {
    let ledger = Ledger {
        id: LedgerId(random::bytes()?),
        replica: repository.config().replica,
        groups: book.groups(),
    };
    let (uid, random) = (random::bytes()?, random::bytes()?);
    let object = seal_record(repository.keyring(), &ledger, uid, &random)?;
    let storage = repository.storage();
    create_or_confirm(storage, &names::ledger(&ledger.id), &Bytes::from(object))?;
    let damaged = book.damaged.iter().map(|(id, _)| id);
    for id in book.read.iter().chain(damaged) {
        storage.delete(&names::ledger(id))?;
    }
    Ok(())
}

/// Tells what share of the packs that count was verified lately; the index knows them.
pub(crate) fn coverage(
    repository: &Repository,
    view: &view::View,
    book: &Book,
) -> Result<Verified> {
    let now = clock::now_s();
    let mut verified = Verified::default();
    let mut oldest = None;
    let deleted = &view.collection.state.deleted;
    repository.index().packs(&mut |pack| {
        if !deleted.contains(&pack.id) {
            let time = book.of(&pack.id).map(|entry| entry.0);
            verified.add(pack.size, time.map(|time| now.saturating_sub(time)));
            oldest = oldest.into_iter().chain(time).min();
        }
        ControlFlow::Continue(())
    })?;
    let oldest = oldest.and_then(|time| Timestamp::from_second(time).ok());
    verified.oldest = oldest.map(|time| time.to_string());
    Ok(verified)
}

impl Verified {
    /// Adds a pack, with the seconds since it was verified.
    fn add(&mut self, bytes: u64, age: Option<i64>) {
        self.bytes = self.bytes.saturating_add(bytes);
        let Some(age) = age else {
            self.never = self.never.saturating_add(bytes);
            return;
        };
        let within = [
            (7, &mut self.days_7),
            (30, &mut self.days_30),
            (90, &mut self.days_90),
        ];
        for (days, sum) in within {
            if age <= days * DAY_SECONDS {
                *sum = sum.saturating_add(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(number: u8) -> PackPrefix {
        PackPrefix([number; 16])
    }

    #[test]
    fn limits_forget_the_oldest_and_make_nothing_younger() {
        let hashed = Verification::Hashed;
        let all = || -> BTreeMap<Entry, Vec<PackPrefix>> {
            let groups = (0_u8..5).map(|number| {
                let packs = vec![pack(number), pack(number + 10)];
                ((i64::from(number), Verification::Opened), packs)
            });
            groups.collect()
        };
        let mut groups = all();
        limit(&mut groups, 3, 100);
        let oldest = vec![pack(0), pack(1), pack(2), pack(10), pack(11), pack(12)];
        assert_eq!(groups.len(), 3);
        assert_eq!(groups.first_key_value(), Some((&(0, hashed), &oldest)));
        let mut groups = all();
        limit(&mut groups, 100, 5);
        let left: Vec<_> = groups.into_iter().collect();
        assert_eq!(left.len(), 3);
        assert_eq!(
            left.first().map(|(entry, packs)| (entry.0, packs.len())),
            Some((2, 1))
        );
        let mut groups = all();
        limit(&mut groups, 100, 100);
        assert_eq!(groups, all());
    }

    #[test]
    fn the_newest_time_counts_and_the_next_is_later() {
        let mut book = Book::default();
        let far = clock::now_s() + 1000;
        book.note(pack(1), (far, Verification::Hashed));
        book.note(pack(1), (far - 1, Verification::Opened));
        book.note(pack(2), (5, Verification::Hashed));
        book.note(pack(2), (5, Verification::Opened));
        assert_eq!(book.packs.get(&pack(1)), Some(&(far, Verification::Hashed)));
        assert_eq!(book.packs.get(&pack(2)), Some(&(5, Verification::Opened)));
        assert_eq!(book.next_time(), far + 1);
        assert!(Book::default().next_time() <= clock::now_s());
    }
}
