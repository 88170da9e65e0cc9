//! Secrets of storages: where they are, and how they are fetched.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

/// The most bytes that a secret may have; a service account's key has some 2,400.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// What is shown in place of a secret.
pub const MASK: &str = "********";

/// Where a secret is.
#[derive(Clone)]
pub enum SecretSource {
    /// It is this text.
    Text(Zeroizing<String>),
    /// It is what this file holds, without the line end that closes it.
    File(PathBuf),
    /// It is what this shell command prints, without the line end that closes it.
    Command(String),
}

impl SecretSource {
    /// Fetches the secret; `name` is the setting's, for the message.
    ///
    /// # Errors
    /// In words.
    pub fn fetch(&self, name: &str) -> Result<Zeroizing<String>, String> {
        let bytes = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::File(path) => {
                let read = File::open(path).and_then(|mut file| read(&mut file));
                read.map_err(|error| {
                    format!("cannot read the file {} of {name}: {error}", path.display())
                })?
            }
            Self::Command(command) => {
                run(command).map_err(|error| format!("the command of {name} failed: {error}"))?
            }
        };
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(format!("{name} has more than {SECRET_BYTES_MAX} bytes"));
        }
        let text =
            std::str::from_utf8(&bytes).map_err(|_| format!("{name} is no text in UTF-8"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(format!("{name} is empty; see {self}"));
        }
        Ok(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Display for SecretSource {
    /// Where it is, never what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str(MASK),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Command(command) => write!(f, "command {command}"),
        }
    }
}

fn read(from: &mut impl std::io::Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    from.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn run(command: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let bytes = match child.stdout.as_mut() {
        Some(stdout) => read(stdout).map_err(|error| error.to_string()),
        None => Err("it has no output".to_owned()),
    };
    drop(child.stdout.take());
    let status = child.wait().map_err(|error| error.to_string())?;
    // One that had more to say than anybody listens to ends by that.
    let is_too_long = |bytes: &Zeroizing<Vec<u8>>| bytes.len() as u64 > SECRET_BYTES_MAX;
    if !status.success() && !bytes.as_ref().is_ok_and(is_too_long) {
        return Err(status.to_string());
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_secret_comes_without_the_line_end_that_closes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "two words\r\n").unwrap();
        let fetched = SecretSource::File(path).fetch("password").unwrap();
        assert_eq!(fetched.as_str(), "two words");
        let command = SecretSource::Command("printf 'a\\nb\\n'".to_owned());
        assert_eq!(command.fetch("password").unwrap().as_str(), "a\nb");
    }

    #[test]
    fn what_cannot_be_fetched_is_told_without_the_secret() {
        let error = |source: SecretSource| source.fetch("password").unwrap_err();
        assert!(error(SecretSource::File("/nowhere/x".into())).contains("/nowhere/x"));
        assert!(
            error(SecretSource::Command("echo hunter2; exit 3".to_owned()))
                .contains("exit status: 3")
        );
        assert!(error(SecretSource::Command("true".to_owned())).contains("is empty"));
        let long = SecretSource::Command("head -c 7000000 /dev/zero".to_owned());
        assert!(error(long).contains("bytes"));
        assert!(error(SecretSource::Command("printf '\\377'".to_owned())).contains("UTF-8"));
    }
}
