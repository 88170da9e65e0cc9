//! Which keys may become names below a target.

/// The longest component in bytes that Linux file systems take.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// Why a key must not become a name below a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeName {
    /// The key starts with `/`.
    #[error("the name is absolute")]
    Absolute,
    /// Two slashes follow each other.
    #[error("the name has an empty component")]
    EmptyComponent,
    /// A component is `.`.
    #[error("the name has the component \".\"")]
    Current,
    /// A component is `..`.
    #[error("the name has the component \"..\" and could lead out of the target")]
    Parent,
    /// A component holds a zero byte.
    #[error("the name has a zero byte in it")]
    Nul,
    /// A component has more than [`COMPONENT_BYTES_MAX`] bytes.
    #[error("the name has a component of more than 255 bytes")]
    LongComponent,
    /// A directory was meant, but the key does not end in `/`.
    #[error("the name of a directory has to end in \"/\"")]
    NotADirectoryKey,
    /// Something else than a directory was meant, but the key is empty or ends in `/`.
    #[error("the name is that of a directory")]
    DirectoryKey,
}

impl From<UnsafeName> for std::io::Error {
    fn from(name: UnsafeName) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, name)
    }
}

/// A key that was checked: some components, each safe to hand to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Components<'a> {
    parent: &'a [u8],
    name: &'a [u8],
    is_directory: bool,
}

impl<'a> Components<'a> {
    /// Gives the key of the directory that the key is in: empty, or ending in `/`.
    #[must_use]
    pub fn parent(&self) -> &'a [u8] {
        self.parent
    }

    /// Gives the last component, without a slash; empty for the root.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Tells whether the key is that of a directory: it ends in `/`, or is the root's.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Tells whether the key is that of the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.name.is_empty()
    }

    /// Gives every component from the root down, without slashes.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        parts(self.parent).chain((!self.name.is_empty()).then_some(self.name))
    }
}

/// Splits a checked directory key into its components.
pub(super) fn parts(directory: &[u8]) -> impl Iterator<Item = &[u8]> {
    directory
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
}

/// Checks that a key names a place below the target and nothing else.
///
/// The empty key is the root; a backslash is a byte like others.
///
/// # Errors
/// The first reason against it, from left to right.
pub fn check_key(key: &[u8]) -> Result<Components<'_>, UnsafeName> {
    if key.is_empty() {
        return Ok(Components {
            parent: key,
            name: key,
            is_directory: true,
        });
    }
    if key.starts_with(b"/") {
        return Err(UnsafeName::Absolute);
    }
    let (path, is_directory) = match key.strip_suffix(b"/") {
        Some(path) => (path, true),
        None => (key, false),
    };
    for component in path.split(|byte| *byte == b'/') {
        check_component(component)?;
    }
    let split = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (parent, name) = path.split_at_checked(split).unwrap_or((&[], path));
    Ok(Components {
        parent,
        name,
        is_directory,
    })
}

/// Checks a key that has to be a directory's.
pub(super) fn check_directory(key: &[u8]) -> Result<Components<'_>, UnsafeName> {
    let components = check_key(key)?;
    if components.is_directory {
        Ok(components)
    } else {
        Err(UnsafeName::NotADirectoryKey)
    }
}

/// Checks a key that must not be a directory's.
pub(super) fn check_leaf(key: &[u8]) -> Result<Components<'_>, UnsafeName> {
    let components = check_key(key)?;
    if components.is_directory {
        Err(UnsafeName::DirectoryKey)
    } else {
        Ok(components)
    }
}

fn check_component(component: &[u8]) -> Result<(), UnsafeName> {
    match component {
        b"" => Err(UnsafeName::EmptyComponent),
        b"." => Err(UnsafeName::Current),
        b".." => Err(UnsafeName::Parent),
        _ if component.contains(&0) => Err(UnsafeName::Nul),
        _ if component.len() > COMPONENT_BYTES_MAX => Err(UnsafeName::LongComponent),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::{Component, Path};
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_each_unsafe_name_by_its_reason() {
        let long = [b'x'; 256];
        for (key, reason) in [
            (&b"/etc/passwd"[..], UnsafeName::Absolute),
            (b"/", UnsafeName::Absolute),
            (b"//", UnsafeName::Absolute),
            (b"..", UnsafeName::Parent),
            (b"../", UnsafeName::Parent),
            (b"a/../b", UnsafeName::Parent),
            (b"a/..", UnsafeName::Parent),
            (b".", UnsafeName::Current),
            (b"./", UnsafeName::Current),
            (b"a/./b", UnsafeName::Current),
            (b"a//b", UnsafeName::EmptyComponent),
            (b"a//", UnsafeName::EmptyComponent),
            (b"a\0b", UnsafeName::Nul),
            (b"a/\0", UnsafeName::Nul),
            (&long, UnsafeName::LongComponent),
        ] {
            assert_eq!(check_key(key), Err(reason), "{}", key.escape_ascii());
        }
    }

    #[test]
    fn splits_good_names() {
        for (key, parent, name, is_directory) in [
            (&b""[..], &b""[..], &b""[..], true),
            (b"a", b"", b"a", false),
            (b"a/", b"", b"a", true),
            (b"a/b\\..\\c", b"a/", b"b\\..\\c", false),
            (b"a/b/c/", b"a/b/", b"c", true),
            (b"...", b"", b"...", false),
            (b"a\n\xff/ ", b"a\n\xff/", b" ", false),
        ] {
            let components = check_key(key).unwrap();
            assert_eq!(
                components,
                Components {
                    parent,
                    name,
                    is_directory
                }
            );
        }
        assert!(check_key(&[b'x'; 255]).is_ok());
        assert_eq!(check_leaf(b"a/"), Err(UnsafeName::DirectoryKey));
        assert_eq!(check_leaf(b""), Err(UnsafeName::DirectoryKey));
        assert_eq!(check_directory(b"a"), Err(UnsafeName::NotADirectoryKey));
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"..".to_vec()),
            Just(b".".to_vec()),
            Just(Vec::new()),
            Just(b"a".to_vec()),
            Just(vec![b'y'; 255]),
            Just(vec![b'y'; 256]),
            prop::collection::vec(any::<u8>(), 0..6),
        ];
        prop::collection::vec(part, 0..6).prop_map(|parts| parts.join(&b'/'))
    }

    proptest! {
        #[test]
        fn an_accepted_key_is_plain_and_joins_back(key in keys()) {
            let Ok(components) = check_key(&key) else { return Ok(()) };
            // Independent opinion: the standard library sees normal components only.
            let path = Path::new(OsStr::from_bytes(&key));
            prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
            let mut joined = components.iter().collect::<Vec<_>>().join(&b'/');
            if components.is_directory() && !components.is_root() {
                joined.push(b'/');
            }
            prop_assert_eq!(joined, key);
        }

        #[test]
        fn a_key_of_normal_components_is_accepted(
            parts in prop::collection::vec("[^/\0]{1,50}", 1..8), directory: bool
        ) {
            prop_assume!(parts.iter().all(|part| part != "." && part != ".."));
            let key = parts.join("/") + if directory { "/" } else { "" };
            prop_assert_eq!(check_key(key.as_bytes()).map(|c| c.is_directory()), Ok(directory));
        }
    }
}
