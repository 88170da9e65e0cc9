//! Recovery keys and raw key files, as people type and keep them.

#![no_main]

use larder_format::secret_text::{parse_raw_key, parse_recovery_key, recovery_key_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = parse_raw_key(input);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(key) = parse_recovery_key(text) {
        let plain = |text: &str| {
            text.replace(|c: char| !c.is_ascii_alphanumeric(), "")
                .to_uppercase()
        };
        assert_eq!(plain(&recovery_key_text(&key)), plain(text));
    }
    if let Some(key) = input.first_chunk::<32>() {
        assert_eq!(
            parse_recovery_key(&recovery_key_text(key)).as_deref(),
            Ok(key)
        );
    }
});
