#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::args::{Arguments, Command};
use crate::settings::Settings;
use larder_engine::snapshots::Statistics;

fn options(flags: &str, file: &str) -> anyhow::Result<BackupOptions> {
    let line = format!("larder backup {flags}");
    let arguments = Arguments::read(line.split_whitespace())?;
    let Command::Backup(args) = arguments.command else {
        bail!("not a backup");
    };
    let settings = Settings::parse(&format!("[backup]\n{file}"), Path::new("larder.toml"))?;
    let now = "2026-11-03T10:00:00[UTC]".parse()?;
    args.options(&settings, &|_| None, &now)
}

#[test]
fn flags_win_over_the_file_and_patterns_add_up() {
    let file = "sources = ['/file']\nexclude = ['*.o']\nexclude-caches = true\ntag = ['t']\n\
                compression = '9'\nsolid = false\ncheckpoint-interval = '10m'\n\
                exclude-larger-than = '1K'\nhost = 'h'\none-file-system = true\nno-verify-blocks = true";
    let made = options("", file).unwrap();
    assert_eq!(made.sources, [Path::new("/file")]);
    assert_eq!(made.selection.exclude, ["*.o"]);
    assert!(made.selection.exclude_caches && made.selection.one_file_system && !made.solid);
    assert_eq!(made.compression, Compression::Level(9));
    assert_eq!(
        (made.checkpoints.seconds, made.tags),
        (600, vec!["t".to_owned()])
    );
    assert_eq!(made.selection.exclude_larger_than, Some(1024));
    assert_eq!(made.host, "h");
    assert!(!made.verify_blocks);

    let flags = "/flag --exclude !a.o --exclude-caches=false --tag x,y --compression off \
                 --solid on --checkpoint-interval 7 --exclude-larger-than 2M --host f -x \
                 --no-verify-blocks=false";
    let made = options(flags, file).unwrap();
    assert_eq!(made.sources, [Path::new("/flag")]);
    assert_eq!(made.selection.exclude, ["*.o", "!a.o"]);
    assert!(!made.selection.exclude_caches && made.selection.one_file_system && made.solid);
    assert_eq!(made.compression, Compression::Off);
    assert_eq!((made.checkpoints.seconds, made.host.as_str()), (7, "f"));
    assert_eq!(made.tags, ["x", "y"]);
    assert_eq!(made.selection.exclude_larger_than, Some(2 << 20));
    assert!(made.verify_blocks);
}

#[test]
fn without_flags_and_file_the_defaults_hold() {
    let made = options("/a", "").unwrap();
    assert_eq!(made.compression, Compression::Auto);
    assert!(made.solid && !made.force && !made.dry_run && made.time.is_none());
    assert!(made.verify_blocks);
    assert_eq!(made.checkpoints.seconds, CHECKPOINT_SECONDS);
    assert!(!made.host.is_empty() && !made.user.is_empty());
}

#[test]
fn a_switch_does_not_swallow_the_source_after_it() {
    let made = options("--one-file-system /a --with-atime /b --force", "").unwrap();
    assert_eq!(made.sources, [Path::new("/a"), Path::new("/b")]);
    assert!(made.selection.one_file_system && made.with_atime && made.force);
}

#[test]
fn bad_values_name_where_they_stand() {
    let error = |flags: &str, file: &str| format!("{:#}", options(flags, file).unwrap_err());
    assert!(error("", "").contains("nothing to back up was named"));
    assert!(error("/a", "compression = 'best'").contains("[backup] compression"));
    assert!(error("--checkpoint-interval 0 /a", "").contains("at least a second"));
    assert!(error("/a", "checkpoint-interval = 'soon'").contains("[backup] checkpoint-interval"));
    assert!(error("/a", "exclude-larger-than = 'x'").contains("[backup] exclude-larger-than"));
    assert!(error("/a --time soon", "").contains("--time"));
}

