//! Which objects of a bucket are left out: what patterns and sizes say of a key.

use larder_format::ids::encode_hex;

use crate::error::Result;
use crate::restore::select::{Choice, Verdict};
use crate::source::select::Pattern;

/// What is left out of a bucket.
pub(super) struct LeftOut {
    choice: Choice,
    larger_than: Option<u64>,
    digits: String,
}

impl LeftOut {
    /// Compiles the patterns for the bucket of a name, which ties those that begin with it.
    pub(super) fn new(
        patterns: &[Pattern],
        larger_than: Option<u64>,
        bucket: &[u8],
    ) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{larger_than:?}").as_bytes());
        for pattern in patterns {
            let (text, ignore_case) = (&pattern.text, pattern.ignore_case);
            hasher.update(format!("{text:?}{ignore_case}").as_bytes());
        }
        let hash = hasher.finalize();
        let (digits, _) = hash.as_bytes().split_at(8);
        Ok(Self {
            choice: Choice::excluding(patterns, bucket)?,
            larger_than,
            digits: encode_hex(digits),
        })
    }

    /// Gives digits that differ if other objects are left out.
    pub(super) fn digits(&self) -> &str {
        &self.digits
    }

    /// Tells whether an object is left out; the parts of its key between slashes are as folders.
    pub(super) fn has(&self, key: &[u8], size: u64) -> bool {
        self.larger_than.is_some_and(|most| size > most)
            || self.choice.verdict(key) == Verdict::Excluded
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn patterns_mean_keys_as_gitignore_means_paths() {
        let left_out = |patterns: &[&str], key: &str| {
            let pattern = |text: &&str| Pattern {
                text: (*text).to_owned(),
                ignore_case: false,
                origin: None,
            };
            let patterns: Vec<Pattern> = patterns.iter().map(pattern).collect();
            let made = LeftOut::new(&patterns, Some(9), b"s3://b/p").unwrap();
            assert!(made.has(key.as_bytes(), 10));
            made.has(key.as_bytes(), 9)
        };
        for (patterns, key, expected) in [
            (&["*.log"][..], "a/b.log", true),
            (&["*.log"], "a/b.log/c", true),
            (&["*.log"], "a/b.logs", false),
            (&["*.log", "!keep.log"], "x/keep.log", false),
            (&["tmp/", "!tmp/x"], "tmp/x", true),
            (&["tmp/"], "tmp", false),
            (&["tmp/"], "a/tmp/", true),
            (&["/top"], "top", true),
            (&["/top"], "a/top", false),
            (&["s3://b/p/top"], "top", true),
            (&["s3://b/p/top"], "a/top", false),
            (&["x"], "a//x", true),
            (&["x"], "/x", true),
            (&["x"], "../x", true),
            (&["b"], "a//b/c", true),
            (&["x"], "", false),
            (&["x"], "//", false),
        ] {
            assert_eq!(left_out(patterns, key), expected, "{patterns:?} {key:?}");
        }
    }

    #[test]
    fn the_digits_are_those_of_what_is_left_out() {
        let digits = |patterns: &[(&str, bool)], larger_than| {
            let pattern = |(text, ignore_case): &(&str, bool)| Pattern {
                text: (*text).to_owned(),
                ignore_case: *ignore_case,
                origin: None,
            };
            let patterns: Vec<Pattern> = patterns.iter().map(pattern).collect();
            let made = LeftOut::new(&patterns, larger_than, b"s3://b").unwrap();
            made.digits().to_owned()
        };
        let all = [
            digits(&[], None),
            digits(&[], Some(1)),
            digits(&[("a", false)], None),
            digits(&[("a", true)], None),
            digits(&[("a", false), ("b", false)], None),
            digits(&[("ab", false)], None),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(one.len(), 16);
            assert!(!all.iter().skip(at + 1).any(|other| other == one));
        }
        assert_eq!(all[2], digits(&[("a", false)], None));
    }
}
