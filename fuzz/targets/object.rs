//! The header and the closing hash of an object.

#![no_main]

use larder_format::object::{HEADER_BYTES, Header, close, verify_closing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|object: &[u8]| {
    let Ok(header) = Header::decode(object) else {
        return;
    };
    assert_eq!(header.encode(), object[..HEADER_BYTES]);
    assert_eq!(Header::decode_kind(object, header.kind), Ok(header));

    if let Ok(before) = verify_closing("object", object) {
        assert_eq!(close(before.to_vec()), object);
    }
    let closed = close(object.to_vec());
    assert_eq!(verify_closing("object", &closed), Ok(object));
});
