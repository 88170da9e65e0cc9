//! The rules of SPEC.md §12: which cells live, which segments count, which packs may be used,
//! condemned, rescued and deleted. Pure functions over what one reading found.
//!
//! The engine calls them with its ids, the model in `tests/` with small numbers: what is explored
//! there is what runs here. Every function is told what was read and reads nothing itself; the
//! *order* in which things are read is the callers' part of the protocol.

use std::collections::{BTreeMap, BTreeSet};

pub use larder_format::cell::CellKind;

/// What a reading of `snapshots/` says of one cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CellFacts<S, O> {
    /// The session's id.
    pub id: S,
    /// The collector round that the session's id names.
    pub number: u64,
    /// What became of the session.
    pub kind: CellKind,
    /// The partial cell that it goes on from.
    pub predecessor: Option<S>,
    /// Whether an amendment forgets it.
    pub is_forgotten: bool,
    /// The segments that it names.
    pub segments: Vec<O>,
}

/// What a reading of `sessions/` says of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionFacts<S> {
    /// The session's id.
    pub id: S,
    /// The collector round that the session's id names.
    pub number: u64,
    /// The cell that it may build on.
    pub base: Option<S>,
}

/// A round without a state, as `gc/<n>` has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoundFacts<O> {
    /// Its number.
    pub number: u64,
    /// Packs that are to go.
    pub condemned: BTreeSet<O>,
    /// Segments that the new ones replace.
    pub replaced: BTreeSet<O>,
    /// Segments that the round brought.
    pub new: BTreeSet<O>,
    /// Packs that may be damaged.
    pub suspects: BTreeSet<O>,
}

/// The newest state, as `gc/<n>.final` has it; empty before the first one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StateFacts<S, O> {
    /// Its number, which is the floor.
    pub number: u64,
    /// Live cells of sessions numbered below the floor.
    pub live: BTreeSet<S>,
    /// Segments that count, of such sessions and of collectors.
    pub segments: BTreeSet<O>,
    /// Packs that are deleted, or may be.
    pub deleted: BTreeSet<O>,
    /// Packs that may be damaged, and are not deleted.
    pub suspects: BTreeSet<O>,
}

/// What one reading of `gc/` says: the newest state, and the round above it if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collection<S, O> {
    /// The newest state.
    pub state: StateFacts<S, O>,
    /// The round that waits for its state.
    pub round: Option<RoundFacts<O>>,
}

impl<S, O> Default for StateFacts<S, O> {
    fn default() -> Self {
        Self {
            number: 0,
            live: BTreeSet::new(),
            segments: BTreeSet::new(),
            deleted: BTreeSet::new(),
            suspects: BTreeSet::new(),
        }
    }
}

impl<S, O> Default for Collection<S, O> {
    fn default() -> Self {
        Self {
            state: StateFacts::default(),
            round: None,
        }
    }
}

/// What a listing of `gc/` leaves to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// The newest state; 0 if there is none.
    pub state: u64,
    /// The round above it.
    pub round: Option<u64>,
}

/// Tells which of the listed rounds and states count: the newest state and the round above it.
///
/// `None`: a round stands above that of the next number, so the listing was not of one moment or
/// a state was taken away; read again, and if it stays so, that is damage.
#[must_use]
pub fn newest(rounds: &[u64], states: &[u64]) -> Option<Newest> {
    let state = states.iter().copied().max().unwrap_or(0);
    let above: BTreeSet<u64> = rounds.iter().copied().filter(|n| *n > state).collect();
    let round = match (above.len(), above.first()) {
        (0, _) => None,
        (1, Some(n)) if *n == state + 1 => Some(*n),
        _ => return None,
    };
    Some(Newest { state, round })
}

