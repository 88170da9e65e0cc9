//! An open repository: its storage, keys, config, local index and workers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use larder_format::bundle::BUNDLE;
use larder_format::config::{Chunker as ChunkerConfig, Config, RACY_CREATES};
use larder_format::ids::{ObjectId, ReplicaId, RepositoryId, SlotId};
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring};
use larder_format::limits::RESERVE_BYTES;
use larder_format::mirror::MARKER;
use larder_format::names;
use larder_format::object;
use larder_format::parity::PERCENT;
use larder_format::secret_text;
use larder_format::slot::{self, KdfParams, SlotKind, SlotParams, Unlocked};
use zeroize::Zeroizing;

use crate::bundle::{self, BundleFile};
use crate::chunker::{ChunkSizes, Chunker};
use crate::clock;
use crate::error::{EngineError, Result};
use crate::index::Index;
use crate::index::memory::MemoryIndex;
use crate::index::rocks::{IndexOptions, OpenOutcome, RocksIndex};
use crate::keys;
use crate::memory::{self, Memory};
use crate::mirror::{read_marker, readable};
use crate::openers::faults::Opener;
use crate::openers::{self, Opened};
use crate::presence::Looks;
use crate::protocol::{Newest, keeps_all};
use crate::random;
use crate::storage::error::{ErrorKind, Reason};
use crate::storage::location::{Layers, Location};
use crate::storage::{self, Mode, Storage, create_or_confirm};
use crate::sync::lock;

/// Features that this program knows.
pub(crate) const KNOWN_FEATURES: &[&str] = &[BUNDLE, RACY_CREATES];
/// Memory of the index: block cache, filters and memtables.
const INDEX_MEMORY_BYTES: usize = 24 << 20;
/// Threads for CPU work, however many are asked for.
const THREADS_MAX: usize = 256;
/// Sealed nodes that are kept at hand on disk.
const NODE_CACHE_BYTES: u64 = 1 << 30;

/// What opens a repository.
pub enum Secret {
    /// The bytes of a passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// A raw key of 32 bytes, from a key file or a recovery key.
    RawKey(Zeroizing<[u8; 32]>),
}

impl Secret {
    /// Reads a raw key file: 64 hex digits and an optional newline.
    ///
    /// # Errors
    /// `Request`, with what is wrong with the file's text.
    pub fn from_key_file(text: &str) -> Result<Self> {
        secret_text::parse_raw_key(text.as_bytes())
            .map(Self::RawKey)
            .map_err(|error| EngineError::Request(format!("the key file cannot be used: {error}")))
    }

    /// Reads a recovery key as it was printed; case, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// `Request`, with what is wrong with the text.
    pub fn from_recovery_key(text: &str) -> Result<Self> {
        secret_text::parse_recovery_key(text)
            .map(Self::RawKey)
            .map_err(|error| {
                EngineError::Request(format!("the recovery key cannot be used: {error}"))
            })
    }

    pub(crate) fn borrowed(&self) -> slot::Secret<'_> {
        match self {
            Self::Passphrase(bytes) => slot::Secret::Passphrase(bytes),
            Self::RawKey(key) => slot::Secret::RawKey(key),
        }
    }
}

/// Cost of deriving a key from a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfCost {
    fn default() -> Self {
        Self {
            memory_kib: slot::DEFAULT_MEMORY_KIB,
            passes: slot::DEFAULT_PASSES,
            lanes: 1,
        }
    }
}

/// Where the local index lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cache {
    /// On disk, in the cache folder.
    #[default]
    Disk,
    /// In memory, for simulations and small repositories.
    Memory,
}

/// How a repository is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Where local caches live; `$XDG_CACHE_HOME/larder` if none.
    pub cache_dir: Option<PathBuf>,
    /// Where this machine remembers the newest things that it saw in repositories; nowhere if none.
    pub state_dir: Option<PathBuf>,
    /// Threads for CPU work; as many as there are cores if 0.
    pub threads: usize,
    /// Where the local index lives.
    pub cache: Cache,
    /// Backs up with one thread that asks the storage, so that what it is asked for comes in one
    /// order: for simulations.
    pub in_order: bool,
}

