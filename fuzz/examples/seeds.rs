//! Writes the seeds of the fuzz targets, each a small valid input: `cargo run --example seeds`.

use std::collections::BTreeMap;
use std::fs;

use larder_format::attributes::{ExtendedAttribute, encode};
use larder_format::bundle::{BundleRecord, Head};
use larder_format::cell::{Cell, CellKind, Source, Statistics};
use larder_format::collector::{Round, State};
use larder_format::config::{Chunker, Config};
use larder_format::directory::{Directory, DirectoryBlock};
use larder_format::entry::{Content, Entry, EntryType, Extent, Timestamp};
use larder_format::ids::ChunkType;
use larder_format::ids::{
    ChunkId, ChunkPrefix, LedgerId, ObjectId, PackPrefix, ReplicaId, RepositoryId, RunId,
    SessionId, SlotId,
};
use larder_format::ledger::{Ledger, LedgerGroup, Verification};
use larder_format::list::{ListChild, ListInterior, encode_list_leaf};
use larder_format::mirror::Manifest;
use larder_format::names::{self, Name};
use larder_format::node::{Child, Interior, LEAF_RAW_FIELDS, encode_leaf};
use larder_format::object::{CLOSING_BYTES, HEADER_BYTES, Header, Kind, close};
use larder_format::page::transpose;
use larder_format::parity::{Draft, Group, Member, SUM_BYTES};
use larder_format::quarantine::{self, RepairId, Undo};
use larder_format::record::Record;
use larder_format::run::{Run, RunEnd};
use larder_format::secret_text::recovery_key_text;
use larder_format::session::{Amendment, Base, Change, Session, SessionEnd};
use larder_format::slot::{KdfParams, SlotKind, SlotParams};
use larder_fuzz::KEYRING;
use larder_tests::hostile::inputs::{input_of, mutate};
use zstd_safe::CCtx;

const SESSION: SessionId = SessionId([5; 24]);

