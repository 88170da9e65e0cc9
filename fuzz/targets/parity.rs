//! Parity objects that are damaged, and group records that somebody made up.

#![no_main]

use larder_format::limits::PARITY_BYTES;
use larder_format::object::{HEADER_BYTES, object_id};
use larder_format::parity::{Group, Parity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Group::read_front(bytes);
    look(bytes);
    // The same as the CBOR of a record whose length and hash are right.
    let mut record = u32::try_from(bytes.len())
        .unwrap_or(0)
        .to_le_bytes()
        .to_vec();
    record.extend_from_slice(bytes);
    let hash = object_id(&record).0;
    look(&[&[0; HEADER_BYTES], record.as_slice(), &hash].concat());
});

fn look(object: &[u8]) {
    let Ok(parity) = Parity::read(object) else {
        return;
    };
    let group = parity.group();
    assert!(group.object_bytes() <= PARITY_BYTES);
    let last = group.strips - 1;
    for strip in [0, last] {
        assert_eq!(group.strip(strip).count(), group.pieces_of(strip));
        assert!(group.pieces_of(strip) > 0);
        let _ = parity.recovery_piece(strip, group.recovery - 1);
    }
    let sound = parity.sound_pieces(group.members.len() - 1, object);
    assert_eq!(
        Some(sound.len()),
        group.members.last().map(|member| member.pieces())
    );
}