impl<S: Copy + Ord, O: Copy + Ord> Collection<S, O> {
    /// Gives the floor: sessions numbered below it are dead unless the newest state lists them.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.state.number
    }

    /// Gives the newest number of any round or state.
    #[must_use]
    pub fn newest(&self) -> u64 {
        let round = self.round.as_ref().map_or(0, |round| round.number);
        round.max(self.state.number)
    }

    /// Tells whether nothing that a session wrote counts any more.
    #[must_use]
    pub fn is_dead(&self, id: &S, number: u64) -> bool {
        number < self.floor() && !self.state.live.contains(id)
    }

    /// Tells whether a writer that has just read must register anew.
    #[must_use]
    pub fn is_stale(&self, number: u64) -> bool {
        keeps(Rule::RegisterAnew) && self.newest() > number
    }

    /// Tells whether the commit of a session's cell is void.
    ///
    /// A round above the own number without a state is no harm: its state comes from a reading
    /// that finds the cell.
    #[must_use]
    pub fn is_void(&self, id: &S, number: u64) -> bool {
        keeps(Rule::LookAfterCommit) && self.is_dead(id, number)
    }

    /// Gives the packs that must not be deduplicated against.
    #[must_use]
    pub fn unusable_packs(&self) -> BTreeSet<O> {
        let mut packs = BTreeSet::new();
        if keeps(Rule::AvoidDeleted) {
            packs.extend(&self.state.deleted);
        }
        if let Some(round) = self.round.as_ref().filter(|_| keeps(Rule::AvoidCondemned)) {
            packs.extend(&round.condemned);
        }
        if keeps(Rule::AvoidSuspects) {
            packs.extend(self.suspects());
        }
        packs
    }

    /// Gives the packs that may be damaged, with repetitions.
    ///
    /// A new round names those of the state again, unless they were verified since: its own state
    /// takes them from there.
    pub fn suspects(&self) -> impl Iterator<Item = &O> {
        let round = self.round.iter().flat_map(|round| &round.suspects);
        self.state.suspects.iter().chain(round)
    }

    /// Tells whether the newest state let a chunk go, which `packs` have, be they there or not.
    ///
    /// If a base that does not live has such a chunk, the state came from a reading without that base,
    /// or without the sessions that have it. These registered when it lived no more, so they saw that
    /// and trust it in nothing.
    #[must_use]
    pub fn let_go(&self, packs: &[O]) -> bool {
        let deleted = &self.state.deleted;
        !packs.is_empty() && packs.iter().all(|pack| deleted.contains(pack))
    }

    fn is_suspect(&self, pack: &O) -> bool {
        let round = self.round.as_ref();
        self.state.suspects.contains(pack)
            || round.is_some_and(|round| round.suspects.contains(pack))
    }

    fn is_condemned(&self, pack: &O) -> bool {
        let round = self.round.as_ref();
        round.is_some_and(|round| round.condemned.contains(pack))
    }

    /// Tells whether what hangs on a base may be reused without a look-up of each chunk.
    #[must_use]
    pub fn may_trust_base(&self, is_base_live: bool) -> bool {
        let has_suspects = keeps(Rule::AvoidSuspects) && self.suspects().next().is_some();
        (is_base_live || !keeps(Rule::SeeBaseLive)) && !has_suspects
    }

    /// Tells whether a look-up would find usable whatever any cell needs that is seen live.
    ///
    /// A committed cell that lives has all that it needs in segments that count and packs that are not
    /// deleted. Of these a writer may use all but condemned and suspect ones, and there is none.
    #[must_use]
    pub fn finds_all_of_live(&self) -> bool {
        self.round.is_none() && self.suspects().next().is_none()
    }

    /// Gives the segments that count.
    #[must_use]
    pub fn counting_segments(&self, cells: &[CellFacts<S, O>]) -> BTreeSet<O> {
        let mut segments = self.state.segments.clone();
        if let Some(round) = &self.round {
            segments.extend(&round.new);
        }
        for cell in cells.iter().filter(|cell| cell.number >= self.floor()) {
            if is_committed(cell.kind) {
                segments.extend(&cell.segments);
            }
        }
        segments
    }
}

