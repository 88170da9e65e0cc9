//! Keys of objects within URLs: pure.

use std::fmt::Write as _;

/// Gives the path of a key below the bucket's URL, with the slash that it begins with.
///
/// URLs know `.` and `..` as steps and would lose them, whatever they are written as; so where one stands
/// between slashes, the slash beside it is written as `%2F`, which is the same key.
///
/// # Errors
/// In words: for a key that is not UTF-8, or that no URL can name.
pub(super) fn path(prefix: &str, key: &[u8]) -> Result<String, String> {
    let key = std::str::from_utf8(key)
        .map_err(|_| "its key is not UTF-8, which this store's keys are".to_owned())?;
    let whole = format!("{prefix}{key}");
    if matches!(whole.as_str(), "." | "..") {
        return Err("a URL cannot name it: it is a step of a path".to_owned());
    }
    if whole.is_empty() {
        return Err("an object's key has at least one byte".to_owned());
    }
    let parts: Vec<&str> = whole.split('/').collect();
    let is_step = |at: usize| {
        let part = parts.get(at);
        part.is_some_and(|part| matches!(*part, "." | ".."))
    };
    let mut path = String::from("/");
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            let joins_step = is_step(at) || is_step(at - 1);
            path.push_str(if joins_step { "%2F" } else { "/" });
        }
        path.push_str(&strict(part));
    }
    Ok(path)
}

/// Gives the query of a URL with its question mark; nothing for none.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", strict(name), strict(value)))
        .collect();
    match pairs.is_empty() {
        true => String::new(),
        false => format!("?{}", pairs.join("&")),
    }
}

/// Encodes everything but letters, digits and `-._~`, as signatures demand.
pub(super) fn strict(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn keys_stay_as_they_are() {
        for (key, expected) in [
            ("a", "/a"),
            ("a//b/", "/a//b/"),
            ("../x", "/..%2Fx"),
            ("a/./b", "/a%2F.%2Fb"),
            ("a/..", "/a%2F.."),
            ("a+b c?d#e%", "/a%2Bb%20c%3Fd%23e%25"),
            ("/", "//"),
            ("ü", "/%C3%BC"),
        ] {
            assert_eq!(path("", key.as_bytes()).unwrap(), expected);
        }
        assert_eq!(path("p/", b"").unwrap(), "/p/");
        for wrong in [&b""[..], b".", b"..", b"\xff"] {
            assert!(path("", wrong).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_key_is_changed_on_its_way_through_a_url(parts in prop::collection::vec("(|\\.|\\.\\.|[a-c%+ ü\\\\\\x01]{1,3})", 1..5)) {
            let key = parts.join("/");
            if let Ok(path) = path("", key.as_bytes()) {
                let url = Url::parse(&format!("http://host/bucket{path}")).unwrap();
                let back = percent_decode_str(url.path()).decode_utf8().unwrap();
                prop_assert_eq!(back, format!("/bucket/{key}"));
            }
        }
    }
}
