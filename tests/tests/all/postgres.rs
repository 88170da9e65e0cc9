//! Databases from the outside: dumped from and restored into a real server of PostgreSQL.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::program::{World, is_root, run};

/// The user that a server runs as if this is root, which no server of PostgreSQL runs as.
const NOBODY: u32 = 65534;
const PASSWORD: &str = "hunter2 % '";

/// A server that is reached by a socket in a folder; both vanish with the value.
struct Server {
    folder: PathBuf,
    port: u16,
    child: Child,
    _own: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one with nothing in it.
    fn start() -> Self {
        let own = tempfile::Builder::new()
            .prefix("larder-pg-")
            .tempdir()
            .unwrap();
        let folder = own.path();
        let secret = folder.join("secret");
        fs::write(&secret, PASSWORD).unwrap();
        if is_root() {
            for path in [folder, &secret] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let data = folder.join("data");
        let mut init = server_program("initdb");
        init.arg("-D").arg(&data).arg("--pwfile").arg(&secret);
        init.args([
            "--username=owner",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
        ]);
        init.args(["--locale=C", "--no-sync"]).current_dir(folder);
        run(&mut init).expect(0);
        let mut server = Self::of(folder, &data, 5432);
        server._own = Some(own);
        server
    }

    /// Starts one of a data folder that is there, with its socket in a folder.
    fn of(folder: &Path, data: &Path, port: u16) -> Self {
        let mut command = server_program("postgres");
        command.arg("-D").arg(data).arg("-k").arg(folder);
        command.args(["-p", &port.to_string()]);
        command.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        command
            .args(["-c", "log_destination=stderr"])
            .current_dir(folder);
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().unwrap();
        let server = Self {
            folder: folder.to_owned(),
            port,
            child,
            _own: None,
        };
        server.wait_until("it answers", || {
            let asked = server.psql_command("postgres", "select 1").output();
            asked.unwrap().status.success()
        });
        server
    }

    /// Gives the URL of a database, or of all.
    fn url(&self, database: &str) -> String {
        let (folder, port) = (self.folder.display(), self.port);
        format!("postgres://owner@localhost/{database}?host={folder}&port={port}")
    }

    fn psql_command(&self, database: &str, sql: &str) -> Command {
        let mut command = client("psql", &self.url(database));
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        command
    }

    #[track_caller]
    fn sql(&self, database: &str, sql: &str) -> String {
        run(&mut self.psql_command(database, sql)).expect(0).stdout
    }

    /// Dumps a database with no help of larder, without what differs every time.
    fn dump(&self, database: &str) -> String {
        let dumped = run(&mut client("pg_dump", &self.url(database)))
            .expect(0)
            .stdout;
        let lines = dumped.lines();
        let same = lines
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        same.collect::<Vec<_>>().join("\n")
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        const ATTEMPTS: usize = 1_200;
        for _ in 0..ATTEMPTS {
            if is_so() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("the server was waited for in vain until {what}");
    }

    /// Ends it at once, as a crash does.
    fn kill(&mut self) {
        let id = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        // Its processes end with it, and write nothing any more.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Gives a program of the server, run by somebody who may run it.
fn server_program(name: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.unwrap().path()).collect();
    folders.retain(|folder| folder.join("bin").join(name).is_file());
    folders.sort();
    let folder = folders
        .pop()
        .expect("no server of PostgreSQL; scripts/setup.sh installs it");
    let mut command = Command::new(folder.join("bin").join(name));
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

fn client(name: &str, url: &str) -> Command {
    let mut command = Command::new(name);
    command
        .arg(format!("--dbname={url}"))
        .env("PGPASSWORD", PASSWORD);
    command.stdin(Stdio::null());
    command
}

/// Fills a database with what is easy to lose.
fn fill(server: &Server) {
    server.sql("postgres", "create database shop");
    server.sql("postgres", "create role \"odd role\" nologin");
    server.sql("postgres", "alter database shop set work_mem = '8MB'");
    server.sql("postgres", "comment on database shop is 'it''s a shop'");
    server.sql(
        "shop",
        r#"
        create table orders (id serial primary key, what text not null);
        insert into orders (what) select md5(i::text) || md5((-i)::text) from generate_series(1, 20000) i;
        create table items (id int references orders, amount numeric check (amount > 0));
        insert into items select i, i * 1.5 from generate_series(1, 3000) i;
        create index on items (amount);
        create table empty (id int);
        create schema "we""ird / s.chema";
        create table "we""ird / s.chema"."Tab
le" ("a ""b" int, t text, b bytea);
        insert into "we""ird / s.chema"."Tab
le" values (1, E'tab\tnew\nline \\. \\N', '\x00ff0a5c'), (null, E'\\.\n\\.', null);
        create table "we""ird / s.chema"."../up" (t text);
        insert into "we""ird / s.chema"."../up" values ('--'), ('-- Data for Name: orders; Type: TABLE DATA; Schema: public; Owner: x');
        create table "we""ird / s.chema"."%2E%2E" (t text);
        create type mood as enum ('so', 'so so');
        create domain small as int check (value < 10);
        create table types (
            a mood, b small, c int[], d jsonb, e timestamptz, f int4range, g numeric, h double precision, i uuid, j inet, k bit(3), l interval,
            m int generated always as (b * 2) stored, n bigint generated by default as identity);
        insert into types values ('so so', 9, '{{1,null},{3,4}}', '{"a": [1, "\u00e9\n"]}', '2026-11-01 02:03:04.5+02', '[1,)', 'NaN', '-infinity',
            '00112233-4455-6677-8899-aabbccddeeff', '10.0.0.0/8', B'101', '1 mon -3 days');
        create table days (day date, n int) partition by range (day);
        create table days_1 partition of days for values from ('2026-01-01') to ('2026-02-01');
        create table days_rest partition of days default;
        insert into days select date '2026-01-30' + i, i from generate_series(0, 4) i;
        create sequence counter start 41;
        select nextval('counter'), nextval('counter');
        create function f() returns text language sql as $$
select 'x';
--
-- Data for Name: fake; Type: TABLE DATA; Schema: public; Owner: x
--
/*
\.
*/
$$;
        create view seen as select * from orders where id < 10;
        create materialized view counted as select count(*) from orders;
        grant select on orders to "odd role";
        alter table empty owner to "odd role";
        select lo_from_bytea(4242, decode(repeat('00ff5c', 30000), 'hex'));
        select lo_from_bytea(4294967295, 'last'), lo_create(7);
        comment on table orders is 'it''s; \ odd';
        "#,
    );
}

/// What is compared by queries beside the dumps.
const ASKED: [&str; 5] = [
    "select count(*), md5(string_agg(o::text, ',' order by id)) from orders o",
    "select count(*), sum(amount) from items",
    "select t::text from types t",
    "select tableoid::regclass, day, n from days order by day",
    "select oid, md5(lo_get(oid)), length(lo_get(oid)) from pg_largeobject_metadata order by oid",
];

fn world() -> World {
    let mut world = World::new();
    let password = ("PGPASSWORD".to_owned(), PASSWORD.to_owned());
    world.environment.push(password);
    world
}

fn changed(world: &World) -> Vec<String> {
    let lines = world.lines(["diff", "latest~1", "latest"]);
    let paths = lines.iter().filter_map(|line| line["path"].as_str());
    paths.map(str::to_owned).collect()
}

fn backup(world: &World, arguments: &[&str]) -> Value {
    let mut all = vec!["backup"];
    all.extend_from_slice(arguments);
    world.lines(all).pop().unwrap()
}

#[track_caller]
fn assert_same(one: (&Server, &str), two: (&Server, &str)) {
    assert_eq!(one.0.dump(one.1), two.0.dump(two.1));
    for query in ASKED {
        assert_eq!(one.0.sql(one.1, query), two.0.sql(two.1, query), "{query}");
    }
}

#[test]
fn a_database_comes_back_and_an_unchanged_table_costs_nothing() {
    let server = Server::start();
    fill(&server);
    let world = world();
    let url = server.url("shop");
    let first = backup(&world, &[&url]);
    let added = |backup: &Value| backup["statistics"]["bytes_added"].as_u64().unwrap();
    assert!(added(&first) > 1_400_000, "{first}");

    let name = "postgres://owner@localhost/shop";
    let rows = world.ok(["dump", &format!("latest:{name}/tables/public/items.dat")]);
    assert!(rows.starts_with("1\t1.5\n") && rows.lines().count() >= 3000);
    let listed = world.json(["ls", "--recursive", &format!("latest:{name}")]);
    let listed = listed.to_string();
    for part in [
        "/toc.dat\"",
        "/blobs.toc\"",
        "tables/public/empty.dat",
        "tables/public/days_1.dat",
        "tables/we\\\"ird %2F s.chema/%2E.%2Fup.dat",
        "tables/we\\\"ird %2F s.chema/%252E%252E.dat",
        "large-objects/4294967295.dat",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    assert!(!listed.contains("fake"), "{listed}");

    // What is the same is stored once; the contents name the time of the dump, to the second.
    let toc = format!("{name}/toc.dat");
    let but_for_time = || {
        let mut paths = changed(&world);
        paths.retain(|path| *path != toc);
        paths
    };
    let second = backup(&world, &[&url]);
    assert_eq!(second["parent"], first["snapshot"]);
    assert_eq!(but_for_time(), [""; 0]);
    assert!(added(&second) < 60_000, "{second}");
    server.sql("shop", "update items set amount = 7 where id = 77");
    let third = backup(&world, &[&url]);
    assert_eq!(but_for_time(), [format!("{name}/tables/public/items.dat")]);
    assert!(added(&third) < 120_000, "{third}");

    // The database need not be there, and has everything the other has.
    let target = server.url("new%20%22shop");
    let spec = format!("latest:{name}");
    let told = world.ok(["restore", &spec, "--target", &target]);
    assert!(
        told.contains("postgres://owner@localhost/new%20%22shop"),
        "{told}"
    );
    assert_same((&server, "new%20%22shop"), (&server, "shop"));

    // As a folder it is what pg_restore takes, several tables at a time.
    let out = world.path("out");
    let folder = out.to_str().unwrap();
    world.ok(["restore", &spec, "--target", folder]);
    server.sql("postgres", "create database by_hand");
    let mut by_hand = client("pg_restore", &server.url("by_hand"));
    run(by_hand.args(["--exit-on-error", "--jobs=2", folder])).expect(0);
    assert_same((&server, "by_hand"), (&server, "shop"));

    // Into one that has the same tables nothing is written at all.
    let before = server.dump("shop");
    let failed = world
        .run(["restore", "latest~2", "--target", &url])
        .expect(1);
    for text in ["already exists", "nothing of it was written"] {
        assert!(failed.stderr.contains(text), "{}", failed.stderr);
    }
    assert_eq!(server.dump("shop"), before);
    let failed = world
        .run(["restore", "latest", "--delete", "--target", &url])
        .expect(1);
    assert!(failed.stderr.contains("--delete"), "{}", failed.stderr);

    // Another server has none of the roles.
    let other = Server::start();
    let target = other.url("shop");
    let failed = world
        .run(["restore", "latest", "--target", &target])
        .expect(1);
    assert!(failed.stderr.contains("--no-owner"), "{}", failed.stderr);
    assert_eq!(
        other.sql(
            "shop",
            "select count(*) from pg_tables where schemaname = 'public'"
        ),
        "0\n"
    );
    world.ok(["restore", "latest", "--no-owner", "--target", &target]);
    for query in ASKED {
        assert_eq!(other.sql("shop", query), server.sql("shop", query));
    }
    world.ok(["check", "--read-data"]);
}

#[test]
fn all_databases_come_back_on_another_server_beside_a_folder() {
    let server = Server::start();
    fill(&server);
    server.sql("postgres", "create database \"a/b %\"");
    server.sql("a%2Fb%20%25", "create table t as select 1 as one");
    let mut world = World::new();
    world.write("file", "of the blob store");
    let source = world.source();
    let secret = world.path("secret");
    fs::write(&secret, PASSWORD).unwrap();
    let command = format!("cat {}", secret.display());
    let password = ["--postgres-password-command", &command];
    let url = server.url("");
    backup(
        &world,
        &[&[&*url, source.to_str().unwrap()][..], &password].concat(),
    );
    let listed = world.json(["snapshots"]);
    let read = listed[0]["read"].as_array().unwrap();
    assert_eq!(read[0]["source"], "postgres://owner@localhost");
    assert_eq!(read[1]["source"], source.to_str().unwrap());
    assert!(read[0]["ended"].as_str() <= read[1]["started"].as_str());
    assert!(!listed.to_string().contains("hunter2"));

    let other = Server::start();
    let target = other.url("");
    let restore = [
        "restore",
        "latest",
        "--target",
        &target,
        password[0],
        password[1],
    ];
    world.ok(restore);
    assert_same((&other, "shop"), (&server, "shop"));
    assert_eq!(other.dump("a%2Fb%20%25"), server.dump("a%2Fb%20%25"));
    let same = [
        "select rolname from pg_roles where rolname = 'odd role'",
        "select setconfig from pg_db_role_setting",
        "select shobj_description(oid, 'pg_database') from pg_database where datname = 'shop'",
    ];
    for query in same {
        assert_eq!(other.sql("postgres", query), server.sql("postgres", query));
        assert_ne!(other.sql("postgres", query), "", "{query}");
    }

    // One of all under another name.
    let spec = "latest:postgres://owner@localhost/a%2Fb%20%25";
    let target = other.url("one");
    world
        .environment
        .push(("PGPASSWORD".to_owned(), PASSWORD.to_owned()));
    world.ok(["restore", spec, "--target", &target]);
    assert_eq!(other.sql("one", "select one from t"), "1\n");
    let absent = "latest:postgres://owner@localhost/none";
    let failed = world
        .run(["restore", absent, "--target", &target])
        .expect(1);
    assert!(failed.stderr.contains("no database"), "{}", failed.stderr);

    // The folder is restored as ever, from the same snapshot.
    let folder = world.restore("latest", "folder");
    assert_eq!(fs::read(folder.join("file")).unwrap(), b"of the blob store");
}

#[test]
fn a_server_that_dies_makes_no_snapshot() {
    let mut server = Server::start();
    fill(&server);
    let mut world = world();
    let mut lock = server.psql_command(
        "shop",
        "begin; lock table items in access exclusive mode; select pg_sleep(600)",
    );
    let mut lock = lock
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    server.wait_until("it is locked", || {
        let held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted and relation = 'items'::regclass";
        server.sql("shop", held) != "0\n"
    });
    let mut command = world.command();
    command.args(["backup", &server.url("shop")]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.wait_until("the dump waits", || {
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
        server.sql("shop", waiting) != "0\n"
    });
    server.kill();
    let _ = lock.wait();
    let run = crate::program::Run::of(child.wait_with_output().unwrap()).expect(1);
    for text in [
        "pg_dump of postgres://owner@localhost/shop failed",
        "server",
    ] {
        assert!(run.stderr.contains(text), "{}", run.stderr);
    }
    assert_eq!(world.json(["snapshots"]), serde_json::json!([]));
    let gone = world.run(["backup", &server.url("shop")]).expect(1);
    assert!(gone.stderr.contains("failed"), "{}", gone.stderr);
    world.environment.clear();
}

#[test]
fn what_no_dump_can_be_made_of_is_told() {
    let server = Server::start();
    let mut world = world();
    let failed = |world: &World, url: &str| world.run(["backup", url]).expect(1).stderr;
    let told = failed(&world, &server.url("none"));
    assert!(told.contains("\"none\" does not exist"), "{told}");
    let told = failed(&world, "postgres://me:opensesame@localhost/x");
    assert!(
        told.contains("PGPASSWORD") && !told.contains("opensesame"),
        "{told}"
    );
    world.environment.clear();
    let told = failed(&world, &server.url(""));
    assert!(
        told.contains("no password supplied") && told.contains("~/.pgpass"),
        "{told}"
    );
    world.environment = vec![("PGPASSWORD".to_owned(), "swordfish".to_owned())];
    let told = failed(&world, &server.url("postgres"));
    assert!(
        told.contains("authentication failed") && !told.contains("swordfish"),
        "{told}"
    );

    // Programs that are older than the server, that die half way, or that are not known.
    let folder = world.path("bin");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("pg_dump");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", folder.display());
    world.environment = vec![("PATH".to_owned(), path)];
    let with = |script: &str| {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, everybody).unwrap();
        failed(&world, &server.url("postgres"))
    };
    let told = with("echo 'aborting because of server version mismatch' >&2; exit 1");
    assert!(told.contains("older than the server"), "{told}");
    let told = with("printf 'PGDMP\\001\\016\\000\\004\\010\\001'; echo bad disk >&2; exit 3");
    assert!(
        told.contains("exit code 3") && told.contains("bad disk"),
        "{told}"
    );
    let told = with("printf 'PGDMP\\001\\016\\000\\004\\010\\001'");
    assert!(told.contains("in the midst"), "{told}");
    let told = with("printf 'PGDMP\\001\\143\\000\\004\\010\\001'; yes");
    assert!(told.contains("version 1.99"), "{told}");
    assert_eq!(world.json(["snapshots"]), serde_json::json!([]));
}

#[test]
fn a_base_backup_becomes_a_server_again() {
    let server = Server::start();
    fill(&server);
    let world = world();
    let url = server
        .url("")
        .replacen("postgres", "postgres+basebackup", 1);
    let first = backup(&world, &[&url]);
    let second = backup(&world, &[&url]);
    let added = |backup: &Value| backup["statistics"]["bytes_added"].as_u64().unwrap();
    assert!(added(&second) < added(&first) / 2, "{first} {second}");

    let name = "postgres+basebackup://owner@localhost";
    let spec = format!("latest:{name}");
    let again = server.folder.join("again");
    let folder = again.to_str().unwrap();
    world.ok(["restore", &spec, "--numeric-owner", "--target", folder]);
    // The manifest is pg_basebackup's own, which gives it to nobody in particular.
    let verify = server_program("pg_verifybackup");
    run(Command::new(verify.get_program()).arg(&again)).expect(0);
    {
        let restored = Server::of(&server.folder, &again, 5433);
        assert_same((&restored, "shop"), (&server, "shop"));
    }

    // It is no database that could be restored into one.
    let failed = world
        .run(["restore", &spec, "--target", &server.url("new")])
        .expect(1);
    assert!(failed.stderr.contains("no database"), "{}", failed.stderr);

    // A stream that ends too early, or has a file that its manifest does not know, makes no snapshot.
    let before = world.json(["snapshots"]);
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    let mut world = world;
    let path = std::env::var("PATH").unwrap();
    world
        .environment
        .push(("PATH".to_owned(), format!("{}:{path}", bin.display())));
    for (script, told) in [
        (
            "head -c 1000 /dev/zero | tr '\\0' 'x'",
            "a header is damaged",
        ),
        ("head -c 1024 /dev/zero", "the manifest: it is missing"),
        ("echo no room >&2; exit 1", "no room"),
    ] {
        let program = bin.join("pg_basebackup");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, everybody).unwrap();
        let failed = world.run(["backup", &url]).expect(1);
        assert!(failed.stderr.contains(told), "{}", failed.stderr);
    }
    assert_eq!(world.json(["snapshots"]), before);
}
