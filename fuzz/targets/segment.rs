//! An index segment that does authenticate, whatever it says: one encoding for each.

#![no_main]

use larder_format::keys::Purpose;
use larder_format::object::{HEADER_BYTES, Header, Kind, object_id};
use larder_format::seal::{Aad, open, seal};
use larder_format::segment::Segment;
use larder_fuzz::KEYRING;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|plaintext: &[u8]| {
    let key = KEYRING.current(Purpose::Index).unwrap();
    let header = Header {
        kind: Kind::Segment,
        key_id: key.id(),
        uid: [3; 16],
    };
    let aad = Aad::segment(key, &header);
    let sealed = seal(key, &aad, &[5; 32], plaintext).unwrap();
    let object = [header.encode().as_slice(), &sealed].concat();
    let Ok(segment) = Segment::open(&KEYRING, &object_id(&object), &object) else {
        return;
    };

    let (id, again) = segment.seal(&KEYRING, [3; 16], &[5; 32]).unwrap();
    assert_eq!(object_id(&again), id);
    let written = open(key, &aad, &again[HEADER_BYTES..]).unwrap();
    // Only the length of the padding may differ.
    let common = written.len().min(plaintext.len());
    assert_eq!(written[..common], plaintext[..common]);
    assert!(
        written[common..]
            .iter()
            .chain(&plaintext[common..])
            .all(|byte| *byte == 0)
    );
});