/// Tells whether a session with such a cell committed.
#[must_use]
pub fn is_committed(kind: CellKind) -> bool {
    matches!(
        kind,
        CellKind::Complete | CellKind::Partial | CellKind::Shard
    )
}

/// Gives the cells that a committed one goes on from.
///
/// A dead cell supersedes nothing: its commit may have been void. Where it was not, its predecessor,
/// which is not numbered above it, is dead with it.
#[must_use]
pub fn superseded<S: Copy + Ord, O: Copy + Ord>(
    cells: &[CellFacts<S, O>],
    collection: &Collection<S, O>,
) -> BTreeSet<S> {
    let supersedes = |cell: &&CellFacts<S, O>| {
        is_committed(cell.kind)
            || (cell.kind == CellKind::Revoked && !keeps(Rule::CommitSupersedes))
    };
    cells
        .iter()
        .filter(supersedes)
        .filter(|cell| !keeps(Rule::DeadSupersedeNot) || !collection.is_dead(&cell.id, cell.number))
        .filter_map(|cell| cell.predecessor)
        .collect()
}

/// Gives the live cells: committed, neither dead nor forgotten, and no checkpoint that a committed
/// cell goes on from.
#[must_use]
pub fn live_cells<S: Copy + Ord, O: Copy + Ord>(
    cells: &[CellFacts<S, O>],
    collection: &Collection<S, O>,
) -> BTreeSet<S> {
    let superseded = superseded(cells, collection);
    cells
        .iter()
        .filter(|cell| is_committed(cell.kind) && !cell.is_forgotten)
        .filter(|cell| !collection.is_dead(&cell.id, cell.number))
        .filter(|cell| cell.kind != CellKind::Partial || !superseded.contains(&cell.id))
        .map(|cell| cell.id)
        .collect()
}

/// Gives the sessions that may still commit: without a cell, and not dead.
///
/// For the answer to be safe the cells were listed before the sessions.
#[must_use]
pub fn open_sessions<S: Copy + Ord, O: Copy + Ord>(
    sessions: &[SessionFacts<S>],
    cells: &[CellFacts<S, O>],
    collection: &Collection<S, O>,
) -> Vec<SessionFacts<S>> {
    let ended: BTreeSet<S> = cells.iter().map(|cell| cell.id).collect();
    let is_open = |session: &&SessionFacts<S>| {
        !ended.contains(&session.id) && !collection.is_dead(&session.id, session.number)
    };
    sessions.iter().filter(is_open).copied().collect()
}

/// Gives the cells whose chunks a collector must keep: the live ones, and the bases of open sessions
/// even if they were forgotten or superseded meanwhile.
#[must_use]
pub fn roots<S: Copy + Ord, O: Copy + Ord>(
    cells: &[CellFacts<S, O>],
    sessions: &[SessionFacts<S>],
    collection: &Collection<S, O>,
) -> BTreeSet<S> {
    let mut roots = live_cells(cells, collection);
    if !keeps(Rule::KeepBases) {
        return roots;
    }
    let open = open_sessions(sessions, cells, collection);
    let bases: BTreeSet<S> = open.iter().filter_map(|session| session.base).collect();
    let kept = cells.iter().filter(|cell| {
        bases.contains(&cell.id)
            && is_committed(cell.kind)
            && !collection.is_dead(&cell.id, cell.number)
    });
    roots.extend(kept.map(|cell| cell.id));
    roots
}

/// What the needed chunks ask of a round: which of its condemned packs stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<O> {
    /// Condemned packs that hold the only place of a needed chunk.
    pub rescued: BTreeSet<O>,
    /// Whether a needed chunk has no place at all: nothing may be deleted then.
    pub is_unresolved: bool,
}

/// What a collector found out about a pack that a counting segment names and that is not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// It is there, and nothing speaks against it.
    None,
    /// It is there, and may be damaged.
    Suspect,
    /// It is not there.
    Missing,
}

