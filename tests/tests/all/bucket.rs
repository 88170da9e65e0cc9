//! A bucket from the outside: backed up, looked into, and restored, on a server of S3 (moto) and a fake
//! of Azure.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::program::World;

/// A server that is running; it ends with the value.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts what `make` gives for a free port, and waits until it listens.
    fn start(make: impl Fn(u16) -> Command) -> Self {
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let mut command = make(port);
            let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut server = Self {
                child: quiet.spawn().unwrap(),
                port,
            };
            if server.listens() {
                return server;
            }
        }
        panic!("the server did not start");
    }

    /// Waits until somebody listens on the port; false if the server ended before that.
    fn listens(&mut self) -> bool {
        const ATTEMPTS: usize = 1_200;
        for _ in 0..ATTEMPTS {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of S3 with a bucket `test`.
pub struct Moto(Server);

impl Moto {
    /// Starts it.
    pub fn start() -> Self {
        let moto = Self(Server::start(|port| {
            let mut command = Command::new(python("moto_server"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        }));
        moto.python("s3.create_bucket(Bucket='test')");
        moto
    }

    /// Runs lines of Python that have a client `s3`, the one of Amazon; gives what they print.
    pub fn python(&self, lines: &str) -> String {
        let program = format!(
            "import boto3, json, sys\ns3 = boto3.client('s3', endpoint_url='http://127.0.0.1:{}', \
             region_name='us-east-1', aws_access_key_id='x', aws_secret_access_key='y')\n{lines}\n",
            self.0.port
        );
        let output = Command::new(python("python3"))
            .args(["-c", &program])
            .output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Gives all objects below a prefix: bytes, type, metadata and tags by key.
    fn objects(&self, prefix: &str) -> Value {
        let told = self.python(&format!(
            "found = {{}}
for o in s3.list_objects_v2(Bucket='test', Prefix='{prefix}').get('Contents', []):
    k = o['Key']
    if '..' in k: continue   # the client of Amazon cannot ask for those of this server
    g = s3.get_object(Bucket='test', Key=k)
    t = s3.get_object_tagging(Bucket='test', Key=k)['TagSet']
    found[k[len('{prefix}'):]] = [g['Body'].read().decode('latin1'), g['ContentType'], g['Metadata'], t]
print(json.dumps(found))"
        ));
        serde_json::from_str(&told).unwrap()
    }

    /// A world whose buckets are at this server.
    pub fn world(&self) -> World {
        let world = self.bare_world();
        world.ok(["init"]);
        world
    }

    /// The same without a repository.
    pub fn bare_world(&self) -> World {
        let mut world = World::bare();
        let endpoint = format!("http://127.0.0.1:{}", self.0.port);
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "y"),
            ("AWS_ENDPOINT_URL", &endpoint),
        ] {
            world.environment.push((name.to_owned(), value.to_owned()));
        }
        world
    }
}

/// A fake of Azure with a container `test`.
struct Azure(Server);

impl Azure {
    fn start() -> Self {
        Self(Server::start(|port| {
            let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/fakeazure.py");
            let mut command = Command::new(python("python3"));
            command.arg(recipe).arg(port.to_string());
            command
        }))
    }

    /// Runs lines of Python that can `ask(method, key, body, **headers)`; gives what they print.
    fn python(&self, lines: &str) -> String {
        let program = format!(
            "import json, urllib.parse, urllib.request
def ask(method, key, body=None, **headers):
    url = 'http://127.0.0.1:{}/account/test/' + urllib.parse.quote(key)
    headers = {{name.replace('_', '-'): value for name, value in headers.items()}}
    headers.update({{'Authorization': 'SharedKey account:x', 'x-ms-blob-type': 'BlockBlob'}})
    return urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method))
{lines}
",
            self.0.port
        );
        let output = Command::new(python("python3"))
            .args(["-c", &program])
            .output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A world whose containers are at this server.
    fn world(&self) -> World {
        let mut world = World::bare();
        let endpoint = format!("http://127.0.0.1:{}/account", self.0.port);
        for (name, value) in [
            ("AZURE_STORAGE_ACCOUNT", "account"),
            ("AZURE_STORAGE_KEY", "aHVudGVyMg=="),
            ("AZURE_STORAGE_ENDPOINT", &endpoint),
        ] {
            world.environment.push((name.to_owned(), value.to_owned()));
        }
        world.ok(["init"]);
        world
    }
}

fn python(program: &str) -> PathBuf {
    let venv = std::env::var_os("LARDER_SERVERS_VENV")
        .expect("LARDER_SERVERS_VENV is not set; run the tests by scripts/cargo-test.sh");
    Path::new(&venv).join("bin").join(program)
}

/// What is put into the bucket: ordinary keys, and some that file systems cannot have.
const PUT: &str = "
for i in range(20):
    s3.put_object(Bucket='test', Key=f'in/d/{i:02}', Body=b'%d' % i, ContentType='text/x-own')
s3.put_object(Bucket='test', Key='in/a', Body=b'plain', Metadata={'one': '1'}, Tagging='k=v')
s3.put_object(Bucket='test', Key='in/a/b', Body=b'below')
s3.put_object(Bucket='test', Key='in/x//y', Body=b'double')
s3.put_object(Bucket='test', Key='in/empty/', Body=b'')
s3.put_object(Bucket='test', Key='in/large', Body=b'L' * 9000000)
";

#[test]
fn a_bucket_is_backed_up_looked_into_and_restored() {
    let moto = Moto::start();
    let world = moto.world();
    moto.python(PUT);
    let backup = |world: &World| {
        let lines = world.lines(["backup", "s3://test/in"]);
        lines.last().unwrap().clone()
    };
    let first = backup(&world);
    assert_eq!(first["statistics"]["files"], 25, "{first}");
    let again = backup(&world);
    assert_eq!(again["unchanged"], true, "{again}");
    assert_eq!(again["statistics"]["bytes_read"], 0);
    moto.python(
        "s3.put_object(Bucket='test', Key='in/d/03', Body=b'new')\n\
         s3.delete_object(Bucket='test', Key='in/d/04')",
    );
    let third = backup(&world);
    assert_eq!(third["statistics"]["changed"], 1, "{third}");
    assert_eq!(third["statistics"]["bytes_read"], 3);

    // Looked into.
    let listed = world.ok(["ls", "latest:s3://test/in/x", "--recursive"]);
    assert_eq!(listed, "s3://test/in/x//y\n");
    let found = world.ok(["find", "03"]);
    assert!(found.contains("s3://test/in/d/03"), "{found}");
    assert_eq!(world.ok(["dump", "latest~1:s3://test/in/d/03"]), "3");
    let diff = world.ok(["diff", "latest~1", "latest"]);
    assert!(
        diff.contains("- s3://test/in/d/04") && diff.contains("M s3://test/in/d/03"),
        "{diff}"
    );

    // Chosen by its URL.
    let chosen = world.json(["snapshots", "--path", "s3://test/in"]);
    assert_eq!(chosen.as_array().unwrap().len(), 3);
    assert!(world.ok(["history", "s3://test/in/d/03"]).contains("3 B"));
    // A prefix that nothing begins with is told.
    world
        .run(["backup", "--dry-run", "s3://test/in/large"])
        .expect(0)
        .says("there is no object below s3://test/in/large/");

    // Into a folder: what no file can be called is refused by name, all else is there.
    let target = world.path("out");
    fs::create_dir_all(target.join("extra/below")).unwrap();
    fs::create_dir(target.join("d")).unwrap();
    for extra in ["extra/below/f", "d/extra", "top"] {
        fs::write(target.join(extra), "x").unwrap();
    }
    let line = [
        "restore",
        "latest:s3://test/in",
        "--delete",
        "--exclude",
        "top",
        "--target",
    ];
    let line = [&line[..], &[target.to_str().unwrap()]].concat();
    let dry = world.run([&line[..], &["--dry-run"]].concat()).expect(3);
    assert!(
        dry.stdout.contains("would remove 2 entries"),
        "{}",
        dry.stdout
    );
    let run = world.run(line).expect(3);
    assert!(run.stdout.contains("removed 2 entries"), "{}", run.stdout);
    assert!(target.join("top").exists() && !target.join("extra").exists());
    assert!(!target.join("d/extra").exists() && target.join("d/03").exists());
    let run = world.run([
        "restore".as_ref(),
        "latest:s3://test/in".as_ref(),
        "--target".as_ref(),
        target.as_os_str(),
    ]);
    let run = run.expect(3);
    for refused in ["a/b", "x//y"] {
        assert!(
            run.stderr.contains(&format!("cannot restore {refused}: ")),
            "{}",
            run.stderr
        );
    }
    assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "plain");
    assert_eq!(fs::read_to_string(target.join("d/03")).unwrap(), "new");
    assert!(target.join("empty").is_dir() && !target.join("d/04").exists());
    assert_eq!(
        fs::read(target.join("large")).unwrap(),
        vec![b'L'; 9_000_000]
    );

    // In a tar stream are the same ones.
    let dump = world.run(["dump", "latest:s3://test/in/x"]).expect(3);
    assert!(
        dump.stderr.contains("no path that a file can have"),
        "{}",
        dump.stderr
    );
    let tar = world.run(["dump", "latest:s3://test/in"]).raw;
    let members = members(&tar);
    assert!(members.contains(&"a".to_owned()) && members.contains(&"empty/".to_owned()));
    assert!(
        !members
            .iter()
            .any(|name| name.starts_with("a/") || name.contains("//"))
    );

    // Into another bucket: exactly, with what the objects were stored with.
    moto.python("s3.put_object(Bucket='test', Key='out/extra', Body=b'x')");
    let restore = |more: &[&str]| {
        let base = [
            "restore",
            "latest:s3://test/in",
            "--target",
            "s3://test/out",
        ];
        let all = base.iter().chain(more).copied();
        world.lines(all).last().unwrap().clone()
    };
    let dry = restore(&["--delete", "--dry-run"]);
    assert_eq!(
        (&dry["files"], &dry["deleted"]),
        (&24.into(), &1.into()),
        "{dry}"
    );
    assert_eq!(moto.objects("out/").as_object().unwrap().len(), 1);
    let report = restore(&["--delete"]);
    assert_eq!(
        (&report["files"], &report["deleted"]),
        (&24.into(), &1.into()),
        "{report}"
    );
    let there = moto.objects("out/");
    assert_eq!(there, moto.objects("in/"));
    assert_eq!(there["a"][2]["one"], "1");
    assert_eq!(there["a"][3][0]["Value"], "v");
    assert_eq!(there["d/00"][1], "text/x-own");
    // What is right already is left alone, but for the one that was written in parts.
    let report = restore(&["--overwrite", "if-changed"]);
    assert_eq!(
        (&report["files"], &report["unchanged"]),
        (&1.into(), &23.into()),
        "{report}"
    );
    world.ok(["check", "--read-data"]);
}

/// Gives the names in a tar stream, as the tar of Python reads them; a folder's ends in `/`.
fn members(tar: &[u8]) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(tar).unwrap();
    let program =
        "import sys, tarfile\nfor m in tarfile.open(sys.argv[1]): print(m.name + '/' * m.isdir())";
    let output = Command::new(python("python3"))
        .args(["-c", program])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().map(str::to_owned).collect()
}

