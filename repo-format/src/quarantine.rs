//! Quarantine: where a repair puts what it replaces, and the records by which that is undone (SPEC.md §12).
//!
//! Undo records are neither sealed nor authenticated: a repair may have to work before there is a key.
//! What whoever holds the storage could do with one, he can do with the objects themselves.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::cbor::{self, Decoder, Encoder, within};
use crate::error::{FormatError, Result};
use crate::ids::{KeyId, decode_hex, encode_hex};
use crate::limits::{NAME_BYTES, OBJECT_NAME_BYTES, UNDO_BYTES, UNDO_CHANGES};
use crate::names::{self, QUARANTINE};
use crate::object::{HEADER_BYTES, Header, Kind, close, verify_closing};

const WHAT: &str = "undo record";

/// Names a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RepairId(pub [u8; 16]);

impl RepairId {
    /// Gives the id in hex.
    #[must_use]
    pub fn to_hex(&self) -> String {
        encode_hex(&self.0)
    }

    /// Takes an id of 32 hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut id = Self::default();
        decode_hex(text, &mut id.0).then_some(id)
    }
}

/// One object that a repair replaced, put back or took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The object's name.
    pub name: String,
    /// BLAKE3 of its bytes before; none if it was not there.
    pub before: Option<[u8; 32]>,
    /// BLAKE3 of its bytes after; none if it is not there.
    pub after: Option<[u8; 32]>,
}

/// What a repair was about to change when it wrote this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Undo {
    /// The repair.
    pub repair: RepairId,
    /// The number of the record among those of its repair, from 1.
    pub number: u64,
    /// When it was written, in seconds since 1970.
    pub time: i64,
    /// The host.
    pub host: String,
    /// The changes, in the order in which they were made.
    pub changes: Vec<Change>,
}

/// Names the folder of what a repair put aside.
#[must_use]
pub fn folder(repair: &RepairId) -> String {
    format!("{QUARANTINE}{}/", repair.to_hex())
}

/// Names the copy of an object that a repair put aside.
#[must_use]
pub fn copy_name(repair: &RepairId, name: &str) -> String {
    format!("{}{name}", folder(repair))
}

/// Names the undo record of a number of a repair.
#[must_use]
pub fn record_name(repair: &RepairId, number: u64) -> String {
    format!("{}undo.{number}", folder(repair))
}

/// Takes the name of an undo record apart.
#[must_use]
pub fn parse_record(name: &str) -> Option<(RepairId, u64)> {
    let (id, rest) = name.strip_prefix(QUARANTINE)?.split_once('/')?;
    let id = RepairId::from_hex(id)?;
    let number = rest.strip_prefix("undo.")?.parse().ok()?;
    (record_name(&id, number) == name).then_some((id, number))
}

impl Undo {
    /// Makes the object.
    pub fn close(&self, uid: [u8; 16]) -> Result<Vec<u8>> {
        self.check()?;
        let cbor = self.encode();
        within("bytes of an undo record", cbor.len(), UNDO_BYTES / 2)?;
        let header = Header {
            kind: Kind::Undo,
            key_id: KeyId::default(),
            uid,
        };
        Ok(close([header.encode().as_slice(), &cbor].concat()))
    }

    /// Reads the undo record of this repair and number.
    pub fn open(repair: &RepairId, number: u64, object: &[u8]) -> Result<Self> {
        within("bytes of an undo record", object.len(), UNDO_BYTES)?;
        Header::decode_kind(object, Kind::Undo)?;
        let before = verify_closing(WHAT, object)?;
        let bytes = before.get(HEADER_BYTES..).unwrap_or_default();
        let undo = cbor::decode(WHAT, bytes, decode)?;
        cbor::must_be_deterministic(WHAT, bytes, &undo.encode())?;
        undo.check()?;
        if undo.repair != *repair || undo.number != number {
            return Err(malformed("it is not the one that its name says"));
        }
        Ok(undo)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(5).uint(0).bytes(&self.repair.0);
        encoder.uint(1).uint(self.number).uint(2).int(self.time);
        encoder.uint(3).text(&self.host).uint(4);
        encoder.array(self.changes.len());
        for change in &self.changes {
            encoder.array(3).text(&change.name);
            for hash in [&change.before, &change.after] {
                encoder.bytes(hash.as_ref().map(<[u8; 32]>::as_slice).unwrap_or_default());
            }
        }
        encoder.into_bytes()
    }