/// Decides which condemned packs must stay, chunk by chunk: each item is the packs that have one
/// needed chunk, by what counting segments say, with what was found out about each.
///
/// The places of a chunk are those of its packs outside the deleted ones about which there is the
/// least doubt: a suspect pack counts only for a chunk that no sound one has, and one that is not
/// there only for a chunk that is lost. A chunk with a place outside the condemned packs needs
/// nothing. Otherwise the first condemned pack that has it is rescued; one that is rescued already
/// serves others too.
#[must_use]
pub fn keep_places<S: Copy + Ord, O: Copy + Ord>(
    needed: impl IntoIterator<Item = impl AsRef<[(O, Doubt)]>>,
    collection: &Collection<S, O>,
) -> Kept<O> {
    let mut kept = Kept {
        rescued: BTreeSet::new(),
        is_unresolved: false,
    };
    for packs in needed {
        kept.need(packs.as_ref(), collection);
    }
    kept
}

impl<O: Copy + Ord> Kept<O> {
    /// Takes one needed chunk into account: the packs that have it.
    pub fn need<S: Copy + Ord>(&mut self, packs: &[(O, Doubt)], collection: &Collection<S, O>) {
        let deleted = &collection.state.deleted;
        let doubt = |(pack, doubt): &(O, Doubt)| match doubt {
            Doubt::Missing => Doubt::Missing,
            _ if !keeps(Rule::SoundFirst) => Doubt::None,
            Doubt::None if collection.is_suspect(pack) => Doubt::Suspect,
            doubt => *doubt,
        };
        let places = packs.iter().filter(|(pack, _)| !deleted.contains(pack));
        let least = places.clone().map(doubt).min();
        let best = places.filter(|place| Some(doubt(place)) == least);
        self.keep_one(best.map(|(pack, _)| pack), collection);
    }

    fn keep_one<'a, S: Copy + Ord>(
        &mut self,
        mut places: impl Iterator<Item = &'a O> + Clone,
        collection: &Collection<S, O>,
    ) where
        O: 'a,
    {
        let stays = |pack: &O| !collection.is_condemned(pack) || self.rescued.contains(pack);
        if places.clone().any(stays) {
            return;
        }
        match places.next() {
            Some(pack) if keeps(Rule::Rescue) => {
                self.rescued.insert(*pack);
            }
            Some(_) => {}
            None => self.is_unresolved = true,
        }
    }
}

/// Tells whether what is needed must be known before a round is ended: not if it condemns nothing.
#[must_use]
pub fn must_mark_again<O>(round: &RoundFacts<O>) -> bool {
    !round.condemned.is_empty()
}

/// Builds the state that ends a round, from one reading: cells first, then sessions, then packs.
///
/// `named` tells for a segment which packs it names; deleted packs stay listed while a counting
/// segment names them. `None` if there is no round to end, or a needed chunk has no place.
#[must_use]
pub fn resolve<S: Copy + Ord, O: Copy + Ord>(
    cells: &[CellFacts<S, O>],
    collection: &Collection<S, O>,
    kept: &Kept<O>,
    is_named: impl Fn(&BTreeSet<O>, &O) -> bool,
) -> Option<StateFacts<S, O>> {
    let round = collection.round.as_ref()?;
    if kept.is_unresolved && keeps(Rule::StopAtUnresolved) {
        return None;
    }
    let below = |number: u64| number < round.number;
    let live = live_cells(cells, collection);
    let live = cells
        .iter()
        .filter(|cell| below(cell.number) && live.contains(&cell.id))
        .map(|cell| cell.id)
        .collect();
    let mut segments = collection.state.segments.clone();
    for cell in cells {
        if is_committed(cell.kind) && cell.number >= collection.floor() && below(cell.number) {
            segments.extend(&cell.segments);
        }
    }
    segments.retain(|segment| !round.replaced.contains(segment));
    segments.extend(&round.new);
    let mut deleted: BTreeSet<O> = round.condemned.difference(&kept.rescued).copied().collect();
    if keeps(Rule::CarryDeleted) {
        let carried = collection.state.deleted.iter();
        deleted.extend(carried.filter(|pack| is_named(&segments, pack)));
    }
    let suspects = round.suspects.iter().filter(|pack| !deleted.contains(pack));
    let suspects = suspects
        .filter(|_| keeps(Rule::CarrySuspects))
        .copied()
        .collect();
    Some(StateFacts {
        number: round.number,
        live,
        segments,
        deleted,
        suspects,
    })
}

