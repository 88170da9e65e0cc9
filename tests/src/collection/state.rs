//! One state of the world: what the storage holds, and how far everybody has come.

use std::collections::BTreeSet;

use larder_engine::protocol::{
    CellFacts, CellKind, Collection, RoundFacts, Rule, SessionFacts, StateFacts, keeps, live_cells,
    newest,
};

/// Session 0 is a snapshot that is there from the start.
pub const SESSIONS: usize = 4;
pub const PACKS: usize = 8;
/// The first segments belong to the session of the same number, the others to collectors.
pub const SEGMENTS: usize = 8;
/// Round 0 stands for the time before any.
pub const ROUNDS: usize = 4;
pub const NONE: u8 = u8::MAX;

/// A set of small numbers: sessions, packs, segments or chunks.
pub type Set = u8;

pub fn has(set: Set, item: impl Into<usize>) -> bool {
    set >> item.into() & 1 == 1
}

pub fn items(set: Set) -> impl Iterator<Item = usize> + Clone {
    (0..8).filter(move |item| has(set, *item))
}

pub fn set_of<'a>(items: impl IntoIterator<Item = &'a u8>) -> Set {
    items.into_iter().fold(0, |set, item| set | 1 << item)
}

fn facts_of(set: Set) -> BTreeSet<u8> {
    (0..8).filter(|item| has(set, *item)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Cell {
    #[default]
    Absent,
    Complete,
    Partial,
    Revoked,
}

impl Cell {
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Complete | Self::Partial)
    }
}

/// What a listing of `snapshots/` saw: four bits a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seen(u16);

impl Seen {
    pub fn set(&mut self, session: usize, cell: Cell, is_forgotten: bool) {
        let bits = cell as u16 | u16::from(is_forgotten) << 2;
        self.0 = self.0 & !(0xf << (4 * session)) | bits << (4 * session);
    }

    pub fn cell(self, session: usize) -> Cell {
        match self.0 >> (4 * session) & 3 {
            0 => Cell::Absent,
            1 => Cell::Complete,
            2 => Cell::Partial,
            _ => Cell::Revoked,
        }
    }

    pub fn is_forgotten(self, session: usize) -> bool {
        self.0 >> (4 * session) & 4 != 0
    }
}

/// How far a writer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Writer {
    #[default]
    Idle,
    Numbered,
    /// Only where the order is wrong: it has read, and registers now.
    Unregistered,
    Registered,
    Listed,
    Packing,
    PackSent,
    SegmentSent,
    Committing,
    CellSent,
    Committed,
    Done,
    GivenUp,
    Void,
}

/// Why a session can never live (again).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Gone {
    #[default]
    No,
    /// Somebody forgot it, or a reported commit supersedes it.
    Wanted,
    /// It was revoked or given up, or a state does not list it.
    Dead,
}

/// A session: its objects, its writer, and what is known about it from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Session {
    pub number: u8,
    pub is_listed: bool,
    pub base: u8,
    pub goes_on: bool,
    pub cell: Cell,
    /// The cell that its writer sent, which may arrive at any time.
    pub sent: Cell,
    pub is_forgotten: bool,
    /// The chunks that its cell needs.
    pub content: Set,
    pub names_segment: bool,
    pub writer: Writer,
    pub seen: Seen,
    /// Chunks that are still to be uploaded.
    pub todo: Set,
    /// Its own packs.
    pub packs: Set,
    pub is_reported: bool,
    pub gone: Gone,
}

/// How far a collector has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum At {
    #[default]
    Idle,
    Listed,
    PackSent,
    SegmentNext,
    SegmentSent,
    Creating,
    Created,
    Waiting,
    ListingCells,
    ListingSessions,
    Deciding,
    Stating,
    Looking,
    Deleting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Collector {
    pub at: At,
    pub number: u8,
    pub seen: Seen,
    /// How many cells a listing has told so far.
    pub told: u8,
    /// Sessions that it waits for, or listed.
    pub sessions: Set,
    pub round: Round,
}

