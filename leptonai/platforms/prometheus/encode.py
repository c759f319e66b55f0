"""A remote-write 1.0 request: a snappy block with a protobuf WriteRequest. Times become whole milliseconds.

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/. Labels are sorted by name, as it demands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

Samples = Sequence[tuple[float, float]]  # (unix seconds, value), times ascending


def label_bytes(name: str, labels: dict[str, str]) -> bytes:
    """The label fields of a series, to be kept and used again."""
    pairs = sorted({**labels, "__name__": name}.items())
    return b"".join(_field(0x0A, _field(0x0A, k.encode()) + _field(0x12, v.encode())) for k, v in pairs if v)


def encode(series: Iterable[tuple[bytes, Samples]]) -> bytes:
    """The body of a request; the first of each pair is what ``label_bytes`` gave."""
    import pyarrow as pa

    parts = []
    for labels, samples in series:
        body = labels
        for at, value in samples:
            body += _field(0x12, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(round(at * 1000)))
        parts.append(_field(0x0A, body))
    return bytes(pa.Codec("snappy").compress(b"".join(parts), asbytes=True))


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content


def varint(n: int) -> bytes:
    """``n`` as protobuf writes it: 7 bits a byte, the low ones first, a negative number in two's complement."""
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)
