//! Simulated processes that take turns: a seed decides at every call of the storage who goes on,
//! and what goes wrong.
//!
//! Each process is a thread, and one of them runs at a time. What a call does happens at once;
//! between two calls, and between two parts of a listing, others may do anything. Where a script is
//! played (`scene.rs`), it decides instead of the seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use larder_engine::storage::error::Operation;

use super::chance::Chance;

/// Turns after which processes have lost their way.
const TURNS_MAX: u64 = 300_000;

/// Who stands outside of everything: nothing goes wrong for them, and nobody goes first.
pub const NOBODY: usize = usize::MAX;

/// What the storage holds.
pub type Objects = BTreeMap<String, Bytes>;

/// The storage, and whose turn it is.
pub struct Stage {
    state: Mutex<State>,
    /// One for each process.
    turns: Vec<Condvar>,
    /// Whoever plays a script.
    script: Condvar,
}

/// What a script says of a call that a process is about to make.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cue {
    /// Go on.
    Go,
    /// Wait until told to go on.
    Wait,
    /// Go on, and meet this fate.
    Meet(Fate),
}

/// A script's word on every call of the process that runs.
pub type Cues = Box<dyn FnMut(Operation, &str) -> Cue + Send>;

/// What the stage keeps under its lock.
pub struct State {
    /// What it decides by.
    pub chance: Chance,
    /// How the seed likes things to go.
    pub habits: Habits,
    /// What the storage holds.
    pub objects: Objects,
    processes: Vec<Process>,
    running: Option<usize>,
    turn: u64,
    late: Vec<Late>,
    calls: Vec<Call>,
    failure: Option<String>,
    /// Set while a script is played.
    cues: Option<Cues>,
}

#[derive(Clone, Default)]
struct Process {
    has_ended: bool,
    is_dead: bool,
    faults: u64,
    sleeps_until: u64,
    rank: u64,
}

/// One call of the storage, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which process.
    pub who: usize,
    /// What it asked for.
    pub operation: Operation,
    /// Of what.
    pub name: String,
    /// What became of it, in a word.
    pub fate: &'static str,
}

/// How a seed likes things to go; frequencies are in ten thousand calls.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// A process goes on after its call.
    pub goes_on: u64,
    /// Who ranks highest goes first, and at times somebody new ranks lowest.
    pub is_ranked: bool,
    /// Errors before the effect.
    pub errors: u64,
    /// Errors after it, or whose effect comes later.
    pub ambiguous: u64,
    /// Writes that come again later.
    pub again: u64,
    /// Deaths.
    pub deaths: u64,
    /// Listings that fail in the middle.
    pub cuts: u64,
    /// Long pauses before a call, and before one that decides something.
    pub pauses: u64,
    pub pauses_of_deciders: u64,
    /// Objects of a listing that come at once.
    pub page: u64,
}

impl Habits {
    /// Takes the habits of a seed: a third of them have no faults, but every kind of schedule.
    pub fn of(chance: &mut Chance) -> Self {
        let kind = chance.below(6);
        let is_faulty = kind >= 2;
        let rate = |chance: &mut Chance| match chance.below(3) {
            _ if !is_faulty => 0,
            0 => 0,
            1 => 15,
            _ => 80,
        };
        Self {
            goes_on: *chance.pick(&[0, 5000, 9000, 9800]),
            is_ranked: chance.hits(3000),
            errors: rate(chance),
            ambiguous: rate(chance),
            again: rate(chance) * 4,
            deaths: rate(chance) / 2,
            cuts: rate(chance) * 2,
            pauses: *chance.pick(&[0, 20, 100]),
            pauses_of_deciders: *chance.pick(&[0, 200, 1000, 3000]),
            page: *chance.pick(&[2, 16, 1000]),
        }
    }
}

/// A request that the storage carries out later than it was sent.
struct Late {
    turn: u64,
    name: String,
    what: Request,
}

/// What a process asks the storage to change.
#[derive(Clone)]
pub enum Request {
    /// Writes an object.
    Put(Bytes),
    /// Writes it unless it is there.
    Create(Bytes),
    /// Removes it.
    Delete,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It does what it should.
    Done,
    /// It does what it should, and once more later.
    Again,
    /// An error, and no effect.
    Failed,
    /// An error, though it took effect.
    Unanswered,
    /// An error, and it takes effect later.
    Late,
    /// The process is no more; nothing took effect.
    Dead,
    /// The process is no more; it took effect.
    DeadAfter,
    /// A listing fails somewhere.
    Cut,
}

impl Fate {
    /// Says it in a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "",
            Self::Again => "done, and again later",
            Self::Failed => "failed",
            Self::Unanswered => "done, but unanswered",
            Self::Late => "unanswered, done later",
            Self::Dead => "dead before",
            Self::DeadAfter => "dead after",
            Self::Cut => "cut",
        }
    }
}

