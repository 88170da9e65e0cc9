//! One path of a snapshot, as a line and as JSON.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use larder_engine::browse::Item;
use larder_engine::format::entry::{Entry, EntryType, Timestamp};
use larder_engine::storage::bucket::is_cold;
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::render;

/// One path as JSON.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Item")]
pub struct ItemJson {
    /// Lossy where it is not UTF-8.
    path: String,
    /// The exact bytes of a path that is not UTF-8, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    mode: u32,
    permissions: String,
    uid: u32,
    gid: u32,
    user: String,
    group: String,
    mtime: Option<String>,
    ctime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    atime: Option<String>,
    inode: u64,
    links: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_target: Option<String>,
    /// Major and minor number.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreadable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    changed_while_read: bool,
}

impl From<&Item> for ItemJson {
    fn from(item: &Item) -> Self {
        let entry = &item.entry;
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let known = |bytes: &[u8]| (!bytes.is_empty()).then(|| lossy(bytes));
        let time = |time: Timestamp| render::timestamp(time).map(|time| time.to_string());
        let is_utf8 = std::str::from_utf8(&item.path).is_ok();
        Self {
            path: lossy(&item.path),
            path_hex: (!is_utf8).then(|| larder_engine::format::ids::encode_hex(&item.path)),
            kind: kind(entry.kind),
            size: entry.size,
            mode: entry.mode,
            permissions: render::mode(entry),
            uid: entry.uid,
            gid: entry.gid,
            user: lossy(&entry.user),
            group: lossy(&entry.group),
            mtime: time(entry.mtime),
            ctime: time(entry.ctime),
            atime: entry.atime.and_then(time),
            inode: entry.inode,
            links: entry.links,
            link_target: (entry.kind == EntryType::Symlink).then(|| lossy(&entry.link_target)),
            device: is_device(entry).then(|| device(entry)),
            etag: known(&entry.etag),
            version: known(&entry.version),
            class: known(&entry.class),
            unreadable: entry.flags.unreadable,
            changed_while_read: entry.flags.changed_while_read,
        }
    }
}

/// How paths are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// The path alone.
    Short,
    /// Everything that `ls -l` shows.
    Long,
    /// The raw path and a NUL.
    Nul,
}

/// Writes one path.
///
/// # Errors
/// What writing answers.
pub fn write(out: &mut impl Write, item: &Item, style: Style, zone: &TimeZone) -> io::Result<()> {
    match style {
        Style::Short => writeln!(out, "{}", render::printable(&item.path)),
        Style::Long => writeln!(out, "{}", long(item, zone)),
        Style::Nul => {
            out.write_all(&item.path)?;
            out.write_all(&[0])
        }
    }
}

/// Says how much is missing because it could not be read when it was backed up, and gives the exit code.
#[must_use]
pub fn told_unreadable(count: u64) -> Exit {
    if count == 0 {
        return Exit::Success;
    }
    eprintln!(
        "larder: {} could not be read when the snapshot was made: it has no content of them",
        render::counted(count, "file or folder", "files and folders")
    );
    Exit::SourceUnreadable
}

fn long(item: &Item, zone: &TimeZone) -> String {
    let entry = &item.entry;
    let (user, group) = render::owner(entry);
    let size = match device(entry) {
        [major, minor] if is_device(entry) => format!("{major}, {minor}"),
        _ => entry.size.to_string(),
    };
    let time = render::timestamp(entry.mtime).map_or_else(
        || "(beyond all years)".to_owned(),
        |time| render::time(time, zone),
    );
    let mut line = format!(
        "{} {user:<8} {group:<8} {size:>12} {time:<19} {}",
        render::mode(entry),
        render::printable(&item.path)
    );
    if entry.kind == EntryType::Symlink {
        line.push_str(" -> ");
        line.push_str(&render::printable(&entry.link_target));
    }
    if entry.flags.unreadable {
        line.push_str(match is_cold(&entry.class) {
            true => "  [had to be thawed first]",
            false => "  [could not be read]",
        });
    }
    if entry.flags.changed_while_read {
        line.push_str("  [changed while it was read]");
    }
    line
}

