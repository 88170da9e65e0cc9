//! The config: what a program must know before it has a key (SPEC.md §11, §14).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bundle::BUNDLE;
use crate::cbor::{self, Decoder, Encoder, within};
use crate::error::{FormatError, Result};
use crate::ids::{KeyId, ReplicaId, RepositoryId, SlotId};
use crate::keys::Keyring;
use crate::limits::{CONFIG_BYTES, FEATURE_BYTES, FEATURES, SLOTS};
use crate::names;
use crate::object::{HEADER_BYTES, Header, Kind, close, verify_closing};
use crate::parity::PERCENT;

const MAC_BYTES: usize = 32;

/// The feature to collect of a storage that lets two writers create one object (SPEC.md §14).
pub const RACY_CREATES: &str = "racy-creates";

/// What the feature to collect of a repository that keeps parity begins with; the share in percent follows.
const PARITY: &str = "parity-";

/// Gives the share in percent that a feature `parity-<percent>` names (SPEC.md §14).
fn percent_of(feature: &str) -> Option<u8> {
    let percent: u8 = feature.strip_prefix(PARITY)?.parse().ok()?;
    (PERCENT.contains(&percent) && feature == format!("{PARITY}{percent}")).then_some(percent)
}

/// How writers cut files into chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunker {
    /// The chunker's name, e.g. `fastcdc-v2020`.
    pub name: String,
    /// Bytes of the shortest chunk that is cut.
    pub min_bytes: u64,
    /// Bytes of a chunk on average.
    pub mean_bytes: u64,
    /// Bytes of the longest chunk.
    pub max_bytes: u64,
}

/// One config of a repository; the one with the highest number counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The number in its name, from 1.
    pub number: u64,
    /// The repository's id.
    pub repository: RepositoryId,
    /// The id of this storage's copy.
    pub replica: ReplicaId,
    /// When the repository was made, in seconds since 1970.
    pub created: i64,
    /// How files are cut.
    pub chunker: Chunker,
    /// Features that a reader must know.
    pub read_features: Vec<String>,
    /// Features that a writer must know.
    pub write_features: Vec<String>,
    /// Features that a collector must know.
    pub collect_features: Vec<String>,
    /// The key slots that count, in ascending order without duplicates.
    pub slots: Vec<SlotId>,
}

impl Config {
    /// Makes the object of this config, authenticated by the keyring's id key.
    pub fn seal(&self, keyring: &Keyring, uid: [u8; 16]) -> Result<Vec<u8>> {
        self.check()?;
        let header = Header {
            kind: Kind::Config,
            key_id: KeyId::default(),
            uid,
        };
        let mut object = header.encode().to_vec();
        object.extend_from_slice(&self.encode());
        let mac = mac(keyring, self.number, &object);
        object.extend_from_slice(mac.as_bytes());
        let object = close(object);
        within("bytes of a config", object.len(), CONFIG_BYTES)?;
        Ok(object)
    }

    /// Makes the object of a config that no key authenticates, such as that of a mirror.
    pub(crate) fn close_unauthenticated(&self, uid: [u8; 16]) -> Result<Vec<u8>> {
        self.check()?;
        let header = Header {
            kind: Kind::Config,
            key_id: KeyId::default(),
            uid,
        };
        let no_mac = [0; MAC_BYTES];
        let object = [header.encode().as_slice(), &self.encode(), &no_mac].concat();
        within("bytes of a config", object.len(), CONFIG_BYTES)?;
        Ok(close(object))
    }

    /// Reads `config/<number>` without a key: nothing in it is to be trusted before
    /// [`Config::open`] has read it too.
    pub fn read_unverified(number: u64, object: &[u8]) -> Result<Self> {
        split(number, object).map(|(config, _, _)| config)
    }

    /// Reads `config/<number>` and checks that a holder of the keyring wrote it.
    pub fn open(keyring: &Keyring, number: u64, object: &[u8]) -> Result<Self> {
        let (config, before_mac, found) = split(number, object)?;
        // blake3 compares hashes in constant time.
        if mac(keyring, number, before_mac) != blake3::Hash::from_bytes(found)
            || config.repository != keyring.repository()
        {
            return Err(FormatError::Unauthentic { what: "config" });
        }
        Ok(config)
    }

    /// Refuses a repository that needs a feature for reading that is not among `known`.
    pub fn check_read(&self, known: &[&str]) -> Result<()> {
        check_features(&self.read_features, known)
    }

    /// Refuses a repository that needs a feature for writing that is not among `known`.
    pub fn check_write(&self, known: &[&str]) -> Result<()> {
        self.check_read(known)?;
        check_features(&self.write_features, known)
    }

    /// Refuses a repository that needs a feature for collecting that is not among `known`.
    pub fn check_collect(&self, known: &[&str]) -> Result<()> {
        self.check_write(known)?;
        let features = self.collect_features.iter();
        let others: Vec<String> = features
            .filter(|feature| percent_of(feature).is_none())
            .cloned()
            .collect();
        check_features(&others, known)
    }

    /// Tells whether the repository is a bundle, which is only read (SPEC.md §19).
    #[must_use]
    pub fn is_bundle(&self) -> bool {
        self.read_features.iter().any(|feature| feature == BUNDLE)
    }

