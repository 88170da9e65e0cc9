//! In which order snapshots were made, whatever the clocks said.
//!
//! Times come from the clocks of those who back up, and a clock may be wrong. But whoever builds on a
//! snapshot comes after it. So a snapshot counts as no older than its parent, and one of a clock that was
//! years ahead is the newest only until the next backup. A time that was asked for is left as it is.

use std::collections::{BTreeMap, BTreeSet};

use larder_format::cell::Cell;
use larder_format::ids::SessionId;

use crate::backup::read_from;

/// Where a snapshot stands among others: the oldest is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Its own time, or that of an ancestor that is later; in nanoseconds since 1970.
    time: i64,
    /// How many generations that ancestor is away.
    generation: u64,
    started: i64,
    ended: i64,
    id: SessionId,
}

impl Rank {
    fn own(cell: &Cell) -> Self {
        Self {
            time: cell.started,
            generation: 0,
            started: cell.started,
            ended: cell.ended,
            id: cell.id,
        }
    }

    /// Gives where a snapshot stands that was built on one that stands here.
    fn of_child(self, child: &Cell) -> Self {
        let own = Self::own(child);
        let has_clock_time = (read_from(child)..=child.ended).contains(&child.started);
        if has_clock_time && own.time <= self.time {
            return Self {
                time: self.time,
                generation: self.generation.saturating_add(1),
                ..own
            };
        }
        own
    }
}

/// Gives where each cell stands among all of them.
pub(crate) fn ranks(cells: &BTreeMap<SessionId, Cell>) -> BTreeMap<SessionId, Rank> {
    let mut ranks: BTreeMap<SessionId, Rank> = BTreeMap::new();
    for cell in cells.values() {
        // Up to one that is known, or has no parent; who holds the keys may have made a ring.
        let (mut line, mut seen) = (Vec::new(), BTreeSet::new());
        let mut next = Some(cell);
        while let Some(one) = next.filter(|one| !ranks.contains_key(&one.id) && seen.insert(one.id))
        {
            line.push(one);
            next = one.parent.and_then(|parent| cells.get(&parent));
        }
        for one in line.into_iter().rev() {
            let parent = one.parent.and_then(|parent| ranks.get(&parent));
            let rank = parent.map_or_else(|| Rank::own(one), |parent| parent.of_child(one));
            ranks.insert(one.id, rank);
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::snapshots::fixture;

    const DAY: i64 = 86_400_000_000_000;

    fn session(number: u8) -> SessionId {
        SessionId::new(0, [number; 16])
    }

    fn cell(number: u8, day: i64, parent: Option<u8>) -> Cell {
        Cell {
            parent: parent.map(session),
            ..fixture::cell(number, day * 86_400)
        }
    }

    fn order(cells: &[Cell]) -> Vec<SessionId> {
        let cells = cells.iter().map(|cell| (cell.id, cell.clone())).collect();
        let ranks = ranks(&cells);
        let mut ids: Vec<SessionId> = ranks.keys().copied().collect();
        ids.sort_by_key(|id| ranks[id]);
        ids
    }

    #[test]
    fn right_clocks_decide_the_order() {
        let cells = [cell(1, 30, None), cell(2, 10, None), cell(3, 20, Some(2))];
        assert_eq!(order(&cells), [2, 3, 1].map(session));
    }

    #[test]
    fn what_was_built_on_a_snapshot_is_newer_however_wrong_a_clock_was() {
        // The second was made by a clock that was years ahead, or by one that was years behind.
        for wrong in [9999, -9999] {
            let cells = [
                cell(7, 10, None),
                cell(5, wrong, Some(7)),
                cell(3, 12, Some(5)),
                cell(1, 13, Some(3)),
            ];
            assert_eq!(order(&cells), [7, 5, 3, 1].map(session), "{wrong}");
        }
    }

    #[test]
    fn a_time_that_was_asked_for_stands() {
        let mut old = cell(2, 5, Some(1));
        old.ended = 11 * DAY;
        old.options
            .insert("read-from".to_owned(), (11 * DAY).to_string());
        assert_eq!(order(&[cell(1, 10, None), old]), [2, 1].map(session));
    }

    #[test]
    fn a_ring_of_parents_ends() {
        let cells = [
            cell(1, 3, Some(2)),
            cell(2, 2, Some(3)),
            cell(3, 1, Some(1)),
        ];
        assert_eq!(order(&cells).len(), 3);
    }
}
