//! A collector's steps: SPEC.md §12, "Prune".

use std::collections::BTreeSet;

use larder_engine::protocol::{
    CellFacts, Collection, Doubt, Rule, SessionFacts, condemned, keep_places, keeps, live_cells,
    must_mark_again, open_sessions, resolve, roots,
};

use super::state::{
    At, Cell, Collector, Gone, NONE, Now, ROUNDS, Round, Set, State, Writer, has, items, set_of,
};
use super::{Setting, Steps};

pub fn steps(setting: &Setting, now: &Now, index: usize, steps: &mut Steps) {
    let me = steps.from().collectors[index];
    if me.at != At::Idle {
        rest(index, "crashes", steps);
    }
    match me.at {
        At::Idle => begin(setting, now, index, steps),
        At::Listed => plan(setting, now, index, steps),
        At::PackSent => {
            if steps.from().packs_sent & !steps.from().packs & own_pack(&me) == 0 {
                go(index, "has its pack", At::SegmentNext, steps);
            }
        }
        At::SegmentNext => merge(setting, index, steps),
        At::SegmentSent => {
            if me.round.new & !steps.from().segments == 0 {
                go(index, "has its segment", At::Creating, steps);
            }
        }
        At::Creating => create(index, steps),
        At::Created => {
            let open = open(steps.from(), now);
            steps.collector_with(index, "lists open sessions", open, |t| {
                t.collectors[index].sessions = open;
                t.collectors[index].at = At::Waiting;
            });
        }
        At::Waiting => wait(now, index, steps),
        At::ListingCells => list_cells(setting, now, index, steps),
        At::ListingSessions => list_sessions(index, steps),
        At::Deciding => decide(setting, now, index, steps),
        At::Stating => state(setting, index, steps),
        At::Looking => look(now, index, steps),
        At::Deleting => delete(index, steps),
    }
}

fn rest(index: usize, what: &'static str, steps: &mut Steps) {
    steps.collector(index, what, |t| t.collectors[index] = Collector::default());
}

fn go(index: usize, what: &'static str, at: At, steps: &mut Steps) {
    steps.collector(index, what, |t| t.collectors[index].at = at);
}

/// Begins a round, ends one that somebody began, or deletes what the newest state lists.
fn begin(setting: &Setting, now: &Now, index: usize, steps: &mut Steps) {
    let start = |at: At, number: u64| Collector {
        at,
        number: number as u8,
        ..Collector::default()
    };
    let collection = &now.collection;
    if let Some(round) = &collection.round {
        let resumed = start(At::Created, round.number);
        steps.collector(index, "finds a round", |t| t.collectors[index] = resumed);
    } else if collection.newest() < setting.rounds.into() {
        steps.collector(index, "lists cells", |t| {
            t.collectors[index] = start(At::Listed, 0);
            t.collectors[index].seen = now.seen;
        });
    }
    if set_of(&collection.state.deleted) & steps.from().packs != 0 {
        let resumed = start(At::Looking, collection.floor());
        steps.collector(index, "finds packs to delete", |t| {
            t.collectors[index] = resumed
        });
    }
}

fn plan(setting: &Setting, now: &Now, index: usize, steps: &mut Steps) {
    let from = *steps.from();
    let collection = &now.collection;
    let number = collection.newest() + 1;
    if collection.round.is_some() || number > setting.rounds.into() {
        return rest(index, "finds somebody else's round", steps);
    }
    let cells = from.cells(from.collectors[index].seen);
    let live = set_of(&live_cells(&cells, collection));
    let Some(named) = from.named(from.counting(&cells, collection)) else {
        return rest(index, "misses a segment", steps);
    };
    let reading = Reading {
        setting,
        from: &from,
        collection,
        named,
        live,
    };
    for plan in reading.plans() {
        steps.collector_with(index, plan.what(), plan.round.condemned, |t| {
            if plan.repacked != 0 {
                t.send_pack(plan.pack, plan.repacked, setting.is_late);
            }
            let open = if keeps(Rule::ListAfterRound) {
                0
            } else {
                open(&from, now)
            };
            t.collectors[index] = Collector {
                at: plan.next(),
                number: number as u8,
                sessions: open,
                told: if plan.repacked == 0 {
                    NONE
                } else {
                    plan.pack as u8
                },
                round: plan.round,
                ..Collector::default()
            };
        });
    }
}

