#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use larder_jobs::schedule::Rhythm;

use super::*;
use crate::settings::Settings;

const WHOLE: &str = "location = '/srv/b'\nsources = ['/home']\n";

fn jobs(text: &str) -> Jobs {
    Settings::parse(text, Path::new("larder.toml"))
        .unwrap()
        .jobs
}

fn job(more: &str) -> Job {
    let mut jobs = jobs(&format!("[jobs.nightly]\n{WHOLE}{more}"));
    jobs.0.remove("nightly").unwrap()
}

fn mistake(text: &str) -> String {
    let jobs = jobs(text);
    jobs.0.into_values().find_map(|job| job.mistake).unwrap()
}

#[test]
fn a_job_says_what_a_backup_may_say_and_when() {
    let job = job(
        "every = 2\nhours = [1, 13]\nexclude = ['*.o']\ntag = ['t']\njitter = '10m'\n\
                   time-limit = '8h'\nkeep-days = 30\nping-start = 'https://hc.example/x'\n\
                   [jobs.nightly.prune]\nevery = 7\nhours = [3]\nmax-unused = '10%'\n\
                   [jobs.nightly.check]\ncron = '0 5 * * sun'\ntime-zone = 'Europe/Berlin'\nmax-duration = '30m'\n",
    );
    assert_eq!(job.mistake, None);
    assert_eq!(job.backup.sources, [Path::new("/home")]);
    assert_eq!(
        (&job.backup.exclude[..], &job.backup.tag[..]),
        (&["*.o".to_owned()][..], &["t".to_owned()][..])
    );
    let plan = job.plan().unwrap();
    assert_eq!(
        plan.backup.unwrap().rhythm,
        Rhythm::days(2, &[1, 13]).unwrap()
    );
    assert_eq!(plan.prune.unwrap().rhythm, Rhythm::days(7, &[3]).unwrap());
    assert!(matches!(plan.check.unwrap().rhythm, Rhythm::Cron { .. }));
}

#[test]
fn schedules_retention_and_limits_are_planned() {
    let plan = |more: &str| job(more).plan().unwrap();
    let made = plan("hours = [1]");
    let schedule = made.backup.unwrap();
    assert_eq!(schedule.rhythm, Rhythm::days(1, &[1]).unwrap());
    assert!(schedule.catch_up && schedule.jitter_seconds == 0);
    assert!(made.prune.is_none() && made.check.is_none() && made.keep.is_none());
    let made = plan(
        "every = 2\nhours = [1]\ncatch-up = false\njitter = '10m'\ntime-limit = '2d'\nkeep-days = 30",
    );
    let schedule = made.backup.unwrap();
    assert!(!schedule.catch_up && schedule.jitter_seconds == 600);
    assert_eq!(made.time_limit.unwrap().as_secs(), 2 * 86_400);
    let keep = made.keep.unwrap();
    assert_eq!(
        (keep.keep_within.as_deref(), keep.group_by.as_deref()),
        (Some("30d"), Some(""))
    );
    // By hand alone.
    assert!(plan("").backup.is_none());
    let made = plan("[jobs.nightly.forget]\nkeep-daily = 7\ngroup-by = 'paths'");
    assert_eq!(made.keep.unwrap().group_by.as_deref(), Some("paths"));
}