/// A round and its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Round {
    pub is_listed: bool,
    pub condemned: Set,
    pub replaced: Set,
    pub new: Set,
    pub suspects: Set,
    pub has_state: bool,
    pub live: Set,
    pub segments: Set,
    pub deleted: Set,
    pub still_suspect: Set,
}

/// A reader: which sessions were gone when it began, and what it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Reader {
    #[default]
    Idle,
    /// It lists cells, and has been told of so many.
    Listing(Seen, u8, Set),
    ListedCells(Seen, Set),
    /// Only where the order is wrong: it has read `gc/`, and lists cells now.
    ListedCollection(u8, Set, Set),
    /// It has read `gc/`.
    ReadCollection(Seen, Reading),
    /// It has read segments, which name these packs.
    ReadSegments(Set, Reading),
    SawGone,
    SawDamage,
}

/// What a reader knows once it has read `gc/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Reading {
    pub live: Set,
    /// Segments that count.
    pub counting: Set,
    pub floor: u8,
    pub newest: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub sessions: [Session; SESSIONS],
    pub collectors: [Collector; 2],
    pub rounds: [Round; ROUNDS],
    /// Packs that exist, and those that were ever sent.
    pub packs: Set,
    pub packs_sent: Set,
    /// Packs that somebody took away.
    pub away: Set,
    /// The chunks of each pack.
    pub holds: [Set; PACKS],
    pub segments: Set,
    pub segments_sent: Set,
    /// The packs that each segment names.
    pub names: [Set; SEGMENTS],
    /// The round of each collector's segment.
    pub owners: [u8; SEGMENTS],
    pub reader: Reader,
}

