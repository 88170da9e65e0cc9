//! Keyrings: one encoding for each.

#![no_main]

use larder_format::ids::RepositoryId;
use larder_format::keys::Keyring;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(keyring) = Keyring::decode(bytes, RepositoryId::default()) {
        assert_eq!(keyring.encode().as_slice(), bytes);
        assert!(
            keyring
                .keys()
                .iter()
                .all(|key| key.repository() == keyring.repository())
        );
    }
});
