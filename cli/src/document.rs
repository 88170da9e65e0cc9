//! Changes to larder.toml that keep what a person wrote: comments, order, and the file itself.

use std::fs::{self, File, Metadata};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use schemars::JsonSchema;
use serde::Serialize;
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value};
use zeroize::Zeroizing;

use crate::settings::{Settings, process_env};

/// The key of all locations.
const LOCATIONS: &str = "locations";
/// The key of all jobs.
const JOBS: &str = "jobs";

/// What of a larder.toml is changed, by its name: that has to be right afterwards.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Changed<'a> {
    /// A location.
    Location(&'a str),
    /// A job.
    Job(&'a str),
    /// A key that stands for itself.
    Key(&'a str),
}

impl Changed<'_> {
    /// Gives the word for it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Location(_) => "location",
            Self::Job(_) => "job",
            Self::Key(_) => "key",
        }
    }
}

/// A larder.toml that is to be changed.
pub struct Document {
    /// Its text, as it is to be.
    pub toml: DocumentMut,
    path: PathBuf,
    before: Option<Metadata>,
}

impl Document {
    /// Reads a file, or begins a new one where there is none.
    ///
    /// # Errors
    /// When it cannot be read or parsed: then nothing may be changed in it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let tried = || format!("cannot read the settings in {}", path.display());
        // What a link points to is changed, and the link stays.
        let (path, before, text) = match fs::canonicalize(path) {
            Ok(path) => {
                let before = fs::metadata(&path).with_context(tried)?;
                let text = Zeroizing::new(fs::read_to_string(&path).with_context(tried)?);
                (path, Some(before), text)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_ok() {
                    bail!("{} is a link to a file that is not there", path.display());
                }
                (path.to_owned(), None, Zeroizing::default())
            }
            Err(error) => return Err(error).with_context(tried),
        };
        Settings::parse(&text, &path)?;
        Ok(Self {
            toml: text.parse().with_context(tried)?,
            path,
            before,
        })
    }

    /// Writes the file, whole or not at all; a new one can be read by nobody else.
    ///
    /// # Errors
    /// When it, or the location or job that was changed, would not be understood, or it cannot be written.
    pub fn save(&self, changed: Changed<'_>) -> anyhow::Result<()> {
        let text = self.understood(changed)?;
        let tried = || format!("cannot write the settings in {}", self.path.display());
        self.write(&text).with_context(tried)
    }

    /// Looks whether what [`Document::save`] would write would be understood.
    ///
    /// # Errors
    /// When it, or the location or job that was changed, would not be.
    pub fn would_save(&self, changed: Changed<'_>) -> anyhow::Result<()> {
        self.understood(changed).map(drop)
    }

    /// Gives what it would say, as it is to be.
    ///
    /// # Errors
    /// When it would not be understood.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let text = Zeroizing::new(self.toml.to_string());
        Settings::read(&text, &self.path, &process_env)
    }

    /// Gives the text as it is to be, once it is understood.
    fn understood(&self, changed: Changed<'_>) -> anyhow::Result<Zeroizing<String>> {
        let text = Zeroizing::new(self.toml.to_string());
        let settings = Settings::read(&text, &self.path, &process_env)?;
        let mistake = match changed {
            Changed::Location(name) => {
                let changed = settings.locations.0.get(name);
                changed.and_then(|table| table.mistake.as_ref())
            }
            Changed::Job(name) => {
                let changed = settings.jobs.0.get(name);
                changed.and_then(|job| job.mistake.as_ref())
            }
            Changed::Key(_) => None,
        };
        if let Some(mistake) = mistake {
            bail!("nothing was changed, since this would be wrong: {mistake}");
        }
        Ok(text)
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        if let Some(before) = &self.before {
            let now = file.as_file().metadata()?;
            if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
                fchown(file.as_file(), Some(before.uid()), Some(before.gid()))?;
            }
            let mode = fs::Permissions::from_mode(before.mode() & 0o7777);
            file.as_file().set_permissions(mode)?;
        }
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }
}

/// Adds a location behind the others.
///
/// # Errors
/// When there is one of that name.
pub fn add(toml: &mut DocumentMut, name: &str, url: &str) -> anyhow::Result<()> {
    add_table(toml, LOCATIONS, name)?.insert("url", url.into());
    Ok(())
}

/// Adds a job behind the others, which says nothing yet.
///
/// # Errors
/// When there is one of that name.
pub fn add_job(toml: &mut DocumentMut, name: &str) -> anyhow::Result<()> {
    add_table(toml, JOBS, name).map(drop)
}