/// The rule by which a repository's files are cut; chosen when it is made, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChunkerKind {
    /// `fastcdc-v2020`: the faster one; who knows enough chunk lengths can compute its secret.
    FastCdc,
    /// `toeplitz-aes`: its secret stays one, whatever files an attacker plants or knows.
    #[default]
    ToeplitzAes,
}

impl ChunkerKind {
    const ALL: [Self; 2] = [Self::FastCdc, Self::ToeplitzAes];

    /// Gives the name in the config.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FastCdc => "fastcdc-v2020",
            Self::ToeplitzAes => "toeplitz-aes",
        }
    }
}

/// How a repository is made.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Label of the first key slot.
    pub label: String,
    /// Cost of its passphrase.
    pub kdf: KdfCost,
    /// Bytes of the reserve object, which prune frees first on a full storage.
    pub reserve_bytes: usize,
    /// How files are cut.
    pub chunker: ChunkerKind,
    /// Sizes of chunks.
    pub chunks: ChunkSizes,
    /// Whether the storage was found to let two writers create one object although it says
    /// otherwise: then prune asks before it relies on it.
    pub racy_creates: bool,
    /// The share of packs, in percent, that writers give parity for; none if they give none.
    pub parity: Option<u8>,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            label: String::new(),
            kdf: KdfCost::default(),
            reserve_bytes: 1 << 20,
            chunker: ChunkerKind::default(),
            chunks: ChunkSizes {
                minimum: 256 << 10,
                mean: 1 << 20,
                maximum: 4 << 20,
            },
            racy_creates: false,
            parity: None,
        }
    }
}

/// What was made by [`Repository::init`].
#[derive(Debug, Clone, serde::Serialize)]
pub struct InitReport {
    /// The repository's id, in hex.
    pub repository: String,
    /// The location, without secrets.
    pub location: String,
}

/// An open repository.
pub struct Repository {
    storage: Arc<dyn Storage>,
    location: String,
    keyring: Keyring,
    config: Mutex<Config>,
    opener: Mutex<Opener>,
    index: Box<dyn Index>,
    cache_dir: PathBuf,
    workers: rayon::ThreadPool,
    is_in_order: bool,
    is_mirror: bool,
    memory: Memory,
    seen: Mutex<Seen>,
    refreshing: Mutex<()>,
    avoided: Mutex<Avoided>,
    looks: Mutex<Looks>,
}

/// Packs that nothing is deduplicated against.
#[derive(Default)]
struct Avoided {
    /// By what the last reading says.
    by_reading: BTreeSet<ObjectId>,
    /// Because this process found them missing or damaged.
    damaged: BTreeSet<ObjectId>,
}

impl Avoided {
    fn all(&self) -> BTreeSet<ObjectId> {
        self.by_reading.union(&self.damaged).copied().collect()
    }
}

/// What the last reading saw of the collectors' work, and who may not be read anew under.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Counts the readings.
    pub generation: u64,
    /// The newest state and the round above it; none before a reading that saw them.
    pub newest: Option<Newest>,
    /// Writers that rely on the last reading.
    pub writers: usize,
}

/// Keeps the index as its writer read it, for as long as it lives.
pub(crate) struct Writing(Arc<Repository>);

impl Writing {
    /// Starts a writer's work.
    pub(crate) fn start(repository: &Arc<Repository>) -> Self {
        lock(&repository.seen).writers += 1;
        Self(Arc::clone(repository))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        lock(&self.0.seen).writers -= 1;
    }
}

impl Repository {
    /// Makes a repository at a location that needs no settings: a path or a URL.
    ///
    /// # Errors
    /// `RepositoryExists`, or what the storage answers.
    pub fn init(location: &str, secret: &Secret, options: &InitOptions) -> Result<InitReport> {
        let location = Location::new(location, &Layers::default())?;
        let storage = storage::open(&location, Mode::Create, Arc::default())?;
        let options = InitOptions {
            racy_creates: storage::probe::try_creates(storage.as_ref())?.is_lie(),
            ..options.clone()
        };
        Self::init_on(storage.as_ref(), secret, &options)
    }

