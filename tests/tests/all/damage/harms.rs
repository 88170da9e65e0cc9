//! What may happen to an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::ids::{LedgerId, ObjectId, RunId, SessionId, SlotId};
use larder_format::names::{self, Name};

use super::exhibits::{KINDS, Kind, Museum, Region, kind_of, regions};
use super::overlay::Overlay;

/// The ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A bit of the region is another.
    Flip,
    /// Up to 64 bytes of the region are zero.
    Zero,
    /// It ends in the region.
    Truncate,
    /// Bytes come in at the region's end.
    Extend,
    /// It is gone.
    Delete,
    /// It and another object of its kind have each other's bytes.
    SwapSame,
    /// It and an object of another kind have.
    SwapOther,
    /// It has the bytes of an older object of its kind.
    Older,
    /// Its bytes stand under another name of its kind, too.
    Duplicate,
}

impl Harm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Flip,
        Self::Zero,
        Self::Truncate,
        Self::Extend,
        Self::Delete,
        Self::SwapSame,
        Self::SwapOther,
        Self::Older,
        Self::Duplicate,
    ];

    /// Tells whether it happens to a region, not to the whole object.
    pub fn is_of_a_region(self) -> bool {
        matches!(
            self,
            Self::Flip | Self::Zero | Self::Truncate | Self::Extend
        )
    }
}

/// One damage: where, to what, and how.
#[derive(Clone)]
pub struct Case {
    /// Its number, by which it is replayed.
    pub number: usize,
    /// The kind of object.
    pub kind: &'static Kind,
    /// The object.
    pub name: String,
    /// The region; for what happens to all of it, the first.
    pub region: Region,
    /// What happens.
    pub harm: Harm,
    /// What becomes of which object; none for one that is gone.
    pub changes: BTreeMap<String, Option<Bytes>>,
    /// The first byte that differs, for what happens to a region.
    pub at: usize,
}

impl Case {
    /// Says what it is.
    pub fn describe(&self) -> String {
        let Self {
            number,
            kind,
            name,
            region,
            harm,
            at,
            ..
        } = self;
        match harm.is_of_a_region() {
            true => format!(
                "{number}: {harm:?} {} at {at} of {} {name}",
                region.word, kind.word
            ),
            false => format!("{number}: {harm:?} {} {name}", kind.word),
        }
    }

    /// Gives the storage with the damage.
    pub fn inflict(&self, museum: &Museum) -> Arc<Overlay> {
        let storage = Overlay::new(museum.objects(self.kind.place));
        for (name, bytes) in &self.changes {
            storage.set(name, bytes.clone());
        }
        Arc::new(storage)
    }
}

/// Gives the whole product: every way, for every region of an object of every kind.
pub fn product(museum: &Museum) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in KINDS {
        let objects = museum.objects(kind.place);
        let is_one = |name: &&String| {
            kind_of(museum, kind.place, name).is_some_and(|one| one.word == kind.word)
        };
        // The largest has most to lose.
        let ones = objects.keys().filter(is_one);
        let name = ones.max_by_key(|name| objects[*name].len());
        let name = name.unwrap_or_else(|| panic!("there is no {}", kind.word));
        let regions = regions(museum, name, &objects[name]);
        for harm in Harm::ALL {
            for region in regions
                .iter()
                .take(if harm.is_of_a_region() { usize::MAX } else { 1 })
            {
                let number = cases.len();
                let mut case = Case {
                    number,
                    kind,
                    name: name.clone(),
                    region: region.clone(),
                    harm,
                    changes: BTreeMap::new(),
                    at: region.range.start,
                };
                if change(museum, &mut case) {
                    cases.push(case);
                }
            }
        }
    }
    cases
}