fn main() {
    runs();
    ids_and_objects();
    bundle();
    records();
    undo();
    pages();
    repositories();
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = format!("{}/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(format!("{folder}/{name}"), bytes).unwrap();
}

/// Runs that cross a block of every path's lanes, full of cuts and without any.
fn runs() {
    let sizes = |head: u8, [minimum, mean, maximum, segments]: [u8; 4]| {
        let mut input = vec![head; 8];
        input.extend_from_slice(&[minimum, mean, maximum, segments]);
        input
    };
    let counted = (0..9000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes());
    let mut squares = sizes(1, [0, 255, 255, 3]);
    squares.extend(counted.clone().take(12_000));
    put("chunker", "squares", squares);
    let mut small = sizes(2, [0, 0, 0, 7]);
    small.extend(counted.take(5000));
    put("chunker", "small-chunks", small);
    let mut quiet = sizes(3, [40, 3, 9, 200]);
    quiet.resize(3000, 0);
    put("chunker", "constant", quiet);
}

/// One edit of each kind in the order of `hostile::edits`, with bytes made up by the mutator; and none.
fn repositories() {
    put("repository", "untouched", []);
    for kind in 0..18 {
        let edit = [vec![kind], vec![0; 24]].concat();
        let mut input = input_of(&[edit], 256);
        for round in 0..8 {
            input = mutate(&input, 256, u64::from(kind) << 8 | round);
        }
        put("repository", &format!("edit-{kind:02}"), input);
    }
}

/// The heads of a bundle of one snapshot, and its record.
fn bundle() {
    let names = [
        Name::Config(1),
        Name::Slot(SlotId([1; 16])),
        Name::Session(SESSION),
        Name::Pack(ObjectId([0xab; 32])),
        Name::Segment(ObjectId([0xcd; 32])),
        Name::Cell(SESSION),
        Name::SessionEnd(SESSION),
    ];
    let names = names.into_iter().map(Some).chain([None]);
    let heads = names.map(|name| Head { name, length: 4096 }.encode());
    put("bundle", "heads", heads.collect::<Vec<_>>().concat());
    let record = BundleRecord {
        objects: 7,
        bytes: 7 * 4096,
        heads: [9; 32],
    };
    put("bundle", "record", record.encode());
}

fn ids_and_objects() {
    put("ids", "object", ObjectId([0xab; 32]).to_hex());
    put("ids", "session", SESSION.to_hex());
    put("names", "config", names::config(1));
    put("names", "pack", names::pack(&ObjectId([0xab; 32])));
    put("names", "amendment", names::amendment(&SESSION, 12));
    put("names", "session-end", names::session_end(&SESSION));
    put("names", "state", names::state(3));
    put(
        "recovery_key",
        "text",
        recovery_key_text(&[9; 32]).as_bytes(),
    );
    put("recovery_key", "file", format!("{}\n", "09".repeat(32)));

    let header = Header {
        kind: Kind::Session,
        key_id: KEYRING.keys()[0].id(),
        uid: [3; 16],
    };
    put(
        "object",
        "closed",
        close([header.encode().as_slice(), b"body"].concat()),
    );
    put("names", "parity", names::parity(&ObjectId([0xab; 32])));
    let members = [5000, 3].map(|length| Member {
        id: ObjectId([length as u8; 32]),
        length,
    });
    let group = Group::plan(members.to_vec(), 50, true).unwrap();
    let sums = vec![[7; SUM_BYTES]; group.pieces()];
    let parity = Draft::new(group, &sums).unwrap().finish();
    let cbor = u32::from_le_bytes(*parity[HEADER_BYTES..].first_chunk().unwrap()) as usize;
    put("parity", "group", &parity[HEADER_BYTES + 4..][..cbor]);
    put("parity", "object", &parity);
    put("keyring", "all-purposes", KEYRING.encode().as_slice());
    put(
        "slot",
        "passphrase",
        slot(SlotKind::Passphrase(KdfParams {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 1,
            salt: [1; 32],
        })),
    );
    put("slot", "raw-key", slot(SlotKind::RawKey));

    let block = |sealed_length, lengths: &[u32]| DirectoryBlock {
        chunk_type: ChunkType::Data,
        sealed_length,
        chunks: lengths
            .iter()
            .map(|length| (ChunkPrefix([4; 16]), *length))
            .collect(),
    };
    let directory = Directory {
        blocks: vec![block(900, &[10, 2000]), block(300_000, &[300_000])],
    };
    put(
        "directory",
        "data",
        [&[0], directory.encode().as_slice()].concat(),
    );
    put("pack", "directory", directory.encode());
    put("block", "stored", b"\x01\x00some bytes of a file");
    let mut segment = vec![0];
    segment.extend_from_slice(&SESSION.0);
    segment.push(0);
    put("segment", "empty", segment);
}

fn slot(kind: SlotKind) -> Vec<u8> {
    SlotParams {
        kind,
        label: "mine".to_owned(),
        created: 1_700_000_000,
    }
    .encode()
}

fn records() {
    put(
        "config",
        "first",
        Config {
            number: 1,
            repository: RepositoryId::default(),
            replica: ReplicaId([2; 16]),
            created: 1_700_000_000,
            chunker: Chunker {
                name: "fastcdc-v2020".to_owned(),
                min_bytes: 256 << 10,
                mean_bytes: 1 << 20,
                max_bytes: 4 << 20,
            },
            read_features: vec!["xaes-256-gcm".to_owned()],
            write_features: vec![],
            collect_features: vec!["rounds".to_owned()],
            slots: vec![SlotId([1; 16]), SlotId([2; 16])],
        }
        .encode(),
    );
    put(
        "session",
        "with-parent",
        Session {
            id: SESSION,
            base: Base::Parent(SessionId([4; 24])),
            started: 1_700_000_000_000_000_000,
            host: "host".to_owned(),
            user: "user".to_owned(),
            program: "larder 0.1.0".to_owned(),
            config: 1,
        }
        .encode(),
    );
    put(
        "session_end",
        "committed",
        SessionEnd {
            id: SESSION,
            ended: 1_700_000_000_000_000_001,
            cell: ObjectId([6; 32]),
        }
        .encode(),
    );
    for (name, change) in [
        (
            "tags",
            Change::SetTags(vec!["a".to_owned(), "b".to_owned()]),
        ),
        ("pin", Change::Pin),
        ("forget", Change::Forget),
    ] {
        put(
            "amendment",
            name,
            Amendment {
                cell: SESSION,
                number: 1,
                change,
                time: 1_700_000_000_000_000_000,
                host: "host".to_owned(),
                user: "user".to_owned(),
            }
            .encode(),
        );
    }
    put("cell", "complete", cell().encode());
    let run = Run {
        id: RunId([6; 16]),
        name: "nightly".to_owned(),
        begun: 1_700_000_000_000_000_000,
        source: b"s3://bucket".to_vec(),
        host: "host".to_owned(),
        asked: 4,
        divisions: vec![b"a//b".to_vec(), b"a/b".to_vec()],
        left_out: "0123456789abcdef".to_owned(),
        parent: Some(SessionId([4; 24])),
    };
    let shard = Cell {
        kind: CellKind::Shard,
        shard: run.shard(2),
        ..cell()
    };
    put("cell", "shard", shard.encode());
    put("run", "some", run.encode());
    put(
        "run_end",
        "some",
        RunEnd {
            id: run.id,
            ended: 1_700_000_000_000_000_001,
            snapshot: SESSION,
        }
        .encode(),
    );
    put(
        "round",
        "some",
        Round {
            number: 2,
            condemned_packs: vec![ObjectId([1; 32]), ObjectId([2; 32])],
            host: "host".to_owned(),
            ..Round::default()
        }
        .encode(),
    );
    let manifest = Manifest {
        number: 1,
        state: 2,
        round: 3,
        cells: vec![SESSION],
        amendments: vec![(SESSION, 1)],
        gone_packs: vec![ObjectId([1; 32])],
        time: 1_700_000_000,
        ..Manifest::default()
    };
    let object = manifest.close([7; 16]).unwrap();
    let body = HEADER_BYTES..object.len() - CLOSING_BYTES;
    put("manifest", "some", &object[body]);
    let group = |time, how, packs: &[u8]| LedgerGroup {
        time,
        how,
        packs: packs.iter().map(|byte| PackPrefix([*byte; 16])).collect(),
    };
    put(
        "ledger",
        "some",
        Ledger {
            id: LedgerId([1; 16]),
            replica: ReplicaId([2; 16]),
            groups: vec![
                group(-5, Verification::Opened, &[9]),
                group(1_700_000_000, Verification::Hashed, &[1, 7]),
                group(1_700_000_000, Verification::Opened, &[2, 3, 4]),
            ],
        }
        .encode(),
    );
    put(
        "state",
        "some",
        State {
            number: 2,
            live_cells: vec![SESSION],
            segments: vec![ObjectId([3; 32])],
            deleted_packs: vec![],
            suspect_packs: vec![],
        }
        .encode(),
    );
}

fn cell() -> Cell {
    Cell {
        kind: CellKind::Complete,
        id: SESSION,
        predecessor: None,
        parent: Some(SessionId([4; 24])),
        started: 1_700_000_000_000_000_000,
        ended: 1_700_000_001_000_000_000,
        host: "host".to_owned(),
        user: "user".to_owned(),
        tags: vec!["nightly".to_owned()],
        sources: vec![Source {
            path: b"/home".to_vec(),
            root: ChunkId([7; 32]),
            level: 1,
            entries: 40,
            bytes: 4096,
        }],
        segments: vec![ObjectId([8; 32])],
        statistics: Statistics {
            files: 30,
            directories: 10,
            ..Statistics::default()
        },
        options: BTreeMap::from([("exclude".to_owned(), "*.o".to_owned())]),
        program: "larder 0.1.0".to_owned(),
        config: 1,
        seen_cells: vec![SessionId([4; 24])],
        seen_round: 0,
        shard: None,
    }
}

/// Undo records of a repair: what was put back, what was made anew, and nothing at all.
fn undo() {
    let change = |name: String, before, after| quarantine::Change {
        name,
        before,
        after,
    };
    let record = |changes| Undo {
        repair: RepairId([1; 16]),
        number: 1,
        time: 1_700_000_000,
        host: "host".to_owned(),
        changes,
    };
    let some = vec![
        change(names::config(1), Some([2; 32]), Some([3; 32])),
        change(names::pack(&ObjectId([0xab; 32])), None, Some([4; 32])),
        change(names::session(&SESSION), Some([5; 32]), None),
    ];
    for (name, changes) in [("some", some), ("none", Vec::new())] {
        let object = record(changes).close([7; 16]).unwrap();
        let cbor = &object[HEADER_BYTES..object.len() - CLOSING_BYTES];
        put("undo", name, cbor);
    }
}

fn pages() {
    let extents = [
        Extent::Data {
            id: ChunkId([1; 32]),
            length: 4096,
        },
        Extent::Hole { length: 100 },
        Extent::Data {
            id: ChunkId([2; 32]),
            length: 7,
        },
    ];
    let leaf = encode_leaf(&entries(&extents)).unwrap();
    put("leaf", "files", &leaf);
    put("leaf", "empty", [0, 0, 0]);
    let block = transpose(&[&leaf, &leaf], LEAF_RAW_FIELDS, 3, &mut CCtx::create()).unwrap();
    put("block", "columns", [&[2, 2], block.as_slice()].concat());
    put("columns", "leaves", block);

    let child = |key: &[u8], rank, entries| Child {
        separator_key: key.to_vec(),
        separator_ordinal: 0,
        rank,
        id: ChunkId([3; 32]),
        entries,
        bytes: 1 << 20,
    };
    let children = vec![child(b"", 1, 32), child(b"b", 0, 5)];
    if let Ok(page) = (Interior { level: 1, children }).encode() {
        put("interior", "two-children", page);
    }
    put("list_leaf", "sparse", encode_list_leaf(&extents).unwrap());
    let child = |bytes| ListChild {
        id: ChunkId([3; 32]),
        bytes,
        extents: 64,
    };
    let children = vec![child(1 << 20), child(5000)];
    if let Ok(page) = (ListInterior { level: 1, children }).encode() {
        put("list_interior", "two-children", page);
    }

    let attribute = |name: &[u8], value: &[u8]| ExtendedAttribute {
        name: name.to_vec(),
        value: value.to_vec(),
    };
    let two = [
        attribute(b"security.x", &[0; 20]),
        attribute(b"user.comment", b"hello"),
    ];
    put("attributes", "two", encode(&two).unwrap());

    let column = |values: &[u64]| {
        let mut column = (values.len() as u16).to_le_bytes().to_vec();
        larder_format::column::put_integers(&mut column, values);
        column
    };
    put("column", "constant", column(&[7; 5]));
    put(
        "column",
        "delta",
        column(&[1 << 40, (1 << 40) + 1, (1 << 40) + 2]),
    );
    put(
        "column",
        "scaled",
        column(&[9_000_000, 3_000_000, 5_000_000]),
    );
    let mut strings = 2_u16.to_le_bytes().to_vec();
    larder_format::column::put_strings(&mut strings, [b"ab".as_slice(), b"c"].into_iter());
    put("column", "strings", strings);
}

fn entries(extents: &[Extent]) -> Vec<Entry> {
    let base = Entry {
        mode: 0o644,
        mtime: Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 5,
        },
        user: b"user".to_vec(),
        links: 1,
        ..Entry::default()
    };
    let with = |key: &[u8], kind| Entry {
        key: key.to_vec(),
        kind,
        ..base.clone()
    };
    let size = extents.iter().map(Extent::length).sum();
    vec![
        with(b"", EntryType::Directory),
        with(b"a/", EntryType::Directory),
        Entry {
            size,
            content: Content::Extents(extents.to_vec()),
            ..with(b"a/sparse", EntryType::File)
        },
        Entry {
            size: 9,
            content: Content::Whole(ChunkId([9; 32])),
            ..with(b"a/whole", EntryType::File)
        },
        with(b"empty", EntryType::File),
        Entry {
            link_target: b"a/whole".to_vec(),
            ..with(b"link", EntryType::Symlink)
        },
        with(b"pipe", EntryType::Fifo),
    ]
}