    /// Refuses a record by which something else than objects of the repository would be changed.
    fn check(&self) -> Result<()> {
        if self.number == 0 {
            return Err(malformed("its number is 0"));
        }
        within(
            "changes of an undo record",
            self.changes.len(),
            UNDO_CHANGES,
        )?;
        let is_object = |change: &Change| names::parse(&change.name).is_some();
        if !self.changes.iter().all(is_object) {
            return Err(malformed("it names something that is no object"));
        }
        Ok(())
    }
}

fn decode(decoder: &mut Decoder<'_>) -> Result<Undo> {
    let mut map = decoder.map()?;
    map.required(decoder, 0)?;
    let repair = RepairId(decoder.array_of()?);
    map.required(decoder, 1)?;
    let number = decoder.uint()?;
    map.required(decoder, 2)?;
    let time = decoder.int()?;
    map.required(decoder, 3)?;
    let host = decoder.text("host of an undo record", NAME_BYTES)?;
    map.required(decoder, 4)?;
    let count = decoder.array("changes of an undo record", UNDO_CHANGES)?;
    let mut changes = Vec::new();
    for _ in 0..count {
        if decoder.array("parts of a change", 3)? != 3 {
            return Err(malformed("a change has not three parts"));
        }
        let name = decoder.text("name of an object", OBJECT_NAME_BYTES)?;
        let (before, after) = (hash(decoder)?, hash(decoder)?);
        changes.push(Change {
            name,
            before,
            after,
        });
    }
    map.finish(decoder)?;
    Ok(Undo {
        repair,
        number,
        time,
        host,
        changes,
    })
}

fn hash(decoder: &mut Decoder<'_>) -> Result<Option<[u8; 32]>> {
    let bytes = decoder.bytes("hash of an object", 32)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let hash = <[u8; 32]>::try_from(bytes);
    hash.map(Some)
        .map_err(|_| malformed("a hash has not 32 bytes"))
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
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    fn undo() -> Undo {
        Undo {
            repair: RepairId([7; 16]),
            number: 2,
            time: 1_700_000_000,
            host: "desk".to_string(),
            changes: vec![
                Change {
                    name: names::config(3),
                    before: Some([1; 32]),
                    after: Some([2; 32]),
                },
                Change {
                    name: names::round(1),
                    before: None,
                    after: Some([3; 32]),
                },
            ],
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let undo = undo();
        let object = undo.close([9; 16]).unwrap();
        assert_eq!(Undo::open(&undo.repair, 2, &object), Ok(undo.clone()));
        assert!(Undo::open(&undo.repair, 1, &object).is_err());
        assert!(Undo::open(&RepairId([8; 16]), 2, &object).is_err());
        for at in 0..object.len() {
            let mut bad = object.clone();
            bad[at] ^= 1;
            assert!(Undo::open(&undo.repair, 2, &bad).is_err(), "{at}");
            assert!(Undo::open(&undo.repair, 2, &object[..at]).is_err());
        }
    }

    #[test]
    fn names_are_as_specified() {
        let id = RepairId([0xab; 16]);
        let base = "quarantine/abababababababababababababababab/";
        assert_eq!(copy_name(&id, "gc/1"), base.to_string() + "gc/1");
        assert_eq!(record_name(&id, 12), base.to_string() + "undo.12");
        assert_eq!(parse_record(&record_name(&id, 12)), Some((id, 12)));
        for bad in ["undo.012", "undo.", "undo.+1", "undo", "gc/undo.1"] {
            assert_eq!(parse_record(&(base.to_string() + bad)), None, "{bad}");
        }
        // What is put aside is no object of the repository any more.
        assert_eq!(names::parse(&copy_name(&id, &names::config(1))), None);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let mut undo = undo();
        undo.changes[0].name = "../config/1".to_string();
        assert!(undo.close([9; 16]).is_err());
        undo.changes.clear();
        undo.number = 0;
        assert!(undo.close([9; 16]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let header = Header {
                kind: Kind::Undo,
                key_id: KeyId::default(),
                uid: [0; 16],
            };
            let object = close([header.encode().as_slice(), &bytes].concat());
            let _ = Undo::open(&RepairId::default(), 1, &object);
            let _ = Undo::open(&RepairId::default(), 1, &bytes);
        }
    }
}