    /// Makes a repository on a storage, whose creates the caller has tried out.
    ///
    /// # Errors
    /// As [`Repository::init`].
    pub fn init_on(
        storage: &dyn Storage,
        secret: &Secret,
        options: &InitOptions,
    ) -> Result<InitReport> {
        let location = storage.describe();
        if openers::highest(storage)?.is_some() {
            return Err(EngineError::RepositoryExists { location });
        }
        if let Some(name) = openers::first_object(storage, FOLDERS)? {
            // Another init may have come between the two looks.
            if openers::highest(storage)?.is_some() {
                return Err(EngineError::RepositoryExists { location });
            }
            return Err(EngineError::Request(format!(
                "{location} is not empty: it holds {name} but no config; choose an empty folder (if this was a repository, delete nothing: `larder repair` says whether config/ can be put back)"
            )));
        }
        check_chunk_sizes(options.chunks)?;
        check_parity(options.parity)?;
        if options.reserve_bytes > RESERVE_BYTES {
            let found = options.reserve_bytes;
            return Err(EngineError::Request(format!(
                "a reserve of {found} bytes is more than the {RESERVE_BYTES} that there may be"
            )));
        }
        let repository = RepositoryId(random::bytes()?);
        let keys: Zeroizing<[u8; KEYRING_RANDOM_BYTES]> = Zeroizing::new(random::bytes()?);
        let keyring = Keyring::generate(repository, &keys);
        let (slot_id, slot_object) =
            make_slot(&keyring, secret, false, &options.label, options.kdf)?;
        keys::put_slot(storage, &slot_id, &slot_object)?;
        if options.reserve_bytes > 0 {
            let reserve =
                object::reserve(options.reserve_bytes, random::bytes()?, &random::bytes()?);
            match create_or_confirm(storage, names::RESERVE, &Bytes::from(reserve)) {
                // One that an init left which was interrupted, or which runs at the same time, is as good.
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
        let mut config = Config {
            number: 1,
            repository,
            replica: ReplicaId(random::bytes()?),
            created: clock::now_s(),
            chunker: ChunkerConfig {
                name: options.chunker.name().to_owned(),
                min_bytes: options.chunks.minimum as u64,
                mean_bytes: options.chunks.mean as u64,
                max_bytes: options.chunks.maximum as u64,
            },
            read_features: Vec::new(),
            write_features: Vec::new(),
            collect_features: options
                .racy_creates
                .then(|| RACY_CREATES.to_owned())
                .into_iter()
                .collect(),
            slots: vec![slot_id],
        };
        config.set_parity(options.parity);
        // The config is what makes it a repository, so it comes last.
        let object = Bytes::from(config.seal(&keyring, random::bytes()?)?);
        match create_or_confirm(storage, &names::config(1), &object) {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                keys::delete_slot(storage, &slot_id)?;
                return Err(EngineError::RepositoryExists { location });
            }
            Err(error) => return Err(error.into()),
        }
        keys::put_config_twin(storage, 1, &object);
        Ok(InitReport {
            repository: repository.to_hex(),
            location,
        })
    }

    /// Opens the repository at a location that needs no settings: a path or a URL.
    ///
    /// # Errors
    /// `NoRepository`, `WrongSecret`, `Unsupported`, or what the storage answers.
    pub fn open(location: &str, secret: &Secret, options: &OpenOptions) -> Result<Arc<Self>> {
        let location = Location::new(location, &Layers::default())?;
        let storage = open_storage(&location, Arc::default())?;
        Self::open_on(storage, secret, options)
    }

    /// Opens the repository on a storage.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn open_on(
        storage: Arc<dyn Storage>,
        secret: &Secret,
        options: &OpenOptions,
    ) -> Result<Arc<Self>> {
        let (storage, replica) = resolve(storage)?;
        let opened = openers::unlock(storage.as_ref(), secret)?;
        if opened.config.is_bundle() {
            bundle::verify(storage.as_ref(), &opened.unlocked.keyring)?;
        }
        Self::open_with(storage, replica, opened, options)
    }

