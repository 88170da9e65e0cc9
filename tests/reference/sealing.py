"""XAES-256-GCM (SPEC.md §5), keys, keyrings and slots (§3)."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

import argon2.exceptions
import argon2.low_level
import blake3 as blake3_module
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from wire import Cursor, Damage, array, decode_cbor, fields, integer, octets, row, text

DATA, TREE, INDEX, SNAPSHOT, COLLECTOR = 1, 2, 3, 4, 5
PURPOSE_NAMES = {1: "data", 2: "tree", 3: "index", 4: "snapshot", 5: "collector"}
BLOCK_ROLE, DIRECTORY_ROLE, SEGMENT_ROLE, RECORD_ROLE, SLOT_ROLE = 1, 2, 3, 4, 5
OVERHEAD = 24 + 16
PASSPHRASE, RAW_KEY, RECOVERY_KEY = 1, 2, 3


def blake3(data: bytes) -> bytes:
    return blake3_module.blake3(data).digest()


def blake3_keyed(key: bytes, data: bytes) -> bytes:
    return blake3_module.blake3(data, key=key).digest()


def blake3_derive(context: str, material: bytes) -> bytes:
    return blake3_module.blake3(material, derive_key_context=context).digest()


def xaes_subkey(key: bytes, nonce: bytes) -> bytes:
    """Derives the AES-256-GCM key from the first 12 bytes of a nonce (C2SP XAES-256-GCM)."""
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    doubled = int.from_bytes(block.update(bytes(16)), "big") << 1
    if doubled >> 128:
        doubled ^= (1 << 128) | 0x87
    mask = doubled.to_bytes(16, "big")
    halves = (bytes([0, half]) + b"X\0" + nonce[:12] for half in (1, 2))
    return b"".join(block.update(bytes(a ^ b for a, b in zip(m, mask))) for m in halves)


def xaes_open(key: bytes, sealed: bytes, aad: bytes, what: str) -> bytes:
    if len(sealed) < OVERHEAD:
        raise Damage(f"{what}: too short to be sealed")
    nonce = sealed[:24]
    try:
        return AESGCM(xaes_subkey(key, nonce)).decrypt(nonce[12:], sealed[24:], aad)
    except InvalidTag as error:
        raise Damage(f"{what}: cannot be opened; it was altered or belongs elsewhere") from error


def aad(role: int, number: int, repository_id: bytes, key_id: bytes, *rest: bytes) -> bytes:
    return bytes([1, role, number]) + repository_id + key_id + b"".join(rest)


@dataclass(frozen=True)
class Key:
    purpose: int
    epoch: int
    key_id: bytes
    seal_key: bytes


def derive_key(secret: bytes, purpose: int, epoch: int, repository_id: bytes) -> Key:
    material = secret + bytes([purpose]) + epoch.to_bytes(4, "little") + repository_id
    key_id = blake3_derive("larder v1 key id", material)
    return Key(purpose, epoch, key_id, blake3_derive("larder v1 seal key", material))


@dataclass(frozen=True)
class Keyring:
    keys: dict[bytes, Key]
    id_key: bytes
    boundary_key: bytes

    def find(self, key_id: bytes, purposes: frozenset[int], what: str) -> Key:
        key = self.keys.get(key_id)
        if key is None:
            names = " or ".join(PURPOSE_NAMES[p] for p in sorted(purposes))
            raise Damage(f"{what}: sealed under a key that is not in this keyring (needs: {names})")
        if key.purpose not in purposes:
            raise Damage(f"{what}: sealed under the {PURPOSE_NAMES[key.purpose]} key")
        return key


_KEY_ROW = row(integer(1, 5), integer(0, (1 << 32) - 1), octets(32))
_KEYRING = fields({0: array(_KEY_ROW, 256), 1: octets(32), 2: octets(32), 3: octets(32)})


def parse_keyring(plaintext: bytes, repository_id: bytes) -> Keyring:
    value = decode_cbor(plaintext, "keyring")
    _KEYRING(value, "keyring")
    order = [(purpose, epoch) for purpose, epoch, _ in value[0]]
    if any(a >= b for a, b in zip(order, order[1:])):
        raise Damage("keyring: keys out of order or repeated")
    keys = [derive_key(key, purpose, epoch, repository_id) for purpose, epoch, key in value[0]]
    return Keyring({key.key_id: key for key in keys}, value[1], value[3])


_COST = fields({0: integer(8, 2 << 20), 1: integer(1, 64), 2: integer(1, 16), 3: octets(32)})
_PARAMS = fields(
    {0: integer(1, 3), 1: text(256), 2: integer(-(1 << 63), (1 << 63) - 1)}, {3: _COST}
)
TOTAL_COST_KIB = 64 << 20


@dataclass(frozen=True)
class Slot:
    """A slot object taken apart; nothing in it is authenticated before `open` succeeds."""

    name: str
    key_id: bytes
    uid: bytes
    params: dict[int, Any]
    params_hash: bytes
    sealed: bytes

    @property
    def cost_kib(self) -> int:
        return self.params[3][0] * self.params[3][1] if 3 in self.params else 0

    def open(self, secret: bytes, repository_id: bytes) -> Keyring | None:
        kek = derive_key(secret, 0, 0, repository_id)
        if kek.key_id != self.key_id:
            return None
        bound = aad(
            SLOT_ROLE, 2, repository_id, kek.key_id, self.uid, self.params_hash, self.name.encode()
        )
        return parse_keyring(xaes_open(kek.seal_key, self.sealed, bound, self.name), repository_id)

    def stretch(self, passphrase: bytes) -> bytes:
        memory, passes, lanes, salt = (self.params[3][field] for field in range(4))
        try:
            return argon2.low_level.hash_secret_raw(
                passphrase, salt, passes, memory, lanes, 32, argon2.low_level.Type.ID, 0x13
            )
        except argon2.exceptions.HashingError as error:
            raise Damage(f"{self.name}: Argon2id refuses its parameters: {error}") from error


def parse_slot(name: str, key_id: bytes, uid: bytes, body: bytes) -> Slot:
    cursor = Cursor(body, name)
    encoded = cursor.take(cursor.varint(len(body)))
    params = decode_cbor(encoded, f"{name}: params")
    _PARAMS(params, f"{name}: params")
    if (params[0] == PASSPHRASE) != (3 in params):
        raise Damage(f"{name}: cost parameters belong to passphrase slots, and to all of them")
    if 3 in params and params[3][0] < 8 * params[3][2]:
        raise Damage(f"{name}: fewer than 8 KiB for each lane")
    return Slot(name, key_id, uid, params, blake3(encoded), cursor.rest())


def parse_raw_key(content: bytes) -> bytes:
    digits = content.removesuffix(b"\n")
    if not re.fullmatch(rb"[0-9A-Fa-f]{64}", digits):
        raise Damage("key file: it must hold 64 hex digits and at most a newline")
    return bytes.fromhex(digits.decode("ascii"))


def parse_recovery_key(shown: str) -> bytes:
    letters = "".join(c for c in shown.upper() if c not in " -")
    try:
        decoded = base64.b32decode(letters)
    except ValueError as error:
        raise Damage("recovery key: not base32") from error
    key, check = decoded[:32], decoded[32:]
    if len(decoded) != 35 or blake3(b"larder v1 recovery key" + key)[:3] != check:
        raise Damage("recovery key: a character is wrong or missing (the check does not agree)")
    return key
