//! Which user and group an entry's owner is on this machine.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Mutex, PoisonError};

use larder_format::entry::Entry;

use super::options::{Options, Owners};

/// Names remembered of each kind; a tree may claim any number of them.
const NAMES_MAX: usize = 4096;

/// The system's answers about names so far.
#[derive(Default)]
pub(super) struct OwnerNames {
    users: Names,
    groups: Names,
}

impl OwnerNames {
    /// Finds the numbers of user and group that the entry should have here.
    pub(super) fn resolve(&self, entry: &Entry, options: &Options) -> (u32, u32) {
        let by_name = options.owners == Owners::NameThenNumber;
        let user = |name: &OsStr| uzers::get_user_by_name(name).map(|user| user.uid());
        let group = |name: &OsStr| uzers::get_group_by_name(name).map(|group| group.gid());
        (
            resolve(
                entry.uid,
                &entry.user,
                &options.uid_map,
                by_name,
                &self.users,
                user,
            ),
            resolve(
                entry.gid,
                &entry.group,
                &options.gid_map,
                by_name,
                &self.groups,
                group,
            ),
        )
    }
}

#[derive(Default)]
struct Names(Mutex<HashMap<Vec<u8>, Option<u32>>>);

fn resolve(
    number: u32,
    name: &[u8],
    map: &BTreeMap<u32, u32>,
    by_name: bool,
    known: &Names,
    ask: impl Fn(&OsStr) -> Option<u32>,
) -> u32 {
    if let Some(mapped) = map.get(&number) {
        return *mapped;
    }
    if !by_name || name.is_empty() || name.contains(&0) {
        return number;
    }
    let mut known = known.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(answer) = known.get(name) {
        return answer.unwrap_or(number);
    }
    let answer = ask(OsStr::from_bytes(name));
    if known.len() >= NAMES_MAX {
        known.clear();
    }
    known.insert(name.to_vec(), answer);
    answer.unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(owners: Owners) -> Options {
        Options {
            owners,
            ..Options::for_this_user()
        }
    }

    #[test]
    fn a_map_goes_before_the_name_and_the_name_before_the_number() {
        let names = OwnerNames::default();
        let entry = Entry {
            uid: 4711,
            gid: 4712,
            user: b"root".to_vec(),
            group: b"no such group".to_vec(),
            ..Entry::default()
        };
        for _ in 0..2 {
            assert_eq!(
                names.resolve(&entry, &options(Owners::NameThenNumber)),
                (0, 4712)
            );
        }
        assert_eq!(
            names.resolve(&entry, &options(Owners::Numeric)),
            (4711, 4712)
        );
        let mapped = Options {
            uid_map: BTreeMap::from([(4711, 5)]),
            gid_map: BTreeMap::from([(4712, 6)]),
            ..options(Owners::NameThenNumber)
        };
        assert_eq!(names.resolve(&entry, &mapped), (5, 6));
    }

    #[test]
    fn hostile_names_are_no_names_and_take_no_room() {
        let names = OwnerNames::default();
        let options = options(Owners::NameThenNumber);
        let entry = Entry {
            uid: 7,
            user: b"root\0x".to_vec(),
            ..Entry::default()
        };
        assert_eq!(names.resolve(&entry, &options).0, 7);
        for number in 0..NAMES_MAX + 10 {
            let ask = |_: &OsStr| Some(9);
            let name = number.to_string();
            let map = BTreeMap::new();
            assert_eq!(
                resolve(7, name.as_bytes(), &map, true, &names.users, ask),
                9
            );
        }
        assert!(
            names
                .users
                .0
                .lock()
                .is_ok_and(|known| known.len() <= NAMES_MAX)
        );
    }
}
