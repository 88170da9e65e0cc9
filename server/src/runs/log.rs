//! What a run printed: read while it is written, a page of it, and made smaller once it has ended.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::data;

/// The longest line that is looked at, in bytes.
const LINE_BYTES_MAX: usize = 64 << 20;
/// How much is read at a time, in bytes.
const PIECE_BYTES: u64 = 256 << 10;

/// The files of one run.
#[derive(Debug, Clone)]
pub struct Files {
    /// What it printed: JSON, an object a line.
    pub out: PathBuf,
    /// What it said for people.
    pub err: PathBuf,
    /// What is kept of it.
    pub record: PathBuf,
}

/// A file that grows, read line by line as far as it goes.
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

/// A line of JSON that a command printed.
pub enum Line {
    /// The status of a long job.
    Status(Vec<u8>),
    /// The last message of a command.
    Summary(Vec<u8>),
    /// Any other message.
    Other(Vec<u8>),
}

impl Files {
    /// Gives the files of a run in a folder.
    pub fn new(folder: &Path, id: &str) -> Self {
        Self {
            out: folder.join(format!("{id}.out")),
            err: folder.join(format!("{id}.err")),
            record: folder.join(format!("{id}.json")),
        }
    }

    /// Removes them; the record goes first, so that no half of a run is found.
    pub fn remove(&self) {
        for path in [&self.record, &self.out, &self.err] {
            if let Err(error) = data::remove(path) {
                tracing::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

impl Line {
    /// Sorts a line by its type, which stands first in it.
    pub fn of(line: Vec<u8>) -> Self {
        match line.strip_prefix(b"{\"message_type\":\"") {
            Some(rest) if rest.starts_with(b"status\"") => Self::Status(line),
            Some(rest) if rest.starts_with(b"summary\"") => Self::Summary(line),
            _ => Self::Other(line),
        }
    }
}

impl Tail {
    /// Looks at a file, which may come later.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            rest: Vec::new(),
        }
    }

    /// Gives the lines that came since the last time, a piece of them at a time; none if there is nothing new.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn lines(&mut self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let file = match &mut self.file {
            Some(file) => file,
            none => match File::open(&self.path) {
                Ok(file) => none.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let read = file.take(PIECE_BYTES).read_to_end(&mut self.rest)?;
        if read == 0 {
            return Ok(None);
        }
        let mut lines = Vec::new();
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            if self.rest.len() > LINE_BYTES_MAX {
                self.rest.clear();
            }
            return Ok(Some(lines));
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        let split = whole.split(|byte| *byte == b'\n');
        lines.extend(split.filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
        Ok(Some(lines))
    }

    /// Gives what stands behind the last line end, if the writer is known to have ended.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then_some(rest)
    }
}

/// Gives a page of the log, and whether there is more.
///
/// # Errors
/// What the operating system answers.
pub fn page(files: &Files, skip: u64, limit: usize) -> io::Result<(Vec<Value>, bool)> {
    let mut left = skip;
    let mut found = Vec::new();
    let mut has_more = false;
    let mut take = |value: &mut dyn FnMut() -> Option<Value>| {
        if left > 0 {
            left -= 1;
            return true;
        }
        if found.len() == limit {
            has_more = true;
            return false;
        }
        found.extend(value());
        true
    };
    let mut goes_on = true;
    each_line(&files.out, &mut |line| {
        if let Line::Other(line) | Line::Summary(line) = Line::of(line) {
            goes_on = take(&mut || Some(message(&line)));
        }
        goes_on
    })?;
    if goes_on {
        each_line(&files.err, &mut |line| match complaint(&line) {
            Some(told) => take(&mut || Some(told.clone())),
            None => true,
        })?;
    }
    Ok((found, has_more))
}

/// Gives a line of standard error as a message; none for the one that is for programs, which the record has.
pub fn complaint(line: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let is_for_programs = text.starts_with("{\"message_type\":\"error\"");
    (!text.is_empty() && !is_for_programs).then(|| json!({"message_type": "stderr", "text": text}))
}

/// Gives a line of standard output as a message.
pub fn message(line: &[u8]) -> Value {
    serde_json::from_slice(line)
        .unwrap_or_else(|_| json!({"message_type": "text", "text": String::from_utf8_lossy(line)}))
}

/// Gives the sentence of the error that a run ended with, and the exit code that it names; without such a one the last line.
///
/// # Errors
/// What the operating system answers.
pub fn error(files: &Files) -> io::Result<Option<(Option<u8>, String)>> {
    let mut last = None;
    let mut text = None;
    each_line(&files.err, &mut |line| {
        let told: Option<Value> = serde_json::from_slice(&line).ok();
        let is_error = |value: &&Value| {
            value
                .get("message_type")
                .is_some_and(|kind| kind == "error")
        };
        match told.as_ref().filter(is_error) {
            Some(told) => {
                let code = told.get("code").and_then(Value::as_u64);
                let code = code.and_then(|code| u8::try_from(code).ok());
                let message = told.get("message").and_then(Value::as_str);
                last = message.map(|message| (code, message.to_owned()));
            }
            None => text = Some(String::from_utf8_lossy(&line).trim().to_owned()),
        }
        true
    })?;
    // A program that dies says so for people alone.
    let text = text.filter(|text| !text.is_empty());
    Ok(last.or_else(|| text.map(|text| (None, text))))
}

/// Takes the status lines out of what a run printed, once it has ended. Who reads it meanwhile reads the old file on.
///
/// # Errors
/// What the operating system answers.
pub fn make_smaller(files: &Files) -> io::Result<()> {
    let folder = files.out.parent().unwrap_or(Path::new("."));
    let kept = tempfile::NamedTempFile::new_in(folder)?;
    let mut kept = io::BufWriter::new(kept);
    let mut written = Ok(());
    each_line(&files.out, &mut |line| {
        if !matches!(Line::of(line.clone()), Line::Status(_)) {
            written = kept.write_all(&line).and_then(|()| kept.write_all(b"\n"));
        }
        written.is_ok()
    })?;
    written?;
    let kept = kept.into_inner().map_err(io::IntoInnerError::into_error)?;
    kept.persist(&files.out).map_err(|error| error.error)?;
    Ok(())
}

/// Reads a file to its end, or until a line is answered with `false`.
fn each_line(path: &Path, each: &mut dyn FnMut(Vec<u8>) -> bool) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::with_capacity(64 << 10, file);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reader).take(LINE_BYTES_MAX as u64);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if !line.is_empty() && !each(line) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const OUT: &str = "{\"message_type\":\"step\",\"n\":1}\n{\"message_type\":\"status\",\"n\":2}\n\
                       {\"message_type\":\"summary\",\"n\":3}\n";
    const ERR: &str =
        "larder: warning: x\n\n{\"message_type\":\"error\",\"code\":4,\"message\":\"gone\"}\n";

