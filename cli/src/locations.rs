//! The locations of larder.toml: names for places, with the settings by which they are reached.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use larder_engine::storage::location::keys::{self, How, Kind};
use larder_engine::storage::location::{Layers, Scheme, Settings, nearest, place};
use serde::de::{Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize, Serializer};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};
use zeroize::Zeroizing;

use crate::sealing;
use crate::settings::Env;

/// The longest name of a location in bytes.
const NAME_BYTES: usize = 64;

/// The locations of larder.toml, by name.
#[derive(Debug, Clone, Default)]
pub struct Locations(pub BTreeMap<String, Table>);

/// One location.
#[derive(Clone, Default)]
pub struct Table {
    /// Where it is.
    pub url: String,
    /// What is said about how it is reached, as text.
    pub settings: BTreeMap<String, Zeroizing<String>>,
    /// Secrets that stand there sealed, by the names of their settings.
    pub sealed: BTreeMap<String, String>,
    /// What is wrong with it, with its place in the file: then it cannot be used, and all others can.
    pub mistake: Option<String>,
}

impl Table {
    /// Reads what can be understood of a location.
    fn read(table: &DeTable) -> Self {
        let text = |(key, value): (&Spanned<DeString>, &Spanned<DeValue>)| {
            Some((key.get_ref().to_string(), text_of(value.get_ref())?))
        };
        let mut settings: BTreeMap<_, _> = table.iter().filter_map(text).collect();
        let url = settings.remove("url").unwrap_or_default();
        let sealed = table.iter().filter_map(|(key, value)| {
            let sealed = sealed_of(value.get_ref())?;
            Some((key.get_ref().to_string(), sealed.to_owned()))
        });
        Self {
            url: url.to_string(),
            settings,
            sealed: sealed.collect(),
            mistake: None,
        }
    }

    /// Gives the kind of place; a folder's for a URL that names none.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        place::parse(&self.url).map_or(Scheme::Folder, |place| place.scheme)
    }

    /// Tells whether a secret itself stands in it, for everybody to read.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.clear_secrets().next().is_some()
    }

    /// Gives the secrets that stand in it for everybody to read.
    pub fn clear_secrets(&self) -> impl Iterator<Item = (&String, &Zeroizing<String>)> {
        let scheme = self.scheme();
        let settings = self.settings.iter();
        settings.filter(move |(name, _)| is_secret(scheme, name))
    }

    /// Gives what is said about how it is reached, with what is sealed opened.
    ///
    /// # Errors
    /// When the key is not there, or does not open it.
    pub fn opened(
        &self,
        name: &str,
        file: Option<&Path>,
        env: Env,
    ) -> anyhow::Result<BTreeMap<String, Zeroizing<String>>> {
        let mut settings = self.settings.clone();
        if self.sealed.is_empty() {
            return Ok(settings);
        }
        let key = sealing::Key::open(file.unwrap_or(Path::new("")), env)?;
        for (setting, sealed) in &self.sealed {
            let text = key.unseal(sealing::Place::Location(name, setting), sealed)?;
            settings.insert(setting.clone(), text);
        }
        Ok(settings)
    }

    /// Makes relative paths relative to the file's folder, and `~/` the home folder.
    fn place_paths(&mut self, placed: &dyn Fn(&Path) -> String) {
        let scheme = self.scheme();
        if scheme == Scheme::Folder && !self.url.contains("://") {
            self.url = placed(Path::new(&self.url));
        }
        if let Some(file) = place::parse(&self.url)
            .ok()
            .and_then(|place| place.bundle())
        {
            self.url = format!("bundle:{}", placed(&file));
        }
        for (name, value) in &mut self.settings {
            if is_path(scheme, name, value) {
                *value = Zeroizing::new(placed(Path::new(value.as_str())));
            }
        }
    }
}

