//! The named explorations: `<what>-<sessions>s<collectors>c<rounds>r`, without the first snapshot.

use larder_engine::protocol::Rule;

use super::{CHUNK, COMMIT, Clears, DEAD, Listing, READER, Setting, WHOLE};

fn one_round() -> Setting {
    Setting::default()
}

fn two_rounds() -> Setting {
    Setting {
        rounds: 2,
        ..Setting::default()
    }
}

/// Checkpoints of one writer: the second session goes on from the first.
fn chain() -> Setting {
    Setting {
        checkpoints: true,
        sessions: 3,
        forgets: 0,
        wants: [0, 1, 1, 1],
        ..Setting::default()
    }
}

/// Pack 0 is suspect, and its first chunk cannot be read; pack 1 has that chunk as well.
fn suspect() -> Setting {
    Setting {
        first_packs: &[3, 1],
        suspects: 1,
        damaged: 1,
        packs: 4,
        ..two_rounds()
    }
}

/// Pack 0 was taken away, and with it the only place of the first chunk; pack 1 has the second one.
fn missing() -> Setting {
    Setting {
        wants: [3; 4],
        first_packs: &[1, 2],
        missing: 1,
        packs: 4,
        ..two_rounds()
    }
}

/// Pack 0 has the node that says that the other chunk is needed, and may be away for a while.
fn flickering() -> Setting {
    Setting {
        splits: true,
        rounds: 1,
        flickers: true,
        has_nodes: true,
        ..missing()
    }
}

/// A second writer needs what a first one brought, and a reader's listing may have missed that one.
fn torn() -> Setting {
    Setting {
        sessions: 3,
        wants: [2, 1, 1, 1],
        first_packs: &[2],
        reads: true,
        listing: Listing::Ascending,
        ..one_round()
    }
}

/// Gives the settings that every run of the tests exhausts.
#[must_use]
pub fn small() -> Vec<(&'static str, Setting)> {
    vec![
        ("plain-1s1c1r", one_round()),
        (
            "plain-2s1c1r",
            Setting {
                sessions: 3,
                ..one_round()
            },
        ),
        (
            "plain-1s2c1r",
            Setting {
                collectors: 2,
                ..one_round()
            },
        ),
        (
            "orphans-1s1c1r",
            Setting {
                uploads_known: true,
                spares_orphans: true,
                ..one_round()
            },
        ),
        (
            "orphans-1s1c2r",
            Setting {
                uploads_known: true,
                spares_orphans: true,
                ..two_rounds()
            },
        ),
        (
            "repack-1s1c2r",
            Setting {
                repacks: true,
                ..two_rounds()
            },
        ),
        (
            "clear-1s1c2r",
            Setting {
                clears: Clears::All,
                ..two_rounds()
            },
        ),
        (
            "merge-1s1c2r",
            Setting {
                merges: true,
                repacks: true,
                ..two_rounds()
            },
        ),
        (
            "stale-state-1s2c2r",
            Setting {
                first_packs: &[1, 1],
                collectors: 2,
                clears: Clears::Rounds,
                ..two_rounds()
            },
        ),
        (
            "late-1s1c1r",
            Setting {
                is_late: true,
                clears: Clears::All,
                ..one_round()
            },
        ),
        (
            "late-1s1c2r",
            Setting {
                is_late: true,
                clears: Clears::All,
                ..two_rounds()
            },
        ),
        (
            "parents-1s1c2r",
            Setting {
                parents: true,
                ..two_rounds()
            },
        ),
        (
            "parents-2s1c1r",
            Setting {
                parents: true,
                sessions: 3,
                listing: Listing::Descending,
                ..one_round()
            },
        ),
        (
            "chain-2s1c1r",
            Setting {
                listing: Listing::Descending,
                ..chain()
            },
        ),
        (
            "chain-ascending-2s1c1r",
            Setting {
                listing: Listing::Ascending,
                ..chain()
            },
        ),
        (
            "chain-forgotten-2s1c1r",
            Setting {
                forgets: 6,
                ..chain()
            },
        ),
        (
            "chain-cleared-2s1c1r",
            Setting {
                clears: Clears::All,
                ..chain()
            },
        ),
        (
            "two-chunks-1s1c1r",
            Setting {
                wants: [3; 4],
                first_packs: &[1, 2],
                splits: true,
                packs: 4,
                ..one_round()
            },
        ),
        (
            "two-chunks-repack-1s1c1r",
            Setting {
                wants: [3; 4],
                first_packs: &[3],
                splits: true,
                repacks: true,
                packs: 4,
                ..one_round()
            },
        ),
        (
            "suspect-unneeded-1s1c2r",
            Setting {
                wants: [2, 1, 3, 3],
                ..suspect()
            },
        ),
        (
            "suspect-needed-1s1c2r",
            Setting {
                wants: [3, 1, 3, 3],
                parents: true,
                ..suspect()
            },
        ),
        (
            "suspect-2s1c2r",
            Setting {
                wants: [3, 2, 1, 3],
                sessions: 3,
                ..suspect()
            },
        ),
        ("missing-1s1c2r", missing()),
        (
            "missing-parents-1s1c2r",
            Setting {
                parents: true,
                repacks: true,
                ..missing()
            },
        ),
        (
            "missing-comes-back-1s1c1r",
            Setting {
                is_late: true,
                rounds: 1,
                ..missing()
            },
        ),
        (
            "missing-2s1c1r",
            Setting {
                sessions: 3,
                rounds: 1,
                clears: Clears::All,
                ..missing()
            },
        ),
        (
            "two-chunks-2s1c1r",
            Setting {
                wants: [3; 4],
                first_packs: &[1, 2],
                splits: true,
                packs: 5,
                sessions: 3,
                ..one_round()
            },
        ),
        (
            "reader-1s1c1r",
            Setting {
                reads: true,
                clears: Clears::All,
                ..one_round()
            },
        ),
        ("reader-torn-2s1c1r", torn()),
        ("missing-flickers-1s1c1r", flickering()),
        (
            "missing-flickers-repack-1s1c2r",
            Setting {
                repacks: true,
                rounds: 2,
                ..flickering()
            },
        ),
    ]
}

