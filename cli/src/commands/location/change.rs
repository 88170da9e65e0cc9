//! What changes larder.toml: add, edit, remove, rename.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use larder_engine::storage::location::keys::{self, Kind};
use larder_engine::storage::location::{Layers, Location, Scheme, place};
use toml_edit::{DocumentMut, Value};
use zeroize::Zeroizing;

use super::secret;
use crate::commands::change::{ADD, EDIT, REMOVE, RENAME, change};
use crate::context::Context;
use crate::document::{self, Changed};
use crate::settings::process_env;
use crate::{locations, sealing};

/// The secrets that a change gives.
pub struct Secrets<'a> {
    /// Which are asked for.
    pub named: &'a [String],
    /// Whether they are sealed, with those that stand there already.
    pub seal: bool,
}

/// Adds a location, and gives it as it is from now on.
///
/// # Errors
/// When it makes no sense, there is one of that name, or larder.toml cannot be written.
pub fn add(
    context: &Context,
    name: &str,
    url: &str,
    set: &[(String, String)],
    secrets: &Secrets<'_>,
    dry_run: bool,
) -> anyhow::Result<Location> {
    if let Some(why) = locations::refuse_name(name) {
        bail!("{why}");
    }
    let url = placed_url(url)?;
    let scheme = place::parse(&url).map_err(anyhow::Error::msg)?.scheme;
    let settings = checked(&url, set)?;
    if context.settings.locations.0.contains_key(name) {
        bail!(
            "there is a location {name} already; change it with `larder location edit`, or choose \
             another name"
        );
    }
    let is_sealed = secrets.seal;
    let secrets = secret::gather(context, name, &url, &settings, secrets.named)?;
    let values = values(context, name, &secrets, &|_| is_sealed, dry_run)?;
    change(
        context,
        Changed::Location(name),
        ADD,
        name,
        dry_run,
        |toml| {
            document::add(toml, name, &url)?;
            set_all(toml, name, scheme, &settings, values)
        },
    )?;
    let mut file: BTreeMap<String, Zeroizing<String>> = secrets;
    let settings = settings.into_iter();
    file.extend(settings.map(|(key, value)| (key, Zeroizing::new(value))));
    place_of(&url, &file)
}

/// Changes a location, and gives it as it is from now on.
///
/// # Errors
/// When there is none, it would make no sense, or larder.toml cannot be written.
pub fn edit(
    context: &Context,
    name: &str,
    url: Option<&str>,
    set: &[(String, String)],
    unset: &[String],
    secrets: &Secrets<'_>,
    dry_run: bool,
) -> anyhow::Result<Location> {
    let table = super::table(context, name)?;
    let says_nothing = unset.is_empty() && set.is_empty() && secrets.named.is_empty();
    if url.is_none() && says_nothing && !secrets.seal {
        bail!("nothing is to be changed; give --set, --unset, --secret, --seal or --url");
    }
    let url = url.map(placed_url).transpose()?;
    let now = url.as_deref().unwrap_or(&table.url);
    let place = place::parse(now).map_err(anyhow::Error::msg);
    let scheme = place
        .with_context(|| format!("the url of the location {name}; change it with --url"))?
        .scheme;
    let settings = checked(now, set)?;
    let seal = secrets.seal;
    // What is sealed and stays has to open before anything is changed: it is a part of what is given back.
    let mut staying = table.clone();
    let goes = |key: &String| unset.contains(key) || secrets.named.contains(key);
    staying.sealed.retain(|key, _| !goes(key));
    let mut file = staying.opened(name, context.settings.file.as_deref(), &process_env)?;
    file.retain(|key, _| !unset.contains(key));
    let mut secrets = secret::ask_for(name, scheme, secrets.named)?;
    if seal {
        for (key, value) in table.clear_secrets() {
            if !unset.contains(key) && !secrets.contains_key(key) {
                secrets.insert(key.clone(), value.clone());
            }
        }
    }
    let is_sealed = |key: &str| seal || table.sealed.contains_key(key);
    let values = values(context, name, &secrets, &is_sealed, dry_run)?;
    change(
        context,
        Changed::Location(name),
        EDIT,
        name,
        dry_run,
        |toml| {
            if let Some(url) = &url {
                document::set(toml, name, "url", url.as_str().into())?;
            }
            for key in unset.iter().filter(|key| *key != "url") {
                document::unset(toml, name, key)?;
            }
            set_all(toml, name, scheme, &settings, values)
        },
    )?;
    let settings = settings.into_iter();
    file.extend(settings.map(|(key, value)| (key, Zeroizing::new(value))));
    file.extend(secrets);
    place_of(now, &file)
}

