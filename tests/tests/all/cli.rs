//! The command line from the outside: exit codes, JSON, what is shown and what is restored.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{World, assert_same, date_back, is_root, noise, program, run};

/// A user without rights.
const NOBODY: u32 = 65534;

/// A world with three snapshots: `first` and `second` of the source, then one of `other` by another host.
fn filled() -> World {
    let world = World::new();
    world.write("letters/a.txt", "Dear a\n");
    world.write("letters/b.txt", "Dear b\n");
    world.write("large", noise(1, 3_000_000));
    world.write("gone", "will be deleted");
    world.write("turns", "into a folder");
    world.write("mode", "changes its mode");
    world.backup(&["--tag", "first,both", "--time", "2026-01-10 12:00"]);
    fs::remove_file(world.source().join("gone")).unwrap();
    fs::remove_file(world.source().join("turns")).unwrap();
    fs::create_dir(world.source().join("turns")).unwrap();
    fs::set_permissions(
        world.source().join("mode"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    world.write("letters/a.txt", "Dear A, again\n");
    world.write("letters/new.odt", "Dear new\n");
    date_back(&world.source().join("letters/new.odt"), 1_700_000_000);
    world.backup(&[
        "--tag",
        "second",
        "--tag",
        "both",
        "--time",
        "2026-01-20 12:00",
    ]);
    let other = world.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), "of the other").unwrap();
    let mut command = world.command();
    command.args(["backup", "--host", "lap", "--time", "2026-01-30 12:00"]);
    run(command.arg(&other)).expect(0);
    world
}

