//! The names of objects below a repository's prefix (SPEC.md §2).

use alloc::string::{String, ToString};
use core::fmt;

use crate::ids::{LedgerId, ObjectId, RunId, SessionId, SlotId};
use crate::mirror::MARKER;

/// The name of an object that version 1 of the format knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// `config/<n>`, n from 1.
    Config(u64),
    /// `keys/<slot id>`.
    Slot(SlotId),
    /// `packs/<2 hex>/<id>`, of data or of trees.
    Pack(ObjectId),
    /// `index/<id>`.
    Segment(ObjectId),
    /// `sessions/<s>`.
    Session(SessionId),
    /// `sessions/<s>.done`.
    SessionEnd(SessionId),
    /// `snapshots/<s>`.
    Cell(SessionId),
    /// `snapshots/<s>.<k>`, k from 1.
    Amendment(SessionId, u64),
    /// `gc/<n>`, n from 1.
    Round(u64),
    /// `gc/<n>.final`, n from 1.
    State(u64),
    /// `reserve`.
    Reserve,
    /// `parity/<id>`.
    Parity(ObjectId),
    /// `ledger/<id>`.
    Ledger(LedgerId),
    /// `runs/<id>`.
    Run(RunId),
    /// `runs/<id>.joined`.
    RunEnd(RunId),
    /// `mirror/<n>`, n from 1.
    Manifest(u64),
    /// `twins/config/<n>`, n from 1.
    ConfigTwin(u64),
    /// `twins/keys/<slot id>`.
    SlotTwin(SlotId),
}

impl Name {
    /// Gives the name of the object's twin; none for what has no twin.
    #[must_use]
    pub fn twin(&self) -> Option<Self> {
        match self {
            Self::Config(n) if *n != MARKER => Some(Self::ConfigTwin(*n)),
            Self::Slot(id) => Some(Self::SlotTwin(*id)),
            _ => None,
        }
    }

    /// Gives the name of which this is the twin; none for what is no twin.
    #[must_use]
    pub fn original(&self) -> Option<Self> {
        match self {
            Self::ConfigTwin(n) => Some(Self::Config(*n)),
            Self::SlotTwin(id) => Some(Self::Slot(*id)),
            _ => None,
        }
    }
}

/// The name of the reserve.
pub const RESERVE: &str = "reserve";
/// Where all configs are.
pub const CONFIGS: &str = "config/";
/// Where all key slots are.
pub const SLOTS: &str = "keys/";
/// Where all packs are.
pub const PACKS: &str = "packs/";
/// Where all segments are.
pub const SEGMENTS: &str = "index/";
/// Where all sessions and their ends are.
pub const SESSIONS: &str = "sessions/";
/// Where all cells and their amendments are.
pub const CELLS: &str = "snapshots/";
/// Where all collector rounds and states are.
pub const COLLECTOR: &str = "gc/";
/// Where all parity objects are.
pub const PARITY: &str = "parity/";
/// Where all ledgers are.
pub const LEDGERS: &str = "ledger/";
/// Where all runs of several shards and their ends are.
pub const RUNS: &str = "runs/";
/// Where the manifests of a mirror are.
pub const MIRROR: &str = "mirror/";
/// Where the twins of configs and key slots are.
pub const TWINS: &str = "twins/";
/// Where a storage is tried out; what is below means nothing to a repository.
pub const PROBE: &str = "probe/";
/// Where what is damaged is put aside.
pub const QUARANTINE: &str = "quarantine/";

/// Tells whether a name is one that every program passes over: what a storage is tried out with, and what
/// a repair put aside.
#[must_use]
pub fn is_passed_over(name: &str) -> bool {
    name.starts_with(PROBE) || name.starts_with(QUARANTINE)
}

/// Names config `n`, from 1.
#[must_use]
pub fn config(n: u64) -> String {
    Name::Config(n).to_string()
}

/// Names a key slot.
#[must_use]
pub fn slot(id: &SlotId) -> String {
    Name::Slot(*id).to_string()
}

/// Names a pack.
#[must_use]
pub fn pack(id: &ObjectId) -> String {
    Name::Pack(*id).to_string()
}

/// Names a segment.
#[must_use]
pub fn segment(id: &ObjectId) -> String {
    Name::Segment(*id).to_string()
}

/// Names the announcement of a session.
#[must_use]
pub fn session(id: &SessionId) -> String {
    Name::Session(*id).to_string()
}

