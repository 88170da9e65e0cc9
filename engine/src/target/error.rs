//! What can go wrong with one entry, and how its path is shown.

use std::fmt;
use std::io;

/// An operation on one entry of the target that failed; the others can go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {cause}", Escaped(.path))]
pub struct TargetError {
    /// What was tried, as a verb with its object: "create the file".
    pub operation: &'static str,
    /// The key it was tried on, relative to the target's root; empty for the root.
    pub path: Vec<u8>,
    /// Why it failed.
    pub cause: io::Error,
}

impl TargetError {
    /// Tells whether the target has no room left, so that going on is of little use.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(
            self.cause.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Adds operation and path to an error of the system.
pub(super) trait Context<T> {
    /// Names what was tried, and on what.
    fn on(self, operation: &'static str, path: &[u8]) -> Result<T, TargetError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn on(self, operation: &'static str, path: &[u8]) -> Result<T, TargetError> {
        self.map_err(|cause| TargetError {
            operation,
            path: path.to_vec(),
            cause: cause.into(),
        })
    }
}

/// Shows a path on one line so that its bytes can be read back.
///
/// Bytes that are not UTF-8 appear as `\xNN`, characters that move the cursor, hide or reorder
/// text as `\u{N}`, a backslash as `\\`. The empty path, the root, appears as `.`.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        if self.0.is_empty() {
            return f.write_str(".");
        }
        for piece in self.0.utf8_chunks() {
            for character in piece.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    '\r' => f.write_str("\\r")?,
                    c if c.is_control() || reorders(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                    c => f.write_char(c)?,
                }
            }
            for byte in piece.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Tells whether a character is invisible or changes the direction of the text around it.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_without_loss_on_one_line() {
        for (path, shown) in [
            (&b""[..], "."),
            (b"home/a b", "home/a b"),
            (b"caf\xc3\xa9", "caf\u{e9}"),
            (b"caf\xe9/x", "caf\\xe9/x"),
            (b"a\nb\\n", "a\\nb\\\\n"),
            (b"\x1b[31m", "\\u{1b}[31m"),
            ("x\u{202e}cod".as_bytes(), "x\\u{202e}cod"),
        ] {
            assert_eq!(Escaped(path).to_string(), shown);
        }
    }

    #[test]
    fn a_full_target_is_told_from_other_errors() {
        let error = |errno: rustix::io::Errno| TargetError {
            operation: "write to",
            path: b"a".to_vec(),
            cause: errno.into(),
        };
        assert!(error(rustix::io::Errno::NOSPC).is_out_of_space());
        assert!(error(rustix::io::Errno::DQUOT).is_out_of_space());
        assert!(!error(rustix::io::Errno::ACCESS).is_out_of_space());
        assert!(
            error(rustix::io::Errno::ACCESS)
                .to_string()
                .starts_with("cannot write to a: ")
        );
    }
}
