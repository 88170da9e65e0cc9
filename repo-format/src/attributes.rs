//! The attributes record of an entry: extended attributes and ACLs, or the properties of an object
//! of a bucket (SPEC.md §9).

use alloc::vec::Vec;

use minicbor::Decoder;
use minicbor::data::Type;

use crate::error::{FormatError, Result};
use crate::limits::CHUNK_BYTES;

/// The map key of the extended attributes.
const XATTRS: u64 = 0;
/// The map key of the properties of an object.
const PROPERTIES: u64 = 1;

/// An extended attribute of a file (POSIX ACLs are among them), or a property of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedAttribute {
    /// The full name, e.g. `user.comment` or `content-type`, raw.
    pub name: Vec<u8>,
    /// The value, raw.
    pub value: Vec<u8>,
}

/// Encodes attributes as a record; they must be sorted by name, each name once, at least one.
pub fn encode(attributes: &[ExtendedAttribute]) -> Result<Vec<u8>> {
    encode_form(XATTRS, attributes)
}

/// Encodes the properties of an object in the same way.
pub fn encode_properties(properties: &[ExtendedAttribute]) -> Result<Vec<u8>> {
    encode_form(PROPERTIES, properties)
}

/// Reads a record; refuses what is not its deterministic encoding, and that of an object.
pub fn decode(record: &[u8]) -> Result<Vec<ExtendedAttribute>> {
    decode_form(XATTRS, record)
}

/// Reads the record of an object; refuses that of anything else.
pub fn decode_properties(record: &[u8]) -> Result<Vec<ExtendedAttribute>> {
    decode_form(PROPERTIES, record)
}

fn encode_form(form: u64, attributes: &[ExtendedAttribute]) -> Result<Vec<u8>> {
    check_order(attributes)?;
    let mut out = Vec::new();
    put_head(&mut out, 5, 1);
    put_head(&mut out, 0, form);
    put_head(&mut out, 4, attributes.len() as u64);
    for attribute in attributes {
        put_head(&mut out, 4, 2);
        for bytes in [&attribute.name, &attribute.value] {
            put_head(&mut out, 2, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    }
    check_size(&out)?;
    Ok(out)
}

fn decode_form(form: u64, record: &[u8]) -> Result<Vec<ExtendedAttribute>> {
    check_size(record)?;
    let mut decoder = Decoder::new(record);
    let mut attributes = Vec::new();
    read(&mut decoder, form, &mut attributes)
        .map_err(|_| malformed(decoder.position(), "it is not the CBOR that was expected"))?;
    // There is one encoding, so writing it anew finds all that is not deterministic.
    if encode_form(form, &attributes)? != record {
        return Err(malformed(0, "it is not deterministic CBOR"));
    }
    Ok(attributes)
}

fn read(
    decoder: &mut Decoder<'_>,
    form: u64,
    attributes: &mut Vec<ExtendedAttribute>,
) -> core::result::Result<(), minicbor::decode::Error> {
    let wrong = minicbor::decode::Error::message;
    if decoder.map()? != Some(1) || decoder.u64()? != form {
        return Err(wrong("unknown field"));
    }
    // The count is not trusted with an allocation: the vector grows as pairs are found.
    let count = decoder.array()?.ok_or_else(|| wrong("indefinite"))?;
    for _ in 0..count {
        if decoder.array()? != Some(2) || decoder.datatype()? != Type::Bytes {
            return Err(wrong("not a pair"));
        }
        let name = decoder.bytes()?.to_vec();
        let value = decoder.bytes()?.to_vec();
        attributes.push(ExtendedAttribute { name, value });
    }
    Ok(())
}

/// Appends a CBOR head in its shortest form.
fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..24 => out.push(major | value as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, value as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn check_order(attributes: &[ExtendedAttribute]) -> Result<()> {
    if attributes.is_empty() {
        return Err(malformed(0, "it holds nothing"));
    }
    if !attributes.is_sorted_by(|one, two| one.name < two.name) {
        return Err(malformed(0, "its names do not ascend"));
    }
    Ok(())
}

fn check_size(record: &[u8]) -> Result<()> {
    if record.len() > CHUNK_BYTES {
        return Err(FormatError::Limit {
            what: "bytes of an attributes record",
            found: record.len() as u64,
            limit: CHUNK_BYTES as u64,
        });
    }
    Ok(())
}

fn malformed(at: usize, why: &'static str) -> FormatError {
    FormatError::Malformed {
        what: "attributes record",
        at,
        why,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(name: &str, value: &[u8]) -> ExtendedAttribute {
        ExtendedAttribute {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn a_known_record() {
        let attributes = [attribute("user.a", b"\x01\x02"), attribute("user.b", b"")];
        let record = encode(&attributes).unwrap();
        assert_eq!(
            crate::ids::encode_hex(&record),
            "a100828246757365722e614201028246757365722e6240"
        );
        assert_eq!(decode(&record).unwrap(), attributes);
    }

    #[test]
    fn properties_are_no_extended_attributes() {
        let properties = [attribute("content-type", b"text/plain")];
        let record = encode_properties(&properties).unwrap();
        assert_eq!(
            crate::ids::encode_hex(&record),
            "a10181824c636f6e74656e742d747970654a746578742f706c61696e"
        );
        assert_eq!(decode_properties(&record).unwrap(), properties);
        assert!(decode(&record).is_err());
        assert!(decode_properties(&encode(&properties).unwrap()).is_err());
    }

    #[test]
    fn disorder_is_refused() {
        assert!(encode(&[]).is_err());
        assert!(encode(&[attribute("b", b""), attribute("a", b"")]).is_err());
        assert!(encode(&[attribute("a", b""), attribute("a", b"")]).is_err());
        // An empty map, an indefinite array, a longer head, a trailing byte.
        for record in [
            &b"\xa0"[..],
            b"\xa1\x00\x9f\x82\x41a\x40\xff",
            b"\xa1\x00\x81\x82\x58\x01a\x40",
            b"\xa1\x00\x81\x82\x41a\x40\x00",
            b"\xa1\x00\x80",
        ] {
            assert!(decode(record).is_err(), "{record:x?}");
        }
    }

    proptest! {
        #[test]
        fn records_go_both_ways(map in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 0..30),
            prop::collection::vec(any::<u8>(), 0..300),
            1..30,
        )) {
            let attributes: Vec<_> = map
                .into_iter()
                .map(|(name, value)| ExtendedAttribute { name, value })
                .collect();
            prop_assert_eq!(decode(&encode(&attributes).unwrap()).unwrap(), attributes);
        }

        #[test]
        fn any_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(attributes) = decode(&bytes) {
                prop_assert_eq!(encode(&attributes).unwrap(), bytes);
            }
        }
    }
}
