//! What every storage that is reached over a network is told, read from its settings.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use super::error::ErrorKind;
use super::location::{Rate, Settings};
use super::retry::Retry;

const CONNECTIONS: u64 = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_FOR: Duration = Duration::from_secs(15 * 60);

/// What every storage that is reached over a network is told.
#[derive(Clone, Debug)]
pub struct Network {
    /// Connections at once.
    pub connections: usize,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long the other side may be silent.
    pub read_timeout: Duration,
    /// How failed requests are tried again.
    pub retry: Retry,
    /// Bytes a second sent at most.
    pub upload_limit: Rate,
    /// Bytes a second received at most.
    pub download_limit: Rate,
    /// Certificates that are trusted besides the machine's own, as PEM text.
    pub ca_certificates: Option<String>,
    /// Whether any certificate is trusted.
    pub skip_verification: bool,
    /// The proxy to go through; `Some("none")` for none even if the environment names one.
    pub proxy: Option<String>,
    /// What larder calls itself.
    pub user_agent: String,
    /// Whether the other side has answered.
    pub(crate) contact: Contact,
}

/// Whether the other side has answered at all; clones share it.
///
/// A host that is not found, refuses, does not answer or is not trusted was named wrongly as long as it
/// has never answered: that fails at once. Once it has answered, the name was right, and the same
/// failure is the network's or the server's for the moment: it is tried again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contact(Arc<AtomicBool>);

impl Contact {
    /// Notes that the other side has answered, whatever it said.
    pub(crate) fn made(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Gives the kind of a failure to reach the other side.
    pub(crate) fn kind_of_failure(&self) -> ErrorKind {
        if self.0.load(Ordering::Relaxed) {
            ErrorKind::Transient
        } else {
            ErrorKind::Permanent
        }
    }
}

impl Network {
    /// Reads the settings; `stop` is set when the process is asked to end.
    ///
    /// # Errors
    /// In words: when the file of certificates cannot be read or has none.
    pub fn new(settings: &Settings, stop: Arc<AtomicBool>) -> Result<Self, String> {
        let connections = settings
            .count("connections")
            .unwrap_or(CONNECTIONS)
            .min(256);
        let ca_certificates = match settings.text("ca-certificate") {
            Some(given) => Some(certificates(given)?),
            None => None,
        };
        Ok(Self {
            connections: usize::try_from(connections).unwrap_or(1),
            connect_timeout: settings
                .duration("connect-timeout")
                .unwrap_or(CONNECT_TIMEOUT),
            read_timeout: settings.duration("read-timeout").unwrap_or(READ_TIMEOUT),
            retry: Retry {
                patience: settings.duration("retry-for").unwrap_or(RETRY_FOR),
                stop,
                is_told: Arc::default(),
            },
            upload_limit: settings.rate("upload-limit"),
            download_limit: settings.rate("download-limit"),
            ca_certificates,
            skip_verification: settings.flag("skip-verification").unwrap_or(false),
            proxy: settings.text("proxy").map(str::to_owned),
            user_agent: settings.text("user-agent").map_or_else(
                || concat!("larder/", env!("CARGO_PKG_VERSION")).to_owned(),
                str::to_owned,
            ),
            contact: Contact::default(),
        })
    }
}

/// Chooses the cryptography of TLS for the whole process, once; every protocol calls it first.
pub(crate) fn choose_cryptography() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        // Somebody else in the process may have chosen already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

/// Takes PEM text as it is, and anything else for the file that holds it.
pub(crate) fn certificates(given: &str) -> Result<String, String> {
    const BYTES_MAX: u64 = 4 << 20;
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let text = if given.contains(BEGIN) {
        given.to_owned()
    } else {
        let path = PathBuf::from(given);
        let failed = |error| {
            format!(
                "cannot read the certificates in {}: {error}",
                path.display()
            )
        };
        let size_bytes = std::fs::metadata(&path).map_err(failed)?.len();
        if size_bytes > BYTES_MAX {
            return Err(format!(
                "the file of certificates {} has more than {BYTES_MAX} bytes",
                path.display()
            ));
        }
        std::fs::read_to_string(&path).map_err(failed)?
    };
    if !text.contains(BEGIN) {
        return Err(format!(
            "there is no certificate in {given}: it has to hold PEM text, with {BEGIN}"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn certificates_come_from_a_file_or_stand_in_the_setting() {
        let pem = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(pem).unwrap(), pem);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        assert_eq!(certificates(path.to_str().unwrap()).unwrap(), pem);
        std::fs::write(&path, "no certificate").unwrap();
        assert!(
            certificates(path.to_str().unwrap())
                .unwrap_err()
                .contains("no certificate in")
        );
        assert!(
            certificates("/nowhere/ca.pem")
                .unwrap_err()
                .contains("/nowhere/ca.pem")
        );
    }

    #[test]
    fn who_never_answered_is_not_tried_again() {
        let contact = Contact::default();
        assert_eq!(contact.kind_of_failure(), ErrorKind::Permanent);
        contact.clone().made();
        assert_eq!(contact.kind_of_failure(), ErrorKind::Transient);
    }

    #[test]
    fn what_is_not_set_has_its_usual_value() {
        let network = Network::new(&Settings::default(), Arc::default()).unwrap();
        assert_eq!(
            (network.connections, network.retry.patience),
            (8, RETRY_FOR)
        );
        assert!(network.user_agent.starts_with("larder/") && !network.skip_verification);
    }
}
