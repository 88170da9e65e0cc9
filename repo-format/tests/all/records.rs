//! Records, configs, slots, segments and keyrings: they go both ways, and nothing else passes.
use std::fmt::Debug;

use larder_format::cell::{Cell, CellKind, Source, Statistics};
use larder_format::collector::{Round, State};
use larder_format::config::{Chunker, Config};
use larder_format::directory::{Directory, DirectoryBlock};
use larder_format::error::FormatError;
use larder_format::ids::ChunkType;
use larder_format::ids::{
    ChunkId, ChunkPrefix, LedgerId, ObjectId, PackPrefix, ReplicaId, RepositoryId, RunId,
    SessionId, SlotId,
};
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring, Purpose};
use larder_format::ledger::{Ledger, LedgerGroup, Verification};
use larder_format::object::{Kind, object_id};
use larder_format::record::{Record, open_record, seal_record};
use larder_format::run::{KeyRange, Run, RunEnd, Shard};
use larder_format::segment::{Owner, Segment, SegmentPack};
use larder_format::session::{Amendment, Base, Change, Session, SessionEnd};
use larder_format::slot::{KdfParams, Secret, SlotKind, SlotParams, read_slot, seal_slot, unlock};
use proptest::prelude::*;

const REPOSITORY: RepositoryId = RepositoryId([5; 16]);

fn keyring() -> Keyring {
    let random: [u8; KEYRING_RANDOM_BYTES] = std::array::from_fn(|at| at as u8);
    Keyring::generate(REPOSITORY, &random)
}

fn session_id(byte: u8) -> SessionId {
    SessionId::new(3, [byte; 16])
}

fn session() -> Session {
    Session {
        id: session_id(1),
        base: Base::Parent(session_id(2)),
        started: -5,
        host: "host".into(),
        user: "user".into(),
        program: "larder 0.1.0".into(),
        config: 1,
    }
}

fn cell() -> Cell {
    Cell {
        kind: CellKind::Complete,
        id: session_id(1),
        predecessor: None,
        parent: Some(session_id(2)),
        started: 10,
        ended: 20,
        host: "host".into(),
        user: "user".into(),
        tags: vec!["a".into(), "b".into()],
        sources: vec![Source {
            path: b"/home/\xff".to_vec(),
            root: ChunkId([7; 32]),
            level: 2,
            entries: 1000,
            bytes: 1 << 40,
        }],
        segments: vec![ObjectId([1; 32]), ObjectId([2; 32])],
        statistics: Statistics {
            files: 900,
            new_chunks: 4,
            unknown: [(99, 1)].into(),
            ..Statistics::default()
        },
        options: [("zz", "1"), ("aaa", "2")]
            .map(|(a, b)| (a.into(), b.into()))
            .into(),
        program: "larder 0.1.0".into(),
        config: 1,
        seen_cells: vec![session_id(2), session_id(3)],
        seen_round: 3,
        shard: None,
    }
}

fn run() -> Run {
    Run {
        id: RunId([6; 16]),
        name: "nightly-2026-11-22".into(),
        begun: -7,
        source: b"s3://bucket/prefix".to_vec(),
        host: "host".into(),
        asked: 4,
        divisions: vec![b"a//b".to_vec(), b"a/b".to_vec()],
        left_out: "0123456789abcdef".into(),
        parent: Some(session_id(2)),
    }
}

fn shard_cell(number: u64) -> Cell {
    Cell {
        kind: CellKind::Shard,
        shard: run().shard(number),
        ..cell()
    }
}

fn amendment(change: Change) -> Amendment {
    Amendment {
        cell: session_id(1),
        number: 12,
        change,
        time: 30,
        host: "host".into(),
        user: "user".into(),
    }
}

fn round() -> Round {
    Round {
        number: 4,
        condemned_packs: vec![ObjectId([1; 32]), ObjectId([3; 32])],
        replaced_segments: vec![],
        new_segments: vec![ObjectId([2; 32])],
        suspect_packs: vec![],
        time: 5,
        host: "host".into(),
    }
}

fn state() -> State {
    State {
        number: 4,
        live_cells: vec![session_id(1)],
        segments: vec![ObjectId([2; 32])],
        deleted_packs: vec![ObjectId([1; 32])],
        suspect_packs: vec![ObjectId([2; 32])],
    }
}

