//! What several fuzz targets share.

use std::sync::LazyLock;

use larder_format::ids::RepositoryId;
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring};
use larder_format::record::{Record, object_bytes_max, open_record, seal_record};

/// The keys of a holder who may have written anything.
pub static KEYRING: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::generate(RepositoryId::default(), &[7; KEYRING_RANDOM_BYTES]));

/// Checks that `cbor`, if it is a record, is its only encoding and survives being sealed.
pub fn check_record<R: Record>(cbor: &[u8]) {
    let Ok(record) = R::decode(cbor) else {
        return;
    };
    assert_eq!(record.encode(), cbor);

    let object = seal_record(&KEYRING, &record, [1; 16], &[2; 32]).unwrap();
    assert!(object.len() <= object_bytes_max(R::KIND));
    let opened: R = open_record(&KEYRING, &record.name(), &object).unwrap();
    assert_eq!(opened.encode(), cbor);
}
