//! The keys of servers that are known: reads and extends files in the form of OpenSSH's known_hosts.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, HashAlg, PublicKey};
use sha1::Sha1;

use super::channel::Failure;
use crate::error::{ErrorKind, Reason};

/// The largest file of known keys that is read; that of a whole company has some megabytes.
const BYTES_MAX: u64 = 16 << 20;

/// Which servers are trusted.
pub(super) struct Hosts {
    /// The file that is read and, where new servers are accepted, extended.
    pub own: PathBuf,
    /// Files that are only read.
    pub others: Vec<PathBuf>,
    /// Whether a server that is in none of them is remembered and not refused.
    pub accept_new: bool,
}

/// What the files say of a server's key.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Known,
    Unknown,
    /// The server is known by other keys only.
    Changed,
    Revoked,
}

impl Hosts {
    /// Decides whether a server that shows a key is the one that was asked for.
    pub(super) fn check(&self, host: &str, port: u16, key: &PublicKey) -> Result<(), Failure> {
        let shown = format!(
            "{} {}",
            key.algorithm(),
            key.fingerprint(HashAlg::default())
        );
        let refuse =
            |reason, cause: String| Err(Failure::Known(ErrorKind::Permanent, reason, cause));
        match judge(&self.read()?, host, port, key) {
            Verdict::Known => Ok(()),
            Verdict::Unknown if self.accept_new => self.learn(host, port, key),
            Verdict::Unknown => refuse(
                Reason::HostKeyUnknown,
                format!(
                    "the server shows the key {shown}, which is not in {}",
                    self.own.display()
                ),
            ),
            Verdict::Changed => refuse(
                Reason::HostKeyChanged,
                format!(
                    "the server shows the key {shown}, but {} has another one for it",
                    self.own.display()
                ),
            ),
            Verdict::Revoked => refuse(
                Reason::HostKeyChanged,
                format!("the server shows the key {shown}, which is revoked"),
            ),
        }
    }

    /// Puts first the kinds of key that the server is known by, so that it shows such a one.
    pub(super) fn prefer(&self, host: &str, port: u16, usual: &[Algorithm]) -> Vec<Algorithm> {
        let text = self.read().unwrap_or_default();
        let known: Vec<_> = entries(&text, &name(host, port))
            .filter(|entry| entry.marker().is_none())
            .map(|entry| entry.public_key().algorithm())
            .collect();
        // The hash belongs to the signature, not to the key.
        let is_known = |usual: &Algorithm| match usual {
            Algorithm::Rsa { .. } => known.iter().any(|known| known.clone().is_rsa()),
            usual => known.contains(usual),
        };
        let (mut first, rest): (Vec<_>, Vec<_>) = usual.iter().cloned().partition(is_known);
        first.extend(rest);
        first
    }

    fn read(&self) -> Result<String, Failure> {
        let mut text = String::new();
        for path in std::iter::once(&self.own).chain(&self.others) {
            let part = match File::open(path) {
                Ok(file) => read(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error),
            };
            text.push_str(&part.map_err(|error| cannot("read", path, &error))?);
            text.push('\n');
        }
        Ok(text)
    }

    /// Appends a key, unless another process has done so a moment ago.
    fn learn(&self, host: &str, port: u16, key: &PublicKey) -> Result<(), Failure> {
        let fail = |error: &io::Error| cannot("extend", &self.own, error);
        if let Some(folder) = self.own.parent()
            && !folder.exists()
        {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(folder).map_err(|error| fail(&error))?;
        }
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.own)
            .map_err(|error| fail(&error))?;
        file.lock().map_err(|error| fail(&error))?;
        let text = fs::read(&self.own).map_err(|error| fail(&error))?;
        let text = String::from_utf8_lossy(&text);
        match judge(&text, host, port, key) {
            Verdict::Known => return Ok(()),
            Verdict::Unknown => {}
            Verdict::Changed | Verdict::Revoked => {
                return Err(Failure::Known(
                    ErrorKind::Permanent,
                    Reason::HostKeyChanged,
                    format!(
                        "another process has just put another key of the server into {}",
                        self.own.display()
                    ),
                ));
            }
        }
        let key = key
            .to_openssh()
            .map_err(|error| fail(&io::Error::other(error.to_string())))?;
        let break_before = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        // One write, so that nobody who reads meanwhile takes half a line for a whole one.
        let line = format!("{break_before}{} {}\n", name(host, port), key.trim_end());
        let written = file.write_all(line.as_bytes());
        written
            .and_then(|()| file.sync_all())
            .map_err(|error| fail(&error))
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Known(
        ErrorKind::Permanent,
        Reason::Settings,
        format!(
            "cannot {what} the servers' keys in {}: {error}",
            path.display()
        ),
    )
}

fn read(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!(
            "it has more than {BYTES_MAX} bytes"
        )));
    }
    // Whatever is no text is a line that cannot be understood, and passed over.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How a server is named in the files.
fn name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

fn judge(text: &str, host: &str, port: u16, key: &PublicKey) -> Verdict {
    let is_same = |entry: &Entry| entry.public_key().key_data() == key.key_data();
    let mut verdict = Verdict::Unknown;
    for entry in entries(text, &name(host, port)) {
        match (entry.marker(), is_same(&entry)) {
            (Some(Marker::Revoked), true) => return Verdict::Revoked,
            // The keys of authorities say nothing of a key that is shown alone.
            (Some(_), _) => {}
            (None, true) => verdict = Verdict::Known,
            (None, false) if verdict == Verdict::Unknown => verdict = Verdict::Changed,
            (None, false) => {}
        }
    }
    if verdict == Verdict::Unknown && port != 22 {
        // A key that the host is known by on the usual port vouches for it on any, as in OpenSSH.
        let name = name(host, 22);
        let mut usual = entries(text, &name);
        if usual.any(|entry| entry.marker().is_none() && is_same(&entry)) {
            return Verdict::Known;
        }
    }
    verdict
}