impl Stage {
    /// Sets the stage for so many processes.
    pub fn new(
        mut chance: Chance,
        habits: Habits,
        objects: Objects,
        processes: usize,
    ) -> Arc<Self> {
        let mut ranks: Vec<u64> = (1000..1000 + processes as u64).collect();
        chance.shuffle(&mut ranks);
        let process = |rank| Process {
            rank,
            ..Process::default()
        };
        Arc::new(Self {
            state: Mutex::new(State {
                chance,
                habits,
                objects,
                processes: ranks.into_iter().map(process).collect(),
                running: None,
                turn: 0,
                late: Vec::new(),
                calls: Vec::new(),
                failure: None,
                cues: None,
            }),
            turns: (0..processes).map(|_| Condvar::new()).collect(),
            script: Condvar::new(),
        })
    }

    /// Gives the first turn to somebody; everybody waits for theirs.
    pub fn begin(&self) {
        let mut state = self.lock();
        self.pass_on(&mut state, None);
    }

    /// Lets one process go on until a cue makes it wait, or it ends; tells whether it waits.
    pub fn play(&self, who: usize, cues: Cues) -> bool {
        let mut state = self.lock();
        state.cues = Some(cues);
        state.running = Some(who);
        self.turns[who].notify_one();
        while state.running.is_some() {
            state = self
                .script
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !std::mem::take(&mut state.processes[who].has_ended)
    }

    /// Changes what the storage holds, as nobody who works on it does.
    pub fn meddle<T>(&self, change: impl FnOnce(&mut Objects) -> T) -> T {
        change(&mut self.lock().objects)
    }

    /// Waits for the first turn of a process.
    pub fn enter(&self, who: usize) {
        drop(self.wait(self.lock(), who));
    }

    /// Ends a process: the turn goes to others.
    pub fn leave(&self, who: usize) {
        let mut state = self.lock();
        state.processes[who].has_ended = true;
        if state.cues.is_some() {
            self.wait_for_script(&mut state);
        } else {
            self.pass_on(&mut state, None);
        }
    }

    fn wait_for_script(&self, state: &mut State) {
        state.running = None;
        self.script.notify_one();
    }

    /// Lets others go on for so many turns.
    pub fn sleep(&self, who: usize, turns: u64) {
        let mut state = self.lock();
        state.processes[who].sleeps_until = state.turn + turns;
        self.pass_on(&mut state, Some(who));
        drop(self.wait(state, who));
    }

    /// Makes a dead process a live one again, and tells whether it was dead.
    pub fn revive(&self, who: usize) -> bool {
        let mut state = self.lock();
        std::mem::take(&mut state.processes[who].is_dead)
    }

    /// Tells how many calls of a process went wrong.
    pub fn faults(&self, who: usize) -> u64 {
        self.lock().processes.get(who).map_or(0, |one| one.faults)
    }

    /// Ends all faults and pauses: what is on its way arrives.
    pub fn calm(&self) {
        let mut state = self.lock();
        state.habits = Habits {
            errors: 0,
            ambiguous: 0,
            again: 0,
            deaths: 0,
            cuts: 0,
            pauses: 0,
            pauses_of_deciders: 0,
            ..state.habits
        };
        state.land(true);
    }

    /// Notes what should not be, and ends everything.
    pub fn fail(&self, why: String) {
        self.lock().failure.get_or_insert(why);
    }

    /// Gives what should not be.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Gives a copy of what the storage holds.
    pub fn objects(&self) -> Objects {
        self.lock().objects.clone()
    }

    /// Gives all calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, who: usize) -> MutexGuard<'a, State> {
        while state.running != Some(who) {
            state = self.turns[who]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Decides whose turn it is, and wakes them.
    fn pass_on(&self, state: &mut State, from: Option<usize>) {
        state.running = state.choose(from);
        if state.running != from
            && let Some(next) = state.running
        {
            self.turns[next].notify_one();
        }
    }

    /// Lets others go first if chance will have it so, then tells what becomes of a call.
    pub fn call(
        &self,
        who: usize,
        operation: Operation,
        name: &str,
    ) -> (MutexGuard<'_, State>, Fate) {
        let mut state = self.lock();
        if who == NOBODY {
            return (state, Fate::Done);
        }
        if state.processes[who].is_dead || state.failure.is_some() {
            return (state, Fate::Dead);
        }
        if state.cues.is_some() {
            return self.call_on_cue(state, who, operation, name);
        }
        state.turn += 1;
        if state.turn > TURNS_MAX {
            state.failure = Some(format!("no end after {TURNS_MAX} calls"));
            return (state, Fate::Dead);
        }
        state.consider_pause(who, operation, name);
        self.pass_on(&mut state, Some(who));
        let mut state = self.wait(state, who);
        state.land(false);
        let fate = state.fate(operation);
        state.note(who, operation, name, fate);
        (state, fate)
    }

    fn call_on_cue<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        who: usize,
        operation: Operation,
        name: &str,
    ) -> (MutexGuard<'a, State>, Fate) {
        let fate = loop {
            match state.cues.as_mut().map(|cues| cues(operation, name)) {
                Some(Cue::Meet(fate)) => break fate,
                Some(Cue::Go) | None => break Fate::Done,
                Some(Cue::Wait) => {}
            }
            self.wait_for_script(&mut state);
            state = self.wait(state, who);
        };
        state.note(who, operation, name, fate);
        (state, fate)
    }
}

impl State {
    fn note(&mut self, who: usize, operation: Operation, name: &str, fate: Fate) {
        let process = &mut self.processes[who];
        process.is_dead = matches!(fate, Fate::Dead | Fate::DeadAfter);
        process.faults += u64::from(!matches!(fate, Fate::Done | Fate::Again));
        self.calls.push(Call {
            who,
            operation,
            name: name.to_owned(),
            fate: fate.word(),
        });
    }

