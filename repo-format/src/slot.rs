//! Key slots: what unwraps a keyring (SPEC.md §3).

use alloc::string::String;
use alloc::vec::Vec;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::cbor::{self, Encoder, within};
use crate::codec::{Reader, put_varint};
use crate::error::{FormatError, Result};
use crate::ids::{ObjectId, RepositoryId, SlotId};
use crate::keys::{Key, Keyring};
use crate::limits::{
    KDF_LANES, KDF_MEMORY_KIB, KDF_PASSES, KDF_TOTAL_KIB, LABEL_BYTES, SLOT_BYTES, SLOTS,
};
use crate::names;
use crate::object::{HEADER_BYTES, Header, Kind, close, object_id, verify_closing};
use crate::seal::{self, Aad};

/// Memory in KiB that writers give a passphrase at least, unless told otherwise.
pub const DEFAULT_MEMORY_KIB: u32 = 64 << 10;
/// Passes that writers give a passphrase, unless told otherwise.
pub const DEFAULT_PASSES: u32 = 3;

/// How expensive it is to try a passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Random, fresh for each slot.
    pub salt: [u8; 32],
}

/// What opens a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotKind {
    /// A passphrase, by Argon2id.
    Passphrase(KdfParams),
    /// 32 random bytes in a file.
    RawKey,
    /// 32 random bytes on paper.
    RecoveryKey,
}

/// What a slot says in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotParams {
    /// What opens it.
    pub kind: SlotKind,
    /// A name for people, at most 256 bytes.
    pub label: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// What somebody who wants a keyring has; it lives as long as the caller keeps it.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    /// The bytes of a passphrase, as they are.
    Passphrase(&'a [u8]),
    /// The key from a raw key file or a recovery key.
    RawKey(&'a [u8; 32]),
}

/// A slot that was read, and not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The slot's name.
    pub id: SlotId,
    /// What it says in the clear.
    pub params: SlotParams,
    /// The hash of its object.
    pub object: ObjectId,
    header: Header,
    params_bytes: Vec<u8>,
    sealed: Vec<u8>,
}

/// Wraps `keyring` into the object of the slot `id`, with a fresh uid and fresh randomness.
pub fn seal_slot(
    keyring: &Keyring,
    id: &SlotId,
    params: &SlotParams,
    secret: Secret<'_>,
    uid: [u8; 16],
    random: &[u8; 32],
) -> Result<Vec<u8>> {
    check_params(params)?;
    let key = key_encryption_key(&params.kind, secret, keyring.repository())?;
    let key = key.ok_or(FormatError::Malformed {
        what: "key slot",
        at: 0,
        why: "the secret is not of the kind that the slot takes",
    })?;
    let header = Header {
        kind: Kind::KeySlot,
        key_id: key.id(),
        uid,
    };
    let params_bytes = params.encode();
    let aad = Aad::slot(&key, &header, &params_bytes, &names::slot(id));
    let mut object = header.encode().to_vec();
    put_varint(&mut object, params_bytes.len() as u64);
    object.extend_from_slice(&params_bytes);
    object.extend_from_slice(&seal::seal(&key, &aad, random, &keyring.encode())?);
    let object = close(object);
    within("bytes of a key slot", object.len(), SLOT_BYTES)?;
    Ok(object)
}

/// Reads the object of the slot `id` without deriving anything.
pub fn read_slot(id: &SlotId, object: &[u8]) -> Result<Slot> {
    within("bytes of a key slot", object.len(), SLOT_BYTES)?;
    let header = Header::decode_kind(object, Kind::KeySlot)?;
    let before = verify_closing("key slot", object)?;
    let mut reader = Reader::new("key slot", before);
    reader.take(HEADER_BYTES)?;
    let length = reader.varint_below("bytes of a key slot", SLOT_BYTES)?;
    let params_bytes = reader.take(length)?;
    Ok(Slot {
        id: *id,
        params: SlotParams::decode(params_bytes)?,
        object: object_id(object),
        header,
        params_bytes: params_bytes.to_vec(),
        sealed: reader.rest().to_vec(),
    })
}

/// What a secret opened.
#[derive(Clone)]
pub struct Unlocked {
    /// The slot, which may have stood under the name of another one that the config lists.
    pub slot: SlotId,
    /// The hash of its object: bytes that are known to be that slot's.
    pub object: ObjectId,
    /// The keys.
    pub keyring: Keyring,
}

/// Opens the first of `slots` that `secret` opens; nothing if it opens none of them.
///
/// `slots` are those of the `listed` ones, which the config lists, that can be read: before anything is
/// derived, what they would cost together is checked, so that a hostile storage cannot keep a client busy.
/// One that took another's place is opened under the name that it was made for. An error says that
/// the slots cost too much, or that the secret is right and what it should open is damaged.
pub fn unlock(
    slots: &[Slot],
    listed: &[SlotId],
    repository: RepositoryId,
    secret: Secret<'_>,
) -> Result<Option<Unlocked>> {
    within("key slots", slots.len(), SLOTS)?;
    within("key slots", listed.len(), SLOTS)?;
    check_cost(slots)?;
    let mut damage = None;
    for slot in slots {
        let Some(key) = key_encryption_key(&slot.params.kind, secret, repository)? else {
            continue;
        };
        if key.id() != slot.header.key_id {
            continue;
        }
        let others = listed.iter().filter(|id| **id != slot.id);
        for id in core::iter::once(&slot.id).chain(others) {
            match unwrap_keyring(slot, id, &key) {
                Ok(keyring) => {
                    return Ok(Some(Unlocked {
                        slot: *id,
                        object: slot.object,
                        keyring,
                    }));
                }
                Err(error) => drop(damage.get_or_insert(error)),
            }
        }
    }
    damage.map_or(Ok(None), Err)
}

