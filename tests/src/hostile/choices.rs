//! A slice of bytes, each of which decides something: so whoever makes such slices up, by chance or by what a run of
//! the code reaches, makes up what is done to a repository.

/// What is left of the bytes; all further ones are 0.
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Tells whether no byte is left.
    pub fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes a byte.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
        self.bytes = rest;
        *first
    }

    /// Takes as many bytes as it needs for a number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let mut number = usize::from(self.byte());
        if limit > 256 {
            number |= usize::from(self.byte()) << 8;
        }
        number % limit.max(1)
    }

    /// Tells one of two things.
    pub fn coin(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Picks one of several.
    pub fn pick<'b, T>(&mut self, items: &'b [T]) -> Option<&'b T> {
        let number = self.below(items.len());
        items.get(number)
    }

    /// Takes a number that is likely to be at the edge of something, perhaps near another one.
    pub fn number(&mut self, near: u64) -> u64 {
        const EDGES: [u64; 28] = [
            0,
            1,
            2,
            3,
            15,
            16,
            17,
            31,
            32,
            63,
            64,
            127,
            255,
            511,
            512,
            4095,
            4096,
            65_535,
            65_536,
            4 << 20,
            (4 << 20) + 1,
            (8 << 20) + 1,
            u32::MAX as u64,
            1 << 32,
            1 << 48,
            (1 << 63) - 1,
            1 << 63,
            u64::MAX,
        ];
        match self.below(EDGES.len() + 8) {
            0 => near.wrapping_add(1),
            1 => near.wrapping_sub(1),
            2 => near.wrapping_mul(2),
            3 => near / 2,
            4 => near ^ (1 << self.below(64)),
            5 => near.wrapping_add(u64::from(self.byte())),
            6 => near.wrapping_sub(u64::from(self.byte())),
            7 => u64::from(self.byte()) << self.below(57),
            number => EDGES[number - 8],
        }
    }

    /// Takes up to 15 bytes as they are.
    pub fn few_bytes(&mut self) -> Vec<u8> {
        let length = self.below(16);
        (0..length).map(|_| self.byte()).collect()
    }

    /// Changes some bytes of many: flips, sets, removes, repeats, moves or inserts.
    pub fn disturb(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let to = (at + 1 + self.below(64)).min(bytes.len());
        match self.below(8) {
            0 | 1 => {
                let bit = 1 << self.below(8);
                bytes
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|one| *one ^= bit);
            }
            2 => {
                let value = self.byte();
                bytes
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|one| *one = value);
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..to)),
            5 => {
                let again = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, again));
            }
            6 => bytes.iter_mut().take(to).skip(at).for_each(|one| *one = 0),
            _ => {
                let new = self.few_bytes();
                drop(bytes.splice(at..at, new));
            }
        }
    }
}
