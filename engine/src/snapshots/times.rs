//! When each of several sources was read: options of a cell (SPEC.md §11).

use std::collections::BTreeMap;

use jiff::Timestamp;
use larder_format::cell::Cell;
use serde::Serializer;
use serde::ser::SerializeStruct as _;

/// What the names of these options begin with.
const PREFIX: &str = "read/";
/// Sources whose times are recorded, at most; and bytes of the names of their options.
const SOURCES_MAX: usize = 200;
const NAME_BYTES_MAX: usize = 4096;

/// When a source was read, in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTimes {
    /// The source's path.
    pub source: Vec<u8>,
    /// When it was begun with.
    pub started: i64,
    /// When it was read whole.
    pub ended: i64,
}

impl serde::Serialize for SourceTimes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("SourceTimes", 3)?;
        fields.serialize_field("source", &String::from_utf8_lossy(&self.source))?;
        for (name, time) in [("started", self.started), ("ended", self.ended)] {
            let time = Timestamp::from_nanosecond(time.into()).unwrap_or_default();
            fields.serialize_field(name, &time.to_string())?;
        }
        fields.end()
    }
}

/// Gives the options that record times; none for a single source, whose times are those of the cell.
pub(crate) fn record(times: &[SourceTimes]) -> BTreeMap<String, String> {
    if times.len() < 2 {
        return BTreeMap::new();
    }
    let options = times.iter().take(SOURCES_MAX).map(|one| {
        let name = format!("{PREFIX}{}", escaped(&one.source));
        (name, format!("{} {}", one.started, one.ended))
    });
    options
        .filter(|(name, _)| name.len() <= NAME_BYTES_MAX)
        .collect()
}

/// Reads the times of a cell's sources, the first that was begun with first; what makes no sense is
/// passed over.
pub(crate) fn of(cell: &Cell) -> Vec<SourceTimes> {
    let told = cell.sources.iter().filter_map(|source| {
        let name = format!("{PREFIX}{}", escaped(&source.path));
        let (started, ended) = cell.options.get(&name)?.split_once(' ')?;
        Some(SourceTimes {
            source: source.path.clone(),
            started: started.parse().ok()?,
            ended: ended.parse().ok()?,
        })
    });
    let mut times: Vec<_> = told.collect();
    times.sort_by_key(|one| one.started);
    times
}

/// Writes all but visible ASCII, and `%`, as `%` and two hex digits.
pub(crate) fn escaped(path: &[u8]) -> String {
    let mut text = String::new();
    for byte in path {
        match byte {
            b'%' => text.push_str("%25"),
            b'!'..=b'~' => text.push(char::from(*byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::snapshots::fixture::cell;
    use larder_format::cell::Source;

    fn tree(path: &[u8]) -> Source {
        Source {
            path: path.to_vec(),
            root: Default::default(),
            level: 0,
            entries: 0,
            bytes: 0,
        }
    }

    #[test]
    fn times_are_found_again_under_any_path() {
        let times: Vec<_> = [&b"/a b%\xff"[..], b"s3://bucket/x", b"/db.sql"]
            .iter()
            .zip([30, 10, 20])
            .map(|(path, started)| SourceTimes {
                source: path.to_vec(),
                started,
                ended: started + 5,
            })
            .collect();
        let options = record(&times);
        assert!(options.contains_key("read//a%20b%25%FF"), "{options:?}");
        let mut made = cell(1, 0);
        made.options = options;
        made.sources = times.iter().map(|one| tree(&one.source)).collect();
        let starts: Vec<_> = of(&made).iter().map(|one| one.started).collect();
        assert_eq!(starts, [10, 20, 30]);
        made.sources.truncate(1);
        assert_eq!(of(&made), [times.first().unwrap().clone()]);
        assert!(record(times.get(..1).unwrap()).is_empty());
    }
}