#[test]
fn a_mistake_names_its_place() {
    let at = |line: usize, column: usize| format!("larder.toml, line {line}, column {column}: ");
    for (more, line, column, why) in [
        ("every = 0\nhours = [1]", 4, 9, "0 is no number of days"),
        ("hours = [24]", 4, 9, "24 is no hour"),
        ("every = 2", 1, 7, "would never run"),
        ("cron = '0 0 30 2 *'", 4, 8, "can never be"),
        ("cron = '0 3 * *'", 4, 8, "4 fields"),
        (
            "cron = '0 3 * * *'\ntime-zone = 'Europe/Nowhere'",
            5,
            13,
            "no time zone",
        ),
        (
            "hours = [1]\ncron = '0 3 * * *'",
            5,
            8,
            "leave one of both out",
        ),
        ("hours = [1]\ntime-zone = 'UTC'", 5, 13, "hours are in UTC"),
        ("hours = 'x'", 4, 9, "sequence"),
        ("huors = [1]", 4, 1, "did you mean 'hours'?"),
        (
            "exlude = []",
            4,
            1,
            "in [jobs.nightly]; did you mean 'exclude'?",
        ),
        ("exclude = 3", 4, 11, "sequence"),
        ("compression = '99'", 4, 15, "1 to 19"),
        ("tag = ['a,b']", 4, 7, "comma"),
        ("jitter = '2d'", 4, 10, "not a duration"),
        ("jitter = '13h'", 4, 10, "12h at most"),
        ("time-limit = '0'", 4, 14, "nothing would ever be done"),
        ("keep-days = 0", 4, 13, "would keep none"),
        (
            "keep-days = 3\n[jobs.nightly.forget]\nkeep-last = 1",
            4,
            13,
            "leave one of both out",
        ),
        ("[jobs.nightly.forget]\n", 4, 1, "no rule keeps a snapshot"),
        (
            "[jobs.nightly.forget]\nkeep-last = 0\nkeep-daily = 0",
            4,
            1,
            "no rule keeps a snapshot",
        ),
        ("[jobs.nightly.forget]\nkeep-daily = -7", 4, 1, "keep-daily"),
        (
            "[jobs.nightly.prune]\nmax-unused = '5%'",
            4,
            1,
            "names no time",
        ),
        (
            "[jobs.nightly.prune]\nevry = 5",
            5,
            1,
            "in [jobs.nightly.prune]; did you mean 'every'?",
        ),
        ("[jobs.nightly.check]\nhours = [25]", 5, 9, "25 is no hour"),
        (
            "[jobs.nightly.prune]\nhours = [3]\nmax-unused = '200%'",
            4,
            1,
            "between 0% and 100%",
        ),
        (
            "[jobs.nightly.check]\nhours = [3]\nlevel = 'qick'",
            4,
            1,
            "invalid value 'qick'",
        ),
        (
            "[jobs.nightly.check]\nhours = [3]\nlevel = 'quick'\nmax-age = '7d'",
            6,
            9,
            "of the level data",
        ),
        (
            "[jobs.nightly.check]\nhours = [3]\nsample = 5",
            6,
            10,
            "of the level drill",
        ),
        ("webhook = 'ftp://x'", 4, 11, "https://"),
        ("[jobs.nightly.mail]\nserver = 'a b'", 5, 10, "is no server"),
        (
            "[jobs.nightly.mail]\nserver = 'h'\nfrom = 'me'",
            6,
            8,
            "no address for mail",
        ),
        (
            "[jobs.nightly.mail]\nserver = 'h'\nfrom = 'a@b.c'\nto = []",
            7,
            6,
            "goes to nobody",
        ),
        (
            "[jobs.nightly.mail]\nserver = 'h'\nfrom = 'a@b.c'\nto = ['a@b.c']\nsecurity = 'ssl'",
            8,
            12,
            "tls, starttls or none",
        ),
        (
            "[jobs.nightly.mail]\nserver = 'h'\nfrom = 'a@b.c'\nto = ['a@b.c']\nuser = 'me'",
            8,
            8,
            "needs a password",
        ),
        (
            "[jobs.nightly.mail]\nserver = 'h'\nfrom = 'a@b.c'\nto = ['a@b.c']\nuser = 'me'\npassword-file = 'p'\nsecurity = 'none'",
            10,
            12,
            "could read the password",
        ),
        (
            "[jobs.nightly.mail]\nsever = 'h'",
            5,
            1,
            "in [jobs.nightly.mail]; did you mean 'server'?",
        ),
        (
            "password-file = 'a'\nkey-file = 'b'",
            5,
            12,
            "more than one",
        ),
    ] {
        let found = mistake(&format!("[jobs.nightly]\n{WHOLE}{more}\n"));
        assert!(
            found.starts_with(&at(line, column)) && found.contains(why),
            "{more}: {found}"
        );
    }
    assert!(mistake("[jobs.a]\nsources = ['/x']").contains("no location"));
    assert!(mistake("[jobs.a]\nlocation = '/x'").contains("backs nothing up"));
    assert!(mistake("[jobs.'a/b']\n").contains("cannot be the name of a job"));
    assert!(mistake("[jobs]\na = 3").starts_with(&at(2, 1)));
    let none = Settings::parse("jobs = 3", Path::new("larder.toml"));
    assert!(none.unwrap_err().to_string().starts_with(&at(1, 8)));
    // The others can be used.
    let both = jobs(&format!("[jobs.a]\n{WHOLE}\n[jobs.b]\n"));
    let mistaken: Vec<_> = both.0.values().map(|job| job.mistake.is_some()).collect();
    assert_eq!(mistaken, [false, true]);
}

