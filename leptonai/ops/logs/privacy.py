"""Masking of what leaves the machine: every secret becomes ``<kind:letters>``, and only the vault turns it back.

The letters are a keyed hash (HMAC-SHA-256, 60 bits), so equal secrets stay equal and can be counted and joined by those
who must not read them, while nobody without the key can try values. The vault, key and table, stays on this machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from leptonai.errors import SpecError
from leptonai.types import LogEntry

log = logging.getLogger(__name__)
VAULT = 100_000  # secrets remembered; the oldest are forgotten, and stay masked for good
_LETTERS = 15
_MASKED = re.compile(rf"<[a-z][a-z0-9_]*:[a-p]{{{_LETTERS}}}>")
_KIND = re.compile(r"[a-z][a-z0-9_]{0,30}")
_NAMED = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"

# In this order: what a broader class would cut in pieces comes first. Group "s", if any, is the secret.
_KINDS: dict[str, str] = {
    "url_password": r"(?<=://)[^\s/:@]{1,64}:(?P<s>[^\s/@]{1,256})(?=@)",
    "email": r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
    "token": (
        r"\b(?i:bearer|basic)\s+(?P<s1>[\w.~+/=-]{8,4096})"
        rf"|(?i:\b[\w-]{{0,40}}{_NAMED})[\"']?\s*[=:]\s*(?:\"(?P<s2>[^\"]{{1,512}})\"|'(?P<s3>[^']{{1,512}})'"
        r"|(?P<s4>[^\s\"'&,;)}\]]{3,512}))"
        r"|\beyJ[\w-]{8,2048}\.[\w-]{4,4096}\.[\w-]{4,1024}"
        r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,255}\b|\bsk-[\w-]{20,200}|\bxox[abprs]-[\w-]{10,200}"
        r"|\bglpat-[\w-]{20,64}"
    ),
    "card": r"(?<![\w.-])[0-9](?:[ -]?[0-9]){12,18}(?![\w-])",
    "phone": (
        r"(?<![\w.+-])\+[1-9](?:[ .()/-]{0,2}[0-9]){6,14}(?![\w-])"
        r"|(?<![\w.+-])\(?0?[0-9]{2,4}\)[ -]?[0-9]{3,4}[ -]?[0-9]{3,4}(?![\w-])"
        r"|(?<![\w.+:-])[0-9]{3}[ -][0-9]{3}[ -][0-9]{4}(?![\w-])"
    ),
}


_SECRET_NAME = re.compile(rf"(?i)[\w-]*{_NAMED}")
_SECRET_TEXTS = tuple(re.compile(_KINDS[kind]) for kind in ("url_password", "token"))


def secret(name: str, value: str) -> bool:
    """Whether a variable looks like a secret: by its name, as ``API_TOKEN`` and ``DB_PASSWORD``, or by what its value
    holds, as the password of an address."""
    return bool(value) and bool(_SECRET_NAME.fullmatch(name) or any(text.search(value) for text in _SECRET_TEXTS))


class _Vault(msgspec.Struct, forbid_unknown_fields=True):
    key: bytes
    table: dict[str, str]


class Masker:
    """``patterns``: kind -> regular expression, masked besides e-mails, tokens, card and phone numbers; a group named
    ``s`` is the secret, else the whole match. Raises SpecError for a pattern that is none."""

    def __init__(self, patterns: Mapping[str, str] | None = None, key: bytes | None = None) -> None:
        self.made = 0  # marks put into the vault so far
        self._key = key or secrets.token_bytes(32)
        self._table: dict[str, str] = {}
        self._kinds = [(kind, re.compile(text)) for kind, text in _KINDS.items()]
        for kind, text in (patterns or {}).items():
            if not _KIND.fullmatch(kind):
                raise SpecError(
                    f"mask pattern name {kind!r} is not allowed", hint="lower-case letters, digits and _, at most 31"
                )
            try:
                self._kinds.append((kind, re.compile(text)))
            except re.error as e:
                raise SpecError(
                    f"mask pattern {kind} is no regular expression: {e}", hint=f"it reads {text!r}"
                ) from None

    def mask(self, text: str) -> str:
        """``text`` without its secrets. Masking twice is masking once."""
        while (masked := self._once(text)) != text:  # a mark may set free what stood beside a secret
            text = masked
        return text

    def _once(self, text: str) -> str:
        for kind, pattern in self._kinds:
            kept = [*_MASKED.findall(text), ""]
            replace = partial(self._replace, kind)
            pieces = zip(_MASKED.split(text), kept, strict=True)
            text = "".join(pattern.sub(replace, piece) + mark for piece, mark in pieces)
        return text

    def entry(self, entry: LogEntry) -> LogEntry:
        """A kept line without its secrets, in all of its words."""
        source = {k: self.mask(v) for k, v in entry.source.items()}
        body, template = self.mask(entry.body), self.mask(entry.template)
        return msgspec.structs.replace(entry, body=body, template=template, source=source)

    def unmask(self, text: str) -> str:
        """What ``mask`` was given, as far as the vault remembers; other marks stay."""
        return _MASKED.sub(lambda m: self._table.get(m[0], m[0]), text)

    def save(self, path: Path) -> None:
        """What was masked here is in the vault of ``path`` beside what other processes put there. OSError: disk."""
        with _locked(path):
            try:
                known = _read(path)
            except SpecError:
                known = None  # damaged since it was opened
            table = {**(known.table if known else {}), **self._table}
            while len(table) > VAULT:
                del table[next(iter(table))]
            _write(path, _Vault(known.key if known else self._key, table))
            self._table = table

    @classmethod
    def open(cls, path: Path, patterns: Mapping[str, str] | None = None) -> Masker:
        """A masker with the vault of ``path``, made when there is none: whoever opens it gives equal secrets equal
        marks. Raises SpecError if it is damaged. Where it cannot be written, marks are for good."""
        vault = _read(path)
        if vault is None:
            try:
                with _locked(path):
                    if (vault := _read(path)) is None:
                        vault = _Vault(secrets.token_bytes(32), {})
                        _write(path, vault)
            except OSError as e:
                log.warning("%s cannot be written, what is masked cannot be turned back: %s", path, e)
                return cls(patterns)
        masker = cls(patterns, vault.key)
        masker._table = vault.table
        return masker

    def _replace(self, kind: str, found: re.Match[str]) -> str:
        group = next((g for g, v in found.groupdict().items() if v is not None and g.startswith("s")), 0)
        secret = found[group]
        if not secret or (kind == "card" and not luhn(secret)):
            return found[0]
        begin, end = found.start(group) - found.start(), found.end(group) - found.start()
        return found[0][:begin] + self._mark(kind, secret) + found[0][end:]

    def _mark(self, kind: str, secret: str) -> str:
        digest = hmac.new(self._key, f"{kind}\0{secret}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        letters = "".join(chr(97 + (b & 15)) for b in digest[:_LETTERS])  # no digits: no later pattern takes it apart
        mark = f"<{kind}:{letters}>"
        if mark not in self._table:
            while len(self._table) >= VAULT:
                del self._table[next(iter(self._table))]
            self._table[mark] = secret
            self.made += 1
        return mark


def _read(path: Path) -> _Vault | None:
    """None: there is none. Raises SpecError if it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Vault)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as e:
        raise SpecError(f"{path} is no vault of masked values: {e}", hint="restore it, or move it away") from None


def _write(path: Path, vault: _Vault) -> None:
    """A file of mode 0600, written then renamed. It never leaves this machine."""
    new = path.with_name(path.name + ".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(msgspec.json.encode(vault))
    new.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else writes the vault meanwhile: ops and control both do."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def luhn(text: str) -> bool:
    """Whether the digits of ``text`` pass the check of ISO/IEC 7812-1, annex B."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = (d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2])
    return bool(digits) and any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
