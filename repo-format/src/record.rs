//! Sealed records: objects with chosen names whose body is CBOR (SPEC.md §2).

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::cbor::within;
use crate::codec::{Reader, padding_to};
use crate::error::{FormatError, Result};
use crate::ids::KeyId;
use crate::keys::{Key, Keyring, Purpose};
use crate::limits::{CELL_BYTES, COLLECTOR_BYTES, LEDGER_BYTES, RUN_BYTES, SMALL_RECORD_BYTES};
use crate::names::Name;
use crate::object::{HEADER_BYTES, Header, Kind, close, verify_closing};
use crate::seal::{self, Aad};

const PADDING_UNIT: usize = 256;

/// What a sealed record is and says.
pub trait Record: Sized {
    /// The kind of object.
    const KIND: Kind;

    /// Gives the name that the record's content demands.
    fn name(&self) -> Name;

    /// Gives the purpose of the key that must seal it.
    fn purpose(&self) -> Purpose {
        match Self::KIND {
            Kind::Round | Kind::State => Purpose::Collector,
            _ => Purpose::Snapshot,
        }
    }

    /// Writes the record as CBOR.
    fn encode(&self) -> Vec<u8>;

    /// Reads the record from CBOR and checks its limits.
    fn decode(bytes: &[u8]) -> Result<Self>;
}

/// Makes the object of `record`, to be created under its name, with a fresh uid and fresh
/// randomness. What could not be read again is refused.
pub fn seal_record<R: Record>(
    keyring: &Keyring,
    record: &R,
    uid: [u8; 16],
    random: &[u8; 32],
) -> Result<Vec<u8>> {
    let cbor = record.encode();
    R::decode(&cbor)?;
    let key = keyring.current(record.purpose())?;
    seal_cbor(key, R::KIND, &record.name().to_string(), uid, random, &cbor)
}

/// Opens the object with the name `name` and checks everything that makes it count: kind, key,
/// name, padding and content.
pub fn open_record<R: Record>(keyring: &Keyring, name: &Name, object: &[u8]) -> Result<R> {
    let (key_id, cbor) = open_cbor(keyring, R::KIND, &name.to_string(), object)?;
    let record = R::decode(&cbor)?;
    let malformed = |why| FormatError::Malformed {
        what: R::KIND.word(),
        at: 0,
        why,
    };
    if record.name() != *name {
        return Err(malformed("what it says of itself is not what it is named"));
    }
    if !keyring.find(&key_id, R::KIND)?.is_for(record.purpose()) {
        return Err(malformed("it is sealed by a key of another purpose"));
    }
    Ok(record)
}

/// Gives the largest size in bytes of an object of the kind `kind`, if it is a record.
#[must_use]
pub fn object_bytes_max(kind: Kind) -> usize {
    match kind {
        Kind::Cell => CELL_BYTES,
        Kind::Round | Kind::State => COLLECTOR_BYTES,
        Kind::Ledger => LEDGER_BYTES,
        Kind::Run => RUN_BYTES,
        _ => SMALL_RECORD_BYTES,
    }
}

/// Seals the CBOR of a record into its object.
pub(crate) fn seal_cbor(
    key: &Key,
    kind: Kind,
    name: &str,
    uid: [u8; 16],
    random: &[u8; 32],
    cbor: &[u8],
) -> Result<Vec<u8>> {
    within("bytes of a record", cbor.len(), object_bytes_max(kind))?;
    let header = Header {
        kind,
        key_id: key.id(),
        uid,
    };
    let mut plaintext = (cbor.len() as u32).to_le_bytes().to_vec();
    plaintext.extend_from_slice(cbor);
    plaintext.resize(
        plaintext.len() + padding_to(plaintext.len(), PADDING_UNIT),
        0,
    );
    let sealed = seal::seal(key, &Aad::record(key, &header, name), random, &plaintext)?;
    let object = close([header.encode().as_slice(), &sealed].concat());
    within("bytes of a record", object.len(), object_bytes_max(kind))?;
    Ok(object)
}

/// Opens the object of a record and gives the key that sealed it, and its CBOR.
pub(crate) fn open_cbor(
    keyring: &Keyring,
    kind: Kind,
    name: &str,
    object: &[u8],
) -> Result<(KeyId, Vec<u8>)> {
    within("bytes of a record", object.len(), object_bytes_max(kind))?;
    let what = kind.word();
    let header = Header::decode_kind(object, kind)?;
    let before = verify_closing(what, object)?;
    let key = keyring.find(&header.key_id, kind)?;
    let sealed = before.get(HEADER_BYTES..).unwrap_or_default();
    let plaintext = seal::open(key, &Aad::record(key, &header, name), sealed)?;
    let mut reader = Reader::new(what, &plaintext);
    let length = reader.u32()? as usize;
    let cbor = reader.take(length)?.to_vec();
    if reader.rest().len() >= PADDING_UNIT || !plaintext.len().is_multiple_of(PADDING_UNIT) {
        return Err(reader.malformed("its padding has the wrong length"));
    }
    reader.finish_padding()?;
    Ok((header.key_id, cbor))
}
