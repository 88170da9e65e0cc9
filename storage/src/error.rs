//! What a storage answers when an operation fails.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// The outcome of a storage operation.
pub type Result<T> = std::result::Result<T, StorageError>;

/// What was tried on a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Reaching the storage itself.
    Open,
    /// Reading a whole object.
    Get,
    /// Reading a part of an object.
    GetRange,
    /// Writing an object.
    Put,
    /// Writing an object that must not exist yet.
    Create,
    /// Removing an object.
    Delete,
    /// Listing a folder.
    List,
    /// Asking for an object's size.
    Size,
    /// Asking for an object to be brought back from cold storage.
    Thaw,
}

impl Operation {
    fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Get => "read",
            Self::GetRange => "read a part of",
            Self::Put => "write",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Size => "look at",
            Self::Thaw => "thaw",
        }
    }
}

/// How a storage operation failed, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such object, or no such storage.
    NotFound,
    /// Another object holds the name.
    AlreadyExists,
    /// The object is shorter than what was asked of it.
    Truncated,
    /// The object is longer than it may be.
    Oversized,
    /// The storage refuses this user.
    Denied,
    /// There is no room left.
    Full,
    /// The storage takes no writes at all.
    ReadOnly,
    /// The same may succeed later.
    Transient,
    /// Trying again will not help.
    Permanent,
}

impl ErrorKind {
    /// Tells what to do about it, as the end of a message; empty if there is nothing to say.
    fn advice(self) -> &'static str {
        match self {
            Self::NotFound | Self::AlreadyExists | Self::Permanent => "",
            Self::Truncated | Self::Oversized => "; the object is damaged, run a check",
            Self::Denied => "; check the permissions or credentials",
            Self::Full => "; free some space or raise the quota, then try again",
            Self::ReadOnly => "; make the storage writable, then try again",
            Self::Transient => "; try again",
        }
    }

    /// Gives its name in machine-readable output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Truncated => "truncated",
            Self::Oversized => "oversized",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }

    /// Sorts an error of the operating system.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::AlreadyExists => Self::AlreadyExists,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::ResourceBusy
            | io::ErrorKind::StaleNetworkFileHandle
            | io::ErrorKind::OutOfMemory => Self::Transient,
            _ => {
                let raw = rustix::io::Errno::from_io_error(error);
                let is_out_of_files =
                    raw == Some(rustix::io::Errno::MFILE) || raw == Some(rustix::io::Errno::NFILE);
                if is_out_of_files {
                    Self::Transient
                } else {
                    Self::Permanent
                }
            }
        }
    }
}

/// Why a storage cannot be used, where that is known more exactly than [`ErrorKind`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing more is known than the kind.
    Other,
    /// The location or a setting makes no sense.
    Settings,
    /// No address is known for the host's name.
    HostNotFound,
    /// Nothing listens there.
    Refused,
    /// The host does not answer.
    Unreachable,
    /// The server's certificate is not trusted.
    Certificate,
    /// What answers does not speak TLS, or only TLS.
    Tls,
    /// The server's SSH key is not known.
    HostKeyUnknown,
    /// The server's SSH key is not the known one.
    HostKeyChanged,
    /// This machine's clock and the server's differ too much.
    Clock,
    /// There are no credentials to show.
    NoCredentials,
    /// The server does not know the user or key.
    UnknownUser,
    /// The server knows the key, but not with this secret.
    WrongSecret,
    /// User or password is wrong; the server does not say which.
    WrongLogin,
    /// The credentials are too old.
    Expired,
    /// There is no such bucket or container.
    NoBucket,
    /// There is no such folder.
    NoFolder,
    /// The bucket is in another region.
    Region,
    /// The user may not do this; see the operation.
    NotPermitted,
    /// The key that the storage encrypts with may not be used.
    EncryptionKey,
    /// The storage asks for fewer requests.
    TooManyRequests,
    /// What answers is no server of this kind.
    Protocol,
    /// The object is in cold storage, and has to be brought back before it can be read.
    Cold,
}

