//! The repository format of Larder, as pure functions: bytes in, bytes out.
//!
//! Time and randomness are arguments. There is no file, socket, clock or
//! thread in here, and no input makes it panic. `SPEC.md` is the normative
//! description; every module names the section that it implements.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod entry;
pub mod error;
pub mod ids;
pub mod limits;
