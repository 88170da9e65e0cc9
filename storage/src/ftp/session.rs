//! Connections to an FTP server: how they come about, with and without TLS, and how they fail.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpResult, Mode, RustlsConnector, RustlsFtpStream, Status, TlsConnector};
use zeroize::Zeroizing;

use crate::error::{ErrorKind, Reason};
use crate::network::{Contact, Network, choose_cryptography};

type RustlsStream = <RustlsConnector as TlsConnector>::Stream;

/// Why a command came to nothing.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The server answered so; the connection can be used on.
    Answer(Status, String),
    /// The connection is of no use any more.
    Lost(String),
    /// It is known what it is.
    Known(ErrorKind, Reason, String),
}

impl Failure {
    /// Tells whether the server's words have one of these in them.
    pub(super) fn says(&self, words: &[&str]) -> bool {
        let Self::Answer(_, said) = self else {
            return false;
        };
        let said = said.to_ascii_lowercase();
        words.iter().any(|word| said.contains(word))
    }

    /// Tells whether the server refused what it was asked for, for good.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Answer(status, _) if status.code() >= 500)
    }
}

impl From<FtpError> for Failure {
    fn from(error: FtpError) -> Self {
        match error {
            FtpError::UnexpectedResponse(response) => {
                let said = String::from_utf8_lossy(&response.body).trim().to_owned();
                match response.status {
                    // pyftpdlib says so when its disk is full.
                    Status::TransferAborted
                        if Self::Answer(Status::TransferAborted, said.clone()).says(FULL) =>
                    {
                        Self::Answer(Status::TransferAborted, said)
                    }
                    Status::NotAvailable
                    | Status::CannotOpenDataConnection
                    | Status::TransferAborted
                    | Status::Unknown => Self::Lost(format!("the server answers: {said}")),
                    // An answer that means success was meant for another question.
                    status if status.code() < 400 => {
                        Self::Lost(format!("the server answers out of turn: {said}"))
                    }
                    status => Self::Answer(status, said),
                }
            }
            FtpError::ConnectionError(error) => of_io(&error),
            FtpError::SecureError(cause) => Self::Known(ErrorKind::Permanent, Reason::Tls, cause),
            error => Self::Lost(format!("the connection broke: {error}")),
        }
    }
}

/// Sorts an error of the connection; that of TLS is wrapped in it.
pub(super) fn of_io(error: &io::Error) -> Failure {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => Failure::Known(
            ErrorKind::Permanent,
            Reason::Certificate,
            format!("the server's certificate is not trusted: {why}"),
        ),
        Some(other) => Failure::Known(
            ErrorKind::Permanent,
            Reason::Tls,
            format!("TLS does not come about: {other}"),
        ),
        None if matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ) =>
        {
            Failure::Lost("the server did not answer in time".to_owned())
        }
        None => Failure::Lost(format!("the connection broke: {error}")),
    }
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    Off,
    Explicit,
    Implicit,
}

/// Everything that a connection needs.
pub(super) struct Dial {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub user: String,
    pub password: Zeroizing<String>,
    /// The folder, from the login's own on unless it begins with a slash.
    pub folder: String,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub contact: Contact,
    pub trust: Arc<Trust>,
}

/// Which certificates are trusted.
pub(super) struct Trust {
    roots: Arc<RootCertStore>,
    skips_verification: bool,
}

/// A connection that is logged in and stands in the repository's folder.
pub(super) struct Session {
    pub ftp: RustlsFtpStream,
    /// The absolute path of the folder.
    pub root: String,
}

impl Trust {
    /// Gathers the machine's own certificates and those of the settings.
    ///
    /// # Errors
    /// In words.
    pub(super) fn new(network: &Network) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = &network.ca_certificates {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let broken = |why: String| format!("ca-certificate cannot be understood: {why}");
                let certificate = certificate.map_err(|error| broken(error.to_string()))?;
                let added = roots.add(certificate);
                added.map_err(|error| broken(error.to_string()))?;
            }
        }
        Ok(Self {
            roots: Arc::new(roots),
            skips_verification: network.skip_verification,
        })
    }

    /// Makes the configuration of one control connection and its data connections: servers demand
    /// that the data connections go on with the session of their own control connection.
    fn config(&self) -> ClientConfig {
        choose_cryptography();
        let builder = ClientConfig::builder();
        if self.skips_verification {
            let any = Arc::new(TrustsAny(Arc::clone(builder.crypto_provider())));
            let builder = builder.dangerous().with_custom_certificate_verifier(any);
            return builder.with_no_client_auth();
        }
        builder
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth()
    }
}