impl State {
    pub fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for (index, session) in self.sessions.iter().enumerate() {
            seen.set(index, session.cell, session.is_forgotten);
        }
        seen
    }

    /// Gives what a listing of cells says; all but its outcome is fixed for a session.
    pub fn cells(&self, seen: Seen) -> Vec<CellFacts<u8, u8>> {
        let mut cells = Vec::with_capacity(SESSIONS);
        for (id, session) in (0..).zip(&self.sessions) {
            let kind = match seen.cell(usize::from(id)) {
                Cell::Absent => continue,
                Cell::Complete => CellKind::Complete,
                Cell::Partial => CellKind::Partial,
                Cell::Revoked => CellKind::Revoked,
            };
            let segments = session.names_segment.then_some(id);
            cells.push(CellFacts {
                id,
                number: session.number.into(),
                kind,
                predecessor: session.goes_on.then_some(session.base),
                is_forgotten: seen.is_forgotten(id.into()),
                segments: segments.into_iter().collect(),
            });
        }
        cells
    }

    pub fn listed_sessions(&self) -> Set {
        let listed = (0..SESSIONS).filter(|index| self.sessions[*index].is_listed);
        listed.fold(0, |set, index| set | 1 << index)
    }

    pub fn session_facts(&self, listed: Set) -> Vec<SessionFacts<u8>> {
        let fact = |index: usize| {
            let session = &self.sessions[index];
            SessionFacts {
                id: index as u8,
                number: session.number.into(),
                base: (session.base != NONE).then_some(session.base),
            }
        };
        items(listed).map(fact).collect()
    }

    /// Reads `gc/`; `None` if the listing cannot be understood.
    pub fn collection(&self) -> Option<Collection<u8, u8>> {
        let numbers = |has: fn(&Round) -> bool| -> Vec<u64> {
            let rounds = (0..).zip(&self.rounds).filter(|(_, round)| has(round));
            rounds.map(|(number, _)| number).collect()
        };
        let found = newest(
            &numbers(|round| round.is_listed),
            &numbers(|round| round.has_state),
        )?;
        let state = self.state_facts(found.state as u8);
        let round = found.round.map(|number| {
            let round = &self.rounds[number as usize];
            RoundFacts {
                number,
                condemned: facts_of(round.condemned),
                replaced: facts_of(round.replaced),
                new: facts_of(round.new),
                suspects: facts_of(round.suspects),
            }
        });
        Some(Collection { state, round })
    }

    pub fn state_facts(&self, number: u8) -> StateFacts<u8, u8> {
        let round = &self.rounds[usize::from(number)];
        StateFacts {
            number: number.into(),
            live: facts_of(round.live),
            segments: facts_of(round.segments),
            deleted: facts_of(round.deleted),
            suspects: facts_of(round.still_suspect),
        }
    }

    /// Gives the packs that segments which count name; `None` if one of these is not there.
    pub fn named(&self, counting: Set) -> Option<Set> {
        (counting & !self.segments == 0).then(|| self.named_at_least(counting))
    }

    /// Gives the packs that those segments name which are there.
    pub fn named_at_least(&self, counting: Set) -> Set {
        let there = items(counting & self.segments);
        there.fold(0, |packs, segment| packs | self.names[segment])
    }

    /// Gives the segments that count in a reading.
    pub fn counting(&self, cells: &[CellFacts<u8, u8>], collection: &Collection<u8, u8>) -> Set {
        if !keeps(Rule::SegmentsNamed) {
            return self.segments;
        }
        set_of(&collection.counting_segments(cells))
    }

    pub fn content(&self, cells: Set) -> Set {
        items(cells).fold(0, |chunks, cell| chunks | self.sessions[cell].content)
    }

    /// Gives the cells that are committed now, at or above a floor, and were not seen.
    pub fn later(&self, seen: Seen, floor: u64) -> Vec<CellFacts<u8, u8>> {
        let mut later = self.cells(self.seen());
        later.retain(|cell| cell.number >= floor && seen.cell(cell.id.into()) == Cell::Absent);
        later
    }

    /// Gives what is known to be needed to who can read these chunks, of what is needed: nothing below a
    /// node that cannot be read.
    pub fn known(&self, needed: Set, readable: Set, has_nodes: bool) -> Set {
        if has_nodes && needed & !readable & 1 != 0 {
            needed & 1
        } else {
            needed
        }
    }

    /// Puts a pack back that was away or deleted.
    pub fn put_back(&mut self, pack: usize) {
        self.packs |= 1 << pack;
        self.away &= !(1 << pack);
    }

    pub fn held(&self, packs: Set) -> Set {
        items(packs).fold(0, |chunks, pack| chunks | self.holds[pack])
    }

    pub fn new_pack(&self, packs: usize) -> Option<usize> {
        items(!self.packs_sent).next().filter(|pack| *pack < packs)
    }

    pub fn new_segment(&self, segments: usize) -> Option<usize> {
        (SESSIONS..SESSIONS + segments).find(|segment| !has(self.segments_sent, *segment))
    }

    pub fn send_pack(&mut self, pack: usize, chunks: Set, may_be_late: bool) {
        self.holds[pack] = chunks;
        self.packs_sent |= 1 << pack;
        if !may_be_late {
            self.packs |= 1 << pack;
        }
    }

    pub fn send_segment(&mut self, segment: usize, packs: Set, may_be_late: bool) {
        self.names[segment] = packs;
        self.segments_sent |= 1 << segment;
        if !may_be_late {
            self.segments |= 1 << segment;
        }
    }
}

/// What everybody reads in this state.
pub struct Now {
    pub collection: Collection<u8, u8>,
    pub seen: Seen,
    pub cells: Vec<CellFacts<u8, u8>>,
    pub live: Set,
}

impl Now {
    pub fn of(state: &State) -> Option<Self> {
        let collection = state.collection()?;
        let seen = state.seen();
        let cells = state.cells(seen);
        let live = set_of(&live_cells(&cells, &collection));
        Some(Self {
            collection,
            seen,
            cells,
            live,
        })
    }

    pub fn is_dead(&self, state: &State, session: usize) -> bool {
        let number = state.sessions[session].number.into();
        self.collection.is_dead(&(session as u8), number)
    }
}
