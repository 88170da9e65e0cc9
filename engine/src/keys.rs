//! Key slots: who may open the repository.
//!
//! Every change follows SPEC.md §11: the new slot, then a new config, then the slots that the new
//! config does not list any more are deleted. A slot that no config lists means nothing, so a
//! change that dies on the way leaves the repository as it was or as it was to be. Slots and configs have
//! twins, written after them; the twin of a slot goes before it does.

use bytes::Bytes;
use larder_format::config::Config;
use larder_format::ids::SlotId;
use larder_format::limits::{KDF_TOTAL_KIB, SLOTS};
use larder_format::names::{self, Name};
use larder_format::object::object_id;
use larder_format::secret_text::recovery_key_text;
use larder_format::slot::{Slot, SlotKind, SlotParams};
use zeroize::Zeroizing;

use crate::error::{EngineError, Result};
use crate::openers::faults::Opener;
use crate::openers::{self, cost_kib, read_slots};
use crate::random;
use crate::repository::{KdfCost, Repository, Secret, make_slot};
use crate::storage::error::ErrorKind;
use crate::storage::{Storage, create_or_confirm};

/// What a person should know who removes a slot.
pub const REMOVAL_NOTE: &str = "this takes back nothing that its holder kept: whoever opened the repository with it and copied its keys can still read what is in the storage";

/// Where the twins of key slots are.
const SLOT_TWINS: &str = "twins/keys/";
/// Times that a change starts over because somebody else changed the config meanwhile.
const ATTEMPTS: usize = 16;

/// One key slot, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeyInfo {
    /// The slot's id, in hex.
    pub id: String,
    /// "passphrase", "key-file" or "recovery".
    pub kind: &'static str,
    /// The label that was given.
    pub label: String,
    /// When it was made (RFC 3339, UTC).
    pub created: String,
    /// Whether this slot opened the repository now.
    pub current: bool,
}

/// Lists the slots, oldest first; those that cannot be read are logged as warnings.
///
/// # Errors
/// What the storage answers.
pub fn list(repository: &Repository) -> Result<Vec<KeyInfo>> {
    let config = newest(repository)?;
    let mut slots = read_slots(repository.storage(), &config)?;
    slots.sort_by_key(|slot| (slot.params.created, slot.id));
    let current = repository.current_slot();
    let info = |slot: &Slot| info(&slot.id, &slot.params, current);
    Ok(slots.iter().map(info).collect())
}

/// Adds a slot; a raw key with `recovery` is labelled as a recovery key. Gives the slot's id in hex.
///
/// # Errors
/// `Request` if there are as many slots as there may be, or what the storage answers.
pub fn add(
    repository: &Repository,
    secret: &Secret,
    recovery: bool,
    label: &str,
    kdf: KdfCost,
) -> Result<String> {
    let (id, object) = make_slot(repository.keyring(), secret, recovery, label, kdf)?;
    let cost = cost_of(secret, kdf);
    let mut is_there = false;
    change(repository, |config| {
        check_room(repository, config, None, cost)?;
        if !is_there {
            put_slot(repository.storage(), &id, &object)?;
            is_there = true;
        }
        config.slots.push(id);
        Ok(())
    })?;
    Ok(id.to_hex())
}

/// Removes a slot by id or unique prefix; refuses the last one. Gives its id in hex.
///
/// The whole id of a slot that is not listed any more removes what an interrupted removal left of
/// it. [`REMOVAL_NOTE`] says what this does not do.
///
/// # Errors
/// `NotFound`, `Request`, or what the storage answers.
pub fn remove(repository: &Repository, id: &str) -> Result<String> {
    let wanted = id.to_ascii_lowercase();
    let config = newest(repository)?;
    if let Some(id) = SlotId::from_hex(&wanted)
        && !config.slots.contains(&id)
    {
        return remove_remains(repository, &id);
    }
    let mut removed = None;
    change(repository, |config| {
        let id = match removed {
            Some(id) => id,
            None => choose(config, &wanted)?,
        };
        removed = Some(id);
        config.slots.retain(|slot| *slot != id);
        refuse_last(repository, config)
    })?;
    let Some(id) = removed else {
        return Err(EngineError::Internal("no key slot was chosen".to_owned()));
    };
    delete_slot(repository.storage(), &id)?;
    Ok(id.to_hex())
}

