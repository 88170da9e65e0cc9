//! A tar stream: ustar, with pax records for what does not fit.

use std::io::Write;

use larder_format::attributes::ExtendedAttribute;
use larder_format::entry::{Entry, EntryType, Timestamp};

use super::dump::failed;
use crate::error::Result;

const BLOCK_BYTES: usize = 512;
/// The largest number in a field of 12 bytes, and of 8.
const LONG_MAX: u64 = 0o77_777_777_777;
const SHORT_MAX: u64 = 0o7_777_777;

/// One member of a stream.
pub(super) struct Member<'a> {
    /// Its name; a directory's ends in `/`.
    pub name: Vec<u8>,
    /// What it is.
    pub entry: &'a Entry,
    /// The name under which the same file stands already.
    pub first_name: Option<Vec<u8>>,
    /// Its extended attributes.
    pub attributes: Vec<ExtendedAttribute>,
}

impl Member<'_> {
    /// Tells whether content follows.
    pub fn has_content(&self) -> bool {
        self.entry.kind.has_content() && self.first_name.is_none()
    }

    fn size(&self) -> u64 {
        if self.has_content() {
            self.entry.size
        } else {
            0
        }
    }

    fn link(&self) -> &[u8] {
        self.first_name
            .as_deref()
            .unwrap_or(&self.entry.link_target)
    }
}

/// Writes members to an output.
pub(super) struct TarWriter<'a> {
    out: &'a mut dyn Write,
}

impl<'a> TarWriter<'a> {
    /// Starts a stream.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    /// Gives the output, for a member's content.
    pub fn out(&mut self) -> &mut dyn Write {
        self.out
    }