/// What a collector has read when it plans.
struct Reading<'a> {
    setting: &'a Setting,
    from: &'a State,
    collection: &'a Collection<u8, u8>,
    named: Set,
    live: Set,
}

struct Plan {
    round: Round,
    repacked: Set,
    pack: usize,
}

impl Plan {
    fn what(&self) -> &'static str {
        match (self.repacked != 0, self.round.replaced != 0) {
            (false, false) => "plans a round, condemns",
            (false, true) => "plans to merge segments, condemns",
            (true, false) => "repacks, condemns",
            (true, true) => "repacks and plans to merge segments, condemns",
        }
    }

    fn next(&self) -> At {
        if self.repacked != 0 {
            At::PackSent
        } else if self.round.new != 0 {
            At::SegmentNext
        } else {
            At::Creating
        }
    }
}

impl Reading<'_> {
    fn plans(&self) -> Vec<Plan> {
        let deleted = set_of(&self.collection.state.deleted);
        let places = self.named & self.from.packs & !deleted;
        let absent = self.named & self.from.away & !deleted;
        let suspects = self.setting.suspects | set_of(self.collection.suspects()) | absent;
        let sound = places & !suspects;
        let needed = self.from.content(self.live);
        let readable = self.from.held(self.named & self.from.packs);
        let known = self.from.known(needed, readable, self.setting.has_nodes);
        let lost = known & !self.from.held(places);
        let is_unresolved = known != needed || lost & !self.from.held(absent) != 0;
        if is_unresolved && keeps(Rule::StopAtUnresolved) {
            return Vec::new();
        }
        let needed = known & !lost;
        // A suspect pack is all that there is of some chunks.
        let forced = suspects & places & self.holding(needed & !self.from.held(sound))
            | absent & self.holding(lost);
        let needed = needed & self.from.held(sound);
        let mut plans = Vec::new();
        for keep in (0..=Set::MAX).filter(|keep| keep & !sound == 0) {
            let uncovered = needed & !self.from.held(keep);
            if self.is_minimal(keep, needed) && (uncovered == 0 || self.setting.repacks) {
                let doubtful = suspects & (places | absent);
                self.add(keep | forced, uncovered, doubtful, &mut plans);
            }
        }
        plans
    }

    fn holding(&self, chunks: Set) -> Set {
        let holds = |pack: &usize| self.from.holds[*pack] & chunks != 0;
        (0..8)
            .filter(holds)
            .fold(0, |packs, pack| packs | 1 << pack)
    }

    /// Tells whether each of the packs is the only one of them with some needed chunk.
    fn is_minimal(&self, keep: Set, needed: Set) -> bool {
        items(keep).all(|pack| {
            let others = self.from.held(keep & !(1 << pack));
            self.from.holds[pack] & needed & !others != 0
        })
    }

    fn add(&self, keep: Set, repacked: Set, suspects: Set, plans: &mut Vec<Plan>) {
        let numbers = |set: Set| -> BTreeSet<u8> { items(set).map(|item| item as u8).collect() };
        let exists = numbers(self.from.packs | self.named & self.from.away);
        let all = set_of(&condemned(&exists, &numbers(keep), self.collection));
        let orphans = all & !self.named;
        let mut choices = vec![if keeps(Rule::CondemnOrphans) {
            all
        } else {
            all & !orphans
        }];
        if orphans != 0 && self.setting.spares_orphans {
            choices.push(all & !orphans);
        }
        let members = set_of(&self.collection.state.segments) & self.from.segments;
        let mut merges = vec![0];
        merges.extend(Some(members).filter(|members| self.setting.merges && *members != 0));
        let new_pack = self.from.new_pack(self.setting.packs);
        let new_segment = self.from.new_segment(self.setting.segments);
        for condemned in choices {
            for replaced in merges.iter().copied() {
                let brings = replaced != 0 || repacked != 0;
                let new = match new_segment {
                    Some(segment) if brings => 1 << segment,
                    None if brings => continue,
                    _ => 0,
                };
                let pack = match new_pack {
                    None if repacked != 0 => continue,
                    pack => pack.unwrap_or(0),
                };
                let round = Round {
                    condemned,
                    replaced,
                    new,
                    suspects,
                    ..Round::default()
                };
                plans.push(Plan {
                    round,
                    repacked,
                    pack,
                });
            }
        }
    }
}