impl Locations {
    /// Reads the locations of a document; `at` words a mistake at a place in its text.
    ///
    /// # Errors
    /// When there is no table of locations. What is wrong with one of them is kept with it.
    pub fn read(document: &DeTable, at: &dyn Fn(usize, &str) -> String) -> Result<Self, String> {
        let Some(locations) = document.get("locations") else {
            return Ok(Self::default());
        };
        let DeValue::Table(tables) = locations.get_ref() else {
            let start = locations.span().start;
            return Err(at(start, "locations is no table of [locations.NAME]"));
        };
        let read = |(name, value): (&Spanned<DeString>, &Spanned<DeValue>)| {
            let mut table = match value.get_ref() {
                DeValue::Table(table) => Table::read(table),
                _ => Table::default(),
            };
            let mistake = mistake_in(name, value);
            table.mistake = mistake.map(|(start, why)| at(start, &why));
            (name.get_ref().to_string(), table)
        };
        Ok(Self(tables.iter().map(read).collect()))
    }

    /// Makes relative paths relative to the file's folder, and `~/` the home folder.
    pub fn place_paths(&mut self, placed: &dyn Fn(&Path) -> String) {
        self.0
            .values_mut()
            .for_each(|table| table.place_paths(placed));
    }

    /// Gives the name that was probably meant, where `name` is none.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest::nearest(name, self.0.keys().map(String::as_str))
    }
}

/// Tells whether the value of a setting is itself a secret.
fn is_secret(scheme: Scheme, name: &str) -> bool {
    keys::find(scheme, name)
        .is_some_and(|(key, how)| key.kind == Kind::Secret && how == How::Itself)
}

/// Tells whether the value of a setting is the path of a file.
#[must_use]
pub fn is_path(scheme: Scheme, name: &str, value: &str) -> bool {
    match keys::find(scheme, name) {
        Some((_, How::File)) => true,
        Some((_, How::Command)) | None => false,
        // PEM text may stand there itself.
        Some((key, How::Itself)) if key.name == "ca-certificate" => !value.contains("-----BEGIN"),
        Some((key, How::Itself)) => key.kind == Kind::Path,
    }
}

/// Says what is wrong with a name for a location, if anything is.
#[must_use]
pub fn refuse_name(name: &str) -> Option<String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_sound = name.len() <= NAME_BYTES
        && name.starts_with(|char: char| char.is_ascii_alphanumeric())
        && name.bytes().all(is_allowed);
    (!is_sound).then(|| {
        format!(
            "'{name}' cannot be the name of a location: it has to begin with a letter or digit and \
             have only letters, digits, '-', '_' and '.', {NAME_BYTES} at most"
        )
    })
}

/// Finds the first mistake in a location, with its place in the text.
fn mistake_in(name: &Spanned<DeString>, value: &Spanned<DeValue>) -> Option<(usize, String)> {
    let at = name.span().start;
    let name = name.get_ref();
    let refused = refuse_name(name).map(|why| (at, why));
    let found = match value.get_ref() {
        DeValue::Table(table) => mistake_within(name, at, table),
        _ => Some((at, format!("the location {name} is no table with a url"))),
    };
    refused.into_iter().chain(found).min()
}

fn mistake_within(name: &str, at: usize, table: &DeTable) -> Option<(usize, String)> {
    let Some(url) = table.get("url") else {
        return Some((at, format!("the location {name} has no url")));
    };
    let parsed = match url.get_ref().as_str() {
        Some(text) => place::parse(text),
        None => Err(format!("the url of the location {name} is no string")),
    };
    let place = match parsed {
        Ok(place) => place,
        Err(why) => return Some((url.span().start, why)),
    };
    let mut all = BTreeMap::new();
    let mut found = Vec::new();
    for (key, value) in table.iter().filter(|(key, _)| key.get_ref() != "url") {
        if let Some(sealed) = sealed_of(value.get_ref()) {
            match refuse_sealed(place.scheme, key.get_ref(), sealed) {
                Some(why) => found.push((value.span().start, why)),
                // Any text stands for what the key alone tells.
                None => {
                    let text = Zeroizing::new("sealed".to_owned());
                    all.insert(key.get_ref().to_string(), text);
                }
            }
            continue;
        }
        let Some(text) = text_of(value.get_ref()) else {
            let key = key.get_ref();
            let why = format!("{key} has to be a string, a whole number, true or false");
            found.push((value.span().start, why));
            continue;
        };
        let one = BTreeMap::from([(key.get_ref().to_string(), text.clone())]);
        match gather(place.scheme, &one) {
            Err(why) => found.push((key.span().start, why)),
            Ok(_) => all.extend(one),
        }
    }
    if found.is_empty() {
        found.extend(gather(place.scheme, &all).err().map(|why| (at, why)));
    }
    found.into_iter().min()
}

