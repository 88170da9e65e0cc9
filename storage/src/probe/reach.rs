//! Getting to a storage: its host, its certificate, its login, its bucket or folder.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use url::Url;

use super::StepName;
use super::scratch::random;
use crate::Storage;
use crate::error::{ErrorKind, Operation, Reason, Result, StorageError};
use crate::location::{Location, Scheme};

/// How long a connection may take while a location is tried out, if no setting says less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// A host and port to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// Tells whether there is no name to look up.
    pub fn is_numeric(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    fn error(&self, reason: Reason, cause: &str) -> StorageError {
        let storage = format!("{}:{}", self.host, self.port);
        StorageError::new(Operation::Open, storage, "", ErrorKind::Permanent, cause).because(reason)
    }
}

/// Gives where a location is to be connected to; none if there is no host, it is not known before
/// the storage is asked, or a proxy connects in our place.
pub fn address(location: &Location) -> Option<Address> {
    let place = &location.place;
    let settings = &location.settings;
    let here = |port: u16| Address {
        host: place.host.trim_matches(['[', ']']).to_owned(),
        port: place.port.unwrap_or(port),
    };
    match place.scheme {
        Scheme::Folder | Scheme::Bundle => None,
        Scheme::Sftp => Some(here(22)),
        Scheme::Ftp | Scheme::Ftps if settings.text("tls") == Some("implicit") => Some(here(990)),
        Scheme::Ftp | Scheme::Ftps => Some(here(21)),
        _ if goes_through_proxy(location) => None,
        Scheme::WebDav => Some(here(80)),
        Scheme::WebDavs => Some(here(443)),
        Scheme::S3 | Scheme::Google | Scheme::Azure | Scheme::Dropbox => {
            of_url(&service(location)?)
        }
    }
}

/// Gives the URL of the service that a cloud's location is at.
fn service(location: &Location) -> Option<String> {
    let settings = &location.settings;
    let named = settings.text("endpoint").or(settings.text("api-endpoint"));
    if let Some(endpoint) = named {
        return Some(endpoint.to_owned());
    }
    Some(match location.place.scheme {
        Scheme::S3 => {
            let region = settings.text("region").unwrap_or("us-east-1");
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://s3.{region}.amazonaws.com{suffix}")
        }
        Scheme::Google => "https://storage.googleapis.com".to_owned(),
        Scheme::Azure => format!(
            "https://{}.blob.core.windows.net",
            settings.text("account")?
        ),
        Scheme::Dropbox => "https://api.dropboxapi.com".to_owned(),
        _ => return None,
    })
}

fn of_url(url: &str) -> Option<Address> {
    let url = Url::parse(url).ok()?;
    Some(Address {
        host: url.host_str()?.trim_matches(['[', ']']).to_owned(),
        port: url.port_or_known_default()?,
    })
}

fn goes_through_proxy(location: &Location) -> bool {
    match location.settings.text("proxy") {
        Some("none") => false,
        Some(_) => true,
        None => ["https_proxy", "http_proxy", "all_proxy"]
            .iter()
            .any(|name| {
                let is_set =
                    |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
                is_set(name) || is_set(&name.to_ascii_uppercase())
            }),
    }
}

/// Tells whether what is sent to a location is encrypted on its way, as far as its settings say.
fn has_tls(location: &Location) -> bool {
    let settings = &location.settings;
    match location.place.scheme {
        Scheme::Folder | Scheme::Bundle | Scheme::Sftp | Scheme::WebDav => false,
        Scheme::Ftp => settings.text("tls").is_some_and(|tls| tls != "off"),
        Scheme::Ftps => settings.text("tls") != Some("off"),
        Scheme::WebDavs => true,
        Scheme::S3 | Scheme::Google | Scheme::Azure | Scheme::Dropbox => {
            service(location).is_none_or(|url| !url.to_ascii_lowercase().starts_with("http://"))
        }
    }
}

/// Gives the steps that opening a location takes after its host was connected to.
pub fn steps_of(location: &Location) -> Vec<StepName> {
    let mut steps = Vec::new();
    if has_tls(location) {
        steps.push(StepName::Tls);
    }
    match location.place.scheme {
        Scheme::Folder | Scheme::Bundle => {}
        Scheme::Sftp => steps.extend([StepName::HostKey, StepName::Authenticate]),
        _ => steps.push(StepName::Authenticate),
    }
    steps.push(StepName::Find);
    steps
}

/// Gives all steps until the storage is reached.
pub fn all_steps(location: &Location) -> Vec<StepName> {
    let mut steps = Vec::new();
    if let Some(address) = address(location) {
        if !address.is_numeric() {
            steps.push(StepName::Resolve);
        }
        steps.push(StepName::Connect);
    }
    steps.extend(steps_of(location));
    steps
}

