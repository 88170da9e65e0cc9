//! A repository with every kind of object in it, its mirror, and what each kind is made of.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use larder_engine::amend::{Wish, amend};
use larder_engine::backup::{BackupOptions, backup};
use larder_engine::cancel::Cancel;
use larder_engine::check::{CheckOptions, ReadData, check};
use larder_engine::keys;
use larder_engine::mirror::{SyncOptions, sync};
use larder_engine::progress::Silent;
use larder_engine::prune::{PruneOptions, prune};
use larder_engine::repair::{Repair, RepairOptions};
use larder_engine::repository::{Cache, OpenOptions, Repository};
use larder_engine::simulated::{self, Simulated};
use larder_engine::storage::Storage;
use larder_engine::view;
use larder_format::collector::Round;
use larder_format::ids::SessionId;
use larder_format::names::{self, Name};
use larder_format::quarantine;
use larder_format::record::{open_record, seal_record};
use larder_format::run::{Run, RunEnd};

use super::oracle::Oracle;
use super::overlay::{Objects, Overlay};
use crate::fixture::{Desk, KDF, author, init_options, prune_options, secret, snapshots};
use crate::program::noise;

/// A repository, its mirror, and who knows what must come of them.
pub struct Museum {
    /// The source as it is now, and where restores go.
    pub desk: Desk,
    /// The repository's objects.
    pub repository: Arc<Objects>,
    /// Those of a mirror that is up to date.
    pub mirror: Arc<Objects>,
    /// What every live snapshot holds.
    pub oracle: Oracle,
    /// Packs and segments of a backup that died: nothing that counts names them.
    pub orphans: Vec<String>,
    /// Cells that were forgotten, or that are checkpoints which a snapshot replaced.
    pub ended: Vec<SessionId>,
    /// Packs that the round condemns: nothing needs them any more.
    pub condemned: Vec<String>,
    /// The session that has no cell.
    pub open_session: SessionId,
}

/// Opens with the first secret that does; all is asked of the storage by one thread.
pub fn open(desk: &Desk, storage: &Arc<Overlay>) -> larder_engine::error::Result<Arc<Repository>> {
    let first = desk.open(storage, "one");
    first.or_else(|error| desk.open(storage, "two").map_err(|_| error))
}

/// Gives how a repository is opened for a repair.
pub fn open_options(desk: &Desk) -> OpenOptions {
    OpenOptions {
        cache_dir: Some(desk.path("cache")),
        state_dir: None,
        threads: 1,
        cache: Cache::Memory,
        in_order: true,
    }
}

/// Blocks of one file each, so that some may be lost and others not.
pub fn backup_options(desk: &Desk) -> BackupOptions {
    BackupOptions {
        solid: false,
        ..desk.options()
    }
}

fn back_up(desk: &Desk, storage: &Arc<Overlay>, solid: bool) -> SessionId {
    let repository = open(desk, storage).unwrap();
    let options = BackupOptions {
        solid,
        ..backup_options(desk)
    };
    let report = backup(&repository, &options, &Silent, &Cancel::default()).unwrap();
    let listed = snapshots(&repository);
    let made = listed
        .iter()
        .find(|one| Some(&one.id) == report.snapshot.as_ref());
    made.unwrap().session
}

fn wish(desk: &Desk, storage: &Arc<Overlay>, id: &SessionId, wish: &Wish) {
    let repository = open(desk, storage).unwrap();
    let mut view = view::read_cells(&repository, None).unwrap();
    amend(&repository, &mut view, id, wish, &author()).unwrap();
}

