//! The protocol of SPEC.md §12 as a model that is explored exhaustively.
//!
//! All that is decided, `larder_engine::protocol` decides: what is explored is what runs. The model
//! has the order of steps (`writer`, `collector`) and what happens around them
//! (`environment`): anybody stops anywhere, people forget snapshots, a collector's patience ends
//! at any moment, requests arrive late and again, records are cleared. A rule is left out with
//! `protocol::leave_out`, wherever it is kept. ARCHITECTURE.md says what is covered and what is not.

#![expect(
    clippy::indexing_slicing,
    reason = "a model that counts wrong fails its test by panicking"
)]

mod collector;
mod environment;
mod explore;
pub mod settings;
mod state;
pub mod token;
mod writer;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use stateright::{Model, Property};

pub use explore::{Outcome, explore, explore_in_depth};

use state::{Gone, NONE, Now, Reader, Seen, Set, State, Writer, has, items, set_of};

/// How the second listing of cells is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// In one moment.
    Whole,
    /// Cell by cell, session 0 first.
    Ascending,
    /// Cell by cell, session 0 last.
    Descending,
}

/// Which records that nobody needs any more are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clears {
    /// None.
    Nothing,
    /// Old rounds and states.
    Rounds,
    /// All, and segments that do not count.
    All,
}

/// What one exploration covers.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Sessions, with the first snapshot: at most 4.
    pub sessions: usize,
    /// Collectors: at most 2.
    pub collectors: usize,
    /// Rounds: at most 3.
    pub rounds: u8,
    /// The chunks that each session's source has, as bits.
    pub wants: [u8; 4],
    /// The chunks in each pack of the first snapshot.
    pub first_packs: &'static [u8],
    /// Packs, all in all: at most 8.
    pub packs: usize,
    /// Segments that collectors write: at most 4.
    pub segments: usize,
    /// Packs that everybody who collects knows to be suspect.
    pub suspects: u8,
    /// Chunks that cannot be read from suspect packs.
    pub damaged: u8,
    /// Packs of the first snapshot that somebody takes away: before anything happens, and for good unless
    /// what was sent arrives late.
    pub missing: u8,
    /// Whether missing packs are there at first, and go away and come back at any time instead.
    pub flickers: bool,
    /// Whether the first chunk is a node: what else a snapshot needs is known only to who reads it.
    pub has_nodes: bool,
    /// Which sessions may be forgotten.
    pub forgets: u8,
    /// Whether a session may have any committed cell as its parent.
    pub parents: bool,
    /// Whether sessions may commit checkpoints and go on from them.
    pub checkpoints: bool,
    /// Whether two chunks may travel in two packs.
    pub splits: bool,
    /// Whether a writer may upload what it could have found.
    pub uploads_known: bool,
    /// Whether requests may arrive at any time, and again after a deletion.
    pub is_late: bool,
    /// Whether collectors may write packs anew.
    pub repacks: bool,
    /// Whether collectors may leave orphans alone.
    pub spares_orphans: bool,
    /// Whether collectors may merge segments.
    pub merges: bool,
    /// What the newest state lets go is deleted.
    pub clears: Clears,
    /// Whether somebody lists and reads snapshots meanwhile.
    pub reads: bool,
    /// How cells are listed.
    pub listing: Listing,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            sessions: 2,
            collectors: 1,
            rounds: 1,
            wants: [1; 4],
            first_packs: &[1],
            packs: 3,
            segments: 2,
            suspects: 0,
            damaged: 0,
            missing: 0,
            flickers: false,
            has_nodes: false,
            forgets: u8::MAX,
            parents: false,
            checkpoints: false,
            splits: false,
            uploads_known: false,
            is_late: false,
            repacks: false,
            spares_orphans: false,
            merges: false,
            clears: Clears::Nothing,
            reads: false,
            listing: Listing::Whole,
        }
    }
}

/// One thing that happens.
#[derive(Clone, PartialEq)]
pub struct Step {
    who: char,
    index: u8,
    what: &'static str,
    with: Option<u8>,
    to: State,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            ' ' => {}
            who => write!(f, "{who}{} ", self.index)?,
        }
        f.write_str(self.what)?;
        self.with.map_or(Ok(()), |with| write!(f, " {with:x}"))
    }
}

