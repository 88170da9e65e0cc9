//! What opens a repository: configs and key slots, and their twins, which stand in for them where they are
//! damaged (SPEC.md §11).
//!
//! An ordinary opening lists the configs and reads the newest one and the slots that it lists. Only where
//! one of these cannot be used are twins and older configs looked at: whoever holds the storage may put a
//! config there that nobody with a key made.

pub(crate) mod faults;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;
use larder_format::config::Config;
use larder_format::error::FormatError;
use larder_format::ids::{RepositoryId, SlotId};
use larder_format::keys::Keyring;
use larder_format::limits::{CONFIG_BYTES, KDF_TOTAL_KIB, SLOT_BYTES};
use larder_format::mirror::MARKER;
use larder_format::names::{self, Name};
use larder_format::slot::{self, Slot, SlotKind, SlotParams, Unlocked};

use crate::error::{EngineError, Result};
use crate::repository::{KNOWN_FEATURES, Secret};
use crate::storage::Storage;
use crate::storage::error::{ErrorKind, StorageError};

/// Where the twins of configs are.
const CONFIG_TWINS: &str = "twins/config/";
/// Configs that are looked at where the newest one cannot be used.
const CONFIGS_MAX: usize = 256;
/// What all slots may cost together that configs list of which nobody knows yet who made them: as many again as one of them may list.
const COST_KIB_MAX: u64 = 2 * KDF_TOTAL_KIB;
/// Configs that cannot be used and are warned of one by one.
const TOLD_MAX: usize = 3;

/// A config, and what opened it.
pub(crate) struct Opened {
    /// The newest config that a holder of the keys made.
    pub config: Config,
    /// The slot and the keys.
    pub unlocked: Unlocked,
}

/// A config that can be read, whoever made it.
struct Candidate {
    name: Name,
    object: Bytes,
    config: Config,
}

/// The configs that are there, the newest first, an object before its twin.
struct Candidates {
    location: String,
    sound: Vec<Candidate>,
    /// Those that cannot be read, and why.
    unsound: Vec<(Name, EngineError)>,
}

/// Opens a repository: finds the slot that a secret opens, and the newest config that its keys made.
///
/// # Errors
/// `NoRepository`, `WrongSecret`, `Unsupported`, `Damaged`, or what the storage answers.
pub(crate) fn unlock(storage: &dyn Storage, secret: &Secret) -> Result<Opened> {
    let listed = numbers(storage, names::CONFIGS)?;
    let mut search = Search::new(storage, secret);
    if let Some(newest) = newest_sound(storage, &listed)?
        && newest.check_read().is_ok()
    {
        search.try_slots(&newest, false)?;
        if let Some(unlocked) = &search.unlocked
            && let Ok(config) = newest.open(&unlocked.keyring)
            && config.slots.contains(&unlocked.slot)
        {
            let unlocked = unlocked.clone();
            return Ok(Opened { config, unlocked });
        }
    }
    let candidates = Candidates::read(storage, &listed)?;
    candidates.check_any()?;
    for has_twins in [false, true] {
        for candidate in &candidates.sound {
            search.try_slots(candidate, has_twins)?;
        }
    }
    let Some(unlocked) = search.unlocked.take() else {
        return Err(search.failure(candidates));
    };
    let config = candidates.newest(&unlocked.keyring, true)?;
    config
        .check_read(KNOWN_FEATURES)
        .map_err(|error| unsupported(&candidates.location, &error))?;
    if !config.slots.contains(&unlocked.slot) {
        // It was removed, and somebody put a config there that lists it.
        return Err(search.wrong_secret());
    }
    Ok(Opened { config, unlocked })
}

