//! Each call of the operating system by which a backup reads its source, and a restore writes its target, fails once:
//! nothing is taken for whole that is not, the rest is done, what is missing is named, and the next run mends it.
//! Full and read-only disks for real.

mod disks;
mod source;
mod target;

use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use larder_engine::calls::{Call, Failure};
use rustix::io::Errno;

use crate::fixture::Desk;
use crate::program::{date_back, noise};

/// Functions that may do half of what was asked for.
const HALVES: [&str; 4] = ["read", "pread", "pwrite", "copy_file_range"];

/// Gives each of these calls with ways in which it fails: an error of the device, and one of the other errors; and
/// half of it, where that may be.
fn faults(calls: Vec<Call>) -> Vec<(Call, Failure)> {
    let others = [Errno::NOSPC, Errno::ROFS, Errno::MFILE, Errno::ACCESS];
    let mut faults = Vec::new();
    for (number, call) in calls.into_iter().enumerate() {
        let other = others[number % others.len()];
        for errno in [Errno::IO, other] {
            faults.push((call.clone(), Failure::Errno(errno.raw_os_error())));
        }
        if HALVES.contains(&call.function) {
            faults.push((call, Failure::Short));
        }
    }
    faults
}

/// Writes a source with every kind of entry that calls of its own are made for.
fn write_source(desk: &Desk) -> PathBuf {
    desk.write("one", &noise(1, 3000));
    desk.write("a/two", &noise(2, 9000));
    desk.write("a/b/three", &noise(3, 500));
    desk.write("empty", b"");
    desk.write("named", &noise(4, 700));
    let source = fs::canonicalize(desk.path("source")).unwrap();
    let holes = fs::File::create(source.join("holes")).unwrap();
    holes.write_all_at(&noise(5, 4096), 0).unwrap();
    holes.write_all_at(&noise(6, 4096), 1 << 20).unwrap();
    date_back(&source.join("holes"), 1_000_000_000);
    fs::hard_link(source.join("one"), source.join("again")).unwrap();
    symlink("a/two", source.join("link")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(source.join("named"), "user.larder", b"here", flags).is_err() {
        println!("the file system has no extended attributes: they are left out");
    }
    source
}

/// Tells whether one of several texts is about a path, or a folder above it.
fn is_named(texts: &[String], path: &Path) -> bool {
    let mut above = path.ancestors().filter(|one| !one.as_os_str().is_empty());
    above.any(|one| {
        texts
            .iter()
            .any(|text| text.contains(&*one.to_string_lossy()))
    })
}
