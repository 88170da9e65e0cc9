//! What changes larder.toml: add, edit, remove.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use toml_edit::{DocumentMut, Value};

use super::{Wish, show};
use crate::commands::change::{ADD, EDIT, REMOVE, change};
use crate::context::Context;
use crate::document::{self, Changed, Document};
use crate::jobs;
use crate::settings::Settings;

/// Keys whose values are paths: relative ones are meant here, and the file is elsewhere.
const PATHS: [&str; 8] = [
    "exclude-file",
    "iexclude-file",
    "key-file",
    "location",
    "mail.ca-certificate",
    "mail.password-file",
    "password-file",
    "sources",
];

/// Adds a job.
///
/// # Errors
/// When it makes no sense, there is one of that name, or larder.toml cannot be written.
pub fn add(context: &Context, name: &str, wish: &Wish, dry_run: bool) -> anyhow::Result<()> {
    if let Some(why) = jobs::refuse_name(name) {
        bail!("{why}");
    }
    let keys = keys(&context.settings, wish)?;
    change(context, Changed::Job(name), ADD, name, dry_run, |toml| {
        document::add_job(toml, name)?;
        set_all(toml, name, keys)
    })?;
    // What is due is counted from now on.
    match super::history() {
        Ok(history) if !dry_run => Ok(history.knows(name, Timestamp::now())?),
        _ => Ok(()),
    }
}

/// Changes a job.
///
/// # Errors
/// When there is none, it would make no sense, or larder.toml cannot be written.
pub fn edit(
    context: &Context,
    name: &str,
    wish: &Wish,
    unset: &[String],
    dry_run: bool,
) -> anyhow::Result<()> {
    refuse_unknown(context, name)?;
    let keys = keys(&context.settings, wish)?;
    if keys.is_empty() && unset.is_empty() {
        bail!("nothing is to be changed; give --set, --unset, or another option");
    }
    change(context, Changed::Job(name), EDIT, name, dry_run, |toml| {
        for key in unset {
            document::unset_job(toml, name, key)?;
        }
        set_all(toml, name, keys)
    })
}

/// Removes a job.
///
/// # Errors
/// When there is none, or larder.toml cannot be written.
pub fn remove(context: &Context, name: &str, dry_run: bool) -> anyhow::Result<()> {
    refuse_unknown(context, name)?;
    change(context, Changed::Job(name), REMOVE, name, dry_run, |toml| {
        document::remove_job(toml, name)
    })?;
    match super::history() {
        Ok(history) if !dry_run => Ok(history.forget(name)?),
        _ => Ok(()),
    }
}

/// Refuses what is no job; one with a mistake may be changed.
fn refuse_unknown(context: &Context, name: &str) -> anyhow::Result<()> {
    match context.settings.jobs.0.contains_key(name) {
        true => Ok(()),
        false => super::job(context, name).map(drop),
    }
}

/// Gives when a job would be run next, of each kind, if there would be one.
///
/// # Errors
/// When the document makes no sense.
pub fn upcoming(
    document: &Document,
    name: &str,
) -> anyhow::Result<Option<BTreeMap<&'static str, Vec<Timestamp>>>> {
    let settings = document.settings()?;
    let history = super::history().ok();
    let job = settings.jobs.0.get(name);
    Ok(job.map(|job| show::upcoming(history.as_ref(), name, job, Timestamp::now())))
}