/// Decides which step an error of opening belongs to.
pub fn step_of(error: &StorageError) -> StepName {
    match error.reason {
        Reason::Certificate | Reason::Tls => StepName::Tls,
        Reason::HostKeyUnknown | Reason::HostKeyChanged => StepName::HostKey,
        Reason::Settings
        | Reason::Clock
        | Reason::NoCredentials
        | Reason::UnknownUser
        | Reason::WrongSecret
        | Reason::WrongLogin
        | Reason::Expired
        | Reason::HostNotFound
        | Reason::Refused
        | Reason::Unreachable
        | Reason::Protocol
        | Reason::TooManyRequests => StepName::Authenticate,
        _ => StepName::Find,
    }
}

/// Looks a host up.
pub fn resolve(address: &Address) -> Result<Vec<SocketAddr>> {
    match (address.host.as_str(), address.port).to_socket_addrs() {
        Ok(found) => {
            let found: Vec<_> = found.take(ADDRESSES_MAX).collect();
            if found.is_empty() {
                return Err(address.error(Reason::HostNotFound, "the host's name has no address"));
            }
            Ok(found)
        }
        Err(error) => {
            let cause = format!("no address is known for {}: {error}", address.host);
            Err(address.error(Reason::HostNotFound, &cause))
        }
    }
}

/// Shows the addresses of a host.
pub fn shown(found: &[SocketAddr]) -> String {
    let mut all: Vec<_> = found.iter().map(|found| found.ip().to_string()).collect();
    all.dedup();
    all.join(", ")
}

/// Connects to the first address that lets it; the last failure counts.
pub fn connect(address: &Address, found: &[SocketAddr], location: &Location) -> Result<SocketAddr> {
    let timeout = location.settings.duration("connect-timeout");
    let timeout = timeout.map_or(CONNECT_TIMEOUT, |timeout| timeout.min(CONNECT_TIMEOUT));
    let mut last = address.error(Reason::HostNotFound, "the host's name has no address");
    for to in found {
        let error = match TcpStream::connect_timeout(to, timeout.max(Duration::from_millis(1))) {
            Ok(_) => return Ok(*to),
            Err(error) => error,
        };
        let reason = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Reason::Refused,
            _ => Reason::Unreachable,
        };
        last = address.error(reason, &format!("{to}: {error}"));
    }
    Err(last)
}

/// Asks for an object that cannot be there, which shows whether the bucket or folder is.
pub fn touch(storage: &dyn Storage) -> Result<()> {
    let nonce: [u8; 12] = random(storage)?;
    let hex: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    match storage.size(&format!("probe/{hex}")) {
        Ok(_) => Ok(()),
        Err(error) if error.kind == ErrorKind::NotFound && error.reason == Reason::Other => Ok(()),
        // The server knows who asks; what may not be done is told step by step.
        Err(error) if error.reason == Reason::NotPermitted => Ok(()),
        Err(error) => Err(error),
    }
}

/// Says what is dangerous about a location although it works.
pub fn warnings(location: &Location) -> Vec<String> {
    let settings = &location.settings;
    let mut warnings = Vec::new();
    if settings.flag("skip-verification") == Some(true) {
        warnings.push(
            "skip-verification trusts any certificate: whoever is on the way can read the \
             credentials; name the server's certificate with ca-certificate instead"
                .to_owned(),
        );
    }
    let sends_secret = match location.place.scheme {
        Scheme::Ftp | Scheme::Ftps => settings.origin("password").is_some(),
        Scheme::WebDav => ["password", "token"]
            .iter()
            .any(|name| settings.origin(name).is_some()),
        // S3 signs with its secret, and sends none; these show a token.
        Scheme::Google | Scheme::Dropbox => true,
        Scheme::Azure => settings.origin("access-key").is_none(),
        Scheme::Folder | Scheme::Bundle | Scheme::S3 | Scheme::Sftp | Scheme::WebDavs => false,
    };
    if sends_secret && !has_tls(location) && !is_this_machine(location) {
        let usual = match location.place.scheme {
            Scheme::Ftp | Scheme::Ftps => "use ftps://",
            Scheme::WebDav => "use webdavs://",
            _ => "use an endpoint with https://",
        };
        warnings.push(format!(
            "this location is reached without TLS: whoever is on the way can read the credentials \
             and use them (backups stay encrypted); {usual} if the server can"
        ));
    }
    warnings
}