/// Gives secrets as they are to stand in the file: sealed, or as they are.
///
/// # Errors
/// When the key cannot be had.
pub fn values(
    context: &Context,
    name: &str,
    secrets: &BTreeMap<String, Zeroizing<String>>,
    is_sealed: &dyn Fn(&str) -> bool,
    dry_run: bool,
) -> anyhow::Result<Vec<(String, Value)>> {
    let sealing_key = match secrets.keys().any(|key| is_sealed(key)) {
        true => Some(key_of(context, dry_run)?),
        false => None,
    };
    let value = |(key, secret): (&String, &Zeroizing<String>)| {
        let value = match &sealing_key {
            Some(sealing_key) if is_sealed(key) => {
                let place = sealing::Place::Location(name, key);
                document::sealed(&sealing_key.seal(place, secret)?)
            }
            _ => secret.as_str().into(),
        };
        Ok((key.clone(), value))
    };
    secrets.iter().map(value).collect()
}

/// Gives the key of what is sealed, which is made where there is none.
///
/// # Errors
/// When it cannot be had.
pub fn key_of(context: &Context, dry_run: bool) -> anyhow::Result<sealing::Key> {
    let file = context.settings.file.as_deref();
    let file = file.context("cannot tell where larder.toml is; use --config")?;
    sealing::Key::open_or_make(file, &process_env, dry_run)
}

/// Gives a location with what the file says of it.
fn place_of(url: &str, file: &BTreeMap<String, Zeroizing<String>>) -> anyhow::Result<Location> {
    let env = crate::context::text_env();
    let layers = Layers {
        flags: &[],
        env: Some(&env),
        file: Some(file),
    };
    Ok(Location::new(url, &layers)?)
}

/// Forgets a location.
///
/// # Errors
/// When there is none, `repository` names it, or larder.toml cannot be written.
pub fn remove(context: &Context, name: &str, dry_run: bool) -> anyhow::Result<()> {
    super::table(context, name)?;
    if context.settings.repository.as_deref() == Some(name) {
        bail!(
            "`repository` in larder.toml names {name}, and would mean a folder of that name \
             without it; change that line first"
        );
    }
    change(
        context,
        Changed::Location(name),
        REMOVE,
        name,
        dry_run,
        |toml| document::remove(toml, name),
    )
}

/// Gives a location another name.
///
/// # Errors
/// When there is none, there is one of the new name, or larder.toml cannot be written.
pub fn rename(context: &Context, old: &str, new: &str, dry_run: bool) -> anyhow::Result<()> {
    let table = super::table(context, old)?;
    if let Some(why) = locations::refuse_name(new) {
        bail!("{why}");
    }
    // What is sealed opens under its own name alone.
    let opened = table.opened(old, context.settings.file.as_deref(), &process_env)?;
    let sealed = opened
        .into_iter()
        .filter(|(key, _)| table.sealed.contains_key(key));
    let values = values(context, new, &sealed.collect(), &|_| true, dry_run)?;
    let what = format!("{old} to {new}");
    change(
        context,
        Changed::Location(new),
        RENAME,
        &what,
        dry_run,
        |toml| {
            document::rename(toml, old, new)?;
            values
                .into_iter()
                .try_for_each(|(key, value)| document::set(toml, new, &key, value))
        },
    )
}

