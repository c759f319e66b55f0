"""Checkpoint files: whole or not there. Written aside, synced, renamed; a checksum tells a torn one.

A file is one line of JSON (format, sha256, bytes, step), then what ``torch.save`` wrote.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import torch

from leptonai.errors import ModelError, NotFound
from leptonai.types import Noun

FORMAT = 1


class Head(Noun, frozen=True, kw_only=True):
    format: int
    step: int
    bytes: int
    sha256: str


def write(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """``folder/step-N.ckpt`` holds ``state`` and is on disk; the newest ``keep`` files stay.

    A crash at any moment leaves the earlier files whole. Raises ModelError when the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    head = Head(format=FORMAT, step=step, bytes=len(payload), sha256=hashlib.sha256(payload).hexdigest())
    path = folder / f"step-{step:012d}.ckpt"
    aside = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as f:
            f.write(msgspec.json.encode(head) + b"\n")
            f.write(payload)
            f.flush()
            os.fsync(f.fileno())
        aside.replace(path)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # the rename itself
        finally:
            os.close(handle)
        for old in files(folder)[:-keep]:
            old.unlink(missing_ok=True)
    except OSError as e:
        raise ModelError(f"checkpoint {path} cannot be written: {e}", hint="free space or choose another folder") from e
    return path


def files(folder: Path) -> list[Path]:
    """The checkpoint files in ``folder``, oldest first; unfinished ones are not among them."""
    return sorted(p for p in folder.glob("step-*.ckpt") if re.fullmatch(r"step-\d{12}", p.stem))


def read(path: Path) -> dict[str, Any]:
    """What ``write`` was given. Only tensors and plain values are loaded, never code.

    Raises NotFound, or ModelError when the file is torn, altered, or of another format.
    """
    hint = "delete it; the run goes on from an earlier checkpoint or from the beginning"
    try:
        line, _, payload = path.read_bytes().partition(b"\n")
    except FileNotFoundError as e:
        raise NotFound(f"checkpoint {path} is not there") from e
    except OSError as e:
        raise ModelError(f"checkpoint {path} cannot be read: {e}") from e
    try:
        head = msgspec.json.decode(line, type=Head)
    except (msgspec.DecodeError, msgspec.ValidationError) as e:
        raise ModelError(f"checkpoint {path} is not one of ours: {e}", hint=hint) from e
    if head.format != FORMAT:
        raise ModelError(f"checkpoint {path} has format {head.format}; this version reads {FORMAT}", hint=hint)
    if len(payload) != head.bytes or hashlib.sha256(payload).hexdigest() != head.sha256:
        told = f"{len(payload)} of {head.bytes} bytes, checksum " + ("differs" if payload else "missing")
        raise ModelError(f"checkpoint {path} is damaged: {told}", hint=hint)
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except Exception as e:
        raise ModelError(f"checkpoint {path} cannot be loaded: {e}", hint=hint) from e
    return state


def newest(folder: Path) -> tuple[dict[str, Any] | None, list[ModelError]]:
    """The newest whole checkpoint in ``folder`` (None: there is none), and what was wrong with the newer ones."""
    wrong: list[ModelError] = []
    for path in reversed(files(folder)):
        try:
            return read(path), wrong
        except ModelError as e:
            wrong.append(e)
    return None, wrong
