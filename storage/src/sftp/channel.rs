//! One SFTP channel: its requests, the pipelines of reads and writes, and how they fail.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::extensions::Statvfs;
use russh_sftp::protocol::{File, FileAttributes, FileType, OpenFlags, Packet, StatusCode};

use super::session::Connection;
use crate::error::{ErrorKind, Reason};

/// Requests of one pipeline that may be unanswered at once.
const IN_FLIGHT: usize = 32;
/// The most bytes of one read or write; OpenSSH takes no more.
const BLOCK_BYTES_MAX: u64 = 255 << 10;
/// What every server takes in one read or write.
const BLOCK_BYTES_SAFE: u64 = 32 << 10;
/// Entries of one folder that are taken before it counts as endless.
const ENTRIES_MAX: usize = 4 << 20;

/// Why a request came to nothing.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The server said so.
    Status(StatusCode, String),
    /// The connection is of no use any more.
    Lost(String),
    /// It is known what it is.
    Known(ErrorKind, Reason, String),
}

impl Failure {
    /// Tells whether the server answered with this code.
    pub(super) fn is(&self, wanted: StatusCode) -> bool {
        matches!(self, Self::Status(code, _) if *code == wanted)
    }
}

impl From<SftpError> for Failure {
    fn from(error: SftpError) -> Self {
        match error {
            SftpError::Status(status) => match status.status_code {
                StatusCode::NoConnection | StatusCode::ConnectionLost => {
                    Self::Lost("the server lost its connection".to_owned())
                }
                code => Self::Status(code, status.error_message),
            },
            SftpError::Limited(cause) => Self::Known(ErrorKind::Permanent, Reason::Protocol, cause),
            error => Self::Lost(format!("the connection broke: {error}")),
        }
    }
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        let protocol = |cause: String| Self::Known(ErrorKind::Permanent, Reason::Protocol, cause);
        match error {
            russh::Error::Version => protocol("what answers is no SSH server".to_owned()),
            russh::Error::NoCommonAlgo { kind, theirs, .. } => protocol(format!(
                "the server knows no {kind:?} algorithm that larder knows, only {}",
                theirs.join(", ")
            )),
            error => Self::Lost(format!("the SSH connection broke: {error}")),
        }
    }
}

/// What a server says of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub kind: FileType,
    pub size_bytes: u64,
    /// Seconds since 1970.
    pub modified: u64,
}

impl About {
    /// `None` where the server tells too little.
    pub(super) fn of(attributes: &FileAttributes) -> Option<Self> {
        Some(Self {
            kind: FileType::from(attributes.permissions?),
            size_bytes: attributes.size?,
            modified: attributes.mtime.unwrap_or_default().into(),
        })
    }
}

/// What a server can do beyond the plain protocol.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extensions {
    pub hard_link: bool,
    pub posix_rename: bool,
    pub fsync: bool,
    statvfs: bool,
}

/// An open SFTP channel of a connection.
pub(super) struct Channel {
    raw: Arc<RawSftpSession>,
    /// Dropped last, it ends the SSH connection.
    pub connection: Arc<Connection>,
    pub extensions: Extensions,
    read_bytes: u64,
    write_bytes: u64,
    silence_max: Duration,
    opened: Instant,
    /// When the server answered last, in milliseconds after `opened`.
    heard_ms: AtomicU64,
}

impl Channel {
    /// Greets the server.
    pub(super) async fn start(
        raw: RawSftpSession,
        connection: Arc<Connection>,
        silence_max: Duration,
    ) -> Result<Self, Failure> {
        let mut channel = Self {
            raw: Arc::new(raw),
            connection,
            extensions: Extensions::default(),
            read_bytes: BLOCK_BYTES_SAFE,
            write_bytes: BLOCK_BYTES_SAFE,
            silence_max,
            opened: Instant::now(),
            heard_ms: AtomicU64::new(0),
        };
        let version = channel.call(channel.raw.init()).await?;
        channel.extensions = extensions(&version.extensions);
        if version.extensions.contains_key("limits@openssh.com")
            && let Ok(limits) = channel.call(channel.raw.limits()).await
        {
            let block = |limit: u64| match limit {
                0 => BLOCK_BYTES_SAFE,
                limit => limit.min(BLOCK_BYTES_MAX),
            };
            channel.read_bytes = block(limits.max_read_len);
            channel.write_bytes = block(limits.max_write_len);
        }
        Ok(channel)
    }