/// Gives the settings of flags as they stand in the file, once they make sense.
fn checked(url: &str, set: &[(String, String)]) -> anyhow::Result<Vec<(String, String)>> {
    let layers = Layers {
        flags: set,
        ..Layers::default()
    };
    let location = Location::new(url, &layers)?;
    let scheme = location.place.scheme;
    set.iter()
        .map(|(key, value)| {
            let is_path = locations::is_path(scheme, key, value) && !value.starts_with("~/");
            let value = if is_path {
                absolute(value)?
            } else {
                value.clone()
            };
            Ok((key.clone(), value))
        })
        .collect()
}

fn set_all(
    toml: &mut DocumentMut,
    name: &str,
    scheme: Scheme,
    settings: &[(String, String)],
    secrets: Vec<(String, Value)>,
) -> anyhow::Result<()> {
    for (key, value) in settings {
        document::set(toml, name, key, typed(scheme, key, value))?;
    }
    for (key, value) in secrets {
        document::set(toml, name, &key, value)?;
    }
    Ok(())
}

/// Gives a value the type that a person would write it with.
fn typed(scheme: Scheme, key: &str, text: &str) -> Value {
    match keys::find(scheme, key).map(|(key, _)| key.kind) {
        Some(Kind::Flag) => match text {
            "true" => true.into(),
            "false" => false.into(),
            _ => text.into(),
        },
        Some(Kind::Count) => text.parse::<i64>().map_or(text.into(), Value::from),
        _ => text.into(),
    }
}

/// Takes a path as it is meant here: the file is elsewhere.
fn placed_url(url: &str) -> anyhow::Result<String> {
    let place = place::parse(url).map_err(anyhow::Error::msg)?;
    if place.scheme != Scheme::Folder || url.contains("://") || url.starts_with("~/") {
        return Ok(url.to_owned());
    }
    absolute(url)
}

fn absolute(path: &str) -> anyhow::Result<String> {
    let path = std::path::absolute(Path::new(path))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => bail!("the path {} is not UTF-8", path.display()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn values_are_written_as_a_person_would() {
        let typed = |key, text| typed(Scheme::S3, key, text).to_string();
        assert_eq!(typed("path-style", "true"), "true");
        assert_eq!(typed("path-style", "yes"), "\"yes\"");
        assert_eq!(typed("connections", "16"), "16");
        assert_eq!(typed("part-size", "64M"), "\"64M\"");
        assert_eq!(typed("region", "1"), "\"1\"");
    }

    #[test]
    fn paths_are_written_so_that_they_mean_the_same_elsewhere() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            placed_url("x/y").unwrap(),
            here.join("x/y").display().to_string()
        );
        assert_eq!(placed_url("~/x").unwrap(), "~/x");
        assert_eq!(placed_url("s3://bucket/x").unwrap(), "s3://bucket/x");
        let set = [
            ("identity-file", "id"),
            ("password-command", "id"),
            ("user", "me"),
        ];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = checked("sftp://h/x", &set).unwrap();
        let values: Vec<_> = settings.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, [here.join("id").to_str().unwrap(), "id", "me"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_written() {
        let refused = |url: &str, key: &str, value: &str| {
            let set = [(key.to_owned(), value.to_owned())];
            let error = checked(url, &set).unwrap_err();
            format!("{error:#}")
        };
        assert!(refused("ftp://h", "password", "hunter2").contains("is a secret"));
        assert!(!refused("ftp://h", "password", "hunter2").contains("hunter2"));
        assert!(refused("s3://bucket", "reigon", "x").contains("did you mean region?"));
        assert!(placed_url("s3://Bucket").is_err());
        assert!(placed_url("ftp://me:hunter2@h").is_err());
    }
}
