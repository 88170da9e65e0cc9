//! Ledgers: when packs were last verified, and how (SPEC.md §11).

use alloc::vec::Vec;

use crate::cbor::{self, Encoder, within};
use crate::error::Result;
use crate::ids::{LedgerId, PackPrefix, ReplicaId};
use crate::limits::{COLLECTOR_IDS, LEDGER_GROUPS};
use crate::names::Name;
use crate::object::Kind;
use crate::record::Record;
use crate::session::must_ascend;

const WHAT: &str = "ledger";
const PREFIX_BYTES: usize = 16;

/// How packs were verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verification {
    /// All their bytes were hashed and compared with their names.
    Hashed,
    /// The same, and every block was opened and every chunk compared with its id.
    Opened,
}

/// Packs that were verified at one time in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerGroup {
    /// When, in seconds since 1970.
    pub time: i64,
    /// How.
    pub how: Verification,
    /// The packs, ascending; at least one.
    pub packs: Vec<PackPrefix>,
}

/// What one run knew of when packs were verified, its own work included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// The ledger itself.
    pub id: LedgerId,
    /// The storage that the packs were read from.
    pub replica: ReplicaId,
    /// Ascending by time and way, each pair once.
    pub groups: Vec<LedgerGroup>,
}

impl Record for Ledger {
    const KIND: Kind = Kind::Ledger;

    fn name(&self) -> Name {
        Name::Ledger(self.id)
    }

    fn encode(&self) -> Vec<u8> {
        let packs: usize = self.groups.iter().map(|group| group.packs.len()).sum();
        let mut encoder = Encoder::with_capacity(256 + packs * PREFIX_BYTES);
        encoder.map(3).uint(0).bytes(&self.id.0);
        encoder.uint(1).bytes(&self.replica.0);
        encoder.uint(2).array(self.groups.len());
        for group in &self.groups {
            let joined: Vec<u8> = group.packs.iter().flat_map(|pack| pack.0).collect();
            encoder.array(3).int(group.time).uint(group.how.number());
            encoder.bytes(&joined);
        }
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let ledger = cbor::decode(WHAT, bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let id = LedgerId(decoder.array_of()?);
            map.required(decoder, 1)?;
            let replica = ReplicaId(decoder.array_of()?);
            map.required(decoder, 2)?;
            let count = decoder.array("groups of a ledger", LEDGER_GROUPS)?;
            let mut groups = Vec::with_capacity(count);
            let mut packs = 0;
            for _ in 0..count {
                let group = decode_group(decoder)?;
                packs += group.packs.len();
                within("packs of a ledger", packs, COLLECTOR_IDS)?;
                groups.push(group);
            }
            map.finish(decoder)?;
            Ok(Self {
                id,
                replica,
                groups,
            })
        })?;
        cbor::must_be_deterministic(WHAT, bytes, &ledger.encode())?;
        let order: Vec<_> = ledger
            .groups
            .iter()
            .map(|one| (one.time, one.how))
            .collect();
        must_ascend(WHAT, &order, "its groups are not in ascending order")?;
        for group in &ledger.groups {
            must_ascend(WHAT, &group.packs, "its packs are not in ascending order")?;
        }
        Ok(ledger)
    }
}

fn decode_group(decoder: &mut cbor::Decoder<'_>) -> Result<LedgerGroup> {
    if decoder.array("fields of a group", 3)? != 3 {
        return Err(decoder.malformed("a group has three fields"));
    }
    let time = decoder.int()?;
    let how = match decoder.uint()? {
        1 => Verification::Hashed,
        2 => Verification::Opened,
        _ => return Err(decoder.malformed("packs were verified in an unknown way")),
    };
    let joined = decoder.bytes("packs of a ledger", COLLECTOR_IDS * PREFIX_BYTES)?;
    let (packs, rest) = joined.as_chunks();
    if packs.is_empty() || !rest.is_empty() {
        return Err(decoder.malformed("the packs of a group are not 16 bytes each"));
    }
    Ok(LedgerGroup {
        time,
        how,
        packs: packs.iter().copied().map(PackPrefix).collect(),
    })
}

impl Verification {
    fn number(self) -> u64 {
        match self {
            Self::Hashed => 1,
            Self::Opened => 2,
        }
    }
}