/// Names the end of a session.
#[must_use]
pub fn session_end(id: &SessionId) -> String {
    Name::SessionEnd(*id).to_string()
}

/// Names the cell of a session.
#[must_use]
pub fn cell(id: &SessionId) -> String {
    Name::Cell(*id).to_string()
}

/// Names amendment `k`, from 1, of a cell.
#[must_use]
pub fn amendment(id: &SessionId, k: u64) -> String {
    Name::Amendment(*id, k).to_string()
}

/// Names a ledger.
#[must_use]
pub fn ledger(id: &LedgerId) -> String {
    Name::Ledger(*id).to_string()
}

/// Names a run of several shards.
#[must_use]
pub fn run(id: &RunId) -> String {
    Name::Run(*id).to_string()
}

/// Names the end of a run of several shards.
#[must_use]
pub fn run_end(id: &RunId) -> String {
    Name::RunEnd(*id).to_string()
}

/// Names a parity object.
#[must_use]
pub fn parity(id: &ObjectId) -> String {
    Name::Parity(*id).to_string()
}

/// Names collector round `n`, from 1.
#[must_use]
pub fn round(n: u64) -> String {
    Name::Round(n).to_string()
}

/// Names the state after collector round `n`, from 1.
#[must_use]
pub fn state(n: u64) -> String {
    Name::State(n).to_string()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(n) => write!(f, "{CONFIGS}{n:016x}"),
            Self::Slot(id) => write!(f, "{SLOTS}{id}"),
            Self::Pack(id) => {
                let [first, ..] = id.0;
                write!(f, "{PACKS}{first:02x}/{id}")
            }
            Self::Segment(id) => write!(f, "{SEGMENTS}{id}"),
            Self::Session(id) => write!(f, "{SESSIONS}{id}"),
            Self::SessionEnd(id) => write!(f, "{SESSIONS}{id}.done"),
            Self::Cell(id) => write!(f, "{CELLS}{id}"),
            Self::Amendment(id, k) => write!(f, "{CELLS}{id}.{k}"),
            Self::Round(n) => write!(f, "{COLLECTOR}{n:016x}"),
            Self::State(n) => write!(f, "{COLLECTOR}{n:016x}.final"),
            Self::Reserve => f.write_str(RESERVE),
            Self::Parity(id) => write!(f, "{PARITY}{id}"),
            Self::Ledger(id) => write!(f, "{LEDGERS}{id}"),
            Self::Run(id) => write!(f, "{RUNS}{id}"),
            Self::RunEnd(id) => write!(f, "{RUNS}{id}.joined"),
            Self::Manifest(n) => write!(f, "{MIRROR}{n:016x}"),
            Self::ConfigTwin(n) => write!(f, "{TWINS}{CONFIGS}{n:016x}"),
            Self::SlotTwin(id) => write!(f, "{TWINS}{SLOTS}{id}"),
        }
    }
}

/// Takes a name apart: the exact inverse of its `Display`; nothing if version 1 does not know it.
#[must_use]
pub fn parse(text: &str) -> Option<Name> {
    if text == RESERVE {
        return Some(Name::Reserve);
    }
    let (folder, name) = text.split_once('/')?;
    match folder {
        "config" => number(name).map(Name::Config),
        "mirror" => number(name).map(Name::Manifest),
        "parity" => ObjectId::from_hex(name).map(Name::Parity),
        "ledger" => LedgerId::from_hex(name).map(Name::Ledger),
        "runs" => match name.split_once('.') {
            None => RunId::from_hex(name).map(Name::Run),
            Some((id, "joined")) => RunId::from_hex(id).map(Name::RunEnd),
            Some(_) => None,
        },
        "keys" => SlotId::from_hex(name).map(Name::Slot),
        "packs" => {
            let (first, id) = name.split_once('/')?;
            let id = ObjectId::from_hex(id).filter(|_| first.len() == 2 && id.starts_with(first));
            id.map(Name::Pack)
        }
        "index" => ObjectId::from_hex(name).map(Name::Segment),
        "twins" => parse(name).and_then(|original| original.twin()),
        "sessions" => match name.split_once('.') {
            None => SessionId::from_hex(name).map(Name::Session),
            Some((id, "done")) => SessionId::from_hex(id).map(Name::SessionEnd),
            Some(_) => None,
        },
        "snapshots" => match name.split_once('.') {
            None => SessionId::from_hex(name).map(Name::Cell),
            Some((id, k)) => Some(Name::Amendment(SessionId::from_hex(id)?, decimal(k)?)),
        },
        "gc" => match name.split_once('.') {
            None => number(name).map(Name::Round),
            Some((n, "final")) => number(n).map(Name::State),
            Some(_) => None,
        },
        _ => None,
    }
}