/// Tells a listing of cells one more of them, or all at once; and whether that was the last.
pub(crate) fn tell(setting: &Setting, now: &Now, mut seen: Seen, told: u8) -> (Seen, bool) {
    let last = setting.sessions as u8 - 1;
    let next = match setting.listing {
        Listing::Whole => return (now.seen, true),
        Listing::Ascending => told,
        Listing::Descending => last - told,
    };
    let next = usize::from(next);
    seen.set(next, now.seen.cell(next), now.seen.is_forgotten(next));
    (seen, told == last)
}

pub(crate) struct Steps<'a> {
    setting: &'a Setting,
    from: State,
    out: &'a mut Vec<Step>,
}

impl Steps<'_> {
    fn from(&self) -> &State {
        &self.from
    }

    fn add(
        &mut self,
        who: (char, usize),
        what: &'static str,
        with: Option<u8>,
        change: impl FnOnce(&mut State),
    ) {
        let mut to = self.from;
        change(&mut to);
        // Two collectors are alike: which of them is where makes no difference.
        if self.setting.collectors == 2 && to.collectors[0] > to.collectors[1] {
            to.collectors.swap(0, 1);
        }
        if to != self.from {
            self.out.push(Step {
                who: who.0,
                index: who.1 as u8,
                what,
                with,
                to,
            });
        }
    }

    fn writer(&mut self, index: usize, what: &'static str, change: impl FnOnce(&mut State)) {
        self.add(('s', index), what, None, change);
    }

    fn writer_with(
        &mut self,
        index: usize,
        what: &'static str,
        with: u8,
        change: impl FnOnce(&mut State),
    ) {
        self.add(('s', index), what, (with != NONE).then_some(with), change);
    }

    fn collector(&mut self, index: usize, what: &'static str, change: impl FnOnce(&mut State)) {
        self.add(('g', index), what, None, change);
    }

    fn collector_with(
        &mut self,
        index: usize,
        what: &'static str,
        with: u8,
        change: impl FnOnce(&mut State),
    ) {
        self.add(('g', index), what, Some(with), change);
    }

    fn other(&mut self, what: &'static str, with: u8, change: impl FnOnce(&mut State)) {
        self.add((' ', 0), what, Some(with), change);
    }
}

impl Model for Setting {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![environment::start(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        let known = known(self, state);
        let Some(Known { now, .. }) = Option::as_ref(&known) else {
            return;
        };
        let mut steps = Steps {
            setting: self,
            from: *state,
            out: actions,
        };
        environment::steps(self, now, &mut steps);
        for index in 1..self.sessions {
            writer::steps(self, now, index, &mut steps);
        }
        for index in 0..self.collectors {
            collector::steps(self, now, index, &mut steps);
        }
    }

    fn next_state(&self, _: &State, step: Step) -> Option<State> {
        Some(step.to)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(CHUNK, |setting: &Self, state| {
                loss(setting, state) != Some(CHUNK)
            }),
            Property::always(COMMIT, |setting, state| {
                loss(setting, state) != Some(COMMIT)
            }),
            Property::always(DEAD, |setting, state| loss(setting, state) != Some(DEAD)),
            Property::always(READER, |_, state: &State| state.reader != Reader::SawGone),
            Property::always(WHOLE, |_, state: &State| state.reader != Reader::SawDamage),
            Property::always(LISTING, |setting: &Self, state| {
                known(setting, state).is_some()
            }),
            Property::sometimes(DELETED, is_deleted),
            Property::sometimes(RESCUED, |_, state: &State| {
                let rescues = |round: &state::Round| {
                    round.is_listed && round.has_state && round.condemned & !round.deleted != 0
                };
                state.rounds.iter().any(rescues)
            }),
            Property::sometimes(VOID, |_, state: &State| {
                state
                    .sessions
                    .iter()
                    .any(|session| session.writer == Writer::Void)
            }),
        ]
    }
}

