"""Orders over TCP, as a pod takes them: only from who knows the secret that the platform gave it."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import orjson

from leptonai.errors import Denied, SpecError
from leptonai.runtime.http import Request

SECRET = "LEPTONAI_ORDERS"  # noqa: S105 - the environment variable that holds it
AT_ONCE = 4 << 20  # bytes of predictions in one answer: what ops reads of a file in one look


def guarded(secret: str, handle: Callable[[Request], None]) -> Callable[[Request], None]:
    """``handle``, for requests with ``Authorization: Bearer <secret>``; Denied for all others."""
    expected = f"Bearer {secret}".encode()

    def check(request: Request) -> None:
        if not hmac.compare_digest(request.header(b"authorization"), expected):
            raise Denied("only the platform gives orders to a replica", hint="ask its control API")
        handle(request)

    return check


def predictions(folder: Path, query: str) -> bytes:
    """What the prediction log has got since ``after=<file>:<bytes>``: a line of JSON that names the place after it,
    ``{"file": 3, "offset": 812}``, then the bytes from the place where they begin. SpecError for another place."""
    file, _, offset = parse_qs(query).get("after", ["0:0"])[0].partition(":")
    if not (file.isdigit() and offset.isdigit()):
        raise SpecError(f"after={file}:{offset} is no place in the log", hint="begin with after=0:0")
    number, start = int(file), int(offset)
    there = sorted(int(p.stem) for p in folder.glob("*.jsonl") if p.stem.isdigit())
    content = b""
    if number in there:
        content = _read(folder, number, start)
    if not content and (later := [n for n in there if n > number]):
        number, start = later[0], 0
        content = _read(folder, number, start)
    return orjson.dumps({"file": number, "offset": start + len(content)}) + b"\n" + content


def _read(folder: Path, number: int, start: int) -> bytes:
    """Whole lines; b"" when the file is gone by now."""
    try:
        file = os.open(folder / f"{number:08d}.jsonl", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        content = os.pread(file, AT_ONCE, start)
    finally:
        os.close(file)
    return content[: content.rfind(b"\n") + 1]
