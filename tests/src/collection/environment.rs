//! What happens around writers and collectors: people forget snapshots, requests arrive late,
//! records that nobody needs are cleared, somebody reads.

use std::collections::BTreeMap;

use larder_engine::protocol::{Clearable, Rule, clearable, keeps, live_cells, may_delete_segment};

use super::state::{
    Cell, Gone, Now, ROUNDS, Reader, Reading, Round, SESSIONS, Seen, Set, State, Writer, has,
    items, set_of,
};
use super::{Clears, Setting, Steps, writer};

pub fn steps(setting: &Setting, now: &Now, steps: &mut Steps) {
    forget(setting, now, steps);
    if setting.is_late {
        arrive_late(setting, steps);
    }
    if setting.clears != Clears::Nothing {
        clear_records(setting, now, steps);
    }
    if setting.clears == Clears::All {
        clear_segments(now, steps);
    }
    if !keeps(Rule::CondemnOrphans) {
        delete_orphans(now, steps);
    }
    if setting.reads {
        read(setting, now, steps);
    }
    if setting.flickers {
        flicker(setting, steps);
    }
}

/// Packs go away and come back, whoever looks.
fn flicker(setting: &Setting, steps: &mut Steps) {
    let from = *steps.from();
    for pack in items(setting.missing & from.packs) {
        steps.other("pack goes away", pack as u8, |t| {
            t.packs &= !(1 << pack);
            t.away |= 1 << pack;
        });
    }
    for pack in items(from.away) {
        steps.other("pack comes back", pack as u8, |t| t.put_back(pack));
    }
}

fn forget(setting: &Setting, now: &Now, steps: &mut Steps) {
    for index in items(now.live & setting.forgets) {
        let session = steps.from().sessions[index];
        steps.other("forgets", index as u8, |t| {
            t.sessions[index].is_forgotten = true;
            t.sessions[index].gone = Gone::Wanted;
            if session.goes_on {
                t.sessions[usize::from(session.base)].gone = Gone::Wanted;
            }
        });
    }
}

/// What was sent once may arrive at any time, again if it was deleted.
fn arrive_late(setting: &Setting, steps: &mut Steps) {
    let from = *steps.from();
    for pack in items(from.packs_sent & !from.packs) {
        steps.other("pack arrives", pack as u8, |t| t.put_back(pack));
    }
    for segment in items(from.segments_sent & !from.segments) {
        steps.other("segment arrives", segment as u8, |t| {
            t.segments |= 1 << segment
        });
    }
    for index in 0..setting.sessions {
        let session = from.sessions[index];
        let can_overwrite = session.cell == Cell::Revoked && !keeps(Rule::CreateCell);
        if session.sent != Cell::Absent && (session.cell == Cell::Absent || can_overwrite) {
            steps.other("cell arrives", index as u8, |t| writer::land_cell(t, index));
        }
        if session.writer >= Writer::Registered && !session.is_listed {
            steps.other("session arrives", index as u8, |t| {
                t.sessions[index].is_listed = true
            });
        }
    }
}

/// Deletes what the newest state lets go, one object at a time.
fn clear_records(setting: &Setting, now: &Now, steps: &mut Steps) {
    let from = *steps.from();
    let known = |keep: fn(&super::state::Session) -> bool| -> BTreeMap<u8, u64> {
        let sessions = (0..).zip(&from.sessions[..setting.sessions]);
        let sessions = sessions.filter(|(_, session)| keep(session));
        sessions
            .map(|(id, session)| (id, session.number.into()))
            .collect()
    };
    let cells = known(|session| session.cell != Cell::Absent || session.is_forgotten);
    let sessions = known(|session| session.is_listed);
    let listed = |number: &u64| {
        let round = &from.rounds[*number as usize];
        round.is_listed || round.has_state
    };
    let records: Vec<u64> = (0..ROUNDS as u64).filter(listed).collect();
    let Clearable {
        cells,
        sessions,
        collector_records,
    } = clearable(&cells, &sessions, &records, &now.collection);
    for number in collector_records {
        steps.other("clears the records of gc/", number as u8, |t| {
            t.rounds[number as usize] = Round::default();
        });
    }
    if setting.clears == Clears::Rounds {
        return;
    }
    for index in items(set_of(&cells)) {
        if from.sessions[index].cell != Cell::Absent {
            steps.other("clears the cell of", index as u8, |t| {
                t.sessions[index].cell = Cell::Absent;
            });
        }
        if from.sessions[index].is_forgotten {
            steps.other("clears the amendment of", index as u8, |t| {
                t.sessions[index].is_forgotten = false;
            });
        }
    }
    for index in items(set_of(&sessions)) {
        steps.other("clears session", index as u8, |t| {
            t.sessions[index].is_listed = false
        });
    }
}

