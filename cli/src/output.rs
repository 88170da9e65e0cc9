//! What goes to standard output: tables for people, JSON for programs.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use larder_engine::error::EngineError;
use serde::Serialize;

static CLOSED: AtomicBool = AtomicBool::new(false);
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Tells whether standard output was closed by its reader before all was written.
#[must_use]
pub fn reader_has_gone() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Tells whether anything was written to standard output but for the status of a long job.
#[must_use]
pub fn has_written() -> bool {
    WRITTEN.load(Ordering::Relaxed)
}

/// Buffered standard output that remembers when its reader has gone (`larder ls | head`).
pub struct Output(BufWriter<Stdout>);

impl Output {
    /// Opens standard output.
    #[must_use]
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout()))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WRITTEN.store(true, Ordering::Relaxed);
        remember(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        remember(self.0.flush())
    }
}

fn remember<T>(result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        CLOSED.store(true, Ordering::Relaxed);
    }
    result
}

/// Gives a failure to write standard output as the engine's callbacks hand it on.
#[must_use]
pub fn failed(source: io::Error) -> EngineError {
    EngineError::File {
        operation: "write to",
        path: "standard output".into(),
        source,
    }
}

/// Writes a line of text.
///
/// # Errors
/// When standard output cannot be written.
pub fn line(text: &str) -> anyhow::Result<()> {
    let mut out = Output::new();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Writes one value as JSON, on lines of its own.
///
/// # Errors
/// When standard output cannot be written.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = Output::new();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Writes one value as JSON, on one line.
///
/// # Errors
/// When standard output cannot be written.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = Output::new();
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// A JSON object that says what kind of message it is.
#[derive(Debug, Serialize)]
pub struct Message<'a, T: Serialize> {
    message_type: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

/// Writes one message of a long job: an object on one line.
///
/// # Errors
/// When the output cannot be written.
pub fn message<T: Serialize>(
    out: &mut impl Write,
    message_type: &'static str,
    body: &T,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Message { message_type, body })?;
    line.push(b'\n');
    out.write_all(&line)
}

/// Writes the last message of a long job.
///
/// # Errors
/// When standard output cannot be written.
pub fn summary(body: &impl Serialize) -> anyhow::Result<()> {
    let mut out = Output::new();
    message(&mut out, "summary", body)?;
    Ok(out.flush()?)
}

/// Writes one JSON array, an element a line, without holding it.
pub struct Array<W: Write> {
    out: W,
    empty: bool,
}

impl<W: Write> Array<W> {
    /// Begins an array.
    #[must_use]
    pub fn new(out: W) -> Self {
        Self { out, empty: true }
    }

    /// Adds an element.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn push(&mut self, element: &impl Serialize) -> io::Result<()> {
        let before = if self.empty { "[\n" } else { ",\n" };
        self.empty = false;
        self.out.write_all(before.as_bytes())?;
        serde_json::to_writer(&mut self.out, element).map_err(io::Error::from)
    }

    /// Ends the array.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn end(mut self) -> io::Result<()> {
        let end = if self.empty { "[]\n" } else { "\n]\n" };
        self.out.write_all(end.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn array(elements: &[u32]) -> String {
        let mut bytes = Vec::new();
        let mut array = Array::new(&mut bytes);
        elements
            .iter()
            .for_each(|element| array.push(element).unwrap());
        array.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn arrays_are_json_with_any_number_of_elements() {
        for elements in [&[][..], &[1], &[1, 2, 3]] {
            let text = array(elements);
            assert_eq!(serde_json::from_str::<Vec<u32>>(&text).unwrap(), elements);
        }
    }

    #[test]
    fn a_message_is_one_line_with_its_kind_first() {
        #[derive(Serialize)]
        struct Body {
            text: &'static str,
        }
        let mut bytes = Vec::new();
        message(&mut bytes, "warning", &Body { text: "a\nb" }).unwrap();
        let expected = "{\"message_type\":\"warning\",\"text\":\"a\\nb\"}\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
