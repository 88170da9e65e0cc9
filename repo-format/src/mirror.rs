//! Mirrors: copies of a repository that are kept without a key (SPEC.md §14).
//!
//! Nothing here is authenticated: who keeps a mirror has no key. What a manifest can do is what whoever
//! holds the storage can do anyway: leave out, and show an older state.

use alloc::vec;
use alloc::vec::Vec;

use crate::cbor::{self, Decoder, Encoder, within};
use crate::config::Config;
use crate::error::{FormatError, Result};
use crate::ids::{KeyId, ObjectId, ReplicaId, RepositoryId, SessionId};
use crate::limits::{COLLECTOR_BYTES, COLLECTOR_IDS};
use crate::names::Name;
use crate::object::{HEADER_BYTES, Header, Kind, close, verify_closing};
use crate::session::must_ascend;

/// The feature to read of a mirror: its manifest says what is listed.
pub const MIRROR: &str = "mirror";
/// The number of the config that makes a storage a mirror: above that of every other config.
pub const MARKER: u64 = u64::MAX;

const WHAT: &str = "manifest of a mirror";

/// What a mirror lists; all ids in ascending order, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The manifest's number, from 1; the highest counts.
    pub number: u64,
    /// The repository that is mirrored.
    pub repository: RepositoryId,
    /// The mirror's own id.
    pub replica: ReplicaId,
    /// The newest collector state; 0 if there is none.
    pub state: u64,
    /// The collector round above it; 0 if there is none.
    pub round: u64,
    /// The cells, whose sessions and session ends count with them.
    pub cells: Vec<SessionId>,
    /// The amendments.
    pub amendments: Vec<(SessionId, u64)>,
    /// Packs that a newer collector state let go of, and that may be here still.
    pub gone_packs: Vec<ObjectId>,
    /// Segments likewise.
    pub gone_segments: Vec<ObjectId>,
    /// When it was made, in seconds since 1970.
    pub time: i64,
}

impl Manifest {
    /// Gives the object's name.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::Manifest(self.number)
    }

    /// Tells whether a mirror with this manifest lists an object, by its name.
    #[must_use]
    pub fn lists(&self, name: &Name) -> bool {
        match name {
            Name::Cell(id) | Name::Session(id) | Name::SessionEnd(id) => {
                self.cells.binary_search(id).is_ok()
            }
            Name::Amendment(id, number) => self.amendments.binary_search(&(*id, *number)).is_ok(),
            Name::State(number) => *number == self.state,
            Name::Round(number) => *number == self.round,
            Name::Manifest(_) => false,
            Name::Config(number) => *number != MARKER,
            Name::Slot(_)
            | Name::ConfigTwin(_)
            | Name::SlotTwin(_)
            | Name::Pack(_)
            | Name::Segment(_)
            | Name::Reserve
            | Name::Ledger(_)
            | Name::Run(_)
            | Name::RunEnd(_)
            | Name::Parity(_) => true,
        }
    }

    /// Makes the object.
    pub fn close(&self, uid: [u8; 16]) -> Result<Vec<u8>> {
        let cbor = self.encode();
        within("bytes of a manifest", cbor.len(), COLLECTOR_BYTES / 2)?;
        self.check()?;
        let header = Header {
            kind: Kind::Manifest,
            key_id: KeyId::default(),
            uid,
        };
        Ok(close([header.encode().as_slice(), &cbor].concat()))
    }

    /// Reads `mirror/<number>`.
    pub fn open(number: u64, object: &[u8]) -> Result<Self> {
        within("bytes of a manifest", object.len(), COLLECTOR_BYTES)?;
        Header::decode_kind(object, Kind::Manifest)?;
        let before = verify_closing(WHAT, object)?;
        let manifest = Self::decode(before.get(HEADER_BYTES..).unwrap_or_default())?;
        if manifest.number != number {
            return Err(malformed("its number is not that of its name"));
        }
        Ok(manifest)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(10).uint(0).uint(self.number);
        encoder.uint(1).bytes(&self.repository.0);
        encoder.uint(2).bytes(&self.replica.0);
        encoder.uint(3).uint(self.state).uint(4).uint(self.round);
        let cells = self.cells.iter().map(|id| id.0.as_slice());
        encoder.uint(5).byte_strings(cells);
        encoder.uint(6).array(self.amendments.len());
        for (id, number) in &self.amendments {
            encoder.array(2).bytes(&id.0).uint(*number);
        }
        for (key, ids) in [(7, &self.gone_packs), (8, &self.gone_segments)] {
            let ids = ids.iter().map(|id| id.0.as_slice());
            encoder.uint(key).byte_strings(ids);
        }
        encoder.uint(9).int(self.time);
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let manifest = cbor::decode(WHAT, bytes, decode)?;
        cbor::must_be_deterministic(WHAT, bytes, &manifest.encode())?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        const UNSORTED: &str = "its ids are not in ascending order";
        if self.number == 0 {
            return Err(malformed("its number is 0"));
        }
        if self.round != 0 && self.state.checked_add(1) != Some(self.round) {
            return Err(malformed("its round is not the one after its state"));
        }
        must_ascend(WHAT, &self.cells, UNSORTED)?;
        must_ascend(WHAT, &self.amendments, UNSORTED)?;
        must_ascend(WHAT, &self.gone_packs, UNSORTED)?;
        must_ascend(WHAT, &self.gone_segments, UNSORTED)
    }
}