    /// Waits for an answer as long as the server is not silent: on a slow line the answers of a
    /// pipeline come one by one, and the last one late.
    async fn call<T>(
        &self,
        request: impl Future<Output = Result<T, SftpError>>,
    ) -> Result<T, Failure> {
        let mut request = pin!(request);
        let start = self.opened.elapsed();
        loop {
            let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)).max(start);
            let silent = self.opened.elapsed().saturating_sub(heard);
            if silent >= self.silence_max {
                return Err(Failure::Lost(format!(
                    "the server did not answer for {} s",
                    silent.as_secs()
                )));
            }
            let left = self.silence_max.saturating_sub(silent);
            if let Ok(outcome) = tokio::time::timeout(left, &mut request).await {
                let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.heard_ms.store(now, Ordering::Relaxed);
                return outcome.map_err(Failure::from);
            }
        }
    }

    pub(super) async fn open(&self, path: &str, flags: OpenFlags) -> Result<String, Failure> {
        let request = self.raw.open(path, flags, FileAttributes::empty());
        Ok(self.call(request).await?.handle)
    }

    pub(super) async fn close(&self, handle: &str) -> Result<(), Failure> {
        self.call(self.raw.close(handle)).await.map(drop)
    }

    /// Closes a file that was only read, without waiting for the answer.
    pub(super) fn close_later(&self, handle: String) {
        let raw = Arc::clone(&self.raw);
        tokio::spawn(async move { raw.close(handle).await });
    }

    pub(super) async fn fsync(&self, handle: &str) -> Result<(), Failure> {
        self.call(self.raw.fsync(handle)).await.map(drop)
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Failure> {
        self.call(self.raw.remove(path)).await.map(drop)
    }

    pub(super) async fn remove_folder(&self, path: &str) -> Result<(), Failure> {
        self.call(self.raw.rmdir(path)).await.map(drop)
    }

    pub(super) async fn make_folder(&self, path: &str) -> Result<(), Failure> {
        let attributes = FileAttributes {
            permissions: Some(0o700),
            ..FileAttributes::empty()
        };
        self.call(self.raw.mkdir(path, attributes)).await.map(drop)
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        self.call(self.raw.rename(from, to)).await.map(drop)
    }

    /// Renames over what may be there.
    pub(super) async fn posix_rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        let mut data = Vec::with_capacity(8 + from.len() + to.len());
        for path in [from, to] {
            let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(path.as_bytes());
        }
        let request = self.raw.extended("posix-rename@openssh.com", data);
        match self.call(request).await? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) => Err(SftpError::Status(status).into()),
            _ => Err(SftpError::UnexpectedPacket.into()),
        }
    }

    pub(super) async fn hard_link(&self, from: &str, to: &str) -> Result<(), Failure> {
        self.call(self.raw.hardlink(from, to)).await.map(drop)
    }

    /// Looks at a file or folder, through links.
    pub(super) async fn stat(&self, path: &str) -> Result<About, Failure> {
        let found = self.call(self.raw.stat(path)).await?;
        about(&found.attrs)
    }

    /// Looks at an open file, and reads its beginning in the same round trip.
    pub(super) async fn stat_and_read(
        &self,
        handle: &str,
        offset: u64,
        length_bytes: u64,
    ) -> Result<(About, Vec<u8>), Failure> {
        let first = length_bytes.min(self.read_bytes);
        let (found, bytes) = futures_util::future::join(
            self.call(self.raw.fstat(handle)),
            self.read_block(handle, offset, first),
        )
        .await;
        let found = about(&found?.attrs)?;
        if found.kind != FileType::File || offset >= found.size_bytes {
            // What a read of a folder, or behind the end, says differs by server.
            return Ok((found, Vec::new()));
        }
        Ok((found, bytes?))
    }

    /// Reads up to so many bytes, in order and many blocks at a time; fewer at the end of the file.
    pub(super) async fn read(
        &self,
        handle: &str,
        offset: u64,
        length_bytes: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let blocks = blocks(length_bytes, self.read_bytes);
        let reads = blocks.map(|(at, length)| {
            let from = offset.saturating_add(at);
            self.read_block(handle, from, length)
        });
        let mut reads = pin!(stream::iter(reads).buffered(IN_FLIGHT));
        while let Some(block) = reads.try_next().await? {
            // The length is what a server said: memory grows only with what has come.
            into.extend_from_slice(&block);
        }
        Ok(())
    }

    async fn read_block(
        &self,
        handle: &str,
        offset: u64,
        length_bytes: u64,
    ) -> Result<Vec<u8>, Failure> {
        let mut block = Vec::new();
        while (block.len() as u64) < length_bytes {
            let had = block.len() as u64;
            let left = u32::try_from(length_bytes - had).unwrap_or(u32::MAX);
            let from = offset.saturating_add(had);
            match self.call(self.raw.read(handle, from, left)).await {
                Ok(data) if data.data.is_empty() => break,
                Ok(data) if data.data.len() as u64 > u64::from(left) => {
                    return Err(Failure::Lost(
                        "the server sent more than it was asked for".to_owned(),
                    ));
                }
                Ok(data) if block.is_empty() => block = data.data,
                Ok(data) => block.extend_from_slice(&data.data),
                Err(failure) if failure.is(StatusCode::Eof) => break,
                Err(failure) => return Err(failure),
            }
        }
        Ok(block)
    }

    /// Writes from the beginning of a file on, many blocks at a time.
    pub(super) async fn write(&self, handle: &str, bytes: &[u8]) -> Result<(), Failure> {
        let size = usize::try_from(self.write_bytes).unwrap_or(usize::MAX);
        let blocks = bytes.chunks(size).zip(0_u64..);
        let writes = blocks.map(|(block, at)| {
            let offset = at * self.write_bytes;
            // The copy is made when the request is, not for all of them at once.
            async move {
                let request = self.raw.write(handle, offset, block.to_vec());
                self.call(request).await.map(drop)
            }
        });
        let mut writes = pin!(stream::iter(writes).buffer_unordered(IN_FLIGHT));
        while writes.try_next().await?.is_some() {}
        Ok(())
    }

    /// Reads a folder whole.
    pub(super) async fn read_folder(&self, path: &str) -> Result<Vec<File>, Failure> {
        let handle = self.call(self.raw.opendir(path)).await?.handle;
        let mut entries = Vec::new();
        let outcome = loop {
            match self.call(self.raw.readdir(handle.as_str())).await {
                Ok(page) if entries.len() + page.files.len() > ENTRIES_MAX => {
                    break Err(Failure::Known(
                        ErrorKind::Permanent,
                        Reason::Protocol,
                        format!("the folder {path} has more than {ENTRIES_MAX} entries"),
                    ));
                }
                Ok(page) if page.files.is_empty() => break Ok(()),
                Ok(page) => entries.extend(page.files),
                Err(failure) if failure.is(StatusCode::Eof) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        self.close_later(handle);
        outcome.map(|()| entries)
    }

    /// Says more exactly why a write failed: OpenSSH answers "Failure" to a full disk and to one that
    /// takes no writes.
    pub(super) async fn explain_write(
        &self,
        folder: &str,
        failure: Failure,
        needed_bytes: u64,
    ) -> Failure {
        let Failure::Status(StatusCode::Failure, said) = &failure else {
            return failure;
        };
        let full = |cause: String| Failure::Known(ErrorKind::Full, Reason::Other, cause);
        let lower = said.to_ascii_lowercase();
        if lower.contains("no space") || lower.contains("quota") {
            return full(format!("the server answers: {said}"));
        }
        if lower.contains("read-only") {
            return read_only();
        }
        if !self.extensions.statvfs {
            return failure;
        }
        match self.call(self.raw.statvfs(folder)).await {
            Ok(space) if space.flags & 1 == 1 => read_only(),
            Ok(space) if is_full(&space, needed_bytes) => full("no space is left".to_owned()),
            _ => failure,
        }
    }
}

fn read_only() -> Failure {
    let cause = "its file system is read-only".to_owned();
    Failure::Known(ErrorKind::ReadOnly, Reason::Other, cause)
}

fn is_full(space: &Statvfs, needed_bytes: u64) -> bool {
    let left = space.blocks_avail.saturating_mul(space.fragment_size);
    let has_no_inodes = space.inodes > 0 && space.inodes_avail == 0;
    left <= needed_bytes || has_no_inodes
}

fn about(attributes: &FileAttributes) -> Result<About, Failure> {
    About::of(attributes).ok_or_else(|| {
        Failure::Known(
            ErrorKind::Permanent,
            Reason::Protocol,
            "the server does not tell kinds and sizes of files".to_owned(),
        )
    })
}

fn extensions(named: &HashMap<String, String>) -> Extensions {
    let has = |name: &str, version: &str| named.get(name).is_some_and(|value| value == version);
    Extensions {
        hard_link: has("hardlink@openssh.com", "1"),
        posix_rename: has("posix-rename@openssh.com", "1"),
        fsync: has("fsync@openssh.com", "1"),
        statvfs: has("statvfs@openssh.com", "2"),
    }
}

/// Cuts a length into blocks: where each begins, and how long it is.
fn blocks(length_bytes: u64, block_bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..length_bytes.div_ceil(block_bytes)).map(move |block| {
        let at = block * block_bytes;
        (at, block_bytes.min(length_bytes - at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_a_length_exactly() {
        let cut = |length| blocks(length, 10).collect::<Vec<_>>();
        assert_eq!(cut(0), []);
        assert_eq!(cut(10), [(0, 10)]);
        assert_eq!(cut(21), [(0, 10), (10, 10), (20, 1)]);
    }

    #[test]
    fn what_does_not_fit_any_more_or_has_no_inode_left_is_full() {
        let space = |blocks_avail, inodes, inodes_avail| Statvfs {
            block_size: 4096,
            fragment_size: 512,
            blocks: 1000,
            blocks_free: 1000,
            blocks_avail,
            inodes,
            inodes_free: inodes_avail,
            inodes_avail,
            fs_id: 0,
            flags: 0,
            name_max: 255,
        };
        assert!(is_full(&space(0, 9, 9), 0) && is_full(&space(2, 9, 9), 1024));
        assert!(is_full(&space(900, 9, 0), 1));
        // Some file systems count no inodes.
        assert!(!is_full(&space(900, 0, 0), 1) && !is_full(&space(900, 9, 9), 1));
    }
}
