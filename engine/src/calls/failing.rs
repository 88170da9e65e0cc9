//! The calls, each of which fails once where a test wants it.
//!
//! A fault is for what lies below one folder, so that tests beside each other do not disturb each other.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::buffer::Buffer;
use rustix::fs::{
    AtFlags, Dev, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, SeekFrom,
    Stat, Statx, StatxFlags, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

use crate::sync::lock;

/// Folders that are watched now.
static WATCHED: AtomicUsize = AtomicUsize::new(0);
static WATCHES: Mutex<Vec<Arc<Watched>>> = Mutex::new(Vec::new());

/// Which call: its name, what it is about below the watched folder, and the how manieth such call it is, from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The function.
    pub function: &'static str,
    /// The path below the watched folder; names of temporary files are `*`.
    pub path: PathBuf,
    /// Number among the calls of this function on this path.
    pub number: usize,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// With this number of the operating system.
    Errno(i32),
    /// It reads or writes only half of what was asked for, if it is one that may.
    Short,
}

/// The calls about what lies below a folder, for as long as this lives.
pub struct Watch {
    watched: Arc<Watched>,
}

struct Watched {
    folder: PathBuf,
    fault: Option<(Call, Failure)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: Vec<Call>,
    counts: BTreeMap<(&'static str, PathBuf), usize>,
    has_failed: bool,
}

impl Watch {
    /// Watches the calls below a folder, of which one may fail.
    #[must_use]
    pub fn new(folder: &Path, fault: Option<(Call, Failure)>) -> Self {
        let watched = Arc::new(Watched {
            folder: folder.to_owned(),
            fault,
            seen: Mutex::default(),
        });
        lock(&WATCHES).push(Arc::clone(&watched));
        WATCHED.fetch_add(1, Ordering::Relaxed);
        Self { watched }
    }

    /// Gives all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.watched.seen).calls.clone()
    }

    /// Tells whether the call that was to fail was made.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        lock(&self.watched.seen).has_failed
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&WATCHES).retain(|one| !Arc::ptr_eq(one, &self.watched));
        WATCHED.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watched {
    /// Counts a call, and gives how it fails.
    fn count(&self, function: &'static str, path: &Path) -> Option<Failure> {
        let path = plain(path.strip_prefix(&self.folder).ok()?);
        let mut seen = lock(&self.seen);
        let count = seen.counts.entry((function, path.clone())).or_default();
        let number = *count;
        *count += 1;
        let call = Call {
            function,
            path,
            number,
        };
        let failure = self.fault.as_ref().filter(|(one, _)| *one == call);
        let failure = failure.map(|(_, failure)| *failure);
        seen.has_failed |= failure.is_some();
        seen.calls.push(call);
        failure
    }
}

/// Puts `*` in the place of the names of temporary files, which are others each time.
fn plain(path: &Path) -> PathBuf {
    let is_temporary = |name: &OsStr| name.as_bytes().starts_with(b".larder-");
    let names = path.iter();
    names
        .map(|name| {
            if is_temporary(name) {
                OsStr::new("*")
            } else {
                name
            }
        })
        .collect()
}

/// Gives how a call fails; nothing where it does not.
fn failure(
    function: &'static str,
    handle: Option<BorrowedFd<'_>>,
    path: Option<&OsStr>,
) -> Option<Failure> {
    if WATCHED.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let path = full_path(handle, path)?;
    let watches = lock(&WATCHES).clone();
    watches.iter().find_map(|one| one.count(function, &path))
}

/// Gives the path that a call is about, as the system tells it.
fn full_path(handle: Option<BorrowedFd<'_>>, path: Option<&OsStr>) -> Option<PathBuf> {
    let of_handle = |number: &str| std::fs::read_link(format!("/proc/self/fd/{number}"));
    if let Some(number) = path?
        .to_str()
        .and_then(|path| path.strip_prefix("/proc/self/fd/"))
    {
        return of_handle(number).ok();
    }
    let path = Path::new(path?);
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let folder = of_handle(&handle?.as_raw_fd().to_string()).ok()?;
    match path.as_os_str().is_empty() {
        true => Some(folder),
        false => Some(folder.join(path)),
    }
}

