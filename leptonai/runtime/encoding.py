"""Request bodies that come compressed: gzip and deflate, unpacked to no more than a limit. Pure."""

from __future__ import annotations

import zlib

from leptonai.errors import LeptonError, SpecError

KNOWN = ("gzip", "x-gzip", "deflate", "identity")


def unpacked(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body as it was before ``encoding`` (a Content-Encoding), at most ``limit`` bytes of it.

    413 beyond the limit: no more than that is ever unpacked, whatever the body claims. 415 for an unknown encoding.
    """
    names = [name.strip().lower() for name in encoding.decode("latin-1").split(",") if name.strip()]
    if len(names) > 2 or any(name not in KNOWN for name in names):
        raise SpecError(
            f"Content-Encoding {', '.join(names)[:80]!r} is not supported",
            hint="gzip, deflate, or no encoding at all",
            code="encoding",
            status=415,
        )
    for name in reversed(names):
        if name != "identity":
            body = _unpack(body, name, limit)
    return body


def _unpack(body: bytes, name: str, limit: int) -> bytes:
    wbits = 31
    if name == "deflate":  # zlib by the standard (RFC 9110, 8.4.1.2); some clients send it bare
        wbits = 15 if len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0 else -15
    parts: list[bytes] = []
    size = 0
    try:
        while True:  # gzip allows several members in a row
            stream = zlib.decompressobj(wbits)
            part = stream.decompress(body, limit - size + 1)
            size += len(part)
            if size > limit:
                raise LeptonError(
                    f"the request body is over {limit} bytes once unpacked",
                    hint="send less, or split the batch",
                    code="too_large",
                    status=413,
                )
            parts.append(part)
            if not stream.eof:
                raise SpecError(f"the {name} body is truncated", hint="send all of it")
            body = stream.unused_data
            if not body:
                return b"".join(parts)
            if wbits != 31 or not part:
                raise SpecError(f"{len(body)} bytes follow the {name} body", hint="send nothing behind it")
    except zlib.error as e:
        raise SpecError(f"the body is not {name}: {e}", hint="check Content-Encoding") from e
