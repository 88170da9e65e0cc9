//! Keys, keyrings, and what is derived from them (SPEC.md §3, §4, §10, §15).

use alloc::vec::Vec;

use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::KeyInit;
use zeroize::Zeroizing;

use crate::cbor::{self, Decoder, Encoder};
use crate::error::{FormatError, Result};
use crate::ids::{ChunkId, ChunkType, KeyId, RepositoryId, RunId};
use crate::object::Kind;
use crate::tree::boundary::BoundaryKey;

/// Bytes of randomness that [`Keyring::generate`] takes.
pub const KEYRING_RANDOM_BYTES: usize = 8 * 32;
/// Bytes of the secret of the chunker `toeplitz-aes`.
pub const TOEPLITZ_SECRET_BYTES: usize = 144;
/// Keys that one keyring may hold.
pub const KEYRING_KEYS: usize = 256;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Blocks and directories of data packs.
    Data = 1,
    /// Blocks and directories of tree packs.
    Tree = 2,
    /// Segments.
    Index = 3,
    /// Sessions, their ends, cells, and amendments that forget nothing.
    Snapshot = 4,
    /// Amendments that forget, and all that collectors write.
    Collector = 5,
}

impl Purpose {
    /// All purposes, in ascending order.
    pub const ALL: [Self; 5] = [
        Self::Data,
        Self::Tree,
        Self::Index,
        Self::Snapshot,
        Self::Collector,
    ];

    /// Tells whether keys of this purpose seal objects of the kind `kind`.
    #[must_use]
    pub fn seals(self, kind: Kind) -> bool {
        match kind {
            Kind::DataPack => self == Self::Data,
            Kind::TreePack => self == Self::Tree,
            Kind::Segment => self == Self::Index,
            Kind::Session
            | Kind::SessionEnd
            | Kind::Cell
            | Kind::Ledger
            | Kind::Bundle
            | Kind::Run
            | Kind::RunEnd => self == Self::Snapshot,
            Kind::Amendment => matches!(self, Self::Snapshot | Self::Collector),
            Kind::Round | Kind::State => self == Self::Collector,
            Kind::Config
            | Kind::KeySlot
            | Kind::Reserve
            | Kind::Parity
            | Kind::Manifest
            | Kind::Undo => false,
        }
    }

    /// Gives the word for the purpose in messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
            Self::Index => "index",
            Self::Snapshot => "snapshot",
            Self::Collector => "collector",
        }
    }
}

impl ChunkType {
    /// Gives the purpose of the key that seals blocks of this type.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Data => Purpose::Data,
            _ => Purpose::Tree,
        }
    }

    /// Gives the kind of pack that holds blocks of this type.
    #[must_use]
    pub fn pack_kind(self) -> Kind {
        match self {
            Self::Data => Kind::DataPack,
            _ => Kind::TreePack,
        }
    }
}

/// One key with everything that is derived from it; wiped from memory when dropped.
#[derive(Clone)]
pub struct Key {
    secret: Zeroizing<[u8; 32]>,
    purpose: u8,
    epoch: u32,
    repository: RepositoryId,
    id: KeyId,
    nonce_key: Zeroizing<[u8; 32]>,
    cipher: Xaes256Gcm,
}

impl Key {
    /// Derives a key's parts; `purpose` 0 is that of a slot's key-encryption key.
    pub(crate) fn derive(
        secret: &[u8; 32],
        purpose: u8,
        epoch: u32,
        repository: RepositoryId,
    ) -> Self {
        let derive = |context: &str| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(secret).update(&[purpose]);
            hasher.update(&epoch.to_le_bytes()).update(&repository.0);
            Zeroizing::new(*hasher.finalize().as_bytes())
        };
        let seal_key = derive("larder v1 seal key");
        Self {
            secret: Zeroizing::new(*secret),
            purpose,
            epoch,
            repository,
            id: KeyId(*derive("larder v1 key id")),
            nonce_key: derive("larder v1 nonce key"),
            cipher: Xaes256Gcm::new((&*seal_key).into()),
        }
    }

    /// Gives the key's commitment, which headers carry.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Gives the key's epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Gives the repository that the key belongs to.
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// Tells whether the key has the purpose `purpose`.
    #[must_use]
    pub fn is_for(&self, purpose: Purpose) -> bool {
        self.purpose == purpose as u8
    }

    pub(crate) fn nonce_key(&self) -> &[u8; 32] {
        &self.nonce_key
    }

    pub(crate) fn cipher(&self) -> &Xaes256Gcm {
        &self.cipher
    }

    /// Gives what orders keys in a keyring.
    fn rank(&self) -> (u8, u32) {
        (self.purpose, self.epoch)
    }
}

