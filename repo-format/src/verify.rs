//! Verifying an object without a key, piece by piece (SPEC.md §2).

use alloc::vec::Vec;

use crate::error::{FormatError, Result};
use crate::ids::ObjectId;
use crate::limits::{
    CELL_BYTES, COLLECTOR_BYTES, CONFIG_BYTES, LEDGER_BYTES, PACK_BYTES, PARITY_BYTES,
    RESERVE_BYTES, RUN_BYTES, SEGMENT_BYTES, SLOT_BYTES, SMALL_RECORD_BYTES,
};
use crate::names::Name;
use crate::object::{CLOSING_BYTES, HEADER_BYTES, Header, Kind};

/// Gives the largest size in bytes of the object with this name.
#[must_use]
pub fn bytes_max(name: &Name) -> usize {
    match name {
        Name::Config(_) | Name::ConfigTwin(_) => CONFIG_BYTES,
        Name::Slot(_) | Name::SlotTwin(_) => SLOT_BYTES,
        Name::Pack(_) => PACK_BYTES,
        Name::Segment(_) => SEGMENT_BYTES,
        Name::Cell(_) => CELL_BYTES,
        Name::Round(_) | Name::State(_) | Name::Manifest(_) => COLLECTOR_BYTES,
        Name::Reserve => RESERVE_BYTES,
        Name::Parity(_) => PARITY_BYTES,
        Name::Ledger(_) => LEDGER_BYTES,
        Name::Run(_) => RUN_BYTES,
        Name::Session(_) | Name::SessionEnd(_) | Name::Amendment(..) | Name::RunEnd(_) => {
            SMALL_RECORD_BYTES
        }
    }
}

/// Tells whether an object of the kind may have the name.
#[must_use]
pub fn fits(name: &Name, kind: Kind) -> bool {
    matches!(
        (name, kind),
        (Name::Config(_) | Name::ConfigTwin(_), Kind::Config)
            | (Name::Slot(_) | Name::SlotTwin(_), Kind::KeySlot)
            | (Name::Pack(_), Kind::DataPack | Kind::TreePack)
            | (Name::Segment(_), Kind::Segment)
            | (Name::Session(_), Kind::Session)
            | (Name::SessionEnd(_), Kind::SessionEnd)
            | (Name::Cell(_), Kind::Cell)
            | (Name::Amendment(..), Kind::Amendment)
            | (Name::Round(_), Kind::Round)
            | (Name::State(_), Kind::State)
            | (Name::Reserve, Kind::Reserve)
            | (Name::Parity(_), Kind::Parity)
            | (Name::Ledger(_), Kind::Ledger)
            | (Name::Run(_), Kind::Run)
            | (Name::RunEnd(_), Kind::RunEnd)
            | (Name::Manifest(_), Kind::Manifest)
    )
}

/// Gives the word for what has such a name in messages.
#[must_use]
pub fn word(name: &Name) -> &'static str {
    match name {
        Name::Config(_) => Kind::Config.word(),
        Name::Slot(_) => Kind::KeySlot.word(),
        Name::Pack(_) => "pack",
        Name::Segment(_) => Kind::Segment.word(),
        Name::Session(_) => Kind::Session.word(),
        Name::SessionEnd(_) => Kind::SessionEnd.word(),
        Name::Cell(_) => Kind::Cell.word(),
        Name::Amendment(..) => Kind::Amendment.word(),
        Name::Round(_) => Kind::Round.word(),
        Name::State(_) => Kind::State.word(),
        Name::Reserve => Kind::Reserve.word(),
        Name::Parity(_) => Kind::Parity.word(),
        Name::Ledger(_) => Kind::Ledger.word(),
        Name::Run(_) => Kind::Run.word(),
        Name::RunEnd(_) => Kind::RunEnd.word(),
        Name::Manifest(_) => Kind::Manifest.word(),
        Name::ConfigTwin(_) => "twin of a config",
        Name::SlotTwin(_) => "twin of a key slot",
    }
}

/// What has been seen of an object's bytes, in order.
#[derive(Debug, Clone)]
pub struct Verifier {
    name: Name,
    length: u64,
    seen: u64,
    hasher: blake3::Hasher,
    header: Vec<u8>,
    closing: Vec<u8>,
}

impl Verifier {
    /// Begins with the object's name and its length in bytes.
    pub fn new(name: Name, length: u64) -> Result<Self> {
        let what = word(&name);
        let limit = bytes_max(&name) as u64;
        if length > limit {
            return Err(FormatError::Limit {
                what,
                found: length,
                limit,
            });
        }
        let verifier = Self {
            name,
            length,
            seen: 0,
            hasher: blake3::Hasher::new(),
            header: Vec::new(),
            closing: Vec::new(),
        };
        if length < (HEADER_BYTES + verifier.closing_bytes()) as u64 {
            return Err(verifier.malformed("it ends too early"));
        }
        Ok(verifier)
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let missing = HEADER_BYTES - self.header.len();
        self.header.extend(bytes.iter().take(missing));
        let hashed = self.length - self.closing_bytes() as u64;
        let left = hashed.saturating_sub(self.seen);
        let split = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (before, after) = bytes.split_at(split);
        self.hasher.update(before);
        let missing = CLOSING_BYTES - self.closing.len();
        self.closing.extend(after.iter().take(missing));
        self.seen += bytes.len() as u64;
    }