fn clear_segments(now: &Now, steps: &mut Steps) {
    let from = *steps.from();
    let counting = from.counting(&now.cells, &now.collection);
    for segment in items(from.segments) {
        let is_of_round = segment >= SESSIONS;
        let number = if is_of_round {
            from.owners[segment]
        } else {
            from.sessions[segment].number
        };
        let is_counting = has(counting, segment);
        if may_delete_segment(is_counting, is_of_round, number.into(), &now.collection) {
            steps.other("deletes segment", segment as u8, |t| {
                t.segments &= !(1 << segment)
            });
        }
    }
}

fn delete_orphans(now: &Now, steps: &mut Steps) {
    let from = *steps.from();
    let named = from.named_at_least(from.counting(&now.cells, &now.collection));
    for pack in items(from.packs & !named) {
        steps.other("deletes an orphan", pack as u8, |t| t.packs &= !(1 << pack));
    }
}

fn read(setting: &Setting, now: &Now, steps: &mut Steps) {
    let from = *steps.from();
    let next = match from.reader {
        Reader::Idle => {
            let is_gone = |index: &usize| from.sessions[*index].gone == Gone::Wanted;
            let gone = (0..setting.sessions).filter(is_gone);
            let gone = gone.fold(0, |set, i| set | 1 << i);
            if keeps(Rule::ReadCellsFirst) {
                list(setting, now, Seen::default(), 0, gone)
            } else {
                let floor = now.collection.floor() as u8;
                Reader::ListedCollection(floor, set_of(&now.collection.state.live), gone)
            }
        }
        Reader::Listing(seen, told, gone) => list(setting, now, seen, told, gone),
        Reader::ListedCells(seen, gone) => {
            let cells = from.cells(seen);
            let live = set_of(&live_cells(&cells, &now.collection));
            let reading = Reading {
                live,
                counting: from.counting(&cells, &now.collection),
                floor: now.collection.floor() as u8,
                newest: now.collection.newest() as u8,
            };
            if live & gone == 0 {
                Reader::ReadCollection(seen, reading)
            } else {
                Reader::SawGone
            }
        }
        Reader::ListedCollection(floor, listed, gone) => {
            let mut collection = now.collection.clone();
            collection.state.number = floor.into();
            collection.state.live = items(listed).map(|item| item as u8).collect();
            if set_of(&live_cells(&now.cells, &collection)) & gone == 0 {
                Reader::Idle
            } else {
                Reader::SawGone
            }
        }
        Reader::ReadCollection(seen, reading) => read_segments(&from, seen, reading),
        Reader::ReadSegments(named, reading) => {
            let found = from.held(named & (from.packs | from.away));
            let newest = (now.collection.floor(), now.collection.newest());
            let has_moved = newest != (reading.floor.into(), reading.newest.into());
            if from.content(reading.live) & !found == 0 || has_moved {
                Reader::Idle
            } else {
                Reader::SawDamage
            }
        }
        Reader::SawGone | Reader::SawDamage => return,
    };
    steps.other("reader reads", 0, |t| t.reader = next);
}

fn list(setting: &Setting, now: &Now, seen: Seen, told: u8, gone: Set) -> Reader {
    match super::tell(setting, now, seen, told) {
        (seen, true) => Reader::ListedCells(seen, gone),
        (seen, false) => Reader::Listing(seen, told + 1, gone),
    }
}

/// Reads the segments that count, and those of cells that the listing missed; starts over if one of
/// the first is missing.
fn read_segments(from: &State, seen: Seen, reading: Reading) -> Reader {
    let Some(named) = from.named(reading.counting) else {
        return Reader::Idle;
    };
    let later = from.later(seen, reading.floor.into());
    let later = later.iter().filter(|_| keeps(Rule::ReadLater));
    let later = later.flat_map(|cell| &cell.segments);
    Reader::ReadSegments(named | from.named_at_least(set_of(later)), reading)
}

/// Builds the state before anybody does anything.
pub fn start(setting: &Setting) -> State {
    let mut sessions = [super::state::Session {
        base: super::state::NONE,
        ..Default::default()
    }; SESSIONS];
    for session in &mut sessions[setting.sessions..] {
        session.writer = Writer::GivenUp;
    }
    let mut state = State {
        sessions,
        collectors: Default::default(),
        rounds: Default::default(),
        packs: 0,
        packs_sent: 0,
        away: 0,
        holds: Default::default(),
        segments: 1,
        segments_sent: 1,
        names: Default::default(),
        owners: Default::default(),
        reader: Reader::Idle,
    };
    for (pack, chunks) in setting.first_packs.iter().enumerate() {
        state.send_pack(pack, *chunks, false);
    }
    state.names[0] = state.packs;
    if !setting.flickers {
        state.away = state.packs & setting.missing;
        state.packs &= !setting.missing;
    }
    let first = &mut state.sessions[0];
    first.is_listed = true;
    first.cell = Cell::Complete;
    first.sent = Cell::Complete;
    first.content = setting.wants[0];
    first.names_segment = true;
    first.packs = state.names[0];
    first.writer = Writer::Done;
    first.is_reported = true;
    state
}
