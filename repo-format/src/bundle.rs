//! Bundles: a repository in one stream (SPEC.md §19).
//!
//! Its objects stand one behind another, each after a *head* with its name and length; a sealed record
//! of all heads ends it. What is read here is a head at a time, so neither side holds more than one
//! object.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;

use crate::cbor::{self, Encoder, within};
use crate::codec::Reader;
use crate::error::{FormatError, Result};
use crate::keys::{Keyring, Purpose};
use crate::limits::{BUNDLE_NAME_BYTES, BUNDLE_OBJECTS, SLOTS, SMALL_RECORD_BYTES};
use crate::names::{self, Name};
use crate::object::{CLOSING_BYTES, FORMAT_VERSION, HEADER_BYTES, Kind};
use crate::record::{open_cbor, seal_cbor};
use crate::verify::Verifier;

/// The feature to read of a repository that is a bundle.
pub const BUNDLE: &str = "bundle";
/// The name under which the record at the end is sealed.
pub const RECORD_NAME: &str = "bundle";
/// Bytes of a bundle before its first head.
pub const START_BYTES: usize = 16;
/// Bytes of the longest head.
pub const HEAD_BYTES_MAX: usize = 1 + BUNDLE_NAME_BYTES + LENGTH_BYTES;

const WHAT: &str = "bundle";
const MAGIC: [u8; 8] = *b"\x89LARBUN\n";
const LENGTH_BYTES: usize = 8;

/// What stands before an object in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The object's name; none for the record at the end.
    pub name: Option<Name>,
    /// Its length in bytes.
    pub length: u64,
}

/// Where an object's bytes are in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Offset in bytes from the bundle's start.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// What the record at the end of a bundle says of all that stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRecord {
    /// Objects.
    pub objects: u64,
    /// The sum of their lengths in bytes.
    pub bytes: u64,
    /// BLAKE3 of the bundle's start and all heads.
    pub heads: [u8; 32],
}

/// The objects of a bundle, in the order in which their heads are met or written.
#[derive(Debug, Clone)]
pub struct Frames {
    spans: BTreeMap<Name, Span>,
    /// Where the next head is.
    position: u64,
    bytes: u64,
    heads: blake3::Hasher,
    last: Option<Name>,
    end: Option<Span>,
}

/// Gives the first bytes of every bundle.
#[must_use]
pub fn start() -> [u8; START_BYTES] {
    let mut start = [0; START_BYTES];
    let with = MAGIC.iter().chain([&FORMAT_VERSION]);
    start
        .iter_mut()
        .zip(with)
        .for_each(|(to, from)| *to = *from);
    start
}

/// Verifies the first bytes of a bundle.
pub fn check_start(bytes: &[u8; START_BYTES]) -> Result<()> {
    let mut reader = Reader::new(WHAT, bytes);
    if reader.array::<8>()? != MAGIC {
        return Err(reader.malformed("it does not begin as a bundle does"));
    }
    match reader.u8()? {
        FORMAT_VERSION => reader.finish_padding(),
        found => Err(FormatError::UnknownVersion { found }),
    }
}

/// Tells how many bytes a head has, by its first one.
pub fn head_bytes(first: u8) -> Result<usize> {
    let name = usize::from(first);
    within("bytes of a name in a bundle", name, BUNDLE_NAME_BYTES)?;
    Ok(1 + name + LENGTH_BYTES)
}

impl Head {
    /// Writes the head.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let name = self.name.map(|name| name.to_string()).unwrap_or_default();
        // No name of an object has 256 bytes.
        let mut head = Vec::from([u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(&self.length.to_le_bytes());
        head
    }

    /// Reads a head, of which `bytes` are all bytes, and checks that such an object may be in a bundle.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(WHAT, bytes);
        let length = reader.u8()?;
        head_bytes(length)?;
        let text = reader.take(usize::from(length))?;
        let name =
            match text {
                [] => None,
                text => {
                    let name = core::str::from_utf8(text).ok().and_then(names::parse);
                    let name = name.filter(may_be_in_bundle);
                    Some(name.ok_or_else(|| {
                        reader.malformed("a name is none of an object in a bundle")
                    })?)
                }
            };
        let length = reader.u64()?;
        reader.finish()?;
        let head = Self { name, length };
        head.check()?;
        Ok(head)
    }

    fn check(&self) -> Result<()> {
        match self.name {
            Some(name) if !may_be_in_bundle(&name) => {
                Err(malformed("an object of this kind is in no bundle"))
            }
            Some(name) => Verifier::new(name, self.length).map(|_| ()),
            None if self.length < (HEADER_BYTES + CLOSING_BYTES) as u64 => {
                Err(malformed("its record ends too early"))
            }
            None => bounded(
                "bytes of a bundle's record",
                self.length,
                SMALL_RECORD_BYTES as u64,
            ),
        }
    }
}

