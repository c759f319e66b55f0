"""The address of a PostgreSQL store and its errors in our words. No message holds a secret."""

from __future__ import annotations

import os

import psycopg
from psycopg.conninfo import conninfo_to_dict

from leptonai.errors import Conflict, LeptonError, PlatformError, SpecError
from leptonai.store.secret import misread

_LIKE = "it is like postgresql://user@host:5432/database?sslmode=verify-full"
_ELSEWHERE = "the password is taken from the file that PGPASSFILE names (~/.pgpass, mode 0600), or from PGPASSWORD"
# What a server says before there is a session carries no code, only words.
_REFUSALS = ("password", "authentication failed", "pg_hba.conf", "does not exist", "permission denied", "no encryption")


def address(url: str) -> tuple[dict[str, str], str]:
    """What libpq is told, and how the place is shown.

    Raises SpecError for what is no such address, and for one that holds a password: it would lie in settings and logs.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise SpecError(f"store.url begins with {url.partition(':')[0]!r}; only postgresql is known", hint=_LIKE)
    try:
        given = {k: str(v) for k, v in conninfo_to_dict(url).items()}
    except psycopg.ProgrammingError:
        given = {"port": "unknown"}
    if misread(url) or not all(p.isdigit() for p in given.get("port", "0").split(",") if p):
        # neither the address nor what the library says of it is told: a part of a password may be taken for a host
        raise SpecError(
            "store.url is no address that PostgreSQL's library can read; it is not shown, for it may hold a password",
            hint=f"{_LIKE}; what is none of :/?@ there is written %3A, %2F, %3F, %40",
        )
    if secret := next((k for k in given if "password" in k or "secret" in k), ""):
        raise SpecError(f"store.url holds a secret ({secret}); it belongs elsewhere", hint=_ELSEWHERE)
    user, port = given.get("user"), given.get("port")
    host = given.get("host") or given.get("hostaddr") or "local socket"
    where = f"{user + '@' if user else ''}{host}{':' + port if port else ''}/{given.get('dbname', '')}"
    return given, f"postgresql://{where}"


def unreachable(e: psycopg.Error, place: str) -> LeptonError:
    """Why no session could be had."""
    text = _plain(e)
    if any(word in text for word in _REFUSALS):
        return PlatformError(
            f"the store {place} refuses us: {text}",
            hint=f"{_ELSEWHERE}; role and database must exist, and pg_hba.conf let this host in",
            code="store_refused",
        )
    hint = "is the server up, and the address right? It is tried again; replicas keep serving"
    return _no_session(f"the store {place} cannot be reached: {text}", hint)


def away(e: psycopg.Error, place: str) -> LeptonError:
    """The session was lost before anything of this was written."""
    hint = "it is made anew as soon as the server answers; replicas keep serving"
    return _no_session(f"the connection to the store {place} was lost: {_plain(e)}", hint)


def unsure(e: psycopg.Error, place: str) -> LeptonError:
    return PlatformError(
        f"the connection to the store {place} was lost while this was written: whether it was kept is not known",
        hint="look what is there before you say it again",
        code="store_unsure",
        status=503,
        retry=False,
    )


def taken(place: str, who: str) -> Conflict:
    return Conflict(
        f"the store {place} is held by another platform{who}",
        hint="one platform per database: stop the other one, or choose another database or schema",
        code="store_locked",
    )


def lingering(place: str) -> LeptonError:
    hint = "it ends when the server notices; it is tried again"
    return _no_session(f"the store {place} still holds our former session, which does not end", hint)


def said(e: psycopg.Error, place: str) -> LeptonError:
    """The answer to one statement. SQLSTATE codes: PostgreSQL's documentation, appendix A."""
    state, text = e.sqlstate or "", _plain(e)
    if state == "53100":
        return LeptonError(
            f"the disk of {place} is full: nothing was written",
            hint="free space on the server's disk, then try again",
            code="disk_full",
            status=507,
            retry=True,
        )
    if state in ("XX001", "XX002"):
        return LeptonError(
            f"the store {place} is corrupt: {text}",
            hint="restore it from a backup, or name an empty database; replicas keep running",
            code="store_corrupt",
        )
    if state in ("25006", "42501"):
        return LeptonError(
            f"the store {place} cannot be written: {text}",
            hint="its user needs to own the schema, or CREATE on it (GRANT CREATE ON SCHEMA public TO ...)",
            code="store_unwritable",
        )
    if state in ("22021", "54000") or isinstance(e, psycopg.DataError):
        return SpecError(f"this cannot be stored: {text}", hint="leave out NUL characters, and shorten names")
    return LeptonError(
        f"the store {place} failed: {text}", hint="see control.log; nothing of this write was kept", code="store"
    )


def _no_session(text: str, hint: str) -> LeptonError:
    return PlatformError(text, hint=hint, code="store_unreachable", status=503, retry=True)


def _plain(e: psycopg.Error) -> str:
    """The first line, without the password of the environment: libpq shows none, but messages pass through others."""
    text = str(e).strip().partition("\n")[0] or type(e).__name__
    secret = os.environ.get("PGPASSWORD")
    return text.replace(secret, "***") if secret else text