/// Replaces the slot that opened the repository by one with a new secret, under the same label.
/// Gives the new slot's id.
///
/// # Errors
/// `Request` if the slot was removed meanwhile, or what the storage answers.
pub fn replace_current(repository: &Repository, secret: &Secret, kdf: KdfCost) -> Result<String> {
    let old = repository.current_slot();
    let config = newest(repository)?;
    let slots = read_slots(repository.storage(), &config)?;
    let label = slots.iter().find(|slot| slot.id == old);
    let label = label.map(|slot| slot.params.label.clone());
    let label = label.unwrap_or_default();
    let (id, object) = make_slot(repository.keyring(), secret, false, &label, kdf)?;
    let cost = cost_of(secret, kdf);
    let mut is_there = false;
    change(repository, |config| {
        if !config.slots.contains(&old) {
            return Err(EngineError::Request(format!(
                "the key slot {old} that opened the repository was removed meanwhile; open it \
                 with another key"
            )));
        }
        check_room(repository, config, Some(&old), cost)?;
        if !is_there {
            put_slot(repository.storage(), &id, &object)?;
            is_there = true;
        }
        config.slots.retain(|slot| *slot != old);
        config.slots.push(id);
        Ok(())
    })?;
    repository.set_opener(Opener {
        slot: id,
        object: object_id(&object),
    });
    delete_slot(repository.storage(), &old)?;
    Ok(id.to_hex())
}

/// Makes a fresh random key: its key-file text and its recovery text.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn generate_raw() -> Result<(Secret, Zeroizing<String>, Zeroizing<String>)> {
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(random::bytes()?);
    // All of its room beforehand: a string that grows leaves copies behind.
    let mut file = Zeroizing::new(String::with_capacity(65));
    for nibble in key.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        file.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
    }
    file.push('\n');
    let recovery = recovery_key_text(&key);
    Ok((Secret::RawKey(key), file, recovery))
}

/// Tells what a slot says of itself.
pub(crate) fn info(id: &SlotId, params: &SlotParams, current: SlotId) -> KeyInfo {
    let created = jiff::Timestamp::from_second(params.created);
    KeyInfo {
        id: id.to_hex(),
        kind: match params.kind {
            SlotKind::Passphrase(_) => "passphrase",
            SlotKind::RawKey => "key-file",
            SlotKind::RecoveryKey => "recovery",
        },
        label: params.label.clone(),
        created: created.unwrap_or_default().to_string(),
        current: *id == current,
    }
}

/// Reads the newest config that a holder of the keys made.
pub(crate) fn newest(repository: &Repository) -> Result<Config> {
    let config = openers::newest(repository.storage(), repository.keyring(), false)?;
    let known = repository.config().number;
    if config.number < known {
        return Err(EngineError::Damaged {
            object: names::config(known),
            why: "it was there when the repository was opened, and is gone".to_owned(),
        });
    }
    repository.set_config(config.clone());
    Ok(config)
}

