//! Secrets: where the password or key comes from, and how it opens a repository.
//!
//! The first of these that is given counts: a flag, an environment variable, larder.toml, a
//! prompt on the terminal.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use larder_engine::bundle::{BundleKeys, Incoming};
use larder_engine::error::EngineError;
use larder_engine::repository::{OpenOptions, Repository, Secret};
use larder_engine::storage::Storage;
use zeroize::Zeroizing;

use crate::sealing;
use crate::settings::{Env, SecretText, Settings};

/// The most bytes that a password, a key file or a password command's output may have.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// How often a wrong password may be typed.
const ATTEMPTS: usize = 3;

/// A place to take a secret from.
pub enum SecretSource {
    /// The passphrase itself, and where it stood.
    Password(Zeroizing<Vec<u8>>, &'static str),
    /// A file that holds a passphrase.
    PasswordFile(PathBuf),
    /// A shell command that prints a passphrase.
    PasswordCommand(OsString),
    /// A file that holds a raw key.
    KeyFile(PathBuf),
    /// A file that holds a recovery key.
    RecoveryKeyFile(PathBuf),
}

/// The flags that name a secret; at most one of them is given.
#[derive(Debug, Clone, Default)]
pub struct SecretFlags {
    /// `--password-file`.
    pub password_file: Option<PathBuf>,
    /// `--password-command`.
    pub password_command: Option<OsString>,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--recovery-key-file`.
    pub recovery_key_file: Option<PathBuf>,
}

impl SecretFlags {
    /// Gives the source that the flags name.
    #[must_use]
    pub fn source(&self) -> Option<SecretSource> {
        let password_file = self.password_file.clone().map(SecretSource::PasswordFile);
        password_file
            .or_else(|| {
                self.password_command
                    .clone()
                    .map(SecretSource::PasswordCommand)
            })
            .or_else(|| self.key_file.clone().map(SecretSource::KeyFile))
            .or_else(|| {
                self.recovery_key_file
                    .clone()
                    .map(SecretSource::RecoveryKeyFile)
            })
    }
}

/// Chooses where the secret comes from; none means that a person has to be asked.
///
/// # Errors
/// When the environment, or larder.toml, names more than one place.
pub fn choose(
    flags: &SecretFlags,
    env: Env,
    settings: &Settings,
) -> anyhow::Result<Option<SecretSource>> {
    if let Some(source) = flags.source() {
        return Ok(Some(source));
    }
    if let Some(password) = env("LARDER_PASSWORD") {
        let password = Zeroizing::new(password.into_vec());
        return Ok(Some(SecretSource::Password(password, "LARDER_PASSWORD")));
    }
    let path = |name| env(name).map(PathBuf::from);
    let environment = SecretFlags {
        password_file: path("LARDER_PASSWORD_FILE"),
        password_command: env("LARDER_PASSWORD_COMMAND"),
        key_file: path("LARDER_KEY_FILE"),
        recovery_key_file: path("LARDER_RECOVERY_KEY_FILE"),
    };
    if let Some(source) = environment.source() {
        return Ok(Some(source));
    }
    let named = [
        settings.password.is_some(),
        settings.password_file.is_some(),
        settings.password_command.is_some(),
        settings.key_file.is_some(),
    ];
    if named.into_iter().filter(|named| *named).count() > 1 {
        bail!(
            "larder.toml names more than one of password, password-file, password-command and \
             key-file; leave one of them"
        );
    }
    if let Some(password) = &settings.password {
        let password = match password {
            SecretText::Clear(text) => text.clone(),
            SecretText::Sealed(sealed) => {
                let file = settings.file.as_deref().unwrap_or(Path::new(""));
                sealing::Key::open(file, env)?.unseal(sealing::Place::Password, sealed)?
            }
        };
        let password = Zeroizing::new(password.as_bytes().to_vec());
        return Ok(Some(SecretSource::Password(password, "larder.toml")));
    }
    let file = SecretFlags {
        password_file: settings.password_file.clone(),
        password_command: settings.password_command.clone().map(OsString::from),
        key_file: settings.key_file.clone(),
        recovery_key_file: None,
    };
    Ok(file.source())
}

/// Chooses where the secret of a second repository comes from; none means that a person has to be
/// asked.
pub fn choose_second(flags: &SecretFlags, env: Env) -> Option<SecretSource> {
    choose_other(
        flags,
        env,
        [
            "LARDER_TO_PASSWORD",
            "LARDER_TO_PASSWORD_FILE",
            "LARDER_TO_PASSWORD_COMMAND",
            "LARDER_TO_KEY_FILE",
        ],
    )
}

/// Chooses where the secret of a bundle comes from; none means that a person has to be asked.
pub fn choose_of_bundle(flags: &SecretFlags, env: Env) -> Option<SecretSource> {
    choose_other(
        flags,
        env,
        [
            "LARDER_BUNDLE_PASSWORD",
            "LARDER_BUNDLE_PASSWORD_FILE",
            "LARDER_BUNDLE_PASSWORD_COMMAND",
            "LARDER_BUNDLE_KEY_FILE",
        ],
    )
}

/// Chooses by flags, then by the variables of a password, of its file and command, and of a key file.
fn choose_other(flags: &SecretFlags, env: Env, names: [&'static str; 4]) -> Option<SecretSource> {
    if let Some(source) = flags.source() {
        return Some(source);
    }
    let [password, password_file, password_command, key_file] = names;
    if let Some(found) = env(password) {
        let found = Zeroizing::new(found.into_vec());
        return Some(SecretSource::Password(found, password));
    }
    let path = |name| env(name).map(PathBuf::from);
    let environment = SecretFlags {
        password_file: path(password_file),
        password_command: env(password_command),
        key_file: path(key_file),
        recovery_key_file: None,
    };
    environment.source()
}

impl SecretSource {
    /// Takes the secret from its place.
    ///
    /// # Errors
    /// When it cannot be read, or what is there is no secret.
    pub fn read(&self) -> anyhow::Result<Secret> {
        match self {
            Self::Password(password, place) => passphrase(password.clone(), place),
            Self::PasswordFile(path) => passphrase(
                read_file(path)?,
                &format!("password file {}", path.display()),
            ),
            Self::PasswordCommand(command) => {
                let place = format!("output of the password command '{}'", command.display());
                passphrase(run(command)?, &place)
            }
            Self::KeyFile(path) => {
                let secret = Secret::from_key_file(&text(read_file(path)?, path)?);
                secret.with_context(|| format!("cannot use the key file {}", path.display()))
            }
            Self::RecoveryKeyFile(path) => {
                let secret = Secret::from_recovery_key(&text(read_file(path)?, path)?);
                secret.with_context(|| format!("cannot use the recovery key in {}", path.display()))
            }
        }
    }
}

/// Opens a repository, asking for its password if nothing says where to take it from.
///
/// # Errors
/// What the engine answers, or what keeps the secret from being had.
pub fn open(
    storage: &Arc<dyn Storage>,
    source: Option<SecretSource>,
    options: &OpenOptions,
) -> anyhow::Result<Arc<Repository>> {
    // Before anybody is asked for a password, or a command is run that asks for one.
    Repository::probe(storage.as_ref())?;
    open_by(source, &storage.describe(), &|secret| {
        Repository::open_on(Arc::clone(storage), secret, options)
    })
}

/// Proves the secret of a bundle, asking for its password if nothing says where to take it from.
///
/// # Errors
/// What the engine answers, or what keeps the secret from being had.
pub fn unlock(incoming: &Incoming, source: Option<SecretSource>) -> anyhow::Result<BundleKeys> {
    open_by(source, incoming.location(), &|secret| {
        incoming.unlock(secret)
    })
}

/// Opens something by a secret.
type OpenBy<'a, T> = &'a dyn Fn(&Secret) -> Result<T, EngineError>;

/// Opens by the secret that is in a place, or by one that is typed, which may be wrong some times.
fn open_by<T>(source: Option<SecretSource>, what: &str, open: OpenBy<'_, T>) -> anyhow::Result<T> {
    if let Some(source) = source {
        return Ok(open(&source.read()?)?);
    }
    let mut attempt = 1;
    loop {
        let typed = ask(&format!("password for {what}: "))?;
        match open_with_typed(&typed, open) {
            Err(EngineError::WrongSecret { .. }) if attempt < ATTEMPTS => {
                eprintln!("larder: wrong password; try again");
                attempt += 1;
            }
            opened => return Ok(opened?),
        }
    }
}

/// Takes a secret for a new key slot; a password is asked for twice.
///
/// # Errors
/// When it cannot be had, is empty, or was typed differently.
pub fn fresh(source: Option<SecretSource>, prompt: &str) -> anyhow::Result<Secret> {
    if let Some(source) = source {
        return source.read();
    }
    let first = ask(&format!("{prompt}: "))?;
    if first.is_empty() {
        bail!("an empty password protects nothing; type one");
    }
    let second = ask("the same again: ")?;
    if first != second {
        bail!("the two passwords differ; nothing was changed");
    }
    Ok(Secret::Passphrase(Zeroizing::new(
        first.as_bytes().to_vec(),
    )))
}

/// Opens with what was typed: a recovery key if it is one, else a passphrase.
fn open_with_typed<T>(typed: &str, open: OpenBy<'_, T>) -> Result<T, EngineError> {
    if let Ok(secret) = Secret::from_recovery_key(typed) {
        match open(&secret) {
            Err(EngineError::WrongSecret { .. }) => {}
            opened => return opened,
        }
    }
    let typed = Zeroizing::new(typed.as_bytes().to_vec());
    open(&Secret::Passphrase(typed))
}

fn ask(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() && !std::io::stderr().is_terminal() {
        bail!(
            "no password was given and there is no terminal to ask at; use --password-file \
             (--new-password-file for the one to be added, --bundle-password-file for that of a \
             bundle), \
             --password-command, --key-file, LARDER_PASSWORD, or larder.toml"
        );
    }
    match rpassword::prompt_password(prompt) {
        Ok(typed) => Ok(Zeroizing::new(typed)),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
            Err(EngineError::Interrupted.into())
        }
        Err(error) => Err(error).context("cannot ask for the password at the terminal"),
    }
}

fn passphrase(mut bytes: Zeroizing<Vec<u8>>, place: &str) -> anyhow::Result<Secret> {
    // Editors and `echo` end a line; the password is what stands on it.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        bail!("the {place} is empty; a password is needed there");
    }
    Ok(Secret::Passphrase(bytes))
}

fn read_file(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let tried = || format!("cannot read the secret in {}", path.display());
    let file = std::fs::File::open(path).with_context(tried)?;
    read_bounded(file).with_context(tried)
}

/// Whether standard input is something to back up, of which a password command may read nothing.
static INPUT_IS_DATA: AtomicBool = AtomicBool::new(false);

/// Runs a shell command that prints the password of something else, and gives its first line.
///
/// # Errors
/// When it fails, or prints no text.
pub fn of_command(command: &str) -> anyhow::Result<Zeroizing<String>> {
    let bytes = run(OsStr::new(command))?;
    let line = bytes.split(|byte| *byte == b'\n').next();
    let text = std::str::from_utf8(line.unwrap_or_default());
    let text = text.ok().filter(|text| !text.is_empty());
    let text = text.with_context(|| format!("the password command '{command}' printed no text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// From now on password commands find an empty standard input.
pub fn keep_standard_input() {
    INPUT_IS_DATA.store(true, Ordering::Relaxed);
}

fn run(command: &OsStr) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let tried = || format!("cannot run the password command '{}'", command.display());
    let stdin = match INPUT_IS_DATA.load(Ordering::Relaxed) {
        true => Stdio::null(),
        false => Stdio::inherit(),
    };
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(tried)?;
    let output = child.stdout.take().map(read_bounded).transpose();
    let status = child.wait().with_context(tried)?;
    if !status.success() {
        bail!(
            "the password command '{}' failed ({status})",
            command.display()
        );
    }
    Ok(output.with_context(tried)?.unwrap_or_default())
}

/// Reads into a buffer that never grows, so that no copy of the secret is left behind in memory.
fn read_bounded(mut from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; SECRET_BYTES_MAX + 1]);
    let mut length = 0;
    loop {
        let rest = bytes.get_mut(length..).unwrap_or_default();
        if rest.is_empty() {
            let text = format!("it is longer than {SECRET_BYTES_MAX} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
        }
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn text(bytes: Zeroizing<Vec<u8>>, path: &Path) -> anyhow::Result<Zeroizing<String>> {
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => bail!("{} is not text, as a key file is", path.display()),
    }
}

/// Gives the bytes of a passphrase, for tests.
#[cfg(test)]
fn bytes_of(secret: &Secret) -> &[u8] {
    match secret {
        Secret::Passphrase(bytes) => bytes,
        Secret::RawKey(bytes) => &bytes[..],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, Path::new("larder.toml")).unwrap()
    }

    fn chosen(flags: &SecretFlags, env: &[(&str, &str)], file: &str) -> String {
        let env: Env = &|name| {
            let found = env.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        };
        match choose(flags, env, &settings(file)).unwrap() {
            None => "prompt".into(),
            Some(SecretSource::Password(bytes, place)) => {
                format!("{place}:{}", std::str::from_utf8(&bytes).unwrap())
            }
            Some(SecretSource::PasswordFile(path)) => format!("file:{}", path.display()),
            Some(SecretSource::PasswordCommand(command)) => {
                format!("command:{}", command.display())
            }
            Some(SecretSource::KeyFile(path)) => format!("key:{}", path.display()),
            Some(SecretSource::RecoveryKeyFile(path)) => format!("recovery:{}", path.display()),
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let none = SecretFlags::default();
        let flag = SecretFlags {
            key_file: Some("k".into()),
            ..none.clone()
        };
        let env = [("LARDER_PASSWORD", "e"), ("LARDER_PASSWORD_FILE", "f")];
        let file = "password-command = 'c'";
        assert_eq!(chosen(&flag, &env, file), "key:k");
        assert_eq!(chosen(&none, &env, file), "LARDER_PASSWORD:e");
        assert_eq!(chosen(&none, env.get(1..).unwrap(), file), "file:f");
        assert_eq!(chosen(&none, &[("LARDER_KEY_FILE", "k")], file), "key:k");
        assert_eq!(
            chosen(&none, &[("LARDER_RECOVERY_KEY_FILE", "r")], file),
            "recovery:r"
        );
        assert_eq!(chosen(&none, &[], file), "command:c");
        assert_eq!(chosen(&none, &[], "password = 'p'"), "larder.toml:p");
        assert_eq!(chosen(&none, &[], ""), "prompt");
    }

    #[test]
    fn a_file_with_two_secrets_is_refused() {
        let two = settings("password = 'p'\nkey-file = 'k'");
        assert!(choose(&SecretFlags::default(), &|_| None, &two).is_err());
    }

    #[test]
    fn one_line_end_is_not_part_of_the_password() {
        let read = |text: &str| {
            let secret = passphrase(Zeroizing::new(text.as_bytes().to_vec()), "file");
            secret.map(|secret| bytes_of(&secret).to_vec())
        };
        assert_eq!(read("abc\n").unwrap(), b"abc");
        assert_eq!(read("abc\r\n").unwrap(), b"abc");
        assert_eq!(read("abc\n\n").unwrap(), b"abc\n");
        assert_eq!(read(" a c ").unwrap(), b" a c ");
        assert!(read("").is_err() && read("\n").is_err());
    }

    #[test]
    fn a_command_gives_the_password_and_its_failure_is_told() {
        let read = |command: &str| SecretSource::PasswordCommand(command.into()).read();
        let secret = read("printf 'a b\\n'").unwrap();
        assert_eq!(bytes_of(&secret), b"a b");
        let failed = read("echo x; exit 3").err().unwrap().to_string();
        assert!(
            failed.contains("exit 3") && failed.contains("exit status: 3"),
            "{failed}"
        );
        assert!(read("true").err().unwrap().to_string().contains("is empty"));
    }

    #[test]
    fn a_secret_has_a_largest_size() {
        assert_eq!(
            read_bounded(&[7; SECRET_BYTES_MAX][..]).unwrap().len(),
            SECRET_BYTES_MAX
        );
        assert!(read_bounded(std::io::repeat(7)).is_err());
    }
}