/// Opens a slot with the key that its header names, as the slot that was made for the name of `id`.
fn unwrap_keyring(slot: &Slot, id: &SlotId, key: &Key) -> Result<Keyring> {
    let name = names::slot(id);
    let aad = Aad::slot(key, &slot.header, &slot.params_bytes, &name);
    let keyring = Zeroizing::new(seal::open(key, &aad, &slot.sealed)?);
    Keyring::decode(&keyring, key.repository())
}

impl SlotParams {
    /// Writes the parameters as CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (number, kdf) = match &self.kind {
            SlotKind::Passphrase(kdf) => (1, Some(kdf)),
            SlotKind::RawKey => (2, None),
            SlotKind::RecoveryKey => (3, None),
        };
        let mut encoder = Encoder::new();
        encoder.map(3 + usize::from(kdf.is_some()));
        encoder.uint(0).uint(number).uint(1).text(&self.label);
        encoder.uint(2).int(self.created);
        if let Some(kdf) = kdf {
            encoder.uint(3).map(4).uint(0).uint(kdf.memory_kib.into());
            encoder.uint(1).uint(kdf.passes.into());
            encoder.uint(2).uint(kdf.lanes.into());
            encoder.uint(3).bytes(&kdf.salt);
        }
        encoder.into_bytes()
    }

    /// Reads the parameters and checks their limits.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let params = cbor::decode("key slot parameters", bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let number = decoder.uint()?;
            map.required(decoder, 1)?;
            let label = decoder.text("label of a key slot", LABEL_BYTES)?;
            map.required(decoder, 2)?;
            let created = decoder.int()?;
            let kind = match number {
                1 => {
                    map.required(decoder, 3)?;
                    let mut kdf = decoder.map()?;
                    let mut next = |key| {
                        kdf.required(decoder, key)?;
                        decoder.u32()
                    };
                    let (memory_kib, passes, lanes) = (next(0)?, next(1)?, next(2)?);
                    kdf.required(decoder, 3)?;
                    let salt = decoder.array_of()?;
                    kdf.finish(decoder)?;
                    SlotKind::Passphrase(KdfParams {
                        memory_kib,
                        passes,
                        lanes,
                        salt,
                    })
                }
                2 => SlotKind::RawKey,
                3 => SlotKind::RecoveryKey,
                _ => return Err(decoder.malformed("the kind of slot is unknown")),
            };
            map.finish(decoder)?;
            Ok(Self {
                kind,
                label,
                created,
            })
        })?;
        cbor::must_be_deterministic("key slot parameters", bytes, &params.encode())?;
        check_params(&params)?;
        Ok(params)
    }
}

/// Checks one slot's parameters against the limits.
fn check_params(params: &SlotParams) -> Result<()> {
    within("label of a key slot", params.label.len(), LABEL_BYTES)?;
    let SlotKind::Passphrase(kdf) = &params.kind else {
        return Ok(());
    };
    for (what, found, limit) in [
        ("Argon2id memory in KiB", kdf.memory_kib, KDF_MEMORY_KIB),
        ("Argon2id passes", kdf.passes, KDF_PASSES),
        ("Argon2id lanes", kdf.lanes, KDF_LANES),
    ] {
        if found > limit {
            return Err(FormatError::Limit {
                what,
                found: found.into(),
                limit: limit.into(),
            });
        }
    }
    if kdf.passes == 0 || kdf.lanes == 0 || kdf.memory_kib < 8 * kdf.lanes {
        return Err(FormatError::Malformed {
            what: "key slot parameters",
            at: 0,
            why: "Argon2id needs a pass, a lane, and 8 KiB for each lane",
        });
    }
    Ok(())
}

/// Checks what deriving the keys of all `slots` would cost together.
fn check_cost(slots: &[Slot]) -> Result<()> {
    let mut total_kib = 0;
    for slot in slots {
        check_params(&slot.params)?;
        if let SlotKind::Passphrase(kdf) = &slot.params.kind {
            total_kib += u64::from(kdf.memory_kib) * u64::from(kdf.passes);
        }
    }
    if total_kib > KDF_TOTAL_KIB {
        return Err(FormatError::Limit {
            what: "Argon2id memory times passes of all key slots, in KiB",
            found: total_kib,
            limit: KDF_TOTAL_KIB,
        });
    }
    Ok(())
}

/// Derives the key that wraps the keyring; nothing if the secret is of another kind.
fn key_encryption_key(
    kind: &SlotKind,
    secret: Secret<'_>,
    repository: RepositoryId,
) -> Result<Option<Key>> {
    let mut derived = Zeroizing::new([0; 32]);
    match (kind, secret) {
        (SlotKind::Passphrase(kdf), Secret::Passphrase(passphrase)) => {
            let failed = |_| FormatError::Malformed {
                what: "passphrase of a key slot",
                at: 0,
                why: "Argon2id failed: its parameters or the memory left do not allow it",
            };
            let params = Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(32));
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(failed)?)
                .hash_password_into(passphrase, &kdf.salt, &mut *derived)
                .map_err(failed)?;
        }
        (SlotKind::RawKey | SlotKind::RecoveryKey, Secret::RawKey(key)) => *derived = *key,
        _ => return Ok(None),
    }
    Ok(Some(Key::derive(&derived, 0, 0, repository)))
}