    /// Opens another copy of a repository that is open, with its keys.
    ///
    /// # Errors
    /// As [`Repository::open`]; `Damaged` if the keys are not those of its config.
    pub(crate) fn open_copy(
        storage: Arc<dyn Storage>,
        like: &Self,
        options: &OpenOptions,
    ) -> Result<Arc<Self>> {
        let (storage, replica) = resolve(storage)?;
        let opener = like.opener();
        let opened = Opened {
            config: openers::newest(storage.as_ref(), &like.keyring, true)?,
            unlocked: Unlocked {
                slot: opener.slot,
                object: opener.object,
                keyring: like.keyring.clone(),
            },
        };
        opened
            .config
            .check_read(KNOWN_FEATURES)
            .map_err(|error| EngineError::Unsupported {
                location: storage.describe(),
                why: error.to_string(),
            })?;
        Self::open_with(storage, replica, opened, options)
    }

    /// Opens a repository with what opened it.
    pub(crate) fn open_with(
        storage: Arc<dyn Storage>,
        replica: Option<ReplicaId>,
        opened: Opened,
        options: &OpenOptions,
    ) -> Result<Arc<Self>> {
        let location = storage.describe();
        let Opened {
            mut config,
            unlocked,
        } = opened;
        // Caches and memories of a mirror are its own.
        config.replica = replica.unwrap_or(config.replica);
        let memory = options
            .state_dir
            .as_ref()
            .map(|dir| memory::folder_of(&own_folder(dir, &config), &location));
        let memory = Memory::open(memory);
        let seen = memory.seen().config;
        if seen > config.number
            && let Some(newer) = openers::by_twin(storage.as_ref(), &unlocked.keyring, seen)?
        {
            if !newer.slots.contains(&unlocked.slot) {
                let slots = newer.slots.len();
                return Err(EngineError::WrongSecret { location, slots });
            }
            config = Config {
                replica: config.replica,
                ..newer
            };
        }
        let (cache_dir, index) = open_index(cache_folder(options, &config), options, &config)?;
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(if options.in_order {
                1
            } else {
                options.threads.min(THREADS_MAX)
            })
            .thread_name(|number| format!("worker-{number}"))
            .build()
            .map_err(|error| EngineError::Internal(format!("cannot start threads: {error}")))?;
        Ok(Arc::new(Self {
            storage,
            location,
            keyring: unlocked.keyring,
            config: Mutex::new(config),
            opener: Mutex::new(Opener {
                slot: unlocked.slot,
                object: unlocked.object,
            }),
            index,
            cache_dir,
            workers,
            is_in_order: options.in_order,
            is_mirror: replica.is_some(),
            memory,
            seen: Mutex::default(),
            refreshing: Mutex::default(),
            avoided: Mutex::default(),
            looks: Mutex::default(),
        }))
    }

    /// Tells whether a repository can be seen on a storage, before anybody is asked for a password.
    ///
    /// # Errors
    /// `NoRepository`, `Unsupported`, or what the storage answers.
    pub fn probe(storage: &dyn Storage) -> Result<()> {
        if openers::highest(storage)? == Some(MARKER) {
            return read_marker(storage).map(|_| ());
        }
        openers::probe(storage)
    }

    /// Fails if a storage is a mirror, before anybody is asked for a password to change something in it.
    ///
    /// # Errors
    /// `Request` for a mirror, or what the storage answers.
    pub fn refuse_mirror(storage: &dyn Storage) -> Result<()> {
        match openers::highest(storage)? {
            Some(MARKER) => Err(takes_no_writes(&storage.describe())),
            _ => Ok(()),
        }
    }

    /// Gives the location, without secrets.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Gives the folder of the local cache.
    #[must_use]
    pub fn cache_dir(&self) -> &Path {
        &self.cache_dir
    }

    /// Gives the storage.
    #[must_use]
    pub fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    /// Gives the keys.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Gives the local index.
    #[must_use]
    pub fn index(&self) -> &dyn Index {
        self.index.as_ref()
    }