/// What may be condemned by a new round, besides what its plan repacked: packs in no counting
/// segment (orphans), and packs of counting segments that hold nothing needed.
///
/// `exists` are the packs that the storage lists; `needed` those that hold a chunk for which the
/// plan keeps this place.
#[must_use]
pub fn condemned<S: Copy + Ord, O: Copy + Ord>(
    exists: &BTreeSet<O>,
    needed: &BTreeSet<O>,
    collection: &Collection<S, O>,
) -> BTreeSet<O> {
    let is_out =
        |pack: &O| collection.state.deleted.contains(pack) || collection.is_condemned(pack);
    exists
        .iter()
        .filter(|pack| !needed.contains(pack) && !is_out(pack))
        .copied()
        .collect()
}

/// What the newest state lets go, besides the packs that it lists as deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clearable<S> {
    /// Cells, with their amendments: dead ones.
    pub cells: BTreeSet<S>,
    /// Sessions and their ends: all below the floor.
    pub sessions: BTreeSet<S>,
    /// Rounds and states below the newest state.
    pub collector_records: BTreeSet<u64>,
}

/// Decides which records nobody needs any more; needs no memory of earlier runs.
#[must_use]
pub fn clearable<S: Copy + Ord, O: Copy + Ord>(
    cells: &BTreeMap<S, u64>,
    sessions: &BTreeMap<S, u64>,
    collector_records: &[u64],
    collection: &Collection<S, O>,
) -> Clearable<S> {
    let floor = collection.floor();
    let dead = |(id, number): (&S, &u64)| collection.is_dead(id, *number).then_some(*id);
    let below = |(id, number): (&S, &u64)| (*number < floor).then_some(*id);
    let records = collector_records.iter().copied();
    Clearable {
        cells: cells.iter().filter_map(dead).collect(),
        sessions: sessions.iter().filter_map(below).collect(),
        collector_records: records.filter(|number| *number < floor).collect(),
    }
}

/// Tells whether a segment that does not count may be deleted, by who brought it.
///
/// `owner_number` is the number of the session or round that its header names.
#[must_use]
pub fn may_delete_segment<S: Copy + Ord, O: Copy + Ord>(
    is_counting: bool,
    is_of_round: bool,
    owner_number: u64,
    collection: &Collection<S, O>,
) -> bool {
    if is_counting {
        return false;
    }
    match (is_of_round, &collection.round) {
        (false, _) => owner_number < collection.floor(),
        // A collector may be about to name it, in a round that is not there yet.
        (true, Some(round)) => owner_number < round.number,
        (true, None) => owner_number <= collection.floor(),
    }
}

