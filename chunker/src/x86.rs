//! The scan of `toeplitz-aes` in vector code: several windows at once, each in a lane of its own.
//!
//! The only module of this crate with `unsafe`: calls of code for instructions that were found to
//! be there, and loads without bounds checks. [`Scanner::first_hit`] is safe for every argument.

use core::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::toeplitz::{REDUCTION, Tables, WINDOW_BYTES};

/// Windows that one lane looks at before all lanes move on: few enough that little is computed
/// beyond the first hit, so many that a lane's first window costs nothing beside the rest.
const STEPS_MAX: usize = 2048;
const ROUNDS: usize = 10;
/// Vectors in flight: enough of them to hide the latency of a round of AES.
const VECTORS: usize = 4;
/// Steps that are enciphered together.
const GROUP: usize = 2;
/// Windows that a scan needs: enough for each lane to take one group of them.
pub(crate) const WINDOWS_MIN: usize = wide::LANES * GROUP;

/// A set of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// AES-NI: one block in a vector.
    Narrow,
    /// VAES and AVX2: two blocks in a vector.
    Wide,
}

/// Gives the levels that this machine has, the fastest last.
pub(crate) fn levels() -> impl Iterator<Item = Level> {
    [Level::Narrow, Level::Wide]
        .into_iter()
        .filter(|level| level.is_here())
}

impl Level {
    fn is_here(self) -> bool {
        match self {
            Self::Narrow => is_x86_feature_detected!("aes"),
            Self::Wide => {
                is_x86_feature_detected!("aes")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("vaes")
            }
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Narrow => "AES-NI",
            Self::Wide => "VAES",
        }
    }
}

/// A key, expanded for a set of instructions that is there.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Scanner {
    /// Kept private and set by `new` alone: it proves that the instructions are there.
    #[zeroize(skip)]
    level: Level,
    round_keys: [u128; ROUNDS + 1],
}

impl Scanner {
    /// Expands a key; none if this machine lacks the instructions.
    pub(crate) fn new(level: Level, key: &[u8; 16]) -> Option<Self> {
        if !level.is_here() {
            return None;
        }
        // SAFETY: both levels have AES-NI, and `is_here` has found it.
        let round_keys = unsafe { expand(u128::from_le_bytes(*key)) };
        Some(Self { level, round_keys })
    }

    /// Gives the number of the first window in `windows` whose value has none of the bits of
    /// `mask`; a window begins at each byte that has 63 more after it.
    ///
    /// Finds nothing in fewer than [`WINDOWS_MIN`] windows.
    pub(crate) fn first_hit(&self, tables: &Tables, windows: &[u8], mask: u32) -> Option<usize> {
        let lanes = match self.level {
            Level::Narrow => narrow::LANES,
            Level::Wide => wide::LANES,
        };
        let block = lanes * STEPS_MAX;
        let count = windows.len().checked_sub(WINDOW_BYTES - 1)?;
        let mut before = 0;
        while before < count {
            // A last block that is too small for a scan takes windows without a hit in again.
            before = before.min(count.checked_sub(WINDOWS_MIN)?);
            let rest = windows.get(before..)?;
            let rest = rest.get(..block + WINDOW_BYTES - 1).unwrap_or(rest);
            let hit = match self.level {
                // SAFETY: `new` has found the instructions of this level.
                Level::Narrow => unsafe { narrow::scan(tables, &self.round_keys, rest, mask) },
                // SAFETY: `new` has found the instructions of this level.
                Level::Wide => unsafe { wide::scan(tables, &self.round_keys, rest, mask) },
            };
            if let Some(hit) = hit {
                return Some(before + hit);
            }
            before += block;
        }
        None
    }
}

