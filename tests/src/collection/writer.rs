//! A writer's steps: SPEC.md §12, "Backup" and "Checkpoints".

use larder_engine::protocol::{CellFacts, Rule, keeps, live_cells};

use super::state::{Cell, Gone, NONE, Now, Seen, Set, State, Writer, has, set_of};
use super::{Setting, Steps};

pub fn steps(setting: &Setting, now: &Now, index: usize, steps: &mut Steps) {
    let session = steps.from().sessions[index];
    match session.writer {
        Writer::Idle => steps.writer(index, "reads the newest round", |t| {
            t.sessions[index].number = now.collection.newest() as u8;
            t.sessions[index].writer = Writer::Numbered;
            t.sessions[index].seen = early(now);
        }),
        Writer::Numbered if keeps(Rule::RegisterFirst) => {
            register(setting, now, index, Writer::Registered, steps);
        }
        Writer::Numbered => view(setting, now, index, Writer::Unregistered, steps),
        Writer::Unregistered => steps.writer(index, "registers", |t| {
            t.sessions[index].is_listed = true;
            t.sessions[index].writer = Writer::Packing;
        }),
        Writer::Registered => steps.writer(index, "lists cells", |t| {
            t.sessions[index].seen = now.seen;
            t.sessions[index].writer = Writer::Listed;
        }),
        Writer::Listed => view(setting, now, index, Writer::Packing, steps),
        Writer::Packing => upload(setting, index, steps),
        Writer::PackSent => {
            if session.packs & !steps.from().packs == 0 || !keeps(Rule::CellLast) {
                let answered = |t: &mut State| t.sessions[index].writer = Writer::Packing;
                steps.writer(index, "has its pack", answered);
            }
        }
        Writer::SegmentSent => {
            if has(steps.from().segments, index) || !keeps(Rule::CellLast) {
                let answered = |t: &mut State| t.sessions[index].writer = Writer::Committing;
                steps.writer(index, "has its segment", answered);
            }
        }
        Writer::Committing => commit(setting, index, steps),
        Writer::CellSent => read_back(index, steps),
        Writer::Committed => look(now, index, steps),
        Writer::GivenUp if session.is_listed && session.cell == Cell::Absent => {
            steps.writer(index, "ends itself", |t| {
                t.sessions[index].cell = Cell::Revoked
            });
        }
        Writer::Done | Writer::GivenUp | Writer::Void => {}
    }
}

/// Only a writer that registers too late has listed cells before.
fn early(now: &Now) -> Seen {
    if keeps(Rule::RegisterFirst) {
        Seen::default()
    } else {
        now.seen
    }
}

fn register(setting: &Setting, now: &Now, index: usize, next: Writer, steps: &mut Steps) {
    let mut go = |base: u8, goes_on: bool, what| {
        steps.writer_with(index, what, base, |t| {
            let session = &mut t.sessions[index];
            session.is_listed = true;
            session.base = base;
            session.goes_on = goes_on;
            session.writer = next;
        });
    };
    go(NONE, false, "registers without a base");
    for base in 0..setting.sessions {
        let cell = now.seen.cell(base);
        if base == index || !cell.is_committed() {
            continue;
        }
        if setting.parents {
            go(base as u8, false, "registers, parent");
        }
        if cell == Cell::Partial {
            go(base as u8, true, "registers and goes on from");
        }
    }
}

/// Reads `gc/` and the segments, and decides what must be uploaded.
fn view(setting: &Setting, now: &Now, index: usize, next: Writer, steps: &mut Steps) {
    let state = *steps.from();
    let session = state.sessions[index];
    if now.collection.is_stale(session.number.into()) {
        return steps.writer(index, "sees a newer round and gives up", |t| {
            give_up(t, index, Writer::GivenUp);
        });
    }
    let cells = state.cells(session.seen);
    let Some(named) = state.named(state.counting(&cells, &now.collection)) else {
        return steps.writer(index, "misses a segment and starts over", |t| {
            t.sessions[index].seen = early(now);
            t.sessions[index].writer = if next == Writer::Packing {
                Writer::Registered
            } else {
                Writer::Numbered
            };
        });
    };
    let usable = named & !set_of(&now.collection.unusable_packs());
    // Its own listing of packs, after it has read.
    let absent = if keeps(Rule::AvoidMissing) {
        usable & state.away
    } else {
        0
    };
    let usable = usable & !absent;
    let wanted = setting.wants[index];
    let reused = if absent == 0 {
        reused(&state, now, index, &cells)
    } else {
        0
    };
    let known = state.held(usable) | reused;
    let mut choices = vec![wanted & !known];
    if setting.uploads_known && wanted & known & !reused != 0 {
        choices.push(wanted & !reused);
    }
    for todo in choices {
        steps.writer_with(index, "reads gc and segments, uploads", todo, |t| {
            t.sessions[index].todo = todo;
            t.sessions[index].seen = Seen::default();
            t.sessions[index].writer = next;
        });
    }
}

