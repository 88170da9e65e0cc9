//! The settings of one location: gathered from flags, environment and file, and checked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::keys::{self, How, Key, Kind, VARIABLES, find, how};
use super::nearest::nearest;
use super::place::Scheme;
use super::units::{self, Rate};
use crate::secret::{MASK, SecretSource};

/// Where settings may stand, the first one winning; `env` holds the whole environment.
#[derive(Clone, Debug, Default)]
pub struct Layers<'a> {
    /// `-o KEY=VALUE`.
    pub flags: &'a [(String, String)],
    /// The environment: variables of larder's own, and those of the storages' tools.
    pub env: Option<&'a BTreeMap<String, Zeroizing<String>>>,
    /// The location's table in larder.toml.
    pub file: Option<&'a BTreeMap<String, Zeroizing<String>>>,
}

/// Where a setting came from, what wins first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A flag.
    Flag,
    /// A variable that begins with `LARDER_STORAGE_`.
    Environment,
    /// larder.toml.
    File,
    /// A variable of the storage's own tools.
    Native,
}

/// Checked settings of one scheme.
#[derive(Clone, Default)]
pub struct Settings(BTreeMap<&'static str, (Origin, Value)>);

#[derive(Clone)]
enum Value {
    Text(String),
    Secret(SecretSource),
    Flag(bool),
    Count(u64),
    Duration(Duration),
    Rate(Rate),
}

impl Settings {
    /// Gathers what the layers say about the settings of a scheme.
    ///
    /// # Errors
    /// In words: an unknown key, with the nearest known one; a value of the wrong kind; a secret in
    /// a flag; the same secret given in two ways.
    pub fn gather(scheme: Scheme, layers: &Layers<'_>) -> Result<Self, String> {
        let mut settings = Self::default();
        settings.take_flags(scheme, layers.flags)?;
        if let Some(env) = layers.env {
            settings.take_environment(scheme, env)?;
        }
        if let Some(file) = layers.file {
            for (name, value) in file {
                let at = format!("the setting {name}");
                settings.take(scheme, name, value, Origin::File, &at)?;
            }
        }
        if let Some(env) = layers.env {
            settings.take_native(scheme, env)?;
        }
        Ok(settings)
    }

    fn take_flags(&mut self, scheme: Scheme, flags: &[(String, String)]) -> Result<(), String> {
        for (name, value) in flags {
            if find(scheme, name)
                .is_some_and(|(key, how)| key.kind == Kind::Secret && how == How::Itself)
            {
                return Err(format!(
                    "{name} is a secret, and everybody on this machine can see flags; \
                     use {name}-file, {name}-command or the variable {VARIABLES}{}",
                    name.to_ascii_uppercase().replace('-', "_")
                ));
            }
            self.take(
                scheme,
                name,
                value,
                Origin::Flag,
                &format!("the option {name}"),
            )?;
        }
        Ok(())
    }

    fn take_environment(
        &mut self,
        scheme: Scheme,
        env: &BTreeMap<String, Zeroizing<String>>,
    ) -> Result<(), String> {
        for (variable, value) in env {
            if let Some(name) = variable.strip_prefix(VARIABLES)
                && !value.is_empty()
            {
                let name = name.to_ascii_lowercase().replace('_', "-");
                // What another location needs may be set beside what this one does.
                if find(scheme, &name).is_some() || !is_known(&name) {
                    self.take(scheme, &name, value, Origin::Environment, variable)?;
                }
            }
        }
        Ok(())
    }

    fn take_native(
        &mut self,
        scheme: Scheme,
        env: &BTreeMap<String, Zeroizing<String>>,
    ) -> Result<(), String> {
        for key in keys::of(scheme) {
            let set = key.native.iter().find_map(|variable| {
                let value = env.get(*variable).filter(|value| !value.is_empty())?;
                Some((variable, value))
            });
            if let Some((variable, value)) = set {
                self.take(scheme, key.name, value, Origin::Native, variable)?;
            }
        }
        Ok(())
    }

    /// Takes one setting, unless a layer above has said it; `at` names it for a person.
    fn take(
        &mut self,
        scheme: Scheme,
        name: &str,
        text: &str,
        origin: Origin,
        at: &str,
    ) -> Result<(), String> {
        let Some((key, how)) = find(scheme, name) else {
            return Err(unknown(scheme, name, at));
        };
        match self.0.get(key.name) {
            Some((above, _)) if *above != origin => return Ok(()),
            Some(_) if key.kind == Kind::Secret => {
                return Err(format!(
                    "{at}: {} is given in two ways; leave one of them",
                    key.name
                ));
            }
            _ => {}
        }
        let value = parse(key, how, text).map_err(|why| format!("{at}: {why}"))?;
        self.0.insert(key.name, (origin, value));
        Ok(())
    }

    /// Gives a text, a path or a choice.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some((_, Value::Text(text))) => Some(text),
            _ => None,
        }
    }

    /// Fetches a secret from where it is.
    ///
    /// # Errors
    /// In words: when its file cannot be read or its command fails.
    pub fn secret(&self, name: &str) -> Result<Option<Zeroizing<String>>, String> {
        match self.0.get(name) {
            Some((_, Value::Secret(source))) => source.fetch(name).map(Some),
            _ => Ok(None),
        }
    }

    /// Gives a flag; `None` if nothing was said.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.0.get(name) {
            Some((_, Value::Flag(flag))) => Some(*flag),
            _ => None,
        }
    }

    /// Gives a count or a size in bytes.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<u64> {
        match self.0.get(name) {
            Some((_, Value::Count(count))) => Some(*count),
            _ => None,
        }
    }

    /// Gives a length of time.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Duration> {
        match self.0.get(name) {
            Some((_, Value::Duration(duration))) => Some(*duration),
            _ => None,
        }
    }

    /// Gives a rate.
    #[must_use]
    pub fn rate(&self, name: &str) -> Rate {
        match self.0.get(name) {
            Some((_, Value::Rate(rate))) => rate.clone(),
            _ => Rate::default(),
        }
    }

    /// Tells where a setting came from; credentials that belong together come from one place.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<Origin> {
        self.0.get(name).map(|(origin, _)| *origin)
    }

    /// Gives the one of these settings that wins over the others: the one that stands closest to this
    /// program, and the first of those that stand together.
    #[must_use]
    pub fn first_of<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        let set = names
            .iter()
            .copied()
            .filter(|name| self.0.contains_key(name));
        set.min_by_key(|name| self.origin(name))
    }

    /// Gives name and value of everything that is set, secrets masked, for a person.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.0
            .iter()
            .map(|(name, (_, value))| (*name, value.to_string()))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&masked_url(text)),
            Self::Secret(source) => fmt::Display::fmt(source, f),
            Self::Flag(flag) => fmt::Display::fmt(flag, f),
            Self::Count(count) => fmt::Display::fmt(count, f),
            Self::Duration(duration) => write!(f, "{duration:?}"),
            Self::Rate(rate) if rate.windows.is_empty() => match rate.otherwise {
                Some(bytes) => write!(f, "{bytes} bytes/s"),
                None => f.write_str("off"),
            },
            Self::Rate(_) => f.write_str("by the hour"),
        }
    }
}

