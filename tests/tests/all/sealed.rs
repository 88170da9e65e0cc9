//! Secrets that stand sealed in larder.toml: shown nowhere, opened by the key beside it, and by nothing else.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{Run, World, run};

const SECRET: &str = "correct horse \"battery\"";

fn file(world: &World) -> PathBuf {
    world.path("home/.config/larder/larder.toml")
}

fn key(world: &World) -> PathBuf {
    world.path("home/.config/larder/larder.key")
}

fn fed(world: &World, arguments: &[&str], input: &str) -> Run {
    let mut command = world.command();
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(input.as_bytes()).unwrap();
    drop(pipe);
    Run::of(child.wait_with_output().unwrap())
}

/// A server of FTP that refuses every log-in, and gives the passwords that come.
fn ftp() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, passwords) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(50) {
            let sender = sender.clone();
            std::thread::spawn(move || talk(stream.unwrap(), &sender));
        }
    });
    (port, passwords)
}

fn talk(mut stream: TcpStream, passwords: &Sender<String>) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let _ = stream.write_all(b"220 here\r\n");
    for line in lines.map_while(Result::ok) {
        let answer: &[u8] = match line.split_once(' ') {
            Some(("USER", _)) => b"331 and the password?\r\n",
            Some(("PASS", password)) => {
                let _ = passwords.send(password.to_owned());
                b"530 no\r\n"
            }
            _ => b"502 what?\r\n",
        };
        // Others only look whether somebody listens.
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

#[test]
fn a_sealed_secret_is_shown_nowhere_and_reaches_its_server() {
    let world = World::bare();
    let (port, passwords) = ftp();
    let url = format!("ftp://me@127.0.0.1:{port}/x");
    let add = |flags: &[&str]| {
        let line = [
            "location", "add", "web", &url, "--secret", "password", "--seal",
        ];
        fed(
            &world,
            &[line.as_slice(), flags].concat(),
            &format!("{SECRET}\n"),
        )
    };
    add(&["--dry-run"]).expect(0);
    assert!(!key(&world).exists(), "a dry run made a key");
    let told = add(&[]).expect(0);
    let text = fs::read_to_string(file(&world)).unwrap();
    assert!(text.contains("password = { sealed = \"v1."), "{text}");
    let mode = fs::metadata(key(&world)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let shown = world.json(["location", "show", "web"]);
    assert_eq!(
        (&shown["settings"]["password"], &shown["sealed"]),
        (&json!("********"), &json!(["password"]))
    );
    let told = format!(
        "{told:?}{text}{shown}{}{:?}",
        world.ok(["location", "show", "web"]),
        world.run(["location", "list"])
    );
    assert!(!told.contains("battery"), "{told}");

    // Under another name it opens as before.
    world.ok(["location", "rename", "web", "site"]);
    assert_ne!(fs::read_to_string(file(&world)).unwrap(), text);
    let tried = world.run(["location", "validate", "site"]);
    assert_ne!(tried.code, 0);
    assert!(!format!("{tried:?}").contains("battery"));
    let came = passwords.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(came, SECRET);
}

#[test]
fn without_its_key_a_sealed_secret_opens_nothing_and_can_be_given_anew() {
    let world = World::bare();
    let line = [
        "location",
        "add",
        "web",
        "ftp://me@127.0.0.1:1/x",
        "--secret",
        "password",
        "--seal",
    ];
    fed(&world, &line, "one\n").expect(0);
    let use_it = || world.run(["-r", "web", "snapshots"]);
    fs::set_permissions(key(&world), fs::Permissions::from_mode(0o644)).unwrap();
    use_it().expect(1).says("chmod 600");
    // What needs no secret goes on, with a warning of nothing.
    world.ok(["location", "show", "web"]);
    fs::remove_file(key(&world)).unwrap();
    use_it().expect(1).says("larder.key");
    world.run(["location", "rename", "web", "site"]).expect(1);
    // A secret that was sealed stays so when it is changed.
    let edit = ["location", "edit", "web", "--secret", "password"];
    fed(&world, &edit, "two\n").expect(0);
    let text = fs::read_to_string(file(&world)).unwrap();
    assert!(
        text.contains("{ sealed = \"v1.") && !text.contains("two"),
        "{text}"
    );
    assert!(key(&world).exists());
    // What another key sealed does not open.
    fs::write(key(&world), format!("{}\n", "ab".repeat(32))).unwrap();
    use_it().expect(1).says("password of the location web");
    // Nor does what somebody moved to another location.
    fs::remove_file(key(&world)).unwrap();
    fed(&world, &edit, "three\n").expect(0);
    let text = fs::read_to_string(file(&world)).unwrap();
    fs::write(
        file(&world),
        text.replace("[locations.web]", "[locations.mine]"),
    )
    .unwrap();
    world
        .run(["-r", "mine", "snapshots"])
        .expect(1)
        .says("sealed for another place");
}

#[test]
fn all_that_stands_in_clear_is_sealed_at_once_and_opens_as_before() {
    let world = World::bare();
    let text = "# Mine.\npassword = 'hunter2' # of all\n\n[locations.cellar]\nurl = '../../../repo'\n\n\
                [locations.web]\nurl = 'ftp://me@127.0.0.1:1/x'\npassword = 'hunter3' # of the web\n";
    fs::create_dir_all(file(&world).parent().unwrap()).unwrap();
    fs::write(file(&world), text).unwrap();
    fs::set_permissions(file(&world), fs::Permissions::from_mode(0o600)).unwrap();
    let bare = |arguments: &[&str]| {
        run(world
            .bare_command()
            .env_remove("LARDER_REPO")
            .args(arguments))
    };
    bare(&["-r", "cellar", "init"]).expect(0);
    bare(&["location", "seal", "--dry-run"]).expect(0);
    assert_eq!(fs::read_to_string(file(&world)).unwrap(), text);
    let told = bare(&["--json", "location", "seal"]).expect(0);
    let told: Vec<Value> = told.lines();
    assert_eq!(
        (&told[0]["location"], &told[1]["key"]),
        (&json!("web"), &json!("password"))
    );
    let sealed = fs::read_to_string(file(&world)).unwrap();
    assert!(!sealed.contains("hunter"), "{sealed}");
    for kept in ["# Mine.\n", "} # of all\n", "} # of the web\n"] {
        assert!(sealed.contains(kept), "{sealed}");
    }
    bare(&["-r", "cellar", "key", "list"]).expect(0);
    // Sealed once is enough.
    let told = bare(&["location", "seal"]).expect(0);
    assert!(told.stdout.contains("no secret stands"), "{told:?}");
    assert_eq!(fs::read_to_string(file(&world)).unwrap(), sealed);
    // The key may lie elsewhere.
    let elsewhere = world.path("elsewhere.key");
    fs::rename(key(&world), &elsewhere).unwrap();
    bare(&["-r", "cellar", "key", "list"]).expect(1);
    let mut command = world.bare_command();
    command.env("LARDER_SEAL_KEY_FILE", &elsewhere);
    run(command.args(["-r", "cellar", "key", "list"])).expect(0);
    // One that is damaged is named with its place, and the others go on.
    let damaged = sealed.replacen("v1.", "v0.", 2);
    fs::write(file(&world), damaged).unwrap();
    bare(&["location", "list"]).expect(1).says("line 2");
}