/// Trusts any certificate, as the setting skip-verification asks for.
#[derive(Debug)]
struct TrustsAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Begins TLS on a connection, with the timeouts that the library does not set by itself.
#[derive(Debug)]
struct Connector {
    inner: RustlsConnector,
    read_timeout: Duration,
}

impl TlsConnector for Connector {
    type Stream = RustlsStream;

    fn connect(&self, domain: &str, stream: TcpStream) -> FtpResult<RustlsStream> {
        limit(&stream, self.read_timeout).map_err(FtpError::ConnectionError)?;
        self.inner.connect(domain, stream)
    }
}

fn limit(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)
}

impl Dial {
    /// Connects, logs in and goes to the folder; `makes_folder` makes it where it is missing.
    pub(super) fn connect(&self, makes_folder: bool) -> Result<Session, Failure> {
        let mut ftp = self.greet()?;
        self.log_in(&mut ftp)?;
        ftp.transfer_type(FileType::Binary)?;
        // A server that refuses it, or that something on the way keeps from it, has the old form.
        let extended = ftp.custom_command("EPSV", &[Status::ExtendedPassiveMode]);
        match extended.map_err(Failure::from) {
            Ok(_) => ftp.set_mode(Mode::ExtendedPassive),
            Err(Failure::Answer(..)) => {
                ftp.set_mode(Mode::Passive);
                // The address in the answer may be a private one, or somebody else's.
                ftp.set_passive_nat_workaround(true);
            }
            Err(failure) => return Err(failure),
        }
        let login_folder = ftp.pwd()?;
        let root = match self.folder.as_str() {
            "" => login_folder,
            folder if folder.starts_with('/') => folder.to_owned(),
            folder => format!("{}/{folder}", login_folder.trim_end_matches('/')),
        };
        let mut session = Session { ftp, root };
        session.enter_root(makes_folder)?;
        Ok(session)
    }

    fn greet(&self) -> Result<RustlsFtpStream, Failure> {
        let stream = self.reach()?;
        let address = stream.peer_addr().map_err(|error| of_io(&error))?;
        limit(&stream, self.read_timeout).map_err(|error| of_io(&error))?;
        let connector = || Connector {
            inner: RustlsConnector::from(Arc::new(self.trust.config())),
            read_timeout: self.read_timeout,
        };
        let ftp = match self.tls {
            Tls::Off | Tls::Explicit => {
                let ftp = RustlsFtpStream::connect_with_stream(stream);
                let ftp = ftp.map_err(|error| self.no_ftp(error))?;
                self.contact.made();
                match self.tls {
                    Tls::Explicit => ftp.into_secure(connector(), &self.host).map_err(no_tls)?,
                    _ => ftp,
                }
            }
            Tls::Implicit => {
                // The library makes this connection itself, and knows no timeout for it: the one
                // above has shown that the server answers.
                drop(stream);
                let made =
                    RustlsFtpStream::connect_secure_implicit(address, connector(), &self.host);
                let mut ftp = made.map_err(|error| self.no_ftp(error))?;
                // What the library says itself where TLS was asked for. Servers that encrypt the
                // transfers in any case may not know it.
                for command in ["PBSZ 0", "PROT P"] {
                    let said = ftp.custom_command(command, &[Status::CommandOk]);
                    match said.map_err(Failure::from) {
                        Ok(_) | Err(Failure::Answer(..)) => {}
                        Err(failure) => return Err(failure),
                    }
                }
                ftp
            }
        };
        self.contact.made();
        let (connect, read) = (self.connect_timeout, self.read_timeout);
        Ok(ftp.passive_stream_builder(move |address| {
            let stream = TcpStream::connect_timeout(&address, connect);
            let limited = stream.and_then(|stream| limit(&stream, read).map(|()| stream));
            limited.map_err(FtpError::ConnectionError)
        }))
    }

    /// Says what it means that the greeting failed.
    fn no_ftp(&self, error: FtpError) -> Failure {
        if matches!(error, FtpError::UnexpectedResponse(_)) {
            self.contact.made();
        }
        match Failure::from(error) {
            Failure::Lost(cause) => match self.contact.kind_of_failure() {
                ErrorKind::Transient => Failure::Lost(cause),
                // A server that waits to be asked for TLS takes its beginning for a broken command.
                kind if self.tls == Tls::Implicit => Failure::Known(
                    kind,
                    Reason::Tls,
                    format!("TLS does not begin with the connection: {cause}"),
                ),
                kind => {
                    let cause = format!("it does not answer as an FTP server: {cause}");
                    Failure::Known(kind, Reason::Protocol, cause)
                }
            },
            failure => failure,
        }
    }