fn own_pack(me: &Collector) -> Set {
    if me.told == NONE { 0 } else { 1 << me.told }
}

/// Writes the round's segment: what it repacked, and what the replaced segments name.
fn merge(setting: &Setting, index: usize, steps: &mut Steps) {
    let from = *steps.from();
    let me = from.collectors[index];
    let floor = usize::from(me.number) - 1;
    let mut dropped = from.rounds[floor].deleted;
    if !keeps(Rule::DropOnlyDeleted) {
        dropped |= me.round.condemned;
    }
    let names = from.named_at_least(me.round.replaced) & !dropped | own_pack(&me);
    let Some(segment) = items(me.round.new).next() else {
        return;
    };
    if has(from.segments_sent, segment) {
        return rest(index, "has lost its segment's place to another", steps);
    }
    steps.collector_with(index, "sends its segment, of packs", names, |t| {
        t.send_segment(segment, names, setting.is_late);
        t.owners[segment] = me.number;
        t.collectors[index].told = 0;
        t.collectors[index].at = if setting.is_late {
            At::SegmentSent
        } else {
            At::Creating
        };
    });
}

fn create(index: usize, steps: &mut Steps) {
    let me = steps.from().collectors[index];
    let number = usize::from(me.number);
    if steps.from().rounds[number].is_listed && keeps(Rule::CreateRound) {
        return rest(index, "loses the round's number", steps);
    }
    let next = if keeps(Rule::ListAfterRound) {
        At::Created
    } else {
        At::Waiting
    };
    steps.collector_with(index, "creates gc/", me.number, |t| {
        // A state may be there already: then the round is an old one that comes back.
        t.rounds[number] = Round {
            is_listed: true,
            condemned: me.round.condemned,
            replaced: me.round.replaced,
            new: me.round.new,
            suspects: me.round.suspects,
            ..t.rounds[number]
        };
        t.collectors[index] = Collector {
            at: next,
            number: me.number,
            sessions: me.sessions,
            ..Collector::default()
        };
    });
}

fn open(from: &State, now: &Now) -> Set {
    let sessions = from.session_facts(from.listed_sessions());
    let open = open_sessions(&sessions, &now.cells, &now.collection);
    open.iter().fold(0, |set, session| set | 1 << session.id)
}

fn wait(now: &Now, index: usize, steps: &mut Steps) {
    let from = *steps.from();
    let me = from.collectors[index];
    let waits = |session: &usize| {
        from.sessions[*session].cell == Cell::Absent && !now.is_dead(&from, *session)
    };
    if !items(me.sessions).any(|session| waits(&session)) || !keeps(Rule::Wait) {
        let next = if keeps(Rule::CellsFirst) {
            At::ListingCells
        } else {
            At::ListingSessions
        };
        steps.collector(index, "has waited", |t| {
            t.collectors[index].sessions = 0;
            t.collectors[index].at = next;
        });
    }
    for session in items(me.sessions).filter(waits) {
        steps.collector_with(index, "revokes", session as u8, |t| {
            let revoked = &mut t.sessions[session];
            revoked.cell = Cell::Revoked;
            if revoked.gone == Gone::No {
                revoked.gone = Gone::Dead;
            }
        });
    }
}

