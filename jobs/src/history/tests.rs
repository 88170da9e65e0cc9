#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn beginning(second: i64) -> Beginning {
    Beginning {
        kind: Kind::Backup,
        trigger: Trigger::Schedule,
        slot: Some(at(second - 5)),
        started: at(second),
    }
}

fn ending(second: i64, outcome: Outcome) -> Ending {
    Ending {
        ended: at(second),
        outcome,
        exit_code: 3,
        snapshot: Some("0123".to_owned()),
        figures: Figures {
            files: Some(7),
            bytes: Some(u64::MAX),
            bytes_read: None,
            bytes_stored: Some(0),
        },
        error: Some("ß".repeat(ERROR_BYTES)),
    }
}

fn outcomes(history: &History, job: &str) -> Vec<Option<Outcome>> {
    let runs = history.runs(Some(job), 1000).unwrap();
    runs.into_iter().map(|run| run.outcome).collect()
}

#[test]
fn a_run_is_kept_as_it_was_told_over_processes() {
    let folder = tempfile::tempdir().unwrap();
    let lock = JobLock::take(folder.path(), "photos").unwrap();
    let history = History::open(folder.path()).unwrap();
    let id = history.begin(&lock, &beginning(10)).unwrap();
    let running = history.runs(None, 10).unwrap();
    assert_eq!((running.len(), running[0].outcome), (1, None));
    history.end(id, &ending(20, Outcome::Incomplete)).unwrap();
    drop(history);

    let history = History::open(folder.path()).unwrap();
    let runs = history.runs(Some("photos"), 10).unwrap();
    let expected = Run {
        id,
        job: "photos".to_owned(),
        kind: Kind::Backup,
        trigger: Trigger::Schedule,
        slot: Some(at(5)),
        started: at(10),
        ended: Some(at(20)),
        outcome: Some(Outcome::Incomplete),
        exit_code: Some(3),
        snapshot: Some("0123".to_owned()),
        figures: Figures {
            files: Some(7),
            bytes: Some(i64::MAX as u64),
            bytes_read: None,
            bytes_stored: Some(0),
        },
        error: Some("ß".repeat(ERROR_BYTES / 2)),
    };
    assert_eq!(runs, [expected]);
    assert!(history.runs(Some("mail"), 10).unwrap().is_empty());
}

#[test]
fn a_run_that_died_is_found_by_who_has_its_lock_and_no_other_is_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::open(folder.path()).unwrap();
    let photos = JobLock::take(folder.path(), "photos").unwrap();
    let mail = JobLock::take(folder.path(), "mail").unwrap();
    history.begin(&photos, &beginning(10)).unwrap();
    history.begin(&mail, &beginning(11)).unwrap();
    history.settle_all().unwrap();
    assert_eq!(outcomes(&history, "photos"), [None]);
    // What the kernel does for a process that is killed.
    drop(photos);
    history.settle_all().unwrap();
    assert_eq!(outcomes(&history, "photos"), [Some(Outcome::Died)]);
    assert_eq!(outcomes(&history, "mail"), [None]);
    // The next run finds it as well, and neither is lost or doubled.
    drop(mail);
    let mail = JobLock::take(folder.path(), "mail").unwrap();
    let id = history.begin(&mail, &beginning(12)).unwrap();
    history.end(id, &ending(13, Outcome::Success)).unwrap();
    history.settle_all().unwrap();
    let expected = [Some(Outcome::Success), Some(Outcome::Died)];
    assert_eq!(outcomes(&history, "mail"), expected);
}

#[test]
fn old_runs_go_and_those_of_other_kinds_and_jobs_stay() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::open(folder.path()).unwrap();
    history
        .connection
        .execute_batch("PRAGMA synchronous = OFF")
        .unwrap();
    let run = |job: &str, kind, second| {
        let lock = JobLock::take(folder.path(), job).unwrap();
        let beginning = Beginning {
            kind,
            ..beginning(second)
        };
        let id = history.begin(&lock, &beginning).unwrap();
        history.end(id, &ending(second, Outcome::Success)).unwrap();
        id
    };
    let check = run("photos", Kind::Check, 1);
    let mail = run("mail", Kind::Backup, 2);
    let first = run("photos", Kind::Backup, 3);
    for second in 0..KEPT {
        run("photos", Kind::Backup, 10 + second);
    }
    let runs = history.runs(None, 10_000).unwrap();
    assert_eq!(runs.len() as i64, KEPT + 2);
    let has = |id| runs.iter().any(|run| run.id == id);
    assert!(has(check) && has(mail) && !has(first));
}

