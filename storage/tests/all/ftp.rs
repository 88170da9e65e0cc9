//! FTP and FTPS against vsftpd and pyftpdlib.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use larder_storage::error::{ErrorKind, Reason, Result, StorageError};
use larder_storage::{CreateExclusive, Mode, Storage, contract};

use crate::accounts::{self, PASSWORD, USER};
use crate::servers::{self, Certificates, Server, python, recipes};

/// The kinds of server, and how they are reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vsftpd,
    VsftpdTls,
    Plain,
    Explicit,
    Implicit,
    /// No EPSV, no MLSD, and a private address in the answer to PASV.
    Old,
}

struct Ftpd {
    server: Server,
    kind: Kind,
    certificates: Option<Certificates>,
}

impl Ftpd {
    /// Starts one; `None` where this machine does not let tests have it.
    fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, "")
    }

    /// Starts one with further lines of the script that starts it.
    fn start_with(kind: Kind, script: &str) -> Option<Self> {
        if !accounts::are_there() {
            return None;
        }
        let has_tls = matches!(kind, Kind::VsftpdTls | Kind::Explicit | Kind::Implicit);
        let certificates = has_tls.then(Certificates::make);
        let given = certificates.as_ref();
        let server = Server::start(|folder, port| command(kind, folder, port, given, script));
        Some(Self {
            server,
            kind,
            certificates,
        })
    }

    fn home(&self) -> PathBuf {
        self.server.folder.path().join("home")
    }

    fn url(&self, folder: &str) -> String {
        let scheme = if self.certificates.is_some() {
            "ftps"
        } else {
            "ftp"
        };
        format!("{scheme}://{USER}@127.0.0.1:{}/{folder}", self.server.port)
    }

    /// Opens a folder with the settings that let the server be trusted, and others.
    fn open(
        &self,
        folder: &str,
        settings: &[(&str, &str)],
        mode: Mode,
    ) -> Result<Arc<dyn Storage>> {
        let ca = self.certificates.as_ref().map(|made| made.path("ca.pem"));
        let mut all = vec![("retry-for", "20s")];
        if let Some(ca) = &ca {
            all.push(("ca-certificate", ca));
        }
        if self.kind == Kind::Implicit {
            all.push(("tls", "implicit"));
        }
        if !settings.iter().any(|(name, _)| *name == "password") {
            all.push(("password", PASSWORD));
        }
        all.extend(settings);
        servers::open(&self.url(folder), &all, mode)
    }

    fn made(&self, folder: &str) -> Arc<dyn Storage> {
        self.open(folder, &[], Mode::Create).unwrap()
    }

    fn restart(&mut self) {
        let (kind, certificates) = (self.kind, self.certificates.as_ref());
        self.server
            .restart(|folder, port| command(kind, folder, port, certificates, ""));
    }
}

fn command(
    kind: Kind,
    folder: &Path,
    port: u16,
    certificates: Option<&Certificates>,
    script: &str,
) -> Command {
    let shown = folder.display();
    let path = |name: &str| certificates.map(|made| made.path(name)).unwrap_or_default();
    let server = match kind {
        Kind::Vsftpd | Kind::VsftpdTls => {
            let mut text = format!(
                "listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=NO
local_enable=YES
write_enable=YES
local_root={shown}/home
pam_service_name=login
seccomp_sandbox=NO
check_shell=NO
local_umask=022
use_localtime=YES
"
            );
            if kind == Kind::VsftpdTls {
                text.push_str(&format!(
                    "ssl_enable=YES
rsa_cert_file={}
rsa_private_key_file={}
force_local_data_ssl=YES
force_local_logins_ssl=YES
ssl_tlsv1=YES
require_ssl_reuse=YES
",
                    path("srv.pem"),
                    path("srv.key")
                ));
            }
            fs::write(folder.join("vsftpd.conf"), text).unwrap();
            format!("mkdir -p /run/vsftpd/empty; /usr/sbin/vsftpd {shown}/vsftpd.conf & wait $!")
        }
        kind => {
            let name = match kind {
                Kind::Explicit => "explicit",
                Kind::Implicit => "implicit",
                Kind::Old => "old",
                _ => "plain",
            };
            format!(
                "exec {} {}/ftpsrv.py {port} {shown}/home {name} {}",
                python("python3").display(),
                recipes().display(),
                path("srv-both.pem")
            )
        }
    };
    accounts::with_user(folder, &format!("{script}\n{server}"))
}

