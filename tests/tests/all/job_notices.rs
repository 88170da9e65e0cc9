//! Who is told of the runs of jobs: people by mail, and of backups that are not as usual.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread::{self, JoinHandle};

use crate::program::World;

/// Makes a repository, a source, and a job whose table goes on with `more`.
fn with_job(more: &str) -> World {
    let world = World::new();
    world.write("file", "content");
    let file = world.path("home/.config/larder/larder.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let shown = |path: &Path| path.display().to_string();
    let text = format!(
        "[jobs.nightly]\nsources = ['{}']\nlocation = '{}'\n{more}",
        shown(&world.source()),
        shown(&world.path("repo"))
    );
    fs::write(file, text).unwrap();
    world
}

/// Takes mail on a port of its own until so many have come, and gives their lines.
fn mailbox(count: usize) -> (u16, JoinHandle<Vec<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let taking = thread::spawn(move || {
        (0..count)
            .map(|_| taken(listener.accept().unwrap().0))
            .collect()
    });
    (port, taking)
}

fn taken(stream: TcpStream) -> Vec<String> {
    let mut out = stream.try_clone().unwrap();
    let mut say = |text: &str| out.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    say("220 ready");
    let mut lines = Vec::new();
    let mut is_text = false;
    for line in BufReader::new(stream).lines() {
        // Whoever is refused may go without a word.
        let Ok(line) = line else { break };
        match line.as_str() {
            "." => {
                is_text = false;
                say("250 taken");
            }
            _ if is_text => {}
            "RCPT TO:<gone@example.org>" => say("550 nobody of that name"),
            "DATA" => {
                is_text = true;
                say("354 go on");
            }
            "QUIT" => {
                say("221 bye");
                break;
            }
            _ => say("250 yes"),
        }
        lines.push(line);
    }
    lines
}

#[test]
fn a_failure_and_the_recovery_come_by_mail() {
    let (port, taking) = mailbox(2);
    let world = with_job(&format!(
        "[jobs.nightly.mail]\nserver = '127.0.0.1:{port}'\nsecurity = 'none'\nfrom = 'larder@example.org'\nto = ['admin@example.org']\n"
    ));
    fs::rename(world.path("repo"), world.path("away")).unwrap();
    world.run(["job", "run", "nightly"]).expect(10);
    fs::rename(world.path("away"), world.path("repo")).unwrap();
    let run = world.run(["job", "run", "nightly"]).expect(0);
    assert_eq!(run.stderr, "");
    world.ok(["job", "run", "nightly"]);
    let mails = taking.join().unwrap();
    let has = |mail: usize, text: &str| mails[mail].iter().any(|line| line == text);
    assert!(has(0, "RCPT TO:<admin@example.org>"), "{mails:?}");
    assert!(
        has(0, "Subject: larder: nightly: backup failed"),
        "{mails:?}"
    );
    assert!(has(0, "exit code: 10"), "{mails:?}");
    assert!(
        has(1, "Subject: larder: nightly: backup works again"),
        "{mails:?}"
    );
    assert!(has(1, "outcome: success"), "{mails:?}");
}

#[test]
fn an_address_that_is_refused_keeps_mail_from_nobody_else() {
    let (port, taking) = mailbox(2);
    let world = with_job(&format!(
        "[jobs.nightly.mail]\nserver = '127.0.0.1:{port}'\nsecurity = 'none'\nfrom = 'larder@example.org'\nto = ['gone@example.org', 'admin@example.org']\n"
    ));
    fs::rename(world.path("repo"), world.path("away")).unwrap();
    let run = world.run(["job", "run", "nightly"]).expect(10);
    let run = run
        .says("warning: nightly: mail to gone@example.org: ")
        .says("nobody of that name");
    assert!(
        !run.stderr.contains("mail to admin@example.org"),
        "{}",
        run.stderr
    );
    let mails = taking.join().unwrap();
    assert!(
        mails[1]
            .iter()
            .any(|line| line == "Subject: larder: nightly: backup failed"),
        "{mails:?}"
    );
}

#[test]
fn mail_that_cannot_be_sent_keeps_nothing_from_being_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let world = with_job(&format!(
        "[jobs.nightly.mail]\nserver = '127.0.0.1:{port}'\nsecurity = 'none'\nfrom = 'larder@example.org'\nto = ['admin@example.org']\n"
    ));
    fs::rename(world.path("repo"), world.path("away")).unwrap();
    let told = format!(
        "warning: nightly: mail to admin@example.org: no mail can be sent by 127.0.0.1:{port}"
    );
    world.run(["job", "run", "nightly"]).expect(10).says(&told);
    fs::rename(world.path("away"), world.path("repo")).unwrap();
    world.run(["job", "run", "nightly"]).expect(0).says(&told);
    assert_eq!(world.json(["snapshots"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_backup_that_is_a_tenth_of_what_it_was_is_told() {
    let world = with_job(
        "notify-command = 'echo $LARDER_EVENT $LARDER_OUTCOME $LARDER_MESSAGE >> $HOME/told'\n",
    );
    let told = || fs::read_to_string(world.path("home/told")).unwrap_or_default();
    world.write("file", vec![7; 20 << 20]);
    for _ in 0..3 {
        world.ok(["job", "run", "nightly"]);
    }
    assert_eq!(told(), "");
    world.write("file", "what is left");
    world.ok(["job", "run", "nightly"]);
    assert!(
        told()
            .starts_with("unusual success this backup is far from those before: 12 B, usually 20"),
        "{}",
        told()
    );
    // That is one of those before now: the others are what is usual still.
    world.ok(["job", "run", "nightly"]);
    assert_eq!(told().lines().count(), 2);
}
