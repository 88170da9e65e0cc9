//! Whether the shards of a run are all of a bucket, each key once: pure.

use std::collections::BTreeMap;

use larder_format::ids::SessionId;
use larder_format::run::{Run, Shard};

/// What the shards that are there make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tiling {
    /// The whole bucket: one cell for each shard, in the order of the keys.
    Whole(Vec<SessionId>),
    /// Part of it: the numbers of the shards that are missing, and how many there are.
    Missing(Vec<u64>, u64),
    /// Nothing that fits together, and why.
    Refused(String),
}

/// Looks whether shards have every key once; `run` says how they were divided, where that is known.
///
/// Of cells of one shard with the same range either is right, and the first one is taken.
pub(super) fn tile(run: Option<&Run>, cells: &[(SessionId, &Shard)]) -> Tiling {
    let mut shards: BTreeMap<u64, (SessionId, &Shard)> = BTreeMap::new();
    for (id, shard) in cells {
        let is_divided_so = |run: &Run| run.shard(shard.number).as_ref() == Some(*shard);
        if run.is_some_and(|run| !is_divided_so(run)) {
            return Tiling::Refused(format!(
                "shard {} of {} has the keys of another run, which divided the bucket otherwise",
                shard.number, shard.count
            ));
        }
        match shards.get(&shard.number) {
            Some((_, other)) if other.range != shard.range => {
                return Tiling::Refused(format!(
                    "shard {} was finished twice, with other keys each time",
                    shard.number
                ));
            }
            Some((other, _)) if other <= id => {}
            _ => drop(shards.insert(shard.number, (*id, shard))),
        }
    }
    let counts = cells.iter().map(|(_, shard)| shard.count);
    let Some(count) = counts.clone().max().or(run.map(Run::count)) else {
        return Tiling::Missing(Vec::new(), 0);
    };
    if counts.clone().any(|other| other != count) {
        return Tiling::Refused(
            "its shards are of different divisions: some say that there are more of them than others".to_owned(),
        );
    }
    if let Some(why) = seams(&shards) {
        return Tiling::Refused(why);
    }
    let missing: Vec<u64> = (1..=count)
        .filter(|number| !shards.contains_key(number))
        .collect();
    match missing.is_empty() {
        true => Tiling::Whole(shards.into_values().map(|(id, _)| id).collect()),
        false => Tiling::Missing(missing, count),
    }
}

/// Says what is wrong between shards of which one follows the other.
fn seams(shards: &BTreeMap<u64, (SessionId, &Shard)>) -> Option<String> {
    let ends = shards.iter().zip(shards.iter().skip(1));
    for ((number, (_, one)), (next, (_, two))) in ends {
        let (last, behind) = (&one.range.last, &two.range.behind);
        let why = match last.cmp(behind) {
            // Shards are missing in between, which may have more than one range.
            _ if *number + 1 < *next => match last < behind {
                true => continue,
                false => "overlap",
            },
            std::cmp::Ordering::Equal => continue,
            std::cmp::Ordering::Less => "leave keys out between them",
            std::cmp::Ordering::Greater => "overlap",
        };
        return Some(format!("shards {number} and {next} {why}"));
    }
    None
}