fn refused(outcome: Result<Arc<dyn Storage>>) -> StorageError {
    outcome.err().expect("the storage opened")
}

fn keeps_the_contract(kind: Kind) {
    let Some(ftpd) = Ftpd::start(kind) else {
        return;
    };
    let round = Cell::new(0);
    contract::run(&|| {
        round.set(round.get() + 1);
        let storage = ftpd.made(&format!("deep/down/r{}", round.get()));
        let capabilities = storage.capabilities();
        assert_eq!(capabilities.create_exclusive, CreateExclusive::FolderRename);
        assert!(capabilities.atomic_put);
        storage
    });
}

#[test]
fn vsftpd_keeps_the_contract() {
    keeps_the_contract(Kind::Vsftpd);
}

#[test]
fn vsftpd_with_tls_keeps_the_contract() {
    keeps_the_contract(Kind::VsftpdTls);
}

#[test]
fn pyftpdlib_keeps_the_contract() {
    keeps_the_contract(Kind::Plain);
}

#[test]
fn pyftpdlib_with_tls_keeps_the_contract() {
    keeps_the_contract(Kind::Explicit);
}

#[test]
fn a_server_with_tls_from_the_first_byte_keeps_the_contract() {
    keeps_the_contract(Kind::Implicit);
}

#[test]
fn a_server_without_newer_commands_and_behind_another_address_keeps_the_contract() {
    keeps_the_contract(Kind::Old);
}

#[test]
fn wrong_logins_are_told_and_not_tried_again() {
    for kind in [Kind::Vsftpd, Kind::Plain, Kind::Explicit] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let error = refused(ftpd.open("", &[("password", "hunter2")], Mode::Open));
        assert_eq!(
            (error.kind, error.reason),
            (ErrorKind::Denied, Reason::WrongLogin)
        );
        assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn certificates_have_to_be_trusted() {
    for kind in [Kind::VsftpdTls, Kind::Explicit, Kind::Implicit] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let tls = if kind == Kind::Implicit {
            "implicit"
        } else {
            "explicit"
        };
        let open = |settings: &[(&str, &str)]| {
            let mut all = vec![("password", PASSWORD), ("tls", tls)];
            all.extend(settings);
            servers::open(&ftpd.url(""), &all, Mode::Open)
        };
        let error = refused(open(&[]));
        assert_eq!(
            (error.kind, error.reason),
            (ErrorKind::Permanent, Reason::Certificate),
            "{error}"
        );
        assert!(error.to_string().contains("ca-certificate"), "{error}");
        let other = Certificates::make();
        let error = refused(open(&[("ca-certificate", &other.path("ca.pem"))]));
        assert_eq!(error.reason, Reason::Certificate, "{error}");
        open(&[("skip-verification", "true")]).unwrap();
        let ca = ftpd.certificates.as_ref().unwrap().path("ca.pem");
        open(&[("ca-certificate", &ca)]).unwrap();
    }
}

#[test]
fn tls_on_one_side_only_is_told() {
    let Some(plain) = Ftpd::start(Kind::Plain) else {
        return;
    };
    let error = refused(plain.open("", &[("tls", "explicit")], Mode::Open));
    assert_eq!(error.reason, Reason::Tls, "{error}");
    let error = refused(plain.open(
        "",
        &[("tls", "implicit"), ("read-timeout", "5s")],
        Mode::Open,
    ));
    assert_eq!(error.reason, Reason::Tls, "{error}");
    for kind in [Kind::VsftpdTls, Kind::Explicit] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let url = format!("ftp://{USER}@127.0.0.1:{}/", ftpd.server.port);
        let error = refused(servers::open(&url, &[("password", PASSWORD)], Mode::Open));
        assert_eq!(error.reason, Reason::Tls, "{error}");
    }
}