/// Takes 16 hex digits as a number from 1.
fn number(text: &str) -> Option<u64> {
    let mut bytes = [0; 8];
    let number = crate::ids::decode_hex(text, &mut bytes).then(|| u64::from_be_bytes(bytes));
    number.filter(|number| *number > 0)
}

/// Takes a decimal number from 1, without leading zeros or sign.
fn decimal(text: &str) -> Option<u64> {
    let first = text.bytes().next()?;
    if first == b'0' || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};
    use proptest::prelude::*;

    fn any_name() -> impl Strategy<Value = Name> {
        let n = 1..u64::MAX;
        let id = any::<[u8; 32]>().prop_map(ObjectId);
        let session = any::<[u8; 24]>().prop_map(SessionId);
        prop_oneof![
            n.clone().prop_map(Name::Config),
            any::<[u8; 16]>().prop_map(|id| Name::Slot(SlotId(id))),
            id.clone().prop_map(Name::Pack),
            id.clone().prop_map(Name::Segment),
            id.prop_map(Name::Parity),
            session.clone().prop_map(Name::Session),
            session.clone().prop_map(Name::SessionEnd),
            session.clone().prop_map(Name::Cell),
            (session, n.clone()).prop_map(|(id, k)| Name::Amendment(id, k)),
            n.clone().prop_map(Name::Round),
            n.clone().prop_map(Name::State),
            n.prop_map(Name::Manifest),
            Just(Name::Reserve),
            any::<[u8; 16]>().prop_map(|id| Name::Ledger(LedgerId(id))),
            any::<[u8; 16]>().prop_map(|id| Name::Run(RunId(id))),
            any::<[u8; 16]>().prop_map(|id| Name::RunEnd(RunId(id))),
            (1..u64::MAX).prop_map(Name::ConfigTwin),
            any::<[u8; 16]>().prop_map(|id| Name::SlotTwin(SlotId(id))),
        ]
    }

    #[test]
    fn names_are_as_specified() {
        let id = "ab".repeat(32);
        let session = "00".repeat(8) + &"cd".repeat(16);
        for text in [
            format!("packs/ab/{id}"),
            format!("snapshots/{session}.12"),
            format!("sessions/{session}.done"),
            "gc/000000000000000a.final".to_string(),
            "config/0000000000000001".to_string(),
            "twins/config/0000000000000001".to_string(),
            format!("twins/keys/{}", "ef".repeat(16)),
            format!("runs/{}", "ef".repeat(16)),
            format!("runs/{}.joined", "ef".repeat(16)),
        ] {
            assert_eq!(parse(&text).map(|name| name.to_string()), Some(text));
        }
        for bad in [
            "config/0000000000000000".to_string(),
            "config/1".to_string(),
            "gc/000000000000000A".to_string(),
            format!("packs/ac/{id}"),
            format!("packs/{id}"),
            format!("packs//{id}"),
            format!("snapshots/{session}.0"),
            format!("snapshots/{session}.01"),
            format!("snapshots/{session}.+1"),
            format!("snapshots/{session}.99999999999999999999"),
            format!("sessions/{session}.DONE"),
            "reserve/".to_string(),
            "twins/reserve".to_string(),
            "twins/config/ffffffffffffffff".to_string(),
            "twins/twins/config/0000000000000001".to_string(),
            format!("twins/packs/ab/{id}"),
            format!("runs/{}.done", "ef".repeat(16)),
            "/reserve".to_string(),
            String::new(),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_goes_both_ways(name in any_name()) {
            prop_assert_eq!(parse(&name.to_string()), Some(name));
            prop_assert!(name.twin().is_none_or(|twin| twin.original() == Some(name)));
            prop_assert!(name.original().is_none_or(|one| one.twin() == Some(name)));
        }

        #[test]
        fn what_parses_is_written_alike(text in "(config|keys|ledger|packs|parity|gc|index|mirror|runs|sessions|snapshots|twins/config|twins/keys)/[0-9a-f./]{0,70}") {
            if let Some(name) = parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