/// A rule that a test may leave out, to see that a loss is found.
///
/// Outside tests every rule holds: without the feature `testing` nothing can leave one out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// A writer that sees a round above its own number registers anew.
    RegisterAnew = 1,
    /// A writer looks at the newest state after its commit.
    LookAfterCommit,
    /// A writer reads the repository only after it registered.
    RegisterFirst,
    /// Nothing is deduplicated against condemned packs.
    AvoidCondemned,
    /// Nothing is deduplicated against deleted packs.
    AvoidDeleted,
    /// A base is trusted only if it is seen live after registering.
    SeeBaseLive,
    /// Only a commit supersedes a checkpoint.
    CommitSupersedes,
    /// What a base does not reach is looked up again under each new session.
    LookUpAgain,
    /// Packs and segments come before the cell.
    CellLast,
    /// A cell is created only if absent.
    CreateCell,
    /// A state is created only if absent.
    CreateState,
    /// A round is created only if absent, after the state of the round before it.
    CreateRound,
    /// A collector lists the open sessions after its round is there.
    ListAfterRound,
    /// A collector waits for them, or revokes them.
    Wait,
    /// A collector marks again before the state.
    MarkAgain,
    /// A collector lists cells before sessions.
    CellsFirst,
    /// Bases of open sessions are roots.
    KeepBases,
    /// A condemned pack with the only place of a needed chunk stays.
    Rescue,
    /// A needed chunk without a place, or a node that cannot be read, ends the collection.
    StopAtUnresolved,
    /// A deleted pack stays listed while a counting segment names it.
    CarryDeleted,
    /// A collector looks for a newer state before it deletes.
    LookBeforeDelete,
    /// Orphans are condemned first, like other packs.
    CondemnOrphans,
    /// Merged segments drop only packs that a state lists as deleted.
    DropOnlyDeleted,
    /// A segment counts because something names it, never because it is listed.
    SegmentsNamed,
    /// A dead cell supersedes nothing.
    DeadSupersedeNot,
    /// Nothing is deduplicated against suspect packs, nor reused from a base while there are any.
    AvoidSuspects,
    /// Suspect packs stay suspect after their round.
    CarrySuspects,
    /// A suspect pack is a place only where there is no other.
    SoundFirst,
    /// Nothing is deduplicated against packs that are not there, nor reused from a base while there
    /// are any.
    AvoidMissing,
    /// A reader lists cells before the collector records.
    ReadCellsFirst,
    /// A reader takes places from what was committed while it listed cells.
    ReadLater,
}

#[cfg(feature = "testing")]
impl Rule {
    /// All rules, in order.
    pub const ALL: [Self; Self::ReadLater as usize] = [
        Self::RegisterAnew,
        Self::LookAfterCommit,
        Self::RegisterFirst,
        Self::AvoidCondemned,
        Self::AvoidDeleted,
        Self::SeeBaseLive,
        Self::CommitSupersedes,
        Self::LookUpAgain,
        Self::CellLast,
        Self::CreateCell,
        Self::CreateState,
        Self::CreateRound,
        Self::ListAfterRound,
        Self::Wait,
        Self::MarkAgain,
        Self::CellsFirst,
        Self::KeepBases,
        Self::Rescue,
        Self::StopAtUnresolved,
        Self::CarryDeleted,
        Self::LookBeforeDelete,
        Self::CondemnOrphans,
        Self::DropOnlyDeleted,
        Self::SegmentsNamed,
        Self::DeadSupersedeNot,
        Self::AvoidSuspects,
        Self::CarrySuspects,
        Self::SoundFirst,
        Self::AvoidMissing,
        Self::ReadCellsFirst,
        Self::ReadLater,
    ];
}

#[cfg(feature = "testing")]
static LEFT_OUT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Leaves a rule out in this whole process, for tests that must then find a loss.
#[cfg(feature = "testing")]
pub fn leave_out(rule: Option<Rule>) {
    let number = rule.map_or(0, |rule| rule as u8);
    LEFT_OUT.store(number, std::sync::atomic::Ordering::SeqCst);
}

/// Tells whether a rule holds.
#[cfg(feature = "testing")]
#[must_use]
pub fn keeps(rule: Rule) -> bool {
    LEFT_OUT.load(std::sync::atomic::Ordering::Relaxed) != rule as u8
}

/// Tells whether all rules hold.
#[cfg(feature = "testing")]
#[must_use]
pub fn keeps_all() -> bool {
    LEFT_OUT.load(std::sync::atomic::Ordering::Relaxed) == 0
}

/// Tells whether all rules hold: always.
#[cfg(not(feature = "testing"))]
#[must_use]
pub const fn keeps_all() -> bool {
    true
}

/// Tells whether a rule holds: always.
#[cfg(not(feature = "testing"))]
#[must_use]
pub const fn keeps(_: Rule) -> bool {
    true
}