#[test]
fn a_repository_inside_of_its_own_sources_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::symlink(&home, folder.path().join("link")).unwrap();
    let placed = |location: &str, more: &str| {
        let text = format!(
            "[locations.disk]\nurl = 'home/disk'\n[jobs.a]\nlocation = '{location}'\nsources = ['home']\n{more}"
        );
        let mut jobs = jobs(&text);
        let settings = Settings::parse(&text, Path::new("larder.toml")).unwrap();
        let mut locations = settings.locations;
        let base = folder.path();
        locations.place_paths(&|path| base.join(path).display().to_string());
        jobs.place_paths(&locations, &|path| base.join(path));
        jobs.0.remove("a").unwrap()
    };
    for location in ["home/repo", "home", "link/repo", "disk"] {
        let mistake = placed(location, "").mistake.unwrap();
        let place = "larder.toml, line 4, column 12: the repository ";
        assert!(
            mistake.starts_with(place) && mistake.contains("exclude = ["),
            "{location}: {mistake}"
        );
    }
    for location in ["homes/repo", "repo", "s3://bucket/home"] {
        assert_eq!(placed(location, "").mistake, None, "{location}");
    }
    let exclude = format!("exclude = ['{}/**']", home.join("repo").display());
    assert_eq!(placed("home/repo", &exclude).mistake, None);
    assert!(placed("home/repo2", &exclude).mistake.is_some());
}

#[test]
fn paths_are_placed_and_commands_are_not() {
    let mut jobs = jobs(
        "[locations.nas]\nurl = 'sftp://nas/x'\n[jobs.a]\nlocation = 'nas'\nsources = ['here', 's3://bucket']\n\
         password-file = 'secret'\nexclude-file = ['out']\n\
         [jobs.a.mail]\nserver = 'h'\nfrom = 'a@b.c'\nto = ['a@b.c']\nuser = 'me'\npassword-file = 'mail'\nca-certificate = 'ca.pem'\n[jobs.b]\nlocation = 'repo'\nsources = ['/x']\npassword-command = 'pass x'\n",
    );
    let locations = Settings::parse("[locations.nas]\nurl = 'sftp://nas/x'", Path::new("x"))
        .unwrap()
        .locations;
    jobs.place_paths(&locations, &|path| Path::new("/conf").join(path));
    let a = jobs.0.remove("a").unwrap();
    assert_eq!(a.settings.location, "nas");
    assert_eq!(
        a.backup.sources,
        [Path::new("/conf/here"), Path::new("s3://bucket")]
    );
    assert_eq!(a.backup.exclude_file, [Path::new("/conf/out")]);
    assert_eq!(
        a.settings.password_file.as_deref(),
        Some(Path::new("/conf/secret"))
    );
    let server = a.settings.mail.unwrap().server().unwrap();
    assert_eq!(server.ca_certificate.as_deref(), Some("/conf/ca.pem"));
    assert_eq!(server.port, 465);
    let (user, password) = server.login.unwrap();
    assert_eq!(
        (user.as_str(), password.to_string().as_str()),
        ("me", "file /conf/mail")
    );
    let b = jobs.0.remove("b").unwrap();
    assert_eq!(b.settings.location, "/conf/repo");
    assert_eq!(b.settings.password_command.as_deref(), Some("pass x"));
}
