"""The home folder of a platform on this machine, and how a client finds the platform it should talk to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import Denied, PlatformError


@dataclass(frozen=True)
class Home:
    """Where the files of one platform lie (drawn in ARCHITECTURE.md). Naming them touches nothing."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def settings(self) -> Path:
        return self.path / "settings.yaml"

    @property
    def token(self) -> Path:
        return self.path / "token"

    @property
    def ops_token(self) -> Path:
        return self.path / "ops.token"

    @property
    def control(self) -> Path:
        return self.path / "control.json"

    @property
    def ops(self) -> Path:
        return self.path / "ops.json"

    @property
    def store(self) -> Path:
        return self.path / "store.db"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def frozen(self) -> Path:
        """The kill switch: no automatic proposal is admitted while this file is there."""
        return self.path / "frozen"

    @property
    def failure(self) -> Path:
        """Why control could not start, as an error body; absent once it started."""
        return self.path / "failure.json"


def find_home(given: str | os.PathLike[str] | None = None) -> Home:
    """``given``, else ``LEPTONAI_HOME``, else ``~/.leptonai``. It need not exist."""
    return Home(Path(given or os.environ.get("LEPTONAI_HOME") or "~/.leptonai").expanduser().absolute())


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in ``path``; None when there is no such file or it is not whole."""
    try:
        value = msgspec.json.decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def local_url(home: Home) -> str:
    """Where the control process of ``home`` last answered. Raises PlatformError when none did."""
    running = read_json(home.control)
    if not running or "url" not in running:
        raise PlatformError(
            f"no platform runs on {home.path}",
            hint="start one with `leptonai up`, or name one with --host or LEPTONAI_HOST",
            code="unreachable",
            status=503,
            retry=True,
        )
    return str(running["url"])


def find_platform(host: str | None, token: str | None, home: Home) -> tuple[str, str]:
    """``(base URL, token)``: as given, else ``LEPTONAI_HOST`` and ``LEPTONAI_TOKEN``, else from the files of ``home``.

    The token file of ``home`` is used for the platform of ``home`` only, never sent to another host.
    Raises PlatformError when no platform is known, Denied when there is no token for it.
    """
    host = host or os.environ.get("LEPTONAI_HOST")
    token = token or os.environ.get("LEPTONAI_TOKEN")
    base = (host or local_url(home)).rstrip("/")
    if "://" not in base:
        base = f"http://{base}"
    if not token and base == (read_json(home.control) or {}).get("url"):
        token = read_token(home.token)
    if not token:
        raise Denied(
            f"no token for {base}",
            hint="set LEPTONAI_TOKEN or --token; an admin makes one with `leptonai token create NAME`",
            code="unauthorized",
            status=401,
        )
    if not (token.isascii() and token.isprintable()):
        raise Denied(
            f"the token for {base} holds characters that no token has",
            hint="was it copied whole? see LEPTONAI_TOKEN, --token or the token file",
            code="unauthorized",
            status=401,
        )
    return base, token


def read_token(path: Path) -> str | None:
    """The secret in a token file; None without one. Raises Denied when the file belongs to somebody else."""
    try:
        return path.read_text().strip() or None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except PermissionError as e:
        raise Denied(f"{path} cannot be read by this user", hint="ask its owner for a token of your own") from e
    except UnicodeDecodeError as e:
        raise Denied(f"{path} holds no token but other bytes", hint="give one with --token or LEPTONAI_TOKEN") from e