/// Tells whether an object with this name may be in a bundle.
fn may_be_in_bundle(name: &Name) -> bool {
    matches!(
        name,
        Name::Config(1)
            | Name::Slot(_)
            | Name::Pack(_)
            | Name::Segment(_)
            | Name::Session(_)
            | Name::SessionEnd(_)
            | Name::Cell(_)
    )
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// Begins after the start.
    #[must_use]
    pub fn new() -> Self {
        let mut heads = blake3::Hasher::new();
        heads.update(&start());
        Self {
            spans: BTreeMap::new(),
            position: START_BYTES as u64,
            bytes: 0,
            heads,
            last: None,
            end: None,
        }
    }

    /// Takes the next head, of which `bytes` are all bytes; gives it, and where its object's bytes are.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(Head, Span)> {
        let head = Head::decode(bytes)?;
        let span = self.push(&head)?;
        Ok((head, span))
    }

    /// Takes the next head; gives where its object's bytes are.
    ///
    /// What comes out of order, twice, or too often is refused, and changes nothing.
    pub fn push(&mut self, head: &Head) -> Result<Span> {
        head.check()?;
        if self.end.is_some() {
            return Err(malformed("something follows its record"));
        }
        self.check_order(head.name)?;
        let encoded = head.encode();
        let span = Span {
            offset: self.position.saturating_add(encoded.len() as u64),
            length: head.length,
        };
        match head.name {
            None => self.end = Some(span),
            Some(name) => {
                if self.spans.contains_key(&name) {
                    return Err(malformed("an object stands in it twice"));
                }
                within("objects in a bundle", self.spans.len() + 1, BUNDLE_OBJECTS)?;
                self.spans.insert(name, span);
                self.heads.update(&encoded);
                self.bytes = self.bytes.saturating_add(head.length);
                self.last = Some(name);
            }
        }
        self.position = span.offset.saturating_add(span.length);
        Ok(span)
    }

    /// Refuses a head that may not come next: the config comes first, then its slots.
    fn check_order(&self, next: Option<Name>) -> Result<()> {
        match (self.last, next) {
            (None, Some(Name::Config(_))) => Ok(()),
            (None, _) => Err(malformed("its first object is not its config")),
            (Some(Name::Config(_)), Some(Name::Slot(_))) => Ok(()),
            (Some(Name::Config(_)), _) => Err(malformed("its config is followed by no key slot")),
            (Some(Name::Slot(before)), Some(Name::Slot(id))) => {
                within("key slots in a bundle", self.spans.len(), SLOTS)?;
                match before < id {
                    true => Ok(()),
                    false => Err(malformed("its key slots are not in ascending order")),
                }
            }
            (_, Some(Name::Slot(_) | Name::Config(_))) => Err(malformed(
                "its config and key slots are not its first objects",
            )),
            _ => Ok(()),
        }
    }

    /// Gives where the next head is: its offset in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives where the record at the end is, once its head was met.
    #[must_use]
    pub fn end(&self) -> Option<Span> {
        self.end
    }

    /// Gives where an object is.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<Span> {
        self.spans.get(name).copied()
    }

    /// Gives all objects, in ascending order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (Name, Span)> {
        self.spans.iter().map(|(name, span)| (*name, *span))
    }

    /// Tells what the record at the end has to say.
    #[must_use]
    pub fn record(&self) -> BundleRecord {
        BundleRecord {
            objects: self.spans.len() as u64,
            bytes: self.bytes,
            heads: *self.heads.finalize().as_bytes(),
        }
    }
}

impl BundleRecord {
    /// Makes the object, with a fresh uid and fresh randomness.
    pub fn seal(&self, keyring: &Keyring, uid: [u8; 16], random: &[u8; 32]) -> Result<Vec<u8>> {
        let key = keyring.current(Purpose::Snapshot)?;
        seal_cbor(key, Kind::Bundle, RECORD_NAME, uid, random, &self.encode())
    }

    /// Opens the object.
    pub fn open(keyring: &Keyring, object: &[u8]) -> Result<Self> {
        let (_, cbor) = open_cbor(keyring, Kind::Bundle, RECORD_NAME, object)?;
        Self::decode(&cbor)
    }

    /// Writes it as CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(3).uint(0).uint(self.objects);
        encoder.uint(1).uint(self.bytes);
        encoder.uint(2).bytes(&self.heads);
        encoder.into_bytes()
    }

    /// Reads it from CBOR.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let record = cbor::decode(Kind::Bundle.word(), bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let objects = decoder.uint()?;
            map.required(decoder, 1)?;
            let bytes = decoder.uint()?;
            map.required(decoder, 2)?;
            let heads = decoder.array_of()?;
            map.finish(decoder)?;
            Ok(Self {
                objects,
                bytes,
                heads,
            })
        })?;
        cbor::must_be_deterministic(Kind::Bundle.word(), bytes, &record.encode())?;
        Ok(record)
    }
}