impl Museum {
    /// Makes one of each kind of object, as years of use leave them behind.
    pub fn new() -> Self {
        let now_ns = 30_000 * 86_400 * 1_000_000_000;
        simulated::enter(Some(Simulated::new(1, now_ns, Duration::from_secs(1))));
        let mut desk = Desk::new(Cache::Memory);
        desk.in_order = true;
        let storage = Arc::new(Overlay::new(&Arc::default()));
        Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
        let repository = desk.open(&storage, "one").unwrap();
        keys::add(&repository, &secret("two"), false, "second", KDF).unwrap();
        for number in 0..40_u64 {
            let name = format!("d{}/f{number:02}", number % 3);
            desk.write(&name, &noise(number, 100 + 20 * number as usize));
        }
        desk.write("long", &noise(99, 50_000));
        let mut live = vec![back_up(&desk, &storage, true)];
        desk.write("d0/gone", &noise(100, 6000));
        let gone = back_up(&desk, &storage, true);
        wish(&desk, &storage, &gone, &Wish::Forget);
        prune(
            &open(&desk, &storage).unwrap(),
            &prune_options(),
            &Silent,
            &Cancel::default(),
        )
        .unwrap();
        desk.write("d1/f01", &noise(101, 2000));
        desk.write("d2/new", &noise(102, 700));
        live.push(back_up(&desk, &storage, false));
        wish(
            &desk,
            &storage,
            &live[1],
            &Wish::SetTags(vec!["kept".to_owned()]),
        );
        wish(&desk, &storage, &live[1], &Wish::Pin);
        desk.write("d0/passing", &noise(103, 900));
        let forgotten = back_up(&desk, &storage, false);
        wish(&desk, &storage, &forgotten, &Wish::Forget);
        let checkpoint = Self::checkpoint(&desk, &storage);
        live.push(back_up(&desk, &storage, false));
        let (open_session, orphans) = Self::die(&desk, &storage);
        Self::verify(&desk, &storage);
        Self::leave_a_run(&repository, &storage, live[1], now_ns);
        Self::leave_a_round(&desk, &storage);
        let mirror = Self::mirror(&storage);
        Self::repair(&desk, &storage, &mirror);
        desk.write("d1/later", &noise(105, 800));
        let objects = Arc::new(storage.objects());
        let keyring = repository.keyring().clone();
        let round: Round =
            open_record(&keyring, &Name::Round(2), &objects[&names::round(2)]).unwrap();
        Self {
            condemned: round.condemned_packs.iter().map(names::pack).collect(),
            oracle: Oracle::new(keyring, &objects, &live),
            desk,
            repository: objects,
            mirror: Arc::new(mirror.objects()),
            orphans,
            ended: [vec![forgotten], checkpoint].concat(),
            open_session,
        }
    }

    /// Leaves a checkpoint for the next backup to go on from.
    fn checkpoint(desk: &Desk, storage: &Arc<Overlay>) -> Vec<SessionId> {
        desk.write("d0/f00", &noise(104, 3000));
        let repository = open(desk, storage).unwrap();
        let before = cells(storage);
        desk.back_up_partly(&repository, 20).unwrap_err();
        let new = cells(storage).into_iter().filter(|id| !before.contains(id));
        new.collect()
    }

    /// Lets a backup die before its cell; gives its session, and what it uploaded.
    fn die(desk: &Desk, storage: &Arc<Overlay>) -> (SessionId, Vec<String>) {
        use larder_engine::storage::error::{ErrorKind, Operation};
        use larder_engine::storage::faulty::{Effect, Fault, Faulty, When};
        let before = storage.objects();
        desk.write("d2/dying", &noise(106, 5000));
        let faulty = Arc::new(Faulty::new(Arc::clone(storage) as Arc<dyn Storage>));
        let repository = desk.open(&faulty, "one").unwrap();
        // The session is created, and then the cell.
        faulty.inject(Fault {
            nth: 2,
            operation: Some(Operation::Create),
            lasts: true,
            effect: Effect::Error(When::Before, ErrorKind::Permanent),
        });
        backup(
            &repository,
            &backup_options(desk),
            &Silent,
            &Cancel::default(),
        )
        .unwrap_err();
        std::fs::remove_file(desk.path("source/d2/dying")).unwrap();
        let after = storage.objects();
        let new: Vec<String> = after
            .into_keys()
            .filter(|name| !before.contains_key(name))
            .collect();
        let session = new.iter().find_map(|name| match names::parse(name) {
            Some(Name::Session(id)) => Some(id),
            _ => None,
        });
        let is_orphan = |name: &String| name.starts_with("packs/") || name.starts_with("index/");
        let orphans: Vec<String> = new.iter().filter(|name| is_orphan(name)).cloned().collect();
        assert!(orphans.len() >= 2, "{new:?}");
        (session.unwrap(), orphans)
    }

