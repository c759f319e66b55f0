"""A number as protobuf writes it: seven bits a byte, the last byte below 128."""

from __future__ import annotations

from collections.abc import Callable

from leptonai.errors import SpecError


def varint(data: bytes, here: int, end: int, broken: Callable[[int, str], SpecError]) -> tuple[int, int]:
    """The unsigned 64-bit number at ``here``, and where it ends. Raises ``broken(where, why)`` when it does not."""
    value = shift = 0
    while here < end and shift < 64:
        byte = data[here]
        here += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, here
        shift += 7
    raise broken(here, "a number does not end")
