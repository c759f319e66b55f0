"""The last good answers of one cluster, found by what was asked; bounded in bytes and age, sealed where it matters."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from leptonai.edge import forms
from leptonai.edge.forms import Form
from leptonai.edge.http import JSON, Header, Request
from leptonai.edge.key import Asked, asked
from leptonai.types import Answered, Fallback, Standby

OVERHEAD = 400  # bytes of an entry beside its answer, about
BINARY = b"application/octet-stream"


class Answer(NamedTuple):
    body: bytes
    headers: list[Header]
    content_type: bytes


class _Entry:
    __slots__ = ("at", "forms", "size")

    def __init__(self, at: float) -> None:
        self.at = at
        self.forms: dict[bytes, tuple[bytes, bytes, int | None]] = {}  # form -> (sealed body, content type, JSON size)
        self.size = OVERHEAD


class Answers:
    """Keyed by the variant's digest, the caller's token and what was asked: no answer of another revision is found."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)  # keys are hashed with it: what was asked cannot be guessed from them
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # by age, the oldest first
        self._standby: Standby | None = None
        self._fallback = Fallback()
        self._cipher: Any = None
        self.on = False
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def configure(self, standby: Standby) -> None:
        """From now on what the wish says. Switched off, or kept in another way, all is forgotten."""
        fallback = standby.fallback
        was = self._fallback if self.on else None
        if fallback is None or was is None or (fallback.sensitive, fallback.shared) != (was.sensitive, was.shared):
            self._entries.clear()
            self.bytes = 0
            self._cipher = _cipher() if fallback is not None and fallback.sensitive else None
        self._standby, self.on = standby, fallback is not None
        self._fallback = fallback or Fallback()
        self._forget()

    def add(self, answered: Iterable[Answered]) -> None:
        """Keep good answers; what cannot be found again is not kept."""
        for one in answered:
            found = asked(one.target, one.body, one.json_size)
            if not self.on or found is None or one.at < self._clock() - self._fallback.max_age:
                continue
            form = Form(one.answer, one.answer_json_size)
            try:
                if one.target.endswith(b"/infer"):
                    form = forms.without_id(form)
            except ValueError:
                continue
            key = self._key(found, one.authorization)
            known = self._entries.get(key)
            if known is not None:
                if known.at >= one.at:
                    continue
                self.bytes -= self._entries.pop(key).size
            entry = _Entry(one.at)
            self._seal(entry, key, found.form, form, one.content_type)
            self._entries[key] = entry
            self.bytes += entry.size
        self._forget()

    def find(self, request: Request) -> Answer | None:
        """The answer to the same question, marked with its age; None when there is none that is young enough."""
        if not self.on or request.method != b"POST":
            return None
        found = asked(request.target, request.body, request.header(b"inference-header-content-length"))
        if found is None:
            return None
        key = self._key(found, request.header(b"authorization"))
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = max(0.0, self._clock() - entry.at)
        if age > self._fallback.max_age:
            self._forget()
            return None
        if found.form not in entry.forms and not self._convert(key, entry, found.form):
            return None
        sealed, content_type, size = entry.forms[found.form]
        form = Form(self._open(key, sealed), size)
        if found.id is not None:
            form = forms.with_id(form, found.id)
        headers = [
            (b"x-leptonai-stale", b"%.3f" % age),
            (b"age", b"%d" % age),
            (b"warning", b'110 leptonai "Response is Stale"'),
        ]
        if form.json_size is not None:
            headers.append((b"inference-header-content-length", b"%d" % form.json_size))
        return Answer(form.body, headers, content_type)

    # --- the store ----------------------------------------------------------------------------------------------------

    def _key(self, found: Asked, authorization: bytes) -> bytes:
        assert self._standby is not None
        caller = b"" if self._fallback.shared else hashlib.sha256(authorization).digest()
        whole = hashlib.blake2b(key=self._secret, digest_size=24)
        whole.update(b"%b\0%b\0" % (self._standby.digest.encode(), caller))
        whole.update(found.meaning)
        return whole.digest()

    def _convert(self, key: bytes, entry: _Entry, wanted: bytes) -> bool:
        """Another form of an answer that is kept in one; it is kept, too."""
        sealed, _, size = next(iter(entry.forms.values()))
        try:
            form = forms.convert(Form(self._open(key, sealed), size), wanted)
        except ValueError:
            return False
        self.bytes -= entry.size
        self._seal(entry, key, wanted, form, JSON if form.json_size is None else BINARY)
        self.bytes += entry.size
        return True

    def _seal(self, entry: _Entry, key: bytes, name: bytes, form: Form, content_type: bytes) -> None:
        body = form.body
        if self._cipher is not None:
            nonce = secrets.token_bytes(12)
            body = nonce + self._cipher.encrypt(nonce, body, key)
        entry.forms[name] = body, content_type, form.json_size
        entry.size += len(body)

    def _open(self, key: bytes, sealed: bytes) -> bytes:
        if self._cipher is None:
            return sealed
        opened: bytes = self._cipher.decrypt(sealed[:12], sealed[12:], key)
        return opened

    def _forget(self) -> None:
        """Nothing is kept past its age or beyond the bound; the oldest go first."""
        oldest = self._clock() - self._fallback.max_age
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key].at >= oldest and self.bytes <= self._fallback.max_bytes:
                return
            self.bytes -= self._entries.pop(key).size


def _cipher() -> Any:
    """AES-256-GCM with a key that exists in this process only. Imported when it is needed: it takes some 10 MB."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(AESGCM.generate_key(256))