#[test]
fn servers_that_cannot_be_reached_are_told_apart() {
    let open = |url: &str| {
        let settings = [
            ("password", PASSWORD),
            ("connect-timeout", "5s"),
            ("retry-for", "1s"),
        ];
        refused(servers::open(url, &settings, Mode::Open))
    };
    let port = servers::free_port();
    let refused = open(&format!("ftp://{USER}@127.0.0.1:{port}/r"));
    assert_eq!(refused.reason, Reason::Refused, "{refused}");
    let nowhere = open(&format!("ftps://{USER}@nowhere.invalid/r"));
    assert_eq!(nowhere.reason, Reason::HostNotFound, "{nowhere}");
}

#[test]
fn a_missing_folder_is_told_and_paths_are_relative_unless_two_slashes_begin_them() {
    for kind in [Kind::Vsftpd, Kind::Plain] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let error = refused(ftpd.open("a/b", &[], Mode::Open));
        assert_eq!(
            (error.kind, error.reason),
            (ErrorKind::NotFound, Reason::NoFolder)
        );
        assert!(!ftpd.home().join("a").exists());
        ftpd.made("a/b")
            .put("config/0", Bytes::from_static(b"x"))
            .unwrap();
        assert!(ftpd.home().join("a/b/config/0").is_file());
        ftpd.open("a/b", &[], Mode::Open).unwrap();
        // pyftpdlib shows its user the home folder as the root.
        let root = match kind {
            Kind::Vsftpd => ftpd.home().display().to_string(),
            _ => String::new(),
        };
        for slash in ["/", "%2F"] {
            let storage = ftpd.open(
                &format!("{slash}{}/a/b", root.trim_start_matches('/')),
                &[],
                Mode::Open,
            );
            assert_eq!(storage.unwrap().get("config/0", 9).unwrap(), "x");
        }
    }
}

#[test]
fn a_folder_without_the_right_to_write_is_told() {
    for kind in [Kind::Vsftpd, Kind::Plain] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let closed = ftpd.home().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::write(closed.join("there"), "x").unwrap();
        let user = if kind == Kind::Plain { "ro" } else { USER };
        let url = format!("ftp://{user}@127.0.0.1:{}/closed", ftpd.server.port);
        let settings = [("password", PASSWORD)];
        let storage = servers::open(&url, &settings, Mode::Open).unwrap();
        assert_eq!(storage.get("there", 9).unwrap(), "x");
        let bytes = || Bytes::from_static(b"x");
        for outcome in [
            storage.put("a", bytes()),
            storage.put("packs/ab/cd", bytes()),
            storage.create("a", bytes()),
            storage.delete("there"),
        ] {
            let error = outcome.unwrap_err();
            assert_eq!(
                (error.kind, error.reason),
                (ErrorKind::Denied, Reason::NotPermitted),
                "{error}"
            );
        }
        let error = refused(servers::open(
            &format!("{url}/new"),
            &settings,
            Mode::Create,
        ));
        assert_eq!(
            (error.kind, error.reason),
            (ErrorKind::Denied, Reason::NotPermitted),
            "{error}"
        );
        // An object that is there and may not be read is not a missing one.
        if kind == Kind::Vsftpd {
            let secret = closed.join("secret");
            fs::write(&secret, "x").unwrap();
            fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
            assert_eq!(
                storage.get("secret", 9).unwrap_err().kind,
                ErrorKind::Denied
            );
            assert_eq!(
                storage.get("nothing", 9).unwrap_err().kind,
                ErrorKind::NotFound
            );
        }
    }
}

