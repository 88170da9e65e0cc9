//! Transfers over a data connection: files there and back, and the lines of listings.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::Shutdown;

use bytes::Bytes;
use suppaftp::{DataStream, Status, TlsStream as _};

use super::listing::Entry;
use super::session::{Failure, Session, of_io};
use crate::error::{ErrorKind, Reason};

/// Entries of one folder that are taken before it counts as endless.
const ENTRIES_MAX: usize = 4 << 20;
/// The longest line of a listing.
const LINE_BYTES_MAX: u64 = 8 << 10;
/// What is read beyond a range, rather than breaking the connection off and making a new one.
const READ_ON_BYTES_MAX: u64 = 256 << 10;
/// The bytes of one write.
const WRITE_BYTES: usize = 256 << 10;

const BEGINS: &[Status] = &[Status::AboutToSend, Status::AlreadyOpen];

/// Whether the connection can be used on after a read.
pub(super) enum After {
    Reusable,
    BrokenOff,
}

/// Reads from an offset on up to so many bytes; if they have to be all, one more is an error.
pub(super) fn retrieve(
    session: &mut Session,
    name: &str,
    offset: u64,
    length_bytes: u64,
    has_to_be_all: bool,
) -> Result<(Bytes, After), Failure> {
    let too_far = || truncated(u64::MAX);
    let restart = usize::try_from(offset).map_err(|_| too_far())?;
    session.ftp.resume_transfer(restart)?;
    let mut stream = session.ftp.retr_as_stream(name)?;
    let mut bytes = Vec::new();
    let mut limited = Read::by_ref(&mut stream).take(length_bytes);
    let mut outcome = limited.read_to_end(&mut bytes);
    let mut is_at_end = (bytes.len() as u64) < length_bytes;
    if outcome.is_ok() && !is_at_end {
        let more = if has_to_be_all { 1 } else { READ_ON_BYTES_MAX };
        let rest = io::copy(&mut Read::by_ref(&mut stream).take(more), &mut io::sink());
        is_at_end = matches!(rest, Ok(count) if count < more);
        if has_to_be_all && matches!(rest, Ok(1)) {
            return Err(Failure::Known(
                ErrorKind::Oversized,
                Reason::Other,
                format!("it has more than the {length_bytes} bytes that were expected at most"),
            ));
        }
        outcome = rest.map(|_| 0);
    }
    if let Err(error) = outcome {
        // Some servers end TLS without its farewell: the answer tells whether that was all.
        if error.kind() != io::ErrorKind::UnexpectedEof {
            return Err(of_io(&error));
        }
        stream.finish()?;
        let is_whole = session.ftp.size(name)? as u64 == offset.saturating_add(bytes.len() as u64);
        return match is_whole {
            true => Ok((bytes.into(), After::Reusable)),
            false => Err(Failure::Lost("the transfer was cut short".to_owned())),
        };
    }
    if !is_at_end {
        // The server's answer to a broken-off transfer may come late and be taken for another's.
        return Ok((bytes.into(), After::BrokenOff));
    }
    stream.finish()?;
    Ok((bytes.into(), After::Reusable))
}

/// Writes a file.
pub(super) fn store(session: &mut Session, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let mut stream = session.ftp.put_with_stream(name)?;
    let mut written = Ok(());
    for block in bytes.chunks(WRITE_BYTES) {
        written = stream.write_all(block);
        if written.is_err() {
            break;
        }
    }
    written = written.and_then(|()| stream.flush());
    if written.is_ok()
        && let DataStream::Ssl(tls) = stream.get_mut()
    {
        // Until the farewell there come tickets for the sessions of the next transfers.
        let tls = tls.mut_ref();
        tls.conn.send_close_notify();
        while tls.conn.wants_write() && tls.conn.write_tls(&mut tls.sock).is_ok() {}
        let _ = tls.sock.shutdown(Shutdown::Write);
        let _ = io::copy(&mut Read::by_ref(tls).take(64 << 10), &mut io::sink());
    }
    // The server's answer says more than a broken pipe does.
    match (stream.finish().map_err(Failure::from), written) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(Failure::Lost(_)) | Ok(()), Err(error)) => Err(of_io(&error)),
        (Err(failure), _) => Err(failure),
    }
}

/// Reads the listing that a command gives.
pub(super) fn read_lines(
    session: &mut Session,
    command: &str,
    parse: fn(&str) -> Option<Entry>,
) -> Result<Vec<Entry>, Failure> {
    let (_, stream) = session.ftp.custom_data_command(command, BEGINS)?;
    let mut entries = Vec::new();
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = Read::by_ref(&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line);
        match read {
            Ok(0) => break,
            Ok(_) if entries.len() >= ENTRIES_MAX => {
                return Err(Failure::Lost(format!(
                    "a folder has more than {ENTRIES_MAX} entries"
                )));
            }
            Ok(_) => {}
            // TLS that ends without its farewell: whether that was all, the answer tells.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(of_io(&error)),
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            continue;
        }
        let Some(entry) = parse(text) else {
            return Err(Failure::Known(
                ErrorKind::Permanent,
                Reason::Protocol,
                format!("the server lists a folder in a form that is not understood: {text:?}"),
            ));
        };
        entries.push(entry);
    }
    reader.into_inner().finish()?;
    Ok(entries)
}

pub(super) fn truncated(size_bytes: u64) -> Failure {
    Failure::Known(
        ErrorKind::Truncated,
        Reason::Other,
        format!("it has only {size_bytes} bytes"),
    )
}
