//! WebDAV against Apache, lighttpd, WsgiDAV and rclone, over a proxy that fails, and against answers that
//! no honest server gives.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use larder_storage::error::{ErrorKind, Reason, StorageError};
use larder_storage::{CreateExclusive, Mode, ObjectInfo, Storage, contract, create_or_confirm};

use crate::answers::{Request, reply, serve};
use crate::servers::{Certificates, Server, free_port, open, python, recipes};

const LOGIN: [(&str, &str); 2] = [("user", "bk"), ("password", "secret")];

/// Apache with mod_dav over `folder/data`; with certificates it speaks TLS.
fn apache(certificates: Option<&Certificates>) -> Server {
    Server::start(|folder, port| apache_command(folder, port, certificates))
}

fn apache_command(folder: &Path, port: u16, certificates: Option<&Certificates>) -> Command {
    use std::os::unix::fs::PermissionsExt as _;
    let at = folder.display();
    let modules: String = [
        "mpm_event",
        "authz_core",
        "authz_user",
        "authn_core",
        "authn_file",
        "auth_basic",
        "dav",
        "dav_fs",
        "ssl",
    ]
    .iter()
    .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
    .collect();
    let tls = certificates.map_or_else(String::new, |made| {
        format!(
            "SSLEngine on\nSSLCertificateFile {}\nSSLCertificateKeyFile {}\n",
            made.path("srv.pem"),
            made.path("srv.key")
        )
    });
    // As root Apache gives its rights away, to a user who has to reach the folder.
    let config = format!(
        "ServerRoot /etc/apache2\nServerName localhost\nPidFile {at}/apache.pid\nMutex file:{at}/lock default\n\
         ErrorLog {at}/apache.log\nListen 127.0.0.1:{port}\nUser www-data\nGroup www-data\n{modules}{tls}\
         StartServers 1\nThreadsPerChild 25\nMaxRequestWorkers 50\nGracefulShutdownTimeout 1\n\
         DavLockDB {at}/lock/DavLock\nDocumentRoot {at}/data\n\
         <Directory {at}/data>\nDav On\nAuthType Basic\nAuthName dav\nAuthUserFile {at}/htpasswd\n\
         Require valid-user\n</Directory>\n\
         <Location /refused>\nRequire all denied\n</Location>\n\
         <Location /readonly>\n<LimitExcept GET HEAD OPTIONS PROPFIND>\nRequire all denied\n</LimitExcept>\n</Location>\n",
    );
    for name in ["data", "lock", "data/readonly", "data/refused"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("apache.conf"), config).unwrap();
    // openssl passwd -apr1 -salt larder12 secret
    std::fs::write(folder.join("htpasswd"), HTPASSWD).unwrap();
    for name in ["", "data", "lock", "data/readonly", "data/refused"] {
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.join(name), open).unwrap();
    }
    let mut command = Command::new("/usr/sbin/apache2");
    command
        .args(["-DFOREGROUND", "-f"])
        .arg(folder.join("apache.conf"));
    command
}

const HTPASSWD: &str = "bk:$apr1$larder12$7o0ckrxWQObBAEIOlAIpd0\n";

fn lighttpd() -> Server {
    Server::start(|folder, port| {
        let at = folder.display();
        let config = format!(
            "server.modules = ( \"mod_auth\", \"mod_authn_file\", \"mod_webdav\" )\n\
             server.document-root = \"{at}/data\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
             server.errorlog = \"{at}/lighttpd.log\"\nwebdav.activate = \"enable\"\n\
             webdav.is-readonly = \"disable\"\nwebdav.sqlite-db-name = \"{at}/lighttpd.db\"\n\
             auth.backend = \"plain\"\nauth.backend.plain.userfile = \"{at}/users\"\n\
             auth.require = ( \"/\" => ( \"method\" => \"basic\", \"realm\" => \"dav\", \"require\" => \"valid-user\" ) )\n"
        );
        std::fs::create_dir_all(folder.join("data")).unwrap();
        std::fs::write(folder.join("lighttpd.conf"), config).unwrap();
        std::fs::write(folder.join("users"), "bk:secret\n").unwrap();
        let mut command = Command::new("/usr/sbin/lighttpd");
        command.args(["-D", "-f"]).arg(folder.join("lighttpd.conf"));
        command
    })
}