/// Gives the newest config that a holder of the keys made; with `warns` says what stands in its way.
///
/// # Errors
/// `NoRepository`; `Damaged` if there is none; or what the storage answers.
pub(crate) fn newest(storage: &dyn Storage, keyring: &Keyring, warns: bool) -> Result<Config> {
    let listed = numbers(storage, names::CONFIGS)?;
    if let Some(newest) = newest_sound(storage, &listed)?
        && let Ok(config) = newest.open(keyring)
    {
        return Ok(config);
    }
    Candidates::read(storage, &listed)?.newest(keyring, warns)
}

/// Gives a config of this number that only its twin has any more: what is listed went back to an older one.
pub(crate) fn by_twin(
    storage: &dyn Storage,
    keyring: &Keyring,
    number: u64,
) -> Result<Option<Config>> {
    let twin = read(storage, Name::ConfigTwin(number))?;
    let config = twin.ok().and_then(|twin| twin.open(keyring).ok());
    if config.is_some() {
        tell(
            &names::config(number),
            "it is missing",
            "its twin was read in its place, and `larder repair --apply` puts it back",
        );
    }
    Ok(config)
}

/// Tells whether a repository can be seen, before anybody is asked for a password: some config of it can be
/// used, as far as can be told without a key.
///
/// # Errors
/// `NoRepository`, `Unsupported`, `Damaged`, or what the storage answers.
pub(crate) fn probe(storage: &dyn Storage) -> Result<()> {
    let listed = numbers(storage, names::CONFIGS)?;
    match newest_sound(storage, &listed)? {
        Some(newest) if newest.check_read().is_ok() => Ok(()),
        _ => Candidates::read(storage, &listed)?.check_any(),
    }
}

/// Gives the newest config that can be read, whoever made it.
///
/// # Errors
/// `NoRepository`, `Unsupported`, `Damaged`, or what the storage answers.
pub(crate) fn claimed(storage: &dyn Storage) -> Result<Config> {
    let listed = numbers(storage, names::CONFIGS)?;
    let newest = match newest_sound(storage, &listed)? {
        Some(newest) => newest,
        None => {
            let mut candidates = Candidates::read(storage, &listed)?;
            candidates.check_any()?;
            candidates.sound.swap_remove(0)
        }
    };
    newest
        .check_read()
        .map_err(|error| unsupported(&storage.describe(), &error))?;
    Ok(newest.config)
}

/// Gives the highest number of a config; that of the marker where there is a mirror.
pub(crate) fn highest(storage: &dyn Storage) -> Result<Option<u64>> {
    let mut highest = None;
    storage.list(names::CONFIGS, &mut |object| {
        if let Some(Name::Config(number)) = names::parse(&object.name) {
            highest = highest.max(Some(number));
        }
        Ok(())
    })?;
    Ok(highest)
}

/// Reads the slots that a config lists; one that is missing or damaged is read from its twin, or passed over.
pub(crate) fn read_slots(storage: &dyn Storage, config: &Config) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for id in &config.slots {
        let why = match read_slot(storage, id, &Name::Slot(*id))? {
            Ok(slot) => {
                slots.push(slot);
                continue;
            }
            Err(why) => why,
        };
        let name = names::slot(id);
        match read_slot(storage, id, &Name::SlotTwin(*id))? {
            Ok(twin) => {
                tell(
                    &name,
                    &why,
                    "its twin was read in its place, and `larder repair --apply` puts it back",
                );
                slots.push(twin);
            }
            Err(_) => tell(&name, &why, "its secret does not open the repository"),
        }
    }
    if slots.is_empty() {
        return Err(EngineError::Damaged {
            object: names::SLOTS.to_owned(),
            why: "none of the key slots that the config lists can be read".to_owned(),
        });
    }
    Ok(slots)
}

/// Gives what deriving the key of a slot costs, in KiB of memory times passes.
pub(crate) fn cost_kib(params: &SlotParams) -> u64 {
    match &params.kind {
        SlotKind::Passphrase(kdf) => u64::from(kdf.memory_kib) * u64::from(kdf.passes),
        SlotKind::RawKey | SlotKind::RecoveryKey => 0,
    }
}

