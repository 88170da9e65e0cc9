//! An open repository: its storage, keys, config, local index and workers.

mod init;
mod local;
mod options;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use larder_format::bundle::BUNDLE;
use larder_format::config::{Config, RACY_CREATES};
use larder_format::ids::{ObjectId, ReplicaId, SlotId};
use larder_format::keys::Keyring;
use larder_format::mirror::MARKER;
use larder_format::slot::Unlocked;

use crate::bundle::{self, BundleFile};
use crate::chunker::{ChunkSizes, Chunker};
use crate::error::{EngineError, Result};
use crate::index::Index;
use crate::memory::{self, Memory};
use crate::mirror::{read_marker, readable};
use crate::openers::faults::Opener;
use crate::openers::{self, Opened};
use crate::presence::Looks;
use crate::protocol::{Newest, keeps_all};
use crate::storage::error::{ErrorKind, Reason};
use crate::storage::location::{Layers, Location};
use crate::storage::{self, Mode, Storage};
use crate::sync::lock;
use init::check_chunk_sizes;
use local::{cache_folder, open_index, own_folder};

pub(crate) use init::{check_parity, make_slot};
pub use local::{default_cache_dir, default_state_dir};
pub use options::{Cache, ChunkerKind, InitOptions, InitReport, KdfCost, OpenOptions, Secret};

/// Features that this program knows.
pub(crate) const KNOWN_FEATURES: &[&str] = &[BUNDLE, RACY_CREATES];
/// Threads for CPU work, however many are asked for.
const THREADS_MAX: usize = 256;

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