#[test]
fn what_is_next_depends_on_what_counts() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::open(folder.path()).unwrap();
    let past = |now| history.past("photos", Kind::Backup, at(now)).unwrap();
    let expected = Past {
        last_run: None,
        known_since: at(1),
        died: false,
    };
    assert_eq!([past(1), past(2)], [expected; 2]);
    let lock = || JobLock::take(folder.path(), "photos").unwrap();
    // In its turn: the time of its turn counts.
    let id = history.begin(&lock(), &beginning(10)).unwrap();
    assert_eq!(past(11).last_run, Some(at(5)));
    history.end(id, &ending(11, Outcome::Failure)).unwrap();
    assert_eq!(past(12).last_run, Some(at(5)));
    // By hand: its beginning does.
    let manual = Beginning {
        trigger: Trigger::Manual,
        slot: None,
        ..beginning(20)
    };
    let id = history.begin(&lock(), &manual).unwrap();
    history.end(id, &ending(21, Outcome::Success)).unwrap();
    assert_eq!(past(22).last_run, Some(at(20)));
    // One that died does not count, until another one died making up for it.
    history.begin(&lock(), &beginning(30)).unwrap();
    history.settle(&lock()).unwrap();
    let died = past(31);
    assert_eq!((died.last_run, died.died), (Some(at(20)), true));
    let again = Beginning {
        trigger: Trigger::CatchUp,
        slot: None,
        ..beginning(40)
    };
    history.begin(&lock(), &again).unwrap();
    history.settle(&lock()).unwrap();
    let died = past(41);
    assert_eq!((died.last_run, died.died), (Some(at(40)), false));
    // What was missed is no run, and is known.
    history
        .missed(&lock(), Kind::Backup, at(50), at(60))
        .unwrap();
    let missed = past(61);
    assert_eq!(
        (missed.last_run, missed.known_since),
        (Some(at(40)), at(60))
    );
    // Other kinds and jobs are others, and so is one of the same name later on.
    assert_eq!(
        history
            .past("photos", Kind::Prune, at(70))
            .unwrap()
            .last_run,
        None
    );
    history.forget("photos").unwrap();
    assert_eq!(
        history
            .past("photos", Kind::Check, at(80))
            .unwrap()
            .known_since,
        at(80)
    );
}

#[test]
fn damage_is_told_and_moved_aside_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    drop(History::open(folder.path()).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn[100..whole.len()].fill(0x5a);
    let other = {
        let other = folder.path().join("other.db");
        let connection = Connection::open(&other).unwrap();
        connection.execute_batch("CREATE TABLE a (b)").unwrap();
        std::fs::read(&other).unwrap()
    };
    for (number, bytes) in [&b"this is no database at all"[..], &torn, &other]
        .into_iter()
        .enumerate()
    {
        for name in ["history.db-wal", "history.db-shm"] {
            let _ = std::fs::remove_file(folder.path().join(name));
        }
        std::fs::write(&path, bytes).unwrap();
        let error = History::open(folder.path()).err().unwrap();
        assert!(
            matches!(error, HistoryError::Damaged { .. }),
            "{number}: {error}"
        );
        assert!(error.to_string().contains("history.db is damaged"));
        let now = at(number as i64);
        let (history, damage) = History::open_or_begin(folder.path(), now).unwrap();
        assert!(damage.is_some() && history.runs(None, 1).unwrap().is_empty());
        drop(history);
        let aside = format!("history.db.damaged-{}", now.as_second());
        assert_eq!(std::fs::read(folder.path().join(aside)).unwrap(), bytes);
        let (_, damage) = History::open_or_begin(folder.path(), now).unwrap();
        assert!(damage.is_none());
    }
}

#[test]
fn a_newer_history_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::open(folder.path()).unwrap();
    history
        .connection
        .execute_batch("PRAGMA user_version = 2")
        .unwrap();
    drop(history);
    let error = History::open_or_begin(folder.path(), at(0)).err().unwrap();
    assert!(matches!(error, HistoryError::Newer { .. }), "{error}");
}

#[test]
fn many_write_at_once_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::thread::scope(|scope| {
        for job in ["a", "b", "c", "d"] {
            scope.spawn(move || {
                let history = History::open(folder).unwrap();
                let lock = JobLock::take(folder, job).unwrap();
                for second in 0..10 {
                    let id = history.begin(&lock, &beginning(second)).unwrap();
                    history.end(id, &ending(second, Outcome::Success)).unwrap();
                }
            });
        }
    });
    let history = History::open(folder).unwrap();
    for job in ["a", "b", "c", "d"] {
        assert_eq!(outcomes(&history, job), [Some(Outcome::Success); 10]);
    }
}