fn is_device(entry: &Entry) -> bool {
    matches!(
        entry.kind,
        EntryType::CharacterDevice | EntryType::BlockDevice
    )
}

/// Takes a device number apart into major and minor.
fn device(entry: &Entry) -> [u64; 2] {
    [entry.device >> 32, entry.device & 0xffff_ffff]
}

fn kind(kind: EntryType) -> &'static str {
    match kind {
        EntryType::File => "file",
        EntryType::Directory => "directory",
        EntryType::Symlink => "symlink",
        EntryType::Fifo => "fifo",
        EntryType::Socket => "socket",
        EntryType::CharacterDevice => "character-device",
        EntryType::BlockDevice => "block-device",
        EntryType::Object => "object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn file() -> Item {
        Item {
            path: b"/home/me/a\nb".to_vec(),
            entry: Entry {
                size: 12,
                mode: 0o644,
                uid: 1000,
                gid: 100,
                user: b"me".to_vec(),
                mtime: Timestamp {
                    seconds: 1_793_563_200,
                    nanoseconds: 5,
                },
                ..Entry::default()
            },
        }
    }

    fn line(item: &Item, style: Style) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, item, style, &TimeZone::UTC).unwrap();
        bytes
    }

    #[test]
    fn a_path_has_three_styles() {
        assert_eq!(line(&file(), Style::Short), b"/home/me/a\\nb\n");
        assert_eq!(line(&file(), Style::Nul), b"/home/me/a\nb\0");
        let long = String::from_utf8(line(&file(), Style::Long)).unwrap();
        let expected =
            "-rw-r--r-- me       100                12 2026-11-01 20:00:00 /home/me/a\\nb\n";
        assert_eq!(long, expected);
    }

    #[test]
    fn links_and_devices_show_where_they_lead() {
        let mut item = file();
        item.entry.kind = EntryType::Symlink;
        item.entry.link_target = b"../x".to_vec();
        assert!(line(&item, Style::Long).ends_with(b"-> ../x\n"));
        item.entry.kind = EntryType::BlockDevice;
        item.entry.device = 8 << 32 | 1;
        let text = String::from_utf8(line(&item, Style::Long)).unwrap();
        assert!(text.contains(" 8, 1 "), "{text}");
        let json = serde_json::to_value(ItemJson::from(&item)).unwrap();
        assert_eq!(json.get("device").unwrap(), &serde_json::json!([8, 1]));
    }

    #[test]
    fn an_object_shows_what_its_bucket_says() {
        let mut item = file();
        let json = serde_json::to_value(ItemJson::from(&item)).unwrap();
        assert_eq!(json.get("etag"), None);
        item.entry.kind = EntryType::Object;
        item.entry.mode = 0;
        item.entry.etag = b"e1".to_vec();
        item.entry.class = b"STANDARD".to_vec();
        let json = serde_json::to_value(ItemJson::from(&item)).unwrap();
        assert_eq!(json.get("type").unwrap(), "object");
        assert_eq!(json.get("etag").unwrap(), "e1");
        assert_eq!(json.get("class").unwrap(), "STANDARD");
        assert_eq!(json.get("version"), None);
        assert!(line(&item, Style::Long).starts_with(b"o--------- "));
    }

    #[test]
    fn a_path_that_is_not_utf8_is_exact_in_hex() {
        let mut item = file();
        let json = serde_json::to_value(ItemJson::from(&item)).unwrap();
        assert_eq!(json.get("path_hex"), None);
        assert_eq!(json.get("mtime").unwrap(), "2026-11-01T20:00:00.000000005Z");
        item.path = b"/\xff".to_vec();
        let json = serde_json::to_value(ItemJson::from(&item)).unwrap();
        assert_eq!(json.get("path_hex").unwrap(), "2fff");
        item.entry.mtime.seconds = i64::MAX;
        let json = serde_json::to_value(ItemJson::from(&item)).unwrap();
        assert!(json.get("mtime").unwrap().is_null());
    }
}
