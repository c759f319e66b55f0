"""What the watcher learnt, kept over a restart: one file, written then renamed."""

from __future__ import annotations

import logging
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leptonai.errors import LeptonError
from leptonai.ops.detect.watcher import Learnt, Watcher

log = logging.getLogger(__name__)
FILE = "detect.npz"
# What numpy, zipfile (RuntimeError: a bit says it is encrypted, or packed in a way unknown) and zlib raise of bytes
# that are no such file any more.
DAMAGED = (
    OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
    msgspec.MsgspecError, LeptonError,
)  # fmt: skip
EVERY = 300.0  # seconds between two writings: what is lost on a kill is learnt again in about that time


def write(path: Path, learnt: Learnt) -> None:
    """``path`` holds ``learnt`` afterwards, or what it held before. OSError when the disk refuses."""
    about = msgspec.json.encode({"series": learnt.series, "groups": learnt.groups, "at": learnt.at})
    fresh = path.with_suffix(".npz.new")
    with fresh.open("wb") as file:
        np.savez_compressed(file, about=np.frombuffer(about, dtype=np.uint8), **_flat(learnt.state))
    fresh.replace(path)


def restore(path: Path, watcher: Watcher, now: float) -> int:
    """The series that ``watcher``, which knows none yet, goes on with; 0 when there is no file or it cannot be read."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            about = msgspec.json.decode(file["about"].tobytes(), type=_About)
            state = _nested({name: file[name] for name in file.files if name != "about"})
        watcher.resume(Learnt(about.series, about.groups, about.at, state), now)
    except FileNotFoundError:
        return 0
    except DAMAGED as e:
        log.warning("%s cannot be used, all series are learnt anew: %s", path, e)
        return 0
    return len(about.series)


class _About(msgspec.Struct):
    series: list[tuple[str, dict[str, str], str]]
    groups: dict[str, int]
    at: float


def _flat(state: dict[str, Any], above: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{above}{name}/")
        else:
            out[above + name] = np.array(value)
    return out


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for path, value in flat.items():
        *above, name = path.split("/")
        at = out
        for part in above:
            at = at.setdefault(part, {})
        at[name] = str(value) if value.dtype.kind == "U" else value
    return out