    /// Writes what stands before a member's content.
    pub fn start(&mut self, member: &Member<'_>) -> Result<()> {
        let records = pax_records(member);
        if !records.is_empty() {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            set_name(&mut header, b"PaxHeaders/member");
            header.set_mode(0o644);
            set_numbers(&mut header, 0, 0, 0);
            header.set_size(records.len() as u64);
            header.set_cksum();
            self.write(header.as_bytes())?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.write(header_of(member).as_bytes())
    }

    /// Fills the last block of content that had this many bytes.
    pub fn pad(&mut self, content_bytes: u64) -> Result<()> {
        let block = BLOCK_BYTES as u64;
        let missing = content_bytes.next_multiple_of(block) - content_bytes;
        let zeros = [0; BLOCK_BYTES];
        let missing = usize::try_from(missing).unwrap_or_default();
        self.write(zeros.get(..missing).unwrap_or_default())
    }

    /// Ends the stream.
    pub fn finish(&mut self) -> Result<()> {
        self.write(&[0; 2 * BLOCK_BYTES])?;
        self.out.flush().map_err(failed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(failed)
    }
}

fn header_of(member: &Member<'_>) -> tar::Header {
    let entry = member.entry;
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(match entry.kind {
        _ if member.first_name.is_some() => tar::EntryType::Link,
        // An empty object whose key ends in `/` is a folder.
        EntryType::Object if member.name.ends_with(b"/") => tar::EntryType::Directory,
        EntryType::File | EntryType::Object | EntryType::Socket => tar::EntryType::Regular,
        EntryType::Directory => tar::EntryType::Directory,
        EntryType::Symlink => tar::EntryType::Symlink,
        EntryType::Fifo => tar::EntryType::Fifo,
        EntryType::CharacterDevice => tar::EntryType::Char,
        EntryType::BlockDevice => tar::EntryType::Block,
    });
    set_name(&mut header, &member.name);
    // An object has no permissions of its own.
    header.set_mode(match entry.kind {
        EntryType::Object if member.name.ends_with(b"/") => 0o755,
        EntryType::Object => 0o644,
        _ => entry.mode,
    });
    let mtime = u64::try_from(entry.mtime.seconds).unwrap_or_default();
    set_numbers(&mut header, entry.uid.into(), entry.gid.into(), mtime);
    header.set_size(if member.size() > LONG_MAX {
        0
    } else {
        member.size()
    });
    if let Some(fields) = header.as_ustar_mut() {
        fill(&mut fields.linkname, member.link());
        fill(&mut fields.uname, short_name(&entry.user));
        fill(&mut fields.gname, short_name(&entry.group));
        let (major, minor) = (entry.device >> 32, entry.device & 0xffff_ffff);
        octal(&mut fields.dev_major, major.min(SHORT_MAX));
        octal(&mut fields.dev_minor, minor.min(SHORT_MAX));
    }
    header.set_cksum();
    header
}

/// Gives what of a name fits into its field; a longer one has a record.
fn short_name(name: &[u8]) -> &[u8] {
    name.get(..31).unwrap_or(name)
}

fn set_name(header: &mut tar::Header, name: &[u8]) {
    if let Some(fields) = header.as_ustar_mut() {
        fill(&mut fields.name, name);
    }
}

/// Sets owner and time; one that does not fit stands in a record, and here as 0.
fn set_numbers(header: &mut tar::Header, uid: u64, gid: u64, mtime: u64) {
    let fits = |number, limit| if number > limit { 0 } else { number };
    header.set_uid(fits(uid, SHORT_MAX));
    header.set_gid(fits(gid, SHORT_MAX));
    header.set_mtime(fits(mtime, LONG_MAX));
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// Writes a number as seven octal digits.
fn octal(field: &mut [u8; 8], number: u64) {
    fill(field, format!("{number:07o}").as_bytes());
}

/// Gives the records of what the header has no room for.
fn pax_records(member: &Member<'_>) -> Vec<u8> {
    let entry = member.entry;
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &str, value: &[u8]| records.push((key.into(), value.to_vec()));
    let mut texts_are_utf8 = true;
    for (key, text, room) in [
        ("path", member.name.as_slice(), 100),
        ("linkpath", member.link(), 100),
        ("uname", entry.user.as_slice(), 31),
        ("gname", entry.group.as_slice(), 31),
    ] {
        if text.len() > room || !text.is_ascii() {
            texts_are_utf8 &= std::str::from_utf8(text).is_ok();
            add(key, text);
        }
    }
    for (key, number, limit) in [
        ("size", member.size(), LONG_MAX),
        ("uid", entry.uid.into(), SHORT_MAX),
        ("gid", entry.gid.into(), SHORT_MAX),
    ] {
        if number > limit {
            add(key, number.to_string().as_bytes());
        }
    }
    let seconds = u64::try_from(entry.mtime.seconds).ok();
    if entry.mtime.nanoseconds > 0 || seconds.is_none_or(|seconds| seconds > LONG_MAX) {
        add("mtime", decimal(entry.mtime).as_bytes());
    }
    if let Some(atime) = entry.atime {
        add("atime", decimal(atime).as_bytes());
    }
    for attribute in &member.attributes {
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in &attribute.name {
            // The key ends at the first `=`; this is how GNU tar writes one that is part of it.
            match byte {
                b'=' => key.extend_from_slice(b"%3D"),
                b'%' => key.extend_from_slice(b"%25"),
                _ => key.push(*byte),
            }
        }
        records.push((key, attribute.value.clone()));
    }
    let mut out = Vec::new();
    if !texts_are_utf8 {
        // Says that texts are bytes as they are, before the first of them.
        put_record(&mut out, b"hdrcharset", b"BINARY");
    }
    for (key, value) in records {
        put_record(&mut out, &key, &value);
    }
    out
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn put_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Writes a time as a decimal number of seconds.
fn decimal(time: Timestamp) -> String {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, fraction) = (
        nanoseconds.unsigned_abs() / 1_000_000_000,
        nanoseconds.unsigned_abs() % 1_000_000_000,
    );
    if fraction == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{fraction:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}
