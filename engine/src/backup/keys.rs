//! Which objects of a bucket are left out: what patterns and sizes say of a key.

use crate::error::Result;
use crate::restore::select::{Choice, Verdict};
use crate::source::select::Pattern;

/// What is left out of a bucket.
pub(super) struct LeftOut {
    choice: Choice,
    larger_than: Option<u64>,
}

impl LeftOut {
    /// Compiles the patterns for the bucket of a name, which ties those that begin with it.
    pub(super) fn new(
        patterns: &[Pattern],
        larger_than: Option<u64>,
        bucket: &[u8],
    ) -> Result<Self> {
        Ok(Self {
            choice: Choice::excluding(patterns, bucket)?,
            larger_than,
        })
    }

    /// Tells whether an object is left out; the parts of its key between slashes are as folders.
    pub(super) fn has(&self, key: &[u8], size: u64) -> bool {
        self.larger_than.is_some_and(|most| size > most)
            || self.choice.verdict(key) == Verdict::Excluded
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

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
}
