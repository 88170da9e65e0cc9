//! What a restore would do with an entry, decided from what is there.

use larder_format::entry::{Entry, EntryType};

use super::existing::Metadata;
use super::options::Overwrite;

/// What happens to one name in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Nothing is there: the entry is made.
    Create,
    /// Something else, or with other content, is there: it is replaced or patched.
    Update,
    /// The content is taken to be the same; owner, permissions or times differ and are set.
    Metadata,
    /// It is taken to be the same in all that is looked at (attributes are not).
    Unchanged,
    /// It stays as it is, because nothing is to be overwritten.
    Keep,
    /// The snapshot does not have it: it is removed (decided by listing the target).
    Delete,
}

/// Decides what happens to an entry's name; `owner` is what the entry's user and group shall
/// become, or nothing if they are not to be set.
///
/// Content counts as the same when size and time of modification are. A file with several
/// names never gets new metadata alone: its other names may lie outside of the target.
#[must_use]
pub fn plan_entry(
    entry: &Entry,
    existing: Option<&Metadata>,
    overwrite: Overwrite,
    owner: Option<(u32, u32)>,
) -> Action {
    let Some(existing) = existing else {
        return Action::Create;
    };
    if overwrite == Overwrite::Never {
        return Action::Keep;
    }
    if existing.kind != entry.kind {
        return Action::Update;
    }
    let same_metadata = existing.mtime == entry.mtime
        && (entry.kind == EntryType::Symlink || existing.mode == entry.mode & 0o7777)
        && owner.is_none_or(|owner| owner == (existing.uid, existing.gid));
    match entry.kind {
        EntryType::Directory if same_metadata => Action::Unchanged,
        EntryType::Directory => Action::Metadata,
        EntryType::File => {
            let same_content = existing.size == entry.size && existing.mtime == entry.mtime;
            match (
                overwrite == Overwrite::IfChanged && same_content,
                same_metadata,
            ) {
                (true, true) => Action::Unchanged,
                (true, false) if existing.links == 1 => Action::Metadata,
                _ => Action::Update,
            }
        }
        EntryType::Symlink if existing.link_target != entry.link_target => Action::Update,
        EntryType::CharacterDevice | EntryType::BlockDevice if existing.device != entry.device => {
            Action::Update
        }
        _ if same_metadata => Action::Unchanged,
        _ => Action::Update,
    }
}

#[cfg(test)]
mod tests {
    use larder_format::entry::Timestamp;

    use super::*;

    fn pair(kind: EntryType) -> (Entry, Metadata) {
        let mtime = Timestamp {
            seconds: 5,
            nanoseconds: 6,
        };
        let entry = Entry {
            kind,
            mtime,
            size: 3,
            mode: 0o644,
            device: 1 << 32,
            link_target: b"t".to_vec(),
            ..Entry::default()
        };
        let existing = Metadata {
            kind,
            size: 3,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime,
            links: 1,
            link_target: b"t".to_vec(),
            device: 1 << 32,
            id: super::super::NodeId {
                device: 1,
                inode: 1,
                kind,
            },
        };
        (entry, existing)
    }

    #[test]
    fn each_difference_leads_to_its_action() {
        use Overwrite::{Always, IfChanged, Never};
        let (file, there) = pair(EntryType::File);
        let later = Timestamp {
            seconds: 5,
            nanoseconds: 7,
        };
        let own = Some((1, 2));
        assert_eq!(plan_entry(&file, None, Never, own), Action::Create);
        assert_eq!(plan_entry(&file, Some(&there), Never, own), Action::Keep);
        assert_eq!(plan_entry(&file, Some(&there), Always, own), Action::Update);
        assert_eq!(
            plan_entry(&file, Some(&there), IfChanged, own),
            Action::Unchanged
        );
        assert_eq!(
            plan_entry(&file, Some(&there), IfChanged, None),
            Action::Unchanged
        );
        assert_eq!(
            plan_entry(&file, Some(&there), IfChanged, Some((1, 3))),
            Action::Metadata
        );
        for other in [
            Metadata {
                size: 4,
                ..there.clone()
            },
            Metadata {
                mtime: later,
                ..there.clone()
            },
            Metadata {
                mode: 0o600,
                links: 2,
                ..there.clone()
            },
            Metadata {
                kind: EntryType::Symlink,
                ..there.clone()
            },
        ] {
            assert_eq!(
                plan_entry(&file, Some(&other), IfChanged, own),
                Action::Update
            );
        }
        let other = Metadata {
            mode: 0o600,
            ..there
        };
        assert_eq!(
            plan_entry(&file, Some(&other), IfChanged, own),
            Action::Metadata
        );
    }

    #[test]
    fn what_is_no_file_is_compared_by_what_it_is() {
        use Overwrite::{Always, IfChanged};
        let (link, there) = pair(EntryType::Symlink);
        let other_mode = Metadata {
            mode: 0o777,
            ..there.clone()
        };
        assert_eq!(
            plan_entry(&link, Some(&other_mode), Always, None),
            Action::Unchanged
        );
        let elsewhere = Metadata {
            link_target: b"u".to_vec(),
            ..there
        };
        assert_eq!(
            plan_entry(&link, Some(&elsewhere), IfChanged, None),
            Action::Update
        );
        let (device, there) = pair(EntryType::BlockDevice);
        assert_eq!(
            plan_entry(&device, Some(&there), Always, None),
            Action::Unchanged
        );
        let elsewhere = Metadata {
            device: 2 << 32,
            ..there
        };
        assert_eq!(
            plan_entry(&device, Some(&elsewhere), IfChanged, None),
            Action::Update
        );
        let (directory, there) = pair(EntryType::Directory);
        assert_eq!(
            plan_entry(&directory, Some(&there), Always, None),
            Action::Unchanged
        );
        let open = Metadata {
            mode: 0o777,
            ..there
        };
        assert_eq!(
            plan_entry(&directory, Some(&open), Always, None),
            Action::Metadata
        );
    }
}
