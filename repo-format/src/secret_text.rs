//! Keys as people keep them: raw key files and recovery keys on paper (SPEC.md §3).

use alloc::string::String;

use zeroize::Zeroizing;

use crate::error::{FormatError, Result};
use crate::ids::decode_hex;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const CHECK_BYTES: usize = 3;
const TEXT_CHARS: usize = 56;

/// Shows a key as a recovery key: 14 groups of four characters.
#[must_use]
pub fn recovery_key_text(key: &[u8; 32]) -> Zeroizing<String> {
    let check = recovery_check(key);
    let mut text = Zeroizing::new(String::with_capacity(TEXT_CHARS + TEXT_CHARS / 4));
    let (mut bits, mut held) = (0_u32, 0);
    let mut written = 0;
    for byte in key.iter().chain(&check) {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            if written > 0 && written % 4 == 0 {
                text.push('-');
            }
            let digit = ALPHABET.get((bits >> held & 31) as usize);
            text.push(digit.map_or('?', |digit| char::from(*digit)));
            written += 1;
        }
    }
    text
}

/// Reads a recovery key as a person typed it, in any case, with or without spaces and hyphens.
pub fn parse_recovery_key(text: &str) -> Result<Zeroizing<[u8; 32]>> {
    let malformed = |at, why| FormatError::Malformed {
        what: "recovery key",
        at,
        why,
    };
    let mut bytes = Zeroizing::new([0_u8; 32 + CHECK_BYTES]);
    let mut places = bytes.iter_mut();
    let (mut bits, mut held, mut chars) = (0_u32, 0, 0);
    for (at, char) in text.char_indices() {
        if char == '-' || char.is_whitespace() {
            continue;
        }
        let digit = u8::try_from(char.to_ascii_uppercase()).ok();
        let digit = digit.and_then(|char| ALPHABET.iter().position(|known| *known == char));
        let digit =
            digit.ok_or_else(|| malformed(at, "it has a character other than A-Z and 2-7"))?;
        chars += 1;
        bits = (bits << 5 | digit as u32) & 0xfff;
        held += 5;
        if held >= 8 {
            held -= 8;
            let place = places.next();
            let place = place.ok_or_else(|| malformed(at, "it has more than 56 characters"))?;
            *place = (bits >> held) as u8;
        }
    }
    if chars != TEXT_CHARS {
        return Err(malformed(text.len(), "it does not have 56 characters"));
    }
    let (key, check) = bytes
        .split_first_chunk::<32>()
        .ok_or_else(|| malformed(0, "it does not have 56 characters"))?;
    if recovery_check(key) == check {
        Ok(Zeroizing::new(*key))
    } else {
        Err(malformed(
            0,
            "its checksum does not match: at least one character is mistyped",
        ))
    }
}

/// Reads the content of a raw key file: 64 hex digits and an optional newline.
pub fn parse_raw_key(file: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
    let malformed = FormatError::Malformed {
        what: "raw key file",
        at: 0,
        why: "it does not hold 64 hex digits and an optional newline",
    };
    let digits = file.strip_suffix(b"\n").unwrap_or(file);
    let Ok(digits) = core::str::from_utf8(digits) else {
        return Err(malformed);
    };
    let digits = Zeroizing::new(digits.to_ascii_lowercase());
    let mut key = Zeroizing::new([0; 32]);
    decode_hex(&digits, &mut *key)
        .then_some(key)
        .ok_or(malformed)
}

fn recovery_check(key: &[u8; 32]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"larder v1 recovery key").update(key);
    let hash = hasher.finalize();
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn mistakes_in_a_recovery_key_are_told_apart() {
        let text = recovery_key_text(&[7; 32]);
        assert_eq!(text.len(), 69);
        assert!(text.split('-').count() == 14 && text.split('-').all(|group| group.len() == 4));
        let why = |text: &str| {
            parse_recovery_key(text)
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        assert!(why(&text.replacen('A', "B", 1)).contains("mistyped"));
        assert!(why(&format!("{}A", *text)).contains("characters"));
        assert!(why(&text[..68]).contains("56 characters"));
        assert!(why(&text.replacen('A', "1", 1)).contains("A-Z"));
        assert!(why("").contains("56 characters"));
    }

    #[test]
    fn raw_keys_are_hex() {
        let file = "Ab".repeat(32);
        assert_eq!(*parse_raw_key(file.as_bytes()).unwrap(), [0xab; 32]);
        assert_eq!(
            *parse_raw_key(format!("{file}\n").as_bytes()).unwrap(),
            [0xab; 32]
        );
        for bad in [
            format!("{file}\n\n"),
            format!(" {file}"),
            file[1..].to_string(),
        ] {
            assert!(parse_raw_key(bad.as_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn recovery_keys_go_both_ways(key: [u8; 32]) {
            let text = recovery_key_text(&key);
            prop_assert_eq!(&*parse_recovery_key(&text).unwrap(), &key);
            let typed = text.to_lowercase().replace('-', " ");
            prop_assert_eq!(&*parse_recovery_key(&typed).unwrap(), &key);
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = parse_recovery_key(&text);
        }
    }
}