#[test]
fn a_full_disk_is_told() {
    // pyftpdlib trips over the error of its own disk and never answers.
    let script = "mkdir -p home/small
        mount -t tmpfs -o size=2m,uid=20001,mode=700 none home/small";
    let Some(ftpd) = Ftpd::start_with(Kind::Vsftpd, script) else {
        return;
    };
    let storage = ftpd.made("small/r");
    storage
        .put("a/first", Bytes::from(vec![1; 1 << 20]))
        .unwrap();
    let bytes = Bytes::from(vec![2; 3 << 20]);
    let full = storage.put("a/second", bytes.clone()).unwrap_err();
    assert_eq!(full.kind, ErrorKind::Full, "{full}");
    let full = storage.create("a/second", bytes).unwrap_err();
    assert_eq!(full.kind, ErrorKind::Full, "{full}");
    // What did not fit has left nothing behind.
    let third = Bytes::from(vec![3; 900 << 10]);
    storage.put("a/third", third).unwrap();
    assert_eq!(storage.size("a/first").unwrap(), 1 << 20);
}

#[test]
fn a_server_that_is_restarted_in_between_is_survived() {
    for kind in [Kind::VsftpdTls, Kind::Plain] {
        let Some(mut ftpd) = Ftpd::start(kind) else {
            return;
        };
        let storage = ftpd.made("r");
        let large = Bytes::from(vec![7; 5 << 20]);
        storage.put("packs/ab/one", large.clone()).unwrap();
        ftpd.server.kill();
        let reader = Arc::clone(&storage);
        let reading = thread::spawn(move || reader.get("packs/ab/one", 9 << 20));
        ftpd.restart();
        assert!(reading.join().unwrap().unwrap() == large);
        ftpd.restart();
        let mut names = Vec::new();
        storage
            .list("", &mut |object| {
                names.push(object.name);
                Ok(())
            })
            .unwrap();
        assert_eq!(names, ["packs/ab/one"]);
        ftpd.restart();
        storage.put("packs/ab/two", large.clone()).unwrap();
        assert_eq!(storage.size("packs/ab/two").unwrap(), large.len() as u64);
    }
}

#[test]
fn a_server_killed_during_an_upload_leaves_no_torn_object_and_sweep_removes_the_rest() {
    for kind in [Kind::Vsftpd, Kind::Plain] {
        let Some(mut ftpd) = Ftpd::start(kind) else {
            return;
        };
        let storage = ftpd
            .open("r", &[("retry-for", "1s")], Mode::Create)
            .unwrap();
        let folder = ftpd.home().join("r/packs/ab");
        let writing =
            thread::spawn(move || storage.put("packs/ab/cd", Bytes::from(vec![9; 300 << 20])));
        let has_begun = || {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut sizes = entries.map(|entry| entry.metadata().map_or(0, |found| found.len()));
            sizes.any(|size| size > 1 << 20)
        };
        while !has_begun() && !writing.is_finished() {
            thread::yield_now();
        }
        ftpd.server.kill();
        let error = writing
            .join()
            .unwrap()
            .expect_err("the upload was over before the kill");
        assert_eq!(error.kind, ErrorKind::Transient, "{error}");
        assert!(!folder.join("cd").exists());
        ftpd.restart();
        let storage = ftpd.made("r");
        assert_eq!(
            storage.get("packs/ab/cd", 1).unwrap_err().kind,
            ErrorKind::NotFound
        );
        assert_eq!(storage.sweep(Duration::from_secs(24 * 3600)).unwrap(), 0);
        assert_eq!(storage.sweep(Duration::ZERO).unwrap(), 1);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}

#[test]
fn foreign_files_are_passed_over_and_a_root_that_vanished_is_no_empty_repository() {
    for kind in [Kind::Vsftpd, Kind::Plain, Kind::Old] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let storage = ftpd.made("r");
        storage
            .put("packs/ab/cd", Bytes::from_static(b"x"))
            .unwrap();
        let root = ftpd.home().join("r");
        fs::write(root.join("README of 5 Nov 21 20:01 x"), "foreign").unwrap();
        fs::write(root.join(".larder-x"), "foreign").unwrap();
        fs::create_dir(root.join("lost+found")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("packs/broken")).unwrap();
        let mut names = Vec::new();
        storage
            .list("", &mut |object| {
                names.push((object.name, object.size_bytes));
                Ok(())
            })
            .unwrap();
        assert_eq!(names, [("packs/ab/cd".to_owned(), 1)]);
        fs::rename(&root, ftpd.home().join("gone")).unwrap();
        assert_eq!(
            storage.list("", &mut |_| Ok(())).unwrap_err().kind,
            ErrorKind::Permanent
        );
        assert_eq!(
            storage.get("packs/ab/ef", 9).unwrap_err().kind,
            ErrorKind::Permanent
        );
        assert!(!root.exists());
    }
}

