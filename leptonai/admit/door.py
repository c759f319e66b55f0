"""The door: judges a proposal against the store and records it with what it changes."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from leptonai import settings as setting
from leptonai.admit.judge import automatic, judge, kinds, paced, refused
from leptonai.admit.undo import taking_back
from leptonai.admit.world import World, dialled, diff
from leptonai.errors import Conflict, Denied, LeptonError, SpecError
from leptonai.store import Artifacts, Store
from leptonai.types import (
    Change,
    Dial,
    DialChange,
    JobChange,
    Key,
    Proposal,
    Revision,
    Spec,
    SpecChange,
    Token,
    canonical,
)

MACHINES = frozenset({"ops"})  # tokens that no person holds: what they propose is automatic
REACH = 10_000  # admitted proposals of one service, as far back as undo looks for a person's


class Door:
    """Judges proposals against the store and records them with what they change, all or nothing."""

    def __init__(
        self,
        store: Store,
        settings: setting.Settings,
        *,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[Key], None] = lambda key: None,
        artifacts: Artifacts | None = None,
        frozen: Callable[[], str] = lambda: "",
        fits: Callable[[Spec], None] = lambda spec: None,
    ) -> None:
        """``on_change`` is called with the key after each admitted change was committed; it carries a name only.

        With ``artifacts``, a spec may name only models that are stored there. ``frozen`` says who turned the kill
        switch on and why, "" while it is off; it is asked for every proposal. ``fits`` raises why the platform cannot
        have such a service.
        """
        self._store = store
        self._admit = settings.admit
        self._clock = clock
        self._on_change = on_change
        self._artifacts = artifacts
        self._frozen = frozen
        self._fits = fits

    def propose(
        self,
        change: Change,
        actor: Token,
        why: str,
        dry_run: bool = False,
        expires_in: float | None = None,
        by: str | None = None,
        ask: str = "",
    ) -> Proposal:
        """Judge ``change`` now; when it returns, the proposal, what it changed, and the audit event are on disk.

        Returns it "admitted", "pending" or "denied"; ``reasons`` says why, then what changes (see ``diff``). A change
        that changes nothing is admitted without a new revision. ``dry_run`` records nothing and changes nothing.
        ``by`` defaults to ``human:<token's name>``; a machine's token may name what it acts for (``incident:42``).
        ``ask``: why a person must approve it first, "" to leave that to the settings.
        ``expires_in``: seconds a pending one waits, ``admit.proposal_ttl`` by default. Raises as ``judge``, and Denied
        for any other ``by``: nobody signs as another, and no person as automation.
        """
        change = _plain(change)
        now = self._clock()
        ttl = self._admit.proposal_ttl if expires_in is None else expires_in
        if not 0 < ttl < math.inf:
            raise SpecError(f"expires_in is {ttl} s; it must be above 0", hint="leave it out for the default")
        proposal = Proposal(
            id=f"p-{secrets.token_hex(6)}",
            change=change,
            by=_speaker(actor, by),
            why=why,
            at=now,
            expires=now + ttl,
            dry_run=dry_run,
            ask=ask,
        )
        with self._store.transaction():
            world = self.world(proposal.service, now)
            status, reasons = judge(proposal, actor, world)
            if status in ("admitted", "pending"):
                self._check(change)
                reasons += diff(change, world.service)
            proposal = msgspec.structs.replace(proposal, status=status, reasons=reasons)
            if not dry_run:
                self._keep(proposal, actor, world)
        if status == "admitted" and not dry_run:
            self._on_change(proposal.service)
        return proposal

    def approve(self, id: str, hash: str, actor: Token) -> Proposal:
        """Admit a pending proposal, by an admin who names the change's hash; judged again, against the world of now.

        Raises NotFound, and Denied when the actor may not, when ``hash`` is not the proposal's, when it expired, or
        when it is no longer pending: an approval counts once. When the world has moved on it becomes "denied", and what
        ``judge`` raised is raised.
        """
        now = self._clock()
        failure: LeptonError | None = None
        with self._store.transaction():
            proposal = self._store.proposal(id)
            refusal = refused(actor, "admin", proposal.service, now)
            if not refusal and actor.name in MACHINES:
                refusal = f"token {actor.name!r} is a machine's; only a person approves"
            if refusal:
                raise Denied(f"proposal {id} was not approved: {refusal}", hint="ask an admin")
            if proposal.status != "pending":
                raise Denied(f"proposal {id} is already {proposal.status}", hint="an approval counts once")
            if not secrets.compare_digest(proposal.hash.encode(), hash.encode()):
                part = f"; a hash has {len(proposal.hash)} characters, {len(hash)} came" if len(hash) < 64 else ""
                raise Denied(
                    f"the approval is for change {hash[:12]!r}, but proposal {id} is {proposal.hash[:12]!r}{part}",
                    hint="read the proposal again and approve its whole `hash`",
                )
            world = self.world(proposal.service, now)
            approved = msgspec.structs.replace(proposal, approved_by=f"human:{actor.name}")
            try:
                status, reasons = judge(approved, actor, world)
                if status == "admitted":
                    self._check(approved.change)
                    reasons += diff(approved.change, world.service)
            except LeptonError as e:
                status, reasons, failure = "denied", (e.message,), e
            if status == "expired":
                failure = Denied(f"proposal {id} can no longer be approved: {reasons[0]}", hint="propose it again")
            approved = msgspec.structs.replace(approved, status=status, reasons=reasons)
            self._keep(approved, actor, world)
        if failure is not None:
            raise failure
        if status == "admitted":
            self._on_change(approved.service)
        return approved

    def expire(self) -> list[Proposal]:
        """Turn pending proposals whose time is over into "expired" ones, and return those. For a loop."""
        now = self._clock()
        late = [p for p in self._store.proposals(status="pending", limit=1000) if p.expires <= now]
        if not late:
            return []
        with self._store.transaction():
            out = [msgspec.structs.replace(p, status="expired", reasons=("nobody approved it in time",)) for p in late]
            for p in out:
                self._store.put_proposal(p)
                self._store.record("proposal.expired", p.service, {"proposal": p.id}, actor=p.by, at=now)
        return out

    def undo(self, key: Key, actor: Token, why: str = "") -> Proposal:
        """Propose what takes back the newest change of a person: see ``taking_back``, also for what is raised.

        The proposal's ``why`` says what it takes back, then ``why``.
        """
        now = self._clock()
        events = self._store.events(subject=key, kind="proposal.admitted", newest=True, limit=REACH)
        change, said = taking_back(key, reversed(events), self.world(key, now))
        return self.propose(change, actor, f"{said}. {why}" if why else said)

    def adopt(
        self,
        key: Key,
        revisions: Sequence[Revision],
        dials: dict[str, float],
        actor: Token,
        beside: Callable[[], object] = lambda: None,
    ) -> Revision:
        """Take over a service with its history, as another platform had it, and return its head, in force.

        Judged as if the head were proposed now; past revisions keep number, time and who made them. ``dials`` are set
        in the actor's name. ``beside`` writes what else belongs to it, in the same transaction: all of it or nothing.
        Raises as ``propose``; Denied unless the actor is an admin, Conflict when ``key`` is or was a service here,
        SpecError when the history is not one of ``key`` that ends in a spec.
        """
        now = self._clock()
        if refusal := refused(actor, "admin", key, now):
            raise Denied(f"{key} was not taken over: {refusal}", hint="ask an admin")
        head = revisions[-1] if revisions else None
        order = [r.number for r in revisions]
        if head is None or head.spec is None or order != list(range(1, len(order) + 1)):
            raise SpecError(f"the history of {key} is not whole", hint="export the service again")
        if any(r.service != key for r in revisions):
            raise SpecError(f"the history is not one of {key} alone", hint="export the service again")
        with self._store.transaction():
            if known := self._store.revisions(key):
                raise Conflict(
                    f"{key} is known here: revision {known[-1].number} of {time.ctime(known[-1].at)}",
                    hint="a service moves to where it never was; deploy its model as a new revision instead",
                )
            change = _plain(SpecChange(spec=head.spec, base=0))
            why = f"taken over with {len(order)} revisions"
            wish = Proposal(id="adopt", change=change, by=_speaker(actor, None), why=why, at=now, expires=now + 1.0)
            status, reasons = judge(wish, actor, self.world(key, now))
            if status != "admitted":
                raise Denied(f"{key} was not taken over: {reasons[0]}", hint="deploy it, then have it approved")
            self._check(change)
            expected = 0
            for past in revisions:
                made = self._store.append_revision(
                    key, past.spec, expected=expected, by=past.by, why=past.why, at=past.at
                )
                expected = made.number if past.spec else 0
                if past.verified is not None:
                    self._store.verify(key, made.number, past.verified)
            settled = {f"rollout.{head.number}.promoted": 1.0} if head.spec.rollout.strategy != "replace" else {}
            self._store.append_dials(key, _dials(DialChange(service=key, set=dials | settled), wish, now))
            beside()
            self._store.record(
                "service.adopted",
                key,
                {"revisions": len(order), "dials": dials, "token": actor.name},
                actor=wish.by,
                at=now,
            )
        self._on_change(key)
        return made

    def world(self, key: Key, now: float) -> World:
        """What the judge sees of ``key`` at ``now``."""
        reach = max(self._admit.pace_seconds, self._admit.cooldown)
        recent = self._store.proposals(status="admitted", since=now - reach, limit=1000)
        return World(
            now=now,
            admit=self._admit,
            history=tuple(self._store.revisions(key)),
            dials=tuple(self._store.dials(key)),
            recent=tuple(p for p in recent if paced(p.by) and p.approved_by is None),
            frozen=self._frozen(),
        )

    def _check(self, change: Change) -> None:
        """The platform can have it, and its models are there."""
        if not isinstance(change, SpecChange):
            return
        self._fits(change.spec)
        if self._artifacts is not None:
            for variant in change.spec.variants:
                self._artifacts.path(variant.model)

    def _keep(self, proposal: Proposal, actor: Token, world: World) -> None:
        """Append the proposal, what it changes when admitted, and the event with all terms."""
        change, key, now, head = proposal.change, proposal.service, world.now, world.head
        number = head.number if head else 0
        if proposal.status == "admitted":
            if isinstance(change, DialChange):
                self._store.append_dials(key, _dials(change, proposal, now))
            elif not isinstance(change, JobChange):
                spec = change.spec if isinstance(change, SpecChange) else None
                if head is None or spec != head.spec:
                    made = self._store.append_revision(
                        key, spec, expected=change.base, by=proposal.by, why=proposal.why, at=now
                    )
                    number = made.number
        self._store.put_proposal(proposal)
        detail: dict[str, Any] = {
            "proposal": proposal.id,
            "hash": proposal.hash,
            "kinds": sorted(kinds(change, world.history)),
            "by": proposal.by,
            "token": actor.name,
            "why": proposal.why,
            "reasons": list(proposal.reasons),
            "approved_by": proposal.approved_by,
            "ask": proposal.ask,
            "base": head.number if head else 0,
            "revision": number,
        }
        if isinstance(change, DialChange):
            before = dialled(world.service, change.set) if world.service else {}
            was = {p: before[p] for p in change.set if p in before and not p.endswith(".epoch")}
            detail |= {"set": change.set, "ttl": change.ttl, "was": was}
            detail |= {"sooner": change.sooner} if change.sooner else {}
        if automatic(proposal.by):
            detail |= {
                "recent": len(world.recent),
                "pace_count": world.admit.pace_count,
                "pace_seconds": world.admit.pace_seconds,
                "cooldown": world.admit.cooldown,
                "frozen": world.frozen or world.admit.frozen,
            }
        actor_name = proposal.approved_by or proposal.by
        self._store.record(f"proposal.{proposal.status}", key, detail, actor=actor_name, at=now)


def _dials(change: DialChange, proposal: Proposal, now: float) -> list[Dial]:
    """The log entries of a change. An epoch never expires: it only rises."""
    return [
        Dial(
            path=path,
            value=value,
            owner=proposal.by,
            reason=proposal.why,
            at=now,
            expires=None if (lasts := change.lasts(path)) is None else now + lasts,
        )
        for path, value in sorted(change.set.items())
    ]


def _plain(change: Change) -> Change:
    """The change as it will be read back (an int given for a float is a float): its hash is that of the stored one."""
    try:
        return msgspec.json.decode(canonical(change), type=Change)  # type: ignore[no-any-return]
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as e:
        raise SpecError(f"the change cannot be stored: {e}", hint="use finite numbers and plain JSON values") from e


def _speaker(actor: Token, by: str | None) -> str:
    own = actor.name if actor.name in MACHINES else f"human:{actor.name}"
    if by is None or by == own:
        return own
    if actor.name not in MACHINES or not by or not automatic(by):
        raise Denied(f"token {actor.name!r} may not propose as {by!r}", hint=f"leave `by` out: it is {own!r}")
    return by
