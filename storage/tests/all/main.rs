//! Storages against real servers on loopback. `scripts/setup.sh` installs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod accounts;
mod answers;
mod azure;
mod bucket;
mod cloud;
mod dropbox;
mod ftp;
mod google;
mod life;
mod mail;
mod s3;
mod servers;
mod sftp;
mod webdav;
