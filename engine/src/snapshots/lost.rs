//! What snapshots lack that were made of damaged ones: options of a cell (SPEC.md §11).

use larder_format::cell::{Cell, Source};
use larder_format::limits::{OPTION_BYTES, OPTIONS};
use larder_format::tree::read::Gap;

use super::times::escaped;

/// What the names of these options begin with.
const PREFIX: &str = "lost/";
/// Bytes of a key that are told; a key is written with three times as many at most.
const KEY_BYTES: usize = 500;

/// Gives the option that says what the tree of a source lacks; none if nothing, or if there is no room for it.
pub(crate) fn record(source: &Source, gaps: &[Gap]) -> Option<(String, String)> {
    let name = format!("{PREFIX}{}", escaped(&source.path));
    if gaps.is_empty() || name.len() > OPTION_BYTES {
        return None;
    }
    let told: Vec<Gap> = gaps.iter().map(short).collect();
    let texts: Vec<String> = told.iter().map(written).collect();
    // Of gaps that an earlier repair told as one, the last one need not reach farthest.
    let mut to = told.last()?.to.clone();
    let mut before: usize = texts.iter().map(|text| text.len() + 1).sum();
    let mut entries = 0_u64;
    // As many as there is room for, and one that covers the rest.
    for (at, (gap, text)) in told.iter().zip(&texts).enumerate().rev() {
        before -= text.len() + 1;
        entries = entries.saturating_add(gap.entries);
        to = match (to, &gap.to) {
            (Some(to), Some(other)) => Some(to.max(other.clone())),
            _ => None,
        };
        let rest = written(&Gap {
            from: gap.from.clone(),
            to: to.clone(),
            entries,
        });
        if before + rest.len() <= OPTION_BYTES {
            let mut parts = texts.get(..at).unwrap_or_default().to_vec();
            parts.push(rest);
            return Some((name, parts.join(" ")));
        }
    }
    None
}

/// Tells whether a cell has room for so many more options.
pub(crate) fn has_room(cell: &Cell, more: usize) -> bool {
    cell.options.len() + more <= OPTIONS
}

/// Reads what the tree of a source lacks; what makes no sense is passed over.
pub(crate) fn of(cell: &Cell, source: &Source) -> Vec<Gap> {
    let name = format!("{PREFIX}{}", escaped(&source.path));
    let value = cell.options.get(&name).map_or("", String::as_str);
    value.split(' ').filter_map(read).collect()
}

/// Counts the entries that a cell says it lacks.
pub(crate) fn entries(cell: &Cell) -> u64 {
    let gaps = cell.sources.iter().flat_map(|source| of(cell, source));
    gaps.fold(0, |sum, gap| sum.saturating_add(gap.entries))
}

/// Shortens the keys of a gap so that it covers no less.
fn short(gap: &Gap) -> Gap {
    let from = gap.from.get(..KEY_BYTES).unwrap_or(&gap.from);
    Gap {
        from: from.to_vec(),
        to: gap.to.clone().filter(|to| to.len() <= KEY_BYTES),
        entries: gap.entries,
    }
}

fn written(gap: &Gap) -> String {
    let key = |key: &[u8]| escaped(key).replace(',', "%2C");
    let mut text = format!("{},{}", gap.entries, key(&gap.from));
    if let Some(to) = &gap.to {
        text.push(',');
        text.push_str(&key(to));
    }
    text
}

fn read(text: &str) -> Option<Gap> {
    let mut parts = text.split(',');
    let gap = Gap {
        entries: parts.next()?.parse().ok()?,
        from: unescaped(parts.next()?),
        to: parts.next().map(unescaped),
    };
    parts.next().is_none().then_some(gap)
}

fn unescaped(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::snapshots::fixture::cell;

    fn source() -> Source {
        Source {
            path: b"/a b".to_vec(),
            root: Default::default(),
            level: 0,
            entries: 0,
            bytes: 0,
        }
    }

    fn gap(from: &[u8], to: Option<&[u8]>, entries: u64) -> Gap {
        Gap {
            from: from.to_vec(),
            to: to.map(<[u8]>::to_vec),
            entries,
        }
    }

    fn told(gaps: &[Gap]) -> Vec<Gap> {
        let source = source();
        let mut cell = cell(1, 0);
        let (name, value) = record(&source, gaps).unwrap();
        assert!(value.len() <= OPTION_BYTES);
        cell.options.insert(name, value);
        cell.sources = vec![source.clone()];
        assert_eq!(
            entries(&cell),
            gaps.iter().map(|gap| gap.entries).sum::<u64>()
        );
        of(&cell, &source)
    }

    #[test]
    fn what_is_lost_is_read_again() {
        let gaps = [
            gap(b"", Some(b"a, b%\xff"), 3),
            gap(b"x y", Some(b"z/"), 1),
            gap(b"zz,", None, 70),
        ];
        assert_eq!(told(&gaps), gaps);
        assert_eq!(record(&source(), &[]), None);
    }

    #[test]
    fn what_has_no_room_is_covered_by_what_has() {
        let long = vec![0xff; 4000];
        let gaps = [gap(&long, Some(&long), 3)];
        assert_eq!(told(&gaps), [gap(&vec![0xff; KEY_BYTES], None, 3)]);
        let many: Vec<Gap> = (0..5000_u32)
            .map(|number| {
                let key = format!("{number:08}");
                gap(key.as_bytes(), Some(&[key.as_bytes(), b"+"].concat()), 2)
            })
            .collect();
        let told = told(&many);
        assert_eq!(told.first(), many.first());
        let last = told.last().unwrap();
        assert_eq!(last.to, many.last().unwrap().to);
        assert!(last.entries > 9000);
    }
}