/// Gives the chunks that hang on the base.
fn reused(state: &State, now: &Now, index: usize, cells: &[CellFacts<u8, u8>]) -> Set {
    let session = &state.sessions[index];
    if session.base == NONE {
        return 0;
    }
    let is_live = live_cells(cells, &now.collection).contains(&session.base);
    let base = &state.sessions[usize::from(session.base)];
    if !now.collection.may_trust_base(is_live) {
        return 0;
    }
    let continues = session.goes_on && base.is_reported;
    if continues && !keeps(Rule::LookUpAgain) {
        // All that its own last session had found.
        return Set::MAX;
    }
    base.content
}

fn upload(setting: &Setting, index: usize, steps: &mut Steps) {
    let state = *steps.from();
    let session = state.sessions[index];
    if session.todo == 0 && session.packs == 0 {
        return commit(setting, index, steps);
    }
    if session.todo == 0 {
        return steps.writer(index, "sends its segment", |t| {
            t.send_segment(index, session.packs, setting.is_late);
            t.sessions[index].writer = Writer::SegmentSent;
        });
    }
    let Some(pack) = state.new_pack(setting.packs) else {
        return;
    };
    let mut parts = vec![session.todo];
    if setting.splits && session.todo.count_ones() > 1 {
        parts.push(session.todo & session.todo.wrapping_neg());
    }
    for part in parts {
        steps.writer_with(index, "sends pack", pack as u8, |t| {
            t.send_pack(pack, part, setting.is_late);
            t.sessions[index].packs |= 1 << pack;
            t.sessions[index].todo &= !part;
            if setting.is_late {
                t.sessions[index].writer = Writer::PackSent;
            }
        });
    }
}

fn commit(setting: &Setting, index: usize, steps: &mut Steps) {
    let wanted = setting.wants[index];
    let mut outcomes = vec![(Cell::Complete, wanted)];
    if setting.checkpoints {
        outcomes.extend([(Cell::Partial, wanted), (Cell::Partial, 0)]);
        if wanted.count_ones() > 1 {
            outcomes.push((Cell::Partial, wanted & wanted.wrapping_neg()));
        }
    }
    for (cell, content) in outcomes {
        let what = if cell == Cell::Complete {
            "sends its cell"
        } else {
            "sends its checkpoint"
        };
        steps.writer_with(index, what, content, |t| {
            let session = &mut t.sessions[index];
            session.sent = cell;
            session.content = content;
            session.names_segment = session.packs != 0;
            session.writer = Writer::CellSent;
            if !setting.is_late {
                land_cell(t, index);
                answer(t, index);
            }
        });
    }
}

/// Lets a cell that was sent arrive: it is created only if absent.
pub fn land_cell(state: &mut State, index: usize) {
    let session = &mut state.sessions[index];
    if session.cell == Cell::Absent || !keeps(Rule::CreateCell) {
        session.cell = session.sent;
    }
}

fn read_back(index: usize, steps: &mut Steps) {
    if steps.from().sessions[index].cell != Cell::Absent {
        steps.writer(index, "reads its cell back", |t| answer(t, index));
    }
}

fn answer(state: &mut State, index: usize) {
    if state.sessions[index].cell == Cell::Revoked {
        give_up(state, index, Writer::GivenUp);
    } else {
        state.sessions[index].writer = Writer::Committed;
    }
}

fn look(now: &Now, index: usize, steps: &mut Steps) {
    let session = steps.from().sessions[index];
    if now
        .collection
        .is_void(&(index as u8), session.number.into())
    {
        return steps.writer(index, "sees that its commit is void", |t| {
            give_up(t, index, Writer::Void);
        });
    }
    steps.writer(index, "reports success", |t| {
        t.sessions[index].is_reported = true;
        t.sessions[index].writer = Writer::Done;
        if session.goes_on {
            t.sessions[usize::from(session.base)].gone = Gone::Wanted;
        }
    });
}

fn give_up(state: &mut State, index: usize, writer: Writer) {
    let session = &mut state.sessions[index];
    session.writer = writer;
    session.todo = 0;
    session.seen = Seen::default();
    if session.gone == Gone::No {
        session.gone = Gone::Dead;
    }
}
