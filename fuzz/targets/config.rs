//! Configs: one encoding for each; whoever has no key can neither make nor alter one.

#![no_main]

use larder_format::config::Config;
use larder_fuzz::KEYRING;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    assert!(Config::open(&KEYRING, 1, input).is_err());
    let _ = Config::read_unverified(1, input);

    let Ok(config) = Config::decode(input) else {
        return;
    };
    assert_eq!(config.encode(), input);
    let object = config.seal(&KEYRING, [1; 16]).unwrap();
    let read = Config::read_unverified(config.number, &object).unwrap();
    assert_eq!(read.encode(), input);
    let ours = config.repository == KEYRING.repository();
    assert_eq!(Config::open(&KEYRING, config.number, &object).is_ok(), ours);
});