/// Expands a key of AES-128 (FIPS 197 §5.2).
#[target_feature(enable = "aes")]
fn expand(key: u128) -> [u128; ROUNDS + 1] {
    #[target_feature(enable = "aes")]
    fn next<const RCON: i32>(key: __m128i) -> __m128i {
        let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<RCON>(key));
        // Each word of the key becomes the sum of itself and those before it.
        let sum = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
        let sum = _mm_xor_si128(sum, _mm_slli_si128::<8>(sum));
        _mm_xor_si128(sum, word)
    }
    let k0 = load(&key);
    let k1 = next::<0x01>(k0);
    let k2 = next::<0x02>(k1);
    let k3 = next::<0x04>(k2);
    let k4 = next::<0x08>(k3);
    let k5 = next::<0x10>(k4);
    let k6 = next::<0x20>(k5);
    let k7 = next::<0x40>(k6);
    let k8 = next::<0x80>(k7);
    let k9 = next::<0x1b>(k8);
    let k10 = next::<0x36>(k9);
    [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10].map(|key| {
        // SAFETY: both are 16 bytes without padding, and all their bit patterns are values.
        unsafe { core::mem::transmute::<__m128i, u128>(key) }
    })
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(from: &u128) -> __m128i {
    // SAFETY: the reference is valid for reading 16 bytes; an unaligned load asks for no more.
    unsafe { _mm_loadu_si128(core::ptr::from_ref(from).cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn entry(table: &[u128; 256], byte: u8) -> __m128i {
    load(&table[usize::from(byte)])
}

/// Writes a scan over vectors of a width once for each width.
///
/// The windows are shared out among the lanes in order; lanes overlap where the number of windows
/// is not a multiple of theirs, and then find the same twice. Two steps of all lanes are enciphered
/// together while the digests of the two steps after them are made: each of the two waits most of
/// the time, the one for AES, the other for loads.
macro_rules! scan {
    ($features:literal, $aes:ident, $aes_last:ident, $register:ident) => {
        #[target_feature(enable = $features)]
        #[expect(clippy::indexing_slicing, reason = "lanes, vectors and rounds are constants")]
        pub(super) fn scan(
            tables: &Tables,
            round_keys: &[u128; ROUNDS + 1],
            windows: &[u8],
            mask: u32,
        ) -> Option<usize> {
            let count = windows.len().checked_sub(WINDOW_BYTES - 1)?;
            let steps = count.div_ceil(LANES).next_multiple_of(GROUP);
            let last_group = steps.checked_sub(GROUP)?;
            let last_run = count.checked_sub(steps)?;
            let firsts: [usize; LANES] = core::array::from_fn(|lane| (lane * steps).min(last_run));
            let mut runs = [windows.as_ptr(); LANES];
            for (run, first) in runs.iter_mut().zip(firsts) {
                *run = windows.get(first..first + steps + WINDOW_BYTES - 1)?.as_ptr();
            }
            let mut keys = [zero(); ROUNDS + 1];
            for (wide, key) in keys.iter_mut().zip(round_keys) {
                *wide = spread(key);
            }

            let mut digests = [zero(); VECTORS];
            for at in 0..WINDOW_BYTES - 1 {
                // SAFETY: each run has `steps + 63` bytes, and `at` is below 63.
                let byte = |lane: usize| unsafe { *runs[lane].add(at) };
                for (vector, digest) in digests.iter_mut().enumerate() {
                    *digest = add(double(*digest), entries(&tables.into, vector, byte));
                }
            }
            // Gives the digest of vector `$vector` at step `$step`, and takes the oldest byte off.
            macro_rules! roll {
                ($vector:expr, $step:expr) => {{
                    let step = $step;
                    // SAFETY: each run has `steps + 63` bytes, and `step` is below `steps`.
                    let newest =
                        |lane: usize| unsafe { *runs[lane].add(step).add(WINDOW_BYTES - 1) };
                    // SAFETY: as above.
                    let oldest = |lane: usize| unsafe { *runs[lane].add(step) };
                    let into = entries(&tables.into, $vector, newest);
                    let digest = add(double(digests[$vector]), into);
                    digests[$vector] = add(digest, entries(&tables.out, $vector, oldest));
                    // SAFETY: there is no instruction in it.
                    unsafe {
                        core::arch::asm!("/* {} */", inout($register) digests[$vector], options(nomem, nostack, preserves_flags));
                    }
                    digest
                }};
            }

            let mut coming = [zero(); GROUP * VECTORS];
            for (at, digest) in coming.iter_mut().enumerate() {
                *digest = roll!(at % VECTORS, at / VECTORS);
            }
            let mut hits = [None; LANES];
            for group in (0..steps).step_by(GROUP) {
                let mut blocks = coming;
                for block in &mut blocks {
                    *block = add(*block, keys[0]);
                }
                // What is made during the last group is not used, whatever it is made of.
                let ahead = (group + GROUP).min(last_group);
                // Written out, since all of it is to stay in registers.
                macro_rules! round {
                    ($number:literal) => {
                        for block in &mut blocks {
                            *block = $aes(*block, keys[$number]);
                        }
                        let [a, b, c, d, e, f, g, h] = &mut blocks;
                        // SAFETY: there is no instruction in it.
                        unsafe {
                            core::arch::asm!(
                                "/* {} {} {} {} {} {} {} {} */",
                                inout($register) *a, inout($register) *b,
                                inout($register) *c, inout($register) *d,
                                inout($register) *e, inout($register) *f,
                                inout($register) *g, inout($register) *h,
                                options(nomem, nostack, preserves_flags)
                            );
                        }
                    };
                }
                round!(1);
                coming[0] = roll!(0, ahead);
                round!(2);
                coming[1] = roll!(1, ahead);
                round!(3);
                coming[2] = roll!(2, ahead);
                round!(4);
                coming[3] = roll!(3, ahead);
                round!(5);
                coming[4] = roll!(0, ahead + 1);
                round!(6);
                coming[5] = roll!(1, ahead + 1);
                round!(7);
                coming[6] = roll!(2, ahead + 1);
                round!(8);
                coming[7] = roll!(3, ahead + 1);
                round!(9);
                for block in &mut blocks {
                    *block = $aes_last(*block, keys[ROUNDS]);
                }
                let [a, b, c, d, e, f, g, h] = blocks;
                let found = [hit_lanes([a, b, c, d], mask), hit_lanes([e, f, g, h], mask)];
                if found[0] | found[1] != 0 {
                    for (step, found) in (group..).zip(found) {
                        for (lane, hit) in hits.iter_mut().enumerate() {
                            if found >> lane & 1 == 1 && hit.is_none() {
                                *hit = Some(step);
                            }
                        }
                    }
                    // What the other lanes would find comes later.
                    if hits[0].is_some() {
                        break;
                    }
                }
            }
            let hits = hits.iter().zip(firsts);
            hits.filter_map(|(step, first)| Some(first + (*step)?)).min()
        }
    };
}

/// One block in a vector.
mod narrow {
    use super::*;

    pub(super) const LANES: usize = VECTORS;

    #[inline]
    #[target_feature(enable = "sse2")]
    fn zero() -> __m128i {
        _mm_setzero_si128()
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn add(a: __m128i, b: __m128i) -> __m128i {
        _mm_xor_si128(a, b)
    }

    /// Multiplies each block by z: what is shifted out of a 32-bit part comes into the next one,
    /// and what is shifted out of the last one into the first, reduced.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn double(v: __m128i) -> __m128i {
        let carried = _mm_shuffle_epi32::<0b10_01_00_11>(_mm_srai_epi32::<31>(v));
        let carried = _mm_and_si128(carried, _mm_set_epi32(1, 1, 1, REDUCTION.into()));
        add(_mm_slli_epi32::<1>(v), carried)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn spread(key: &u128) -> __m128i {
        load(key)
    }

    /// Looks up what the bytes of the lanes of a vector are in a table.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn entries(table: &[u128; 256], vector: usize, byte: impl Fn(usize) -> u8) -> __m128i {
        entry(table, byte(vector))
    }

    /// Gives a bit for each lane, set where the value has none of the bits of `mask`.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn hit_lanes(blocks: [__m128i; VECTORS], mask: u32) -> u32 {
        let [a, b, c, d] = blocks;
        let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
        let values = _mm_unpacklo_epi64(ab, cd);
        let masked = _mm_and_si128(values, _mm_set1_epi32(mask.cast_signed()));
        let hits = _mm_cmpeq_epi32(masked, zero());
        _mm_movemask_ps(_mm_castsi128_ps(hits)).cast_unsigned()
    }

    scan!("aes", _mm_aesenc_si128, _mm_aesenclast_si128, xmm_reg);
}

/// Two blocks in a vector: lane `n` is the low half of vector `n` for the first four lanes, the
/// high half of vector `n - 4` for the others.
mod wide {
    use super::*;

    pub(super) const LANES: usize = 2 * VECTORS;

    #[inline]
    #[target_feature(enable = "avx2")]
    fn zero() -> __m256i {
        _mm256_setzero_si256()
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(a: __m256i, b: __m256i) -> __m256i {
        _mm256_xor_si256(a, b)
    }

    /// As its narrow form.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn double(v: __m256i) -> __m256i {
        let carried = _mm256_shuffle_epi32::<0b10_01_00_11>(_mm256_srai_epi32::<31>(v));
        let reduction = REDUCTION.into();
        let bits = _mm256_set_epi32(1, 1, 1, reduction, 1, 1, 1, reduction);
        add(_mm256_slli_epi32::<1>(v), _mm256_and_si256(carried, bits))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn spread(key: &u128) -> __m256i {
        _mm256_broadcastsi128_si256(load(key))
    }

    /// As its narrow form.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn entries(table: &[u128; 256], vector: usize, byte: impl Fn(usize) -> u8) -> __m256i {
        let low = entry(table, byte(vector));
        let high = entry(table, byte(vector + VECTORS));
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
    }

    /// As its narrow form.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn hit_lanes(blocks: [__m256i; VECTORS], mask: u32) -> u32 {
        let [a, b, c, d] = blocks;
        let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let values = _mm256_unpacklo_epi64(ab, cd);
        let masked = _mm256_and_si256(values, _mm256_set1_epi32(mask.cast_signed()));
        let hits = _mm256_cmpeq_epi32(masked, zero());
        _mm256_movemask_ps(_mm256_castsi256_ps(hits)).cast_unsigned()
    }

    scan!(
        "avx2,vaes",
        _mm256_aesenc_epi128,
        _mm256_aesenclast_epi128,
        ymm_reg
    );
}