fn wsgidav() -> Server {
    Server::start(|folder, port| {
        let data = folder.join("data");
        std::fs::create_dir_all(&data).unwrap();
        let config = serde_json::json!({
            "host": "127.0.0.1", "port": port, "provider_mapping": {"/": data}, "verbose": 1,
            "http_authenticator": {"domain_controller": null, "accept_basic": true, "accept_digest": false, "default_to_digest": false},
            "simple_dc": {"user_mapping": {"*": {"bk": {"password": "secret"}}}},
            "logging": {"enable": false},
        });
        std::fs::write(folder.join("wsgidav.json"), config.to_string()).unwrap();
        let mut command = Command::new(python("wsgidav"));
        command
            .arg("-c")
            .arg(folder.join("wsgidav.json"))
            .args(["--server", "cheroot"]);
        command
    })
}

fn rclone() -> Server {
    Server::start(|folder, port| {
        std::fs::create_dir_all(folder.join("data")).unwrap();
        let mut command = Command::new("rclone");
        command
            .args(["serve", "webdav"])
            .arg(folder.join("data"))
            .args([
                "--addr",
                &format!("127.0.0.1:{port}"),
                "--user",
                "bk",
                "--pass",
                "secret",
            ])
            .args(["--config", "/dev/null", "--vfs-cache-mode", "off"]);
        command
    })
}

/// Runs the contract, each rule in a folder of its own that has to be made with a parent.
fn keeps_the_contract(url: &str, settings: &[(&str, &str)]) {
    let next = AtomicU64::new(0);
    contract::run(&|| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        open(&format!("{url}/made/r {number}"), settings, Mode::Create).unwrap()
    });
}