fn decode(decoder: &mut Decoder<'_>) -> Result<Manifest> {
    let mut map = decoder.map()?;
    map.required(decoder, 0)?;
    let number = decoder.uint()?;
    map.required(decoder, 1)?;
    let repository = RepositoryId(decoder.array_of()?);
    map.required(decoder, 2)?;
    let replica = ReplicaId(decoder.array_of()?);
    map.required(decoder, 3)?;
    let state = decoder.uint()?;
    map.required(decoder, 4)?;
    let round = decoder.uint()?;
    map.required(decoder, 5)?;
    let cells = decoder.arrays_of("cells of a manifest", COLLECTOR_IDS)?;
    map.required(decoder, 6)?;
    let count = decoder.array("amendments of a manifest", COLLECTOR_IDS)?;
    let mut amendments = Vec::new();
    for _ in 0..count {
        if decoder.array("parts of an amendment's name", 2)? != 2 {
            return Err(malformed("the name of an amendment has not two parts"));
        }
        let id = SessionId(decoder.array_of()?);
        amendments.push((id, decoder.uint()?));
    }
    let mut ids = |key| {
        map.required(decoder, key)?;
        decoder.arrays_of("ids of a manifest", COLLECTOR_IDS)
    };
    let (gone_packs, gone_segments) = (ids(7)?, ids(8)?);
    map.required(decoder, 9)?;
    let time = decoder.int()?;
    map.finish(decoder)?;
    Ok(Manifest {
        number,
        repository,
        replica,
        state,
        round,
        cells: cells.into_iter().map(SessionId).collect(),
        amendments,
        gone_packs: gone_packs.into_iter().map(ObjectId).collect(),
        gone_segments: gone_segments.into_iter().map(ObjectId).collect(),
        time,
    })
}

/// Makes the config that makes a storage a mirror of the repository with the config `of`.
///
/// Programs that do not know mirrors refuse it by the feature that it requires to read. No key
/// authenticates it.
pub fn marker(of: &Config, replica: ReplicaId, created: i64, uid: [u8; 16]) -> Result<Vec<u8>> {
    let config = Config {
        number: MARKER,
        repository: of.repository,
        replica,
        created,
        chunker: of.chunker.clone(),
        read_features: vec![MIRROR.into()],
        write_features: Vec::new(),
        collect_features: Vec::new(),
        slots: Vec::new(),
    };
    config.close_unauthenticated(uid)
}

/// Reads the config that makes a storage a mirror.
pub fn read_marker(object: &[u8]) -> Result<Config> {
    let config = Config::read_unverified(MARKER, object)?;
    if config.read_features != [MIRROR] {
        // What else a newer program requires of who reads its mirrors.
        config.check_read(&[MIRROR])?;
        return Err(malformed(
            "its config does not require the feature 'mirror'",
        ));
    }
    Ok(config)
}