/// A live snapshot needs a chunk that no usable pack has.
pub const CHUNK: &str = "a live snapshot has all its chunks";
/// A snapshot was reported and died without anybody's wish.
pub const COMMIT: &str = "a reported snapshot lives until it is forgotten";
/// A session that was dead lives again.
pub const DEAD: &str = "a dead session stays dead";
/// A reader saw a snapshot that was forgotten before it began.
pub const READER: &str = "a reader sees no snapshot that was gone before";
/// A reader missed a chunk although no collector went on since it read.
pub const WHOLE: &str = "a reader finds all that it lists";
/// A listing of the collector's records made no sense.
pub const LISTING: &str = "a listing of gc/ can be understood";
/// A pack was deleted.
pub const DELETED: &str = "a pack is deleted";
/// A condemned pack stayed.
pub const RESCUED: &str = "a pack is rescued";
/// A writer saw that its commit is void.
pub const VOID: &str = "a void commit is seen";

fn is_deleted(setting: &Setting, state: &State) -> bool {
    let deleted = state.packs_sent & !state.packs & !state.away;
    !setting.is_late && deleted != 0 || items(deleted).any(|pack| pack < setting.first_packs.len())
}

/// Tells which promise a state breaks.
fn loss(setting: &Setting, state: &State) -> Option<&'static str> {
    let known = known(setting, state);
    Option::as_ref(&known).and_then(|known| known.broken)
}

/// What everybody reads in a state, and the promise that it breaks.
struct Known {
    now: Now,
    broken: Option<&'static str>,
}

/// Each promise asks for the same state in turn, and then the steps do.
fn known(setting: &Setting, state: &State) -> Rc<Option<Known>> {
    type Last = RefCell<Option<(State, Rc<Option<Known>>)>>;
    thread_local! {
        static LAST: Last = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| match last {
        Some((of, known)) if of == state => Rc::clone(known),
        _ => {
            let known = Now::of(state).map(|now| {
                let broken = find_loss(setting, &now, state);
                Known { now, broken }
            });
            let known = Rc::new(known);
            *last = Some((*state, Rc::clone(&known)));
            known
        }
    })
}

fn find_loss(setting: &Setting, now: &Now, state: &State) -> Option<&'static str> {
    for (index, session) in state.sessions[..setting.sessions].iter().enumerate() {
        let is_live = has(now.live, index);
        if is_live && session.gone != Gone::No {
            return Some(DEAD);
        }
        let is_wanted = session.is_reported && session.gone != Gone::Wanted;
        if !is_live && is_wanted && !is_succeeded(setting, now, state, index) {
            return Some(COMMIT);
        }
    }
    let deleted = set_of(&now.collection.state.deleted);
    let counting = set_of(&now.collection.counting_segments(&now.cells));
    let comes_back = if setting.flickers { state.away } else { 0 };
    let usable = state.named_at_least(counting) & (state.packs | comes_back) & !deleted;
    let sound = state.held(usable & !setting.suspects);
    let damaged = state.held(usable & setting.suspects) & !setting.damaged;
    let needed = state.content(now.live & !1) | needed_of_first(setting, now, state);
    (needed & !(sound | damaged) != 0).then_some(CHUNK)
}

/// Gives what the first snapshot must have: all of it, but for what was taken away for good and no
/// reported session has put in anew.
fn needed_of_first(setting: &Setting, now: &Now, state: &State) -> Set {
    if setting.flickers {
        return state.content(now.live & 1);
    }
    let first = state.names[0];
    let lost = state.held(first & setting.missing) & !state.held(first & !setting.missing);
    let reported = (1..setting.sessions).filter(|index| state.sessions[*index].is_reported);
    let healed = reported.fold(0, |chunks, index| chunks | state.sessions[index].content);
    state.content(now.live & 1) & !(lost & !healed)
}

/// Tells whether somebody has what a checkpoint had: who goes on from it, or on from that one.
///
/// One in between may have died unreported, once a later one superseded it.
fn is_succeeded(setting: &Setting, now: &Now, state: &State, base: usize) -> bool {
    (0..setting.sessions).any(|other| {
        let session = &state.sessions[other];
        let counts = session.cell.is_committed() && !now.is_dead(state, other);
        session.goes_on
            && usize::from(session.base) == base
            && (counts || session.is_reported || is_succeeded(setting, now, state, other))
    })
}