    /// Tells what kind of object it was, if all its bytes were right.
    pub fn finish(self) -> Result<Kind> {
        let what = word(&self.name);
        if self.seen != self.length {
            return Err(self.malformed("it does not have the length that was listed"));
        }
        let found = self.hasher.finalize();
        let is_right = match &self.name {
            Name::Pack(id) | Name::Segment(id) | Name::Parity(id) => {
                ObjectId(*found.as_bytes()) == *id
            }
            _ => found.as_bytes().as_slice() == self.closing.as_slice(),
        };
        if !is_right {
            return Err(FormatError::WrongHash { what });
        }
        let kind = Header::decode(&self.header)?.kind;
        if !fits(&self.name, kind) {
            return Err(FormatError::Malformed {
                what,
                at: 9,
                why: "its header names another kind of object",
            });
        }
        Ok(kind)
    }

    fn closing_bytes(&self) -> usize {
        match self.name {
            Name::Pack(_) | Name::Segment(_) | Name::Parity(_) => 0,
            _ => CLOSING_BYTES,
        }
    }

    fn malformed(&self, why: &'static str) -> FormatError {
        FormatError::Malformed {
            what: word(&self.name),
            at: usize::try_from(self.seen).unwrap_or(usize::MAX),
            why,
        }
    }
}

/// Verifies a whole object without a key.
pub fn verify(name: Name, object: &[u8]) -> Result<Kind> {
    let mut verifier = Verifier::new(name, object.len() as u64)?;
    verifier.update(object);
    verifier.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::ids::{KeyId, SessionId};
    use crate::object::{close, object_id};
    use proptest::prelude::*;

    fn object(kind: Kind, body: &[u8]) -> Vec<u8> {
        let header = Header {
            kind,
            key_id: KeyId([7; 32]),
            uid: [9; 16],
        };
        let object = [header.encode().as_slice(), body].concat();
        if kind.has_content_name() {
            object
        } else {
            close(object)
        }
    }

    fn name_of(kind: Kind, object: &[u8]) -> Name {
        let session = SessionId([1; 24]);
        match kind {
            Kind::DataPack | Kind::TreePack => Name::Pack(object_id(object)),
            Kind::Segment => Name::Segment(object_id(object)),
            Kind::Config => Name::Config(1),
            Kind::KeySlot => Name::Slot(crate::ids::SlotId([2; 16])),
            Kind::Session => Name::Session(session),
            Kind::SessionEnd => Name::SessionEnd(session),
            Kind::Cell => Name::Cell(session),
            Kind::Amendment => Name::Amendment(session, 1),
            Kind::Round => Name::Round(1),
            Kind::State => Name::State(1),
            Kind::Reserve => Name::Reserve,
            Kind::Parity => Name::Parity(object_id(object)),
            Kind::Ledger => Name::Ledger(crate::ids::LedgerId([3; 16])),
            Kind::Run => Name::Run(crate::ids::RunId([4; 16])),
            Kind::RunEnd => Name::RunEnd(crate::ids::RunId([4; 16])),
            Kind::Manifest => Name::Manifest(1),
            Kind::Undo | Kind::Bundle => unreachable!("it has no name of its own"),
        }
    }

    #[test]
    fn each_kind_verifies_under_its_name_and_no_other() {
        let kinds: Vec<_> = (0..=255).filter_map(Kind::from_number).collect();
        // Undo records lie in quarantine, and a bundle's record is no object of a repository.
        let kinds: Vec<_> = kinds
            .into_iter()
            .filter(|kind| !matches!(kind, Kind::Undo | Kind::Bundle))
            .collect();
        for kind in &kinds {
            let bytes = object(*kind, b"body");
            assert_eq!(verify(name_of(*kind, &bytes), &bytes), Ok(*kind));
            for other in &kinds {
                let name = name_of(*other, &bytes);
                if let Some(twin) = name.twin() {
                    assert_eq!(verify(twin, &bytes).is_ok(), fits(&name, *kind), "{twin}");
                }
                assert_eq!(
                    verify(name, &bytes).is_ok(),
                    fits(&name, *kind),
                    "{kind:?} under {name}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_long_or_too_short_is_refused_before_it_is_read() {
        for kind in [Kind::Cell, Kind::TreePack] {
            let bytes = object(kind, b"");
            let name = name_of(kind, &bytes);
            assert!(verify(name, &bytes).is_ok());
            assert!(Verifier::new(name, bytes.len() as u64 - 1).is_err());
            assert!(Verifier::new(name, bytes_max(&name) as u64).is_ok());
            assert!(Verifier::new(name, bytes_max(&name) as u64 + 1).is_err());
        }
    }

    proptest! {
        #[test]
        fn pieces_say_what_the_whole_says(
            body: Vec<u8>,
            cuts: Vec<prop::sample::Index>,
            flip: Option<(prop::sample::Index, u8)>,
            is_pack: bool,
        ) {
            let kind = if is_pack { Kind::DataPack } else { Kind::Cell };
            let mut bytes = object(kind, &body);
            let name = name_of(kind, &bytes);
            let mut is_flipped = false;
            if let Some((at, bits)) = flip {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
                is_flipped = bits != 0;
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut verifier = Verifier::new(name, bytes.len() as u64).unwrap();
            for pair in cuts.windows(2) {
                verifier.update(&bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(verifier.finish().is_ok(), !is_flipped);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, length: u64) {
            let name = Name::Reserve;
            let _ = verify(name, &bytes);
            if let Ok(mut verifier) = Verifier::new(name, length) {
                verifier.update(&bytes);
                verifier.update(&bytes);
                let _ = verifier.finish();
            }
        }
    }
}