/// Gives the lines about a server; those that cannot be understood are passed over.
fn entries(text: &str, name: &str) -> impl Iterator<Item = Entry> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            fields.join(" ").parse::<Entry>().ok()
        })
        .filter(move |entry| names(entry.host_patterns(), name))
}

fn names(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let Ok(mac) = Hmac::<Sha1>::new_from_slice(salt) else {
                return false;
            };
            mac.chain_update(name).verify_slice(hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let mut is_named = false;
            for pattern in patterns {
                match pattern.strip_prefix('!') {
                    Some(not) if fits(not, name) => return false,
                    Some(_) => {}
                    None => is_named |= fits(pattern, name),
                }
            }
            is_named
        }
    }
}

/// Tells whether a name fits a pattern with `*` and `?`.
fn fits(pattern: &str, name: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut of) = (0, 0);
    // Where the last `*` was, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while of < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(byte) if *byte == b'?' || name.get(of) == Some(byte) => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((back, taken)) = star else {
                    return false;
                };
                star = Some((back, taken + 1));
                at = back + 1;
                of = taken + 1;
            }
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const MINE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";

    fn verdict(text: &str, host: &str, port: u16) -> Verdict {
        judge(text, host, port, &MINE.parse().unwrap())
    }

    #[test]
    fn a_server_is_found_by_name_port_pattern_and_hash() {
        // `ssh-keygen -H` made the hash, of example.com.
        let hashed = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak=";
        for (hosts, host, port, expected) in [
            ("host", "host", 22, Verdict::Known),
            ("host", "HOST", 22, Verdict::Known),
            ("Host,10.0.0.1", "10.0.0.1", 22, Verdict::Known),
            ("[host]:2222", "host", 2222, Verdict::Known),
            ("[host]:2222", "host", 22, Verdict::Unknown),
            ("[host]:2222", "host", 2223, Verdict::Unknown),
            ("host", "host", 2222, Verdict::Known),
            ("::1", "::1", 22, Verdict::Known),
            ("[::1]:2222", "::1", 2222, Verdict::Known),
            ("*.example.com", "a.example.com", 22, Verdict::Known),
            ("*.example.com", "example.com", 22, Verdict::Unknown),
            ("h?st,!host", "hast", 22, Verdict::Known),
            ("h?st,!host", "host", 22, Verdict::Unknown),
            ("*a*b*", "xaxxbx", 22, Verdict::Known),
            (hashed, "example.com", 22, Verdict::Known),
            (hashed, "example.org", 22, Verdict::Unknown),
            ("@cert-authority host", "host", 22, Verdict::Unknown),
            ("@revoked host", "host", 22, Verdict::Revoked),
            ("#host", "host", 22, Verdict::Unknown),
        ] {
            let line = format!("{hosts}\t {MINE} a comment");
            assert_eq!(verdict(&line, host, port), expected, "{line}");
        }
    }

    #[test]
    fn another_key_is_a_changed_one_unless_the_shown_one_is_there_too() {
        let other = format!("host {OTHER}\n");
        assert_eq!(verdict(&other, "host", 22), Verdict::Changed);
        assert_eq!(
            verdict(&format!("{other}host {MINE}"), "host", 22),
            Verdict::Known
        );
        assert_eq!(
            verdict(&format!("host {MINE}\n{other}"), "host", 22),
            Verdict::Known
        );
        assert_eq!(
            verdict(&format!("host {MINE}\n@revoked * {MINE}"), "host", 22),
            Verdict::Revoked
        );
        let unclear = format!("host\nhost ssh-new AAAA\nhost 1024 35 12\n\0\n{other}");
        assert_eq!(verdict(&unclear, "host", 22), Verdict::Changed);
        // The usual port vouches for others, but does not speak against them.
        assert_eq!(verdict(&other, "host", 2222), Verdict::Unknown);
    }

    #[test]
    fn a_new_server_is_appended_once_and_kept_apart_from_an_unfinished_line() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = Hosts {
            own: folder.path().join(".ssh/known_hosts"),
            others: vec![folder.path().join("nowhere")],
            accept_new: true,
        };
        let key = MINE.parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| hosts.check("host", 2222, &key).unwrap());
            }
        });
        let text = fs::read_to_string(&hosts.own).unwrap();
        assert_eq!(text, format!("[host]:2222 {MINE}\n"));
        fs::write(&hosts.own, "unfinished").unwrap();
        hosts.check("host", 22, &key).unwrap();
        let text = fs::read_to_string(&hosts.own).unwrap();
        assert_eq!(text, format!("unfinished\nhost {MINE}\n"));
        let other = OTHER.parse().unwrap();
        let changed = hosts.check("host", 22, &other).unwrap_err();
        assert!(matches!(
            changed,
            Failure::Known(_, Reason::HostKeyChanged, _)
        ));
    }

    #[test]
    fn the_kind_of_key_that_a_server_is_known_by_is_asked_for_first() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = Hosts {
            own: folder.path().join("known_hosts"),
            others: Vec::new(),
            accept_new: false,
        };
        fs::write(&hosts.own, format!("host {MINE}\n")).unwrap();
        let rsa = Algorithm::Rsa { hash: None };
        let usual = [rsa.clone(), Algorithm::Ed25519];
        assert_eq!(
            hosts.prefer("host", 22, &usual),
            [Algorithm::Ed25519, rsa.clone()]
        );
        assert_eq!(hosts.prefer("else", 22, &usual), usual);
    }
}