/// Gives the name of any object in these folders of a storage.
pub(crate) fn first_object(storage: &dyn Storage, folders: &[&str]) -> Result<Option<String>> {
    let mut first = None;
    for folder in folders {
        storage.list(folder, &mut |object| {
            first.get_or_insert(object.name);
            Ok(())
        })?;
        if first.is_some() {
            break;
        }
    }
    Ok(first)
}

/// Looks for a slot that a secret opens, and derives nothing twice.
struct Search<'a> {
    storage: &'a dyn Storage,
    secret: &'a Secret,
    tried: Vec<(RepositoryId, Slot)>,
    cost_kib: u64,
    unlocked: Option<Unlocked>,
    /// What kept the slots of a config from being tried.
    unreadable: Option<EngineError>,
    /// What kept a slot from being opened by the right secret.
    damage: Option<EngineError>,
}

impl<'a> Search<'a> {
    fn new(storage: &'a dyn Storage, secret: &'a Secret) -> Self {
        Self {
            storage,
            secret,
            tried: Vec::new(),
            cost_kib: 0,
            unlocked: None,
            unreadable: None,
            damage: None,
        }
    }

    /// Tries the slots that a config lists, or their twins, unless one was opened already.
    fn try_slots(&mut self, candidate: &Candidate, are_twins: bool) -> Result<()> {
        if self.unlocked.is_some() {
            return Ok(());
        }
        let config = &candidate.config;
        let mut slots = match are_twins {
            true => self.twins(config)?,
            false => match read_slots(self.storage, config) {
                Ok(slots) => slots,
                Err(error @ EngineError::Damaged { .. }) => {
                    self.unreadable.get_or_insert(error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
        };
        let tried = &self.tried;
        slots.retain(|slot| {
            let is_tried =
                |(id, one): &(RepositoryId, Slot)| *id == config.repository && one == slot;
            !tried.iter().any(is_tried)
        });
        self.cost_kib = slots.iter().fold(self.cost_kib, |sum, slot| {
            sum.saturating_add(cost_kib(&slot.params))
        });
        if slots.is_empty() || self.cost_kib > COST_KIB_MAX {
            return Ok(());
        }
        let secret = self.secret.borrowed();
        match slot::unlock(&slots, &config.slots, config.repository, secret) {
            Ok(unlocked) => self.unlocked = unlocked,
            Err(error) => {
                self.damage
                    .get_or_insert(EngineError::damaged("a key slot", &error));
            }
        }
        let tried = slots.into_iter().map(|slot| (config.repository, slot));
        self.tried.extend(tried);
        Ok(())
    }

    fn twins(&self, config: &Config) -> Result<Vec<Slot>> {
        let mut twins = Vec::new();
        for id in &config.slots {
            twins.extend(read_slot(self.storage, id, &Name::SlotTwin(*id))?.ok());
        }
        Ok(twins)
    }

    fn wrong_secret(&self) -> EngineError {
        EngineError::WrongSecret {
            location: self.storage.describe(),
            slots: self.tried.len(),
        }
    }

    /// Says why nothing opens.
    fn failure(mut self, candidates: Candidates) -> EngineError {
        let newest = candidates.sound.first().map(|one| one.config.number);
        let mut above = candidates
            .unsound
            .into_iter()
            .filter(|(name, _)| matches!(name, Name::Config(number) if Some(*number) > newest));
        match above.next() {
            Some((_, EngineError::Damaged { object, why })) => EngineError::Damaged {
                object,
                why: format!(
                    "{why}; it has no twin that is whole, and of the keys that the config before it lists none opens with this password or key"
                ),
            },
            Some((_, error)) => error,
            None => match (self.damage.take(), self.unreadable.take()) {
                (Some(damage), _) => damage,
                (None, Some(unreadable)) if self.tried.is_empty() => unreadable,
                _ => self.wrong_secret(),
            },
        }
    }
}

impl Candidate {
    fn open(&self, keyring: &Keyring) -> std::result::Result<Config, FormatError> {
        Config::open(keyring, self.config.number, &self.object)
    }

    fn check_read(&self) -> std::result::Result<(), FormatError> {
        self.config.check_read(KNOWN_FEATURES)
    }
}

impl Candidates {
    /// Reads all configs and their twins; `listed` are the numbers of the configs.
    fn read(storage: &dyn Storage, listed: &BTreeSet<u64>) -> Result<Self> {
        let twins = numbers(storage, CONFIG_TWINS)?;
        let mut candidates = Self {
            location: storage.describe(),
            sound: Vec::new(),
            unsound: Vec::new(),
        };
        let all: BTreeSet<u64> = listed.union(&twins).copied().collect();
        if all.is_empty() {
            let location = storage.describe();
            // Keys alone are what an interrupted init leaves.
            return Err(match first_object(storage, &["snapshots", "packs"])? {
                None => EngineError::NoRepository { location },
                Some(name) => EngineError::Damaged {
                    object: names::CONFIGS.to_owned(),
                    why: format!("{location} holds {name} but no config; delete nothing"),
                },
            });
        }
        for number in all.into_iter().rev().take(CONFIGS_MAX) {
            candidates.take(Name::Config(number), read(storage, Name::Config(number))?);
            if twins.contains(&number) {
                let twin = Name::ConfigTwin(number);
                candidates.take(twin, read(storage, twin)?);
            }
        }
        Ok(candidates)
    }

    fn take(&mut self, name: Name, found: std::result::Result<Candidate, EngineError>) {
        match found {
            Ok(found) => {
                let is_same = |one: &Candidate| {
                    one.config.number == found.config.number && one.object == found.object
                };
                if !self.sound.last().is_some_and(is_same) {
                    self.sound.push(found);
                }
            }
            Err(why) => self.unsound.push((name, why)),
        }
    }

    /// Fails unless some config can be used, as far as can be told without a key.
    fn check_any(&self) -> Result<()> {
        if self.sound.iter().any(|one| one.check_read().is_ok()) {
            return Ok(());
        }
        let newest = self.sound.first();
        Err(match newest.map(Candidate::check_read) {
            Some(Err(error)) => unsupported(&self.location, &error),
            _ => self.first_unsound(),
        })
    }

    fn first_unsound(&self) -> EngineError {
        match self.unsound.first() {
            Some((_, EngineError::Unsupported { location, why })) => EngineError::Unsupported {
                location: location.clone(),
                why: why.clone(),
            },
            Some((name, EngineError::Damaged { why, .. })) => {
                EngineError::damaged(&name.to_string(), why)
            }
            Some((name, error)) => EngineError::damaged(&name.to_string(), error),
            None => EngineError::damaged(names::CONFIGS, &"no config can be read"),
        }
    }

    /// Gives the newest config that a holder of the keys made.
    fn newest(&self, keyring: &Keyring, warns: bool) -> Result<Config> {
        let mut found = self.sound.iter().enumerate();
        let authentic = found.find_map(|(at, one)| Some((at, one, one.open(keyring).ok()?)));
        let Some((at, used, config)) = authentic else {
            return Err(match self.sound.first() {
                Some(first) => EngineError::damaged(
                    &first.name.to_string(),
                    &FormatError::Unauthentic { what: "config" },
                ),
                None => self.first_unsound(),
            });
        };
        if warns {
            self.warn(used, self.sound.get(..at).unwrap_or_default());
        }
        Ok(config)
    }

    /// Says which configs stand in the way of the one that is used.
    fn warn(&self, used: &Candidate, unauthentic: &[Candidate]) {
        let unsound = self.unsound.iter().map(|(name, error)| match error {
            EngineError::Damaged { why, .. } => (*name, why.clone()),
            error => (*name, error.to_string()),
        });
        let why = || "nobody with a key of the repository made it".to_owned();
        let unauthentic = unauthentic.iter().map(|one| (one.name, why()));
        let number = used.config.number;
        let mut told = 0;
        for (name, why) in unsound.chain(unauthentic) {
            let Name::Config(other) = name else { continue };
            let meaning = if other == number && used.name == Name::ConfigTwin(number) {
                "its twin was read in its place, and `larder repair --apply` puts it back"
                    .to_owned()
            } else if other > number {
                let newest = names::config(number);
                format!(
                    "it counts for nothing: {newest} is the newest config that opens, and `larder repair --apply` puts the other aside"
                )
            } else {
                continue;
            };
            told += 1;
            if told <= TOLD_MAX {
                tell(&name.to_string(), &why, &meaning);
            }
        }
    }
}

fn tell(object: &str, why: &str, meaning: &str) {
    tracing::warn!("{object} cannot be used: {why}; {meaning}");
}

/// Lists the numbers of configs, or of their twins, without the marker of a mirror.
fn numbers(storage: &dyn Storage, folder: &str) -> Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    storage.list(folder, &mut |object| {
        if let Some(Name::Config(number) | Name::ConfigTwin(number)) = names::parse(&object.name)
            && number != MARKER
        {
            numbers.insert(number);
        }
        Ok(())
    })?;
    Ok(numbers)
}

/// Reads the config with the highest number, if it can be read.
fn newest_sound(storage: &dyn Storage, listed: &BTreeSet<u64>) -> Result<Option<Candidate>> {
    match listed.last() {
        Some(number) => Ok(read(storage, Name::Config(*number))?.ok()),
        None => Ok(None),
    }
}

/// Reads a config or the twin of one; or says what is wrong with it.
fn read(storage: &dyn Storage, name: Name) -> Result<std::result::Result<Candidate, EngineError>> {
    let (Name::Config(number) | Name::ConfigTwin(number)) = name else {
        return Err(EngineError::Internal(format!("{name} is no config")));
    };
    let text = name.to_string();
    let object = match storage.get(&text, CONFIG_BYTES as u64) {
        Ok(object) => object,
        Err(error) => return unreadable(error).map(|why| Err(EngineError::damaged(&text, &why))),
    };
    Ok(match Config::read_unverified(number, &object) {
        Ok(config) => Ok(Candidate {
            name,
            object,
            config,
        }),
        Err(error @ FormatError::UnknownVersion { .. }) => {
            Err(unsupported(&storage.describe(), &error))
        }
        Err(error) => Err(EngineError::damaged(&text, &error)),
    })
}

/// Reads a slot or the twin of one; or says what is wrong with it.
fn read_slot(
    storage: &dyn Storage,
    id: &SlotId,
    name: &Name,
) -> Result<std::result::Result<Slot, String>> {
    match storage.get(&name.to_string(), SLOT_BYTES as u64) {
        Ok(object) => Ok(slot::read_slot(id, &object).map_err(|error| error.to_string())),
        Err(error) => unreadable(error).map(Err),
    }
}

/// Says what is wrong with an object that cannot be read; a storage that does not answer, or refuses, is an error.
fn unreadable(error: StorageError) -> Result<String> {
    match error.kind {
        ErrorKind::NotFound => Ok("it is missing".to_owned()),
        ErrorKind::Oversized => Ok(format!("it is too long: {}", error.cause)),
        ErrorKind::Truncated => Ok(format!("it is too short: {}", error.cause)),
        ErrorKind::Permanent => Ok(format!("it cannot be read: {}", error.cause)),
        _ => Err(error.into()),
    }
}

fn unsupported(location: &str, why: &FormatError) -> EngineError {
    EngineError::Unsupported {
        location: location.to_owned(),
        why: why.to_string(),
    }
}