fn ledger() -> Ledger {
    let group = |time, how, packs: &[u8]| LedgerGroup {
        time,
        how,
        packs: packs.iter().map(|byte| PackPrefix([*byte; 16])).collect(),
    };
    Ledger {
        id: LedgerId([1; 16]),
        replica: ReplicaId([2; 16]),
        groups: vec![
            group(-5, Verification::Opened, &[9]),
            group(7, Verification::Hashed, &[1, 7]),
            group(7, Verification::Opened, &[2, 3, 4]),
        ],
    }
}

/// Seals, opens, and tries every byte changed, every name changed, and every cut.
fn goes_both_ways<R: Record + PartialEq + Debug>(record: &R) {
    let keyring = keyring();
    let object = seal_record(&keyring, record, [8; 16], &[9; 32]).unwrap();
    assert_eq!((object.len() - 64 - 32 - 40) % 256, 0);
    let name = record.name();
    assert_eq!(&open_record::<R>(&keyring, &name, &object).unwrap(), record);
    for at in 0..object.len() {
        let mut bad = object.clone();
        bad[at] ^= 0x40;
        assert!(
            open_record::<R>(&keyring, &name, &bad).is_err(),
            "byte {at}"
        );
        // A changed closing hash must not help either.
        let body = bad.len() - 32;
        let hash = *object_id(&bad[..body]).0.first_chunk::<32>().unwrap();
        bad[body..].copy_from_slice(&hash);
        if at < body {
            assert!(
                open_record::<R>(&keyring, &name, &bad).is_err(),
                "byte {at}"
            );
        }
        assert!(open_record::<R>(&keyring, &name, &object[..at]).is_err());
    }
    let others = keyring.restricted_to(&[Purpose::Data, Purpose::Tree, Purpose::Index]);
    assert_eq!(
        open_record::<R>(&others, &name, &object),
        Err(FormatError::MissingKey {
            purpose: R::KIND.word()
        })
    );

    let cbor = record.encode();
    assert_eq!(R::decode(&cbor).as_ref(), Ok(record));
    for at in 0..cbor.len() {
        assert!(R::decode(&cbor[..at]).is_err());
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut bad = cbor.clone();
            bad[at] ^= flip;
            // Whatever still decodes has exactly this encoding.
            if let Ok(other) = R::decode(&bad) {
                assert_eq!(other.encode(), bad);
            }
        }
    }
    assert!(R::decode(&[cbor.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn records_go_both_ways() {
    goes_both_ways(&session());
    goes_both_ways(&Session {
        base: Base::None,
        ..session()
    });
    goes_both_ways(&Session {
        base: Base::Predecessor(session_id(9)),
        ..session()
    });
    goes_both_ways(&SessionEnd {
        id: session_id(1),
        ended: 2,
        cell: ObjectId([3; 32]),
    });
    goes_both_ways(&cell());
    goes_both_ways(&amendment(Change::SetTags(vec!["x".into()])));
    goes_both_ways(&amendment(Change::Pin));
    goes_both_ways(&amendment(Change::Forget));
    goes_both_ways(&round());
    goes_both_ways(&state());
    goes_both_ways(&ledger());
    goes_both_ways(&Ledger::default());
    goes_both_ways(&run());
    goes_both_ways(&Run::default());
    goes_both_ways(&RunEnd {
        id: RunId([6; 16]),
        ended: 9,
        snapshot: session_id(1),
    });
    for number in 1..=3 {
        goes_both_ways(&shard_cell(number));
        goes_both_ways(&Cell {
            kind: CellKind::Partial,
            ..shard_cell(number)
        });
    }
}

#[test]
fn a_record_opens_only_under_its_own_name() {
    let keyring = keyring();
    let object = seal_record(&keyring, &cell(), [8; 16], &[9; 32]).unwrap();
    let other = Cell {
        id: session_id(4),
        ..cell()
    };
    assert!(open_record::<Cell>(&keyring, &other.name(), &object).is_err());
    assert!(open_record::<Session>(&keyring, &cell().name(), &object).is_err());
}

#[test]
fn the_shards_of_a_run_have_each_key_once() {
    let run = run();
    assert_eq!(run.count(), 3);
    assert!(run.shard(0).is_none() && run.shard(4).is_none() && run.shard(u64::MAX).is_none());
    let keys: [&[u8]; 10] = [
        b"", b"a", b"a/", b"a//", b"a//b", b"a//b\0", b"a/a", b"a/b", b"a/b/", b"\xff",
    ];
    let numbers = keys.map(|key| {
        let has = |number: &u64| run.shard(*number).unwrap().range.has(key);
        let mut found = (1..=3).filter(has);
        let number = found.next().unwrap();
        assert!(found.next().is_none());
        number
    });
    assert_eq!(numbers, [1, 1, 1, 1, 1, 2, 2, 2, 3, 3]);
}

#[test]
fn a_shard_that_cannot_be_is_refused() {
    let range = |behind: Option<&[u8]>, last: Option<&[u8]>| KeyRange {
        behind: behind.map(<[u8]>::to_vec),
        last: last.map(<[u8]>::to_vec),
    };
    let shard = |number, count, range| {
        Some(Shard {
            run: RunId([6; 16]),
            name: "nightly".into(),
            number,
            count,
            range,
        })
    };
    let long = vec![b'k'; 4097];
    for (kind, shard) in [
        (CellKind::Shard, None),
        (CellKind::Complete, shard(1, 1, range(None, None))),
        (CellKind::Revoked, shard(1, 1, range(None, None))),
        (CellKind::Shard, shard(0, 1, range(None, None))),
        (CellKind::Shard, shard(2, 1, range(Some(b"a"), None))),
        (CellKind::Shard, shard(1, 1, range(None, Some(b"a")))),
        (CellKind::Shard, shard(1, 2, range(None, None))),
        (CellKind::Shard, shard(2, 2, range(None, None))),
        (CellKind::Shard, shard(2, 3, range(Some(b"b"), Some(b"b")))),
        (CellKind::Shard, shard(2, 3, range(Some(b"b"), Some(b"a")))),
        (CellKind::Shard, shard(1025, 1025, range(Some(b"b"), None))),
        (CellKind::Shard, shard(2, 2, range(Some(&long), None))),
    ] {
        let cell = Cell {
            kind,
            shard,
            ..cell()
        };
        assert!(Cell::decode(&cell.encode()).is_err(), "{cell:?}");
    }
    let refused = |run: Run| assert!(Run::decode(&run.encode()).is_err(), "{run:?}");
    let mut backwards = run();
    backwards.divisions.reverse();
    refused(backwards);
    refused(Run {
        divisions: vec![b"a".to_vec(); 2],
        ..run()
    });
    refused(Run {
        divisions: (0..1024).map(|at| format!("{at:04}").into()).collect(),
        ..run()
    });
    refused(Run {
        divisions: vec![long],
        ..run()
    });
    refused(Run {
        name: "n".repeat(1025),
        ..run()
    });
}

#[test]
fn only_a_collector_key_can_forget() {
    let writer = keyring().restricted_to(&[Purpose::Snapshot]);
    let forget = amendment(Change::Forget);
    assert!(seal_record(&writer, &forget, [0; 16], &[0; 32]).is_err());
    assert!(seal_record(&writer, &amendment(Change::Pin), [0; 16], &[0; 32]).is_ok());
    let object = seal_record(&keyring(), &forget, [0; 16], &[0; 32]).unwrap();
    assert!(open_record::<Amendment>(&writer, &forget.name(), &object).is_err());
}

#[test]
fn lists_out_of_order_and_limits_are_refused() {
    let refused = |cell: &Cell| assert!(seal_record(&keyring(), cell, [0; 16], &[0; 32]).is_err());
    refused(&Cell {
        tags: vec!["b".into(), "a".into()],
        ..cell()
    });
    refused(&Cell {
        tags: vec!["a".into(), "a".into()],
        ..cell()
    });
    refused(&Cell {
        tags: vec!["a".repeat(257)],
        ..cell()
    });
    refused(&Cell {
        tags: (0..1025).map(|tag| format!("{tag:04}")).collect(),
        ..cell()
    });
    refused(&Cell {
        segments: vec![ObjectId([2; 32]), ObjectId([1; 32])],
        ..cell()
    });
    refused(&Cell {
        seen_cells: (0..17).map(session_id).collect(),
        ..cell()
    });
    refused(&Cell {
        host: "h".repeat(1025),
        ..cell()
    });
    let mut high = cell();
    high.sources[0].level = 17;
    refused(&high);
    let changes: [fn(&mut Ledger); 5] = [
        |ledger| ledger.groups.swap(1, 2),
        |ledger| ledger.groups[2].how = Verification::Hashed,
        |ledger| ledger.groups[2].packs.swap(0, 1),
        |ledger| ledger.groups[0].packs.clear(),
        |ledger| ledger.groups = vec![ledger.groups[0].clone(); 4097],
    ];
    for change in changes {
        let mut ledger = ledger();
        change(&mut ledger);
        assert!(seal_record(&keyring(), &ledger, [0; 16], &[0; 32]).is_err());
    }
    let round = Round {
        condemned_packs: vec![ObjectId([1; 32]); 2],
        ..round()
    };
    assert!(seal_record(&keyring(), &round, [0; 16], &[0; 32]).is_err());
    assert!(Round::decode(&Round::default().encode()).is_err());
}

fn config() -> Config {
    Config {
        number: 2,
        repository: REPOSITORY,
        replica: ReplicaId([6; 16]),
        created: 1,
        chunker: Chunker {
            name: "fastcdc-v2020".into(),
            min_bytes: 262_144,
            mean_bytes: 1_048_576,
            max_bytes: 4_194_304,
        },
        read_features: vec![],
        write_features: vec!["w".into()],
        collect_features: vec!["c".into()],
        slots: vec![SlotId([1; 16]), SlotId([2; 16])],
    }
}

#[test]
fn a_config_is_read_without_a_key_and_believed_only_with_one() {
    let keyring = keyring();
    let object = config().seal(&keyring, [4; 16]).unwrap();
    assert_eq!(Config::read_unverified(2, &object), Ok(config()));
    assert_eq!(Config::open(&keyring, 2, &object), Ok(config()));
    assert!(Config::open(&keyring, 3, &object).is_err());
    for at in 0..object.len() - 32 {
        let mut bad = object.clone();
        bad[at] ^= 1;
        assert!(Config::read_unverified(2, &bad).is_err());
        let body = bad.len() - 32;
        let hash = object_id(&bad[..body]).0;
        bad[body..].copy_from_slice(&hash);
        assert!(Config::open(&keyring, 2, &bad).is_err(), "byte {at}");
    }
    let stranger = Keyring::generate(REPOSITORY, &[0; KEYRING_RANDOM_BYTES]);
    assert_eq!(
        Config::open(&stranger, 2, &object),
        Err(FormatError::Unauthentic { what: "config" })
    );
}

#[test]
fn unknown_features_are_refused_by_name_where_they_matter() {
    let config = config();
    assert!(config.check_read(&[]).is_ok());
    assert_eq!(
        config.check_write(&[]),
        Err(FormatError::UnknownFeature {
            feature: "w".into()
        })
    );
    assert!(config.check_write(&["w"]).is_ok());
    assert!(config.check_collect(&["w"]).is_err() && config.check_collect(&["w", "c"]).is_ok());
}

fn kdf(memory_kib: u32, passes: u32, lanes: u32) -> SlotParams {
    let kdf = KdfParams {
        memory_kib,
        passes,
        lanes,
        salt: [3; 32],
    };
    SlotParams {
        kind: SlotKind::Passphrase(kdf),
        label: "ada".into(),
        created: 1,
    }
}

#[test]
fn a_slot_opens_with_its_secret_alone_and_damage_is_told_from_a_wrong_one() {
    let keyring = keyring();
    let raw = SlotParams {
        kind: SlotKind::RawKey,
        label: String::new(),
        created: 1,
    };
    let (a, b) = (SlotId([1; 16]), SlotId([2; 16]));
    let key = [7; 32];
    let seal = |id, params, secret| seal_slot(&keyring, id, params, secret, [1; 16], &[2; 32]);
    let passphrase = kdf(64, 1, 1);
    let first = seal(&a, &passphrase, Secret::Passphrase(b"open")).unwrap();
    let second = seal(&b, &raw, Secret::RawKey(&key)).unwrap();
    assert!(seal(&b, &raw, Secret::Passphrase(b"open")).is_err());
    let slots = [
        read_slot(&a, &first).unwrap(),
        read_slot(&b, &second).unwrap(),
    ];
    let opened = |secret| {
        let found = unlock(&slots, &[a, b], REPOSITORY, secret).unwrap();
        found.map(|found| {
            assert_eq!(*found.keyring.encode(), *keyring.encode());
            found.slot
        })
    };
    assert_eq!(opened(Secret::Passphrase(b"open")), Some(a));
    assert_eq!(opened(Secret::RawKey(&key)), Some(b));
    assert_eq!(opened(Secret::Passphrase(b"Open")), None);
    assert_eq!(opened(Secret::RawKey(&[8; 32])), None);

    // A slot under another name, or with other words in the clear, is not that slot.
    let moved = [read_slot(&a, &second).unwrap()];
    let unauthentic = Err(FormatError::Unauthentic { what: "key slot" });
    let outcome = |listed| unlock(&moved, listed, REPOSITORY, Secret::RawKey(&key));
    let (alone, both) = ([a], [a, b]);
    assert_eq!(outcome(&alone).map(|_| ()), unauthentic);
    // It is still the one that it was made as, if the config lists that one.
    let found = outcome(&both).unwrap().unwrap();
    assert_eq!((found.slot, found.object), (b, object_id(&second)));
    for at in 0..second.len() - 32 {
        let mut bad = second.clone();
        bad[at] ^= 1;
        assert!(read_slot(&b, &bad).is_err());
        let body = bad.len() - 32;
        let hash = object_id(&bad[..body]).0;
        bad[body..].copy_from_slice(&hash);
        if let Ok(slot) = read_slot(&b, &bad) {
            let found = unlock(&[slot], &[a, b], REPOSITORY, Secret::RawKey(&key));
            assert!(!matches!(found, Ok(Some(_))), "byte {at}");
        }
    }
}

#[test]
fn the_cost_of_all_slots_is_bounded_before_anything_is_derived() {
    let keyring = keyring();
    let refused = |params: SlotParams| {
        let secret = Secret::Passphrase(b"open");
        let sealed = seal_slot(
            &keyring,
            &SlotId([1; 16]),
            &params,
            secret,
            [1; 16],
            &[2; 32],
        );
        assert!(sealed.is_err());
        assert!(SlotParams::decode(&params.encode()).is_err());
    };
    refused(kdf((2 << 20) + 1, 1, 1));
    refused(kdf(64, 65, 1));
    refused(kdf(1024, 1, 17));
    refused(kdf(15, 1, 2));
    refused(kdf(64, 0, 1));
    refused(kdf(64, 1, 0));
    refused(SlotParams {
        label: "x".repeat(257),
        ..kdf(64, 1, 1)
    });

    // A slot made cheaply, whose words in the clear a hostile storage has replaced.
    let id = SlotId([1; 16]);
    let cheap = kdf(64, 1, 1);
    let secret = Secret::Passphrase(b"open");
    let object = seal_slot(&keyring, &id, &cheap, secret, [1; 16], &[2; 32]).unwrap();
    let (old, new) = (cheap.encode(), kdf(2 << 20, 20, 1).encode());
    let mut dear = object[..64].to_vec();
    dear.push(new.len() as u8);
    dear.extend_from_slice(&new);
    dear.extend_from_slice(&object[65 + old.len()..object.len() - 32]);
    let hash = object_id(&dear).0;
    dear.extend_from_slice(&hash);
    let slot = read_slot(&id, &dear).unwrap();
    assert!(matches!(
        unlock(&[slot.clone(), slot], &[id], REPOSITORY, secret),
        Err(FormatError::Limit { .. })
    ));
}

fn segment(owner: Owner) -> Segment {
    let chunk = |byte| (ChunkPrefix([byte; 16]), u32::from(byte) * 100 + 1);
    let block = |chunk_type, chunks: &[u8]| DirectoryBlock {
        chunk_type,
        sealed_length: 5000,
        chunks: chunks.iter().map(|byte| chunk(*byte)).collect(),
    };
    let pack = |byte, kind, blocks| SegmentPack {
        id: ObjectId([byte; 32]),
        kind,
        length: 20_000,
        directory: Directory { blocks },
    };
    let data = vec![
        block(ChunkType::Data, &[1, 2]),
        block(ChunkType::Data, &[3]),
    ];
    let tree = vec![
        block(ChunkType::TreeLeaf, &[4]),
        block(ChunkType::Value, &[5, 6]),
    ];
    let packs = vec![pack(1, Kind::DataPack, data), pack(2, Kind::TreePack, tree)];
    Segment { owner, packs }
}

#[test]
fn segments_go_both_ways() {
    let keyring = keyring();
    for owner in [Owner::Session(session_id(1)), Owner::Round(7)] {
        let segment = segment(owner);
        let (id, object) = segment.seal(&keyring, [1; 16], &[2; 32]).unwrap();
        assert_eq!((object.len() - 64) % 512, 0);
        assert_eq!(Segment::open(&keyring, &id, &object), Ok(segment));
        for at in 0..object.len() {
            let mut bad = object.clone();
            bad[at] ^= 1;
            assert!(Segment::open(&keyring, &id, &bad).is_err());
            assert!(
                Segment::open(&keyring, &object_id(&bad), &bad).is_err(),
                "byte {at}"
            );
        }
    }
    let mut wrong = segment(Owner::Round(7));
    wrong.packs[0].length = 9_000;
    let (id, object) = wrong.seal(&keyring, [1; 16], &[2; 32]).unwrap();
    assert!(Segment::open(&keyring, &id, &object).is_err());
}

#[test]
fn a_segment_is_never_longer_than_foretold() {
    let segment = segment(Owner::Round(7));
    let (_, object) = segment.seal(&keyring(), [1; 16], &[2; 32]).unwrap();
    let foretold: usize = segment
        .packs
        .iter()
        .map(SegmentPack::encoded_bytes_max)
        .sum();
    assert!(object.len() <= (64 + 40 + 35 + foretold).next_multiple_of(512) + 64);
}

#[test]
fn keyrings_rotate_and_are_cut_down_to_roles() {
    let mut keyring = keyring();
    let old = keyring.current(Purpose::Data).unwrap().id();
    keyring.rotate(Purpose::Data, &[1; 32]).unwrap();
    let new = keyring.current(Purpose::Data).unwrap();
    assert!(new.id() != old && new.epoch() == 1);
    assert!(keyring.find(&old, Kind::DataPack).is_ok());
    assert!(keyring.find(&old, Kind::TreePack).is_err());
    assert_eq!(
        *Keyring::decode(&keyring.encode(), REPOSITORY)
            .unwrap()
            .encode(),
        *keyring.encode()
    );
    let role = keyring.restricted_to(&[Purpose::Data]);
    assert_eq!(role.keys().len(), 2);
    assert!(role.current(Purpose::Tree).is_err());
    let id = |keyring: &Keyring| keyring.chunk_id(ChunkType::Data, b"x");
    assert_eq!(id(&role), id(&keyring));
    assert_ne!(id(&keyring), keyring.chunk_id(ChunkType::Value, b"x"));
}

proptest! {
    #[test]
    fn no_bytes_pass_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let keyring = keyring();
        prop_assert!(open_record::<Cell>(&keyring, &cell().name(), &bytes).is_err());
        prop_assert!(Segment::open(&keyring, &object_id(&bytes), &bytes).is_err());
        prop_assert!(Config::read_unverified(1, &bytes).is_err());
        prop_assert!(read_slot(&SlotId::default(), &bytes).is_err());
        let _ = (Cell::decode(&bytes), Round::decode(&bytes), Session::decode(&bytes));
        let _ = (Config::decode(&bytes), SlotParams::decode(&bytes), State::decode(&bytes));
        prop_assert!(Keyring::decode(&bytes, REPOSITORY).is_err());
    }

    #[test]
    fn changed_keyrings_are_refused_or_have_one_encoding(at: prop::sample::Index, byte: u8) {
        let mut bytes = keyring().encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(keyring) = Keyring::decode(&bytes, REPOSITORY) {
            prop_assert_eq!(&*keyring.encode(), &bytes);
        }
    }
}