fn add_table<'a>(
    toml: &'a mut DocumentMut,
    all: &str,
    name: &str,
) -> anyhow::Result<&'a mut dyn TableLike> {
    let is_first = toml.iter().next().is_none();
    let tables = toml.entry(all).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let Some(tables) = tables.as_table_like_mut() else {
        bail!("`{all}` is no table");
    };
    if tables.contains_key(name) {
        let one = all.trim_end_matches('s');
        bail!(
            "there is a {one} {name} already; change it with `larder {one} edit`, or choose \
             another name"
        );
    }
    let mut table = Table::new();
    if !is_first {
        table.decor_mut().set_prefix("\n");
    }
    tables.insert(name, Item::Table(table));
    let added = tables.get_mut(name).and_then(Item::as_table_like_mut);
    added.with_context(|| format!("`{all}` cannot have a table {name}"))
}

/// Sets a key of a location; a comment beside the old value stays.
///
/// # Errors
/// When there is no such location.
pub fn set(toml: &mut DocumentMut, name: &str, key: &str, value: Value) -> anyhow::Result<()> {
    set_in(location(toml, name)?, key, value);
    Ok(())
}

/// Gives a secret as it stands there sealed.
#[must_use]
pub fn sealed(text: &str) -> Value {
    let mut table = InlineTable::new();
    table.insert("sealed", text.into());
    Value::InlineTable(table)
}

/// Sets a key that stands for itself; a comment beside the old value stays.
pub fn set_key(toml: &mut DocumentMut, key: &str, value: Value) {
    set_in(toml.as_table_mut(), key, value);
}

/// Sets a key of a job, or of a table in it: `every`, `prune.every`.
///
/// # Errors
/// When there is no such job, or something else stands where the table would be.
pub fn set_job(toml: &mut DocumentMut, name: &str, key: &str, value: Value) -> anyhow::Result<()> {
    let whole = toml.get(JOBS).and_then(|jobs| jobs.get(name));
    let is_inline = whole.is_some_and(Item::is_inline_table);
    let job = one(toml, JOBS, name)?;
    let Some((inner, key)) = key.split_once('.') else {
        set_in(job, key, value);
        return Ok(());
    };
    let table = job.entry(inner).or_insert_with(|| match is_inline {
        true => Item::Value(Value::InlineTable(InlineTable::new())),
        false => {
            let mut table = Table::new();
            table.decor_mut().set_prefix("\n");
            Item::Table(table)
        }
    });
    let table = table.as_table_like_mut();
    let table = table.with_context(|| format!("`{inner}` of the job {name} is no table"))?;
    set_in(table, key, value);
    Ok(())
}