/// Changes the newest config under the next number; starts over if somebody else was first.
pub(crate) fn change(
    repository: &Repository,
    mut apply: impl FnMut(&mut Config) -> Result<()>,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let mut config = newest(repository)?;
        repository.check_write()?;
        apply(&mut config)?;
        config.slots.sort_unstable();
        config.number = config.number.saturating_add(1);
        let object = Bytes::from(config.seal(repository.keyring(), random::bytes()?)?);
        let name = names::config(config.number);
        match create_or_confirm(repository.storage(), &name, &object) {
            Ok(()) => {
                put_config_twin(repository.storage(), config.number, &object);
                repository.set_config(config);
                return Ok(());
            }
            Err(error) if error.kind == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    let config = newest(repository)?;
    if is_taken(repository, &config)? {
        return Err(EngineError::Request(format!(
            "{} is there and nobody with a key of the repository made it, so nothing about keys and settings can be changed; `larder repair --apply` puts it aside",
            names::config(config.number.saturating_add(1))
        )));
    }
    Err(EngineError::Request(
        "others keep changing the repository's keys at the same time; try again".to_owned(),
    ))
}

/// Tells whether something stands where the config after this one would.
fn is_taken(repository: &Repository, config: &Config) -> Result<bool> {
    let next = names::config(config.number.saturating_add(1));
    match repository.storage().size(&next) {
        Ok(_) => Ok(true),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Creates a slot, and then its twin. Twins are put, whatever stands in their place: they are nothing by themselves.
pub(crate) fn put_slot(storage: &dyn Storage, id: &SlotId, object: &Bytes) -> Result<()> {
    create_or_confirm(storage, &names::slot(id), object)?;
    Ok(storage.put(&Name::SlotTwin(*id).to_string(), object.clone())?)
}

/// Deletes a slot, and its twin before it: a slot that is gone is never brought back.
pub(crate) fn delete_slot(storage: &dyn Storage, id: &SlotId) -> Result<()> {
    storage.delete(&Name::SlotTwin(*id).to_string())?;
    Ok(storage.delete(&names::slot(id))?)
}

/// Writes the twin of a config that is there; that this fails is no failure of what the config is for.
pub(crate) fn put_config_twin(storage: &dyn Storage, number: u64, object: &Bytes) {
    let name = Name::ConfigTwin(number).to_string();
    if let Err(error) = storage.put(&name, object.clone()) {
        tracing::warn!(
            "{name} could not be written, from which the config is restored if it is damaged: {error}; `larder repair --apply` makes it"
        );
    }
}

fn choose(config: &Config, prefix: &str) -> Result<SlotId> {
    let found: Vec<_> = config
        .slots
        .iter()
        .filter(|slot| !prefix.is_empty() && slot.to_hex().starts_with(prefix))
        .collect();
    match found.as_slice() {
        [one] => Ok(**one),
        [] => Err(no_slot(prefix)),
        several => {
            let names: Vec<_> = several.iter().map(|slot| slot.to_hex()).collect();
            Err(EngineError::Request(format!(
                "{prefix} is ambiguous: {}; give more digits",
                names.join(", ")
            )))
        }
    }
}

fn no_slot(id: &str) -> EngineError {
    EngineError::NotFound(format!(
        "there is no key slot '{id}'; `larder key list` lists them"
    ))
}

/// Deletes a slot that the config does not list.
fn remove_remains(repository: &Repository, id: &SlotId) -> Result<String> {
    let mut is_there = false;
    for folder in [names::SLOTS, SLOT_TWINS] {
        repository.storage().list(folder, &mut |object| {
            let found = names::parse(&object.name);
            is_there |=
                matches!(found, Some(Name::Slot(found) | Name::SlotTwin(found)) if found == *id);
            Ok(())
        })?;
    }
    if !is_there {
        return Err(no_slot(&id.to_hex()));
    }
    delete_slot(repository.storage(), id)?;
    Ok(id.to_hex())
}

/// Refuses a config with no slot that can be read: nobody could open the repository again.
fn refuse_last(repository: &Repository, config: &Config) -> Result<()> {
    let refusal = || {
        EngineError::Request(
            "this is the last key that opens the repository; add another one first".to_owned(),
        )
    };
    if config.slots.is_empty() {
        return Err(refusal());
    }
    match read_slots(repository.storage(), config) {
        Ok(_) => Ok(()),
        Err(EngineError::Damaged { .. }) => Err(refusal()),
        Err(error) => Err(error),
    }
}

/// Gives what trying a secret on its slot costs, in KiB of memory times passes.
fn cost_of(secret: &Secret, kdf: KdfCost) -> u64 {
    match secret {
        Secret::Passphrase(_) => u64::from(kdf.memory_kib) * u64::from(kdf.passes),
        Secret::RawKey(_) => 0,
    }
}

/// Refuses a slot that would be one too many, or whose cost would make opening be refused.
fn check_room(
    repository: &Repository,
    config: &Config,
    without: Option<&SlotId>,
    cost: u64,
) -> Result<()> {
    let listed = config.slots.iter().filter(|slot| Some(*slot) != without);
    if listed.count() >= SLOTS {
        return Err(EngineError::Request(format!(
            "the repository has {SLOTS} keys, which is as many as there may be; remove one first"
        )));
    }
    let slots = read_slots(repository.storage(), config)?;
    let costs = slots.iter().filter(|slot| Some(&slot.id) != without);
    let costs = costs.map(|slot| cost_kib(&slot.params));
    if costs.sum::<u64>().saturating_add(cost) > KDF_TOTAL_KIB {
        return Err(EngineError::Request(
            "trying a password on all keys of the repository would take too long; choose a \
             cheaper cost, or remove a key first"
                .to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
