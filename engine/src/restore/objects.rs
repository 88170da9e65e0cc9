//! Which file an object of a bucket becomes: pure.

use larder_format::entry::{EntryType, is_file_key};

/// The longest name of a file or folder in bytes.
const NAME_BYTES: usize = 255;

/// What an object becomes below the target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// The file of the same name.
    File,
    /// A folder: consoles keep empty folders as empty objects whose keys end in `/`.
    Folder,
    /// What is there already.
    Target,
    /// Nothing, for this reason.
    Refused(String),
}

/// Maps keys one after the other, in their order.
///
/// A key that is a relative path which a file can have becomes that file. As every other key is
/// refused, the mapping can be read backwards, and nothing is ever written outside of the target.
#[derive(Debug, Default)]
pub(crate) struct Mapping {
    /// The objects that became files with which the keys so far begin.
    files: Vec<Vec<u8>>,
}

impl Mapping {
    /// Decides on the next key, relative to what is restored.
    pub(crate) fn map(&mut self, key: &[u8], size: u64) -> Mapped {
        // All keys between `a` and `a/b` begin with `a`.
        while let Some(last) = self.files.last()
            && !key.starts_with(last)
        {
            self.files.pop();
        }
        let is_folder = size == 0 && (key.is_empty() || key.ends_with(b"/"));
        if is_folder && key.is_empty() {
            return Mapped::Target;
        }
        let kind = if is_folder {
            EntryType::Directory
        } else {
            EntryType::File
        };
        if key.is_empty() || !is_file_key(key, kind) {
            return Mapped::Refused("its key is no path that a file can have".to_owned());
        }
        let mut names = key.split(|byte| *byte == b'/');
        if names.any(|name| name.len() > NAME_BYTES) {
            return Mapped::Refused(format!(
                "a part of its key is longer than the name of a file may be, {NAME_BYTES} bytes"
            ));
        }
        let within = |file: &&Vec<u8>| {
            let rest = key.strip_prefix(file.as_slice());
            rest.is_some_and(|rest| rest.starts_with(b"/"))
        };
        if let Some(file) = self.files.iter().find(within) {
            return Mapped::Refused(format!(
                "{} is an object too, so that there can be no folder of this name",
                crate::target::error::Escaped(file)
            ));
        }
        if is_folder {
            return Mapped::Folder;
        }
        self.files.push(key.to_vec());
        Mapped::File
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]

    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_and_ambiguous_keys_are_refused() {
        let mut mapping = Mapping::default();
        let mut map = |key: &str, size| mapping.map(key.as_bytes(), size);
        assert_eq!(map("", 0), Mapped::Target);
        for key in ["", "../x", ".", "..", "/", "/x", "a\0"] {
            assert!(matches!(map(key, 1), Mapped::Refused(_)), "{key:?}");
        }
        assert_eq!(map("a", 1), Mapped::File);
        assert_eq!(map("a-b", 1), Mapped::File);
        assert_eq!(
            map("a-b/", 0),
            Mapped::Refused(
                "a-b is an object too, so that there can be no folder of this name".to_owned()
            )
        );
        assert!(matches!(map("a/", 1), Mapped::Refused(_)));
        assert!(matches!(map("a/b", 1), Mapped::Refused(_)));
        assert!(matches!(map("a//b", 1), Mapped::Refused(_)));
        assert_eq!(map("ab", 1), Mapped::File);
        assert_eq!(map("b/", 0), Mapped::Folder);
        assert_eq!(map("b/c", 0), Mapped::File);
        assert!(matches!(map("b/d/", 1), Mapped::Refused(_)));
        let long = "c".repeat(256);
        assert_eq!(map(&format!("c/{}", &long[1..]), 1), Mapped::File);
        assert!(matches!(map(&format!("c/{long}"), 1), Mapped::Refused(_)));
        assert!(matches!(map(&format!("{long}/x"), 1), Mapped::Refused(_)));
    }

    proptest! {
        /// Whatever the keys: what is not refused can be made in one folder, each under its own name.
        #[test]
        fn what_is_mapped_fits_together(keys in prop::collection::btree_map("[ab./-]{0,5}", 0..2_u64, 0..30)) {
            let mut mapping = Mapping::default();
            let sorted: BTreeMap<Vec<u8>, u64> = keys.into_iter().map(|(key, size)| (key.into_bytes(), size)).collect();
            let (mut files, mut folders) = (BTreeSet::new(), BTreeSet::new());
            for (key, size) in &sorted {
                let path = match mapping.map(key, *size) {
                    Mapped::File => { files.insert(key.clone()); key.as_slice() }
                    Mapped::Folder => { folders.insert(key[..key.len() - 1].to_vec()); &key[..key.len() - 1] }
                    Mapped::Target | Mapped::Refused(_) => continue,
                };
                let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
                prop_assert!(parts.iter().all(|part| !matches!(*part, b"" | b"." | b"..")));
                for end in 1..parts.len() {
                    folders.insert(parts[..end].join(&b'/'));
                }
            }
            prop_assert!(files.is_disjoint(&folders));
        }
    }
}