/// The keys of a repository that a slot gave; wiped from memory when dropped.
#[derive(Clone)]
pub struct Keyring {
    repository: RepositoryId,
    /// Sorted by purpose and epoch, without duplicates.
    keys: Vec<Key>,
    id_key: Zeroizing<[u8; 32]>,
    chunker_key: Zeroizing<[u8; 32]>,
    boundary_key: Zeroizing<[u8; 32]>,
}

impl Keyring {
    /// Makes the first keyring of a repository, with all purposes, from fresh randomness.
    #[must_use]
    pub fn generate(repository: RepositoryId, random: &[u8; KEYRING_RANDOM_BYTES]) -> Self {
        let mut secrets = random.as_chunks::<32>().0.iter();
        let mut next = || Zeroizing::new(secrets.next().copied().unwrap_or_default());
        let key = |purpose| Key::derive(&next(), purpose as u8, 0, repository);
        Self {
            repository,
            keys: Purpose::ALL.into_iter().map(key).collect(),
            id_key: next(),
            chunker_key: next(),
            boundary_key: next(),
        }
    }

    /// Gives the repository that the keyring belongs to.
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// Gives all keys, sorted by purpose and epoch.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Gives the key of the highest epoch for `purpose`: the one to seal with.
    pub fn current(&self, purpose: Purpose) -> Result<&Key> {
        let key = self.keys.iter().rev().find(|key| key.is_for(purpose));
        key.ok_or(FormatError::MissingKey {
            purpose: purpose.word(),
        })
    }

    /// Gives the key `id`, which must be of a purpose that seals objects of the kind `kind`.
    pub fn find(&self, id: &KeyId, kind: Kind) -> Result<&Key> {
        let seals = |key: &Key| {
            let purpose = Purpose::ALL
                .into_iter()
                .find(|purpose| key.is_for(*purpose));
            purpose.is_some_and(|purpose| purpose.seals(kind))
        };
        let key = self.keys.iter().find(|key| key.id == *id && seals(key));
        key.ok_or(FormatError::MissingKey {
            purpose: kind.word(),
        })
    }

    /// Adds a fresh key for `purpose` under the epoch after its highest.
    pub fn rotate(&mut self, purpose: Purpose, secret: &[u8; 32]) -> Result<()> {
        let epoch = match self.current(purpose) {
            Ok(key) => key.epoch.saturating_add(1),
            Err(_) => 0,
        };
        if self.keys.len() >= KEYRING_KEYS {
            return Err(FormatError::Limit {
                what: "keys in a keyring",
                found: self.keys.len() as u64 + 1,
                limit: KEYRING_KEYS as u64,
            });
        }
        self.keys
            .push(Key::derive(secret, purpose as u8, epoch, self.repository));
        self.keys.sort_by_key(Key::rank);
        Ok(())
    }

    /// Gives a keyring for a role: the keys of some purposes only, and the same secrets.
    #[must_use]
    pub fn restricted_to(&self, purposes: &[Purpose]) -> Self {
        let mut role = self.clone();
        role.keys
            .retain(|key| purposes.iter().any(|purpose| key.is_for(*purpose)));
        role
    }

    /// Names a chunk: keyed BLAKE3 of its type and plaintext.
    #[must_use]
    pub fn chunk_id(&self, chunk_type: ChunkType, plaintext: &[u8]) -> ChunkId {
        let mut hasher = blake3::Hasher::new_keyed(&self.id_key);
        hasher.update(&[chunk_type as u8]).update(plaintext);
        ChunkId(*hasher.finalize().as_bytes())
    }

    /// Gives the key of the boundaries of tree nodes.
    #[must_use]
    pub fn boundary_key(&self) -> BoundaryKey {
        BoundaryKey::new(*self.boundary_key)
    }

