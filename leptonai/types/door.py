"""What passes the one door: proposals, the changes in them, and the tokens of those who make them."""

from __future__ import annotations

import hashlib
from typing import Literal

from leptonai.types.keys import Key, Noun, Role, canonical
from leptonai.types.spec import Spec


class SpecChange(Noun, frozen=True, kw_only=True, tag="spec"):
    """Replace the spec. ``base``: the revision it was made from (0: the service must not exist)."""

    spec: Spec
    base: int


class DialChange(Noun, frozen=True, kw_only=True, tag="dial"):
    """Set dials of one service, all or none. ``ttl`` seconds until they expire; None: they stay. ``sooner``: dials of
    them that expire before the others do -> after how many seconds."""

    service: Key
    set: dict[str, float]
    ttl: float | None = None
    sooner: dict[str, float] = {}

    def lasts(self, path: str) -> float | None:
        """Seconds until the dial expires; None: it stays, as an epoch always does."""
        return None if path.endswith(".epoch") else self.sooner.get(path, self.ttl)


class DeleteChange(Noun, frozen=True, kw_only=True, tag="delete"):
    service: Key
    base: int


class Job(Noun, frozen=True, kw_only=True):
    """A process that a runbook starts: a ``command``, or a request to ``url`` with ``body`` as JSON."""

    command: tuple[str, ...] = ()
    url: str = ""
    body: str = ""
    timeout: float = 30.0  # seconds until it is ended
    output: int = 4096  # bytes of what it says that are kept


class JobChange(Noun, frozen=True, kw_only=True, tag="job"):
    """Changes no wish: the leave to run ``job`` for one service, once. Only for a runbook of ops."""

    service: Key
    job: Job


Change = SpecChange | DialChange | DeleteChange | JobChange


class Proposal(Noun, frozen=True, kw_only=True):
    """A wish for a change, with who and why. ``hash`` covers the change alone: approval binds to it.

    ``ask``: why a person must approve it, whatever the settings say; "": the settings alone decide.
    """

    id: str
    change: Change
    by: str
    why: str
    at: float
    expires: float
    status: Literal["pending", "admitted", "denied", "expired"] = "pending"
    reasons: tuple[str, ...] = ()
    approved_by: str | None = None
    dry_run: bool = False
    ask: str = ""

    @property
    def hash(self) -> str:
        return hashlib.sha256(canonical(self.change)).hexdigest()

    @property
    def service(self) -> Key:
        return self.change.spec.key if isinstance(self.change, SpecChange) else self.change.service


class Token(Noun, frozen=True, kw_only=True):
    """Who a caller is and what they may do. The secret itself is never kept, only its sha256."""

    name: str
    role: Role
    workspaces: tuple[str, ...] = ("*",)
    secret_sha256: str
    created: float
    expires: float | None = None
    revoked: bool = False