fn set_in(table: &mut dyn TableLike, key: &str, value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = value;
            *old.decor_mut() = decor;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// Takes a key of a location away, with the comment right above it.
///
/// # Errors
/// When there is no such location, or no such key in it.
pub fn unset(toml: &mut DocumentMut, name: &str, key: &str) -> anyhow::Result<()> {
    unset_in(toml, LOCATIONS, name, key)
}

/// Takes a key of a job away, or a table in it, or a key of such a one: `cron`, `prune`, `prune.every`.
///
/// # Errors
/// When there is no such job, or no such key in it.
pub fn unset_job(toml: &mut DocumentMut, name: &str, key: &str) -> anyhow::Result<()> {
    let Some((inner, key)) = key.split_once('.') else {
        return unset_in(toml, JOBS, name, key);
    };
    let job = one(toml, JOBS, name)?;
    let table = job.get_mut(inner).and_then(Item::as_table_like_mut);
    if table.and_then(|table| table.remove(key)).is_none() {
        bail!("the job {name} says nothing about {inner}.{key}");
    }
    Ok(())
}

fn unset_in(toml: &mut DocumentMut, all: &str, name: &str, key: &str) -> anyhow::Result<()> {
    let table = one(toml, all, name)?;
    let before = table.key(key).and_then(|key| key.leaf_decor().prefix());
    let stays = before.and_then(|before| kept_comments(before.as_str()?));
    let after = table
        .iter()
        .map(|(name, _)| name.to_owned())
        .skip_while(|name| name != key)
        .nth(1);
    if table.remove(key).is_none() {
        let one = all.trim_end_matches('s');
        bail!("the {one} {name} says nothing about {key}");
    }
    let Some(stays) = stays else {
        return Ok(());
    };
    if let Some(mut next) = after.as_deref().and_then(|next| table.key_mut(next)) {
        let decor = next.leaf_decor_mut();
        let own = decor.prefix().and_then(|prefix| prefix.as_str());
        let joined = format!("{stays}{}", own.unwrap_or_default());
        decor.set_prefix(joined);
        return Ok(());
    }
    let position = position_of(toml, all, name);
    carry(toml, position, &stays);
    Ok(())
}

/// Takes a location away, with the comment right above it.
///
/// # Errors
/// When there is no such location.
pub fn remove(toml: &mut DocumentMut, name: &str) -> anyhow::Result<()> {
    remove_table(toml, LOCATIONS, name)
}

/// Takes a job away, with the comment right above it.
///
/// # Errors
/// When there is no such job.
pub fn remove_job(toml: &mut DocumentMut, name: &str) -> anyhow::Result<()> {
    remove_table(toml, JOBS, name)
}

fn remove_table(toml: &mut DocumentMut, all: &str, name: &str) -> anyhow::Result<()> {
    one(toml, all, name)?;
    let position = position_of(toml, all, name);
    let tables = toml.get_mut(all).and_then(Item::as_table_like_mut);
    let removed = tables.and_then(|tables| tables.remove(name));
    let prefix = removed.as_ref().and_then(Item::as_table);
    let prefix = prefix.and_then(|table| table.decor().prefix()?.as_str());
    if let Some(stays) = prefix.and_then(kept_comments) {
        carry(toml, position, &stays);
    }
    Ok(())
}

/// Gives a location another name, also where `repository` names it.
///
/// # Errors
/// When there is no such location, or one of the new name.
pub fn rename(toml: &mut DocumentMut, old: &str, new: &str) -> anyhow::Result<()> {
    location(toml, old)?;
    let Some(locations) = all(toml) else {
        return Ok(());
    };
    if locations.contains_key(new) {
        bail!("there is a location {new} already; choose another name");
    }
    // A table of its own knows its place in the text.
    if let Some(table) = locations.remove(old) {
        locations.insert(new, table);
    }
    let repository = toml.get_mut("repository").and_then(Item::as_value_mut);
    if let Some(repository) = repository.filter(|value| value.as_str() == Some(old)) {
        let decor = repository.decor().clone();
        *repository = new.into();
        *repository.decor_mut() = decor;
    }
    Ok(())
}

fn all(toml: &mut DocumentMut) -> Option<&mut dyn TableLike> {
    toml.get_mut(LOCATIONS)?.as_table_like_mut()
}

fn location<'a>(toml: &'a mut DocumentMut, name: &str) -> anyhow::Result<&'a mut dyn TableLike> {
    one(toml, LOCATIONS, name)
}

fn one<'a>(
    toml: &'a mut DocumentMut,
    all: &str,
    name: &str,
) -> anyhow::Result<&'a mut dyn TableLike> {
    let tables = toml.get_mut(all).and_then(Item::as_table_like_mut);
    tables
        .and_then(|tables| tables.get_mut(name)?.as_table_like_mut())
        .with_context(|| format!("there is no {} {name}", all.trim_end_matches('s')))
}

/// Gives what stands above something without the comment right above it, which goes with it.
fn kept_comments(above: &str) -> Option<String> {
    let (stays, _) = above.rsplit_once("\n\n")?;
    (!stays.trim().is_empty()).then(|| format!("{stays}\n"))
}

fn position_of(toml: &DocumentMut, all: &str, name: &str) -> Option<isize> {
    toml.get(all)?.get(name)?.as_table()?.position()
}

/// Puts comments above the first table behind a place in the text, or at the end.
fn carry(toml: &mut DocumentMut, position: Option<isize>, comments: &str) {
    let mut positions = Vec::new();
    visit(toml.as_table_mut(), &mut |table| {
        positions.extend(table.position())
    });
    let next = positions
        .into_iter()
        .filter(|found| Some(*found) > position)
        .min();
    let mut is_carried = false;
    visit(toml.as_table_mut(), &mut |table| {
        if next.is_some() && table.position() == next && !is_carried {
            is_carried = true;
            let decor = table.decor_mut();
            let own = decor.prefix().and_then(|prefix| prefix.as_str());
            let joined = format!("{comments}{}", own.unwrap_or_default());
            decor.set_prefix(joined);
        }
    });
    if !is_carried {
        let joined = format!("{comments}{}", toml.trailing().as_str().unwrap_or_default());
        toml.set_trailing(joined);
    }
}

fn visit(table: &mut Table, look: &mut dyn FnMut(&mut Table)) {
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(inner) => {
                look(inner);
                visit(inner, look);
            }
            Item::ArrayOfTables(inner) => {
                for table in inner.iter_mut() {
                    look(table);
                    visit(table, look);
                }
            }
            Item::None | Item::Value(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