fn list_cells(setting: &Setting, now: &Now, index: usize, steps: &mut Steps) {
    let told = steps.from().collectors[index].told;
    let before = steps.from().collectors[index].seen;
    let (seen, is_over) = super::tell(setting, now, before, told);
    let next = match (is_over, keeps(Rule::CellsFirst)) {
        (false, _) => At::ListingCells,
        (true, true) => At::ListingSessions,
        (true, false) => At::Deciding,
    };
    steps.collector(index, "lists cells again", |t| {
        t.collectors[index].seen = seen;
        t.collectors[index].told = if is_over { 0 } else { told + 1 };
        t.collectors[index].at = next;
    });
}

fn list_sessions(index: usize, steps: &mut Steps) {
    let listed = steps.from().listed_sessions();
    let next = if keeps(Rule::CellsFirst) {
        At::Deciding
    } else {
        At::ListingCells
    };
    steps.collector_with(index, "lists sessions again", listed, |t| {
        t.collectors[index].sessions = listed;
        t.collectors[index].at = next;
    });
}

/// Marks again and builds the state.
fn decide(setting: &Setting, now: &Now, index: usize, steps: &mut Steps) {
    let from = *steps.from();
    let me = from.collectors[index];
    let collection = &now.collection;
    if collection.floor() >= me.number.into() {
        return go(index, "finds its round ended", At::Looking, steps);
    }
    if collection
        .round
        .as_ref()
        .is_none_or(|round| round.number != u64::from(me.number))
    {
        return rest(index, "does not find its round", steps);
    }
    let cells = from.cells(me.seen);
    let sessions = from.session_facts(me.sessions);
    let Some(named) = from.named(from.counting(&cells, collection)) else {
        return rest(index, "misses a segment", steps);
    };
    // The engine lists these before the sessions: it knows of fewer places, and keeps more.
    let later = match keeps(Rule::ReadLater) {
        true => from.later(me.seen, collection.floor()),
        false => Vec::new(),
    };
    let named = named | from.named_at_least(from.counting(&later, collection));
    let mut marked = from.content(trusted_roots(&from, named, &cells, &sessions, collection));
    let round = collection.round.as_ref();
    if !keeps(Rule::MarkAgain) || !round.is_some_and(must_mark_again) {
        marked = 0;
    }
    let readable = from.held(named & from.packs);
    let known = from.known(marked, readable, setting.has_nodes);
    if known != marked && keeps(Rule::StopAtUnresolved) {
        return rest(index, "cannot read a node and stops", steps);
    }
    let needed: Vec<_> = items(known)
        .map(|chunk| places(&from, named, chunk))
        .collect();
    let reversed = needed
        .iter()
        .map(|packs| packs.iter().rev().copied().collect::<Vec<_>>());
    let first = keep_places(&needed, collection);
    let last = keep_places(reversed, collection);
    let is_one = first == last;
    for kept in [Some(first), (!is_one).then_some(last)]
        .into_iter()
        .flatten()
    {
        let names =
            |segments: &BTreeSet<u8>, pack: &u8| has(from.named_at_least(set_of(segments)), *pack);
        let Some(state) = resolve(&cells, collection, &kept, names) else {
            rest(index, "cannot resolve a chunk and stops", steps);
            continue;
        };
        let deleted = set_of(&state.deleted);
        steps.collector_with(index, "decides to delete", deleted, |t| {
            let round = Round {
                live: set_of(&state.live),
                segments: set_of(&state.segments),
                deleted,
                still_suspect: set_of(&state.suspects),
                ..Round::default()
            };
            t.collectors[index] = Collector {
                at: At::Stating,
                number: me.number,
                round,
                ..Collector::default()
            };
        });
    }
}