/// Gives the keys that are to be set, with values as they stand in the file.
fn keys(settings: &Settings, wish: &Wish) -> anyhow::Result<Vec<(String, Value)>> {
    let mut keys: Vec<(&str, Value)> = Vec::new();
    if !wish.sources.is_empty() {
        let sources = wish.sources.iter().map(|source| placed(settings, source));
        let sources = sources.collect::<anyhow::Result<Vec<String>>>()?;
        keys.push(("sources", Value::from_iter(sources)));
    }
    let location = wish.location.as_deref().map(Path::new);
    let location = location.map(|location| placed(settings, location));
    keys.extend(location.transpose()?.map(|text| ("location", text.into())));
    if !wish.exclude.is_empty() {
        keys.push((
            "exclude",
            Value::from_iter(wish.exclude.iter().map(String::as_str)),
        ));
    }
    keys.extend(wish.every.map(|days| ("every", days.into())));
    if !wish.hours.is_empty() {
        keys.push(("hours", Value::from_iter(wish.hours.iter().copied())));
    }
    keys.extend(wish.cron.as_deref().map(|text| ("cron", text.into())));
    keys.extend(
        wish.time_zone
            .as_deref()
            .map(|text| ("time-zone", text.into())),
    );
    keys.extend(wish.keep_days.map(|days| ("keep-days", days.into())));
    let mut keys: Vec<_> = keys
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let known = jobs::known();
    for (key, text) in &wish.set {
        // A list as TOML has it is taken as it stands.
        let is_path = PATHS.contains(&key.as_str()) && !text.starts_with(['[', '"', '\'']);
        let text = match is_path {
            true => placed(settings, Path::new(text))?,
            false => text.clone(),
        };
        keys.push((key.clone(), typed(&known, key, &text)));
    }
    Ok(keys)
}

fn set_all(toml: &mut DocumentMut, name: &str, keys: Vec<(String, Value)>) -> anyhow::Result<()> {
    // Tables come last, or what follows would be taken for theirs.
    let (inner, own): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(key, _)| key.contains('.'));
    for (key, value) in own.into_iter().chain(inner) {
        document::set_job(toml, name, &key, value)?;
    }
    Ok(())
}

/// Takes a path as it is meant here: the file is elsewhere. Locations and URLs stay.
fn placed(settings: &Settings, named: &Path) -> anyhow::Result<String> {
    let text = named.to_str();
    let text = text.with_context(|| format!("the path {} is not UTF-8", named.display()))?;
    if text.is_empty() {
        bail!("an empty path names nothing");
    }
    let is_placed =
        text.contains("://") || text.starts_with("~/") || settings.locations.0.contains_key(text);
    if is_placed {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(named)?.into_os_string().into_string();
    path.map_err(|path| anyhow::anyhow!("the path {} is not UTF-8", path.display()))
}

/// Gives a value the type that a person would write it with.
fn typed(known: &serde_json::Value, key: &str, text: &str) -> Value {
    let expected = key.split('.').try_fold(known, |value, key| value.get(key));
    let is_list = expected.is_some_and(serde_json::Value::is_array);
    let value = match text.parse::<Value>() {
        // A bare word such as 8h is no value of TOML, and 2026-11-22 would be a date.
        Ok(
            value @ (Value::Integer(_)
            | Value::Boolean(_)
            | Value::Array(_)
            | Value::InlineTable(_)),
        ) => value,
        Ok(Value::String(text)) => text.value().as_str().into(),
        _ => text.into(),
    };
    match value {
        mut value if !is_list || value.is_array() => {
            // What stood around it on the command line.
            value.decor_mut().clear();
            value
        }
        value => {
            let numbers = text.split(',').map(|part| part.trim().parse::<i64>());
            let numbers: Option<Vec<i64>> = numbers.map(Result::ok).collect();
            numbers.map_or_else(|| Value::from_iter([value]), Value::from_iter)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_a_person_would() {
        let known = jobs::known();
        for (key, text, expected) in [
            ("every", "2", "2"),
            ("hours", "3", "[3]"),
            ("hours", "1,13", "[1, 13]"),
            ("prune.hours", "[3]", "[3]"),
            ("check.hours", "3", "[3]"),
            ("catch-up", "false", "false"),
            ("time-limit", "8h", "\"8h\""),
            ("time-zone", "\"UTC\"", "\"UTC\""),
            ("exclude", "*.o", "[\"*.o\"]"),
            ("exclude", "['a', 'b']", "['a', 'b']"),
            ("after-failure", "mail, root", "[\"mail, root\"]"),
            ("keep-days", "2026-11-22", "\"2026-11-22\""),
            ("no-such.key", "1", "1"),
        ] {
            assert_eq!(
                typed(&known, key, text).to_string(),
                expected,
                "{key}={text}"
            );
        }
    }
}