#[test]
fn a_bucket_that_is_not_there_is_a_missing_path_and_classes_are_kept() {
    let moto = Moto::start();
    let world = moto.world();
    moto.python(
        "s3.put_object(Bucket='test', Key='in/a/', Body=b'folder?')
s3.put_object(Bucket='test', Key='in/a/b', Body=b'below', StorageClass='STANDARD_IA')
s3.put_object(Bucket='test', Key='in/a/c', Body=b'cold', StorageClass='GLACIER')
s3.put_object(Bucket='test', Key='in/skip/d', Body=b'not wanted')",
    );
    let run = world.run([
        "backup",
        "s3://test/in",
        "s3://missing/x",
        "--exclude",
        "skip/",
    ]);
    let run = run.expect(3);
    assert!(
        run.stderr
            .contains("s3://missing/x: there is no such bucket"),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout.contains("archived        1 object is"),
        "{}",
        run.stdout
    );
    let run = world.run(["backup", "s3://missing/x"]);
    assert!(run.code != 0 && run.code != 3, "{}", run.stderr);
    let listed = world.ok(["ls", "latest:s3://test/in", "--recursive", "--long"]);
    assert!(
        listed.contains("[had to be thawed first]") && !listed.contains("skip"),
        "{listed}"
    );

    // The object whose key is the prefix itself comes along.
    let restore = [
        "restore",
        "latest:s3://test/in/a/",
        "--target",
        "s3://test/out/a/",
    ];
    let run = world.run(restore).expect(3);
    assert!(
        run.stderr.contains("1 object was in a class"),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout.contains("had to be thawed first"),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("fetched"), "{}", run.stdout);
    let told = moto.python(
        "print(json.dumps([[o['Key'], o['StorageClass']] for o in s3.list_objects_v2(Bucket='test', Prefix='out/')['Contents']]))",
    );
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        told,
        serde_json::json!([["out/a/", "STANDARD"], ["out/a/b", "STANDARD_IA"]])
    );
    assert_eq!(moto.objects("out/")["a/"][0], "folder?");
}

