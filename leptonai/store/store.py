"""What happened: revisions, dials, proposals, incidents, feedback, the audit log, tokens."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from leptonai.errors import Conflict, LeptonError, NotFound, SpecError
from leptonai.store.probation import probation
from leptonai.store.said import Said
from leptonai.store.spell import limit_of, read, spell
from leptonai.types import (
    Ack,
    Dial,
    Event,
    Incident,
    Key,
    Proposal,
    Revision,
    Service,
    Silence,
    Spec,
    SpecChange,
    Token,
    effective_dials,
)

MOST_VERSIONS = 50  # of one incident: it is written anew every ten seconds while its numbers move
Numbered = TypeVar("Numbered", Incident, Silence)


class Store(Said):
    """The one writer of a store. What a method has returned survives ``kill -9``; see Database for errors.

    Methods are synchronous and short. Every list is in the order stated; every noun returned equals the one stored.
    """

    def __init__(self, place: str | os.PathLike[str], *, audit_keep: int = 1_000_000) -> None:
        """Open or create the store, as Database; of events ``audit_keep`` stay (``settings.store.audit_keep``)."""
        super().__init__(place)
        self._audit_keep = max(1, audit_keep)

    # --- revisions -------------------------------------------------------------------------------------------------

    def append_revision(self, key: Key, spec: Spec | None, *, expected: int, by: str, why: str, at: float) -> Revision:
        """Append the next revision of ``key`` and return it; ``spec`` None deletes the service.

        ``expected`` is the number of the head the change was made from, 0 for a service that does not exist or was
        deleted. Numbers rise by one from 1 and go on after a deletion, so a number names one spec for ever. Raises
        Conflict naming both numbers when the head is another one, NotFound when there is nothing to delete, SpecError
        when ``spec`` belongs to another key.
        """
        if spec is not None and spec.key != key:
            raise SpecError(f"the spec of {spec.key!r} cannot become a revision of {key!r}", hint="use the spec's key")
        with self.transaction():
            head = self.head(key)
            found = head.number if head else 0
            if found != expected:
                raise Conflict(
                    f"{key}: the change was made from revision {expected}, but the head is {found}",
                    hint="look at what changed (leptonai why), then propose again from the head",
                    code="stale_revision",
                    expected=expected,
                    head=found,
                )
            if spec is None and head is None:
                raise NotFound(f"no service {key!r} to delete", hint="leptonai ls shows every service")
            number = self._last_number(key) + 1
            body, made = spell(Revision(service=key, number=number, by=by, why=why, at=at, spec=spec))
            self._insert("revisions", service=key, number=number, live=spec is not None, body=body)
        return made

    def revisions(self, key: Key) -> list[Revision]:
        """The whole history of ``key``, oldest first, deletions included; [] when it never existed."""
        return self._revisions("r.service = ? ORDER BY r.number", (key,))

    def head(self, key: Key) -> Revision | None:
        """The newest revision; None when the service does not exist or was deleted."""
        found = self._revisions("r.service = ? ORDER BY r.number DESC LIMIT 1", (key,))
        return found[0] if found and found[0].spec is not None else None

    def heads(self) -> list[Revision]:
        """The head of every live service, ordered by key."""
        newest = "r.number = (SELECT max(number) FROM revisions WHERE service = r.service)"
        return self._revisions(f"r.live AND {newest} ORDER BY r.service", ())

    def verify(self, key: Key, number: int, at: float) -> Revision:
        """Mark a revision verified-good; the first time counts. NotFound, or SpecError when it is a deletion."""
        with self.transaction():
            found = self._revisions("r.service = ? AND r.number = ?", (key, number))
            if not found:
                raise NotFound(f"{key} has no revision {number}", hint=f"its newest is {self._last_number(key)}")
            if found[0].spec is None:
                raise SpecError(f"revision {number} of {key} is a deletion and cannot be verified", hint="name a spec")
            if found[0].verified is None:
                self._insert("verifications", service=key, number=number, at=at)
        return msgspec.structs.replace(found[0], verified=at) if found[0].verified is None else found[0]

    def last_verified(self, key: Key, before: int | None = None) -> Revision | None:
        """The newest verified-good revision, with a number below ``before`` when given.

        Only of the service's present life: what was deleted is not rolled back to.
        """
        bound = before if before is not None else self._last_number(key) + 1
        where = "r.service = ? AND r.number > ? AND r.number < ? AND v.at IS NOT NULL ORDER BY r.number DESC LIMIT 1"
        found = self._revisions(where, (key, self._ended(key), bound))
        return found[0] if found else None

    def models(self) -> set[str]:
        """Every model that a revision or a pending proposal names: what ``Artifacts.collect`` must keep."""
        changes = [p.change for p in self.proposals(status="pending", limit=1_000_000)]
        specs = [c.spec for c in changes if isinstance(c, SpecChange)]
        specs += [r.spec for r in self._revisions("r.live", ()) if r.spec]
        return {variant.model for spec in specs for variant in spec.variants}

    def _revisions(self, where: str, values: tuple[Any, ...]) -> list[Revision]:
        rows = self._rows(
            "SELECT r.body, v.at FROM revisions r LEFT JOIN verifications v"  # noqa: S608 - where is ours
            f" ON v.service = r.service AND v.number = r.number WHERE {where}",
            values,
        )
        return [msgspec.structs.replace(read(body, Revision), verified=at) for body, at in rows]

    def _last_number(self, key: Key) -> int:
        return self._one("SELECT max(number) FROM revisions WHERE service = ?", (key,)) or 0

    def _ended(self, key: Key) -> int:
        """The number of the last deletion, 0 when there was none: the present life began after it."""
        return self._one("SELECT max(number) FROM revisions WHERE service = ? AND NOT live", (key,)) or 0

    # --- dials -----------------------------------------------------------------------------------------------------

    def append_dials(self, key: Key, dials: list[Dial]) -> None:
        """Append to the dials log of a live service, all or none; what no longer matters is dropped.

        Raises NotFound when the service does not exist. Bounds are the door's business.
        """
        with self.transaction():
            head = self.head(key)
            if head is None:
                raise NotFound(f"no service {key!r}", hint="leptonai ls shows every service")
            for dial in dials:
                body, _ = spell(dial)
                self._insert("dials", service=key, revision=head.number, path=dial.path, value=dial.value, body=body)
            for path in {dial.path for dial in dials}:
                self._compact(key, path)

    def dials(self, key: Key) -> list[Dial]:
        """The dials log in order, without what no longer matters (see ``compact``).

        A deletion ends every dial except the epochs, which rise over all lives of a service.
        """
        where = "service = ? AND (revision > ? OR path LIKE '%.epoch') ORDER BY seq"
        rows = self._rows(f"SELECT body FROM dials WHERE {where}", (key, self._ended(key)))  # noqa: S608
        return compact([read(body, Dial) for (body,) in rows])

    def drop_evicts(self, key: Key, replicas: Iterable[str]) -> list[str]:
        """An evict dies with its replica: drop those of ``replicas``, ids that no longer exist. Returns the dropped."""
        with self.transaction():
            evicted = {d.path.removeprefix("evict.") for d in self.dials(key) if d.path.startswith("evict.")}
            dropped = sorted(evicted & set(replicas))
            for replica in dropped:
                self._rows("DELETE FROM dials WHERE service = ? AND path = ?", (key, f"evict.{replica}"))
        return dropped

    def _compact(self, key: Key, path: str) -> None:
        rows = self._rows(
            "SELECT seq, revision, body FROM dials WHERE service = ? AND path = ? ORDER BY seq", (key, path)
        )
        ended = self._ended(key)
        alive = [(seq, read(body, Dial)) for seq, number, body in rows if number > ended or path.endswith(".epoch")]
        kept = {id(dial) for dial in compact([dial for _, dial in alive])}
        keep = {seq for seq, dial in alive if id(dial) in kept}
        for seq, _, _ in rows:
            if seq not in keep:
                self._rows("DELETE FROM dials WHERE seq = ?", (seq,))

    # --- the wish --------------------------------------------------------------------------------------------------

    def service(self, key: Key, now: float) -> Service | None:
        """The whole wish of ``key`` at ``now``; None when it does not exist."""
        head = self.head(key)
        return self._service(head, now) if head else None

    def services(self, now: float) -> list[Service]:
        """Every live wish at ``now``, ordered by key."""
        return [self._service(head, now) for head in self.heads()]

    def _service(self, head: Revision, now: float) -> Service:
        assert head.spec is not None
        log = self.dials(head.service)
        dials = effective_dials(head.spec, log, now)
        if head.number == 1:
            return Service(spec=head.spec, dials=dials, revision=1)
        canary, rejected = probation(self.revisions(head.service), log, now)
        return Service(spec=head.spec, dials=dials, revision=head.number, canary=canary, rejected=rejected)

    # --- proposals -------------------------------------------------------------------------------------------------

    def put_proposal(self, proposal: Proposal) -> None:
        """Append a version of the proposal; the latest version of an id is the one in force, earlier ones are kept."""
        columns = {"id": proposal.id, "service": proposal.service, "status": proposal.status, "at": proposal.at}
        self._insert("proposals", **columns, body=spell(proposal)[0])

    def proposal(self, id: str) -> Proposal:
        """The latest version. Raises NotFound."""
        body = self._one("SELECT body FROM proposals WHERE id = ? ORDER BY seq DESC LIMIT 1", (id,))
        if body is None:
            raise NotFound(f"no proposal {id!r}", hint="`leptonai proposals` lists them")
        return read(body, Proposal)

    def proposals(
        self, status: str | None = None, service: Key | None = None, limit: int = 100, since: float | None = None
    ) -> list[Proposal]:
        """The latest version of each proposal made at ``since`` or later, newest change first, at most ``limit``."""
        where = ["NOT EXISTS (SELECT 1 FROM proposals q WHERE q.id = p.id AND q.seq > p.seq)"]
        values: list[Any] = []
        for test, value in (("p.status = ?", status), ("p.service = ?", service), ("p.at >= ?", since)):
            if value is not None:
                where.append(test)
                values.append(value)
        sql = f"SELECT body FROM proposals p WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"  # noqa: S608
        return [read(body, Proposal) for (body,) in self._rows(sql, (*values, limit_of(limit)))]

    # --- incidents -------------------------------------------------------------------------------------------------

    def put_incident(self, incident: Incident) -> Incident:
        """Append a version of the incident and return it; id 0 is given the next id. NotFound for an unknown id.

        Of its versions the newest MOST_VERSIONS stay.
        """
        with self.transaction():
            last = self._one("SELECT max(id) FROM incidents") or 0
            incident = _numbered(incident, last, "incident", "create it with id 0: the store gives it the next id")
            body, incident = spell(incident)
            if body != self._one("SELECT body FROM incidents WHERE id = ? ORDER BY seq DESC LIMIT 1", (incident.id,)):
                is_open = incident.closed is None
                self._insert("incidents", id=incident.id, subject=incident.subject, open=is_open, body=body)
                former = "SELECT seq FROM incidents WHERE id = ? ORDER BY seq DESC LIMIT 1 OFFSET ?"
                dropped = (incident.id, incident.id, MOST_VERSIONS)
                self._rows(f"DELETE FROM incidents WHERE id = ? AND seq <= ({former})", dropped)  # noqa: S608
        return incident

    def incident(self, id: int) -> Incident:
        """The latest version. Raises NotFound."""
        body = self._one("SELECT body FROM incidents WHERE id = ? ORDER BY seq DESC LIMIT 1", (id,))
        if body is None:
            raise NotFound(f"no incident {id}", hint="leptonai incidents lists them")
        return read(body, Incident)

    def incidents(self, open: bool | None = None, subject: str | None = None, limit: int = 100) -> list[Incident]:
        """The latest version of each incident, highest id first, at most ``limit``."""
        where = ["NOT EXISTS (SELECT 1 FROM incidents j WHERE j.id = i.id AND j.seq > i.seq)"]
        values: list[Any] = []
        for column, value in (("open", open), ("subject", subject)):
            if value is not None:
                where.append(f"i.{column} = ?")
                values.append(value)
        sql = f"SELECT body FROM incidents i WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"  # noqa: S608
        return [read(body, Incident) for (body,) in self._rows(sql, (*values, limit_of(limit)))]

    # --- alerts ----------------------------------------------------------------------------------------------------

    def put_silence(self, silence: Silence) -> Silence:
        """Append a version of the silence and return it; id 0 is given the next id. NotFound for an unknown id."""
        with self.transaction():
            last = self._one("SELECT max(id) FROM silences") or 0
            silence = _numbered(silence, last, "silence", "leptonai silence ls lists them")
            body, silence = spell(silence)
            self._insert("silences", id=silence.id, ends=silence.ends, body=body)
        return silence

    def silence(self, id: int) -> Silence:
        """The latest version. Raises NotFound."""
        body = self._one("SELECT body FROM silences WHERE id = ? ORDER BY seq DESC LIMIT 1", (id,))
        if body is None:
            raise NotFound(f"no silence {id}", hint="leptonai silence ls lists them")
        return read(body, Silence)

    def silences(self, after: float = 0.0, limit: int = 1000) -> list[Silence]:
        """The latest version of each silence that ends after ``after``, highest id first."""
        newest = "NOT EXISTS (SELECT 1 FROM silences j WHERE j.id = i.id AND j.seq > i.seq)"
        sql = f"SELECT body FROM silences i WHERE {newest} AND i.ends > ? ORDER BY id DESC LIMIT ?"  # noqa: S608
        return [read(body, Silence) for (body,) in self._rows(sql, (after, limit_of(limit)))]

    def append_ack(self, ack: Ack) -> Ack:
        """Keep that somebody has taken an incident. NotFound when there is no such incident."""
        with self.transaction():
            self.incident(ack.incident)
            body, ack = spell(ack)
            self._insert("acks", incident=ack.incident, body=body)
        return ack

    def acks(self, incidents: Iterable[int]) -> list[Ack]:
        """The newest acknowledgement of each of ``incidents`` that has one, in their order."""
        sql = "SELECT body FROM acks WHERE incident = ? ORDER BY seq DESC LIMIT 1"
        found = [self._one(sql, (id,)) for id in incidents]
        return [read(body, Ack) for body in found if body is not None]

    # --- the audit log ---------------------------------------------------------------------------------------------

    def record(self, kind: str, subject: str, detail: dict[str, Any], *, actor: str, at: float) -> Event:
        """Append one event and return it as stored. Its hash is sha256(hash of the line before + the line itself)."""
        with self.transaction():
            rows = self._rows("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")
            last, previous = rows[0] if rows else (0, "")
            event = Event(seq=last + 1, at=at, actor=actor, kind=kind, subject=subject, detail=detail, hash="")
            body, event = spell(event)
            digest = _chain(previous, body)
            self._insert("events", seq=event.seq, subject=subject, kind=kind, body=body, previous=previous, hash=digest)
            if event.seq % 1000 == 0:
                old = self._rows("SELECT seq FROM events WHERE seq <= ? ORDER BY seq", (event.seq - self._audit_keep,))
                self._each("DELETE FROM events WHERE seq = ?", old)  # the oldest first: only that one may go
        return msgspec.structs.replace(event, hash=digest)

    def events(
        self,
        after: int = 0,
        subject: str | None = None,
        kind: str | None = None,
        limit: int = 1000,
        newest: bool = False,
    ) -> list[Event]:
        """Events with a sequence number above ``after``, oldest first, ``limit`` of them.

        The first ones, or the last ones when ``newest``. ``kind`` ending in a dot stands for every kind that begins so.
        """
        where = ["seq > ?"]
        values: list[Any] = [after]
        if subject is not None:
            where.append("subject = ?")
            values.append(subject)
        if kind is not None and kind.endswith("."):
            where.append("kind >= ? AND kind < ?")
            values.extend((kind, kind[:-1] + "/"))  # "/" follows "." in the order of bytes
        elif kind is not None:
            where.append("kind = ?")
            values.append(kind)
        order = "DESC" if newest else "ASC"
        sql = f"SELECT body, hash FROM events WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?"  # noqa: S608
        rows = self._rows(sql, (*values, limit_of(limit)))
        found = [msgspec.structs.replace(read(body, Event), hash=digest) for body, digest in rows]
        return found[::-1] if newest else found

    def check_chain(self) -> int | None:
        """The sequence number of the first event that was edited, removed or reordered; None when the log is whole.

        Blind to lines cut off at either end: the oldest may be trimmed, and the newest have no successor yet.
        """
        last, previous = 0, ""
        columns = "seq, subject, kind, body, previous, hash"
        # a page at a time: a long log must not keep writers waiting
        while rows := self._rows(f"SELECT {columns} FROM events WHERE seq > ? ORDER BY seq LIMIT 10000", (last,)):  # noqa: S608
            for seq, subject, kind, body, before, digest in rows:
                if last and (seq != last + 1 or before != previous):
                    return last + 1
                if digest != _chain(before, body) or not _says(body, seq, subject, kind):
                    return int(seq)
                last, previous = int(seq), digest
        return None

    # --- tokens ----------------------------------------------------------------------------------------------------

    def put_token(self, token: Token) -> None:
        """Append a version of the token; the latest version of a name is the one in force."""
        self._insert("tokens", name=token.name, body=spell(token)[0])

    def identity(self) -> str:
        """32 hex digits, the same for ever for these records wherever they are kept: of the first token's. NotFound
        before there is one.
        """
        first = self._one("SELECT body FROM tokens ORDER BY seq LIMIT 1")
        if first is None:
            raise NotFound("the store has no token yet", hint="control makes the first")
        return hashlib.sha256(str(first).encode()).hexdigest()[:32]

    def tokens(self) -> list[Token]:
        """The latest version of each token, revoked ones included, ordered by name."""
        newest = "seq = (SELECT max(seq) FROM tokens WHERE name = t.name)"
        return [read(b, Token) for (b,) in self._rows(f"SELECT body FROM tokens t WHERE {newest} ORDER BY name")]  # noqa: S608

    def token_by_secret(self, secret: str, now: float) -> Token | None:
        """The token of this secret; None when it is unknown, revoked or has expired by ``now``.

        Compares hashes, each in constant time and always all of them.
        """
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for token in self.tokens():
            if hmac.compare_digest(token.secret_sha256, digest):
                found = token
        if found is None or found.revoked or (found.expires is not None and found.expires <= now):
            return None
        return found


def compact(log: list[Dial]) -> list[Dial]:
    """The entries of a dials log that still matter at some moment, in order.

    ``effective_dials`` says the same of both logs at every moment. Per path: the last entry that stays, and after it
    those that outlive every later one; of an epoch the highest; of an evict never a lasting 0, which is its absence.
    """
    paths: dict[str, list[int]] = {}
    for i, dial in enumerate(log):
        paths.setdefault(dial.path, []).append(i)
    keep: set[int] = set()
    for path, places in paths.items():
        if path.endswith(".epoch"):
            keep.add(max(places, key=lambda i: log[i].value))
            continue
        outlived = float("-inf")
        for i in reversed(places):
            expires = log[i].expires
            if expires is None:
                if not (path.startswith("evict.") and log[i].value == 0):
                    keep.add(i)
                break
            if expires > outlived:
                keep.add(i)
                outlived = expires
    return [log[i] for i in sorted(keep)]


def _chain(previous: str, body: str) -> str:
    return hashlib.sha256(previous.encode() + body.encode()).hexdigest()


def _says(body: str, seq: int, subject: str, kind: str) -> bool:
    try:
        event = read(body, Event)
    except LeptonError:
        return False
    return (event.seq, event.subject, event.kind) == (seq, subject, kind)


def _numbered(noun: Numbered, last: int, what: str, hint: str) -> Numbered:
    """``noun`` with the next id when it has none (0). NotFound when it has one that was never given."""
    if noun.id == 0:
        return msgspec.structs.replace(noun, id=last + 1)
    if not 0 < noun.id <= last:
        raise NotFound(f"no {what} {noun.id}", hint=hint)
    return noun
