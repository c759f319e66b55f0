"""Tokens: a random secret for its holder, its hash for the store."""

from __future__ import annotations

import hashlib
import math
import re
import secrets

from leptonai.errors import SpecError
from leptonai.store import Store
from leptonai.types import Role, Token

_TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


def issue(
    name: str, role: Role, workspaces: tuple[str, ...] = ("*",), ttl: float | None = None, *, now: float
) -> tuple[str, Token]:
    """A fresh secret (256 bits) and its token, valid for ``ttl`` seconds from ``now``. Nothing is stored.

    Only the sha256 is kept: a random secret of this length needs no slow hash. Raises SpecError for a bad name.
    """
    if not _TOKEN_NAME.fullmatch(name):
        raise SpecError(f"token name {name!r} is not allowed: letters, digits and ._@-, at most 63", hint="rename it")
    if ttl is not None and not 0 < ttl < math.inf:
        raise SpecError(f"ttl of token {name!r} is {ttl} s; it must be above 0", hint="leave it out for no expiry")
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    expires = None if ttl is None else now + ttl
    return secret, Token(
        name=name, role=role, workspaces=workspaces, secret_sha256=digest, created=now, expires=expires
    )


def bootstrap(store: Store, now: float, name: str = "admin", role: Role = "admin") -> str:
    """Issue a token for the machine's own use (``admin``, ``ops``), store it, and return its secret.

    It replaces an earlier token of that name, whose secret file is taken to be lost.
    """
    secret, token = issue(name, role, now=now)
    with store.transaction():
        store.put_token(token)
        store.record("token.issued", name, {"role": role, "workspaces": list(token.workspaces)}, actor="local", at=now)
    return secret
