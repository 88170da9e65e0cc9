//! Turns the location of a repository into its storage.

use std::path::PathBuf;
use std::sync::Arc;

use super::Storage;
use super::error::{ErrorKind, Operation, Result, StorageError};
use super::local::LocalStorage;

/// Whether a storage has to be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It has to: `NotFound` otherwise.
    Open,
    /// It is made where it is missing.
    Create,
}

/// Opens the storage at a location: a path, or `file://` and an absolute path.
pub fn open(location: &str, mode: Mode) -> Result<Arc<dyn Storage>> {
    let folder = parse(location).map_err(|cause| StorageError {
        operation: Operation::Open,
        name: String::new(),
        storage: without_credentials(location),
        kind: ErrorKind::Permanent,
        cause,
    })?;
    Ok(Arc::new(match mode {
        Mode::Open => LocalStorage::open(&folder)?,
        Mode::Create => LocalStorage::create(&folder)?,
    }))
}

/// Gives the folder that a location names, or the reason why it names none.
fn parse(location: &str) -> std::result::Result<PathBuf, String> {
    if location.is_empty() {
        return Err("the location is empty; name a folder".to_owned());
    }
    let is_scheme = |scheme: &&str| {
        scheme.starts_with(|char: char| char.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
    };
    let Some((scheme, rest)) = location
        .split_once("://")
        .filter(|(scheme, _)| is_scheme(scheme))
    else {
        refuse_other_spellings(location)?;
        return Ok(PathBuf::from(location));
    };
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(format!(
            "the scheme {scheme}:// is not known; use a path or file:///path"
        ));
    }
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err("file:// takes an absolute path: file:///path".to_owned());
    }
    percent_decoded(path)
        .map(PathBuf::from)
        .ok_or_else(|| "the path has a broken %-escape; write % as %25".to_owned())
}

/// Refuses what other programs' users write for a storage elsewhere, before it names a folder here.
fn refuse_other_spellings(location: &str) -> std::result::Result<(), String> {
    const SCHEMES: &[&str] = &[
        "azure", "b2", "dropbox", "ftp", "ftps", "gs", "http", "https", "rclone", "rest", "s3",
        "sftp", "ssh", "swift", "webdav",
    ];
    match location.split_once(':') {
        Some((scheme, _)) if SCHEMES.contains(&scheme) => Err(format!(
            "{scheme}: is no kind of location that is known; for a folder of that name write ./{scheme}:"
        )),
        _ => Ok(()),
    }
}

/// Undoes the %-escapes of a URL; `None` if one is broken or the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(
            u8::from_str_radix(digits, 16)
                .ok()
                .filter(|byte| *byte != 0)?,
        );
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Leaves out what stands before an `@` in a URL, which may be a password.
fn without_credentials(location: &str) -> String {
    match location.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        None => location.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn paths_and_file_urls_name_folders() {
        let folder = |location| parse(location).unwrap();
        assert_eq!(folder("/srv/r"), PathBuf::from("/srv/r"));
        assert_eq!(folder("r:x"), PathBuf::from("r:x"));
        assert_eq!(folder("./s3:x"), PathBuf::from("./s3:x"));
        for elsewhere in [
            "sftp:user@host:/srv",
            "s3:https://host/bucket",
            "rest:http://host",
        ] {
            assert!(
                parse(elsewhere).unwrap_err().contains("write ./"),
                "{elsewhere}"
            );
        }
        assert_eq!(folder("./a b%20/://x"), PathBuf::from("./a b%20/://x"));
        assert_eq!(
            folder("file:///srv/a%20b%C3%A9"),
            PathBuf::from("/srv/a bé")
        );
        assert_eq!(folder("FILE://localhost/srv"), PathBuf::from("/srv"));
    }

    #[test]
    fn what_names_no_folder_is_refused_with_a_reason() {
        for location in [
            "",
            "file://",
            "file://host/x",
            "file:///%",
            "file:///%zz",
            "file:///%00",
        ] {
            assert!(parse(location).is_err(), "{location}");
        }
        let error = open("s9://user:secret@host/x", Mode::Open).err().unwrap();
        let text = error.to_string();
        assert!(
            text.contains("s9://host/x") && text.contains("file:///path"),
            "{text}"
        );
        assert!(!text.contains("secret"));
    }

    #[test]
    fn opening_and_creating_differ_where_nothing_is() {
        let parent = tempfile::tempdir().unwrap();
        let location = parent.path().join("x/y").display().to_string();
        assert_eq!(
            open(&location, Mode::Open).err().unwrap().kind,
            ErrorKind::NotFound
        );
        open(&location, Mode::Create).unwrap();
        open(&format!("file://{location}"), Mode::Open).unwrap();
    }
}