fn is_known(name: &str) -> bool {
    keys::KEYS.iter().any(|key| how(key, name).is_some())
}

fn unknown(scheme: Scheme, name: &str, at: &str) -> String {
    let what = match scheme {
        Scheme::Folder => "a folder has no settings".to_owned(),
        Scheme::Bundle => "a bundle has no settings".to_owned(),
        _ => format!("{}:// has no setting {name:?}", scheme.name()),
    };
    let known: Vec<_> = keys::of(scheme).map(|key| key.name).collect();
    if let Some(found) = nearest(name, known.iter().copied()) {
        return format!("{at}: {what}; did you mean {found}?");
    }
    match known.is_empty() {
        true => format!("{at}: {what}"),
        false => format!("{at}: {what}; there are {}", known.join(", ")),
    }
}

fn parse(key: &Key, how: How, text: &str) -> Result<Value, String> {
    Ok(match (how, key.kind) {
        (How::File, _) => Value::Secret(SecretSource::File(text.into())),
        (How::Command, _) => Value::Secret(SecretSource::Command(text.to_owned())),
        (How::Itself, Kind::Secret) => {
            Value::Secret(SecretSource::Text(Zeroizing::new(text.to_owned())))
        }
        (How::Itself, Kind::Text | Kind::Path) => Value::Text(text.to_owned()),
        (How::Itself, Kind::Flag) => Value::Flag(match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => return Err(format!("{text:?} is neither true nor false")),
        }),
        (How::Itself, Kind::Count) => match text.parse() {
            Ok(count) if count > 0 => Value::Count(count),
            _ => return Err(format!("{text:?} is no number from 1 on")),
        },
        (How::Itself, Kind::Bytes) => Value::Count(units::bytes(text)?),
        (How::Itself, Kind::Duration) => Value::Duration(units::duration(text)?),
        (How::Itself, Kind::Rate) => Value::Rate(units::rate(text)?),
        (How::Itself, Kind::Choice(choices)) => {
            let chosen = choices
                .iter()
                .find(|choice| choice.eq_ignore_ascii_case(text));
            let chosen =
                chosen.ok_or_else(|| format!("{text:?} is none of {}", choices.join(", ")))?;
            Value::Text((*chosen).to_owned())
        }
    })
}

/// Shows what a location says about a setting, without secrets.
#[must_use]
pub fn shown(scheme: Scheme, name: &str, text: &str) -> String {
    match find(scheme, name) {
        Some((key, How::Itself)) if key.kind == Kind::Secret => MASK.to_owned(),
        // What is not known may be a secret whose name was mistyped.
        None => MASK.to_owned(),
        Some(_) => masked_url(text),
    }
}

