//! Freshness: when each source was last backed up, and whether that backup was like those before it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::snapshots::{SnapshotInfo, rfc3339};

/// Earlier snapshots that tell what is usual.
pub const USUAL_SNAPSHOTS: usize = 10;
/// Fewer than these tell nothing.
const USUAL_SNAPSHOTS_MIN: usize = 3;
/// A figure is unusual if it is so many times the usual one, or that so many times it.
const UNUSUAL_TIMES: f64 = 10.0;

/// How the backups of the same sources of one host stand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceStatus {
    /// The host.
    pub host: String,
    /// The sources.
    pub sources: Vec<String>,
    /// The newest complete snapshot of them.
    pub snapshot: String,
    /// When that was started.
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
    /// Seconds since then; 0 if it lies ahead.
    pub age_seconds: u64,
    /// Whether that is longer than it may be; one that lies as far ahead tells nothing either.
    pub is_stale: bool,
    /// How many snapshots of them there are.
    pub snapshots: u64,
    /// What the newest one counted.
    pub figures: Figures,
    /// Which of that is far from what was usual before.
    pub unusual: Vec<Unusual>,
}

/// What a snapshot counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Regular files.
    pub files: u64,
    /// Seconds that it took.
    pub seconds: u64,
}

/// Something that is far from what was usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Unusual {
    /// `bytes`, `files` or `seconds`, as in [`Figures`].
    pub figure: &'static str,
    /// What it is.
    pub is: u64,
    /// The median of the snapshots before.
    pub usually: u64,
}

/// Tells for each host and its sources how their backups stand, by host and sources; pure.
///
/// `snapshots` are complete ones, the oldest first. Two snapshots belong together if host and sources are
/// the same.
#[must_use]
pub fn status(
    snapshots: &[SnapshotInfo],
    now: Timestamp,
    max_age: Option<Duration>,
) -> Vec<SourceStatus> {
    let mut groups: BTreeMap<(&str, &[String]), Vec<&SnapshotInfo>> = BTreeMap::new();
    for snapshot in snapshots {
        let key = (snapshot.host.as_str(), snapshot.sources.as_slice());
        groups.entry(key).or_default().push(snapshot);
    }
    let groups = groups.into_values();
    groups
        .filter_map(|group| of_group(group, now, max_age))
        .collect()
}

fn of_group(
    mut group: Vec<&SnapshotInfo>,
    now: Timestamp,
    max_age: Option<Duration>,
) -> Option<SourceStatus> {
    let snapshots = group.len() as u64;
    let newest = group.pop()?;
    let away = now.duration_since(newest.time);
    let age = Duration::try_from(away).unwrap_or_default();
    let before: Vec<_> = group.iter().rev().take(USUAL_SNAPSHOTS).collect();
    let before: Vec<_> = before.into_iter().map(|one| figures(one)).collect();
    Some(SourceStatus {
        host: newest.host.clone(),
        sources: newest.sources.clone(),
        snapshot: newest.id.clone(),
        time: newest.time,
        age_seconds: age.as_secs(),
        is_stale: max_age.is_some_and(|max| away.unsigned_abs() > max),
        snapshots,
        figures: figures(newest),
        unusual: unusual(figures(newest), &before),
    })
}

fn figures(snapshot: &SnapshotInfo) -> Figures {
    // A snapshot may have been given another time than that of its making: then this is nonsense.
    let seconds = snapshot.end.duration_since(snapshot.time).as_secs();
    Figures {
        bytes: snapshot.statistics.bytes,
        files: snapshot.statistics.files,
        seconds: u64::try_from(seconds).unwrap_or_default(),
    }
}