    /// Verifies all data, which leaves a ledger.
    fn verify(desk: &Desk, storage: &Arc<Overlay>) {
        let options = CheckOptions {
            read_data: ReadData::All,
            records_suspects: true,
        };
        let repository = open(desk, storage).unwrap();
        check(&repository, &options, &Silent, &Cancel::default()).unwrap();
    }

    /// Leaves what a run of several shards leaves: how it divided its bucket, and what became of it.
    fn leave_a_run(repository: &Repository, storage: &Overlay, snapshot: SessionId, now: i64) {
        let id = repository.keyring().run_id("nightly");
        let run = Run {
            id,
            name: "nightly".to_owned(),
            begun: now,
            source: b"s3://bucket".to_vec(),
            host: "desk".to_owned(),
            asked: 2,
            divisions: vec![b"m".to_vec()],
            left_out: String::new(),
            parent: None,
        };
        let end = RunEnd {
            id,
            ended: now,
            snapshot,
        };
        let keyring = repository.keyring();
        let run = seal_record(keyring, &run, [1; 16], &[2; 32]).unwrap();
        let end = seal_record(keyring, &end, [3; 16], &[4; 32]).unwrap();
        storage.set(&names::run(&id), Some(run.into()));
        storage.set(&names::run_end(&id), Some(end.into()));
    }

    /// Leaves a round that waits for the session that died.
    fn leave_a_round(desk: &Desk, storage: &Arc<Overlay>) {
        let options = PruneOptions {
            wait: false,
            patience: Duration::from_secs(1_000_000_000),
            ..prune_options()
        };
        let repository = open(desk, storage).unwrap();
        let report = prune(&repository, &options, &Silent, &Cancel::default()).unwrap();
        assert!(report.waiting.is_some(), "{report:?}");
    }

    fn mirror(storage: &Arc<Overlay>) -> Arc<Overlay> {
        let mirror = Arc::new(Overlay::new(&Arc::default()));
        let (from, to): (Arc<dyn Storage>, Arc<dyn Storage>) = (storage.clone(), mirror.clone());
        let options = SyncOptions::default();
        let scratch = std::env::temp_dir();
        sync(&from, &to, &scratch, options, &Silent, &Cancel::default()).unwrap();
        mirror
    }

    /// Repairs something, which leaves it in quarantine.
    fn repair(desk: &Desk, storage: &Arc<Overlay>, mirror: &Arc<Overlay>) {
        let objects = storage.objects();
        let is_slot = |name: &&String| name.starts_with(names::SLOTS);
        let name = objects.keys().find(is_slot).unwrap();
        let mut bytes = objects[name].to_vec();
        bytes[100] ^= 1;
        storage.set(name, Some(bytes.into()));
        let options = RepairOptions {
            apply: true,
            read_data: false,
            cuts_lost: false,
            author: author(),
        };
        let (base, from): (Arc<dyn Storage>, Arc<dyn Storage>) = (storage.clone(), mirror.clone());
        let cancel = Cancel::default();
        let scratch = std::env::temp_dir();
        let repair =
            Repair::prepare(&base, Some(&from), &scratch, &options, &Silent, &cancel).unwrap();
        let opened =
            Repository::open_on(repair.storage(), &secret("one"), &open_options(desk)).unwrap();
        let report = repair.run(&opened, &open_options(desk)).unwrap();
        assert_eq!(report.objects, 1, "{report:?}");
        assert_eq!(storage.objects()[name], objects[name]);
    }

    /// Gives the objects of one of the two storages.
    pub fn objects(&self, place: Place) -> &Arc<Objects> {
        match place {
            Place::Repository => &self.repository,
            Place::Mirror => &self.mirror,
        }
    }
}

fn cells(storage: &Overlay) -> Vec<SessionId> {
    let objects = storage.objects();
    let cells = objects.keys().filter_map(|name| match names::parse(name) {
        Some(Name::Cell(id)) => Some(id),
        _ => None,
    });
    cells.collect()
}