/// Masks the user and password in a URL, such as a proxy's.
fn masked_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{MASK}@{host}{path}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, Zeroizing<String>> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Zeroizing::new((*value).to_owned())))
            .collect()
    }

    fn gather(
        scheme: Scheme,
        flags: &[(&str, &str)],
        env: &[(&str, &str)],
        file: &[(&str, &str)],
    ) -> Result<Settings, String> {
        let flags: Vec<_> = flags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let (env, file) = (map(env), map(file));
        let layers = Layers {
            flags: &flags,
            env: Some(&env),
            file: Some(&file),
        };
        Settings::gather(scheme, &layers)
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_the_tools_own() {
        let flags = [("region", "flag")];
        let env = [
            ("LARDER_STORAGE_REGION", "env"),
            ("AWS_REGION", "native"),
            ("AWS_DEFAULT_REGION", "later"),
        ];
        let file = [("region", "file")];
        let region = |flags: &[_], env: &[_], file: &[_]| {
            let settings = gather(Scheme::S3, flags, env, file).unwrap();
            (
                settings.text("region").unwrap().to_owned(),
                settings.origin("region").unwrap(),
            )
        };
        assert_eq!(
            region(&flags, &env, &file),
            ("flag".to_owned(), Origin::Flag)
        );
        assert_eq!(
            region(&[], &env, &file),
            ("env".to_owned(), Origin::Environment)
        );
        assert_eq!(
            region(&[], &env[1..], &file),
            ("file".to_owned(), Origin::File)
        );
        assert_eq!(
            region(&[], &env[1..], &[]),
            ("native".to_owned(), Origin::Native)
        );
        assert_eq!(
            region(&[], &env[2..], &[]),
            ("later".to_owned(), Origin::Native)
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        let error = gather(Scheme::S3, &[], &[], &[("reigon", "x")]).unwrap_err();
        assert_eq!(
            error,
            "the setting reigon: s3:// has no setting \"reigon\"; did you mean region?"
        );
        let error = gather(Scheme::Sftp, &[("region", "x")], &[], &[]).unwrap_err();
        assert!(
            error.starts_with("the option region: sftp:// has no setting"),
            "{error}"
        );
        let error = gather(Scheme::S3, &[], &[("LARDER_STORAGE_REGOIN", "x")], &[]).unwrap_err();
        assert!(
            error.contains("LARDER_STORAGE_REGOIN") && error.contains("region?"),
            "{error}"
        );
        // What belongs to another scheme may stand in the environment, but not in a location.
        assert!(gather(Scheme::S3, &[], &[("LARDER_STORAGE_PASSWORD", "x")], &[]).is_ok());
        assert!(
            gather(Scheme::Folder, &[("region", "x")], &[], &[])
                .unwrap_err()
                .contains("no settings")
        );
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_with_their_place() {
        for (name, value) in [
            ("connections", "0"),
            ("connections", "many"),
            ("retry-for", "5"),
            ("upload-limit", "fast"),
            ("part-size", "big"),
            ("request-payer", "perhaps"),
            ("encryption", "rot13"),
        ] {
            let error = gather(Scheme::S3, &[], &[], &[(name, value)]).unwrap_err();
            assert!(
                error.starts_with(&format!("the setting {name}: ")) && error.contains(value),
                "{error}"
            );
        }
    }

    #[test]
    fn secrets_are_fetched_masked_and_never_taken_from_flags() {
        let settings = gather(
            Scheme::Ftp,
            &[],
            &[("LARDER_STORAGE_PASSWORD", "hunter2")],
            &[],
        )
        .unwrap();
        assert_eq!(
            settings.secret("password").unwrap().unwrap().as_str(),
            "hunter2"
        );
        assert!(!format!("{settings:?}").contains("hunter2"));
        let settings = gather(
            Scheme::Ftp,
            &[("password-command", "echo hunter2")],
            &[],
            &[],
        )
        .unwrap();
        assert_eq!(
            settings.secret("password").unwrap().unwrap().as_str(),
            "hunter2"
        );
        let error = gather(Scheme::Ftp, &[("password", "hunter2")], &[], &[]).unwrap_err();
        assert!(
            error.contains("LARDER_STORAGE_PASSWORD") && !error.contains("hunter2"),
            "{error}"
        );
        let twice = [("password", "a"), ("password-file", "b")];
        assert!(
            gather(Scheme::Ftp, &[], &[], &twice)
                .unwrap_err()
                .contains("two ways")
        );
    }

    #[test]
    fn what_is_shown_has_no_secrets_in_it() {
        let shown = |name, text| shown(Scheme::WebDav, name, text);
        assert_eq!(shown("password", "hunter2"), "********");
        assert_eq!(shown("pasword", "hunter2"), "********");
        assert_eq!(shown("password-file", "/etc/p"), "/etc/p");
        assert_eq!(
            shown("proxy", "http://me:hunter2@proxy:3128/"),
            "http://********@proxy:3128/"
        );
        assert_eq!(shown("proxy", "http://proxy/a@b"), "http://proxy/a@b");
        let settings = gather(
            Scheme::WebDav,
            &[],
            &[],
            &[("proxy", "http://me:hunter2@h")],
        )
        .unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn every_key_has_a_name_of_its_own_in_its_scheme() {
        for (_, scheme) in super::super::place::all() {
            let names: Vec<_> = keys::of(*scheme).map(|key| key.name).collect();
            let distinct: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(names.len(), distinct.len(), "{scheme:?}");
        }
    }
}