fn ids(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("an array");
    list.iter()
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn wrong_usage_ends_with_1() {
    let world = World::new();
    world.write("file", "x");
    let source = world.source();
    let source = source.to_str().unwrap();
    for line in [
        &["frobnicate"][..],
        &["restore", "latest"],
        &["backup", source, "--checkpoint-interval", "soon"],
        &["check", "--read-data=8/3"],
        &["backup"],
        &["ls", "latest"],
        &["ls", "nonsense!"],
        &["key", "remove", "abcdef"],
        &[
            "restore",
            "latest",
            "--target",
            "/nowhere",
            "--map-uid",
            "a:b",
        ],
    ] {
        let run = world.run(line).expect(1);
        assert!(
            !run.stderr.is_empty() && run.stdout.is_empty(),
            "{line:?}: {run:?}"
        );
    }
}

#[test]
fn a_source_that_cannot_be_read_ends_with_3_and_the_rest_is_kept() {
    let world = World::bare();
    world.write("good", "good");
    world.write("closed", "secret");
    world.write("folder/in", "in a folder");
    for name in ["closed", "folder"] {
        let path = world.source().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let program = if is_root() {
        let copy = world.path("larder");
        fs::copy(program(), &copy).unwrap();
        world.give_to(NOBODY);
        copy
    } else {
        program()
    };
    let larder = |arguments: &[&str]| {
        use std::os::unix::process::CommandExt as _;
        let mut command = world.bare_command_of(&program);
        command.env("LARDER_KEY_FILE", world.path("key"));
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        run(command.args(arguments))
    };
    let source = world.source();
    let source = source.to_str().unwrap();
    larder(&["init"]).expect(0);
    let summary = larder(&["--json", "backup", source]).expect(3).summary();
    assert_eq!(summary["issue_count"], 2, "{summary}");
    let issues = summary["issues"].as_array().unwrap().iter();
    let paths: Vec<&str> = issues
        .map(|issue| issue["path"].as_str().unwrap())
        .collect();
    assert!(
        paths.iter().any(|path| path.ends_with("/closed")),
        "{summary}"
    );
    assert_eq!(summary["statistics"]["unreadable"], 2, "{summary}");
    assert!(summary["snapshot"].is_string());
    larder(&["backup", source]).expect(3).says("closed");
    larder(&["dump", &format!("latest:{source}/closed")]).expect(3);
    let good = larder(&["dump", &format!("latest:{source}/good")]).expect(0);
    assert_eq!(good.stdout, "good");
    // What is looked at and could not be read then is told of; what is beside it is not in the way.
    let told = "could not be read when the snapshot was made";
    for (path, more) in [("/closed", ""), ("/folder", ""), ("", "-R")] {
        let spec = format!("latest:{source}{path}");
        let arguments = ["ls", &spec, more];
        let arguments = arguments.iter().filter(|one| !one.is_empty()).copied();
        larder(&arguments.collect::<Vec<_>>()).expect(3).says(told);
    }
    for path in ["", "/good"] {
        let listed = larder(&["ls", &format!("latest:{source}{path}")]).expect(0);
        assert!(listed.stdout.contains("/good"), "{listed:?}");
    }
    let dumped = larder(&["dump", &format!("latest:{source}")]).expect(3);
    assert!(dumped.raw.len() > 1024, "{}", dumped.stderr);
    dumped.says(&format!("2 files and folders {told}"));
    larder(&["check", "--read-data"]).expect(0);
    // An ordinary user restores what he may: owners, special files and all.
    let target = world.path("target");
    let spec = format!("latest:{source}");
    let restored = larder(&["restore", &spec, "--target", target.to_str().unwrap()]);
    assert_eq!(
        fs::read(target.join("good")).unwrap(),
        b"good",
        "{restored:?}"
    );
}

#[test]
fn a_repository_is_cut_by_the_chunker_that_it_was_made_with() {
    for (name, kept) in [
        ("fastcdc", "fastcdc-v2020"),
        ("toeplitz-aes", "toeplitz-aes"),
    ] {
        let world = World::bare();
        world.ok(["init", "--chunker", name]);
        assert_eq!(world.json(["cat", "config"])["chunker"]["name"], kept);
        assert_eq!(world.json(["stats"])["chunker"], kept);
        assert!(world.ok(["stats"]).contains(kept));

        let mut content = noise(1, 12_000_000);
        world.write("large", &content);
        world.backup(&[]);
        let added = |summary: &Value| summary["statistics"]["bytes_added"].as_u64().unwrap();
        // Cut anew from start to end, the same chunks come out.
        let summary = world.backup(&["--force"]);
        assert_eq!(added(&summary), 0, "{name}: {summary}");
        content.splice(1_000_000..1_000_000, noise(2, 1001));
        world.write("large", &content);
        let summary = world.backup(&[]);
        // The chunk with the insertion, and what its other length may do to the next ones; and a
        // tree of two nodes.
        let added = added(&summary);
        assert!((1001..6_000_000).contains(&added), "{name}: {summary}");
        let target = world.restore("latest", "target");
        assert_eq!(fs::read(target.join("large")).unwrap(), content, "{name}");
        world.ok(["check", "--read-data"]);
    }
}

#[test]
fn a_new_repository_has_the_chunker_that_keeps_its_secret() {
    let world = World::new();
    let config = world.json(["cat", "config"]);
    assert_eq!(config["chunker"]["name"], "toeplitz-aes");
    assert_eq!(config["chunker"]["min_bytes"], 256 << 10);
    assert_eq!(config["chunker"]["mean_bytes"], 1 << 20);
    assert_eq!(config["chunker"]["max_bytes"], 4 << 20);
}

#[test]
fn a_chunker_of_another_name_is_no_chunker() {
    let world = World::bare();
    let run = world.run(["init", "--chunker", "rabin"]).expect(1);
    run.says("rabin").says("toeplitz-aes");
    world.ok(["init"]);
}

#[test]
fn a_listed_path_that_is_missing_ends_with_3() {
    let world = World::new();
    world.write("there", "x");
    let list = world.path("list");
    let source = world.source();
    fs::write(&list, format!("{0}/there\n{0}/missing\n", source.display())).unwrap();
    let mut command = world.command();
    command
        .arg("backup")
        .arg(&source)
        .arg("--files-from")
        .arg(&list);
    run(&mut command).expect(3).says("missing");
    let listed = world.ok(["ls", "-R", &format!("latest:{}", source.display())]);
    assert!(
        listed.contains("there") && !listed.contains("missing"),
        "{listed}"
    );
}

#[test]
fn damage_ends_with_4_and_harmless_damage_with_5() {
    let world = filled();
    world.ok(["check", "--read-data"]);
    let packs = files_below(&world.path("repo/packs"));
    let largest = packs
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let whole = fs::read(largest).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(largest, &bytes);
    let found = run(world.command().args(["--json", "check", "--read-data"])).expect(4);
    let finding = found
        .lines()
        .into_iter()
        .find(|line| line["severity"] == "loss")
        .unwrap();
    let name = largest.file_name().unwrap().to_str().unwrap();
    assert!(
        finding["object"].as_str().unwrap().contains(name),
        "{finding}"
    );
    assert!(finding["paths"].to_string().contains("/large"), "{finding}");
    assert!(found.summary()["loss"].as_u64().unwrap() >= 1);
    overwrite(largest, &whole);
    world.ok(["check", "--read-data"]);
    // The index says what the packs' own directories say too.
    for segment in files_below(&world.path("repo/index")) {
        fs::remove_file(segment).unwrap();
    }
    world.run(["check", "--read-data"]).expect(5);
    world.restore("latest~1", "after");
    let restored = world.path("after");
    assert_eq!(
        fs::read(restored.join("large")).unwrap(),
        noise(1, 3_000_000)
    );
}

#[test]
fn no_repository_ends_with_10() {
    let world = World::bare();
    world.write("file", "x");
    let source = world.source();
    for line in [
        &["snapshots"][..],
        &["check"],
        &["backup", source.to_str().unwrap()],
    ] {
        world.run(line).expect(10).says("larder init");
    }
    // A folder of something else is none either, and stays as it is.
    fs::create_dir(world.path("repo")).unwrap();
    fs::write(world.path("repo/diary"), "mine").unwrap();
    world.run(["snapshots"]).expect(10);
    let error = run(world.command().args(["--json", "snapshots"]))
        .expect(10)
        .stderr;
    let error: Value = serde_json::from_str(error.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&error["message_type"], &error["code"]),
        (&"error".into(), &10.into())
    );
    assert_eq!(files_below(&world.path("repo")).len(), 1);
}

#[test]
fn every_command_speaks_json() {
    let world = filled();
    let source = world.source();
    let source = source.to_str().unwrap();
    let (file, folder) = (
        format!("latest~1:{source}/large"),
        format!("latest~1:{source}"),
    );
    for line in [
        &["snapshots"][..],
        &["snapshots", "--partial"],
        &["ls", &folder],
        &["ls", "-R", &folder],
        &["ls", "latest"],
        &["find", "*.txt"],
        &["history", source],
        &["status"],
        &["key", "list"],
        &["cache", "list"],
    ] {
        let value = world.json(line);
        assert!(
            !value
                .as_array()
                .unwrap_or_else(|| panic!("{line:?}: no array"))
                .is_empty(),
            "{line:?}"
        );
    }
    for line in [
        &["find", "no such name"][..],
        &["snapshots", "--host", "none"],
        &["snapshots", "--forgotten"],
    ] {
        assert_eq!(world.json(line), Value::Array(Vec::new()), "{line:?}");
    }
    let man = world.path("man");
    let new_key = world.path("newkey");
    let id = ids(&world.json(["snapshots"])).remove(0);
    let pack = files_below(&world.path("repo/packs")).remove(0);
    let pack = pack.file_name().unwrap().to_str().unwrap();
    for line in [
        &["stats"][..],
        &["stats", "--history"],
        &["version"],
        &["cat", "config"],
        &["cat", "snapshot", &id],
        &["cat", "pack", pack],
        &["key", "generate", new_key.to_str().unwrap()],
        &["key", "add", "--new-key-file", new_key.to_str().unwrap()],
        &["key", "recovery", "--dry-run"],
        &["man", man.to_str().unwrap()],
        &["cache", "clean", "--dry-run"],
        &["tag", "--add", "more", "latest"],
        &["pin", "latest"],
        &["unpin", "latest"],
    ] {
        assert!(world.json(line).is_object(), "{line:?}");
    }
    let target = world.path("target");
    let target = target.to_str().unwrap();
    for line in [
        &["backup", source, "--dry-run"][..],
        &["restore", &file, "--target", target],
        &["restore", &file, "--target", target, "--dry-run"],
        &["check"],
        &["check", "--read-data=50%"],
        &["diff", "latest~2", "latest~1"],
        &["forget", "--keep-last", "1", "--dry-run"],
        &["forget", "--keep-last", "9"],
        &["prune", "--dry-run"],
        &["prune"],
        &["backup", source],
    ] {
        let lines = world.lines(line);
        assert!(
            lines.iter().all(|one| one["message_type"].is_string()),
            "{line:?}"
        );
        assert_eq!(lines.last().unwrap()["message_type"], "summary", "{line:?}");
    }
}

#[test]
fn a_tag_that_no_snapshot_may_have_is_refused_before_the_backup() {
    let world = World::new();
    world.write("file", "content");
    for (tag, why) in [
        ("a\u{1b}[2Jb", "control characters"),
        ("a\nb", "control"),
        ("", "empty"),
    ] {
        let mut command = world.command();
        command.args(["backup", "--tag", tag]).arg(world.source());
        run(&mut command).expect(1).says(why);
    }
    assert_eq!(ids(&world.json(["snapshots"])), Vec::<String>::new());
}

#[test]
fn the_cache_may_go_while_a_command_runs() {
    let world = filled();
    let patterns = world.path("patterns");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &patterns,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // A second machine's cache knows nothing of the newest snapshot, so there is something to feed.
    let cache = world.path("second");
    let mut command = world.command();
    command.arg("--cache-dir").arg(&cache);
    command.arg("backup").arg("--exclude-file").arg(&patterns);
    command.arg(world.source());
    let feeder = std::thread::spawn(move || {
        // Whoever reads the patterns has opened its cache.
        let pipe = fs::File::options().write(true).open(&patterns).unwrap();
        fs::remove_dir_all(&cache).unwrap();
        fs::remove_file(&patterns).unwrap();
        fs::write(&patterns, "nothing\n").unwrap();
        drop(pipe);
    });
    run(&mut command).expect(0);
    feeder.join().unwrap();
    world.ok(["check", "--read-data"]);
}

#[test]
fn a_snapshot_is_named_in_every_way() {
    let world = filled();
    let all = ids(&world.json(["snapshots"]));
    assert_eq!(all.len(), 3);
    let source = world.source();
    let source = source.to_str().unwrap();
    let listed = |spec: &str, more: &[&str]| world.ok([&["ls", spec], more].concat());
    let letters = |spec: &str| listed(&format!("{spec}:{source}/letters"), &[]);
    let (first, second) = (letters(&all[0]), letters(&all[1]));
    assert!(!first.contains("new.odt") && second.contains("new.odt"));
    assert_eq!(letters(&all[0][..12]), first);
    assert_eq!(letters("latest~2"), first);
    assert_eq!(letters("latest~1"), second);
    assert_eq!(letters("@[2026-01-10 12:00]"), first);
    assert_eq!(letters("@[2026-01-15]"), first);
    assert_eq!(letters("@[2026-01-25]"), second);
    assert!(listed("latest", &[]).contains("other"));
    let with = |more: &[&str]| listed(&format!("latest:{source}/letters"), more);
    assert_eq!(with(&["--host", "desk"]), second);
    assert_eq!(with(&["--tag", "first"]), first);
    assert_eq!(with(&["--tag", "both"]), second);
    assert_eq!(with(&["--path", source]), second);
    // From where one is, as `backup` takes its sources.
    let spec = format!("latest:{source}/letters");
    for (folder, relative) in [("", "source"), ("source", "."), ("home", "../source/")] {
        let mut command = world.command();
        command.current_dir(world.path(folder));
        let listed = run(command.args(["ls", &spec, "--path", relative])).expect(0);
        assert_eq!(listed.stdout, second, "{relative}");
    }
    world.run(["ls", &spec, "--path", "source"]).expect(1);
    for wrong in [
        "latest~3",
        "@[2026-01-01]",
        "0123456789abcdef0123456789abcdef",
    ] {
        world.run(["ls", wrong]).expect(1);
    }
    world.run(["ls", "latest", "--host", "nobody"]).expect(1);
    world
        .run(["ls", &format!("latest:{source}/letters/none")])
        .expect(1)
        .says("none");
}

#[test]
fn an_ambiguous_prefix_is_refused_and_names_what_it_could_mean() {
    let world = World::new();
    world.write("file", "x");
    // Seventeen ids: two of them begin with the same digit.
    for _ in 0..17 {
        world.backup(&[]);
    }
    let all = ids(&world.json(["snapshots"]));
    let first = |id: &String| id.chars().next().unwrap();
    let shared = all.iter().enumerate().find_map(|(at, id)| {
        let same = all[..at].iter().find(|other| first(other) == first(id))?;
        Some((first(same), same.clone(), id.clone()))
    });
    let (digit, one, other) = shared.unwrap();
    let refused = world.run(["ls", &digit.to_string()]).expect(1);
    assert!(
        refused.stderr.contains(&one[..8]) && refused.stderr.contains(&other[..8]),
        "{refused:?}"
    );
    world.ok(["ls", &one]);
}

#[test]
fn restore_dump_diff_and_find_agree_with_the_source() {
    let world = filled();
    let source = world.source();
    let shown = source.to_str().unwrap();
    // A folder, a file, and the whole.
    assert_same(&source, &world.restore("latest~1", "folder"));
    let target = world.path("file");
    let target_text = target.to_str().unwrap();
    world.ok([
        "restore",
        &format!("latest~1:{shown}/large"),
        "--target",
        target_text,
    ]);
    assert_eq!(fs::read(target.join("large")).unwrap(), noise(1, 3_000_000));
    let whole = world.path("whole");
    world.ok(["restore", "latest~1", "--target", whole.to_str().unwrap()]);
    assert_same(&source, &whole.join(shown.trim_start_matches('/')));
    // What is there already is not written again, and --delete removes the rest.
    fs::write(target.join("more"), "x").unwrap();
    let again = world.lines([
        "restore",
        &format!("latest~1:{shown}"),
        "--target",
        target_text,
        "--delete",
    ]);
    let again = again.last().unwrap();
    assert_eq!(
        (&again["deleted"], &again["unchanged"]),
        (&1.into(), &1.into()),
        "{again}"
    );
    assert_same(&source, &target);

    let dumped = world
        .run(["dump", &format!("latest~1:{shown}/large")])
        .expect(0);
    assert!(dumped.raw == noise(1, 3_000_000));
    let tar = world
        .run(["dump", &format!("latest~1:{shown}/letters")])
        .expect(0);
    let untarred = world.path("untarred");
    fs::create_dir(&untarred).unwrap();
    let mut child = Command::new("tar")
        .args(["-xpf", "-", "-C"])
        .arg(&untarred)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&tar.raw).unwrap();
    assert!(child.wait().unwrap().success());
    let inside = untarred.join("letters");
    let inside = if inside.is_dir() { inside } else { untarred };
    assert_eq!(fs::read(inside.join("b.txt")).unwrap(), b"Dear b\n");
    assert_eq!(fs::read_dir(inside).unwrap().count(), 3);

    let diff = world.ok(["-q", "diff", "latest~2", "latest~1"]);
    let mut lines: Vec<&str> = diff
        .lines()
        .filter(|line| !line.ends_with("/source"))
        .collect();
    lines.sort_unstable();
    let expected = [
        ("+", "letters/new.odt"),
        ("+", "turns"),
        ("-", "gone"),
        ("-", "turns"),
        ("M", "letters/a.txt"),
        ("U", "letters"),
        ("U", "mode"),
    ];
    let expected = expected.map(|(letter, path)| format!("{letter} {shown}/{path}"));
    assert_eq!(lines, expected, "{diff}");

    let found = |more: &[&str]| {
        world
            .json([&["find"], more].concat())
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(found(&["*.odt"]), 1);
    assert_eq!(found(&["A.TXT"]), 0);
    assert_eq!(found(&["-i", "A.TXT"]), 2);
    assert_eq!(found(&["*.odt", "--newer", "2023-01-01"]), 1);
    assert_eq!(found(&["*.odt", "--older", "2023-01-01"]), 0);
    assert_eq!(
        found(&["b.txt", "--older", "2023-01-01", "--tag", "first"]),
        1
    );
    assert_eq!(found(&["file", "--host", "lap"]), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_error_to_speak_of() {
    let world = World::new();
    for number in 0..3000 {
        world.write(&format!("a-rather-long-name-to-fill-the-pipe-{number}"), "");
    }
    world.backup(&[]);
    let spec = format!("latest:{}", world.source().display());
    let mut child = world
        .command()
        .args(["ls", "-R", &spec])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    drop(out);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert!(line.contains("source") || line.contains("name"), "{line}");
}

#[test]
fn a_cache_that_is_gone_or_damaged_is_built_again() {
    let world = filled();
    let caches = world.json(["cache", "list"]);
    let cache = caches[0]["path"].as_str().unwrap().to_owned();
    fs::remove_dir_all(&cache).unwrap();
    assert_same(&world.source(), &world.restore("latest~1", "one"));
    for file in files_below(cache.as_ref()) {
        let length = fs::metadata(&file).unwrap().len() as usize;
        overwrite(&file, &noise(7, length));
    }
    assert_same(&world.source(), &world.restore("latest~1", "two"));
    let again = world.backup(&["--ignore-ctime"]);
    assert_eq!(again["statistics"]["bytes_read"], 0, "{again}");
    world.ok(["cache", "clean"]);
    assert_eq!(world.json(["cache", "list"]), Value::Array(Vec::new()));
    world.ok(["check", "--read-data"]);
}

#[test]
fn two_backups_at_once_both_restore() {
    let world = World::new();
    let other = world.path("other");
    for number in 0..200 {
        let bytes = noise(number, 20_000);
        world.write(&format!("a{number}"), &bytes);
        crate::program::write_old(&other.join(format!("b{number}")), &bytes[..10_000]);
    }
    let start = |source: &std::path::Path| {
        let mut command = world.command();
        command.args(["--json", "backup"]).arg(source);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (one, two) = (start(&world.source()), start(&other));
    for child in [one, two] {
        let ended = child.wait_with_output().unwrap();
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    assert_eq!(ids(&world.json(["snapshots"])).len(), 2);
    world.ok(["check", "--read-data"]);
    let whole = world.path("whole");
    for source in [world.source(), other] {
        let path = source.to_str().unwrap();
        world.ok([
            "restore",
            "latest",
            "--path",
            path,
            "--target",
            whole.to_str().unwrap(),
        ]);
        assert_same(&source, &whole.join(path.trim_start_matches('/')));
    }
}

#[test]
fn larder_toml_is_used_flags_beat_it_and_wrong_keys_are_named() {
    let world = World::new();
    world.write("keep", "x");
    world.write("leave.o", "x");
    let settings = world.path("home/.config/larder/larder.toml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    let text = format!(
        "repository = {:?}\nkey-file = {:?}\n[backup]\nsources = [{:?}]\nexclude = ['*.o']\nhost = 'file'\n",
        world.path("repo"),
        world.path("key"),
        world.source()
    );
    fs::write(&settings, &text).unwrap();
    let larder = |arguments: &[&str]| {
        let mut command = world.bare_command();
        command.env_remove("LARDER_REPO").env_remove("LARDER_HOST");
        run(command.args(arguments))
    };
    larder(&["backup"]).expect(0);
    let listed = larder(&["ls", "-R", &format!("latest:{}", world.source().display())])
        .expect(0)
        .stdout;
    assert!(
        listed.contains("keep") && !listed.contains("leave.o"),
        "{listed}"
    );
    larder(&["backup", "--host", "flag"]).expect(0);
    let hosts = larder(&["--json", "snapshots"]).expect(0).stdout;
    assert!(
        hosts.contains("\"file\"") && hosts.contains("\"flag\""),
        "{hosts}"
    );
    larder(&["-r", world.path("none").to_str().unwrap(), "snapshots"]).expect(10);
    fs::write(&settings, text.replace("host =", "hots =")).unwrap();
    let wrong = larder(&["snapshots"]).expect(1).says("hots").stderr;
    assert!(
        wrong.contains("line 6") && wrong.contains("column"),
        "{wrong}"
    );
}

/// Replaces a file's bytes, though a repository's files are read-only.
fn overwrite(path: &std::path::Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn a_prune_says_what_it_would_free_and_then_frees_it() {
    let world = filled();
    let orphan = format!("packs/ab/{}", "ab".repeat(32));
    let orphan = world.path("repo").join(orphan);
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, noise(9, 20_480)).unwrap();
    let prune = |arguments: &[&str]| {
        let mut command = world.command();
        run(command.arg("prune").args(arguments))
    };
    let shown = prune(&["--dry-run"]).expect(0).stdout;
    assert!(
        shown.contains("packs of no finished backup     1, 20.000 KiB"),
        "{shown}"
    );
    assert!(
        shown.ends_with("nothing was changed (dry run)\n"),
        "{shown}"
    );
    assert!(orphan.exists());
    let shown = prune(&[]).expect(0).stdout;
    assert!(shown.contains("deleted 1 pack, 20.000 KiB"), "{shown}");
    assert!(!orphan.exists());
    assert_eq!(prune(&["-q"]).expect(0).stdout, "");
    let mut check = world.command();
    run(check.args(["check", "--read-data"])).expect(0);
    // What this version does not know may need anything.
    fs::create_dir(world.path("repo/parity")).unwrap();
    fs::write(world.path("repo/parity/00"), "").unwrap();
    prune(&[]).expect(1).says("parity/00");
}

#[test]
fn monitoring_learns_from_the_exit_code_whether_a_backup_is_too_old() {
    let world = filled();
    world.run(["status", "--max-age", "900000h"]).expect(0);
    let old = world.run(["status", "--max-age", "1h"]).expect(6);
    assert!(old.stdout.contains("too old"));
    let none = world.run(["status", "--max-age", "1h", "--host", "nobody"]);
    assert!(none.expect(6).stdout.contains("no snapshots"));
    world.run(["status", "--host", "nobody"]).expect(0);
    world
        .run(["--json", "status", "--prometheus"])
        .expect(1)
        .says("choose one");
    let metrics = world.run(["status", "--prometheus"]).expect(0).stdout;
    assert_eq!(metrics.matches("\nlarder_snapshots{").count(), 2);
}
