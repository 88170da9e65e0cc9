"""The encodings of SPEC.md §1 and §9: varints, deterministic CBOR, columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

U64 = (1 << 64) - 1


class Damage(Exception):
    """Bytes that the specification forbids, or an object that should be there and is not."""


class Missing(Damage):
    """An object that is named but not there."""


class Cursor:
    """Reads a byte string from front to back and refuses to read past its end."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.at = 0
        self.what = what

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise Damage(f"{self.what}: ends {count - len(self.data) + self.at} bytes too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def uint(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def varint(self, most: int = U64) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.uint(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > U64 or (byte == 0 and shift > 0):
                    raise Damage(f"{self.what}: a varint that is too large or not the shortest")
                if value > most:
                    raise Damage(f"{self.what}: {value} is above the limit of {most}")
                return value
        raise Damage(f"{self.what}: a varint of more than ten bytes")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def finish(self) -> None:
        if self.at != len(self.data):
            raise Damage(f"{self.what}: {len(self.data) - self.at} bytes too many")

    def finish_zeros(self, most: int) -> None:
        rest = self.rest()
        if any(rest) or len(rest) >= most:
            raise Damage(f"{self.what}: the padding is not the fewest zero bytes")


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    return ((value << 1) ^ (value >> 63)) & U64


def unzigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


# Columns (§9). Decoding encodes the values again: only the canonical form passes.


def decode_integers(cursor: Cursor, count: int) -> list[int]:
    start = cursor.at
    form = cursor.uint(1)
    if form == 0:
        values = [cursor.varint()] * count
    elif form == 1:
        values = [cursor.varint() for _ in range(count)]
    elif form == 2:
        values, value = [], 0
        for _ in range(count):
            value = (value + unzigzag(cursor.varint())) & U64
            values.append(value)
    elif form == 3:
        scale = 10 ** cursor.uint(1)
        values = [cursor.varint() * scale for _ in range(count)]
        if any(value > U64 for value in values):
            raise Damage(f"{cursor.what}: a scaled value above 64 bits")
    else:
        raise Damage(f"{cursor.what}: column form {form} is not defined")
    if cursor.data[start : cursor.at] != encode_integers(values):
        raise Damage(f"{cursor.what}: a column that is not in its canonical form")
    return values


def encode_integers(values: Sequence[int]) -> bytes:
    if len(set(values)) == 1:
        return b"\x00" + varint(values[0])
    candidates = [b"\x01" + b"".join(map(varint, values)), _delta(values)]
    exponent = _common_power_of_ten(values)
    if exponent:
        scaled = b"".join(varint(value // 10**exponent) for value in values)
        candidates.append(b"\x03" + bytes([exponent]) + scaled)
    return min(candidates, key=lambda encoded: (len(encoded), encoded[0]))


def _delta(values: Sequence[int]) -> bytes:
    out, previous = bytearray(b"\x02"), 0
    for value in values:
        difference = (value - previous) & U64
        out += varint(zigzag(difference - (1 << 64) if difference >> 63 else difference))
        previous = value
    return bytes(out)


def _common_power_of_ten(values: Sequence[int]) -> int:
    if not any(values):
        return 0
    return max(k for k in range(10) if all(value % 10**k == 0 for value in values))


def decode_strings(cursor: Cursor, count: int, longest: int) -> list[bytes]:
    lengths_size = cursor.varint(10 * count + 16)
    lengths_cursor = Cursor(cursor.take(lengths_size), cursor.what)
    lengths = decode_integers(lengths_cursor, count)
    lengths_cursor.finish()
    if any(length > longest for length in lengths):
        raise Damage(f"{cursor.what}: a string of more than {longest} bytes")
    return [cursor.take(length) for length in lengths]


# CBOR (RFC 8949 §4.2, deterministic). Only the types that the specification's CDDL uses exist.


def decode_cbor(data: bytes, what: str) -> Any:
    cursor = Cursor(data, what)
    value = _cbor_item(cursor, 8)
    cursor.finish()
    return value


def _cbor_item(cursor: Cursor, depth: int) -> Any:
    if depth == 0:
        raise Damage(f"{cursor.what}: CBOR nested too deeply")
    initial = cursor.uint(1)
    major, argument = initial >> 5, _cbor_argument(cursor, initial & 0x1F)
    if major == 0:
        return argument
    if major == 1:
        return -1 - argument
    if major == 2:
        return cursor.take(argument)
    if major == 3:
        try:
            return cursor.take(argument).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Damage(f"{cursor.what}: a CBOR text that is not UTF-8") from error
    if argument > len(cursor.data) - cursor.at:
        raise Damage(f"{cursor.what}: a CBOR array or map with more items than bytes")
    if major == 4:
        return [_cbor_item(cursor, depth - 1) for _ in range(argument)]
    if major == 5:
        return _cbor_map(cursor, argument, depth)
    raise Damage(f"{cursor.what}: CBOR major type {major} is not used")


def _cbor_argument(cursor: Cursor, additional: int) -> int:
    if additional < 24:
        return additional
    if additional > 27:
        raise Damage(f"{cursor.what}: CBOR of indefinite length")
    width = 1 << (additional - 24)
    argument = int.from_bytes(cursor.take(width), "big")
    if argument < (24 if width == 1 else 1 << (4 * width)):
        raise Damage(f"{cursor.what}: a CBOR integer that is not the shortest")
    return argument


def _cbor_map(cursor: Cursor, count: int, depth: int) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    previous = b""
    for _ in range(count):
        start = cursor.at
        key = _cbor_item(cursor, depth - 1)
        encoded = cursor.data[start : cursor.at]
        if not isinstance(key, (int, str)) or encoded <= previous:
            raise Damage(f"{cursor.what}: CBOR map keys out of order, repeated or of a wrong type")
        previous = encoded
        result[key] = _cbor_item(cursor, depth - 1)
    return result


# Shapes: what CDDL says of a decoded value. A check raises Damage or returns nothing.

Check = Callable[[Any, str], None]


def integer(least: int = 0, most: int = U64) -> Check:
    def check(value: Any, what: str) -> None:
        if not isinstance(value, int) or not least <= value <= most:
            raise Damage(f"{what}: {value!r} is not an integer from {least} to {most}")

    return check


def octets(size: int | None = None, most: int = U64) -> Check:
    def check(value: Any, what: str) -> None:
        if not isinstance(value, bytes) or len(value) > most or size not in (None, len(value)):
            raise Damage(f"{what}: not a byte string of the right length")

    return check


def text(most: int) -> Check:
    def check(value: Any, what: str) -> None:
        if not isinstance(value, str) or len(value.encode()) > most:
            raise Damage(f"{what}: not a text of at most {most} bytes")

    return check


def array(item: Check, most: int = U64, *, ascending: bool = False, least: int = 0) -> Check:
    def check(value: Any, what: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise Damage(f"{what}: not an array of {least} to {most} items")
        for position, element in enumerate(value):
            item(element, f"{what}[{position}]")
        if ascending and any(a >= b for a, b in zip(value, value[1:])):
            raise Damage(f"{what}: not sorted, or with duplicates")

    return check


def row(*items: Check) -> Check:
    def check(value: Any, what: str) -> None:
        if not isinstance(value, list) or len(value) != len(items):
            raise Damage(f"{what}: not an array of {len(items)} items")
        for element, item in zip(value, items):
            item(element, what)

    return check


def table(key: Check, item: Check, most: int) -> Check:
    def check(value: Any, what: str) -> None:
        if not isinstance(value, dict) or len(value) > most:
            raise Damage(f"{what}: not a map of at most {most} pairs")
        for name, element in value.items():
            key(name, what)
            item(element, f"{what}.{name}")

    return check


def fields(required: dict[int, Check], optional: dict[int, Check] | None = None) -> Check:
    known = required | (optional or {})

    def check(value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise Damage(f"{what}: not a map")
        if missing := required.keys() - value.keys():
            raise Damage(f"{what}: field {min(missing)} is missing")
        for name, element in value.items():
            if name not in known:
                raise Damage(f"{what}: unknown field {name!r}")
            known[name](element, f"{what}.{name}")

    return check