/// Which storage an object is damaged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The repository's.
    Repository,
    /// The mirror's.
    Mirror,
}

/// What a level of check must say of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The repository does not open, and the error names it.
    Refused,
    /// A finding that is more than a note names it.
    Named,
    /// A note names it: nothing depends on it.
    Noted,
    /// Nothing need be said.
    Nothing,
    /// Named if it is missing or has another size.
    ByItsSize,
    /// The same, and if a node that a snapshot needs does not open any more.
    ByItsNodes,
}

use Told::{ByItsNodes, ByItsSize, Named, Noted, Nothing, Refused};

/// What quick, structure and data must say.
pub type Levels = [Told; 3];

/// A kind of object: how to tell it, and what each level of check promises of it.
pub struct Kind {
    /// How it is called here.
    pub word: &'static str,
    /// Where it is.
    pub place: Place,
    is_one: fn(&Museum, &str, Option<Name>) -> bool,
    /// What must be said if its bytes are not its own.
    pub altered: Levels,
    /// What must be said if it is not there.
    pub missing: Levels,
    /// What must be said if its bytes stand under another name of its kind that nothing has.
    pub planted: Levels,
    /// Whether nothing else depends on it: every operation succeeds, whatever becomes of it.
    pub is_idle: bool,
}

/// Every kind of object, the more special before the more general. What is nothing to check and why:
/// nothing that counts names an orphan, or says that a session without a cell, a ledger, the last amendment or the
/// round that nobody has committed under is there; what lies in quarantine is looked at by who undoes the repair
/// (SPEC.md §2); a pack or segment under a foreign name is one more orphan, and a slot that no config lists opens nothing.
#[rustfmt::skip]
pub const KINDS: &[Kind] = &[
    Kind { word: "config", place: Place::Repository, is_one: |_, _, name| name == Some(Name::Config(2)),
        altered: [Named; 3], missing: [Named; 3], planted: [Named; 3], is_idle: true },
    Kind { word: "older config", place: Place::Repository, is_one: |_, _, name| name == Some(Name::Config(1)),
        altered: [Named; 3], missing: [Named; 3], planted: [Named; 3], is_idle: true },
    Kind { word: "key slot", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::Slot(_))),
        altered: [Named; 3], missing: [Named; 3], planted: [Noted; 3], is_idle: true },
    Kind { word: "twin of a config", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::ConfigTwin(_))),
        altered: [Named; 3], missing: [Noted; 3], planted: [Named; 3], is_idle: true },
    Kind { word: "twin of a key slot", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::SlotTwin(_))),
        altered: [Named; 3], missing: [Noted; 3], planted: [Noted; 3], is_idle: true },
    Kind { word: "orphan pack", place: Place::Repository, is_one: |museum, text, name| matches!(name, Some(Name::Pack(_))) && museum.orphans.iter().any(|one| one == text),
        altered: [Nothing; 3], missing: [Nothing; 3], planted: [Nothing; 3], is_idle: true },
    Kind { word: "data pack", place: Place::Repository, is_one: |museum, text, name| matches!(name, Some(Name::Pack(_))) && has_kind(museum, text, 3),
        altered: [ByItsSize, ByItsSize, Named], missing: [Named; 3], planted: [Nothing; 3], is_idle: false },
    Kind { word: "tree pack", place: Place::Repository, is_one: |museum, text, name| matches!(name, Some(Name::Pack(_))) && has_kind(museum, text, 4),
        altered: [ByItsSize, ByItsNodes, Named], missing: [Named; 3], planted: [Nothing; 3], is_idle: false },
    Kind { word: "orphan segment", place: Place::Repository, is_one: |museum, text, name| matches!(name, Some(Name::Segment(_))) && museum.orphans.iter().any(|one| one == text),
        altered: [Nothing; 3], missing: [Nothing; 3], planted: [Nothing, Noted, Noted], is_idle: true },
    Kind { word: "segment", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::Segment(_))),
        altered: [Named; 3], missing: [Named; 3], planted: [Nothing, Noted, Noted], is_idle: false },
    Kind { word: "open session", place: Place::Repository, is_one: |museum, _, name| name == Some(Name::Session(museum.open_session)),
        altered: [Nothing, Named, Named], missing: [Nothing; 3], planted: [Nothing, Named, Named], is_idle: false },
    Kind { word: "session", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::Session(id)) if id.round() > 0),
        altered: [Nothing, Named, Named], missing: [Nothing, Named, Named], planted: [Nothing, Named, Named], is_idle: false },
    Kind { word: "session end", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::SessionEnd(_))),
        altered: [Nothing, Named, Named], missing: [Nothing, Noted, Noted], planted: [Nothing, Named, Named], is_idle: true },
    Kind { word: "ended cell", place: Place::Repository, is_one: |museum, _, name| matches!(name, Some(Name::Cell(id)) if museum.ended.contains(&id)),
        altered: [Named; 3], missing: [Nothing, Named, Named], planted: [Named; 3], is_idle: false },
    Kind { word: "cell", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::Cell(_))),
        altered: [Named; 3], missing: [Nothing, Named, Named], planted: [Named; 3], is_idle: false },
    Kind { word: "amendment", place: Place::Repository, is_one: |museum, text, name| matches!(name, Some(Name::Amendment(id, k)) if museum.repository.contains_key(&names::amendment(&id, k + 1)) && !text.is_empty()),
        altered: [Named; 3], missing: [Nothing, Named, Named], planted: [Named; 3], is_idle: false },
    Kind { word: "last amendment", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::Amendment(..))),
        altered: [Named; 3], missing: [Nothing; 3], planted: [Named; 3], is_idle: false },
    Kind { word: "round", place: Place::Repository, is_one: |_, _, name| name == Some(Name::Round(2)),
        altered: [Named; 3], missing: [Nothing; 3], planted: [Named; 3], is_idle: false },
    Kind { word: "state", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::State(1))),
        altered: [Named; 3], missing: [Named; 3], planted: [Named; 3], is_idle: false },
    Kind { word: "reserve", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::Reserve)),
        altered: [Nothing, Named, Named], missing: [Nothing, Noted, Noted], planted: [Nothing, Noted, Noted], is_idle: true },
    Kind { word: "ledger", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::Ledger(_))),
        altered: [Nothing, Named, Named], missing: [Nothing; 3], planted: [Nothing, Named, Named], is_idle: true },
    Kind { word: "run", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::Run(_))),
        altered: [Nothing, Named, Named], missing: [Nothing; 3], planted: [Nothing, Named, Named], is_idle: true },
    Kind { word: "run end", place: Place::Repository, is_one: |_, _, name| matches!(name, Some(Name::RunEnd(_))),
        altered: [Nothing, Named, Named], missing: [Nothing; 3], planted: [Nothing, Named, Named], is_idle: true },
    Kind { word: "undo record", place: Place::Repository, is_one: |_, text, _| quarantine::parse_record(text).is_some(),
        altered: [Nothing; 3], missing: [Nothing; 3], planted: [Nothing; 3], is_idle: true },
    Kind { word: "copy in quarantine", place: Place::Repository, is_one: |_, text, _| text.starts_with(names::QUARANTINE),
        altered: [Nothing; 3], missing: [Nothing; 3], planted: [Nothing; 3], is_idle: true },
    Kind { word: "marker of a mirror", place: Place::Mirror, is_one: |_, _, name| name == Some(Name::Config(u64::MAX)),
        altered: [Refused; 3], missing: [Nothing; 3], planted: [Nothing; 3], is_idle: false },
    Kind { word: "manifest of a mirror", place: Place::Mirror, is_one: |_, _, name| matches!(name, Some(Name::Manifest(_))),
        altered: [Refused; 3], missing: [Nothing; 3], planted: [Refused; 3], is_idle: false },
];