/// Fails where the test wants it; half a read or write is no failure here.
fn trip(function: &'static str, handle: Option<BorrowedFd<'_>>, path: &OsStr) -> Result<()> {
    match failure(function, handle, Some(path)) {
        Some(Failure::Errno(errno)) => Err(Errno::from_raw_os_error(errno)),
        _ => Ok(()),
    }
}

/// Fails, or gives how much of a read or write is done.
fn share(function: &'static str, handle: BorrowedFd<'_>, length: usize) -> Result<usize> {
    match failure(function, Some(handle), Some(OsStr::new(""))) {
        Some(Failure::Errno(errno)) => Err(Errno::from_raw_os_error(errno)),
        Some(Failure::Short) => Ok(length.div_ceil(2)),
        None => Ok(length),
    }
}

/// Stands for the listing of a folder, which is made call by call elsewhere.
pub(crate) fn listing(handle: impl AsFd) -> Result<()> {
    trip("listing", Some(handle.as_fd()), OsStr::new(""))
}

/// Makes one for each call: `at` by handle and path, `on` by handle, `of` by path.
macro_rules! calls {
    ($(at $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        pub(crate) fn $name<P: Arg, Fd: AsFd>(handle: Fd, path: P, $($argument: $type),*) -> Result<$result> {
            let path = path.into_c_str()?;
            trip(stringify!($name), Some(handle.as_fd()), OsStr::from_bytes(path.to_bytes()))?;
            rustix::fs::$name(handle, &*path, $($argument),*)
        }
    )*};
    ($(on $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        pub(crate) fn $name<Fd: AsFd>(handle: Fd, $($argument: $type),*) -> Result<$result> {
            trip(stringify!($name), Some(handle.as_fd()), OsStr::new(""))?;
            rustix::fs::$name(handle, $($argument),*)
        }
    )*};
}

calls! {
    at openat(flags: OFlags, mode: Mode) -> OwnedFd;
    at openat2(flags: OFlags, mode: Mode, resolve: ResolveFlags) -> OwnedFd;
    at statx(flags: AtFlags, mask: StatxFlags) -> Statx;
    at statat(flags: AtFlags) -> Stat;
    at readlinkat(reuse: Vec<u8>) -> std::ffi::CString;
    at unlinkat(flags: AtFlags) -> ();
    at mkdirat(mode: Mode) -> ();
    at mknodat(kind: FileType, mode: Mode, device: Dev) -> ();
    at chownat(uid: Option<Uid>, gid: Option<Gid>, flags: AtFlags) -> ();
    at chmodat(mode: Mode, flags: AtFlags) -> ();
    at utimensat(times: &Timestamps, flags: AtFlags) -> ();
}

calls! {
    on fstat() -> Stat;
    on fchmod(mode: Mode) -> ();
    on futimens(times: &Timestamps) -> ();
    on ftruncate(length: u64) -> ();
    on fallocate(mode: FallocateFlags, offset: u64, length: u64) -> ();
    on seek(position: SeekFrom) -> u64;
    on syncfs() -> ();
}

pub(crate) fn symlinkat<P: Arg, Q: Arg, Fd: AsFd>(to: P, handle: Fd, path: Q) -> Result<()> {
    let path = path.into_c_str()?;
    trip(
        "symlinkat",
        Some(handle.as_fd()),
        OsStr::from_bytes(path.to_bytes()),
    )?;
    rustix::fs::symlinkat(to, handle, &*path)
}

/// What goes from one name to another fails by the name that it gets.
fn trip_second<Q: Arg, Fd: AsFd>(function: &'static str, handle: &Fd, path: &Q) -> Result<()> {
    let path = path.to_string_lossy();
    trip(function, Some(handle.as_fd()), OsStr::new(path.as_ref()))
}

pub(crate) fn linkat<P: Arg, Q: Arg, PFd: AsFd, QFd: AsFd>(
    old_handle: PFd,
    old_path: P,
    handle: QFd,
    path: Q,
    flags: AtFlags,
) -> Result<()> {
    trip_second("linkat", &handle, &path)?;
    rustix::fs::linkat(old_handle, old_path, handle, path, flags)
}