impl Reason {
    /// Gives its name in machine-readable output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Settings => "settings",
            Self::HostNotFound => "host-not-found",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Certificate => "certificate",
            Self::Tls => "tls",
            Self::HostKeyUnknown => "host-key-unknown",
            Self::HostKeyChanged => "host-key-changed",
            Self::Clock => "clock",
            Self::NoCredentials => "no-credentials",
            Self::UnknownUser => "unknown-user",
            Self::WrongSecret => "wrong-secret",
            Self::WrongLogin => "wrong-login",
            Self::Expired => "expired",
            Self::NoBucket => "no-bucket",
            Self::NoFolder => "no-folder",
            Self::Region => "region",
            Self::NotPermitted => "not-permitted",
            Self::EncryptionKey => "encryption-key",
            Self::TooManyRequests => "too-many-requests",
            Self::Protocol => "protocol",
            Self::Cold => "cold",
        }
    }

    /// Tells what to do about it, as the end of a message; empty if there is nothing to say.
    fn advice(self) -> &'static str {
        match self {
            Self::Other | Self::Settings => "",
            Self::HostNotFound => "; check the host's name and this machine's name servers",
            Self::Refused => "; check the port, and whether the server runs",
            Self::Unreachable => "; check the network, the proxy and the firewalls on the way",
            Self::Certificate => {
                "; if the server is yours, name its certificate authority with the setting ca-certificate"
            }
            Self::Tls => "; check the scheme, the port and the setting for TLS",
            Self::HostKeyUnknown => {
                "; compare the key with the server's and add it to known-hosts, or set host-key-checking=accept-new"
            }
            Self::HostKeyChanged => {
                "; the server was replaced, or somebody is in between: ask its operator before you change known-hosts"
            }
            Self::Clock => "; set this machine's clock",
            Self::NoCredentials => {
                "; see the settings of this kind of location for what can be given"
            }
            Self::UnknownUser => "; check the user or access key",
            Self::WrongSecret => "; check the secret that belongs to the key",
            Self::WrongLogin => "; check user and password",
            Self::Expired => "; get new credentials",
            Self::NoBucket => "; create it, or correct its name",
            Self::NoFolder => "; larder init makes it",
            Self::Region => "; correct the setting region",
            Self::NotPermitted => "; let the administrator grant this right",
            Self::EncryptionKey => {
                "; let the administrator grant the use of the key, or correct kms-key"
            }
            Self::TooManyRequests => "; lower the setting connections, or try again later",
            Self::Protocol => "; check the URL",
            Self::Cold => {
                "; it lies in cold storage: `larder restore --plan` says what has to be brought back, and --thaw asks for it"
            }
        }
    }
}

/// A failed operation: what was tried, on what, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
pub struct StorageError {
    /// What was tried.
    pub operation: Operation,
    /// The object or folder it was tried on; empty for the storage as a whole.
    pub name: String,
    /// The storage, as [`describe`](super::Storage::describe) gives it.
    pub storage: String,
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// Why, where that is known more exactly.
    pub reason: Reason,
    /// The cause in words, without secrets.
    pub cause: String,
    /// How long the storage asked to wait before the next request.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.told(), self.closing())
    }
}

impl StorageError {
    /// Tells what was tried, on what, and why it failed, without what to do about it.
    pub(crate) fn told(&self) -> String {
        let (verb, storage, cause) = (self.operation.verb(), &self.storage, &self.cause);
        match self.name.as_str() {
            "" => format!("cannot {verb} {storage}: {cause}"),
            name => format!("cannot {verb} {name} in {storage}: {cause}"),
        }
    }

