//! Mail through a server that asks for TLS and for a password.

use std::time::Duration;

use larder_storage::mail::{self, Mail, Security, Server as MailServer};
use larder_storage::secret::SecretSource;

use crate::servers::{Certificates, Server, python, recipes};

const LIMIT: Duration = Duration::from_secs(60);
const RIGHT: &str = "opens-mail";

/// Starts the server in one of its ways.
fn start(kind: &str, certificates: &Certificates) -> Server {
    Server::start(|folder, port| {
        let mut command = std::process::Command::new(python("python3"));
        command
            .arg(recipes().join("mail.py"))
            .arg(port.to_string())
            .arg(folder)
            .arg(kind)
            .arg(certificates.path("srv-both.pem"));
        command
    })
}

fn reached(server: &Server, security: Security, ca: Option<&str>, password: &str) -> MailServer {
    let password = SecretSource::Text(password.to_owned().into());
    MailServer {
        host: "127.0.0.1".to_owned(),
        port: server.port,
        security,
        login: Some(("larder".to_owned(), password)),
        ca_certificate: ca.map(str::to_owned),
    }
}

fn sent(server: &MailServer) -> Result<(), String> {
    let to = ["admin@example.org".to_owned()];
    let mail = Mail {
        from: "Larder <larder@example.org>",
        to: &to,
        subject: "larder: nightly failed",
        text: "there is no such bucket\n",
    };
    mail::send(server, &mail, LIMIT)
}

#[test]
fn a_server_with_tls_takes_mail_from_whom_it_knows() {
    let certificates = Certificates::make();
    let ca = certificates.path("ca.pem");
    for (kind, security) in [("tls", Security::Tls), ("starttls", Security::StartTls)] {
        let server = start(kind, &certificates);
        sent(&reached(&server, security, Some(&ca), RIGHT)).unwrap();
        let mail = std::fs::read_to_string(server.folder.path().join("mail")).unwrap();
        for part in [
            "From: Larder <larder@example.org>",
            "To: admin@example.org",
            "Subject: larder: nightly failed",
            "there is no such bucket",
        ] {
            assert!(mail.contains(part), "no {part:?} in: {mail}");
        }
        let why = sent(&reached(&server, security, Some(&ca), "hunter2")).unwrap_err();
        assert!(why.contains("535") && !why.contains("hunter2"), "{why}");
        let why = sent(&reached(&server, security, None, RIGHT)).unwrap_err();
        assert!(why.contains("ca-certificate"), "{why}");
    }
}

#[test]
fn a_server_without_tls_gets_no_password() {
    let certificates = Certificates::make();
    let ca = certificates.path("ca.pem");
    let server = start("plain", &certificates);
    for security in [Security::Tls, Security::StartTls] {
        let error = sent(&reached(&server, security, Some(&ca), RIGHT)).unwrap_err();
        assert!(!error.contains(RIGHT), "{error}");
    }
    assert!(!server.folder.path().join("mail").exists());
    sent(&reached(&server, Security::Plain, None, RIGHT)).unwrap();
}
