#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::json;

use super::*;

/// A program that does what its first argument says.
fn runs(folder: &Path) -> Arc<Runs> {
    let program = Program::new("/bin/sh".into(), vec!["-c".into()]);
    Runs::open(folder.to_owned(), program).unwrap()
}

fn wanted(script: &str) -> Wanted {
    Wanted {
        kind: "job",
        job: Some("nightly".to_owned()),
        location: None,
        trigger: "manual",
        by: "me".to_owned(),
        dry_run: false,
        line: child::Line::new([script]),
        key: None,
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Waits until a run wrote its status: then it listens.
async fn has_written(run: &Run) {
    while run.shown()["progress"].is_null() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_run_is_watched_to_its_end_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"echo '{"message_type":"status","n":1}'; echo '{"message_type":"summary","n":2}'; echo x >&2; exit 3"#;
    let id = block_on(async {
        let runs = runs(folder.path());
        let (run, is_new) = runs.start(wanted(script)).unwrap();
        assert!(is_new);
        let record = run.ended().await;
        assert_eq!(record.outcome, Some(Outcome::Incomplete));
        assert_eq!(record.exit_code, Some(3));
        assert_eq!(record.summary.unwrap()["n"], 2);
        assert_eq!(runs.running(), 0);
        assert_eq!(runs.counts()[&("job".to_owned(), Outcome::Incomplete)], 1);
        record.id
    });
    block_on(async {
        let runs = runs(folder.path());
        let run = runs.find(&id).unwrap();
        assert_eq!(run.record().outcome, Some(Outcome::Incomplete));
        let (items, more) = log::page(&run.files, 0, 10).unwrap();
        assert_eq!((items.len(), more), (2, false));
        assert_eq!(items[1], json!({"message_type": "stderr", "text": "x"}));
        assert_eq!(runs.find("x").err().unwrap().status, 404);
        assert_eq!(run.cancel().unwrap_err().status, 409);
    });
}

#[test]
fn of_a_job_nothing_is_run_twice_at_a_time_and_a_run_stops_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let runs = runs(folder.path());
        let (run, _) = runs.start(wanted("exec sleep 1000")).unwrap();
        let refused = runs.start(wanted("true")).err().unwrap();
        assert_eq!((refused.status.as_u16(), refused.code), (409, Some(BUSY)));
        assert_eq!(runs.running_job("nightly").unwrap().id(), run.id());
        run.cancel().unwrap();
        // The script knows nothing of safe points.
        assert_eq!(run.ended().await.outcome, Some(Outcome::Died));
        runs.start(wanted("true")).unwrap().0.ended().await;
    });
}

#[test]
fn a_key_begins_one_run_whoever_asks_again() {
    let folder = tempfile::tempdir().unwrap();
    let with_key = |request: &str| Wanted {
        key: Some(Key {
            token: "t".to_owned(),
            key: "k".to_owned(),
            request: request.to_owned(),
        }),
        ..wanted("true")
    };
    let id = block_on(async {
        let runs = runs(folder.path());
        let (run, _) = runs.start(with_key("a")).unwrap();
        let (again, is_new) = runs.start(with_key("a")).unwrap();
        assert!(!is_new && again.id() == run.id());
        assert_eq!(runs.start(with_key("b")).err().unwrap().status, 422);
        run.ended().await.id
    });
    block_on(async {
        let runs = runs(folder.path());
        let (again, is_new) = runs.start(with_key("a")).unwrap();
        assert!(!is_new && again.id() == id);
    });
}

#[test]
fn a_service_that_ends_stops_its_runs_and_begins_none() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let runs = runs(folder.path());
        let polite = r#"trap 'echo "{\"message_type\":\"error\",\"code\":130,\"message\":\"stopped\"}" >&2; exit 130' TERM
                        echo '{"message_type":"status"}'; while :; do sleep 0.05; done"#;
        let (run, _) = runs.start(wanted(polite)).unwrap();
        has_written(&run).await;
        runs.stop(Duration::from_secs(600)).await;
        let record = run.record();
        assert_eq!(record.outcome, Some(Outcome::Interrupted));
        assert_eq!(record.error.as_deref(), Some("stopped"));
        assert_eq!(runs.start(wanted("true")).err().unwrap().status, 503);
    });
}

#[test]
fn a_run_that_ignores_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let runs = runs(folder.path());
        let deaf =
            "trap '' TERM; echo '{\"message_type\":\"status\"}'; while :; do sleep 0.05; done";
        let (run, _) = runs.start(wanted(deaf)).unwrap();
        has_written(&run).await;
        runs.stop(Duration::ZERO).await;
        assert_eq!(run.record().outcome, Some(Outcome::Died));
    });
}

#[test]
fn the_next_service_finds_what_runs_still() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; echo '{{\"message_type\":\"summary\",\"n\":1}}'",
        go.display()
    );
    let id = block_on(async {
        let runs = runs(folder.path());
        let (run, _) = runs.start(wanted(&script)).unwrap();
        run.id()
    });
    // The runtime, and with it all that watched, is gone as if the service had been killed.
    block_on(async {
        let runs = runs(folder.path());
        let run = runs.find(&id).unwrap();
        assert!(!run.has_ended());
        assert_eq!(runs.start(wanted("true")).err().unwrap().status, 409);
        std::fs::write(&go, "").unwrap();
        let record = run.ended().await;
        assert_eq!(record.outcome, Some(Outcome::Success));
        assert_eq!(record.summary.unwrap()["n"], 1);
    });
}

#[test]
fn what_died_with_the_machine_is_known_to_have_died() {
    let folder = tempfile::tempdir().unwrap();
    let id = block_on(async {
        let runs = runs(folder.path());
        let (run, _) = runs.start(wanted("exec sleep 1000")).unwrap();
        let process = run.state().kept.process.unwrap();
        let record = run.files.record.clone();
        let running = std::fs::read(&record).unwrap();
        process.kill();
        run.ended().await;
        // As it was when the machine went down.
        std::fs::write(&record, running).unwrap();
        run.id()
    });
    block_on(async {
        let record = runs(folder.path()).find(&id).unwrap().ended().await;
        assert_eq!(record.outcome, Some(Outcome::Died));
        assert!(record.error.unwrap().contains("machine"));
    });
}
