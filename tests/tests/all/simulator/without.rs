//! Each rule of the protocol, left out of the engine: the seeds of CI find what is lost without it. Where
//! they hardly can, a script does (`scripts.rs`).

use larder_engine::protocol::Rule;

use super::{SEEDS, failures, scripts};
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

rules! {
    register_anew: RegisterAnew at 67,
    look_after_commit: LookAfterCommit at 11,
    register_first: RegisterFirst at 8,
    avoid_condemned: AvoidCondemned at 18,
    avoid_deleted: AvoidDeleted at 5,
    look_up_again: LookUpAgain at 517,
    cell_last: CellLast at 2,
    create_cell: CreateCell at 1,
    create_state: CreateState at 423,
    list_after_round: ListAfterRound at 273,
    wait: Wait at 0,
    mark_again: MarkAgain at 1,
    rescue: Rescue at 1,
    carry_deleted: CarryDeleted at 211,
    condemn_orphans: CondemnOrphans at 1,
    drop_only_deleted: DropOnlyDeleted at 20,
    segments_named: SegmentsNamed at 3,
    read_later: ReadLater at 97,
}

#[test]
fn every_rule_is_missed_by_a_seed_or_a_script() {
    for rule in Rule::ALL {
        let is_missed_by_a_script = scripts::TESTED.contains(&rule);
        assert_ne!(TESTED.contains(&rule), is_missed_by_a_script, "{rule:?}");
    }
}