/// Tells whether an object was of a kind, by its header's number.
fn has_kind(museum: &Museum, name: &str, number: u8) -> bool {
    museum
        .repository
        .get(name)
        .is_some_and(|bytes| bytes[9] == number)
}

/// Gives the kind of an object; what counts for nothing any more has none.
pub fn kind_of(museum: &Museum, place: Place, name: &str) -> Option<&'static Kind> {
    let parsed = names::parse(name);
    KINDS
        .iter()
        .find(|kind| kind.place == place && (kind.is_one)(museum, name, parsed))
}

/// A part of an object that means something of its own.
#[derive(Debug, Clone)]
pub struct Region {
    /// How it is called.
    pub word: &'static str,
    /// Where it is.
    pub range: Range<usize>,
}

/// Gives the parts of an object, by SPEC.md.
pub fn regions(museum: &Museum, name: &str, bytes: &[u8]) -> Vec<Region> {
    const HEADER: usize = 64;
    let end = bytes.len();
    let mut parts = vec![
        ("magic", 0..8),
        ("version and kind", 8..10),
        ("zeros of the header", 10..16),
        ("key id", 16..48),
        ("uid", 48..HEADER),
    ];
    let closed = end - 32;
    let sealed = |from: usize, to: usize| {
        [
            ("nonce", from..from + 24),
            ("ciphertext", from + 24..to - 16),
            ("tag", to - 16..to),
        ]
    };
    let inner = name
        .strip_prefix(names::QUARANTINE)
        .and_then(|rest| rest.split_once('/'));
    let parsed = names::parse(inner.map_or(name, |(_, rest)| rest));
    match parsed.map(|name| name.original().unwrap_or(name)) {
        Some(Name::Pack(id)) => {
            parts.extend(pack(museum, &id, bytes));
        }
        Some(Name::Segment(_)) => parts.extend(sealed(HEADER, end)),
        Some(Name::Config(_)) => {
            parts.extend([("CBOR", HEADER..closed - 32), ("MAC", closed - 32..closed)]);
            parts.push(("closing hash", closed..end));
        }
        Some(Name::Slot(_)) => {
            let (length, size) = varint(&bytes[HEADER..]);
            let params = HEADER + size + length;
            parts.push(("parameters", HEADER..params));
            parts.extend(sealed(params, closed));
            parts.push(("closing hash", closed..end));
        }
        Some(Name::Reserve | Name::Manifest(_)) | None => {
            parts.extend([("body", HEADER..closed), ("closing hash", closed..end)]);
        }
        Some(_) => {
            parts.extend(sealed(HEADER, closed));
            parts.push(("closing hash", closed..end));
        }
    }
    let whole = parts.into_iter().filter(|(_, range)| !range.is_empty());
    whole.map(|(word, range)| Region { word, range }).collect()
}