/// Tells what is ten times what it usually was, or a tenth; nothing while there are fewer than three before.
#[must_use]
pub fn unusual(now: Figures, before: &[Figures]) -> Vec<Unusual> {
    if before.len() < USUAL_SNAPSHOTS_MIN {
        return Vec::new();
    }
    // Differences below these are of no interest, however many times it is.
    let least = [("bytes", 1 << 20), ("files", 100), ("seconds", 60)];
    let named = |of: &Figures| [of.bytes, of.files, of.seconds];
    let compared = least.into_iter().zip(named(&now)).enumerate();
    let looked = compared.filter_map(|(place, ((figure, least), is))| {
        let all = before
            .iter()
            .filter_map(|one| named(one).get(place).copied());
        let mut all: Vec<u64> = all.collect();
        all.sort_unstable();
        let usually = *all.get(all.len() / 2)?;
        let (low, high) = (is.min(usually), is.max(usually));
        let is_far = high - low >= least && high as f64 >= low as f64 * UNUSUAL_TIMES;
        is_far.then_some(Unusual {
            figure,
            is,
            usually,
        })
    });
    looked.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use larder_format::ids::SessionId;

    use super::*;
    use crate::snapshots::Statistics;

    const DAY: i64 = 86_400;

    fn snapshot(host: &str, source: &str, day: i64, bytes: u64) -> SnapshotInfo {
        let time = Timestamp::from_second(day * DAY).unwrap();
        SnapshotInfo {
            id: format!("{host}{source}{day}"),
            time,
            end: time + jiff::SignedDuration::from_secs(100),
            partial: false,
            pinned: false,
            host: host.to_owned(),
            user: "me".to_owned(),
            tags: Vec::new(),
            sources: vec![source.to_owned()],
            read: Vec::new(),
            parent: None,
            shard: None,
            program: "larder".to_owned(),
            statistics: Statistics {
                bytes,
                files: 1000,
                ..Statistics::default()
            },
            session: SessionId::default(),
        }
    }

    #[test]
    fn each_host_and_source_has_its_own_newest_snapshot() {
        let all = [
            snapshot("a", "/x", 1, 5),
            snapshot("b", "/x", 2, 5),
            snapshot("a", "/x", 3, 5),
            snapshot("a", "/y", 2, 5),
        ];
        let now = Timestamp::from_second(4 * DAY).unwrap();
        let found = status(&all, now, Some(Duration::from_secs(DAY as u64)));
        let told: Vec<_> = found
            .iter()
            .map(|one| {
                (
                    one.snapshot.as_str(),
                    one.snapshots,
                    one.age_seconds,
                    one.is_stale,
                )
            })
            .collect();
        let day = DAY as u64;
        let expected = [
            ("a/x3", 2, day, false),
            ("a/y2", 1, 2 * day, true),
            ("b/x2", 1, 2 * day, true),
        ];
        assert_eq!(told, expected);
        assert!(status(&all, now, None).iter().all(|one| !one.is_stale));
        // A clock that was put back a little makes nothing stale; one that was years ahead hides nothing.
        let before = |days: i64| {
            let before = Timestamp::from_second((3 - days) * DAY).unwrap();
            let found = status(&all, before, Some(Duration::from_secs(2 * DAY as u64)));
            (found[0].age_seconds, found[0].is_stale)
        };
        assert_eq!(before(1), (0, false));
        assert_eq!(before(3), (0, true));
        assert_eq!(status(&[], now, None), []);
    }

    #[test]
    fn what_is_an_order_of_magnitude_off_is_told_once_there_is_something_usual() {
        const MIB: u64 = 1 << 20;
        let with = |sizes: &[u64]| {
            let days = 1..;
            let all: Vec<_> = sizes
                .iter()
                .zip(days)
                .map(|(size, day)| snapshot("a", "/x", day, *size))
                .collect();
            let now = Timestamp::from_second(99 * DAY).unwrap();
            status(&all, now, None)[0].unusual.clone()
        };
        let off = |is, usually| {
            vec![Unusual {
                figure: "bytes",
                is,
                usually,
            }]
        };
        assert_eq!(
            with(&[100 * MIB, 100 * MIB, 100 * MIB, MIB]),
            off(MIB, 100 * MIB)
        );
        assert_eq!(with(&[MIB, 9 * MIB, MIB, 10 * MIB]), off(10 * MIB, MIB));
        assert_eq!(with(&[MIB, MIB, MIB, 9 * MIB]), []);
        assert_eq!(with(&[100 * MIB, 100 * MIB, MIB]), []);
        assert_eq!(with(&[1, 1, 1, 1000]), []);
        assert_eq!(with(&[2 * MIB, 2 * MIB, 2 * MIB, 0]), off(0, 2 * MIB));
        // Only the last ones tell what is usual.
        let mut sizes = vec![1000 * MIB; 30];
        sizes.extend([MIB; 11]);
        assert_eq!(with(&sizes), []);
    }
}
