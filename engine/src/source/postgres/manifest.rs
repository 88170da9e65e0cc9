//! The manifest of a base backup, line by line: the server writes each file on one of its own.

use std::io;

use larder_format::ids::decode_hex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Bytes of a line.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A manifest that is being read.
#[derive(Default)]
pub struct Manifest {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The hash of the lines so far.
    hash: Sha256,
    has_ended: bool,
}

/// What it says of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct FileLine {
    /// The path below the data folder.
    pub path: Vec<u8>,
    /// The size in bytes.
    pub size: u64,
    /// The hash of its bytes.
    pub sha256: [u8; 32],
}

impl Manifest {
    /// Takes more bytes, and gives the files of the lines that ended with them.
    ///
    /// # Errors
    /// `InvalidData` for what makes no sense, and for a hash of its own that is not right.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<Vec<FileLine>> {
        let mut found = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(malformed("a line of it is too long"));
            }
            if part.ends_with(b"\n") {
                found.extend(self.end_line()?);
                self.line.clear();
            }
        }
        Ok(found)
    }

    /// Makes sure that it came to its end.
    ///
    /// # Errors
    /// `InvalidData` if it did not, or never began.
    pub fn is_whole(&self) -> io::Result<()> {
        match self.has_ended {
            true => Ok(()),
            false => Err(malformed(
                "it is missing or cut short; servers older than PostgreSQL 13 have none",
            )),
        }
    }

    fn end_line(&mut self) -> io::Result<Option<FileLine>> {
        if self.has_ended {
            return Err(malformed("something stands behind its end"));
        }
        let line = self.line.trim_ascii();
        if let Some(rest) = line.strip_prefix(b"\"Manifest-Checksum\": \"") {
            let hash: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
            let said = rest.strip_suffix(b"\"}");
            let said = said.and_then(|said| hash_of(std::str::from_utf8(said).ok()?));
            if said != Some(hash) {
                return Err(malformed("its own hash is not right"));
            }
            self.has_ended = true;
            return Ok(None);
        }
        self.hash.update(&self.line);
        let is_file = [&b"{ \"Path\""[..], b"{ \"Encoded-Path\""];
        match is_file.iter().any(|start| line.starts_with(start)) {
            true => file_line(line.strip_suffix(b",").unwrap_or(line)).map(Some),
            false => Ok(None),
        }
    }
}

/// Reads what a line says of a file. Pure.
fn file_line(line: &[u8]) -> io::Result<FileLine> {
    let value: Value = serde_json::from_slice(line).map_err(io::Error::other)?;
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let path = match text("Path") {
        Some(path) => Some(path.as_bytes().to_vec()),
        None => text("Encoded-Path").and_then(|hex| {
            let mut path = vec![0; hex.len() / 2];
            decode_hex(hex, &mut path).then_some(path)
        }),
    };
    let is_sha256 = text("Checksum-Algorithm") == Some("SHA256");
    let hash = text("Checksum").filter(|_| is_sha256);
    let hash = hash.and_then(hash_of);
    match (path, value.get("Size").and_then(Value::as_u64), hash) {
        (Some(path), Some(size), Some(sha256)) => Ok(FileLine { path, size, sha256 }),
        _ => Err(malformed("a line of it makes no sense")),
    }
}

fn hash_of(hex: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    decode_hex(hex, &mut hash).then_some(hash)
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the manifest: {why}"))
}
