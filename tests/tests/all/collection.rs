//! The collection protocol, explored: nothing is lost, and each rule is needed.

use larder_engine::protocol::Rule;
use larder_tests::collection::token::{
    CAN_PUBLISH, HELPED, ONE_LOST, ONE_WINNER, TWO_CREATED, Token, TokenRule, WINNER_STAYS,
};
use larder_tests::collection::{DELETED, RESCUED, VOID, explore, settings};
use stateright::{Checker, HasDiscoveries, Model};

use crate::left_out::without;

const THREADS: usize = 2;

/// Every setting that is small has a test here.
macro_rules! explored {
    ($($name:ident: $setting:literal,)*) => {
        const EXPLORED: &[&str] = &[$($setting),*];
        /// No setting loses anything.
        mod loses_nothing {
            $(#[test] fn $name() {
                super::assert_loses_nothing($setting);
            })*
        }
    };
}

explored! {
    plain_1s1c1r: "plain-1s1c1r",
    plain_2s1c1r: "plain-2s1c1r",
    plain_1s2c1r: "plain-1s2c1r",
    orphans_1s1c1r: "orphans-1s1c1r",
    orphans_1s1c2r: "orphans-1s1c2r",
    repack_1s1c2r: "repack-1s1c2r",
    clear_1s1c2r: "clear-1s1c2r",
    merge_1s1c2r: "merge-1s1c2r",
    stale_state_1s2c2r: "stale-state-1s2c2r",
    late_1s1c1r: "late-1s1c1r",
    late_1s1c2r: "late-1s1c2r",
    parents_1s1c2r: "parents-1s1c2r",
    parents_2s1c1r: "parents-2s1c1r",
    chain_2s1c1r: "chain-2s1c1r",
    chain_ascending_2s1c1r: "chain-ascending-2s1c1r",
    chain_forgotten_2s1c1r: "chain-forgotten-2s1c1r",
    chain_cleared_2s1c1r: "chain-cleared-2s1c1r",
    two_chunks_1s1c1r: "two-chunks-1s1c1r",
    two_chunks_repack_1s1c1r: "two-chunks-repack-1s1c1r",
    suspect_unneeded_1s1c2r: "suspect-unneeded-1s1c2r",
    suspect_needed_1s1c2r: "suspect-needed-1s1c2r",
    suspect_2s1c2r: "suspect-2s1c2r",
    missing_1s1c2r: "missing-1s1c2r",
    missing_parents_1s1c2r: "missing-parents-1s1c2r",
    missing_comes_back_1s1c1r: "missing-comes-back-1s1c1r",
    missing_2s1c1r: "missing-2s1c1r",
    two_chunks_2s1c1r: "two-chunks-2s1c1r",
    reader_1s1c1r: "reader-1s1c1r",
    reader_torn_2s1c1r: "reader-torn-2s1c1r",
    missing_flickers_1s1c1r: "missing-flickers-1s1c1r",
    missing_flickers_repack_1s1c2r: "missing-flickers-repack-1s1c2r",
}

#[test]
fn every_small_setting_is_explored() {
    let settings = settings::small();
    let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
    assert_eq!(EXPLORED, names);
}

fn assert_loses_nothing(name: &str) {
    let settings = settings::small();
    let (_, setting) = settings.iter().find(|(other, _)| *other == name).unwrap();
    let found = explore(setting, THREADS);
    println!(
        "{name}: {} states, depth {}, {:.1} s",
        found.states, found.depth, found.seconds
    );
    assert_eq!(found.broken, []);
    assert_eq!(found.happened, [DELETED, RESCUED, VOID], "it is vacuous");
}

/// Every rule has a test here.
macro_rules! needed {
    ($($name:ident: $rule:ident,)*) => {
        const TESTED: &[Rule] = &[$(Rule::$rule),*];
        $(#[test] fn $name() {
            is_needed(Rule::$rule, concat!(module_path!(), "::", stringify!($name)));
        })*
    };
}

needed! {
    without_registering_anew: RegisterAnew,
    without_a_look_after_the_commit: LookAfterCommit,
    without_registering_first: RegisterFirst,
    without_avoiding_condemned_packs: AvoidCondemned,
    without_avoiding_deleted_packs: AvoidDeleted,
    without_seeing_the_base_live: SeeBaseLive,
    without_only_commits_superseding: CommitSupersedes,
    without_looking_up_again: LookUpAgain,
    without_the_cell_coming_last: CellLast,
    without_cells_created_if_absent: CreateCell,
    without_states_created_if_absent: CreateState,
    without_rounds_created_if_absent: CreateRound,
    without_listing_after_the_round: ListAfterRound,
    without_waiting: Wait,
    without_marking_again: MarkAgain,
    without_cells_listed_first: CellsFirst,
    without_keeping_bases: KeepBases,
    without_rescuing: Rescue,
    without_stopping_at_what_is_unresolved: StopAtUnresolved,
    without_carrying_deleted_packs: CarryDeleted,
    without_a_look_before_deleting: LookBeforeDelete,
    without_condemning_orphans: CondemnOrphans,
    without_merging_carefully: DropOnlyDeleted,
    without_segments_being_named: SegmentsNamed,
    without_the_dead_superseding_nothing: DeadSupersedeNot,
    without_avoiding_suspects: AvoidSuspects,
    without_carrying_suspects: CarrySuspects,
    without_preferring_sound_packs: SoundFirst,
    without_avoiding_missing_packs: AvoidMissing,
    without_readers_listing_cells_first: ReadCellsFirst,
    without_reading_what_came_later: ReadLater,
}

fn is_needed(rule: Rule, test: &str) {
    without(rule, test, || {
        let needs = settings::needs();
        let (_, setting, promise) = needs.iter().find(|need| need.0 == rule).unwrap();
        let found = explore(setting, THREADS);
        let broken: Vec<&str> = found.broken.iter().map(|(name, _)| *name).collect();
        assert!(
            broken.contains(promise),
            "{rule:?}: {broken:?} after {} states",
            found.states
        );
    });
}

#[test]
fn every_rule_is_tested() {
    assert_eq!(TESTED, Rule::ALL);
}

#[test]
fn one_token_orders_all_creates() {
    for wants in [[0, 0, 1], [0, 0, 0]] {
        let found = tokens(wants, None);
        let mut expected = vec![ONE_LOST, HELPED];
        expected.extend((wants[2] == 1).then_some(TWO_CREATED));
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[test]
fn each_rule_of_the_token_is_needed() {
    for (rule, promise) in [
        (TokenRule::PublishFirst, ONE_WINNER),
        (TokenRule::LookAfterToken, ONE_WINNER),
        (TokenRule::RenameDecides, ONE_WINNER),
        (TokenRule::StageFirst, CAN_PUBLISH),
        (TokenRule::TokenNamesContent, ONE_WINNER),
        (TokenRule::ReadBack, WINNER_STAYS),
    ] {
        let found = tokens([0, 0, 1], Some(rule));
        assert!(found.contains(&promise), "{rule:?}: {found:?}");
    }
}

fn tokens(wants: [u8; 3], without: Option<TokenRule>) -> Vec<&'static str> {
    let checker = Token { wants, without }.checker();
    let checker = checker
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut found: Vec<&str> = checker.discoveries().into_keys().collect();
    found.sort_unstable();
    found
}
