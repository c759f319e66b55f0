"""Who calls: bearer tokens, and console sessions that stand for one. Deciding is pure; secrets are never kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request

from leptonai.admit.door import MACHINES
from leptonai.errors import Denied
from leptonai.types import Role, Token

if TYPE_CHECKING:
    from leptonai.api.sessions import Sessions

RANK: dict[Role, int] = {"viewer": 0, "operator": 1, "admin": 2}
HINT = "send `Authorization: Bearer TOKEN`; the CLI reads LEPTONAI_TOKEN, --token or the token file of the home folder"


def secret_sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Caller:
    """``session``: the call came with a console cookie instead of the token itself; its role is bounded then."""

    token: Token
    session: bool = False

    @property
    def name(self) -> str:
        return self.token.name

    @property
    def by(self) -> str:
        """How decisions of this caller are signed."""
        return self.name if self.name in MACHINES else f"human:{self.name}"

    def covers(self, workspace: str) -> bool:
        return "*" in self.token.workspaces or workspace in self.token.workspaces

    def require(self, role: Role, what: str) -> None:
        if RANK[self.token.role] < RANK[role]:
            raise Denied(
                f"{what} needs the role {role}; token {self.name!r} has {self.token.role}",
                hint=f"ask an admin for one: `leptonai token create NAME --role {role}`",
                code="role",
            )

    def require_workspace(self, workspace: str) -> None:
        if not self.covers(workspace):
            covered = ", ".join(self.token.workspaces) or "none"
            raise Denied(
                f"token {self.name!r} does not cover workspace {workspace!r}, only: {covered}",
                hint=f"ask an admin for one: `leptonai token create NAME --workspace {workspace}`",
                code="workspace",
            )


def unauthorized(message: str) -> Denied:
    return Denied(message, hint=HINT, code="unauthorized", status=401)


def check(token: Token | None, now: float) -> Token:
    """``token`` when it may be used at ``now``; raises Denied 401 saying why not."""
    if token is None:
        raise unauthorized("the token is not known here")
    if token.revoked:
        raise unauthorized(f"token {token.name!r} was revoked")
    if token.expires is not None and token.expires <= now:
        raise unauthorized(f"token {token.name!r} expired {now - token.expires:.0f} s ago")
    return token


class Callers:
    """Finds the caller of a request. ``load`` reads all tokens; it is called again only after ``forget``."""

    def __init__(self, load: Callable[[], Iterable[Token]], sessions: Sessions, clock: Callable[[], float]) -> None:
        self._load = load
        self._sessions = sessions
        self._clock = clock
        self._by_secret: dict[str, Token] | None = None
        self._by_name: dict[str, Token] = {}
        self.ops_seen: float | None = None

    def forget(self) -> None:
        self._by_secret = None

    def identify(self, request: Request) -> Caller:
        """Raises Denied 401 without a usable token, 403 ``origin`` when another site rides on a console session."""
        now = self._clock()
        header = request.headers.get("authorization", "")
        if header:
            scheme, _, secret = header.partition(" ")
            if scheme.lower() != "bearer" or not secret.strip():
                raise unauthorized("the Authorization header is no bearer token")
            token = check(self._tokens().get(secret_sha256(secret.strip())), now)
            if token.name in MACHINES:
                self.ops_seen = now
            return Caller(token)
        name = self._sessions.read(request, now)
        if name is None:
            raise unauthorized("this call needs a token")
        self._tokens()
        token = check(self._by_name.get(name), now)
        if token.role == "admin":
            token = msgspec.structs.replace(token, role="operator")
        return Caller(token, session=True)

    def _tokens(self) -> dict[str, Token]:
        if self._by_secret is None:
            tokens = list(self._load())
            self._by_secret = {t.secret_sha256: t for t in tokens}
            # A name may be given again after its token was revoked: the usable one stands for it.
            self._by_name = {t.name: t for t in sorted(tokens, key=lambda t: (not t.revoked, t.created))}
        return self._by_secret
