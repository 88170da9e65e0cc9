//! A program without `std` that uses `larder-format`.
//!
//! It has a panic handler of its own, so it does not compile as soon as anything below it links
//! `std`, which brings one too. `run.sh` also looks through the symbols, and runs it.

#![no_std]
#![no_main]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_int, c_void};
use core::panic::PanicInfo;
use larder_format::compression::Decompressor;
use larder_format::error::Result;
use larder_format::ids::RepositoryId;
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring, Purpose};
use larder_format::object::{Header, Kind};
use larder_format::seal::{Aad, open, seal};
use larder_format::slot::{Secret, unlock};

// zstd's C code needs libc's allocator anyway, so the probe uses it as well.
#[link(name = "c")]
unsafe extern "C" {
    fn aligned_alloc(align: usize, size: usize) -> *mut c_void;
    fn free(pointer: *mut c_void);
    fn abort() -> !;
}

struct Libc;

// SAFETY: aligned_alloc returns memory of the asked alignment, whose size is rounded up to a
// multiple of it as C11 demands, or null; free takes back what it returned.
unsafe impl GlobalAlloc for Libc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the alignment is a power of two, and the padded size a multiple of it.
        unsafe { aligned_alloc(layout.align(), layout.pad_to_align().size()).cast() }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _layout: Layout) {
        // SAFETY: the caller passes what `alloc` returned.
        unsafe { free(pointer.cast()) }
    }
}

#[global_allocator]
static ALLOCATOR: Libc = Libc;

#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    // SAFETY: abort has no preconditions.
    unsafe { abort() }
}

/// Stands in for what unwinding needs: the shipped `alloc` refers to it, and nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    // SAFETY: abort has no preconditions.
    unsafe { abort() }
}

/// The exit code is 0 when everything gave what it should.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> c_int {
    c_int::from(round_trips() != Ok(true))
}

/// Uses each foreign part of the format once: hashing, sealing, compressing, deriving.
fn round_trips() -> Result<bool> {
    let repository = RepositoryId::default();
    let keyring = Keyring::generate(repository, &[1; KEYRING_RANDOM_BYTES]);
    let key = keyring.current(Purpose::Index)?;
    let header = Header {
        kind: Kind::Segment,
        key_id: key.id(),
        uid: [2; 16],
    };
    let aad = Aad::segment(key, &header);
    let opened = open(key, &aad, &seal(key, &aad, &[3; 32], b"plaintext")?)?;
    let _decompressor = Decompressor::new()?;
    let nothing_opens = unlock(&[], &[], repository, Secret::Passphrase(b"x"))?.is_none();
    Ok(opened == b"plaintext" && nothing_opens)
}
