//! Content-defined chunking (SPEC.md §15): where a run of bytes is cut.
//!
//! Bytes in, lengths out: no file, clock or randomness. All `unsafe` is in `x86`.

#![deny(unsafe_op_in_unsafe_fn)]

mod buffer;
mod fastcdc;
pub mod segments;
mod toeplitz;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions; each block has its proof")]
mod x86;

pub use crate::buffer::ChunkBuffer;
use crate::fastcdc::FastCdc;
pub use crate::toeplitz::SECRET_BYTES;
use crate::toeplitz::ToeplitzAes;

/// Sizes of chunks in bytes, as the repository's config names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// The smallest chunk that is not the last of its run; even, at least 64.
    pub minimum: usize,
    /// The size aimed at; even.
    pub mean: usize,
    /// The largest chunk; even.
    pub maximum: usize,
}

/// A rule that cuts runs of bytes into chunks, with the secrets of one repository.
#[derive(Clone)]
pub struct Chunker {
    sizes: ChunkSizes,
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    FastCdc(FastCdc),
    ToeplitzAes(Box<ToeplitzAes>),
}

impl Chunker {
    /// Prepares `fastcdc-v2020` with a repository's seed, which protects nothing.
    #[must_use]
    pub fn fastcdc(sizes: ChunkSizes, seed: u64) -> Self {
        let rule = Rule::FastCdc(FastCdc::new(sizes, seed));
        Self { sizes, rule }
    }

    /// Prepares `toeplitz-aes` with a repository's secret, on the fastest path of this machine.
    #[must_use]
    pub fn toeplitz_aes(sizes: ChunkSizes, secret: &[u8; SECRET_BYTES]) -> Self {
        let rule = Rule::ToeplitzAes(Box::new(ToeplitzAes::new(sizes, secret)));
        Self { sizes, rule }
    }

    /// Prepares `toeplitz-aes` once for each path that this machine has, the portable one first.
    ///
    /// They cut alike; this is how tests hold them against each other.
    #[must_use]
    pub fn toeplitz_aes_by_every_path(
        sizes: ChunkSizes,
        secret: &[u8; SECRET_BYTES],
    ) -> Vec<(&'static str, Self)> {
        let by_path = |path| {
            let rule = ToeplitzAes::on_path(sizes, secret, path);
            let rule = Rule::ToeplitzAes(Box::new(rule));
            (path.name(), Self { sizes, rule })
        };
        toeplitz::paths().map(by_path).collect()
    }

    /// Gives the sizes.
    #[must_use]
    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// Gives the length in bytes of the first chunk of `bytes`, which must either hold
    /// [`ChunkSizes::maximum`] bytes or be all that is left of the run.
    #[must_use]
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let bytes = bytes.get(..self.sizes.maximum).unwrap_or(bytes);
        if bytes.len() <= self.sizes.minimum {
            return bytes.len();
        }
        match &self.rule {
            Rule::FastCdc(rule) => rule.cut(self.sizes, bytes),
            Rule::ToeplitzAes(rule) => rule.cut(self.sizes, bytes),
        }
    }
}