fn bounded(what: &'static str, found: u64, limit: u64) -> Result<()> {
    match found <= limit {
        true => Ok(()),
        false => Err(FormatError::Limit { what, found, limit }),
    }
}

fn malformed(why: &'static str) -> FormatError {
    FormatError::Malformed {
        what: WHAT,
        at: 0,
        why,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use alloc::string::String;
    use alloc::{format, vec};

    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ObjectId, RepositoryId, SessionId, SlotId};
    use crate::keys::KEYRING_RANDOM_BYTES;
    use crate::limits::{CELL_BYTES, PACK_BYTES};

    fn keyring(byte: u8) -> Keyring {
        Keyring::generate(RepositoryId([byte; 16]), &[byte; KEYRING_RANDOM_BYTES])
    }

    fn head(name: Name, length: u64) -> Head {
        Head {
            name: Some(name),
            length,
        }
    }

    fn slot(byte: u8) -> Head {
        head(Name::Slot(SlotId([byte; 16])), 200)
    }

    fn pack(byte: u8) -> Head {
        head(Name::Pack(ObjectId([byte; 32])), 4096)
    }

    const CONFIG: Head = Head {
        name: Some(Name::Config(1)),
        length: 300,
    };
    const END: Head = Head {
        name: None,
        length: 400,
    };

    /// Takes heads one after the other; gives the first refusal.
    fn frames(heads: &[Head]) -> Result<Frames> {
        let mut frames = Frames::new();
        for head in heads {
            let encoded = head.encode();
            assert_eq!(head_bytes(encoded[0]), Ok(encoded.len()));
            let before = frames.position();
            let (read, span) = frames.read(&encoded)?;
            assert_eq!((read, span.length), (*head, head.length));
            assert_eq!(span.offset, before + encoded.len() as u64);
            assert_eq!(frames.position(), span.offset + span.length);
        }
        Ok(frames)
    }

    fn why(heads: &[Head]) -> String {
        frames(heads).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_start_is_as_specified_and_nothing_else_passes() {
        let right = start();
        assert_eq!(
            right,
            [
                0x89, 0x4c, 0x41, 0x52, 0x42, 0x55, 0x4e, 0x0a, 1, 0, 0, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(check_start(&right), Ok(()));
        for at in 0..START_BYTES {
            let mut wrong = right;
            wrong[at] ^= 2;
            let refused = check_start(&wrong).unwrap_err();
            let is_version = matches!(refused, FormatError::UnknownVersion { found: 3 });
            assert_eq!(is_version, at == 8, "{refused}");
        }
    }

    #[test]
    fn the_config_comes_first_then_its_slots_and_the_record_last() {
        let whole = [CONFIG, slot(1), slot(2), pack(1), pack(2), END];
        let taken = frames(&whole).unwrap();
        assert_eq!(taken.record().objects, 5);
        assert_eq!(taken.record().bytes, 300 + 2 * 200 + 2 * 4096);
        assert_eq!(taken.iter().count(), 5);
        assert_eq!(taken.end().unwrap().length, 400);
        let span = taken.get(&Name::Config(1)).unwrap();
        assert_eq!((span.offset, span.length), (16 + 1 + 23 + 8, 300));
        for (heads, expected) in [
            (vec![slot(1)], "is not its config"),
            (vec![END], "is not its config"),
            (vec![CONFIG, pack(1)], "no key slot"),
            (vec![CONFIG, END], "no key slot"),
            (vec![CONFIG, CONFIG], "no key slot"),
            (vec![CONFIG, slot(2), slot(1)], "ascending"),
            (vec![CONFIG, slot(1), slot(1)], "ascending"),
            (vec![CONFIG, slot(1), pack(1), slot(2)], "first objects"),
            (vec![CONFIG, slot(1), pack(1), CONFIG], "first objects"),
            (vec![CONFIG, slot(1), pack(1), pack(2), pack(1)], "twice"),
            (vec![CONFIG, slot(1), END, pack(1)], "follows"),
            (vec![CONFIG, slot(1), END, END], "follows"),
        ] {
            let found = why(&heads);
            assert!(found.contains(expected), "{found}, not {expected}");
        }
        let slots: Vec<_> = (0..=64).map(slot).collect();
        assert!(frames(&[&[CONFIG], &slots[..64]].concat()).is_ok());
        assert!(why(&[&[CONFIG], slots.as_slice()].concat()).contains("limit of 64"));
    }

    #[test]
    fn names_and_lengths_that_no_bundle_has_are_refused() {
        let session = SessionId([3; 24]);
        for name in [
            Name::Config(2),
            Name::Config(u64::MAX),
            Name::ConfigTwin(1),
            Name::SlotTwin(SlotId([1; 16])),
            Name::Amendment(session, 1),
            Name::Round(1),
            Name::State(1),
            Name::Reserve,
            Name::Parity(ObjectId([1; 32])),
            Name::Manifest(1),
        ] {
            let head = head(name, 4096);
            assert!(Head::decode(&head.encode()).is_err(), "{name}");
            assert!(Frames::new().push(&head).is_err(), "{name}");
        }
        for name in [
            Name::Session(session),
            Name::SessionEnd(session),
            Name::Segment(ObjectId([1; 32])),
            Name::Cell(session),
        ] {
            assert!(Head::decode(&head(name, 4096).encode()).is_ok(), "{name}");
        }
        let lengths = |name, most: usize| {
            let decode = |length: u64| Head::decode(&Head { name, length }.encode()).is_ok();
            assert!(decode(most as u64) && !decode(most as u64 + 1) && !decode(u64::MAX));
            assert!(!decode(0) && !decode(63));
        };
        lengths(Some(Name::Pack(ObjectId([1; 32]))), PACK_BYTES);
        lengths(Some(Name::Cell(session)), CELL_BYTES);
        lengths(None, SMALL_RECORD_BYTES);
        for text in ["bundle", "config/1", "x", "packs/../config", "reserve", "é"] {
            let mut bytes = vec![text.len() as u8];
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(&4096_u64.to_le_bytes());
            assert!(Head::decode(&bytes).is_err(), "{text}");
        }
        assert!(head_bytes(128).is_ok() && head_bytes(129).is_err());
    }

    #[test]
    fn a_record_tells_every_other_order_set_and_length_apart() {
        let whole = [CONFIG, slot(1), pack(1), pack(2), pack(3)];
        let record = frames(&whole).unwrap().record();
        let ring = keyring(1);
        let object = record.seal(&ring, [5; 16], &[6; 32]).unwrap();
        assert_eq!(BundleRecord::open(&ring, &object), Ok(record.clone()));
        assert!(BundleRecord::open(&keyring(2), &object).is_err());
        let mut longer = pack(2);
        longer.length += 1;
        for other in [
            vec![CONFIG, slot(1), pack(1), pack(2)],
            vec![CONFIG, slot(1), pack(2), pack(1), pack(3)],
            vec![CONFIG, slot(1), pack(1), pack(2), pack(3), pack(4)],
            vec![CONFIG, slot(2), pack(1), pack(2), pack(3)],
            vec![CONFIG, slot(1), pack(1), longer, pack(3)],
            vec![CONFIG, slot(1), pack(1), pack(2), pack(4)],
        ] {
            assert_ne!(frames(&other).unwrap().record(), record, "{other:?}");
        }
    }

    #[test]
    fn what_is_refused_leaves_no_trace() {
        let mut taken = frames(&[CONFIG, slot(1), pack(1)]).unwrap();
        let before = (taken.record(), taken.position());
        for bad in [pack(1), slot(2), CONFIG, head(Name::Reserve, 500)] {
            assert!(taken.push(&bad).is_err());
            assert_eq!((taken.record(), taken.position()), before);
        }
        assert!(taken.push(&pack(2)).is_ok());
    }

    proptest! {
        #[test]
        fn a_head_has_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..150)) {
            if let Ok(head) = Head::decode(&bytes) {
                prop_assert_eq!(head.encode(), bytes);
            }
        }

        #[test]
        fn a_flipped_head_is_another_one_or_none(
            id: [u8; 32], length in 64..PACK_BYTES as u64, at: prop::sample::Index, bit in 0..8_u8
        ) {
            let whole = head(Name::Pack(ObjectId(id)), length);
            let mut bytes = whole.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Head::decode(&bytes) {
                prop_assert_ne!(other, whole);
            }
        }

        #[test]
        fn a_record_breaks_when_flipped(objects: u64, bytes: u64, heads: [u8; 32], at: prop::sample::Index, bit in 0..8_u8) {
            let record = BundleRecord { objects, bytes, heads };
            prop_assert_eq!(BundleRecord::decode(&record.encode()), Ok(record.clone()));
            let ring = keyring(1);
            let mut object = record.seal(&ring, [5; 16], &[6; 32]).unwrap();
            let at = at.index(object.len());
            object[at] ^= 1_u8 << bit;
            prop_assert!(BundleRecord::open(&ring, &object).is_err(), "{}", format!("{at}"));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, start: [u8; START_BYTES]) {
            let _ = check_start(&start);
            let _ = BundleRecord::decode(&bytes);
            let _ = Frames::new().read(&bytes);
        }
    }
}