fn is_this_machine(location: &Location) -> bool {
    address(location).is_some_and(|address| {
        address.host == "localhost"
            || address
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::TcpListener;

    use super::*;
    use crate::location::Layers;

    fn location(url: &str, set: &[(&str, &str)]) -> Location {
        let set: std::collections::BTreeMap<_, _> = set
            .iter()
            .map(|(key, value)| {
                (
                    (*key).to_owned(),
                    zeroize::Zeroizing::new((*value).to_owned()),
                )
            })
            .collect();
        let layers = Layers {
            file: Some(&set),
            ..Layers::default()
        };
        Location::new(url, &layers).unwrap()
    }

    #[test]
    fn every_scheme_has_its_host_and_port() {
        let direct = ("proxy", "none");
        for (url, set, expected) in [
            ("/srv/r", &[][..], None),
            ("sftp://h/x", &[], Some(("h", 22))),
            ("sftp://[::1]:2222/x", &[], Some(("::1", 2222))),
            ("ftp://h", &[], Some(("h", 21))),
            ("ftps://h", &[("tls", "implicit")], Some(("h", 990))),
            ("webdav://h:8080/x", &[direct], Some(("h", 8080))),
            ("webdavs://h/x", &[direct], Some(("h", 443))),
            ("webdavs://h/x", &[("proxy", "http://p:1")], None),
            (
                "s3://bucket",
                &[direct],
                Some(("s3.us-east-1.amazonaws.com", 443)),
            ),
            (
                "s3://bucket",
                &[direct, ("endpoint", "http://h:9000")],
                Some(("h", 9000)),
            ),
            (
                "gs://bucket",
                &[direct],
                Some(("storage.googleapis.com", 443)),
            ),
            (
                "az://abc",
                &[direct, ("account", "me")],
                Some(("me.blob.core.windows.net", 443)),
            ),
            ("az://abc", &[direct], None),
            ("dropbox:///x", &[direct], Some(("api.dropboxapi.com", 443))),
        ] {
            let found = address(&location(url, set));
            let found = found
                .as_ref()
                .map(|found| (found.host.as_str(), found.port));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn a_scheme_has_only_its_own_steps() {
        use StepName::{Authenticate, Connect, Find, HostKey, Resolve, Tls};
        let direct = ("proxy", "none");
        for (url, set, expected) in [
            ("/srv/r", &[][..], &[Find][..]),
            (
                "sftp://h/x",
                &[],
                &[Resolve, Connect, HostKey, Authenticate, Find],
            ),
            ("ftp://127.0.0.1", &[], &[Connect, Authenticate, Find]),
            (
                "ftps://h",
                &[],
                &[Resolve, Connect, Tls, Authenticate, Find],
            ),
            (
                "webdav://h",
                &[direct],
                &[Resolve, Connect, Authenticate, Find],
            ),
            (
                "s3://bucket",
                &[direct, ("endpoint", "http://127.0.0.1:1")],
                &[Connect, Authenticate, Find],
            ),
        ] {
            assert_eq!(all_steps(&location(url, set)), expected, "{url}");
        }
    }

    #[test]
    fn a_host_that_is_not_known_differs_from_one_that_refuses() {
        let nowhere = location("sftp://larder.invalid/x", &[]);
        let error = resolve(&address(&nowhere).unwrap()).unwrap_err();
        assert_eq!(error.reason, Reason::HostNotFound);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let here = location(&format!("sftp://127.0.0.1:{port}/x"), &[]);
        let to = address(&here).unwrap();
        let found = resolve(&to).unwrap();
        assert_eq!(connect(&to, &found, &here).unwrap().port(), port);
        drop(listener);
        let error = connect(&to, &found, &here).unwrap_err();
        assert_eq!(error.reason, Reason::Refused);
        assert!(error.to_string().contains("check the port"), "{error}");
    }

    #[test]
    fn credentials_that_can_be_read_on_the_way_are_warned_of() {
        let warned = |url: &str, set: &[(&str, &str)]| !warnings(&location(url, set)).is_empty();
        let password = ("password", "x");
        let direct = ("proxy", "none");
        assert!(warned("ftp://me@h", &[password]));
        assert!(!warned("ftp://h", &[]));
        assert!(!warned("ftp://me@127.0.0.1", &[password]));
        assert!(!warned("ftps://me@h", &[password]));
        assert!(warned("ftps://me@h", &[password, ("tls", "off")]));
        assert!(warned("webdav://me@h", &[password, direct]));
        assert!(warned("webdav://h", &[("token", "x"), direct]));
        assert!(!warned("webdavs://me@h", &[password]));
        assert!(warned(
            "webdavs://me@h",
            &[password, ("skip-verification", "true")]
        ));
        assert!(warned("gs://bucket", &[("endpoint", "http://h"), direct]));
        assert!(!warned("s3://bucket", &[("endpoint", "http://h"), direct]));
        assert!(!warned("sftp://me@h", &[password]) && !warned("/srv/r", &[]));
    }
}
