//! What could not be restored of an entry although the entry itself could.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::error::Escaped;

/// What could not be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningKind {
    /// User or group: an ordinary user may not give files away.
    Owner,
    /// Permission bits.
    Mode,
    /// Times of modification and access.
    Times,
    /// Set-user-id or set-group-id bits, left out on purpose.
    SpecialBits,
    /// File capabilities, left out on purpose.
    Capabilities,
    /// Extended attributes of the namespace `user`.
    UserAttributes,
    /// Access control lists (namespace `system`).
    SystemAttributes,
    /// Extended attributes of the namespace `security`.
    SecurityAttributes,
    /// Extended attributes of the namespace `trusted`.
    TrustedAttributes,
    /// Extended attributes of another namespace.
    OtherAttributes,
}

/// Something that could not be restored on some entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub kind: WarningKind,
    /// On how many entries (attributes: how many of them).
    pub count: u64,
    /// The key of the first.
    pub first_path: Vec<u8>,
    /// Why it failed on the first.
    pub first_cause: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            WarningKind::Owner => "the owner could not be set",
            WarningKind::Mode => "permissions could not be set",
            WarningKind::Times => "times could not be set",
            WarningKind::SpecialBits => "set-user-id and set-group-id bits were left out",
            WarningKind::Capabilities => "file capabilities were left out",
            WarningKind::UserAttributes => "extended attributes (user) could not be set",
            WarningKind::SystemAttributes => "access control lists could not be set",
            WarningKind::SecurityAttributes => "extended attributes (security) could not be set",
            WarningKind::TrustedAttributes => "extended attributes (trusted) could not be set",
            WarningKind::OtherAttributes => "extended attributes could not be set",
        };
        let (count, first) = (self.count, Escaped(&self.first_path));
        write!(
            f,
            "{what}, {count} times, first on {first}: {}",
            self.first_cause
        )
    }
}

/// The warnings so far, one of each kind, so that millions of entries need no room.
#[derive(Default)]
pub(super) struct Warnings(Mutex<BTreeMap<WarningKind, Warning>>);

impl Warnings {
    /// Counts one more.
    pub(super) fn add(&self, kind: WarningKind, path: &[u8], cause: &dyn fmt::Display) {
        tracing::debug!(?kind, path = %Escaped(path), %cause, "not restored");
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let warning = all.entry(kind).or_insert_with(|| Warning {
            kind,
            count: 0,
            first_path: path.to_vec(),
            first_cause: cause.to_string(),
        });
        warning.count += 1;
    }

    /// Gives what was counted, by kind.
    pub(super) fn all(&self) -> Vec<Warning> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
}
