//! Changes to larder.toml that keep what a person wrote: comments, order, and the file itself.

use std::fs::{self, File, Metadata};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};
use zeroize::Zeroizing;

use crate::settings::Settings;

/// The key of all locations.
const LOCATIONS: &str = "locations";

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
    /// When it, or the location that was changed, would not be understood, or it cannot be written.
    pub fn save(&self, changed: &str) -> anyhow::Result<()> {
        let text = self.understood(changed)?;
        let tried = || format!("cannot write the settings in {}", self.path.display());
        self.write(&text).with_context(tried)
    }

    /// Looks whether what [`Document::save`] would write would be understood.
    ///
    /// # Errors
    /// When it, or the location that was changed, would not be.
    pub fn would_save(&self, changed: &str) -> anyhow::Result<()> {
        self.understood(changed).map(drop)
    }

    /// Gives the text as it is to be, once it is understood.
    fn understood(&self, changed: &str) -> anyhow::Result<Zeroizing<String>> {
        let text = Zeroizing::new(self.toml.to_string());
        let settings = Settings::parse(&text, &self.path)?;
        let changed = settings.locations.0.get(changed);
        if let Some(mistake) = changed.and_then(|table| table.mistake.as_ref()) {
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
    let is_first = toml.iter().next().is_none();
    let locations = toml.entry(LOCATIONS).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let Some(locations) = locations.as_table_like_mut() else {
        bail!("`locations` is no table");
    };
    if locations.contains_key(name) {
        bail!(
            "there is a location {name} already; change it with `larder location edit`, or choose \
             another name"
        );
    }
    let mut table = Table::new();
    table.insert("url", url.into());
    if !is_first {
        table.decor_mut().set_prefix("\n");
    }
    locations.insert(name, Item::Table(table));
    Ok(())
}

/// Sets a key of a location; a comment beside the old value stays.
///
/// # Errors
/// When there is no such location.
pub fn set(toml: &mut DocumentMut, name: &str, key: &str, value: Value) -> anyhow::Result<()> {
    let table = location(toml, name)?;
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
    Ok(())
}

/// Takes a key of a location away, with the comment right above it.
///
/// # Errors
/// When there is no such location, or no such key in it.
pub fn unset(toml: &mut DocumentMut, name: &str, key: &str) -> anyhow::Result<()> {
    let table = location(toml, name)?;
    let before = table.key(key).and_then(|key| key.leaf_decor().prefix());
    let stays = before.and_then(|before| kept_comments(before.as_str()?));
    let after = table
        .iter()
        .map(|(name, _)| name.to_owned())
        .skip_while(|name| name != key)
        .nth(1);
    if table.remove(key).is_none() {
        bail!("the location {name} says nothing about {key}");
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
    let position = position_of(toml, name);
    carry(toml, position, &stays);
    Ok(())
}

/// Takes a location away, with the comment right above it.
///
/// # Errors
/// When there is no such location.
pub fn remove(toml: &mut DocumentMut, name: &str) -> anyhow::Result<()> {
    location(toml, name)?;
    let position = position_of(toml, name);
    let removed = all(toml).and_then(|locations| locations.remove(name));
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
    all(toml)
        .and_then(|locations| locations.get_mut(name)?.as_table_like_mut())
        .with_context(|| format!("there is no location {name}"))
}

/// Gives what stands above something without the comment right above it, which goes with it.
fn kept_comments(above: &str) -> Option<String> {
    let (stays, _) = above.rsplit_once("\n\n")?;
    (!stays.trim().is_empty()).then(|| format!("{stays}\n"))
}

fn position_of(toml: &DocumentMut, name: &str) -> Option<isize> {
    toml.get(LOCATIONS)?.get(name)?.as_table()?.position()
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
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const TEXT: &str = "\
# Mine.
repository = 'b'   # the usual one

# About all of them.

# The first.
[locations.a]
url = 's3://bucket'   # where

# About regions.

# Far away.
region = 'x' # for now
connections = 3

[backup]
tag = ['t'] # one

# The second.
[locations.b]
url = '/srv/b'
# The end.
";

    fn changed(
        text: &str,
        change: impl FnOnce(&mut DocumentMut) -> anyhow::Result<()>,
    ) -> anyhow::Result<String> {
        let mut toml: DocumentMut = text.parse()?;
        change(&mut toml)?;
        let text = toml.to_string();
        let settings = Settings::parse(&text, Path::new("larder.toml"))?;
        for table in settings.locations.0.values() {
            assert_eq!(table.mistake, None);
        }
        Ok(text)
    }

    #[test]
    fn a_value_is_changed_and_nothing_beside_it() {
        let text = changed(TEXT, |toml| {
            set(toml, "a", "region", "y".into())?;
            set(toml, "a", "allow-http", true.into())
        });
        let expected = TEXT
            .replace("region = 'x'", "region = \"y\"")
            .replace("connections = 3\n", "connections = 3\nallow-http = true\n");
        assert_eq!(text.unwrap(), expected);
        assert!(changed(TEXT, |toml| set(toml, "c", "region", "y".into())).is_err());
    }

    #[test]
    fn what_is_taken_away_takes_the_comment_above_it_along_and_no_other() {
        let text = changed(TEXT, |toml| unset(toml, "a", "region")).unwrap();
        let expected = TEXT.replace("\n# Far away.\nregion = 'x' # for now\n", "");
        assert_eq!(text, expected);
        let text = changed(TEXT, |toml| {
            unset(toml, "a", "connections")?;
            unset(toml, "a", "region")
        });
        let text = text.unwrap();
        assert!(text.contains("# About regions.\n\n[backup]"), "{text}");
        let text = changed(TEXT, |toml| remove(toml, "a")).unwrap();
        assert!(
            text.starts_with(
                "# Mine.\nrepository = 'b'   # the usual one\n\n# About all of them.\n\n[backup]"
            ),
            "{text}"
        );
        assert!(!text.contains("The first") && !text.contains("locations.a"));
        let only = "# Locations.\n\n# One.\n[locations.a]\nurl = '/x'\n";
        let text = changed(only, |toml| remove(toml, "a")).unwrap();
        assert_eq!(text, "# Locations.\n");
        assert!(changed(TEXT, |toml| unset(toml, "a", "zone")).is_err());
        assert!(changed(TEXT, |toml| remove(toml, "c")).is_err());
    }

    #[test]
    fn a_location_is_renamed_where_it_stands_and_where_it_is_named() {
        let text = changed(TEXT, |toml| rename(toml, "b", "c")).unwrap();
        let expected = TEXT
            .replace("repository = 'b'", "repository = \"c\"")
            .replace("[locations.b]", "[locations.c]");
        assert_eq!(text, expected);
        let text = changed(TEXT, |toml| rename(toml, "a", "z.1")).unwrap();
        assert_eq!(text, TEXT.replace("[locations.a]", "[locations.\"z.1\"]"));
        assert!(changed(TEXT, |toml| rename(toml, "a", "b")).is_err());
    }

    #[test]
    fn a_new_location_comes_last() {
        let text = changed(TEXT, |toml| {
            add(toml, "c", "ftps://h/x")?;
            set(toml, "c", "user", "me".into())
        });
        let added = "\n[locations.c]\nurl = \"ftps://h/x\"\nuser = \"me\"\n";
        let expected = TEXT.replace("# The end.\n", "") + added + "# The end.\n";
        assert_eq!(text.unwrap(), expected);
        let text = changed("", |toml| add(toml, "a", "/x")).unwrap();
        assert_eq!(text, "[locations.a]\nurl = \"/x\"\n");
        assert!(changed(TEXT, |toml| add(toml, "a", "/x")).is_err());
        // However the others were written.
        for others in [
            "locations = { a = { url = '/a' } }\n",
            "locations.a.url = '/a'\n",
            "[locations]\na = { url = '/a' }\n",
        ] {
            let text = changed(others, |toml| {
                add(toml, "b", "/b")?;
                rename(toml, "a", "c")?;
                set(toml, "c", "url", "/c".into())
            });
            let settings = Settings::parse(&text.unwrap(), Path::new("larder.toml")).unwrap();
            let urls: Vec<_> = settings
                .locations
                .0
                .values()
                .map(|table| &table.url)
                .collect();
            assert_eq!(urls, ["/b", "/c"], "{others}");
            changed(others, |toml| remove(toml, "a")).unwrap();
        }
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_link_and_a_new_one_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let path = folder.path().join("new/larder.toml");
        let mut document = Document::open(&path).unwrap();
        add(&mut document.toml, "a", "/x").unwrap();
        document.save("a").unwrap();
        assert_eq!(mode(&path), 0o600);

        let link = folder.path().join("link");
        std::os::unix::fs::symlink("new/larder.toml", &link).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut document = Document::open(&link).unwrap();
        remove(&mut document.toml, "a").unwrap();
        document.save("a").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), mode(&path)),
            ("", 0o640)
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_understood_is_neither_changed_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder.toml");
        for broken in ["[locations.a]\nurl = ", "unknown = 1\n", "locations = 1\n"] {
            fs::write(&path, broken).unwrap();
            assert!(Document::open(&path).is_err(), "{broken}");
        }
        let text = "[locations.a]\nurl = '/x'\n";
        fs::write(&path, text).unwrap();
        let mut document = Document::open(&path).unwrap();
        set(&mut document.toml, "a", "region", "x".into()).unwrap();
        assert!(document.save("a").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn what_is_wrong_in_one_location_is_mended_or_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder.toml");
        let text = "[locations.a]\nurl = '/x'\nregion = 'x'\n\n[locations.b]\nurl = 3\n";
        fs::write(&path, text).unwrap();
        let mut document = Document::open(&path).unwrap();
        unset(&mut document.toml, "a", "region").unwrap();
        document.save("a").unwrap();
        remove(&mut document.toml, "b").unwrap();
        document.save("b").unwrap();
        let text = "[locations.a]\nurl = '/x'\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
