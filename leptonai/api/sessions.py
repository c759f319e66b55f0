"""Console sessions: a one-time ticket becomes a signed cookie that names a token, never carries one.

Cookies are checked by signature alone, so a session outlives a restart of control. What the cookie may do is looked up
each time: revoking the token ends its sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from leptonai.errors import Denied
from leptonai.types import Noun

COOKIE = "leptonai_session"
TICKET_TTL = 120.0  # seconds to open the printed URL
SESSION_TTL = 12 * 3600.0  # seconds: a working day
TICKETS = 1000  # waiting at most; the oldest goes first


class Pass(Noun, frozen=True, kw_only=True):
    token: str
    expires: float


class Sessions:
    """``secret`` signs; the same secret reads cookies again after a restart."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"leptonai console session", "sha256")
        self._tickets: dict[str, Pass] = {}

    def ticket(self, token: str, now: float) -> str:
        """A word that opens one session for ``token`` within TICKET_TTL seconds."""
        self._tickets = {t: p for t, p in self._tickets.items() if p.expires > now}
        while len(self._tickets) >= TICKETS:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = Pass(token=token, expires=now + TICKET_TTL)
        return ticket

    def open(self, ticket: str, now: float) -> str:
        """The cookie's value; the ticket is used up. Raises Denied 401 for one unknown, used or too old."""
        found = self._tickets.pop(ticket, None)
        if found is None or found.expires <= now:
            raise Denied(
                "this login was used already or is too old",
                hint="`leptonai console` prints a fresh one",
                code="ticket",
                status=401,
            )
        body = msgspec.json.encode(Pass(token=found.token, expires=now + SESSION_TTL)).hex()
        return f"{body}.{self._sign(body)}"

    def read(self, request: Request, now: float) -> str | None:
        """The name of the token that the request's cookie stands for; None without a good one.

        Raises Denied 403 when a call that changes something was not made by our own page.
        """
        body, _, signature = request.cookies.get(COOKIE, "").partition(".")
        if not signature or not hmac.compare_digest(self._sign(body), signature):
            return None
        found = msgspec.json.decode(bytes.fromhex(body), type=Pass)
        if found.expires <= now:
            return None
        if request.method not in ("GET", "HEAD") and not same_origin(request):
            raise Denied("this page is not ours, its call is refused", hint="use the console itself", code="origin")
        return found.token

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


def same_origin(request: Request) -> bool:
    """Whether the browser says that the call comes from a page of this very host and port."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return site == "same-origin"
    return urlsplit(origin).netloc == request.headers.get("host", "")


def set_cookie(response: Response, value: str) -> None:
    """Browsers ignore ports: a cookie for all paths would reach models behind the gateway on the same host."""
    for path in ("/console", "/api/v1"):
        response.set_cookie(COOKIE, value, max_age=int(SESSION_TTL), path=path, httponly=True, samesite="strict")
