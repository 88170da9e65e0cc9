//! Mail to people, over SMTP.

use std::fmt;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{Error, SmtpTransport};
use lettre::{Message, Transport as _};
use url::{Host, Url};

use crate::http::loggable;
use crate::network::{certificates, choose_cryptography};
use crate::secret::SecretSource;

/// How a server of mail is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Security {
    /// With TLS from the first byte on.
    #[default]
    Tls,
    /// With TLS that is asked for first; a server that has none is refused.
    StartTls,
    /// In the clear.
    Plain,
}

/// A server that takes mail, and as whom it is spoken to.
#[derive(Clone)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub security: Security,
    /// User and password; none if it takes mail from anybody who reaches it.
    pub login: Option<(String, SecretSource)>,
    /// Certificates that are trusted besides the machine's own: PEM text, or the file that holds it.
    pub ca_certificate: Option<String>,
}

/// A mail of plain text.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// Who sends it.
    pub from: &'a str,
    /// Who gets it, at least one.
    pub to: &'a [String],
    /// What it is about.
    pub subject: &'a str,
    /// What it says.
    pub text: &'a str,
}

impl Security {
    /// Takes it by its word in larder.toml.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "tls" => Self::Tls,
            "starttls" => Self::StartTls,
            "none" => Self::Plain,
            _ => return None,
        })
    }

    /// Gives the port that servers usually have for it.
    #[must_use]
    pub fn usual_port(self) -> u16 {
        match self {
            Self::Tls => 465,
            Self::StartTls => 587,
            Self::Plain => 25,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Reads `HOST` or `HOST:PORT`.
///
/// # Errors
/// In words.
pub fn read_server(text: &str) -> Result<(String, Option<u16>), String> {
    let refused = || match text.contains('@') {
        // What stands before it may be a password.
        true => "it is no server; write HOST or HOST:PORT".to_owned(),
        false => format!("'{text}' is no server; write HOST or HOST:PORT"),
    };
    let url = Url::parse(&format!("smtp://{text}")).map_err(|_| refused())?;
    let is_bare = matches!(url.path(), "" | "/")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    match (url.host(), is_bare && !text.ends_with('/')) {
        (Some(Host::Domain(name)), true) => Ok((name.to_owned(), url.port())),
        (Some(Host::Ipv4(address)), true) => Ok((address.to_string(), url.port())),
        (Some(Host::Ipv6(address)), true) => Ok((address.to_string(), url.port())),
        _ => Err(refused()),
    }
}

/// Looks whether mail can be sent from or to an address.
///
/// # Errors
/// In words.
pub fn check_address(address: &str) -> Result<(), String> {
    mailbox(address).map(drop)
}

/// Sends a mail; `limit` is how long each answer of the server may take.
///
/// # Errors
/// In words, which name the server and never the password.
pub fn send(server: &Server, mail: &Mail<'_>, limit: Duration) -> Result<(), String> {
    let message = message(mail)?;
    let transport = transport(server, limit)?;
    let sent = transport.send(&message);
    sent.map(drop).map_err(|error| told(server, &error, limit))
}

fn message(mail: &Mail<'_>) -> Result<Message, String> {
    // Neither can begin another header.
    let subject: String = mail
        .subject
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    let mut message = Message::builder()
        .from(mailbox(mail.from)?)
        .subject(subject)
        .message_id(None)
        .header(ContentType::TEXT_PLAIN);
    for to in mail.to {
        message = message.to(mailbox(to)?);
    }
    let message = message.body(mail.text.to_owned());
    message.map_err(|error| format!("the mail cannot be written: {error}"))
}

fn mailbox(address: &str) -> Result<Mailbox, String> {
    let mailbox = address.parse::<Mailbox>();
    mailbox.map_err(|error| format!("'{address}' is no address for mail: {error}"))
}

fn transport(server: &Server, limit: Duration) -> Result<SmtpTransport, String> {
    let tls = match server.security {
        Security::Plain => Tls::None,
        Security::Tls => Tls::Wrapper(parameters(server)?),
        Security::StartTls => Tls::Required(parameters(server)?),
    };
    let transport = SmtpTransport::builder_dangerous(server.host.as_str())
        .port(server.port)
        .tls(tls)
        .timeout(Some(limit));
    let Some((user, password)) = &server.login else {
        return Ok(transport.build());
    };
    let password = password.fetch("password of the mail server")?;
    let login = Credentials::new(user.clone(), password.as_str().to_owned());
    Ok(transport.credentials(login).build())
}

fn parameters(server: &Server) -> Result<TlsParameters, String> {
    choose_cryptography();
    let mut parameters = TlsParameters::builder(server.host.clone());
    if let Some(given) = &server.ca_certificate {
        let pem = certificates(given)?;
        let trusted = Certificate::from_pem(pem.as_bytes())
            .map_err(|error| format!("the certificates in {given} cannot be read: {error}"))?;
        parameters = parameters.add_root_certificate(trusted);
    }
    let built = parameters.build_rustls();
    built.map_err(|error| format!("cannot speak TLS with {server}: {error}"))
}

/// Says what went wrong, and what may help.
fn told(server: &Server, error: &Error, limit: Duration) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let words = loggable(&innermost.to_string());
    match error.status() {
        Some(code) => format!("{server} answered with {code}: {words}"),
        None if error.is_timeout() => {
            format!("{server} did not answer within {} s", limit.as_secs())
        }
        None if words.contains("UnknownIssuer") => format!(
            "the certificate of {server} is not trusted; if it is your own, name its authority with ca-certificate"
        ),
        None => format!("no mail can be sent by {server}: {words}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn server(port: u16) -> Server {
        Server {
            host: "127.0.0.1".to_owned(),
            port,
            security: Security::Plain,
            login: None,
            ca_certificate: None,
        }
    }

    fn sent(server: &Server, subject: &str) -> Result<(), String> {
        let to = [
            "one@example.org".to_owned(),
            "Two <two@example.org>".to_owned(),
        ];
        let mail = Mail {
            from: "larder@example.org",
            to: &to,
            subject,
            text: "nightly: gr\u{fc}n\n.\nend",
        };
        send(server, &mail, LIMIT)
    }

    /// Takes one mail, answers `RCPT` with this, and gives all lines that came.
    fn taken(listener: &TcpListener, recipient: &str) -> Vec<String> {
        let (stream, _) = listener.accept().unwrap();
        let mut out = stream.try_clone().unwrap();
        let mut say = |text: &str| out.write_all(format!("{text}\r\n").as_bytes()).unwrap();
        say("220 ready");
        let mut is_text = false;
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            // Whoever is refused goes without a word.
            let Ok(line) = line else { break };
            let word = line.split([' ', ':']).next().unwrap().to_owned();
            lines.push(line.clone());
            match (is_text, word.as_str()) {
                (true, _) if line == "." => {
                    is_text = false;
                    say("250 taken");
                }
                (true, _) => {}
                (false, "DATA") => {
                    is_text = true;
                    say("354 go on");
                }
                (false, "RCPT") => say(recipient),
                (false, "QUIT") => {
                    say("221 bye");
                    break;
                }
                (false, _) => say("250 yes"),
            }
        }
        lines
    }

    fn exchange(recipient: &'static str, subject: &str) -> (Vec<String>, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = server(listener.local_addr().unwrap().port());
        let taking = std::thread::spawn(move || taken(&listener, recipient));
        let said = sent(&server, subject);
        (taking.join().unwrap(), said)
    }

    #[test]
    fn a_mail_goes_to_everybody_and_its_subject_is_one_line() {
        let (lines, said) = exchange("250 yes", "failed\r\nBcc: evil@example.org");
        assert_eq!(said, Ok(()));
        let starts = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!(starts("MAIL FROM:<larder@example.org>"), 1, "{lines:?}");
        assert_eq!(starts("RCPT TO:<one@example.org>"), 1, "{lines:?}");
        assert_eq!(starts("RCPT TO:<two@example.org>"), 1, "{lines:?}");
        assert_eq!(starts("RCPT "), 2, "{lines:?}");
        assert_eq!(
            starts("Subject: failed  Bcc: evil@example.org"),
            1,
            "{lines:?}"
        );
        assert_eq!(starts("Bcc"), 0, "{lines:?}");
        assert_eq!(starts("Date: ") + starts("Message-ID: "), 2, "{lines:?}");
        // A dot alone ends a mail; one of its own text does not.
        let place = |text: &str| lines.iter().position(|line| line == text);
        assert!(place("end").unwrap() < place(".").unwrap(), "{lines:?}");
    }

    #[test]
    fn what_a_server_refuses_is_told_in_its_words() {
        let (_, said) = exchange("550 nobody of that name", "x");
        let why = said.unwrap_err();
        assert!(
            why.contains("550") && why.contains("nobody of that name"),
            "{why}"
        );
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = server(listener.local_addr().unwrap().port());
        drop(listener);
        let why = sent(&server, "x").unwrap_err();
        assert!(
            why.contains(&server.to_string()) && why.contains("refused"),
            "{why}"
        );
    }

    #[test]
    fn servers_and_addresses_are_read_or_refused() {
        let read = |text: &str| read_server(text).unwrap();
        assert_eq!(
            read("mail.example.org"),
            ("mail.example.org".to_owned(), None)
        );
        assert_eq!(read("127.0.0.1:2525"), ("127.0.0.1".to_owned(), Some(2525)));
        assert_eq!(read("[::1]:25"), ("::1".to_owned(), Some(25)));
        for wrong in [
            "",
            ":25",
            "a b",
            "me:secret@host",
            "host/x",
            "host:99999",
            "host?x",
        ] {
            let why = read_server(wrong).unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
        for right in ["me@example.org", "Me <me@example.org>"] {
            assert_eq!(check_address(right), Ok(()));
        }
        for wrong in ["", "me", "me@", "a@b\r\nBcc: c@d", "a@b, c@d"] {
            assert!(check_address(wrong).is_err(), "{wrong}");
        }
    }
}