    fn log_in(&self, ftp: &mut RustlsFtpStream) -> Result<(), Failure> {
        let outcome = ftp.login(self.user.as_str(), self.password.as_str());
        let failure = match outcome.map_err(Failure::from) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let Failure::Answer(_, said) = &failure else {
            return Err(failure);
        };
        let said = format!("the server answers: {said}");
        Err(if failure.says(&["too many", "maximum number"]) {
            Failure::Known(ErrorKind::Transient, Reason::TooManyRequests, said)
        } else if failure.says(&["tls", "ssl", "encrypt"]) {
            let cause = format!("the server asks for TLS; {said}");
            Failure::Known(ErrorKind::Permanent, Reason::Tls, cause)
        } else if failure.is_refusal() || failure.says(&["login", "password", "user"]) {
            let cause = format!("the server does not let {} in; {said}", self.user);
            Failure::Known(ErrorKind::Denied, Reason::WrongLogin, cause)
        } else {
            Failure::Lost(said)
        })
    }

    /// Connects to the first of the host's addresses that answers.
    fn reach(&self) -> Result<TcpStream, Failure> {
        let kind = self.contact.kind_of_failure();
        let failed = |reason, cause| Failure::Known(kind, reason, cause);
        let no_address = |why: String| {
            let cause = format!("no address is known for the host {}{why}", self.host);
            failed(Reason::HostNotFound, cause)
        };
        let addresses: Vec<SocketAddr> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| no_address(format!(": {error}")))?
            .collect();
        let mut last = no_address(String::new());
        for address in addresses {
            last = match TcpStream::connect_timeout(&address, self.connect_timeout) {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    failed(Reason::Refused, format!("nothing listens on {address}"))
                }
                Err(error) => failed(Reason::Unreachable, format!("{address}: {error}")),
            };
        }
        Err(last)
    }
}

/// Says what it means that TLS did not begin.
fn no_tls(error: FtpError) -> Failure {
    match Failure::from(error) {
        Failure::Answer(_, said) => Failure::Known(
            ErrorKind::Permanent,
            Reason::Tls,
            format!("the server does not begin TLS; it answers: {said}"),
        ),
        failure => failure,
    }
}

impl Session {
    /// Goes to the repository's folder, which tells whether it is there.
    pub(super) fn enter_root(&mut self, makes_folder: bool) -> Result<(), Failure> {
        let root = self.root.clone();
        let failure = match self.ftp.cwd(&root).map_err(Failure::from) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if !failure.is_refusal() {
            return Err(failure);
        }
        if failure.says(DENIED) {
            let cause = format!("the folder {root} is closed to this user");
            return Err(Failure::Known(
                ErrorKind::Denied,
                Reason::NotPermitted,
                cause,
            ));
        }
        if !makes_folder {
            let cause = format!("there is no folder {root}");
            return Err(Failure::Known(ErrorKind::NotFound, Reason::NoFolder, cause));
        }
        let mut last = Ok(());
        let ends = root.match_indices('/').map(|(at, _)| at).skip(1);
        for end in ends.chain([root.len()]) {
            // Those that are there already are refused, as those are that may not be made.
            let folder = root.get(..end).unwrap_or(&root);
            last = self.ftp.mkdir(folder).map_err(Failure::from);
            if matches!(last, Err(Failure::Lost(_))) {
                return last;
            }
        }
        match (self.ftp.cwd(&root).map_err(Failure::from), last) {
            (Ok(()), _) => Ok(()),
            (Err(Failure::Answer(..)), Err(Failure::Answer(_, said))) => Err(Failure::Known(
                ErrorKind::Denied,
                Reason::NotPermitted,
                format!("the folder {root} cannot be made; the server answers: {said}"),
            )),
            (Err(failure), _) => Err(failure),
        }
    }
}

/// How servers say that something is forbidden.
pub(super) const DENIED: &[&str] = &[
    "denied",
    "permission",
    "privilege",
    "not permitted",
    "not allowed",
];
/// How servers say that something is not there.
pub(super) const MISSING: &[&str] = &[
    "no such",
    "not found",
    "not exist",
    "cannot find",
    "can't find",
];
/// How servers say that there is no room.
pub(super) const FULL: &[&str] = &["no space", "quota", "disk full", "insufficient", "exceeded"];