    /// Gives the threads for CPU work.
    #[must_use]
    pub fn workers(&self) -> &rayon::ThreadPool {
        &self.workers
    }

    /// Tells how many calls to the storage at once are of use.
    #[must_use]
    pub fn calls_at_once(&self) -> usize {
        if self.is_in_order {
            1
        } else {
            self.storage.calls_at_once()
        }
    }

    /// Tells whether one thread alone asks the storage.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.is_in_order
    }

    /// Gives the newest config that was read or written.
    #[must_use]
    pub fn config(&self) -> Config {
        lock(&self.config).clone()
    }

    pub(crate) fn set_config(&self, config: Config) {
        *lock(&self.config) = config;
    }

    /// Gives the key slot that opened the repository.
    #[must_use]
    pub fn current_slot(&self) -> SlotId {
        self.opener().slot
    }

    /// Gives the key slot that opened the repository, and what its bytes are.
    pub(crate) fn opener(&self) -> Opener {
        *lock(&self.opener)
    }

    pub(crate) fn set_opener(&self, opener: Opener) {
        *lock(&self.opener) = opener;
    }

    /// Gives what this machine remembers of the repository.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Gives what the last reading saw of the collectors' work.
    pub(crate) fn seen(&self) -> Seen {
        *lock(&self.seen)
    }

    /// Remembers what a reading saw of the collectors' work, which is unknown if it has no answer.
    pub(crate) fn set_seen(&self, newest: Option<Newest>) {
        let mut seen = lock(&self.seen);
        seen.generation += 1;
        seen.newest = newest;
    }

    /// Lets one reader at a time read anew.
    pub(crate) fn refreshing(&self) -> MutexGuard<'_, ()> {
        lock(&self.refreshing)
    }

    /// Decides which packs are not usable by what was read; those that this process found damaged
    /// are not usable either.
    pub(crate) fn set_unusable(&self, packs: BTreeSet<ObjectId>) -> Result<()> {
        let mut avoided = lock(&self.avoided);
        avoided.by_reading = packs;
        Ok(self.index.set_unusable(&avoided.all())?)
    }

    /// Deduplicates against these packs no more, for they are missing or damaged; gives how many
    /// of them may have been used until now.
    pub(crate) fn avoid(&self, packs: impl IntoIterator<Item = ObjectId>) -> Result<u64> {
        let mut avoided = lock(&self.avoided);
        let mut count = 0;
        if !keeps_all() {
            return Ok(0);
        }
        for pack in packs {
            let is_new = !avoided.by_reading.contains(&pack) && avoided.damaged.insert(pack);
            count += u64::from(is_new);
        }
        if count > 0 {
            self.index.set_unusable(&avoided.all())?;
        }
        Ok(count)
    }

    /// Tells whether this process found packs damaged that were read as usable.
    pub(crate) fn avoids_any(&self) -> bool {
        let avoided = lock(&self.avoided);
        !avoided.damaged.is_subset(&avoided.by_reading)
    }

    /// Gives the packs that this process found damaged and that were read as usable.
    pub(crate) fn avoided(&self) -> Vec<ObjectId> {
        let avoided = lock(&self.avoided);
        let damaged = avoided.damaged.difference(&avoided.by_reading);
        damaged.copied().collect()
    }

    /// Tells how far the packs were looked at.
    pub(crate) fn looks(&self) -> Looks {
        *lock(&self.looks)
    }

    pub(crate) fn set_looks(&self, looks: Looks) {
        *lock(&self.looks) = looks;
    }

    /// Begins a run that looks at packs by itself, whatever was found damaged before.
    pub(crate) fn look_anew(&self, wants_all: bool) {
        lock(&self.avoided).damaged.clear();
        self.set_looks(Looks {
            wants_all,
            had_all: None,
        });
    }

    /// Makes the chunker that the config names.
    ///
    /// # Errors
    /// `Unsupported` for a chunker that this program does not have.
    pub fn chunker(&self) -> Result<Chunker> {
        let config = self.config();
        let sizes = ChunkSizes {
            minimum: usize::try_from(config.chunker.min_bytes).unwrap_or_default(),
            mean: usize::try_from(config.chunker.mean_bytes).unwrap_or_default(),
            maximum: usize::try_from(config.chunker.max_bytes).unwrap_or_default(),
        };
        let name = config.chunker.name.as_str();
        let unsupported = |why| EngineError::Unsupported {
            location: self.location.clone(),
            why,
        };
        if check_chunk_sizes(sizes).is_err() {
            return Err(unsupported(format!(
                "the chunk sizes in its config ({} to {} bytes, {} on average) are out of range",
                sizes.minimum, sizes.maximum, sizes.mean
            )));
        }
        let kind = ChunkerKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name);
        match kind.ok_or_else(|| unsupported(format!("its chunker '{name}' is unknown")))? {
            ChunkerKind::FastCdc => Ok(Chunker::fastcdc(sizes, self.keyring.chunker_seed())),
            ChunkerKind::ToeplitzAes => {
                let secret = self.keyring.toeplitz_secret();
                Ok(Chunker::toeplitz_aes(sizes, &secret))
            }
        }
    }

    /// Fails if the repository is a mirror or a bundle, or writing needs a feature that this program does
    /// not know.
    ///
    /// # Errors
    /// `Request` for a mirror or a bundle; `Unsupported`, naming the feature.
    pub fn check_write(&self) -> Result<()> {
        if self.config().is_bundle() {
            return Err(EngineError::Request(format!(
                "{} is a bundle, which is only read; `larder import` brings its snapshots into a repository",
                self.location
            )));
        }
        if self.is_mirror {
            return Err(takes_no_writes(&self.location));
        }
        self.config()
            .check_write(KNOWN_FEATURES)
            .map_err(|error| EngineError::Unsupported {
                location: self.location.clone(),
                why: error.to_string(),
            })
    }
}

