"""A step that remembers: its result is found again by what went into it, and is whole or not there.

``root/work/<name>-<key>`` is where a step works; what an interrupted one left there it may go on with.
``root/done/<name>-<key>`` holds its files and ``result.json``. The rename from one to the other is the only commit.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import Conflict, ModelError, SpecError
from leptonai.types import Noun

Say = Callable[[str], None]
Do = Callable[["State", Path], dict[str, Any]]  # (what came before, where to work) -> values, all plain
RESULT = "result.json"


class State(Noun, frozen=True, kw_only=True):
    """What the steps so far gave. ``digest``: of all of it. ``stopped``: why the rest is not to be done."""

    digest: str = ""
    values: dict[str, Any] = {}
    stopped: str = ""


class Result(Noun, frozen=True, kw_only=True):
    name: str
    key: str
    values: dict[str, Any]
    files: dict[str, str]  # path -> sha256


class Kept:
    """One step, to be a step of a ``Pipeline``: called with a State it gives the next, doing only what was not done.

    ``config`` and the bytes of the ``outside`` files are part of what went in. ``always``: run although an earlier step
    has stopped the rest. A result whose files were altered is done anew.
    """

    def __init__(
        self,
        name: str,
        do: Do,
        root: Path,
        config: Any = None,
        outside: Sequence[Path] = (),
        always: bool = False,
        say: Say = lambda text: None,
    ) -> None:
        self.name, self._do, self._root, self._config = name, do, root, config
        self._outside, self._always, self._say = tuple(outside), always, say

    def __call__(self, state: State) -> State:
        if state.stopped and not self._always:
            return state
        key = self.key(state)
        result = self._found(key) or self._fresh(state, key)
        values = {**state.values, **result.values, f"{self.name}_files": str(self._done(key))}
        digest = _sha(msgspec.json.encode([state.digest, result.values, result.files], order="sorted"))
        return State(digest=digest, values=values, stopped=state.stopped or str(result.values.get("stopped", "")))

    def key(self, state: State) -> str:
        """16 hex digits over name, configuration, the outside files' bytes, and all that came before."""
        files = [[p.name, digest_of(p)] for p in self._outside]
        told = [self.name, msgspec.to_builtins(self._config), files, state.digest, state.stopped]
        return _sha(msgspec.json.encode(told, order="sorted"))[:16]

    def _done(self, key: str) -> Path:
        return self._root / "done" / f"{self.name}-{key}"

    def _found(self, key: str) -> Result | None:
        folder = self._done(key)
        try:
            result = msgspec.json.decode((folder / RESULT).read_bytes(), type=Result)
            whole = all(digest_of(folder / name) == told for name, told in result.files.items())
        except (OSError, msgspec.DecodeError, msgspec.ValidationError, SpecError):
            whole = False
        if whole:
            self._say(f"{self.name}: done before")
            return result
        if folder.exists():
            self._say(f"{self.name}: its result was damaged and is done anew")
            shutil.rmtree(folder)
        return None

    def _fresh(self, state: State, key: str) -> Result:
        self._say(f"{self.name} ...")
        folder = self._root / "work" / f"{self.name}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)
        values = self._do(state, folder)
        files = {str(p.relative_to(folder)): digest_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        result = Result(name=self.name, key=key, values=values, files=files)
        with (folder / RESULT).open("wb") as file:
            file.write(msgspec.json.encode(result))
            file.flush()
            os.fsync(file.fileno())
        target = self._done(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        _sync(target.parent)
        return result


def digest_of(path: Path) -> str:
    """sha256 of the file's bytes. SpecError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise SpecError(f"{path}: {e.strerror or e}", hint="the file must be there and readable") from e


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Nobody else works in ``root`` meanwhile. Conflict when somebody does; a dead one holds nothing."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        raise ModelError(f"{root} cannot be written: {e.strerror or e}", hint="choose another with --folder") from e
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise Conflict(f"another run works in {root}", hint="wait for it, or choose another folder") from e
        yield
    finally:
        os.close(handle)
