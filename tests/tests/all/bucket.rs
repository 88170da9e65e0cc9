//! A bucket from the outside: backed up, looked into, and restored, on a server of S3 (moto).

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::program::World;

/// A server of S3 with a bucket `test`; it ends with the value.
struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    fn start() -> Self {
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let mut command = Command::new(python("moto_server"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut moto = Self {
                child: quiet.spawn().unwrap(),
                port,
            };
            if moto.listens() {
                moto.python("s3.create_bucket(Bucket='test')");
                return moto;
            }
        }
        panic!("moto did not start");
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

    /// Runs lines of Python that have a client `s3`, the one of Amazon; gives what they print.
    fn python(&self, lines: &str) -> String {
        let program = format!(
            "import boto3, json, sys\ns3 = boto3.client('s3', endpoint_url='http://127.0.0.1:{}', \
             region_name='us-east-1', aws_access_key_id='x', aws_secret_access_key='y')\n{lines}\n",
            self.port
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
    fn world(&self) -> World {
        let mut world = World::bare();
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "y"),
            ("AWS_ENDPOINT_URL", &endpoint),
        ] {
            world.environment.push((name.to_owned(), value.to_owned()));
        }
        world.ok(["init"]);
        world
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    let line = ["restore", "latest:s3://test/in", "--delete", "--target"];
    let refused = world.run([&line[..], &[target.to_str().unwrap()]].concat());
    refused.expect(1).says("--delete does not apply");
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

#[test]
fn files_are_restored_into_a_bucket() {
    let moto = Moto::start();
    let world = moto.world();
    world.write("f", "one");
    fs::create_dir(world.source().join("d")).unwrap();
    world.write("d/g", "two");
    world.backup(&[]);
    let spec = format!("latest:{}", world.source().display());
    world.ok(["restore", &spec, "--target", "s3://test/files"]);
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
        (vec!["backup", "sftp://host/x"], "s3:// and gs:// can"),
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