    /// Gives the seed of the chunker `fastcdc-v2020`.
    #[must_use]
    pub fn chunker_seed(&self) -> u64 {
        let mut hasher = blake3::Hasher::new_derive_key("larder v1 fastcdc seed");
        hasher.update(&*self.chunker_key).update(&self.repository.0);
        first_u64(hasher.finalize().as_bytes())
    }

    /// Gives the secret of the chunker `toeplitz-aes`.
    #[must_use]
    pub fn toeplitz_secret(&self) -> Zeroizing<[u8; TOEPLITZ_SECRET_BYTES]> {
        let mut hasher = blake3::Hasher::new_derive_key("larder v1 toeplitz-aes");
        hasher.update(&*self.chunker_key).update(&self.repository.0);
        let mut secret = Zeroizing::new([0; TOEPLITZ_SECRET_BYTES]);
        hasher.finalize_xof().fill(&mut *secret);
        secret
    }

    /// Gives the id of the run that people call by a name.
    #[must_use]
    pub fn run_id(&self, name: &str) -> RunId {
        let mut hasher = blake3::Hasher::new_derive_key("larder v1 run id");
        hasher.update(&*self.id_key).update(&self.repository.0);
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        let hash = blake3::keyed_hash(&key, name.as_bytes());
        RunId(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// Derives the key of the config's MAC.
    pub(crate) fn config_mac_key(&self) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key("larder v1 config mac");
        hasher.update(&*self.id_key).update(&self.repository.0);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    /// Writes the keyring as CBOR.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it at once, so that growing leaves no copies of keys behind.
        let mut encoder = Encoder::with_capacity(128 + self.keys.len() * 48);
        encoder.map(4).uint(0).array(self.keys.len());
        for key in &self.keys {
            encoder
                .array(3)
                .uint(key.purpose.into())
                .uint(key.epoch.into());
            encoder.bytes(&*key.secret);
        }
        encoder.uint(1).bytes(&*self.id_key);
        encoder.uint(2).bytes(&*self.chunker_key);
        encoder.uint(3).bytes(&*self.boundary_key);
        Zeroizing::new(encoder.into_bytes())
    }

    /// Reads a keyring of the repository `repository`.
    pub fn decode(bytes: &[u8], repository: RepositoryId) -> Result<Self> {
        let keyring = cbor::decode("keyring", bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let count = decoder.array("keys in a keyring", KEYRING_KEYS)?;
            let mut keys = Vec::with_capacity(count);
            for _ in 0..count {
                keys.push(decode_key(decoder, repository)?);
            }
            if !keys.is_sorted_by(|a: &Key, b: &Key| a.rank() < b.rank()) {
                return Err(decoder.malformed("its keys are not in ascending order"));
            }
            let mut secret = |key| -> Result<_> {
                map.required(decoder, key)?;
                Ok(Zeroizing::new(decoder.array_of::<32>()?))
            };
            let (id_key, chunker_key, boundary_key) = (secret(1)?, secret(2)?, secret(3)?);
            map.finish(decoder)?;
            Ok(Self {
                repository,
                keys,
                id_key,
                chunker_key,
                boundary_key,
            })
        })?;
        cbor::must_be_deterministic("keyring", bytes, &keyring.encode())?;
        Ok(keyring)
    }
}

/// Reads one key of a keyring.
fn decode_key(decoder: &mut Decoder<'_>, repository: RepositoryId) -> Result<Key> {
    if decoder.array("parts of a key", 3)? != 3 {
        return Err(decoder.malformed("a key does not have three parts"));
    }
    let purpose = decoder.uint()?;
    if !Purpose::ALL.iter().any(|known| *known as u64 == purpose) {
        return Err(decoder.malformed("the purpose of a key is unknown"));
    }
    let epoch = decoder.u32()?;
    let secret = Zeroizing::new(decoder.array_of::<32>()?);
    Ok(Key::derive(&secret, purpose as u8, epoch, repository))
}

/// Takes the first eight bytes of a hash as a little-endian integer.
fn first_u64(hash: &[u8; 32]) -> u64 {
    hash.first_chunk()
        .map_or(0, |first| u64::from_le_bytes(*first))
}
