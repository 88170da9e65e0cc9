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
    document.save(Changed::Location("a")).unwrap();
    assert_eq!(mode(&path), 0o600);

    let link = folder.path().join("link");
    std::os::unix::fs::symlink("new/larder.toml", &link).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut document = Document::open(&link).unwrap();
    remove(&mut document.toml, "a").unwrap();
    document.save(Changed::Location("a")).unwrap();
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
    assert!(document.save(Changed::Location("a")).is_err());
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
    document.save(Changed::Location("a")).unwrap();
    remove(&mut document.toml, "b").unwrap();
    document.save(Changed::Location("b")).unwrap();
    let text = "[locations.a]\nurl = '/x'\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_job_is_added_changed_and_removed_and_the_rest_stays() {
    let job = |toml: &mut DocumentMut| {
        add_job(toml, "night")?;
        set_job(toml, "night", "location", "b".into())?;
        set_job(toml, "night", "sources", Value::from_iter(["/home"]))?;
        set_job(toml, "night", "prune.every", 7.into())?;
        set_job(toml, "night", "prune.hours", Value::from_iter([3]))
    };
    let text = changed(TEXT, job).unwrap();
    let expected = "\n[jobs.night]\nlocation = \"b\"\nsources = [\"/home\"]\n\n\
                    [jobs.night.prune]\nevery = 7\nhours = [3]\n";
    assert!(text.contains(expected), "{text}");
    let settings = Settings::parse(&text, Path::new("larder.toml")).unwrap();
    let night = settings.jobs.0.get("night").unwrap();
    assert_eq!(night.mistake, None);
    assert_eq!(
        changed(&text, |toml| remove_job(toml, "night")).unwrap(),
        TEXT
    );

    let text = text.replace("every = 7", "every = 7 # weekly");
    let text = changed(&text, |toml| {
        set_job(toml, "night", "prune.every", 14.into())?;
        unset_job(toml, "night", "prune.hours")?;
        set_job(toml, "night", "prune.hours", Value::from_iter([4]))?;
        set_job(toml, "night", "time-limit", "8h".into())
    });
    let text = text.unwrap();
    assert!(
        text.contains("every = 14 # weekly\nhours = [4]\n"),
        "{text}"
    );
    let text = changed(&text, |toml| unset_job(toml, "night", "prune")).unwrap();
    assert!(
        text.contains("time-limit = \"8h\"") && !text.contains("prune"),
        "{text}"
    );
    for wrong in [
        changed(&text, |toml| add_job(toml, "night")),
        changed(&text, |toml| unset_job(toml, "night", "cron")),
        changed(&text, |toml| unset_job(toml, "night", "prune.every")),
        changed(&text, |toml| {
            set_job(toml, "night", "location.every", 1.into())
        }),
        changed(&text, |toml| set_job(toml, "day", "every", 1.into())),
        changed(&text, |toml| remove_job(toml, "day")),
    ] {
        let error = wrong.unwrap_err().to_string();
        assert!(error.contains("job"), "{error}");
    }
}

#[test]
fn a_job_that_would_be_wrong_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("larder.toml");
    let text = "[jobs.a]\nlocation = 'repo'\nsources = ['/x']\n";
    fs::write(&path, text).unwrap();
    let mut document = Document::open(&path).unwrap();
    set_job(&mut document.toml, "a", "keep-days", 0.into()).unwrap();
    let error = document.save(Changed::Job("a")).unwrap_err().to_string();
    assert!(error.contains("nothing was changed"), "{error}");
    // Where paths are relative to is known here.
    let mut document = Document::open(&path).unwrap();
    let sources = Value::from_iter([folder.path().to_str().unwrap()]);
    set_job(&mut document.toml, "a", "sources", sources).unwrap();
    let error = document.save(Changed::Job("a")).unwrap_err().to_string();
    assert!(error.contains("is backed up into it"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}
