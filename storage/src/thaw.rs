//! Cold storage: objects that have to be brought back before they can be read.

use jiff::Timestamp;

/// How fast an object is to be brought back; the faster, the dearer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// Within half a day, or two from the deepest archives.
    #[default]
    Bulk,
    /// Within some hours.
    Standard,
    /// Within minutes, where the storage can.
    Expedited,
}

/// How an object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thaw {
    /// How fast.
    pub tier: Tier,
    /// For how many days, at least 1; where what was brought back stays warm, that means nothing.
    pub days: u32,
}

/// Whether an object can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can, and was never cold as far as can be told.
    Warm,
    /// It was brought back and can be read, until the time that the storage tells.
    Thawed(Option<Timestamp>),
    /// It was asked for and is on its way.
    Thawing,
    /// It has to be asked for.
    Cold,
}

/// How an object stands with cold storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmth {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its storage class, as the storage calls it; empty where it does not say.
    pub class: String,
    /// Whether it can be read.
    pub readiness: Readiness,
}

impl Readiness {
    /// Tells whether it can be read now.
    #[must_use]
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Warm | Self::Thawed(_))
    }
}