fn takes_no_writes(mirror: &str) -> EngineError {
    EngineError::Request(format!(
        "{mirror} is a mirror, which takes no writes until it is promoted (`larder sync promote`); write to the repository that it mirrors"
    ))
}

/// Opens the storage of a repository that is there; `stop` is set when the process is asked to end.
///
/// # Errors
/// `NoRepository` where nothing is, or what the storage answers.
pub fn open_storage(location: &Location, stop: Arc<AtomicBool>) -> Result<Arc<dyn Storage>> {
    if let Some(file) = location.place.bundle() {
        return Ok(Arc::new(BundleFile::of(&file)?));
    }
    storage::open(location, Mode::Open, stop).map_err(|error| match error.kind {
        // Where there is no bucket, init makes no repository either.
        ErrorKind::NotFound if error.reason != Reason::NoBucket => EngineError::NoRepository {
            location: location.place.to_string(),
        },
        _ => error.into(),
    })
}

/// Gives the storage through which a repository is read, and the id that a mirror has of its own.
fn resolve(storage: Arc<dyn Storage>) -> Result<(Arc<dyn Storage>, Option<ReplicaId>)> {
    if openers::highest(storage.as_ref())? != Some(MARKER) {
        return Ok((storage, None));
    }
    let (storage, replica) = readable(storage)?;
    if openers::highest(storage.as_ref())?.is_none() {
        return Err(EngineError::Request(format!(
            "{} is a mirror, and no sync to it has ended yet; run `larder sync` again",
            storage.describe()
        )));
    }
    Ok((storage, replica))
}

/// Makes a slot for a secret: its id and its object.
pub(crate) fn make_slot(
    keyring: &Keyring,
    secret: &Secret,
    recovery: bool,
    label: &str,
    kdf: KdfCost,
) -> Result<(SlotId, Bytes)> {
    let id = SlotId(random::bytes()?);
    let kind = match secret {
        Secret::Passphrase(_) => SlotKind::Passphrase(KdfParams {
            memory_kib: kdf.memory_kib,
            passes: kdf.passes,
            lanes: kdf.lanes,
            salt: random::bytes()?,
        }),
        Secret::RawKey(_) if recovery => SlotKind::RecoveryKey,
        Secret::RawKey(_) => SlotKind::RawKey,
    };
    let params = SlotParams {
        kind,
        label: label.to_owned(),
        created: clock::now_s(),
    };
    let object = slot::seal_slot(
        keyring,
        &id,
        &params,
        secret.borrowed(),
        random::bytes()?,
        &random::bytes()?,
    )?;
    Ok((id, Bytes::from(object)))
}

