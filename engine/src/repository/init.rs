//! How a repository comes to be.

use std::sync::Arc;

use bytes::Bytes;
use larder_format::config::{Chunker as ChunkerConfig, Config, RACY_CREATES};
use larder_format::ids::{ReplicaId, RepositoryId, SlotId};
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring};
use larder_format::limits::{CHUNK_BYTES, RESERVE_BYTES};
use larder_format::names;
use larder_format::object;
use larder_format::parity::PERCENT;
use larder_format::slot::{self, KdfParams, SlotKind, SlotParams};
use zeroize::Zeroizing;

use super::{InitOptions, InitReport, KdfCost, Repository, Secret};
use crate::chunker::ChunkSizes;
use crate::clock;
use crate::error::{EngineError, Result};
use crate::keys;
use crate::openers;
use crate::random;
use crate::storage::error::ErrorKind;
use crate::storage::location::{Layers, Location};
use crate::storage::{self, Mode, Storage, create_or_confirm};

/// What only a repository has; slots alone, and a reserve, are what an interrupted init leaves.
const FOLDERS: &[&str] = &[
    "twins/config",
    "snapshots",
    "sessions",
    "index",
    "packs",
    "gc",
];

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

pub(super) fn check_chunk_sizes(sizes: ChunkSizes) -> Result<()> {
    let even = [sizes.minimum, sizes.mean, sizes.maximum]
        .iter()
        .all(|size| size.is_multiple_of(2));
    let in_range = (64..=1 << 20).contains(&sizes.minimum)
        && (256..=4 << 20).contains(&sizes.mean)
        && (1024..=CHUNK_BYTES).contains(&sizes.maximum);
    if even && in_range && sizes.minimum <= sizes.mean && sizes.mean <= sizes.maximum {
        return Ok(());
    }
    Err(EngineError::Request(
        "chunk sizes must be even and ascend: minimum 64 bytes to 1 MiB, mean 256 bytes to 4 MiB, maximum 1 KiB to 4 MiB".to_owned(),
    ))
}
