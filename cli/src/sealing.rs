//! Secrets that are sealed in larder.toml, and the key that opens them.
//!
//! Who reads larder.toml alone (in a backup, a ticket, a repository of configurations) learns nothing from a sealed secret. Who
//! reads the key as well, which is a file of its own that nobody else may read, opens it, as the program does at night.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use larder_engine::random;
use xaes_256_gcm::aead::{AeadInOut as _, KeyInit as _};
use xaes_256_gcm::{Nonce, Tag, Xaes256Gcm};
use zeroize::Zeroizing;

use crate::settings::Env;

/// What stands in front of a sealed text: how it was sealed.
const VERSION: &str = "v1.";
/// The name of the key beside larder.toml.
const KEY_NAME: &str = "larder.key";
/// The variable that names another place for it.
pub const KEY_VARIABLE: &str = "LARDER_SEAL_KEY_FILE";
/// Bytes of the nonce in front of what is sealed, and of the tag behind it.
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Under which the key that nonces are derived with is derived.
const NONCE_CONTEXT: &str = "larder 2026-11-22 larder.toml sealed secret nonce v1";

/// Where a sealed secret stands in larder.toml: it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The setting of a location.
    Location(&'a str, &'a str),
    /// `password`, which opens any repository.
    Password,
}

/// The key of all that is sealed in a larder.toml.
pub struct Key(Zeroizing<[u8; 32]>);

impl Place<'_> {
    /// Gives the associated data: no two places have the same.
    fn aad(self) -> Vec<u8> {
        let (kind, parts) = match self {
            Self::Location(name, key) => (1, [name, key]),
            Self::Password => (2, ["", ""]),
        };
        let mut bytes = b"larder.toml sealed v1".to_vec();
        bytes.push(kind);
        for part in parts {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes
    }

    /// Names it for a person.
    fn words(self) -> String {
        match self {
            Self::Location(name, key) => format!("{key} of the location {name}"),
            Self::Password => "password".to_owned(),
        }
    }
}

impl Key {
    /// Reads the key of a larder.toml.
    ///
    /// # Errors
    /// When it is not there, others may read it, or it is none.
    pub fn open(config: &Path, env: Env) -> anyhow::Result<Self> {
        let path = path_of(config, env);
        Self::read(&path)?.ok_or_else(|| {
            anyhow!(
                "the key {} that opens what is sealed is not there; bring it back, name it by {KEY_VARIABLE}, or give the \
                 secrets anew (larder location edit NAME --secret KEY --seal)",
                path.display()
            )
        })
    }

    /// Reads the key of a larder.toml, or makes one that only this account can read; a dry run keeps it nowhere.
    ///
    /// # Errors
    /// When it cannot be made, others may read it, or it is none.
    pub fn open_or_make(config: &Path, env: Env, dry_run: bool) -> anyhow::Result<Self> {
        let path = path_of(config, env);
        if let Some(key) = Self::read(&path)? {
            return Ok(key);
        }
        let key = Self(Zeroizing::new(random::bytes()?));
        if dry_run {
            return Ok(key);
        }
        let made = key.write(&path);
        let made = made.with_context(|| format!("cannot make the key {}", path.display()))?;
        match made {
            true => Ok(key),
            // Another run was faster.
            false => Self::open(config, env),
        }
    }

    fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let tried = || format!("cannot read the key {}", path.display());
        let mut file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(tried)?,
        };
        let mode = file.metadata().with_context(tried)?.permissions().mode();
        if mode & 0o077 != 0 {
            bail!(
                "the key {path} can be reached by others (mode {mode:04o}), who would open all that is sealed; run `chmod 600 {path}`",
                path = path.display(),
                mode = mode & 0o777
            );
        }
        let mut text = Zeroizing::new(Vec::with_capacity(128));
        let read = std::io::Read::by_ref(&mut file);
        std::io::Read::read_to_end(&mut std::io::Read::take(read, 128), &mut text)
            .with_context(tried)?;
        let key = parse(text.trim_ascii());
        let key = key.with_context(|| {
            format!(
                "{} is no key of sealed secrets: that is a line of 64 hexadecimal digits",
                path.display()
            )
        })?;
        Ok(Some(Self(key)))
    }

    /// Writes it to a new file; tells whether there was none.
    fn write(&self, path: &Path) -> std::io::Result<bool> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Such a file is of mode 0600 from the beginning.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let mut text = Zeroizing::new(String::with_capacity(65));
        for byte in self.0.iter() {
            text.push_str(&format!("{byte:02x}"));
        }
        text.push('\n');
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error.error),
        }
        File::open(folder)?.sync_all()?;
        Ok(true)
    }

    /// Seals a secret for one place.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn seal(&self, place: Place<'_>, secret: &str) -> anyhow::Result<String> {
        let aad = place.aad();
        let random: [u8; 32] = random::bytes()?;
        // A machine that was cloned draws the same twice, and has other nonces for other secrets all the same.
        let nonce_key = Zeroizing::new(blake3::derive_key(NONCE_CONTEXT, self.0.as_slice()));
        let mut hasher = blake3::Hasher::new_keyed(&nonce_key);
        hasher
            .update(&random)
            .update(&(aad.len() as u64).to_le_bytes());
        hasher.update(&aad).update(secret.as_bytes());
        let mut nonce = [0; NONCE_BYTES];
        hasher.finalize_xof().fill(&mut nonce);
        let mut buffer = Zeroizing::new(secret.as_bytes().to_vec());
        let tag = self
            .cipher()
            .encrypt_inout_detached(&Nonce::from(nonce), &aad, buffer.as_mut_slice().into())
            .map_err(|_| anyhow!("cannot seal {}", place.words()))?;
        let sealed = [nonce.as_slice(), buffer.as_slice(), tag.as_slice()].concat();
        Ok(format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Opens what was sealed for one place.
    ///
    /// # Errors
    /// When it was sealed for another place or by another key, or was altered.
    pub fn unseal(&self, place: Place<'_>, sealed: &str) -> anyhow::Result<Zeroizing<String>> {
        let bytes = decoded(sealed).map_err(|why| anyhow!("{}: {why}", place.words()))?;
        let parts = || {
            let (nonce, rest) = bytes.split_first_chunk::<NONCE_BYTES>()?;
            let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
            Some((*nonce, text, *tag))
        };
        let wrong = || {
            anyhow!(
                "the sealed {} does not open: another key sealed it, it was sealed for another place, or it was altered; give it \
                 anew with --secret and --seal",
                place.words()
            )
        };
        let (nonce, text, tag) = parts().ok_or_else(wrong)?;
        let mut text = Zeroizing::new(text.to_vec());
        self.cipher()
            .decrypt_inout_detached(
                &Nonce::from(nonce),
                &place.aad(),
                text.as_mut_slice().into(),
                &Tag::from(tag),
            )
            .map_err(|_| wrong())?;
        let text = std::str::from_utf8(&text).map_err(|_| wrong())?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn cipher(&self) -> Xaes256Gcm {
        Xaes256Gcm::new((&*self.0).into())
    }
}

/// Says what is wrong with the form of a sealed text, if anything is.
#[must_use]
pub fn refuse_form(sealed: &str) -> Option<&'static str> {
    decoded(sealed).err()
}