#[test]
fn what_was_created_is_a_folder_that_a_crash_leaves_whole_or_free() {
    for kind in [Kind::Vsftpd, Kind::Plain] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let storage = ftpd.made("r");
        let root = ftpd.home().join("r");
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        storage.create("gc/1", bytes("one")).unwrap();
        assert_eq!(
            fs::read_to_string(root.join("gc/1-object/content")).unwrap(),
            "one"
        );
        assert_eq!(fs::read_dir(root.join("gc")).unwrap().count(), 1);
        assert_eq!(storage.get_range("gc/1", 1, 2).unwrap(), "ne");
        assert_eq!(
            storage.create("gc/1", bytes("two")).unwrap_err().kind,
            ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read_dir(root.join("gc")).unwrap().count(), 1);
        // Somebody died between the two steps of a delete: the name is free.
        fs::remove_file(root.join("gc/1-object/content")).unwrap();
        assert_eq!(
            storage.get("gc/1", 9).unwrap_err().kind,
            ErrorKind::NotFound
        );
        storage
            .list("gc", &mut |object| panic!("{object:?} is there"))
            .unwrap();
        storage.create("gc/1", bytes("again")).unwrap();
        // A put takes its place, and a delete leaves nothing.
        storage.put("gc/1", bytes("put")).unwrap();
        assert_eq!(storage.get("gc/1", 9).unwrap(), "put");
        assert_eq!(
            storage.create("gc/1", bytes("x")).unwrap_err().kind,
            ErrorKind::AlreadyExists
        );
        storage.delete("gc/1").unwrap();
        storage.create("gc/1", bytes("x")).unwrap();
        storage.delete("gc/1").unwrap();
        assert_eq!(fs::read_dir(root.join("gc")).unwrap().count(), 0);
        // Somebody died before the rename.
        let staged = root.join("gc/.larder-0123456789abcdef0123456789abcdef");
        fs::create_dir(&staged).unwrap();
        fs::write(staged.join("content"), "half").unwrap();
        assert_eq!(storage.sweep(Duration::from_secs(24 * 3600)).unwrap(), 0);
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&staged, everybody).unwrap();
        assert_eq!(storage.sweep(Duration::ZERO).unwrap(), 1);
        assert!(!staged.exists());
    }
}

#[test]
fn a_hundred_megabytes_come_back_as_they_were() {
    for kind in [Kind::Vsftpd, Kind::VsftpdTls] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let storage = ftpd.made("r");
        let bytes = Bytes::from_iter(
            (0..100_000_000_u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8),
        );
        storage.put("packs/ab/large", bytes.clone()).unwrap();
        assert!(storage.get("packs/ab/large", u64::MAX).unwrap() == bytes);
        let range = storage
            .get_range("packs/ab/large", 12_345_678, 30_000_001)
            .unwrap();
        assert!(range == bytes.slice(12_345_678..42_345_679));
    }
}

#[test]
fn a_repository_lives_on_a_server() {
    for kind in [Kind::Vsftpd, Kind::Explicit] {
        let Some(ftpd) = Ftpd::start(kind) else {
            return;
        };
        let mut settings = vec![("password", PASSWORD)];
        let ca = ftpd.certificates.as_ref().map(|made| made.path("ca.pem"));
        if let Some(ca) = &ca {
            settings.push(("ca-certificate", ca));
        }
        crate::life::live(&ftpd.url("backups/larder"), &settings);
    }
}
