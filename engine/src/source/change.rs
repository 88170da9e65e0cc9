//! Whether an entry is what the parent snapshot already has.

use larder_format::entry::{Entry, Timestamp};

/// Changes this close before the parent's start may share a tick with what it read.
const TICK_SECONDS: i64 = 2;

/// What counts as a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChangeRules {
    /// The time of the last change of metadata says nothing (some network file systems).
    pub ignore_ctime: bool,
    /// Inode numbers do not last (some network file systems).
    pub ignore_inode: bool,
    /// Everything is read again.
    pub force: bool,
}

/// Tells whether `parent`'s content can stand for the entry that the walk found `now`.
///
/// Metadata is always taken from `now`. `parent_start` is when the parent's backup began: what
/// changed since two seconds before then is read again, since its time stamp may have stood
/// still through a later change.
///
/// A modification time that lies further *after* that moment counts for nothing unless
/// `ignore_ctime` is set: anyone can set it to any year, and a write since then shows in ctime.
#[must_use]
pub fn unchanged(parent: &Entry, now: &Entry, rules: ChangeRules, parent_start: Timestamp) -> bool {
    let parent_was_whole = !parent.flags.unreadable && !parent.flags.changed_while_read;
    // What a pipe or device holds does not show in its metadata.
    let is_special = parent.flags.read_as_special || now.flags.read_as_special;
    let is_same_thing = parent.kind == now.kind
        && parent.size == now.size
        && parent.mtime == now.mtime
        && (rules.ignore_ctime || parent.ctime == now.ctime)
        && (rules.ignore_inode || parent.inode == now.inode);
    !rules.force
        && parent_was_whole
        && !now.flags.unreadable
        && !is_special
        && is_same_thing
        && !may_share_a_tick(now, rules, parent_start)
}

/// Tells whether `parent`'s attributes can stand for those of the entry found `now`.
///
/// Only ctime shows a change of attributes: without it they are read each time.
#[must_use]
pub fn attributes_unchanged(
    parent: &Entry,
    now: &Entry,
    rules: ChangeRules,
    parent_start: Timestamp,
) -> bool {
    !rules.ignore_ctime
        && !parent.flags.attributes_incomplete
        && unchanged(parent, now, rules, parent_start)
}

fn may_share_a_tick(now: &Entry, rules: ChangeRules, start: Timestamp) -> bool {
    let earliest = Timestamp {
        seconds: start.seconds.saturating_sub(TICK_SECONDS),
        ..start
    };
    let latest = Timestamp {
        seconds: start.seconds.saturating_add(TICK_SECONDS),
        ..start
    };
    if rules.ignore_ctime {
        now.mtime >= earliest
    } else {
        now.ctime >= earliest || (now.mtime >= earliest && now.mtime <= latest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use larder_format::entry::{EntryFlags, EntryType};

    use super::*;

    const START: Timestamp = Timestamp {
        seconds: 1_000,
        nanoseconds: 500,
    };

    fn old() -> Entry {
        let long_ago = Timestamp {
            seconds: 10,
            nanoseconds: 7,
        };
        Entry {
            kind: EntryType::File,
            size: 5,
            mtime: long_ago,
            ctime: long_ago,
            inode: 3,
            ..Entry::default()
        }
    }

    fn with(change: impl FnOnce(&mut Entry)) -> Entry {
        let mut entry = old();
        change(&mut entry);
        entry
    }

    fn same(parent: &Entry, now: &Entry) -> bool {
        unchanged(parent, now, ChangeRules::default(), START)
    }

    #[test]
    fn each_field_counts() {
        assert!(same(&old(), &old()));
        assert!(same(&old(), &with(|entry| entry.mode = 0o600)));
        for change in [
            (|entry: &mut Entry| entry.size = 6) as fn(&mut Entry),
            |entry| entry.kind = EntryType::Symlink,
            |entry| entry.mtime.nanoseconds = 8,
            |entry| entry.ctime.nanoseconds = 8,
            |entry| entry.inode = 4,
        ] {
            assert!(!same(&old(), &with(change)));
        }
    }

    #[test]
    fn rules_leave_fields_out() {
        let ignore_ctime = ChangeRules {
            ignore_ctime: true,
            ..ChangeRules::default()
        };
        let ignore_inode = ChangeRules {
            ignore_inode: true,
            ..ChangeRules::default()
        };
        let force = ChangeRules {
            force: true,
            ..ChangeRules::default()
        };
        let other_ctime = with(|entry| entry.ctime.seconds = 2_000);
        let other_inode = with(|entry| entry.inode = 4);
        assert!(unchanged(&old(), &other_ctime, ignore_ctime, START));
        assert!(!unchanged(&old(), &other_ctime, ignore_inode, START));
        assert!(unchanged(&old(), &other_inode, ignore_inode, START));
        assert!(!unchanged(&old(), &old(), force, START));
        assert!(attributes_unchanged(&old(), &old(), ignore_inode, START));
        assert!(!attributes_unchanged(&old(), &old(), ignore_ctime, START));
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
                changed_while_read: true,
                ..flags
            },
            EntryFlags {
                read_as_special: true,
                ..flags
            },
        ] {
            assert!(!same(&with(|entry| entry.flags = flags), &old()));
        }
        let incomplete = with(|entry| entry.flags.attributes_incomplete = true);
        assert!(same(&incomplete, &old()));
        assert!(!attributes_unchanged(
            &incomplete,
            &old(),
            ChangeRules::default(),
            START
        ));
    }

    #[test]
    fn the_same_tick_is_read_again() {
        let at = |seconds, nanoseconds| Timestamp {
            seconds,
            nanoseconds,
        };
        for (ctime, expected) in [
            (at(998, 499), true),
            (at(998, 500), false),
            (at(1_000, 500), false),
            (at(5_000, 0), false),
        ] {
            let entry = with(|entry| entry.ctime = ctime);
            assert_eq!(same(&entry, &entry), expected, "{ctime:?}");
        }
        for (mtime, by_ctime, by_mtime) in [
            (at(998, 499), true, true),
            (at(998, 500), false, false),
            (at(1_002, 500), false, false),
            (at(9_000_000_000, 0), true, false),
        ] {
            let entry = with(|entry| entry.mtime = mtime);
            assert_eq!(same(&entry, &entry), by_ctime, "{mtime:?}");
            let rules = ChangeRules {
                ignore_ctime: true,
                ..ChangeRules::default()
            };
            assert_eq!(
                unchanged(&entry, &entry, rules, START),
                by_mtime,
                "{mtime:?}"
            );
        }
    }
}