/// Sets what becomes of which object; tells whether the harm can happen at all.
fn change(museum: &Museum, case: &mut Case) -> bool {
    let objects = museum.objects(case.kind.place);
    let name = case.name.clone();
    let bytes = &objects[&name];
    let range = case.region.range.clone();
    // By the case alone, so that it is the same in each run whose objects have the same lengths.
    let inside = blake3::hash(
        case.describe()
            .split(' ')
            .skip(1)
            .take(4)
            .collect::<String>()
            .as_bytes(),
    );
    let seed = inside.as_bytes();
    let offset = usize::from(u16::from_le_bytes([seed[0], seed[1]])) % range.len();
    let at = range.start + offset;
    let mut changes = BTreeMap::new();
    let mut put = |name: &str, bytes: Vec<u8>| {
        changes.insert(name.to_owned(), Some(Bytes::from(bytes)));
    };
    match case.harm {
        Harm::Flip => {
            let mut new = bytes.to_vec();
            new[at] ^= 1 << (seed[2] % 8);
            put(&name, new);
            case.at = at;
        }
        Harm::Zero => {
            let mut new = bytes.to_vec();
            let end = (at + 64).min(range.end);
            new[at..end].fill(0);
            if new == *bytes {
                new[at..end].fill(0xff);
            }
            put(&name, new);
            case.at = at;
        }
        Harm::Truncate => {
            put(&name, bytes[..at].to_vec());
            case.at = at;
        }
        Harm::Extend => {
            let more = [&bytes[..range.end], &seed[..7], &bytes[range.end..]].concat();
            put(&name, more);
            case.at = range.end;
        }
        Harm::Delete => drop(changes.insert(name, None)),
        Harm::SwapSame | Harm::Older => {
            let Some(other) = neighbour(museum, case, true) else {
                return false;
            };
            let others = objects[&other].clone();
            put(&name, others.to_vec());
            if case.harm == Harm::SwapSame {
                put(&other, bytes.to_vec());
            }
        }
        Harm::SwapOther => {
            let Some(other) = neighbour(museum, case, false) else {
                return false;
            };
            let others = objects[&other].clone();
            put(&name, others.to_vec());
            put(&other, bytes.to_vec());
        }
        Harm::Duplicate => match foreign_name(case) {
            Some(other) => put(&other, bytes.to_vec()),
            None => return false,
        },
    }
    case.changes = changes;
    true
}

/// Finds another object, of the same folder and kind in its header or of another one.
fn neighbour(museum: &Museum, case: &Case, is_same: bool) -> Option<String> {
    let objects = museum.objects(case.kind.place);
    let header = |name: &str| objects[name].get(9).copied();
    let folder = |name: &str| name.split('/').next().unwrap().to_owned();
    let is_meant = |name: &&String| {
        let same = header(name) == header(&case.name) && folder(name) == folder(&case.name);
        same == is_same && **name != case.name && objects[*name] != objects[&case.name]
    };
    let others: Vec<&String> = objects.keys().filter(is_meant).collect();
    others
        .get(case.number % others.len().max(1))
        .map(|name| (*name).clone())
}

/// Gives a name of the same kind that no object has.
fn foreign_name(case: &Case) -> Option<String> {
    let other = |id: [u8; 24]| SessionId(id.map(|byte| byte ^ 0x11));
    let next = |id: SessionId| {
        let mut other = other(id.0);
        other.0[..8].copy_from_slice(&id.0[..8]);
        other
    };
    let name = match names::parse(&case.name) {
        Some(name) => match name {
            Name::Config(u64::MAX) => return None,
            Name::Config(_) => Name::Config(3),
            Name::Slot(id) => Name::Slot(SlotId(id.0.map(|byte| byte ^ 0x11))),
            Name::ConfigTwin(_) => Name::ConfigTwin(3),
            Name::SlotTwin(id) => Name::SlotTwin(SlotId(id.0.map(|byte| byte ^ 0x11))),
            Name::Pack(id) => Name::Pack(ObjectId(id.0.map(|byte| byte ^ 0x11))),
            Name::Parity(id) => Name::Parity(ObjectId(id.0.map(|byte| byte ^ 0x11))),
            Name::Segment(id) => Name::Segment(ObjectId(id.0.map(|byte| byte ^ 0x11))),
            Name::Session(id) => Name::Session(next(id)),
            Name::SessionEnd(id) => Name::SessionEnd(next(id)),
            Name::Cell(id) => Name::Cell(next(id)),
            Name::Amendment(id, k) => Name::Amendment(id, k + 7),
            Name::Round(n) => Name::Round(n + 1),
            Name::State(n) => Name::State(n + 1),
            Name::Ledger(id) => Name::Ledger(LedgerId(id.0.map(|byte| byte ^ 0x11))),
            Name::Run(id) => Name::Run(RunId(id.0.map(|byte| byte ^ 0x11))),
            Name::RunEnd(id) => Name::RunEnd(RunId(id.0.map(|byte| byte ^ 0x11))),
            Name::Manifest(n) => Name::Manifest(n + 1),
            Name::Reserve => return Some("reserve.1".to_owned()),
        },
        None => return Some(format!("{}.1", case.name)),
    };
    Some(name.to_string())
}
