//! The files of a whole server, as pg_basebackup sends them: a tar stream, whose last file is the manifest
//! that names every other.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::path::Path;

use larder_format::entry::{Entry, EntryType, Timestamp};
use sha2::{Digest as _, Sha256};
use tar::{EntryType as Kind, Header};

use super::Server;
use super::dump::advised;
use super::manifest::{FileLine, Manifest};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::process::Running;
use crate::scratch::ScratchMap;
use crate::source::stream::now;

/// Bytes of a block of a tar stream.
const BLOCK_BYTES: usize = 512;
/// Bytes of a path in one.
const PATH_BYTES_MAX: usize = 4096;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// Memory of the names of files before they go to disk.
const FILES_BYTES: usize = 4 << 20;
/// The name of the manifest.
const MANIFEST: &[u8] = b"backup_manifest";
/// The folder of the log, of whose files the manifest names some only.
const LOG: &[u8] = b"pg_wal/";
/// How a folder is kept that is not sent itself: for its owner alone, as the server does.
const FOLDER_MODE: u32 = 0o700;

/// The files of a server that are being read.
pub struct BaseBackup<R> {
    tar: BufReader<R>,
    /// What comes before what is sent next.
    ahead: VecDeque<Entry>,
    /// Folders that were seen.
    folders: ScratchMap,
    /// Files that were read, with their sizes and hashes, until the manifest names them.
    files: ScratchMap,
    current: Option<File>,
    manifest: Manifest,
    /// Why nothing more can be read.
    broken: Option<io::Error>,
}

/// A file that is being read.
struct File {
    path: Vec<u8>,
    size: u64,
    left: u64,
    hash: Sha256,
}

impl BaseBackup<Running> {
    /// Starts pg_basebackup.
    ///
    /// # Errors
    /// `Request` if it is not there.
    pub fn open(server: &Server, scratch_folder: &Path, cancel: &Cancel) -> Result<Self> {
        const ARGUMENTS: [&str; 5] = [
            "--pgdata=-",
            "--format=tar",
            "--wal-method=fetch",
            "--checkpoint=fast",
            "--manifest-checksums=SHA256",
        ];
        let running = server.start("pg_basebackup", "", &ARGUMENTS, cancel)?;
        Ok(Self::new(running, scratch_folder))
    }

    /// Makes sure that the program ended well; gives the last of what it said.
    ///
    /// # Errors
    /// `Request`, with what the program says, or with why its stream cannot be read.
    pub fn finish(self, broken: Option<io::Error>) -> Result<String> {
        let running = self.tar.into_inner();
        running.finish_read(broken).map_err(advised)
    }
}

impl<R: Read> BaseBackup<R> {
    /// Begins before the first file; nothing is read yet.
    fn new(tar: R, scratch_folder: &Path) -> Self {
        let map = || ScratchMap::new(scratch_folder, FILES_BYTES);
        Self {
            tar: BufReader::with_capacity(READ_BYTES, tar),
            ahead: VecDeque::new(),
            folders: map(),
            files: map(),
            current: None,
            manifest: Manifest::default(),
            broken: None,
        }
    }

