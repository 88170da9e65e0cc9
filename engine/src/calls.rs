//! The operating system's calls by which sources are read and targets written.
//!
//! They stand in one place so that tests can let each of them fail; a shipped program has the system's own.

#[cfg(any(test, feature = "testing"))]
mod failing;

#[cfg(any(test, feature = "testing"))]
pub use failing::*;

#[cfg(not(any(test, feature = "testing")))]
pub(crate) use rustix::fs::{
    chmodat, chownat, copy_file_range, fallocate, fchmod, fgetxattr, flistxattr, fremovexattr,
    fsetxattr, fstat, ftruncate, futimens, getxattr, linkat, listxattr, mkdirat, mknodat, openat,
    openat2, readlinkat, removexattr, renameat, renameat_with, seek, setxattr, statat, statx,
    symlinkat, syncfs, unlinkat, utimensat,
};
#[cfg(not(any(test, feature = "testing")))]
pub(crate) use rustix::io::{pread, pwrite, read};

/// Stands for a call that is not made by a function of its own: the listing of a folder.
#[cfg(not(any(test, feature = "testing")))]
pub(crate) fn listing(_: impl std::os::fd::AsFd) -> rustix::io::Result<()> {
    Ok(())
}