/// What only a repository has; slots alone, and a reserve, are what an interrupted init leaves.
const FOLDERS: &[&str] = &[
    "twins/config",
    "snapshots",
    "sessions",
    "index",
    "packs",
    "gc",
];

pub(crate) fn check_parity(percent: Option<u8>) -> Result<()> {
    match percent {
        Some(percent) if !PERCENT.contains(&percent) => Err(EngineError::Request(format!(
            "parity of {percent} % is not possible: the share is from {} to {}",
            PERCENT.start(),
            PERCENT.end()
        ))),
        _ => Ok(()),
    }
}

fn check_chunk_sizes(sizes: ChunkSizes) -> Result<()> {
    let even = [sizes.minimum, sizes.mean, sizes.maximum]
        .iter()
        .all(|size| size.is_multiple_of(2));
    let in_range = (64..=1 << 20).contains(&sizes.minimum)
        && (256..=4 << 20).contains(&sizes.mean)
        && (1024..=larder_format::limits::CHUNK_BYTES).contains(&sizes.maximum);
    if even && in_range && sizes.minimum <= sizes.mean && sizes.mean <= sizes.maximum {
        return Ok(());
    }
    Err(EngineError::Request(
        "chunk sizes must be even and ascend: minimum 64 bytes to 1 MiB, mean 256 bytes to 4 MiB, maximum 1 KiB to 4 MiB".to_owned(),
    ))
}

fn cache_folder(options: &OpenOptions, config: &Config) -> PathBuf {
    let base = options.cache_dir.clone().unwrap_or_else(default_cache_dir);
    own_folder(&base, config)
}

fn own_folder(base: &Path, config: &Config) -> PathBuf {
    base.join(format!("{}-{}", config.repository, config.replica))
}

/// Gives the folder that holds all local caches unless told otherwise.
#[must_use]
pub fn default_cache_dir() -> PathBuf {
    own_base("XDG_CACHE_HOME", ".cache")
        .unwrap_or_else(std::env::temp_dir)
        .join("larder")
}

/// Gives the folder in which this machine remembers repositories unless told otherwise; none for a
/// user without a home.
#[must_use]
pub fn default_state_dir() -> Option<PathBuf> {
    own_base("XDG_STATE_HOME", ".local/state").map(|base| base.join("larder"))
}

fn own_base(variable: &str, below_home: &str) -> Option<PathBuf> {
    let from = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    from(variable).or_else(|| from("HOME").map(|home| home.join(below_home)))
}

/// Opens the local index, and gives the folder where it and what spills live.
///
/// A cache folder that cannot be used costs time and nothing else: a temporary one takes its place.
fn open_index(
    folder: PathBuf,
    options: &OpenOptions,
    config: &Config,
) -> Result<(PathBuf, Box<dyn Index>)> {
    if options.cache == Cache::Memory {
        return Ok((folder, Box::new(MemoryIndex::new())));
    }
    let settings = IndexOptions {
        repository: config.repository,
        replica: config.replica,
        cache_bytes: INDEX_MEMORY_BYTES,
        block_cache_cap_bytes: NODE_CACHE_BYTES,
    };
    match RocksIndex::open(&folder.join("index"), &settings) {
        Ok(OpenOutcome::Opened { index, .. }) => Ok((folder, index)),
        Ok(OpenOutcome::InUse) => {
            let index = RocksIndex::open_temporary(&folder, &settings)?;
            Ok((folder, Box::new(index)))
        }
        Err(error) => {
            tracing::warn!("{error}; a temporary cache takes its place, which costs time");
            let folder = std::env::temp_dir();
            let index = RocksIndex::open_temporary(&folder, &settings)?;
            Ok((folder, Box::new(index)))
        }
    }
}
