//! What a storage answers when an operation fails.

use std::error::Error;
use std::fmt;
use std::io;

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
    /// The cause in words, without secrets.
    pub cause: String,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = self.operation.verb();
        let advice = self.kind.advice();
        if self.name.is_empty() {
            write!(f, "cannot {verb} {}", self.storage)?;
        } else {
            write!(f, "cannot {verb} {} in {}", self.name, self.storage)?;
        }
        write!(f, ": {}{advice}", self.cause)
    }
}

impl StorageError {
    /// Makes an error of an error of the operating system.
    pub(crate) fn from_io(
        operation: Operation,
        storage: &str,
        name: &str,
        error: &io::Error,
    ) -> Self {
        Self {
            operation,
            name: name.to_owned(),
            storage: storage.to_owned(),
            kind: ErrorKind::of_io(error),
            cause: error.to_string(),
        }
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
        Self {
            operation,
            name: name.to_owned(),
            storage: storage.to_owned(),
            kind,
            cause,
        }
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