fn pack(
    museum: &Museum,
    id: &larder_format::ids::ObjectId,
    bytes: &[u8],
) -> Vec<(&'static str, Range<usize>)> {
    let end = bytes.len();
    let blocks = museum.oracle.blocks(id);
    let mut parts = Vec::new();
    let mut after = 64;
    for (number, (at, block)) in blocks.iter().enumerate() {
        let (from, to) = (*at as usize, *at as usize + block.sealed_length as usize);
        after = to;
        if number == blocks.len() / 2 {
            parts.push(("nonce of a block", from..from + 24));
            parts.push(("tag of a block", to - 16..to));
        }
        if number == 0 {
            parts.push(("first block", from + 24..to - 16));
        } else if number + 1 == blocks.len() {
            parts.push(("last block", from + 24..to - 16));
        } else if number == blocks.len() / 3 {
            parts.push(("inner block", from + 24..to - 16));
        }
    }
    let footer = end - 16;
    let sealed = u32::from_le_bytes(bytes[footer..footer + 4].try_into().unwrap()) as usize;
    let directory = footer - sealed;
    parts.extend([
        ("padding", after..directory),
        ("nonce of the directory", directory..directory + 24),
        ("directory", directory + 24..footer - 16),
        ("tag of the directory", footer - 16..footer),
        ("length of the directory", footer..footer + 4),
        ("zeros of the footer", footer + 4..footer + 8),
        ("end of the footer", footer + 8..end),
    ]);
    parts
}

fn varint(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0;
    for (number, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            return (value, number + 1);
        }
    }
    unreachable!()
}
