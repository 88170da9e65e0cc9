//! How a target is to be written.

use std::collections::BTreeMap;

/// What happens to something that already has an entry's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// It is replaced.
    Always,
    /// It is replaced when type, size or time of modification differ from the entry's.
    IfChanged,
    /// It stays as it is.
    Never,
}

/// Whom restored files shall belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The user and group of that name on this machine, else those of that number.
    NameThenNumber,
    /// The user and group of that number.
    Numeric,
    /// Whoever runs the restore.
    None,
}

/// How many files and directories are kept open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handles {
    /// Most files open for writing; further ones are closed and opened again when needed.
    pub files: usize,
    /// Most directories open.
    pub directories: usize,
}

impl Handles {
    /// Derives the numbers from the process's limit on open files, of which others need some.
    #[must_use]
    pub fn for_this_process() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = usize::try_from(limit.unwrap_or(1 << 16)).unwrap_or(usize::MAX);
        Self {
            files: (limit / 4).clamp(16, 1024),
            directories: (limit / 16).clamp(8, 128),
        }
    }
}

/// How a target is to be written.
#[derive(Debug, Clone)]
pub struct Options {
    /// What happens to what is there already.
    pub overwrite: Overwrite,
    /// Whether a directory that is not empty may be removed where an entry of another type
    /// has its name; only together with [`Overwrite::Always`].
    pub delete: bool,
    /// Whether blocks of zeros become holes.
    pub sparse: bool,
    /// Whom files shall belong to.
    pub owners: Owners,
    /// Numbers of users to replace by others, before names are looked at.
    pub uid_map: BTreeMap<u32, u32>,
    /// Numbers of groups to replace by others, before names are looked at.
    pub gid_map: BTreeMap<u32, u32>,
    /// Whether devices are made.
    pub devices: bool,
    /// Whether set-user-id and set-group-id bits and file capabilities are restored, on files
    /// that got the owner they had.
    pub setuid: bool,
    /// How many files and directories are kept open.
    pub handles: Handles,
}

impl Options {
    /// Gives the defaults: overwrite, keep owners, and privileged things for root alone.
    #[must_use]
    pub fn for_this_user() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            overwrite: Overwrite::Always,
            delete: false,
            sparse: false,
            owners: Owners::NameThenNumber,
            uid_map: BTreeMap::new(),
            gid_map: BTreeMap::new(),
            devices: root,
            setuid: root,
            handles: Handles::for_this_process(),
        }
    }
}