fn malformed(why: &'static str) -> FormatError {
    FormatError::Malformed {
        what: WHAT,
        at: 0,
        why,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{Chunker, RACY_CREATES};
    use proptest::prelude::*;

    fn any_manifest() -> impl Strategy<Value = Manifest> {
        let ids = || prop::collection::btree_set(any::<[u8; 32]>(), 0..5);
        let sessions = prop::collection::btree_set(any::<[u8; 24]>(), 0..5);
        let amendments = prop::collection::btree_set((any::<[u8; 24]>(), any::<u64>()), 0..5);
        let numbers = (1..u64::MAX, 0..u64::MAX, any::<bool>());
        (numbers, sessions, amendments, ids(), ids(), any::<i64>()).prop_map(
            |((number, state, has_round), cells, amendments, packs, segments, time)| Manifest {
                number,
                repository: RepositoryId([1; 16]),
                replica: ReplicaId([2; 16]),
                state,
                round: if has_round { state + 1 } else { 0 },
                cells: cells.into_iter().map(SessionId).collect(),
                amendments: amendments
                    .into_iter()
                    .map(|(id, number)| (SessionId(id), number))
                    .collect(),
                gone_packs: packs.into_iter().map(ObjectId).collect(),
                gone_segments: segments.into_iter().map(ObjectId).collect(),
                time,
            },
        )
    }

    fn config() -> Config {
        Config {
            number: 3,
            repository: RepositoryId([1; 16]),
            replica: ReplicaId([2; 16]),
            created: 5,
            chunker: Chunker {
                name: "any".into(),
                min_bytes: 1,
                mean_bytes: 2,
                max_bytes: 3,
            },
            read_features: Vec::new(),
            write_features: Vec::new(),
            collect_features: vec![RACY_CREATES.into()],
            slots: Vec::new(),
        }
    }

    #[test]
    fn a_program_that_does_not_know_mirrors_refuses_one_by_name() {
        let object = marker(&config(), ReplicaId([9; 16]), 7, [3; 16]).unwrap();
        let read = Config::read_unverified(MARKER, &object).unwrap();
        assert_eq!(
            read.check_read(&[RACY_CREATES]),
            Err(FormatError::UnknownFeature {
                feature: "mirror".into()
            })
        );
        let marker = read_marker(&object).unwrap();
        assert_eq!((marker.replica, marker.created), (ReplicaId([9; 16]), 7));
        assert_eq!(marker.repository, config().repository);
    }

    #[test]
    fn a_config_that_is_no_marker_is_refused() {
        let mut plain = config();
        plain.number = MARKER;
        for (features, is_marker) in [
            (&[][..], false),
            (&["mirror"], true),
            (&["mirror", "newer"], false),
            (&["newer"], false),
        ] {
            plain.read_features = features.iter().map(|name| (*name).into()).collect();
            let object = plain.close_unauthenticated([1; 16]).unwrap();
            assert_eq!(read_marker(&object).is_ok(), is_marker, "{features:?}");
        }
    }

    proptest! {
        #[test]
        fn a_manifest_goes_both_ways_and_breaks_when_flipped(
            manifest in any_manifest(), at: prop::sample::Index, bit in 0..8_u8
        ) {
            let mut object = manifest.close([7; 16]).unwrap();
            prop_assert_eq!(Manifest::open(manifest.number, &object), Ok(manifest.clone()));
            prop_assert!(Manifest::open(manifest.number ^ 1, &object).is_err());
            for cell in &manifest.cells {
                prop_assert!(manifest.lists(&Name::Cell(*cell)));
                prop_assert!(manifest.lists(&Name::SessionEnd(*cell)));
            }
            prop_assert!(!manifest.lists(&Name::Cell(SessionId([0x55; 24]))));
            prop_assert!(!manifest.lists(&Name::Config(MARKER)));
            prop_assert_eq!(manifest.lists(&Name::Round(manifest.state + 1)), manifest.round > 0);
            let at = at.index(object.len());
            object[at] ^= 1_u8 << bit;
            prop_assert!(Manifest::open(manifest.number, &object).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Manifest::open(1, &bytes);
            let _ = Manifest::decode(&bytes);
            let _ = read_marker(&bytes);
        }
    }
}