    /// Makes an error of which nothing more is known than its kind.
    #[must_use]
    pub fn new(
        operation: Operation,
        storage: impl Into<String>,
        name: &str,
        kind: ErrorKind,
        cause: impl Into<String>,
    ) -> Self {
        Self {
            operation,
            name: name.to_owned(),
            storage: storage.into(),
            kind,
            reason: Reason::Other,
            cause: cause.into(),
            retry_after: None,
        }
    }

    /// Tells what to do about it; empty if there is nothing to say.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        self.closing().trim_start_matches("; ")
    }

    /// Gives why it failed, as exactly as that is known, in one word for a program.
    #[must_use]
    pub fn reason_name(&self) -> &'static str {
        match self.reason {
            Reason::Other => self.kind.name(),
            reason => reason.name(),
        }
    }

    /// Gives what to do about it as the end of a message.
    fn closing(&self) -> &'static str {
        match self.reason {
            Reason::Other => self.kind.advice(),
            reason => reason.advice(),
        }
    }

    /// Says more exactly why it failed.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// Makes an error of an error of the operating system.
    #[must_use]
    pub fn from_io(operation: Operation, storage: &str, name: &str, error: &io::Error) -> Self {
        let kind = ErrorKind::of_io(error);
        Self::new(operation, storage, name, kind, error.to_string())
    }

    /// Makes an error of one from object_store, whose kinds hide what the system said.
    pub(crate) fn from_object_store(
        operation: Operation,
        storage: &str,
        name: &str,
        error: &object_store::Error,
    ) -> Self {
        let io = find_io_error(error);
        let kind = match error {
            object_store::Error::NotFound { .. } => ErrorKind::NotFound,
            object_store::Error::AlreadyExists { .. }
            | object_store::Error::Precondition { .. } => ErrorKind::AlreadyExists,
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => ErrorKind::Denied,
            _ => io.map_or(ErrorKind::Permanent, ErrorKind::of_io),
        };
        let cause = match kind {
            ErrorKind::NotFound => "there is no such object".to_owned(),
            ErrorKind::AlreadyExists => "it exists already".to_owned(),
            _ => io.map_or_else(|| error.to_string(), io::Error::to_string),
        };
        Self::new(operation, storage, name, kind, cause)
    }
}

/// Finds what the operating system said below the layers that wrapped it.
fn find_io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut layer = Some(error);
    while let Some(error) = layer {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        layer = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(errno: rustix::io::Errno) -> ErrorKind {
        let wrapped = object_store::Error::Generic {
            store: "test",
            source: Box::new(object_store::Error::Generic {
                store: "inner",
                source: Box::new(io::Error::from(errno)),
            }),
        };
        StorageError::from_object_store(Operation::Put, "/r", "packs/ab", &wrapped).kind
    }

    #[test]
    fn what_the_system_said_is_found_below_the_wrappers() {
        use rustix::io::Errno;
        assert_eq!(kind_of(Errno::NOSPC), ErrorKind::Full);
        assert_eq!(kind_of(Errno::DQUOT), ErrorKind::Full);
        assert_eq!(kind_of(Errno::ROFS), ErrorKind::ReadOnly);
        assert_eq!(kind_of(Errno::ACCESS), ErrorKind::Denied);
        assert_eq!(kind_of(Errno::PERM), ErrorKind::Denied);
        assert_eq!(kind_of(Errno::MFILE), ErrorKind::Transient);
        assert_eq!(kind_of(Errno::IO), ErrorKind::Permanent);
    }

    #[test]
    fn a_message_names_the_operation_the_object_the_cause_and_the_remedy() {
        let error = StorageError::from_io(
            Operation::Put,
            "/mnt/repo",
            "packs/ab/cd",
            &io::Error::from(rustix::io::Errno::NOSPC),
        );
        let text = error.to_string();
        assert!(text.starts_with("cannot write packs/ab/cd in /mnt/repo: No space left on device"));
        assert!(text.ends_with("free some space or raise the quota, then try again"));
    }
}