fn gather(scheme: Scheme, file: &BTreeMap<String, Zeroizing<String>>) -> Result<Settings, String> {
    let layers = Layers {
        file: Some(file),
        ..Layers::default()
    };
    Settings::gather(scheme, &layers)
}

/// Gives the sealed text of a value that is `{ sealed = "..." }`.
fn sealed_of<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    let DeValue::Table(table) = value else {
        return None;
    };
    let sealed = table.get("sealed").filter(|_| table.len() == 1)?;
    sealed.get_ref().as_str()
}

/// Says what is wrong with a setting that is sealed, if anything is.
fn refuse_sealed(scheme: Scheme, name: &str, sealed: &str) -> Option<String> {
    if !is_secret(scheme, name) {
        return Some(format!(
            "{name} is no secret of such a location, and only secrets are sealed"
        ));
    }
    sealing::refuse_form(sealed).map(|why| format!("{name}: {why}"))
}

/// Gives the text of a value that a setting may have.
fn text_of(value: &DeValue) -> Option<Zeroizing<String>> {
    Some(Zeroizing::new(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()?
            .to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        _ => return None,
    }))
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.settings.keys().collect();
        write!(f, "{} {names:?}", self.url)
    }
}

impl Serialize for Locations {
    /// As an empty map: which names there are is not known beforehand.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BTreeMap::<String, String>::new().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Locations {
    /// As none: [`Locations::read`] reads them.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self::default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> BTreeMap<String, Table> {
        let document = DeTable::parse(text).unwrap();
        let at = |at: usize, message: &str| format!("{at}: {message}");
        Locations::read(document.get_ref(), &at).unwrap().0
    }

    fn mistake(text: &str) -> String {
        read(text).into_values().next().unwrap().mistake.unwrap()
    }

    #[test]
    fn a_mistake_is_found_at_its_place() {
        assert_eq!(
            mistake("[locations.a]\nurl = 's3://bucket'\nreigon = 'x'"),
            "34: the setting reigon: s3:// has no setting \"reigon\"; did you mean region?"
        );
        for (text, expected) in [
            (
                "[locations.a]\nregion = 'x'",
                "11: the location a has no url",
            ),
            ("[locations.a]\nurl = 's3://B'", "20: "),
            ("locations.a = 3", "10: the location a is no table"),
            (
                "[locations.a]\nurl = 3",
                "20: the url of the location a is no string",
            ),
            (
                "[locations.'a/b']\nurl = '/x'",
                "11: 'a/b' cannot be the name",
            ),
            (
                "[locations.'s3:x']\nurl = '/x'",
                "11: 's3:x' cannot be the name",
            ),
            (
                "[locations.a]\nurl = '/x'\nregion = 'x'",
                "25: the setting region: a folder has no settings",
            ),
            (
                "[locations.a]\nurl = 's3://bucket'\nconnections = 0",
                "34: the setting connections: \"0\" is no number from 1 on",
            ),
            (
                "[locations.a]\nurl = 'ftp://h'\npassword = 'x'\npassword-file = 'y'",
                "11: the setting password-file: password is given in two ways",
            ),
        ] {
            let found = mistake(text);
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }

    #[test]
    fn a_mistake_in_one_leaves_the_others_as_they_are() {
        let tables = read("[locations]\na.region = 'x'\nb.url = '/b'\nc = 3");
        let mistaken: Vec<_> = tables
            .values()
            .map(|table| table.mistake.is_some())
            .collect();
        assert_eq!(mistaken, [true, false, true]);
        assert_eq!(tables.get("b").unwrap().url, "/b");
        let document = DeTable::parse("locations = 3").unwrap();
        assert!(Locations::read(document.get_ref(), &|_, why| why.to_owned()).is_err());
    }

    #[test]
    fn strings_whole_numbers_and_truths_are_values_of_settings() {
        let text = "[locations.a]\nurl = 's3://bucket'\nconnections = 0x10\nallow-http = true\n\
                    region = 'x'";
        let tables = read(text);
        let table = tables.get("a").unwrap();
        assert_eq!(table.mistake, None);
        let settings: Vec<_> = table
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            settings,
            [
                ("allow-http", "true"),
                ("connections", "16"),
                ("region", "x")
            ]
        );
        for value in ["1.5", "[]", "1979-05-27", "{ a = 1 }"] {
            let text = format!("[locations.a]\nurl = 's3://bucket'\nregion = {value}");
            assert_eq!(
                mistake(&text),
                "43: region has to be a string, a whole number, true or false"
            );
        }
    }

    #[test]
    fn paths_are_placed_and_nothing_else_is() {
        let mut tables = read(
            "[locations.a]\nurl = 'here'\n\
             [locations.b]\nurl = 'sftp://h/x'\nidentity-file = 'id'\npassword-file = '~/p'\n\
             password-command = 'pass x'\nuser = 'me'\n\
             [locations.c]\nurl = 'webdavs://h/x'\nca-certificate = 'ca.pem'\n\
             [locations.d]\nurl = 'webdavs://h/x'\nca-certificate = '-----BEGIN CERTIFICATE-----'",
        );
        for table in tables.values_mut() {
            table.place_paths(&|path| format!("<{}>", path.display()));
        }
        let shown: Vec<_> = tables
            .values()
            .flat_map(|table| {
                let url = std::iter::once(table.url.clone());
                url.chain(table.settings.values().map(|value| value.to_string()))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "<here>",
                "sftp://h/x",
                "<id>",
                "pass x",
                "<~/p>",
                "me",
                "webdavs://h/x",
                "<ca.pem>",
                "webdavs://h/x",
                "-----BEGIN CERTIFICATE-----"
            ]
        );
    }

    #[test]
    fn what_is_sealed_is_a_secret_of_the_right_form() {
        let long = "A".repeat(60);
        let text =
            |key: &str, value: &str| format!("[locations.a]\nurl = 'ftp://h'\n{key} = {value}");
        let tables = read(&text("password", &format!("{{ sealed = 'v1.{long}' }}")));
        let table = tables.get("a").unwrap();
        assert_eq!(table.mistake, None);
        assert!(!table.has_secret() && table.sealed.contains_key("password"));
        for (key, value, expected) in [
            ("user", "{ sealed = 'v1.AA' }", "user is no secret"),
            ("pasword", "{ sealed = 'v1.AA' }", "pasword is no secret"),
            (
                "password",
                "{ sealed = 'x' }",
                "password: what is sealed begins with v1.",
            ),
            (
                "password",
                "{ sealed = 'v1.AAAA' }",
                "password: what is sealed is cut off",
            ),
            ("password", "{ sealed = 1 }", "password has to be a string"),
            (
                "password",
                "{ seal = 'v1.AA' }",
                "password has to be a string",
            ),
        ] {
            let found = mistake(&text(key, value));
            assert!(found.contains(expected), "{value}: {found}");
        }
        let both = format!(
            "{}\npassword-file = 'x'",
            text("password", &format!("{{ sealed = 'v1.{long}' }}"))
        );
        assert!(mistake(&both).contains("given in two ways"));
    }

    #[test]
    fn a_secret_is_seen_and_never_shown() {
        let tables = read("[locations.a]\nurl = 'ftp://h'\npassword = 'hunter2'");
        let table = tables.get("a").unwrap();
        assert!(table.has_secret() && !format!("{table:?}").contains("hunter2"));
        let tables = read("[locations.a]\nurl = 'ftp://h'\npassword-file = 'x'");
        assert!(!tables.get("a").unwrap().has_secret());
    }
}