/// Gives the settings that take longer: minutes to hours, up to 10^8 states.
#[must_use]
pub fn large() -> Vec<(&'static str, Setting)> {
    let all = Setting {
        merges: true,
        repacks: true,
        clears: Clears::All,
        ..two_rounds()
    };
    vec![
        (
            "plain-2s2c1r",
            Setting {
                sessions: 3,
                collectors: 2,
                ..one_round()
            },
        ),
        (
            "clear-1s2c2r",
            Setting {
                clears: Clears::All,
                collectors: 2,
                ..two_rounds()
            },
        ),
        (
            "parents-2s1c2r",
            Setting {
                parents: true,
                sessions: 3,
                ..two_rounds()
            },
        ),
        (
            "reader-1s1c2r",
            Setting {
                reads: true,
                clears: Clears::All,
                ..two_rounds()
            },
        ),
        (
            "merge-clear-1s1c2r",
            Setting {
                merges: true,
                clears: Clears::All,
                ..two_rounds()
            },
        ),
        ("everything-1s1c2r", all.clone()),
        (
            "everything-late-1s1c2r",
            Setting {
                is_late: true,
                ..all.clone()
            },
        ),
        (
            "everything-1s2c2r",
            Setting {
                collectors: 2,
                ..all.clone()
            },
        ),
        ("everything-2s1c2r", Setting { sessions: 3, ..all }),
        (
            "chain-cleared-2s1c2r",
            Setting {
                clears: Clears::All,
                rounds: 2,
                ..chain()
            },
        ),
        (
            "chain-late-2s1c1r",
            Setting {
                clears: Clears::All,
                is_late: true,
                ..chain()
            },
        ),
        (
            "chain-3s1c1r",
            Setting {
                sessions: 4,
                listing: Listing::Descending,
                ..chain()
            },
        ),
    ]
}

/// A rule, the setting that shows what happens without it, and the promise that is then broken.
pub type Need = (Rule, Setting, &'static str);

/// Gives for each rule a setting that loses something without it.
#[must_use]
pub fn needs() -> Vec<Need> {
    let parents = Setting {
        parents: true,
        sessions: 3,
        listing: Listing::Descending,
        ..one_round()
    };
    let clear = Setting {
        clears: Clears::All,
        ..two_rounds()
    };
    let chain_seen = Setting {
        listing: Listing::Descending,
        ..chain()
    };
    let twice = Setting {
        first_packs: &[1, 1],
        collectors: 2,
        clears: Clears::Rounds,
        ..two_rounds()
    };
    let damaged = Setting {
        wants: [2, 1, 3, 3],
        ..suspect()
    };
    vec![
        (Rule::RegisterAnew, one_round(), COMMIT),
        (Rule::LookAfterCommit, clear.clone(), COMMIT),
        (Rule::RegisterFirst, one_round(), COMMIT),
        (Rule::AvoidCondemned, one_round(), CHUNK),
        (Rule::AvoidDeleted, one_round(), CHUNK),
        (
            Rule::SeeBaseLive,
            Setting {
                parents: true,
                ..one_round()
            },
            CHUNK,
        ),
        (Rule::CommitSupersedes, chain_seen.clone(), COMMIT),
        (Rule::LookUpAgain, chain_seen, CHUNK),
        (
            Rule::CellLast,
            Setting {
                is_late: true,
                ..one_round()
            },
            CHUNK,
        ),
        (Rule::CreateCell, one_round(), DEAD),
        (
            Rule::CreateState,
            Setting {
                collectors: 2,
                ..clear.clone()
            },
            DEAD,
        ),
        (
            Rule::CreateRound,
            Setting {
                collectors: 2,
                ..one_round()
            },
            CHUNK,
        ),
        (Rule::ListAfterRound, one_round(), COMMIT),
        (Rule::Wait, one_round(), COMMIT),
        (Rule::MarkAgain, one_round(), CHUNK),
        (Rule::CellsFirst, parents.clone(), CHUNK),
        (Rule::KeepBases, parents, CHUNK),
        (Rule::Rescue, one_round(), CHUNK),
        (Rule::CarryDeleted, clear.clone(), CHUNK),
        (Rule::LookBeforeDelete, twice, CHUNK),
        (Rule::CondemnOrphans, one_round(), CHUNK),
        (
            Rule::DropOnlyDeleted,
            Setting {
                merges: true,
                ..clear.clone()
            },
            CHUNK,
        ),
        (
            Rule::SegmentsNamed,
            Setting {
                uploads_known: true,
                ..one_round()
            },
            CHUNK,
        ),
        (
            Rule::DeadSupersedeNot,
            Setting {
                clears: Clears::All,
                ..chain()
            },
            COMMIT,
        ),
        (Rule::AvoidSuspects, damaged.clone(), CHUNK),
        (Rule::CarrySuspects, damaged.clone(), CHUNK),
        (Rule::SoundFirst, damaged, CHUNK),
        (Rule::AvoidMissing, missing(), CHUNK),
        (
            Rule::ReadCellsFirst,
            Setting {
                reads: true,
                ..clear
            },
            READER,
        ),
        (Rule::ReadLater, torn(), WHOLE),
        (Rule::StopAtUnresolved, flickering(), CHUNK),
    ]
}