    /// Goes to the next file or folder, once the one before it was read to its end, and gives its entry; none
    /// at the end of the stream.
    ///
    /// # Errors
    /// What reading answers; `InvalidData` for what is not as the manifest has it.
    pub fn next_part(&mut self) -> io::Result<Option<Entry>> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        self.end_current()?;
        if self.ahead.is_empty() && !self.look_ahead()? {
            self.compare_all()?;
            return Ok(None);
        }
        let entry = self.ahead.pop_front();
        if let Some(entry) = &entry
            && entry.kind == EntryType::File
        {
            self.current = Some(File {
                path: entry.key.clone(),
                size: entry.size,
                left: entry.size,
                hash: Sha256::new(),
            });
        }
        Ok(entry)
    }

    /// Reads the next header, and puts its entry behind those of folders that were not sent; false at the
    /// end of the stream.
    fn look_ahead(&mut self) -> io::Result<bool> {
        let mut block = [0; BLOCK_BYTES];
        self.tar.read_exact(&mut block)?;
        if block == [0; BLOCK_BYTES] {
            // What comes behind is empty, too; the program wants to be rid of it.
            io::copy(&mut self.tar, &mut io::sink())?;
            return Ok(false);
        }
        let entry = entry(Header::from_byte_slice(&block))?;
        let slashes = entry.key.iter().enumerate();
        let slashes = slashes.filter(|(_, byte)| **byte == b'/');
        for end in std::iter::once(0).chain(slashes.map(|(at, _)| at + 1)) {
            let key = entry.key.get(..end).unwrap_or_default();
            let is_known = self.folders.get(key).map_err(io::Error::other)?.is_some();
            if !is_known {
                self.folders.insert(key, b"").map_err(io::Error::other)?;
                self.ahead
                    .extend((key != entry.key).then(|| folder(key, &entry)));
            }
        }
        self.ahead.push_back(entry);
        Ok(true)
    }

    /// Notes what was read of a file, and passes over what fills its last block.
    fn end_current(&mut self) -> io::Result<()> {
        let Some(file) = self.current.take() else {
            return Ok(());
        };
        let block = BLOCK_BYTES as u64;
        let filling = (block - file.size % block) % block;
        let passed = io::copy(&mut (&mut self.tar).take(filling), &mut io::sink())?;
        if passed != filling || file.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if file.path != MANIFEST {
            let hash: [u8; 32] = file.hash.finalize().into();
            let facts = [&file.size.to_le_bytes()[..], &hash].concat();
            let noted = self.files.insert(&file.path, &facts);
            noted.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Compares a file that the manifest names with what was read.
    fn compare(&mut self, line: &FileLine) -> io::Result<()> {
        let read = self.files.get(&line.path).map_err(io::Error::other)?;
        let facts = [&line.size.to_le_bytes()[..], &line.sha256].concat();
        let shown = String::from_utf8_lossy(&line.path);
        match read {
            None => Err(malformed(&format!("{shown} was not sent"))),
            Some(read) if read != facts => {
                Err(malformed(&format!("{shown} is not as the manifest has it")))
            }
            Some(_) => self.files.remove(&line.path).map_err(io::Error::other),
        }
    }

    /// Makes sure that the manifest was whole, and named all that was sent.
    fn compare_all(&mut self) -> io::Result<()> {
        self.manifest.is_whole()?;
        for item in self.files.iter_from(&[]) {
            let (path, _) = item.map_err(io::Error::other)?;
            if !path.starts_with(LOG) {
                let shown = String::from_utf8_lossy(&path);
                return Err(malformed(&format!("the manifest does not name {shown}")));
            }
        }
        Ok(())
    }

    fn read_file(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = &mut self.current else {
            return Ok(0);
        };
        if file.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let count = (&mut self.tar).take(file.left).read(buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        file.left -= count as u64;
        file.hash.update(bytes);
        if file.path == MANIFEST {
            for line in self.manifest.take(bytes)? {
                self.compare(&line)?;
            }
        }
        Ok(count)
    }
}

impl<R: Read> Read for BaseBackup<R> {
    /// Reads on in the current file; 0 bytes mean that it has ended.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Why it is broken is told by its end: perhaps its program failed.
        self.read_file(buffer).or_else(|error| {
            self.broken = Some(error);
            Ok(0)
        })
    }
}

/// Makes the entry of a folder that is not sent itself; it belongs to whom what is in it belongs to.
fn folder(key: &[u8], below: &Entry) -> Entry {
    Entry {
        key: key.to_vec(),
        kind: EntryType::Directory,
        mode: FOLDER_MODE,
        uid: below.uid,
        gid: below.gid,
        user: below.user.clone(),
        group: below.group.clone(),
        mtime: now(),
        ..Entry::default()
    }
}

/// Makes the entry of what a header is about. Pure.
fn entry(header: &Header) -> io::Result<Entry> {
    let sum = header
        .as_bytes()
        .iter()
        .enumerate()
        .map(|(at, byte)| match at {
            // The sum itself counts as blanks.
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        });
    if header.cksum().ok() != Some(sum.sum::<u32>()) {
        return Err(malformed("a header is damaged"));
    }
    let path = header.path_bytes();
    let path = path.strip_prefix(b"./").unwrap_or(&path);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let mut parts = path.split(|byte| *byte == b'/');
    if path.len() > PATH_BYTES_MAX || parts.any(|part| [&b""[..], b".", b".."].contains(&part)) {
        return Err(malformed("a path cannot be that of a file of the server"));
    }
    let (kind, size) = match header.entry_type() {
        Kind::Regular => (EntryType::File, header.entry_size()?),
        Kind::Directory => (EntryType::Directory, 0),
        Kind::Symlink => (EntryType::Symlink, 0),
        _ => {
            return Err(malformed(
                "it has something that is neither file nor folder",
            ));
        }
    };
    let mut key = path.to_vec();
    if kind == EntryType::Directory {
        key.push(b'/');
    }
    let link = header
        .link_name_bytes()
        .filter(|_| kind == EntryType::Symlink);
    let id =
        |number: io::Result<u64>| u32::try_from(number.unwrap_or_default()).unwrap_or_default();
    Ok(Entry {
        key,
        kind,
        size,
        mode: header.mode()? & 0o7777,
        uid: id(header.uid()),
        gid: id(header.gid()),
        user: header.username_bytes().unwrap_or_default().to_vec(),
        group: header.groupname_bytes().unwrap_or_default().to_vec(),
        mtime: Timestamp {
            seconds: i64::try_from(header.mtime()?).unwrap_or_default(),
            nanoseconds: 0,
        },
        links: 1,
        link_target: link.unwrap_or_default().to_vec(),
        ..Entry::default()
    })
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::fmt::Write as _;

    use larder_format::ids::encode_hex;

    use super::*;

    /// What a server of these files would send.
    fn sent(files: &[(&str, &[u8])], named: &[(&str, &[u8])]) -> Vec<u8> {
        let mut manifest = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [".to_owned();
        for (number, (path, bytes)) in named.iter().enumerate() {
            let hash: [u8; 32] = Sha256::digest(bytes).into();
            let comma = if number == 0 { "" } else { "," };
            let _ = write!(
                manifest,
                "{comma}\n{{ \"Path\": \"{path}\", \"Size\": {}, \"Last-Modified\": \"x\", \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{}\" }}",
                bytes.len(),
                encode_hex(&hash)
            );
        }
        manifest.push_str("\n],\n\"WAL-Ranges\": [\n],\n");
        let hash: [u8; 32] = Sha256::digest(&manifest).into();
        let _ = writeln!(
            manifest,
            "\"Manifest-Checksum\": \"{}\"}}",
            encode_hex(&hash)
        );
        let mut stream = Vec::new();
        let manifest = ("backup_manifest", manifest.as_bytes());
        for (path, bytes) in files.iter().chain([&manifest]) {
            let mut header = Header::new_ustar();
            // Past what refuses paths that lead out.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(0o600);
            header.set_size(bytes.len() as u64);
            header.set_mtime(1_700_000_000);
            header.set_cksum();
            stream.extend(header.as_bytes());
            stream.extend(*bytes);
            stream.resize(stream.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        stream.resize(stream.len() + 2 * BLOCK_BYTES, 0);
        stream
    }

    fn read(stream: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let folder = tempfile::tempdir().unwrap();
        let mut base = BaseBackup::new(stream, folder.path());
        let mut found = Vec::new();
        while let Some(entry) = base.next_part()? {
            let mut bytes = Vec::new();
            base.read_to_end(&mut bytes)?;
            found.push((String::from_utf8(entry.key).unwrap(), bytes));
        }
        Ok(found)
    }

    const FILES: [(&str, &[u8]); 4] = [
        ("backup_label", b"START"),
        ("base/1/empty", b""),
        ("base/1/1259", &[7; 1024]),
        ("pg_wal/000000010000000000000002", b"log"),
    ];

    #[test]
    fn every_file_comes_once_behind_its_folder() {
        let found = read(&sent(&FILES, &FILES[..3])).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "",
            "backup_label",
            "base/",
            "base/1/",
            "base/1/empty",
            "base/1/1259",
            "pg_wal/",
            "pg_wal/000000010000000000000002",
            "backup_manifest",
        ];
        assert_eq!(names, expected);
        assert_eq!(found[1].1, b"START");
        assert_eq!(found[5].1, [7; 1024]);
    }

    #[test]
    fn what_is_not_as_the_manifest_has_it_is_refused() {
        let failed = |stream: &[u8]| read(stream).unwrap_err().to_string();
        let told = failed(&sent(
            &FILES,
            &[FILES[0], FILES[1], ("base/1/1259", &[8; 1024])],
        ));
        assert!(told.contains("base/1/1259 is not as"), "{told}");
        let told = failed(&sent(&FILES, &FILES[..2]));
        assert!(told.contains("does not name base/1/1259"), "{told}");
        let told = failed(&sent(&FILES[1..], &FILES[..3]));
        assert!(told.contains("backup_label was not sent"), "{told}");
        let told = failed(&sent(&[("../up", b"")], &[]));
        assert!(told.contains("a path"), "{told}");

        // Whatever is altered, it is never taken for whole: a file's bytes, or the manifest's.
        let stream = sent(&FILES, &FILES[..3]);
        let text = String::from_utf8_lossy(&stream).into_owned();
        let log = text.find("log\0").unwrap();
        let manifest = text.find("{ \"Postgre").unwrap();
        for place in (0..stream.len()).step_by(13) {
            let is_log = (log..log + BLOCK_BYTES).contains(&place);
            if is_log || stream[place] == 0 && place < manifest {
                continue;
            }
            let mut altered = stream.clone();
            altered[place] ^= 1;
            let end = manifest + text[manifest..].find('\0').unwrap();
            let must_fail = place < end;
            assert!(read(&altered).is_err() || !must_fail, "{place}");
        }
        for length in (0..log).step_by(7) {
            assert!(read(&stream[..length]).is_err(), "{length}");
        }
    }
}
