//! Inputs of a fuzzer: edits one behind another, each with its length before it, so that one can be changed, taken
//! away or put elsewhere and the others go on meaning the same.
//!
//! The fuzzer changes inputs by [`mutate`] and [`cross`] and not byte by byte: what it found to lead somewhere new stays
//! as it is while something else is done to the repository, too.

/// Bytes of an edit that is made up.
const NEW_BYTES: u64 = 40;
/// Edits of an input; more are never made of it.
const EDITS_MAX: usize = 6;

/// Gives the edits of an input; the last one may be cut off.
pub fn edits_of(input: &[u8]) -> Vec<Vec<u8>> {
    let mut edits = Vec::new();
    let mut rest = input;
    while let Some((length, after)) = rest.split_first() {
        let length = usize::from(*length).min(after.len());
        edits.push(after[..length].to_vec());
        rest = &after[length..];
    }
    edits
}

/// Gives the input of edits, as many as `max_bytes` has room for.
pub fn input_of(edits: &[Vec<u8>], max_bytes: usize) -> Vec<u8> {
    let mut input = Vec::new();
    for edit in edits {
        let edit = &edit[..edit.len().min(255)];
        if input.len() + 1 + edit.len() > max_bytes {
            break;
        }
        input.push(edit.len() as u8);
        input.extend_from_slice(edit);
    }
    input
}

/// Gives an input like another one; which one follows from `seed`.
pub fn mutate(input: &[u8], max_bytes: usize, seed: u64) -> Vec<u8> {
    let mut chance = Chance(seed);
    let mut edits = edits_of(input);
    for _ in 0..=chance.below(4) {
        change(&mut edits, &mut chance);
    }
    edits.truncate(EDITS_MAX);
    input_of(&edits, max_bytes)
}

/// Gives an input with edits of two others.
pub fn cross(one: &[u8], other: &[u8], max_bytes: usize, seed: u64) -> Vec<u8> {
    let mut chance = Chance(seed);
    let mut edits: Vec<_> = edits_of(one).into_iter().chain(edits_of(other)).collect();
    while edits.len() > EDITS_MAX || (edits.len() > 1 && chance.below(3) == 0) {
        let gone = chance.below(edits.len() as u64) as usize;
        edits.remove(gone);
    }
    input_of(&edits, max_bytes)
}

fn change(edits: &mut Vec<Vec<u8>>, chance: &mut Chance) {
    let one = chance.below(edits.len() as u64) as usize;
    let other = chance.below(edits.len() as u64) as usize;
    let way = chance.below(12);
    if way < 2 || edits.is_empty() {
        let length = 1 + chance.below(NEW_BYTES);
        let new = (0..length).map(|_| chance.next() as u8).collect();
        edits.insert(one, new);
        return;
    }
    match way {
        2 => drop(edits.remove(one)),
        3 => edits.insert(one, edits[other].clone()),
        4 => edits.swap(one, other),
        _ => change_one(&mut edits[one], way, chance),
    }
}

fn change_one(edit: &mut Vec<u8>, way: u64, chance: &mut Chance) {
    let at = chance.below(edit.len() as u64) as usize;
    if edit.is_empty() || way == 5 {
        edit.push(chance.next() as u8);
        return;
    }
    match way {
        6 => edit.truncate(at),
        // The first bytes decide most: what is done at all, and to what.
        7 => edit[0] = chance.next() as u8,
        8 => edit[at.min(3)] = chance.next() as u8,
        9 => edit[at] ^= 1 << chance.below(8),
        10 => edit[at] = edit[at].wrapping_add(chance.below(9) as u8).wrapping_sub(4),
        _ => edit[at] = chance.next() as u8,
    }
}

/// Numbers that follow from a seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Gives a number below `limit`; 0 if that is 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