    fn files(out: &str, err: &str) -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), "x");
        std::fs::write(&files.out, out).unwrap();
        std::fs::write(&files.err, err).unwrap();
        (folder, files)
    }

    #[test]
    fn a_growing_file_is_read_line_by_line() {
        let (_folder, files) = files("one\ntw", "");
        let mut tail = Tail::new(&files.out);
        assert_eq!(tail.lines().unwrap().unwrap(), [b"one".to_vec()]);
        assert_eq!(tail.lines().unwrap(), None);
        data::append(&files.out)
            .unwrap()
            .write_all(b"o\n\nthr")
            .unwrap();
        assert_eq!(tail.lines().unwrap().unwrap(), [b"two".to_vec()]);
        assert_eq!(tail.rest().unwrap(), b"thr");
        assert_eq!(Tail::new(Path::new("/no/such")).lines().unwrap(), None);
    }

    #[test]
    fn a_log_has_pages_and_no_status() {
        let (_folder, files) = files(OUT, ERR);
        let all = |skip, limit| {
            let (items, more) = page(&files, skip, limit).unwrap();
            let kinds = items
                .iter()
                .map(|item| item["message_type"].as_str().unwrap().to_owned());
            (kinds.collect::<Vec<_>>().join(" "), more)
        };
        let whole = ("step summary stderr".to_owned(), false);
        assert_eq!(all(0, 10), whole);
        assert_eq!(all(0, 3), whole);
        assert_eq!(all(0, 2), ("step summary".to_owned(), true));
        assert_eq!(all(2, 2), ("stderr".to_owned(), false));
        assert_eq!(all(9, 2), (String::new(), false));
        make_smaller(&files).unwrap();
        assert_eq!(all(0, 10), whole);
        assert!(
            !std::fs::read_to_string(&files.out)
                .unwrap()
                .contains("status")
        );
    }

    #[test]
    fn the_error_is_what_the_program_says_last() {
        let told = |err: &str| {
            let (_folder, files) = files("", err);
            error(&files).unwrap()
        };
        assert_eq!(told(ERR), Some((Some(4), "gone".to_owned())));
        assert_eq!(told(""), None);
        assert_eq!(
            told("memory is gone\n"),
            Some((None, "memory is gone".to_owned()))
        );
    }
}