pub(crate) fn renameat<P: Arg, Q: Arg, PFd: AsFd, QFd: AsFd>(
    old_handle: PFd,
    old_path: P,
    handle: QFd,
    path: Q,
) -> Result<()> {
    trip_second("renameat", &handle, &path)?;
    rustix::fs::renameat(old_handle, old_path, handle, path)
}

pub(crate) fn renameat_with<P: Arg, Q: Arg, PFd: AsFd, QFd: AsFd>(
    old_handle: PFd,
    old_path: P,
    handle: QFd,
    path: Q,
    flags: RenameFlags,
) -> Result<()> {
    trip_second("renameat_with", &handle, &path)?;
    rustix::fs::renameat_with(old_handle, old_path, handle, path, flags)
}

/// Fails by a path alone.
fn trip_path<P: Arg>(function: &'static str, path: &P) -> Result<()> {
    let path = path.to_string_lossy();
    trip(function, None, OsStr::new(path.as_ref()))
}

pub(crate) fn getxattr<P: Arg, Name: Arg, Buf: Buffer<u8>>(
    path: P,
    name: Name,
    value: Buf,
) -> Result<Buf::Output> {
    trip_path("getxattr", &path)?;
    rustix::fs::getxattr(path, name, value)
}

pub(crate) fn listxattr<P: Arg, Buf: Buffer<u8>>(path: P, list: Buf) -> Result<Buf::Output> {
    trip_path("listxattr", &path)?;
    rustix::fs::listxattr(path, list)
}

pub(crate) fn setxattr<P: Arg, Name: Arg>(
    path: P,
    name: Name,
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    trip_path("setxattr", &path)?;
    rustix::fs::setxattr(path, name, value, flags)
}

pub(crate) fn removexattr<P: Arg, Name: Arg>(path: P, name: Name) -> Result<()> {
    trip_path("removexattr", &path)?;
    rustix::fs::removexattr(path, name)
}

pub(crate) fn fgetxattr<Fd: AsFd, Name: Arg, Buf: Buffer<u8>>(
    handle: Fd,
    name: Name,
    value: Buf,
) -> Result<Buf::Output> {
    trip("fgetxattr", Some(handle.as_fd()), OsStr::new(""))?;
    rustix::fs::fgetxattr(handle, name, value)
}

pub(crate) fn flistxattr<Fd: AsFd, Buf: Buffer<u8>>(handle: Fd, list: Buf) -> Result<Buf::Output> {
    trip("flistxattr", Some(handle.as_fd()), OsStr::new(""))?;
    rustix::fs::flistxattr(handle, list)
}

pub(crate) fn fsetxattr<Fd: AsFd, Name: Arg>(
    handle: Fd,
    name: Name,
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    trip("fsetxattr", Some(handle.as_fd()), OsStr::new(""))?;
    rustix::fs::fsetxattr(handle, name, value, flags)
}

pub(crate) fn fremovexattr<Fd: AsFd, Name: Arg>(handle: Fd, name: Name) -> Result<()> {
    trip("fremovexattr", Some(handle.as_fd()), OsStr::new(""))?;
    rustix::fs::fremovexattr(handle, name)
}

pub(crate) fn copy_file_range<InFd: AsFd, OutFd: AsFd>(
    from: InFd,
    at: Option<&mut u64>,
    to: OutFd,
    into: Option<&mut u64>,
    length: usize,
) -> Result<usize> {
    let length = share("copy_file_range", to.as_fd(), length)?;
    rustix::fs::copy_file_range(from, at, to, into, length)
}

pub(crate) fn read<Fd: AsFd>(handle: Fd, buffer: &mut [u8]) -> Result<usize> {
    let length = share("read", handle.as_fd(), buffer.len())?;
    rustix::io::read(handle, buffer.get_mut(..length).unwrap_or_default())
}

pub(crate) fn pread<Fd: AsFd>(handle: Fd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let length = share("pread", handle.as_fd(), buffer.len())?;
    rustix::io::pread(handle, buffer.get_mut(..length).unwrap_or_default(), offset)
}

pub(crate) fn pwrite<Fd: AsFd>(handle: Fd, buffer: &[u8], offset: u64) -> Result<usize> {
    let length = share("pwrite", handle.as_fd(), buffer.len())?;
    rustix::io::pwrite(handle, buffer.get(..length).unwrap_or_default(), offset)
}