fn decoded(sealed: &str) -> Result<Vec<u8>, &'static str> {
    let text = sealed.strip_prefix(VERSION).ok_or(
        "what is sealed begins with v1.; this was sealed by another version, or by nothing",
    )?;
    let bytes = URL_SAFE_NO_PAD.decode(text);
    let bytes = bytes.map_err(|_| "what is sealed has letters, digits, '-' and '_' alone")?;
    match bytes.len() > NONCE_BYTES + TAG_BYTES {
        true => Ok(bytes),
        false => Err("what is sealed is cut off"),
    }
}

fn parse(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        // `from_str_radix` would take a sign.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(key)
}

fn path_of(config: &Path, env: Env) -> PathBuf {
    if let Some(named) = env(KEY_VARIABLE) {
        return named.into();
    }
    key_path(config)
}

/// Gives where the key of a larder.toml usually lies.
#[must_use]
pub fn key_path(config: &Path) -> PathBuf {
    // What a link points to is the file, also when it is changed.
    let real = config.canonicalize();
    let real = real.unwrap_or_else(|_| config.to_owned());
    real.parent().unwrap_or(Path::new(".")).join(KEY_NAME)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn nothing(_: &str) -> Option<std::ffi::OsString> {
        None
    }

    #[test]
    fn a_secret_opens_where_it_was_sealed_and_nowhere_else() {
        let key = Key(Zeroizing::new([7; 32]));
        let place = Place::Location("nas", "password");
        let sealed = key.seal(place, "hunter2").unwrap();
        assert!(!sealed.contains("hunter2") && refuse_form(&sealed).is_none());
        assert_eq!(key.unseal(place, &sealed).unwrap().as_str(), "hunter2");
        assert_ne!(sealed, key.seal(place, "hunter2").unwrap());
        for other in [
            Place::Location("nas2", "password"),
            Place::Location("nas", "token"),
            Place::Location("na", "spassword"),
            Place::Password,
        ] {
            assert!(key.unseal(other, &sealed).is_err(), "{other:?}");
        }
        let other = Key(Zeroizing::new([8; 32]));
        let error = other.unseal(place, &sealed).unwrap_err().to_string();
        assert!(error.contains("password of the location nas"), "{error}");
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn what_was_altered_or_cut_off_does_not_open() {
        let key = Key(Zeroizing::new([7; 32]));
        let sealed = key.seal(Place::Password, "x").unwrap();
        let bytes = decoded(&sealed).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            *altered.get_mut(at).unwrap() ^= 1;
            let text = format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(altered));
            assert!(key.unseal(Place::Password, &text).is_err(), "byte {at}");
        }
        for at in 0..sealed.len() {
            let cut = sealed.get(..at).unwrap();
            assert!(key.unseal(Place::Password, cut).is_err(), "{cut}");
        }
        for text in ["", "v1.", "v2.AAAA", "v1.!!", "v1.AAAA"] {
            assert!(refuse_form(text).is_some(), "{text}");
        }
    }

    #[test]
    fn the_key_is_made_once_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("larder.toml");
        let file = folder.path().join(KEY_NAME);
        let error = Key::open(&config, &nothing).err().unwrap().to_string();
        assert!(error.contains(KEY_VARIABLE), "{error}");
        Key::open_or_make(&config, &nothing, true).unwrap();
        assert!(!file.exists());
        let made = Key::open_or_make(&config, &nothing, false).unwrap();
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        let again = Key::open_or_make(&config, &nothing, false).unwrap();
        assert_eq!(made.0, again.0);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Key::open(&config, &nothing).err().unwrap().to_string();
        assert!(error.contains("0640"), "{error}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        for wrong in ["", "00", &"0".repeat(63), &"+0".repeat(32), &"0".repeat(65)] {
            fs::write(&file, wrong).unwrap();
            assert!(Key::open(&config, &nothing).is_err(), "{wrong}");
        }
    }

    #[test]
    fn another_place_for_the_key_may_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("else/where");
        let env = |name: &str| (name == KEY_VARIABLE).then(|| named.clone().into_os_string());
        Key::open_or_make(&folder.path().join("larder.toml"), &env, false).unwrap();
        assert!(named.exists() && !folder.path().join(KEY_NAME).exists());
    }
}