fn refused(outcome: larder_storage::error::Result<Arc<dyn Storage>>) -> StorageError {
    match outcome {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[test]
fn apache_keeps_the_contract() {
    let server = apache(None);
    let url = format!("webdav://127.0.0.1:{}", server.port);
    keeps_the_contract(&url, &LOGIN);
    let storage = open(&format!("{url}/r"), &LOGIN, Mode::Create).unwrap();
    let decides = storage.capabilities().create_exclusive;
    assert_eq!(decides, CreateExclusive::Folder);
}

#[test]
fn apache_with_tls_keeps_the_contract() {
    let made = Certificates::make();
    let server = apache(Some(&made));
    let ca = made.path("ca.pem");
    let settings = [&LOGIN[..], &[("ca-certificate", ca.as_str())]].concat();
    keeps_the_contract(&format!("webdavs://localhost:{}", server.port), &settings);
}

#[test]
fn lighttpd_keeps_the_contract() {
    let server = lighttpd();
    keeps_the_contract(&format!("webdav://127.0.0.1:{}", server.port), &LOGIN);
}

#[test]
fn wsgidav_keeps_the_contract() {
    let server = wsgidav();
    keeps_the_contract(&format!("webdav://127.0.0.1:{}", server.port), &LOGIN);
}

/// Against a server that takes long to install.
mod heavy {
    use larder_storage::{CreateExclusive, Mode};

    use super::{LOGIN, keeps_the_contract, open, rclone};

    #[test]
    fn rclone_keeps_the_contract_but_decides_no_races() {
        let server = rclone();
        let url = format!("webdav://127.0.0.1:{}", server.port);
        keeps_the_contract(&url, &LOGIN);
        let storage = open(&format!("{url}/r"), &LOGIN, Mode::Create).unwrap();
        let decides = storage.capabilities().create_exclusive;
        assert_eq!(decides, CreateExclusive::None);
    }
}

fn kind_and_reason(error: &StorageError) -> (ErrorKind, Reason) {
    (error.kind, error.reason)
}

#[test]
fn what_is_wrong_at_the_start_is_told_apart_and_at_once() {
    let server = apache(None);
    let port = server.port;
    let at = |url: &str, settings: &[(&str, &str)]| {
        let error = refused(open(url, settings, Mode::Open));
        let text = error.to_string();
        assert!(
            !text.contains("secret") && !text.contains("wrong-one"),
            "{text}"
        );
        kind_and_reason(&error)
    };
    let url = format!("webdav://127.0.0.1:{port}/r");
    assert_eq!(at(&url, &LOGIN), (ErrorKind::NotFound, Reason::NoFolder));
    let wrong = [("user", "bk"), ("password", "wrong-one")];
    assert_eq!(at(&url, &wrong), (ErrorKind::Denied, Reason::WrongLogin));
    assert_eq!(at(&url, &[]), (ErrorKind::Denied, Reason::NoCredentials));
    let nowhere = format!("webdav://127.0.0.1:{}/r", free_port());
    assert_eq!(
        at(&nowhere, &LOGIN),
        (ErrorKind::Permanent, Reason::Refused)
    );
    let host = "webdavs://no-such-host.invalid/r";
    assert_eq!(
        at(host, &LOGIN),
        (ErrorKind::Permanent, Reason::HostNotFound)
    );
    let plain = format!("webdavs://127.0.0.1:{port}/r");
    assert_eq!(at(&plain, &LOGIN), (ErrorKind::Permanent, Reason::Tls));
    let denied = format!("webdav://127.0.0.1:{port}/refused/r");
    assert_eq!(
        at(&denied, &LOGIN),
        (ErrorKind::Denied, Reason::NotPermitted)
    );
    assert_eq!(
        at("webdav://example.com/r", &LOGIN),
        (ErrorKind::Permanent, Reason::Settings)
    );
}

#[test]
fn a_certificate_is_trusted_by_its_authority_or_not_at_all() {
    let (made, other) = (Certificates::make(), Certificates::make());
    let server = apache(Some(&made));
    let url = format!("webdavs://localhost:{}/r", server.port);
    let with = |settings: &[(&str, &str)]| {
        open(
            &url,
            &[&LOGIN[..], &[("retry-for", "1s")], settings].concat(),
            Mode::Create,
        )
        .map(drop)
    };
    let certificate = (ErrorKind::Permanent, Reason::Certificate);
    assert_eq!(kind_and_reason(&with(&[]).unwrap_err()), certificate);
    let strange = other.path("ca.pem");
    let error = with(&[("ca-certificate", &strange)]).unwrap_err();
    assert_eq!(kind_and_reason(&error), certificate);
    assert!(error.to_string().contains("ca-certificate"), "{error}");
    with(&[("ca-certificate", &made.path("ca.pem"))]).unwrap();
    with(&[("skip-verification", "true")]).unwrap();
    // The other way round: TLS where plain text is expected.
    let plain = format!("webdav://localhost:{}/r", server.port);
    let error = refused(open(
        &plain,
        &[&LOGIN[..], &[("retry-for", "1s")]].concat(),
        Mode::Open,
    ));
    assert_eq!(
        kind_and_reason(&error),
        (ErrorKind::Permanent, Reason::Protocol)
    );
}

#[test]
fn a_folder_that_may_not_be_written_is_told() {
    let server = apache(None);
    let url = format!("webdav://127.0.0.1:{}/readonly", server.port);
    let storage = open(&url, &LOGIN, Mode::Open).unwrap();
    storage.list("", &mut |_| Ok(())).unwrap();
    for error in [
        storage.put("a", "x".into()).unwrap_err(),
        storage.create("packs/a", "x".into()).unwrap_err(),
        storage.delete("a").unwrap_err(),
    ] {
        assert_eq!(
            kind_and_reason(&error),
            (ErrorKind::Denied, Reason::NotPermitted),
            "{error}"
        );
    }
}

#[test]
fn remains_of_dead_writers_are_not_listed_and_swept_when_old() {
    let server = apache(None);
    let url = format!("webdav://127.0.0.1:{}/r", server.port);
    let storage = open(&url, &LOGIN, Mode::Create).unwrap();
    storage.put("packs/ab/cd", "x".into()).unwrap();
    let folder = server.folder.path().join("data/r/packs/ab");
    for name in ["gh-lock", "gh-0123456789abcdef.part"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    for name in [
        "ef-0123456789abcdef.part",
        "ef-lock",
        "README",
        "My file.txt",
    ] {
        std::fs::write(folder.join(name), "left").unwrap();
    }
    let mut names = Vec::new();
    let mut note = |object: ObjectInfo| {
        names.push(object.name);
        Ok(())
    };
    storage.list("", &mut note).unwrap();
    assert_eq!(names, ["packs/ab/cd"]);
    let age = std::time::Duration::from_secs;
    assert_eq!(storage.sweep(age(3600)).unwrap(), 0);
    assert_eq!(storage.sweep(age(0)).unwrap(), 4);
    let left = std::fs::read_dir(&folder).unwrap();
    assert_eq!(left.count(), 3);
}

#[test]
fn an_old_claim_is_taken_away_with_all_that_its_owner_left_in_it() {
    let server = apache(None);
    let url = format!("webdav://127.0.0.1:{}/r", server.port);
    let storage = open(&url, &LOGIN, Mode::Create).unwrap();
    storage.put("gc/0", "x".into()).unwrap();
    let folder = server.folder.path().join("data/r/gc");
    let claim = folder.join("1-lock");
    std::fs::create_dir(&claim).unwrap();
    let left = claim.join("1-0123456789abcdef.part");
    std::fs::write(&left, "his").unwrap();
    // The server may run as somebody else than the tests.
    let owner = std::fs::metadata(&folder).unwrap();
    for path in [&claim, &left] {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    // One that is young is waited for.
    let error = open(
        &url,
        &[&LOGIN[..], &[("retry-for", "1s")]].concat(),
        Mode::Open,
    )
    .unwrap()
    .create("gc/1", "mine".into())
    .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    let two_minutes_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(120);
    std::fs::File::open(&claim)
        .unwrap()
        .set_modified(two_minutes_ago)
        .unwrap();
    storage.create("gc/1", "mine".into()).unwrap();
    assert_eq!(storage.get("gc/1", 9).unwrap(), "mine");
    // What a late request of its owner would move is no more, and nothing else is left behind.
    assert!(!left.exists() && !claim.exists());
    let names: std::collections::BTreeSet<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(names, ["0", "1"].map(str::to_owned).into());
    // One who looked before it was made finds it made.
    let error = storage.create("gc/1", "other".into()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
}

#[test]
fn a_repository_that_is_gone_is_not_an_empty_one() {
    let server = apache(None);
    let url = format!("webdav://127.0.0.1:{}/r", server.port);
    let storage = open(&url, &LOGIN, Mode::Create).unwrap();
    storage.put("packs/ab", "x".into()).unwrap();
    std::fs::remove_dir_all(server.folder.path().join("data/r")).unwrap();
    for folder in ["", "packs"] {
        let error = storage.list(folder, &mut |_| Ok(())).unwrap_err();
        assert_eq!(
            kind_and_reason(&error),
            (ErrorKind::NotFound, Reason::NoFolder)
        );
    }
    // Nor is it made again by a write.
    let error = storage.put("packs/cd", "x".into()).unwrap_err();
    assert_eq!(
        kind_and_reason(&error),
        (ErrorKind::NotFound, Reason::NoFolder)
    );
}

#[test]
fn a_server_that_is_killed_and_started_again_is_survived() {
    let mut server = apache(None);
    let url = format!("webdav://127.0.0.1:{}/r", server.port);
    let storage = open(
        &url,
        &[&LOGIN[..], &[("retry-for", "240s")]].concat(),
        Mode::Create,
    )
    .unwrap();
    storage.put("packs/ab", "before".into()).unwrap();
    server.kill();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| storage.put("packs/cd", "after".into()));
        server.restart(|folder, port| apache_command(folder, port, None));
        writer.join().unwrap().unwrap();
    });
    assert_eq!(storage.get("packs/ab", 9).unwrap(), "before");
    assert_eq!(storage.get("packs/cd", 9).unwrap(), "after");
}

/// Puts a proxy before a server that lets the first requests of a kind fail.
fn fault(upstream: u16, mode: &str, count: u32) -> Server {
    Server::start(|_, port| {
        let mut command = Command::new(python("python3"));
        command.arg(recipes().join("fault.py"));
        command.args([port.to_string(), upstream.to_string()]);
        command.args([mode.to_owned(), count.to_string()]);
        command
    })
}

#[test]
fn every_fault_is_survived_and_nobodys_object_is_taken_for_ones_own() {
    let server = apache(None);
    let big = Bytes::from_iter((0..300_000_u32).map(|at| ((at * 31) >> 3) as u8));
    for mode in [
        "503",
        "500",
        "429",
        "rst",
        "hang",
        "trunc",
        "stallget",
        "slowget",
        "commit500",
        "commitrst",
    ] {
        let direct = format!("webdav://127.0.0.1:{}/{mode}", server.port);
        let direct = open(&direct, &LOGIN, Mode::Create).unwrap();
        direct.put("packs/ab", big.clone()).unwrap();
        direct.create("gc/1", "another's".into()).unwrap();
        // Those two ask to wait for 7 seconds each time.
        let count = if ["503", "429"].contains(&mode) { 1 } else { 3 };
        let proxy = fault(server.port, mode, count);
        let url = format!("webdav://127.0.0.1:{}/{mode}", proxy.port);
        let times = [("read-timeout", "2s"), ("connect-timeout", "2s")];
        let storage = open(&url, &[&LOGIN[..], &times].concat(), Mode::Open).unwrap();
        assert!(storage.get("packs/ab", 1 << 20).unwrap() == big, "{mode}");
        let range = storage.get_range("packs/ab", 1000, 200_000).unwrap();
        assert!(range == big.slice(1000..201_000), "{mode}");
        storage.put("packs/cd", big.clone()).unwrap();
        assert!(direct.get("packs/cd", 1 << 20).unwrap() == big, "{mode}");
        let mine = Bytes::from_static(b"mine");
        create_or_confirm(&*storage, "gc/2", &mine).unwrap();
        let error = create_or_confirm(&*storage, "gc/1", &mine).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists, "{mode}: {error}");
        let mut names = Vec::new();
        let mut note = |object: ObjectInfo| {
            names.push(object.name);
            Ok(())
        };
        storage.list("", &mut note).unwrap();
        names.sort();
        assert_eq!(names, ["gc/1", "gc/2", "packs/ab", "packs/cd"], "{mode}");
    }
}

/// What a server says of its root.
const ROOT: &str = "<D:response><D:href>/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype>\
    </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>";

/// Opens a storage at a server that tells honestly of its root, and answers all else by `answer`.
fn hostile(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Arc<dyn Storage> {
    let port = serve(move |request, stream| {
        let depth = request.header("depth");
        match (request.method(), request.path(), depth) {
            ("PROPFIND", "/", Some("0")) => {
                reply(stream, "207 Multi-Status", listing(ROOT).as_bytes());
            }
            _ => answer(request, stream),
        }
    });
    let url = format!("webdav://127.0.0.1:{port}");
    let settings = [("read-timeout", "2s"), ("retry-for", "1s")];
    open(&url, &settings, Mode::Open).unwrap()
}

fn listing(inner: &str) -> String {
    format!("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">{inner}</D:multistatus>")
}

fn listed_kind(storage: &dyn Storage) -> (ErrorKind, Reason) {
    kind_and_reason(&storage.list("", &mut |_| Ok(())).unwrap_err())
}

#[test]
fn an_endless_or_huge_answer_takes_no_memory() {
    let storage = hostile(|request, stream| {
        if request.method() == "PROPFIND" {
            let _ = stream.write_all(b"HTTP/1.1 207 Multi-Status\r\nConnection: close\r\n\r\n");
            let block = vec![b'<'; 1 << 20];
            while stream.write_all(&block).is_ok() {}
        } else {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\nx");
        }
    });
    let error = storage.get("huge", 100).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Oversized);
    let error = storage.get("huge", u64::MAX).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
    let protocol = (ErrorKind::Permanent, Reason::Protocol);
    assert_eq!(listed_kind(&*storage), protocol);
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 400 << 10, "{kilobytes} KiB");
}

#[test]
fn listings_that_lie_are_errors_and_never_empty() {
    let own = ROOT;
    let object = |href: &str, more: &str| {
        format!(
            "<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype/>{more}</D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        )
    };
    let size = "<D:getcontentlength>7</D:getcontentlength>";
    let with =
        |xml: String| hostile(move |_, stream| reply(stream, "207 Multi-Status", xml.as_bytes()));
    let bad = [
        listing(""),
        listing(&object("/a", size)),
        listing(&format!("{own}{}", object("/a", ""))),
        listing(&format!(
            "{own}<D:response><D:href>/a</D:href><D:status>HTTP/1.1 507 Full</D:status></D:response>"
        )),
        listing(&format!("{own}{}", "<a>".repeat(1_000_000))),
        format!("<!DOCTYPE x [<!ENTITY a \"b\">]>{}", listing(own)),
        listing(own).replace("</D:multistatus>", ""),
        "<html>log in</html>".to_owned(),
        String::new(),
    ];
    for xml in bad {
        let start = xml.get(..xml.len().min(300)).unwrap_or("").to_owned();
        let storage = with(xml);
        assert_eq!(
            listed_kind(&*storage),
            (ErrorKind::Permanent, Reason::Protocol),
            "{start}"
        );
    }
    let strange: String = [
        "/../etc",
        "/%2e%2e/x",
        "/a/b",
        "http://elsewhere/ok",
        "/Foreign",
        "/%ff",
        "/a%00b",
    ]
    .iter()
    .map(|href| object(href, size))
    .collect();
    let storage = with(listing(&format!("{own}{strange}")));
    let mut names = Vec::new();
    let mut note = |object: ObjectInfo| {
        names.push((object.name, object.size_bytes));
        Ok(())
    };
    storage.list("", &mut note).unwrap();
    assert_eq!(
        names,
        [
            ("etc".to_owned(), 7),
            ("ok".to_owned(), 7),
            ("x".to_owned(), 7)
        ]
    );
}

#[test]
fn a_server_without_ranges_is_cut_and_one_with_wrong_ones_refused() {
    let storage = hostile(|request, stream| match request.path() {
        "/whole" => reply(stream, "200 OK", b"0123456789"),
        "/wrong" => reply(
            stream,
            "206 Partial Content\r\nContent-Range: bytes 0-3/10",
            b"0123",
        ),
        "/short" => reply(
            stream,
            "206 Partial Content\r\nContent-Range: bytes 2-5/10",
            b"23",
        ),
        "/none" => reply(stream, "206 Partial Content", b"2345"),
        "/packed" => reply(stream, "200 OK\r\nContent-Encoding: gzip", b"0123456789"),
        _ => reply(
            stream,
            "302 Found\r\nLocation: http://127.0.0.1:1/other",
            b"",
        ),
    });
    assert_eq!(storage.get_range("whole", 2, 4).unwrap(), "2345");
    let kind = |name: &str| kind_and_reason(&storage.get_range(name, 2, 4).unwrap_err());
    let protocol = (ErrorKind::Permanent, Reason::Protocol);
    assert_eq!(kind("wrong"), protocol);
    assert_eq!(kind("none"), protocol);
    assert_eq!(kind("packed"), protocol);
    assert_eq!(kind("sent"), protocol);
    assert_eq!(kind("short").0, ErrorKind::Transient);
    let error = storage.get_range("whole", 8, 4).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Truncated);
}

#[test]
fn a_quota_that_is_full_is_told() {
    let storage = hostile(|request, stream| match request.method() {
        "PUT" => reply(stream, "507 Insufficient Storage", b""),
        _ => reply(stream, "404 Not Found", b""),
    });
    let error = storage.put("a", "x".into()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Full, "{error}");
}

#[test]
fn a_repository_lives_on_a_server() {
    for server in [apache(None), wsgidav()] {
        let url = format!("webdav://127.0.0.1:{}/backups/larder", server.port);
        crate::life::live(&url, &LOGIN);
    }
}