#[test]
fn a_bucket_that_keeps_versions_is_backed_up_as_it_was_at_a_time() {
    let moto = Moto::start();
    let world = moto.world();
    let told = moto.python(
        "import time
s3.put_bucket_versioning(Bucket='test', VersioningConfiguration={'Status': 'Enabled'})
for i in range(6): s3.put_object(Bucket='test', Key=f'in/same{i}', Body=b'same')
s3.put_object(Bucket='test', Key='in/a b', Body=b'1', Tagging='k=old')
s3.put_object(Bucket='test', Key='in/gone', Body=b'bb')
versions = s3.list_object_versions(Bucket='test')['Versions']
print(max(one['LastModified'] for one in versions).isoformat())
time.sleep(1.2)   # times have seconds
s3.put_object(Bucket='test', Key='in/a b', Body=b'22', Tagging='k=new')
s3.delete_object(Bucket='test', Key='in/gone')
s3.put_object(Bucket='test', Key='in/new', Body=b'333')",
    );
    let time = told.trim();
    let now = world
        .run(["--json", "backup", "s3://test/in"])
        .expect(0)
        .summary();
    assert_eq!(now["statistics"]["files"], 8, "{now}");
    // What is the same is known by its version, and only the rest is read.
    let then = world.run(["--json", "backup", "s3://test/in", "--at", time]);
    let then = then.expect(0).summary();
    let counted = &then["statistics"];
    assert_eq!(
        (&counted["files"], &counted["bytes_read"]),
        (&8.into(), &3.into()),
        "{then}"
    );
    let at = |key: &str| world.ok(["dump", &format!("@[{time}]:s3://test/in/{key}")]);
    assert_eq!((at("a b"), at("gone")), ("1".to_owned(), "bb".to_owned()));
    assert_eq!(world.ok(["dump", "latest:s3://test/in/a b"]), "22");
    let spec = format!("@[{time}]:s3://test/in");
    world.ok(["restore", &spec, "--target", "s3://test/out"]);
    let there = moto.objects("out/");
    assert_eq!(there.as_object().unwrap().len(), 8);
    assert_eq!(there["a b"][3][0]["Value"], "old");
    // Now, too: what is deleted is not there.
    let now = world.run(["--json", "backup", "s3://test/in", "--at", "now"]);
    let now = now.expect(0).summary();
    assert_eq!(now["statistics"]["files"], 8, "{now}");
    assert_eq!(world.ok(["dump", "latest:s3://test/in/new"]), "333");
    world.run(["dump", "latest:s3://test/in/gone"]).expect(1);
    // Before there was anything there was nothing.
    let told = world.run([
        "backup",
        "s3://test/in",
        "--at",
        "2020-01-01",
        "--allow-vanished",
        "100",
    ]);
    told.expect(0).says("there is no object below");
    world.write("f", "one");
    for source in ["az://test/in", world.source().to_str().unwrap()] {
        let run = world.run(["backup", source, "--at", "now"]).expect(1);
        assert!(
            run.stderr.contains("--at") || run.stderr.contains("s3://"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn a_repository_stands_beside_keys_of_all_kinds() {
    let moto = Moto::start();
    let world = moto.world();
    moto.python(
        "for k in ['/x', '//', 'a//b', 'a/../b', 'a/', 'z/', '/config/1', 'packs//x', '..']:
    s3.put_object(Bucket='test', Key=k, Body=b'foreign')",
    );
    let at = |line: &[&str]| {
        world.ok([&["-r", "s3://test"], line].concat());
    };
    at(&["init"]);
    world.write("f", "one");
    at(&["backup", world.source().to_str().unwrap()]);
    at(&["check", "--read-data"]);
    // The server is as good as its threads: of two creations at once both may succeed.
    at(&["prune", "--accept-racy-creates"]);
    at(&["sync", "--to", world.path("mirror").to_str().unwrap()]);
    let left = moto.python("print(s3.list_objects_v2(Bucket='test', Prefix='/')['KeyCount'])");
    assert_eq!(left.trim(), "3");
}

#[test]
fn a_url_is_never_taken_for_a_folder_and_a_name_that_is_both_is_told() {
    let moto = Moto::start();
    let world = moto.world();
    world.write("f", "one");
    let source = format!("file://{}", world.source().display());
    world.ok(["backup", &source]);
    let spec = format!("latest:{}", world.source().display());
    let here = world.path("here");
    fs::create_dir(&here).unwrap();
    let run = |line: &[&str]| {
        let mut command = world.command();
        crate::program::run(command.args(line).current_dir(&here))
    };
    let target = format!("file://{}", world.path("out").display());
    run(&["restore", &spec, "--target", &target]).expect(0);
    assert_eq!(fs::read_to_string(world.path("out/f")).unwrap(), "one");
    for wrong in [
        "sftp://host/x",
        "nonsense://x",
        "s3:///x",
        "file://relative",
    ] {
        run(&["restore", &spec, "--target", wrong]).expect(1);
        run(&["backup", wrong]).expect(1);
    }
    assert_eq!(fs::read_dir(&here).unwrap().count(), 0);

    let config = world.path("larder.toml");
    let before = fs::read_to_string(&config).unwrap_or_default();
    fs::write(
        &config,
        format!("{before}\n[locations.photos]\nurl = 's3://test/p'\n"),
    )
    .unwrap();
    fs::create_dir(here.join("photos")).unwrap();
    let config = config.to_str().unwrap();
    let told = run(&["--config", config, "restore", &spec, "--target", "photos"]).expect(0);
    assert!(told.stderr.contains("write ./photos"), "{}", told.stderr);
    assert_eq!(moto.objects("p/")["f"][0], "one");
    let told = run(&["--config", config, "restore", &spec, "--target", "./photos"]).expect(0);
    assert!(!told.stderr.contains("photos"), "{}", told.stderr);
    assert!(here.join("photos/f").exists());
}

#[test]
fn files_are_restored_into_a_bucket() {
    let moto = Moto::start();
    let world = moto.world();
    world.write("f", "one");
    fs::create_dir(world.source().join("d")).unwrap();
    world.write("d/g", "two");
    fs::create_dir_all(world.source().join("e/below")).unwrap();
    fs::create_dir(world.source().join("z")).unwrap();
    world.backup(&[]);
    let spec = format!("latest:{}", world.source().display());
    let run = world
        .run(["restore", &spec, "--target", "s3://test/files"])
        .expect(0);
    assert!(run.stderr.contains("2 folders are empty"), "{}", run.stderr);
    let there = moto.objects("files/");
    assert_eq!(
        (&there["f"][0], &there["d/g"][0]),
        (&"one".into(), &"two".into())
    );
    assert_eq!(there.as_object().unwrap().len(), 2);
}

#[test]
fn what_does_not_fit_a_bucket_is_refused_before_anything_is_done() {
    let world = World::new();
    for (arguments, told) in [
        (
            vec!["backup", "sftp://host/x"],
            "those of s3://, gs:// and az:// can",
        ),
        (
            vec!["backup", "s3://abc/x", "--bucket-option", "regoin=x"],
            "region",
        ),
        (
            vec!["restore", "latest", "--target", "s3://abc/x", "--sparse"],
            "--sparse",
        ),
    ] {
        let run = world.run(arguments).expect(1);
        assert!(run.stderr.contains(told), "{}", run.stderr);
    }
}

#[test]
fn a_container_of_azure_is_backed_up_and_restored() {
    let azure = Azure::start();
    let world = azure.world();
    azure.python(
        "for i in range(10): ask('PUT', f'in/d/{i:02}', b'%d' % i)
ask('PUT', 'in/a', b'plain', x_ms_meta_one='1', x_ms_tags='k=v', x_ms_blob_content_type='text/x-own')
ask('PUT', 'in/a/b', b'below', x_ms_access_tier='Cool')
ask('PUT', 'in/x//y', b'double')
ask('PUT', 'in/large', b'L' * 9000000)
ask('PUT', 'in/z', b'frozen', x_ms_access_tier='Archive')",
    );
    let backup_of =
        |world: &World, url: &str| world.run(["--json", "backup", url]).expect(0).summary();
    let backup = |world: &World| backup_of(world, "az://test/in");
    let first = backup(&world);
    assert_eq!(
        (&first["statistics"]["files"], &first["cold"]),
        (&15.into(), &1.into()),
        "{first}"
    );
    let again = backup(&world);
    assert_eq!(
        (&again["unchanged"], &again["statistics"]["bytes_read"]),
        (&true.into(), &0.into())
    );
    azure.python("ask('PUT', 'in/d/03', b'new'); ask('DELETE', 'in/d/04')");
    let third = backup(&world);
    assert_eq!(third["statistics"]["changed"], 1, "{third}");
    assert_eq!(world.ok(["dump", "latest~1:az://test/in/d/03"]), "3");

    // Into another container: exactly, with what the blobs were stored with.
    azure.python("ask('PUT', 'out/extra', b'x')");
    let line = [
        "restore",
        "latest:az://test/in",
        "--target",
        "az://test/out",
        "--delete",
    ];
    let run = world.run([&["--json"][..], &line].concat()).expect(3);
    let report = run.summary();
    assert_eq!(
        (&report["files"], &report["deleted"]),
        (&13.into(), &1.into()),
        "{report}"
    );
    let told = azure.python(
        "a = ask('GET', 'out/a')
print(json.dumps([a.read().decode(), a.headers['content-type'], a.headers['x-ms-meta-one'],
    a.headers['x-ms-tag-count'],
    ask('GET', 'out/x//y').read().decode(), len(ask('GET', 'out/large').read())]))",
    );
    let told: Value = serde_json::from_str(&told).unwrap();
    let expected = serde_json::json!(["plain", "text/x-own", "1", "1", "double", 9_000_000]);
    assert_eq!(told, expected);
    let back = backup_of(&world, "az://test/out");
    let counted = &back["statistics"];
    assert_eq!(counted["files"], 13, "{back}");
    assert!(counted["bytes_added"].as_u64().unwrap() < 100_000, "{back}");
    world.ok(["check", "--read-data"]);
}
