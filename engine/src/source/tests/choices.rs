//! What is chosen of a tree.

use super::*;

fn select(folder: &Path, options: SelectOptions) -> (Vec<String>, Vec<WalkIssue>) {
    let (all, issues) = collect(start_with(folder, options, WalkOptions::default()));
    (text_keys(&all), issues)
}

fn excluding(texts: &[&str]) -> SelectOptions {
    let pattern = |text: &&str| Pattern {
        text: (*text).to_owned(),
        ignore_case: false,
        origin: None,
    };
    SelectOptions {
        patterns: texts.iter().map(pattern).collect(),
        ..SelectOptions::default()
    }
}

#[test]
fn excluded_folders_are_not_entered() {
    let folder = tree(&[
        ("a/x.o", ""),
        ("a/keep.o", ""),
        ("b/c/keep.o", ""),
        ("b/d", ""),
    ]);
    let (all, issues) = select(folder.path(), excluding(&["*.o", "!keep.o", "/b/c"]));
    assert_eq!(all, ["", "a/", "a/keep.o", "b/", "b/d"]);
    assert!(issues.is_empty());
    assert_eq!(select(folder.path(), excluding(&["*"])).0, [""]);
    let absolute = format!("{}/a", folder.path().display());
    assert_eq!(
        select(folder.path(), excluding(&[&absolute, "c/"])).0,
        ["", "b/", "b/d"]
    );
}

#[test]
fn ignore_files_count_for_their_folder_and_the_deepest_wins() {
    let folder = tree(&[
        (".larderignore", "*.log\n/top\nbuild/\n[\n{x\n"),
        ("top", ""),
        ("a/top", ""),
        ("a/x.log", ""),
        ("a/.larderignore", "!x.log\ny\n"),
        ("a/deeper/x.log", ""),
        ("a/deeper/y", ""),
        ("b/x.log", ""),
        ("b/y", ""),
        ("b/build/z", ""),
    ]);
    let options = || SelectOptions {
        ignore_file_names: vec![".larderignore".into()],
        ..SelectOptions::default()
    };
    let (all, issues) = select(folder.path(), options());
    let expected = [
        "",
        ".larderignore",
        "a/",
        "a/.larderignore",
        "a/deeper/",
        "a/deeper/x.log",
        "a/top",
        "a/x.log",
        "b/",
        "b/y",
    ];
    assert_eq!(all, expected);
    assert_eq!(issues.len(), 1, "{issues:?}");
    assert!(
        issues[0].to_string().contains(".larderignore: line 5: "),
        "{}",
        issues[0]
    );
    // What the options say goes before what the files say.
    let mut options = options();
    options.patterns = excluding(&["x.log"]).patterns;
    assert!(
        !select(folder.path(), options)
            .0
            .iter()
            .any(|key| key.ends_with("x.log"))
    );
}

#[test]
fn marked_folders_keep_their_mark_alone() {
    let signature = "Signature: 8a477f597d28d172789f06886806bc55\n# more";
    let folder = tree(&[
        ("cache/CACHEDIR.TAG", signature),
        ("cache/x/y", ""),
        ("not/CACHEDIR.TAG", "Signature: other"),
        ("not/x", ""),
        ("short/CACHEDIR.TAG", "Sig"),
        ("marked/.nobackup", ""),
        ("marked/x", ""),
        ("headed/.skip", "really"),
        ("headed/x", ""),
    ]);
    let options = SelectOptions {
        exclude_caches: true,
        exclude_if_present: vec![".nobackup".into(), ".skip:real".into()],
        ..SelectOptions::default()
    };
    let (all, issues) = select(folder.path(), options);
    let expected = [
        "",
        "cache/",
        "cache/CACHEDIR.TAG",
        "headed/",
        "headed/.skip",
        "marked/",
        "marked/.nobackup",
        "not/",
        "not/CACHEDIR.TAG",
        "not/x",
        "short/",
        "short/CACHEDIR.TAG",
    ];
    assert_eq!(all, expected);
    assert!(issues.is_empty());
}

#[test]
fn large_files_are_left_out() {
    let folder = tree(&[("a", "12345"), ("b", "123456"), ("c", "")]);
    let options = SelectOptions {
        exclude_larger_than_bytes: Some(5),
        ..SelectOptions::default()
    };
    assert_eq!(select(folder.path(), options).0, ["", "a", "c"]);
}

#[test]
fn other_file_systems_are_left_out_and_numbered() {
    let (outer, inner) = (Path::new("/dev"), Path::new("/dev/shm"));
    let device = |path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
    if device(inner).is_none() || device(outer) == device(inner) {
        return;
    }
    let probe = tempfile::tempdir_in(inner);
    let Ok(probe) = probe else { return };
    let select = |one_file_system| {
        let name = probe.path().file_name().unwrap().to_str().unwrap();
        let mut options = excluding(&["*", "!shm", &format!("!{name}")]);
        options.one_file_system = one_file_system;
        collect(start_with(outer, options, WalkOptions::default())).0
    };
    let all = select(false);
    assert_eq!(all.len(), 3);
    assert_eq!(
        all.iter()
            .map(|walked| walked.entry.filesystem)
            .collect::<Vec<_>>(),
        [0, 1, 1]
    );
    assert_eq!(text_keys(&select(true)), ["", "shm/"]);
}

#[test]
fn an_exact_list_is_walked_and_nothing_else() {
    let folder = tree(&[
        ("a/b/c", ""),
        ("a/b/d", ""),
        ("a/e", ""),
        ("a.c", ""),
        ("f/g/h", ""),
        ("f/i", ""),
        ("z", ""),
    ]);
    symlink("a", folder.path().join("link")).unwrap();
    let lines = format!(
        "a/b/d\nf/\na.c\n{}/a/none\nlink/b\ngone\n",
        folder.path().display()
    );
    let only = Only::from_lines(lines.as_bytes(), b'\n', folder.path()).unwrap();
    let options = SelectOptions {
        only: Some(only),
        ..SelectOptions::default()
    };
    let (all, issues) = select(folder.path(), options);
    assert_eq!(
        all,
        [
            "", "a.c", "a/", "a/b/", "a/b/d", "f/", "f/g/", "f/g/h", "f/i"
        ]
    );
    let paths: Vec<PathBuf> = issues
        .iter()
        .map(|issue| {
            issue
                .path
                .strip_prefix(folder.path())
                .unwrap()
                .to_path_buf()
        })
        .collect();
    assert_eq!(
        paths,
        [Path::new("a/none"), Path::new("gone"), Path::new("link/")]
    );
}