#[test]
fn paths_are_made_absolute_without_following_the_last_link() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("real/inner")).unwrap();
    std::os::unix::fs::symlink("real/inner", root.join("link")).unwrap();
    let made = |path: &str| absolute(Path::new(path), &root).unwrap();
    assert_eq!(made("link"), root.join("link"));
    assert_eq!(made("./a//b/."), root.join("a/b"));
    assert_eq!(made("a/../b"), root.join("b"));
    assert_eq!(made("link/../x"), root.join("real/x"));
    assert_eq!(made("/"), Path::new("/"));
    assert_eq!(made("/../.."), Path::new("/"));
    assert!(absolute(Path::new(""), &root).is_err());
}

#[test]
fn lists_of_files_are_read_line_by_line_or_nul_by_nul() {
    let shown = |paths: Vec<PathBuf>| {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    let text: Vec<String> = shown(lines(b"/a\n\n# note\r\n b c \r\n/d"));
    assert_eq!(text, ["/a", " b c ", "/d"]);
    let raw: Vec<String> = shown(records(b"# note\0a\nb\0\0/d"));
    assert_eq!(raw, ["# note", "a\nb", "/d"]);
}

#[test]
fn a_list_of_files_replaces_the_sources_of_the_file_but_not_those_of_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    std::fs::write(&list, "/home/a\n").unwrap();
    let flag = format!("--files-from {}", list.display());
    let made = options(&flag, "sources = ['/file']").unwrap();
    assert!(made.sources.is_empty());
    assert_eq!(made.selection.only, [Path::new("/home/a")]);
    let made = options(&format!("/home {flag}"), "").unwrap();
    assert_eq!(made.sources, [Path::new("/home")]);
    std::fs::write(&list, "# nothing\n").unwrap();
    assert!(options(&flag, "").is_err());
}

#[test]
fn the_summary_says_what_was_done() {
    let report = BackupReport {
        snapshot: Some("0123456789abcdef".into()),
        parent: Some("fedcba9876543210".into()),
        resumed_from: None,
        unchanged: false,
        statistics: Statistics {
            files: 1200,
            new: 3,
            changed: 2,
            unchanged: 1195,
            unreadable: 1,
            bytes: 3 << 30,
            bytes_read: 5 << 20,
            bytes_added: 4 << 20,
            bytes_stored: 1 << 20,
            ..Statistics::default()
        },
        issues: Vec::new(),
        issue_count: 2,
        cold: 0,
        tags_asked: 0,
        unlisted: Vec::new(),
        shard: None,
        hooks: Vec::new(),
        seconds: 4.25,
    };
    let expected = "\
compared with   snapshot fedcba98
entries         3 new, 2 changed, 1,195 unchanged
source          3.000 GiB in 1,200 files, 5.000 MiB read
added           4.000 MiB, 1.000 MiB stored
time            4.25 s
warning         2 paths could not be read in full
snapshot 01234567 saved";
    assert_eq!(summary(&report, false), expected);
    let shard = |joined: Option<&str>, missing: &[u64], finished_before| BackupReport {
        shard: Some(ShardReport {
            run: "nightly".into(),
            number: 2,
            count: 4,
            part: Some("89abcdef01234567".into()),
            finished_before,
            missing: missing.into(),
            joined: joined.map(str::to_owned),
        }),
        snapshot: joined.map(str::to_owned),
        ..report.clone()
    };
    for (report, expected) in [
        (
            shard(None, &[1, 4], false),
            "shard 2 of 4 of the run nightly is finished; shards 1 and 4 are not yet",
        ),
        (
            shard(None, &[3], true),
            "shard 2 of 4 of the run nightly was finished already; shard 3 is not yet",
        ),
        (
            shard(Some("0123456789abcdef"), &[], false),
            "shard 2 of 4 of the run nightly is finished, and it was the last\nsnapshot 01234567 saved",
        ),
        (
            shard(Some("0123456789abcdef"), &[], true),
            "the run nightly is finished already: snapshot 01234567; nothing was done; a new run needs a new --run",
        ),
    ] {
        assert!(
            summary(&report, false).ends_with(expected),
            "{}",
            summary(&report, false)
        );
    }
    let dry = BackupReport {
        snapshot: None,
        ..report
    };
    assert!(summary(&dry, true).ends_with("nothing was written"));
    assert!(summary(&dry, true).contains("would add       4.000 MiB"));
    assert!(summary(&dry, false).ends_with("no snapshot was made"));
}