    fn choose(&mut self, from: Option<usize>) -> Option<usize> {
        let awake = |state: &Self| -> Vec<usize> {
            let is_awake = |(who, process): (usize, &Process)| {
                (!process.has_ended && process.sleeps_until <= state.turn).then_some(who)
            };
            state
                .processes
                .iter()
                .enumerate()
                .filter_map(is_awake)
                .collect()
        };
        let mut candidates = awake(self);
        if candidates.is_empty() {
            // Everybody sleeps: time passes.
            let live = self.processes.iter().filter(|one| !one.has_ended);
            self.turn = live.map(|one| one.sleeps_until).min()?;
            candidates = awake(self);
        }
        if let Some(who) = from.filter(|who| candidates.contains(who))
            && self.chance.hits(self.habits.goes_on)
        {
            return Some(who);
        }
        if !self.habits.is_ranked {
            return Some(*self.chance.pick(&candidates));
        }
        if self.chance.hits(100) {
            let who = *self.chance.pick(&candidates);
            let lowest = self.processes.iter().map(|one| one.rank).min();
            self.processes[who].rank = lowest.unwrap_or_default().saturating_sub(1);
        }
        candidates
            .into_iter()
            .max_by_key(|who| self.processes[*who].rank)
    }

    /// Pauses a process before a call, above all before one that decides something for others.
    fn consider_pause(&mut self, who: usize, operation: Operation, name: &str) {
        let decides = match operation {
            Operation::Create | Operation::Delete => true,
            Operation::List => name.starts_with("gc") || name.starts_with("s"),
            _ => false,
        };
        let rate = if decides {
            self.habits.pauses_of_deciders
        } else {
            self.habits.pauses
        };
        if self.chance.hits(rate) {
            let bound = *self.chance.pick(&[20, 200, 1500]);
            self.processes[who].sleeps_until = self.turn + self.chance.below(bound);
        }
    }

    fn fate(&mut self, operation: Operation) -> Fate {
        let habits = self.habits;
        let writes = matches!(
            operation,
            Operation::Put | Operation::Create | Operation::Delete
        );
        if self.chance.hits(habits.errors) {
            return Fate::Failed;
        }
        if writes && self.chance.hits(habits.ambiguous) {
            return *self.chance.pick(&[Fate::Unanswered, Fate::Late]);
        }
        if writes && self.chance.hits(habits.again) {
            return Fate::Again;
        }
        if self.chance.hits(habits.deaths) {
            return *self.chance.pick(&[Fate::Dead, Fate::DeadAfter]);
        }
        if operation == Operation::List && self.chance.hits(habits.cuts) {
            return Fate::Cut;
        }
        Fate::Done
    }

    /// Carries out what was sent earlier and is due.
    fn land(&mut self, all: bool) {
        let turn = self.turn;
        let (due, later) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|late| all || late.turn <= turn);
        self.late = later;
        for late in due {
            self.carry_out(&late.name, late.what);
        }
    }

    /// Does what a request asks for; tells whether it could.
    pub fn carry_out(&mut self, name: &str, what: Request) -> bool {
        match what {
            Request::Put(bytes) => {
                self.objects.insert(name.to_owned(), bytes);
            }
            Request::Create(_) if self.objects.contains_key(name) => return false,
            Request::Create(bytes) => {
                self.objects.insert(name.to_owned(), bytes);
            }
            Request::Delete => {
                self.objects.remove(name);
            }
        }
        true
    }

    /// Lets a request arrive later.
    pub fn send_later(&mut self, name: &str, what: Request) {
        let bound = *self.chance.pick(&[10, 300, 3000]);
        let turn = self.turn + 1 + self.chance.below(bound);
        let name = name.to_owned();
        self.late.push(Late { turn, name, what });
    }

    /// Gives the names below a folder, in order.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let is_below = |name: &&String| {
            folder.is_empty()
                || name
                    .strip_prefix(folder)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        self.objects.keys().filter(is_below).cloned().collect()
    }
}
