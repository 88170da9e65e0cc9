//! Each rule of the protocol, left out of the engine: the seeds of CI find what is lost without it.

use larder_engine::protocol::Rule;

use super::{SEEDS, failures};
use crate::left_out::without;

/// Fails unless the seeds of CI find that a rule is left out, the one that is known to first.
fn assert_found(rule: Rule, test: &str, first: u64) {
    without(rule, test, || {
        let found = failures((first..SEEDS).chain(0..first), 1).pop();
        let (seed, why) = found.unwrap_or_else(|| panic!("nobody misses {rule:?}"));
        println!("{rule:?}: seed {seed}: {why}");
    });
}

/// One test for each rule, with a seed that finds it.
macro_rules! rules {
    ($($name:ident: $rule:ident at $seed:literal,)*) => {
        /// What is tested here.
        const TESTED: &[Rule] = &[$(Rule::$rule),*];
        $(#[test] fn $name() {
            let test = concat!(module_path!(), "::", stringify!($name));
            assert_found(Rule::$rule, test, $seed);
        })*
    };
}

/// What only the model shows to be needed (`collection.rs`).
///
/// `StopAtUnresolved` is for damage and for deletions by others, and what is suspect or missing matters
/// where packs are damaged for good. A revoked cell of the engine names no predecessor, so `CommitSupersedes` holds
/// twice. `KeepBases` and `DeadSupersedeNot` need schedules that the seeds of CI do not have. A reader
/// that missed what a collector took away reads again, so it may list in any order.
const MODEL_ONLY: [Rule; 9] = [
    Rule::CommitSupersedes,
    Rule::KeepBases,
    Rule::StopAtUnresolved,
    Rule::DeadSupersedeNot,
    Rule::AvoidSuspects,
    Rule::CarrySuspects,
    Rule::SoundFirst,
    Rule::AvoidMissing,
    Rule::ReadCellsFirst,
];

rules! {
    register_anew: RegisterAnew at 8,
    look_after_commit: LookAfterCommit at 11,
    register_first: RegisterFirst at 8,
    avoid_condemned: AvoidCondemned at 18,
    avoid_deleted: AvoidDeleted at 5,
    see_base_live: SeeBaseLive at 791,
    look_up_again: LookUpAgain at 38,
    cell_last: CellLast at 2,
    create_cell: CreateCell at 1,
    create_state: CreateState at 107,
    create_round: CreateRound at 316,
    list_after_round: ListAfterRound at 11,
    wait: Wait at 0,
    mark_again: MarkAgain at 1,
    cells_first: CellsFirst at 365,
    rescue: Rescue at 1,
    carry_deleted: CarryDeleted at 8,
    look_before_delete: LookBeforeDelete at 1933,
    condemn_orphans: CondemnOrphans at 1,
    drop_only_deleted: DropOnlyDeleted at 20,
    segments_named: SegmentsNamed at 3,
}

#[test]
fn every_rule_is_tested_or_shown_by_the_model() {
    for rule in Rule::ALL {
        assert_ne!(
            TESTED.contains(&rule),
            MODEL_ONLY.contains(&rule),
            "{rule:?}"
        );
    }
}
