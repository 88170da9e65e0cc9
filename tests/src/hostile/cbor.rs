//! Records taken apart into values of CBOR, changed anywhere, and put together again.

use larder_format::cbor::Encoder;
use larder_format::codec::Reader;

use super::choices::Choices;

/// A value, as records have them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A whole number from 0 on.
    Uint(u64),
    /// -1 less this.
    Negative(u64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Text, as it is encoded.
    Text(Vec<u8>),
    /// Values.
    Array(Vec<Value>),
    /// Pairs of values.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// Reads one value that fills all the bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new("CBOR", bytes);
        let value = Self::read(&mut reader, 8)?;
        reader.rest().is_empty().then_some(value)
    }

    fn read(reader: &mut Reader<'_>, depth: usize) -> Option<Self> {
        let first = reader.u8().ok()?;
        let number = match first & 0x1f {
            small @ 0..24 => u64::from(small),
            more @ 24..28 => {
                let bytes = reader.take(1 << (more - 24)).ok()?;
                bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            }
            _ => return None,
        };
        let depth = depth.checked_sub(1)?;
        let length = usize::try_from(number).ok()?;
        Some(match first >> 5 {
            0 => Self::Uint(number),
            1 => Self::Negative(number),
            2 => Self::Bytes(reader.take(length).ok()?.to_vec()),
            3 => Self::Text(reader.take(length).ok()?.to_vec()),
            4 => {
                let items = (0..length).map(|_| Self::read(reader, depth));
                Self::Array(items.collect::<Option<_>>()?)
            }
            5 => {
                let pairs = (0..length)
                    .map(|_| Some((Self::read(reader, depth)?, Self::read(reader, depth)?)));
                Self::Map(pairs.collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    /// Writes it, in the shortest form, whatever its order is.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        self.put(&mut encoder);
        encoder.into_bytes()
    }

    fn put(&self, encoder: &mut Encoder) {
        match self {
            Self::Uint(number) => drop(encoder.uint(*number)),
            Self::Negative(number) => {
                let value = -1 - i64::try_from(*number).unwrap_or(i64::MAX);
                encoder.int(value);
            }
            Self::Bytes(bytes) => drop(encoder.bytes(bytes)),
            Self::Text(text) => drop(encoder.text(&String::from_utf8_lossy(text))),
            Self::Array(items) => {
                encoder.array(items.len());
                items.iter().for_each(|item| item.put(encoder));
            }
            Self::Map(pairs) => {
                encoder.map(pairs.len());
                for (key, value) in pairs {
                    key.put(encoder);
                    value.put(encoder);
                }
            }
        }
    }

    /// Changes one value somewhere in it; byte strings may become one of `known` with the same length.
    pub fn disturb(&mut self, choices: &mut Choices<'_>, known: &[Vec<u8>]) {
        let mut number = choices.below(self.count());
        if let Some(value) = self.find(&mut number) {
            value.change(choices, known);
        }
    }

    /// Puts bytes in the place of others wherever these stand; lists that ascended still do.
    pub fn replace(&mut self, old: &[u8], new: &[u8]) -> bool {
        match self {
            Self::Bytes(bytes) if bytes == old => {
                *bytes = new.to_vec();
                true
            }
            Self::Array(items) => {
                let is_sorted = items.is_sorted();
                let replaced = items.iter_mut().filter_map(|item| {
                    let is_replaced = item.replace(old, new);
                    is_replaced.then_some(())
                });
                let is_replaced = replaced.count() > 0;
                if is_sorted && is_replaced {
                    items.sort();
                    items.dedup();
                }
                is_replaced
            }
            Self::Map(pairs) => {
                let values = pairs.iter_mut();
                let replaced =
                    values.filter_map(|(_, value)| value.replace(old, new).then_some(()));
                replaced.count() > 0
            }
            _ => false,
        }
    }

    /// Counts it and all values in it.
    fn count(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Self::Map(pairs) => 1 + pairs.iter().map(|(_, value)| value.count()).sum::<usize>(),
            _ => 1,
        }
    }

    fn find(&mut self, number: &mut usize) -> Option<&mut Self> {
        if *number == 0 {
            return Some(self);
        }
        *number -= 1;
        match self {
            Self::Array(items) => items.iter_mut().find_map(|item| item.find(number)),
            Self::Map(pairs) => pairs.iter_mut().find_map(|(_, value)| value.find(number)),
            _ => None,
        }
    }

    fn change(&mut self, choices: &mut Choices<'_>, known: &[Vec<u8>]) {
        match self {
            Self::Uint(number) => *number = choices.number(*number),
            Self::Negative(number) => *number = choices.number(*number),
            Self::Bytes(bytes) => {
                let same: Vec<_> = known
                    .iter()
                    .filter(|one| one.len() == bytes.len())
                    .collect();
                match choices.pick(&same) {
                    Some(known) if choices.coin() => *bytes = (*known).clone(),
                    _ => choices.disturb(bytes),
                }
            }
            Self::Text(text) => choices.disturb(text),
            Self::Array(items) => change_list(items, choices),
            Self::Map(pairs) => change_list(pairs, choices),
        }
    }
}

fn change_list<T: Clone>(items: &mut Vec<T>, choices: &mut Choices<'_>) {
    if items.is_empty() {
        return;
    }
    let (one, other) = (choices.below(items.len()), choices.below(items.len()));
    match choices.below(4) {
        0 => drop(items.remove(one)),
        1 => items.insert(one, items[other].clone()),
        2 => items.swap(one, other),
        _ => items.clear(),
    }
}