/// Names numbers for people: `2`, `2 and 4`, `1, 2 and 4`.
pub(super) fn listed(numbers: &[u64]) -> String {
    let text: Vec<String> = numbers.iter().map(u64::to_string).collect();
    match text.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests"
    )]

    use larder_format::ids::RunId;
    use proptest::prelude::*;

    use super::*;

    fn run(divisions: &[&str]) -> Run {
        Run {
            id: RunId([1; 16]),
            name: "nightly".to_owned(),
            divisions: divisions
                .iter()
                .map(|key| key.as_bytes().to_vec())
                .collect(),
            ..Run::default()
        }
    }

    fn id(byte: u8) -> SessionId {
        SessionId::new(0, [byte; 16])
    }

    fn tiled(run: Option<&Run>, shards: &[(u8, Shard)]) -> Tiling {
        let cells: Vec<_> = shards
            .iter()
            .map(|(name, shard)| (id(*name), shard))
            .collect();
        tile(run, &cells)
    }

    #[test]
    fn what_does_not_fit_together_is_refused_and_what_is_missing_is_named() {
        let good = run(&["a//b", "a/b", "m"]);
        let shard = |number| good.shard(number).unwrap();
        let all: Vec<(u8, Shard)> = [3, 1, 4, 2]
            .map(|number| (number as u8, shard(number)))
            .into();
        let whole = Tiling::Whole([1, 2, 3, 4].map(id).into());
        for known in [None, Some(&good)] {
            assert_eq!(tiled(known, &all), whole);
            assert_eq!(tiled(known, &all[..2]), Tiling::Missing(vec![2, 4], 4));
            // One that was finished twice counts once, whichever comes first.
            let mut twice = all.clone();
            twice.insert(0, (9, shard(2)));
            assert_eq!(tiled(known, &twice), whole);
            twice.insert(0, (0, shard(2)));
            assert_eq!(
                tiled(known, &twice),
                Tiling::Whole([1, 0, 3, 4].map(id).into())
            );
        }
        assert_eq!(tiled(None, &[]), Tiling::Missing(Vec::new(), 0));
        assert_eq!(
            tiled(Some(&good), &[]),
            Tiling::Missing(vec![1, 2, 3, 4], 4)
        );
        let refused = |known: Option<&Run>, change: &dyn Fn(&mut Shard), word: &str| {
            let mut shards = all.clone();
            change(&mut shards[3].1);
            let Tiling::Refused(why) = tiled(known, &shards) else {
                panic!("{shards:?} is taken");
            };
            assert!(why.contains(word), "{why}");
        };
        let last = |key: &str| Some(key.as_bytes().to_vec());
        refused(None, &|two| two.range.last = last("a/c"), "overlap");
        refused(None, &|two| two.range.last = last("a/a"), "leave keys out");
        refused(None, &|two| two.range.behind = last("a//a"), "overlap");
        refused(None, &|two| two.count = 5, "different divisions");
        refused(
            Some(&good),
            &|two| two.range.last = last("a/c"),
            "another run",
        );
        refused(None, &|two| two.number = 3, "twice");
        assert_eq!(listed(&[2]), "2");
        assert_eq!(listed(&[1, 2, 4]), "1, 2 and 4");
    }

    proptest! {
        /// Whatever is taken for whole has each key once, and what was divided and is all there is taken.
        #[test]
        fn what_is_whole_has_each_key_once(
            divisions in prop::collection::btree_set("[ab/]{1,3}", 0..6),
            dropped in prop::collection::vec(0_usize..7, 0..2),
            moved in prop::option::of((0_usize..7, "[ab/]{1,3}", any::<bool>())),
        ) {
            let divisions: Vec<&str> = divisions.iter().map(String::as_str).collect();
            let run = run(&divisions);
            let mut shards: Vec<(u8, Shard)> = (1..=run.count())
                .map(|number| (number as u8, run.shard(number).unwrap()))
                .collect();
            let before = shards.clone();
            if let Some((at, key, is_end)) = moved
                && let Some((_, shard)) = shards.get_mut(at)
            {
                let end = match is_end {
                    true => &mut shard.range.last,
                    false => &mut shard.range.behind,
                };
                if end.is_some() {
                    *end = Some(key.into_bytes());
                }
            }
            for at in dropped {
                if at < shards.len() {
                    shards.remove(at);
                }
            }
            let tiling = tiled(None, &shards);
            prop_assert_eq!(shards == before, matches!(tiling, Tiling::Whole(_)));
            if let Tiling::Whole(ids) = tiling {
                let has = |one: &SessionId, key: &[u8]| {
                    let (_, shard) = shards.iter().find(|(name, _)| id(*name) == *one).unwrap();
                    shard.range.has(key)
                };
                for key in ["", "a", "a/", "a//", "a//b", "a/b", "b", "zz"] {
                    let key = key.as_bytes();
                    prop_assert_eq!(ids.iter().filter(|id| has(id, key)).count(), 1);
                }
            }
        }
    }
}