/// Gives the packs that should have a chunk, by what segments say, and whether they are there.
fn places(from: &State, named: Set, chunk: usize) -> Vec<(u8, Doubt)> {
    let holding =
        items(named & (from.packs | from.away)).filter(|pack| has(from.holds[*pack], chunk));
    let doubted = holding.map(|pack| match has(from.away, pack) {
        true => (pack as u8, Doubt::Missing),
        false => (pack as u8, Doubt::None),
    });
    doubted.collect()
}

/// Gives the roots, without the bases that lack what the newest state let go.
fn trusted_roots(
    from: &State,
    named: Set,
    cells: &[CellFacts<u8, u8>],
    sessions: &[SessionFacts<u8>],
    collection: &Collection<u8, u8>,
) -> Set {
    // Packs are known that are there no more, by the segments that name them.
    let is_let_go = |chunk: usize| {
        let holds = |pack: &usize| has(from.holds[*pack], chunk);
        let packs: Vec<u8> = items(named).filter(holds).map(|pack| pack as u8).collect();
        collection.let_go(&packs)
    };
    let live = set_of(&live_cells(cells, collection));
    let lacks = |base: &usize| items(from.content(1 << *base)).any(is_let_go);
    let roots = set_of(&roots(cells, sessions, collection));
    let lacking = items(roots & !live).filter(lacks);
    lacking.fold(roots, |roots, base| roots & !(1 << base))
}

fn state(setting: &Setting, index: usize, steps: &mut Steps) {
    let me = steps.from().collectors[index];
    let number = usize::from(me.number);
    let looking = Collector {
        at: At::Looking,
        number: me.number,
        ..Collector::default()
    };
    if steps.from().rounds[number].has_state && keeps(Rule::CreateState) {
        return steps.collector(index, "finds a state there already", |t| {
            t.collectors[index] = looking;
        });
    }
    steps.collector_with(index, "creates the state of gc/", me.number, |t| {
        t.rounds[number] = Round {
            has_state: true,
            live: me.round.live,
            segments: me.round.segments,
            deleted: me.round.deleted,
            still_suspect: me.round.still_suspect,
            ..t.rounds[number]
        };
        t.collectors[index] = looking;
        bury(t, setting);
    });
}

/// Marks the sessions that the newest state leaves dead.
fn bury(state: &mut State, setting: &Setting) {
    let Some(collection) = state.collection() else {
        return;
    };
    for (id, session) in (0..).zip(&mut state.sessions[..setting.sessions]) {
        let is_known = session.writer != Writer::Idle;
        if is_known && session.gone == Gone::No && collection.is_dead(&id, session.number.into()) {
            session.gone = Gone::Dead;
        }
    }
}

fn look(now: &Now, index: usize, steps: &mut Steps) {
    let me = steps.from().collectors[index];
    let number = if keeps(Rule::LookBeforeDelete) {
        now.collection.floor()
    } else {
        me.number.into()
    };
    if number > me.number.into() {
        return rest(index, "sees a newer state", steps);
    }
    let deleted = steps.from().rounds[number as usize % ROUNDS].deleted & steps.from().packs;
    if deleted == 0 {
        return rest(index, "has nothing to delete", steps);
    }
    steps.collector_with(index, "looks, and will delete", deleted, |t| {
        t.collectors[index].round.deleted = deleted;
        t.collectors[index].at = At::Deleting;
    });
}

fn delete(index: usize, steps: &mut Steps) {
    let left = steps.from().collectors[index].round.deleted;
    let Some(pack) = items(left).next() else {
        return rest(index, "is done", steps);
    };
    steps.collector_with(index, "deletes pack", pack as u8, |t| {
        t.packs &= !(1 << pack);
        t.collectors[index].round.deleted = left & !(1 << pack);
        if left.count_ones() == 1 {
            t.collectors[index] = Collector::default();
        }
    });
}