    /// Gives the share of its packs, in percent, that writers give parity for; none if they give none.
    #[must_use]
    pub fn parity(&self) -> Option<u8> {
        let features = self.collect_features.iter();
        features
            .filter_map(|feature| percent_of(feature))
            .next_back()
    }

    /// Sets the share, in percent, that writers give parity for.
    pub fn set_parity(&mut self, percent: Option<u8>) {
        self.collect_features
            .retain(|feature| percent_of(feature).is_none());
        let feature = percent.map(|percent| format!("{PARITY}{percent}"));
        self.collect_features.extend(feature);
    }

    /// Writes the config as CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(9).uint(0).uint(self.number);
        encoder.uint(1).bytes(&self.repository.0);
        encoder.uint(2).bytes(&self.replica.0);
        encoder.uint(3).int(self.created);
        encoder.uint(4).map(4).uint(0).text(&self.chunker.name);
        encoder.uint(1).uint(self.chunker.min_bytes);
        encoder.uint(2).uint(self.chunker.mean_bytes);
        encoder.uint(3).uint(self.chunker.max_bytes);
        encoder.uint(5).texts(&self.read_features);
        encoder.uint(6).texts(&self.write_features);
        encoder.uint(7).texts(&self.collect_features);
        let slots = self.slots.iter().map(|slot| slot.0.as_slice());
        encoder.uint(8).byte_strings(slots);
        encoder.into_bytes()
    }

    /// Reads a config from CBOR.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let config = cbor::decode("config", bytes, decode)?;
        cbor::must_be_deterministic("config", bytes, &config.encode())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        within("key slots", self.slots.len(), SLOTS)?;
        let malformed = |why| FormatError::Malformed {
            what: "config",
            at: 0,
            why,
        };
        if self.number == 0 {
            return Err(malformed("its number is 0"));
        }
        if !self.slots.is_sorted_by(|a, b| a < b) {
            return Err(malformed("its key slots are not in ascending order"));
        }
        Ok(())
    }
}

fn decode(decoder: &mut Decoder<'_>) -> Result<Config> {
    let mut map = decoder.map()?;
    map.required(decoder, 0)?;
    let number = decoder.uint()?;
    map.required(decoder, 1)?;
    let repository = RepositoryId(decoder.array_of()?);
    map.required(decoder, 2)?;
    let replica = ReplicaId(decoder.array_of()?);
    map.required(decoder, 3)?;
    let created = decoder.int()?;
    map.required(decoder, 4)?;
    let chunker = decode_chunker(decoder)?;
    let mut features = |key| {
        map.required(decoder, key)?;
        decoder.texts("features of a config", FEATURES, FEATURE_BYTES)
    };
    let (read_features, write_features, collect_features) =
        (features(5)?, features(6)?, features(7)?);
    map.required(decoder, 8)?;
    let slots = decoder.arrays_of("key slots", SLOTS)?;
    map.finish(decoder)?;
    Ok(Config {
        number,
        repository,
        replica,
        created,
        chunker,
        read_features,
        write_features,
        collect_features,
        slots: slots.into_iter().map(SlotId).collect(),
    })
}

fn decode_chunker(decoder: &mut Decoder<'_>) -> Result<Chunker> {
    let mut map = decoder.map()?;
    map.required(decoder, 0)?;
    let name = decoder.text("name of the chunker", FEATURE_BYTES)?;
    let mut bytes = |key| {
        map.required(decoder, key)?;
        decoder.uint()
    };
    let (min_bytes, mean_bytes, max_bytes) = (bytes(1)?, bytes(2)?, bytes(3)?);
    map.finish(decoder)?;
    Ok(Chunker {
        name,
        min_bytes,
        mean_bytes,
        max_bytes,
    })
}

/// Checks everything that needs no key, and gives the config, the bytes that its MAC covers, and
/// the MAC.
fn split(number: u64, object: &[u8]) -> Result<(Config, &[u8], [u8; MAC_BYTES])> {
    within("bytes of a config", object.len(), CONFIG_BYTES)?;
    let header = Header::decode_kind(object, Kind::Config)?;
    let malformed = |why| FormatError::Malformed {
        what: "config",
        at: 0,
        why,
    };
    if header.key_id != KeyId::default() {
        return Err(malformed("its header names a key"));
    }
    let body = verify_closing("config", object)?;
    let (before, mac) = body
        .split_last_chunk::<MAC_BYTES>()
        .ok_or_else(|| malformed("it ends too early"))?;
    let config = Config::decode(before.get(HEADER_BYTES..).unwrap_or_default())?;
    if config.number != number {
        return Err(malformed("its number is not that of its name"));
    }
    Ok((config, before, *mac))
}

/// Computes the MAC of config `number`, whose header and CBOR are `before`.
fn mac(keyring: &Keyring, number: u64, before: &[u8]) -> blake3::Hash {
    let (header, cbor) = before
        .split_at_checked(HEADER_BYTES)
        .unwrap_or((before, &[]));
    let mut hasher = blake3::Hasher::new_keyed(&keyring.config_mac_key());
    hasher.update(header);
    hasher.update(names::config(number).as_bytes()).update(cbor);
    hasher.finalize()
}

fn check_features(required: &[String], known: &[&str]) -> Result<()> {
    let unknown = required
        .iter()
        .find(|feature| !known.contains(&feature.as_str()));
    match unknown {
        None => Ok(()),
        Some(feature) => Err(FormatError::UnknownFeature {
            feature: feature.clone(),
        }),
    }
}
