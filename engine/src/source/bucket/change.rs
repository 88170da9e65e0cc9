//! Whether an object is what the parent snapshot already has: pure.

use larder_format::entry::{Entry, EntryType, Timestamp};

/// Changes this close before the parent's start may share a tick with what it read.
const TICK_SECONDS: i64 = 2;

/// What tells that an object changed; its size always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeBy {
    /// Another ETag.
    pub etag: bool,
    /// Another time of modification.
    pub mtime: bool,
}

impl Default for ChangeBy {
    fn default() -> Self {
        Self {
            etag: true,
            mtime: true,
        }
    }
}

/// Tells whether `parent`'s content and properties can stand for the object that is listed `now`.
///
/// An ETag proves it. Without one a time of modification has to, and one that is no older than
/// `parent_start`, when the parent's listing began, may have stood still through a later change. A
/// version id that the listing shows has to be the same in any case.
#[must_use]
pub fn unchanged(parent: &Entry, now: &Entry, by: ChangeBy, parent_start: Timestamp) -> bool {
    let is_same = parent.kind == EntryType::Object
        && now.kind == EntryType::Object
        && parent.size == now.size
        && (!by.etag || parent.etag == now.etag)
        && (!by.mtime || parent.mtime == now.mtime || is_coarser(parent, now, by))
        && (now.version.is_empty() || parent.version == now.version);
    let has_proof = match by {
        ChangeBy { etag: true, .. } if !now.etag.is_empty() => true,
        ChangeBy { mtime: true, .. } => is_settled(now.mtime, parent_start),
        ChangeBy { etag, .. } => !etag,
    };
    is_whole(parent) && is_same && has_proof
}

/// Tells whether an object was read whole.
#[must_use]
pub fn is_whole(entry: &Entry) -> bool {
    !entry.flags.unreadable && !entry.flags.changed_while_read && !entry.flags.attributes_incomplete
}

/// Tells whether the parent has the same time to the second alone, as reading an object gives it, and the
/// ETag says that it is the same.
fn is_coarser(parent: &Entry, now: &Entry, by: ChangeBy) -> bool {
    by.etag
        && !now.etag.is_empty()
        && parent.mtime.nanoseconds == 0
        && parent.mtime.seconds == now.mtime.seconds
}

/// Tells whether a time is known, and old enough that no later change can share it.
fn is_settled(mtime: Timestamp, start: Timestamp) -> bool {
    let earliest = Timestamp {
        seconds: start.seconds.saturating_sub(TICK_SECONDS),
        ..start
    };
    mtime != Timestamp::default() && mtime < earliest
}

#[cfg(test)]
mod tests {
    use larder_format::entry::EntryFlags;

    use super::*;

    const START: Timestamp = Timestamp {
        seconds: 1_000,
        nanoseconds: 0,
    };

    fn object(change: fn(&mut Entry)) -> Entry {
        let mut entry = Entry {
            kind: EntryType::Object,
            size: 5,
            mtime: Timestamp {
                seconds: 10,
                nanoseconds: 7,
            },
            etag: b"e".to_vec(),
            version: b"v".to_vec(),
            ..Entry::default()
        };
        change(&mut entry);
        entry
    }

    fn by(etag: bool, mtime: bool) -> ChangeBy {
        ChangeBy { etag, mtime }
    }

    fn same(change: fn(&mut Entry), rules: ChangeBy) -> bool {
        unchanged(&object(|_| {}), &object(change), rules, START)
    }

    #[test]
    fn each_field_counts_where_it_is_asked_for() {
        let all = [
            by(true, true),
            by(true, false),
            by(false, true),
            by(false, false),
        ];
        for rules in all {
            assert!(same(|_| {}, rules));
            assert!(!same(|entry| entry.size = 6, rules));
            assert!(!same(|entry| entry.version = b"w".to_vec(), rules));
            assert!(same(|entry| entry.version.clear(), rules));
            assert_eq!(same(|entry| entry.etag = b"f".to_vec(), rules), !rules.etag);
            assert_eq!(same(|entry| entry.mtime.seconds = 11, rules), !rules.mtime);
            assert!(same(|entry| entry.class = b"IA".to_vec(), rules));
        }
    }

    #[test]
    fn a_time_to_the_second_is_the_same_where_the_etag_says_so() {
        let coarse = object(|entry| entry.mtime.nanoseconds = 0);
        let fine = object(|_| {});
        let later = object(|entry| entry.mtime.seconds = 11);
        let is_same = |now: &Entry, rules| unchanged(&coarse, now, rules, START);
        assert!(is_same(&fine, by(true, true)));
        assert!(!is_same(&fine, by(false, true)) && !is_same(&later, by(true, true)));
        assert!(!unchanged(&fine, &coarse, by(true, true), START));
    }

    #[test]
    fn without_an_etag_a_time_has_to_be_old_enough() {
        let recent = |etag: &[u8]| Entry {
            etag: etag.to_vec(),
            mtime: Timestamp {
                seconds: 999,
                nanoseconds: 0,
            },
            ..object(|_| {})
        };
        let is_same = |entry: &Entry, rules| unchanged(entry, entry, rules, START);
        assert!(is_same(&recent(b"e"), by(true, true)));
        assert!(!is_same(&recent(b""), by(true, true)));
        assert!(!is_same(&recent(b"e"), by(false, true)));
        let old = object(|entry| entry.etag.clear());
        assert!(is_same(&old, by(true, true)));
        assert!(!is_same(&old, by(true, false)));
        let timeless = object(|entry| {
            entry.etag.clear();
            entry.mtime = Timestamp::default();
        });
        assert!(!is_same(&timeless, by(true, true)));
        assert!(is_same(&timeless, by(false, false)));
    }

    #[test]
    fn what_was_not_whole_is_read_again() {
        let flags = EntryFlags::default();
        for flags in [
            EntryFlags {
                unreadable: true,
                ..flags
            },
            EntryFlags {
                attributes_incomplete: true,
                ..flags
            },
        ] {
            let parent = Entry {
                flags,
                ..object(|_| {})
            };
            assert!(!unchanged(&parent, &object(|_| {}), by(true, true), START));
        }
        let file = object(|entry| entry.kind = EntryType::File);
        assert!(!unchanged(&file, &object(|_| {}), by(true, true), START));
    }
}
