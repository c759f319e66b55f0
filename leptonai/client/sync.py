"""The blocking client: what the CLI, scripts and notebooks use."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from leptonai.client import calls
from leptonai.client.learnt import Reset
from leptonai.client.looking import Looking
from leptonai.client.rollout import Progress, Report, rollout, verdict
from leptonai.client.wire import (
    FeedbackPage,
    FeedbackRequest,
    FreezeView,
    IssueRequest,
    Moved,
    ProposalView,
    ReviewRequest,
    ServiceView,
    SilenceRequest,
    TokenCreated,
    TokenView,
    Verdict,
)
from leptonai.errors import Conflict, Denied, NotFound, PlatformError, StartError
from leptonai.store.tree import pack
from leptonai.types import (
    DIGEST,
    Ack,
    Canary,
    Change,
    DeleteChange,
    DialChange,
    Event,
    Incident,
    Issue,
    Key,
    Proposal,
    Review,
    Revision,
    Role,
    Silence,
    Spec,
    SpecChange,
)

POLL = 0.2  # seconds between two looks at a rollout
JUDGED_POLL = 1.0  # at one that takes minutes
WARM = 2.0  # seconds at the full share before a promotion: the gateway asks each host every gateway.health_interval


class Client(Looking):
    """Talks to one platform: ``host`` and ``token`` as given, else from the environment, else the local home.

    Every method raises the LeptonError the platform answered with, or PlatformError ``unreachable``.
    """

    # --- wishing -----------------------------------------------------------------------------------------------

    def turn(self, on: bool, why: str = "") -> FreezeView:
        """The kill switch is on or off from now on: while it is on, no automatic proposal is admitted."""
        return self.send(calls.turn(on, why))

    def propose(
        self, change: Change, why: str, dry_run: bool = False, expires_in: float | None = None, by: str | None = None,
        ask: str = "",
    ) -> Proposal:  # fmt: skip
        """The proposal as it now stands; one the door denied is returned, not raised (see ``wish``).

        ``ask``: why an admin must approve it first, whatever the settings say.
        """
        return self.send(calls.propose(change, why, dry_run, expires_in, by, ask))

    def wish(self, change: Change, why: str, dry_run: bool = False) -> Proposal:
        """The proposal, admitted or waiting for approval. Raises Denied with the door's reasons otherwise."""
        return self._admitted(self.propose(change, why, dry_run))

    def _admitted(self, proposal: Proposal) -> Proposal:
        if proposal.status in ("denied", "expired"):
            reasons = "; ".join(proposal.reasons) or "no reason was given"
            raise Denied(
                f"the change of {proposal.service} was {proposal.status}: {reasons}",
                hint=f"see `leptonai why {proposal.service}`",
                proposal=proposal.id,
            )
        return proposal

    def proposals(self, status: str | None = None) -> list[ProposalView]:
        return self.send(calls.proposals(status))

    def proposal(self, id: str) -> ProposalView:
        return self.send(calls.proposal(id))

    def approve(self, proposal: Proposal) -> Proposal:
        return self.send(calls.approve(proposal.id, proposal.hash))

    def upload(self, path: str | os.PathLike[str]) -> str:
        """The digest under which the file or folder now lies in the artifact store of the platform."""
        return self.send(calls.upload(pack(Path(path)))).digest

    def deploy(
        self,
        spec: Spec,
        *,
        why: str = "deploy",
        replicas: int | None = None,
        wait: bool = True,
        timeout: float | None = None,
        report: Report = lambda progress: None,
    ) -> ServiceView:
        """``spec`` is the newest revision, its models uploaded; with ``wait``, its replicas are ready.

        Models named by a local path are uploaded first. An unchanged spec makes no revision. ``timeout`` defaults to
        what the rollout may need by its own start_timeout. Raises Denied when the door says no, ModelError or
        StartError as soon as a new replica cannot start (the old revision keeps serving), PlatformError on time-out.
        """
        variants = tuple(
            v if DIGEST.fullmatch(v.model) else msgspec.structs.replace(v, model=self.upload(v.model))
            for v in spec.variants
        )
        spec = msgspec.structs.replace(spec, variants=variants)
        if replicas is not None:
            low, high = min(spec.scale.min, replicas), max(spec.scale.max, replicas)
            spec = msgspec.structs.replace(
                spec, scale=msgspec.structs.replace(spec.scale, min=low, max=high, replicas=replicas)
            )
        try:
            now: ServiceView | None = self.service(spec.key)
        except NotFound:
            now = None
        if now is None or now.service.spec != spec:
            proposal = self.wish(SpecChange(spec=spec, base=now.service.revision if now else 0), why)
            self._raise_if_pending(proposal)
        if replicas is not None and now is not None:
            self.scale(spec.key, replicas, why=why)
        # What failed before may succeed now: the upload has repaired an artifact that was changed on disk.
        past = [r.id for r in now.replicas if r.state == "failed"] if now else []
        if not wait:
            return self.service(spec.key)
        view = self.wait_ready(spec.key, timeout, report, past)
        if view.service.spec != spec:
            last = self.revisions(spec.key)[-1]
            raise StartError(f"{spec.key}: {last.why}", hint=f"see `leptonai why {spec.key}`", code="rolled_back")
        return view

    def as_canary(self, spec: Spec, *, whole: bool = False) -> Spec:
        """``spec`` as a rollout by canary. Unless it is ``whole``, only its model is taken: all else of the service,
        where that exists and has one variant, stays as it is."""
        if not whole:
            with suppress(NotFound):
                now = self.service(spec.key).service.spec
                if len(now.variants) == len(spec.variants) == 1:
                    new, old = spec.variants[0], now.variants[0]
                    variant = msgspec.structs.replace(old, model=new.model, idempotent=new.idempotent or old.idempotent)
                    spec = msgspec.structs.replace(now, variants=(variant,))
        if spec.rollout.strategy == "replace":
            spec = msgspec.structs.replace(spec, rollout=msgspec.structs.replace(spec.rollout, strategy="canary"))
        return spec

    def wait_judged(
        self,
        key: Key,
        timeout: float | None = None,
        report: Callable[[str], None] = lambda text: None,
        *,
        revision: int | None = None,
    ) -> Verdict:
        """How the rollout of the head ends: promoted at once when none is under way. Rides out a restart of control.

        Of ``revision`` instead, also when that was judged before; NotFound when there is none yet.
        "not enough evidence" when it has not ended within ``timeout`` seconds; None waits without end.
        """
        deadline = time.monotonic() + timeout if timeout is not None else None
        watched = revision
        last = ""
        while True:
            try:
                view = self.service(key)
                watched = view.service.revision if watched is None else watched
                if watched > view.service.revision:
                    raise NotFound(
                        f"{key} has no revision {watched} yet, its head is {view.service.revision}",
                        hint="`leptonai deploy PATH --canary --json` says which revision it made",
                    )
                found = verdict(view, self.revisions(key), watched)
                if view.status != last:
                    last = view.status
                    report(f"{key}: {last}")
            except PlatformError as e:
                if e.code != "unreachable" or watched is None:
                    raise
                found = None
            if found is not None:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                return Verdict(revision=watched or 0, outcome="not enough evidence", why=last)
            time.sleep(JUDGED_POLL)

    def promote(
        self,
        key: Key,
        share: float | None = None,
        *,
        why: str = "",
        report: Callable[[str], None] = lambda text: None,
    ) -> ServiceView:
        """The rollout under way has ``share`` of the requests, or with None is promoted.

        Its replicas are as many as the share needs, and ready, before it is given to them; before the promotion the
        gateway has known them for WARM seconds. Conflict when no rollout is under way; errors as in ``deploy``.
        """
        view = self.service(key)
        self._rollout(view)
        goal = 1.0 if share is None else share
        need = max(1, math.ceil(goal * view.wanted - 1e-9))
        if self._rollout(view).replicas < need:
            self._turn(view, {"replicas": float(need)}, why)
            view = self.wait_ready(key, report=lambda progress: report(progress.text))
        if self._rollout(view).weight != goal:
            self._turn(view, {"weight": goal, "mirror": 0.0}, why)
        if share is None:
            report(f"{key}: the gateway looks at its replicas")
            time.sleep(WARM)
            self._turn(view, {"promoted": 1.0}, why)
        return self.service(key)

    def _rollout(self, view: ServiceView) -> Canary:
        if view.service.canary is None:
            raise Conflict(
                f"no rollout of {view.key} is under way",
                hint="`leptonai deploy PATH --canary` begins one",
                code="no_rollout",
            )
        return view.service.canary

    def _turn(self, view: ServiceView, values: dict[str, float], why: str) -> None:
        named = {f"rollout.{view.service.revision}.{name}": value for name, value in values.items()}
        said = why or "promote: " + ", ".join(f"{k} {v:g}" for k, v in values.items())
        self._raise_if_pending(self.wish(DialChange(service=view.key, set=named), said))

    def wait_ready(
        self,
        key: Key,
        timeout: float | None = None,
        report: Report = lambda progress: None,
        past: Collection[str] = (),
    ) -> ServiceView:
        """The service once all its wanted replicas are ready in their newest form, and the gateway asks them.

        Errors as in ``deploy``, but none for the failed replicas whose ids are in ``past``.
        Polls every POLL seconds and rides out a control process that is being restarted.
        """
        deadline: float | None = None
        last: Progress | None = None
        while True:
            try:
                view = self.service(key)
            except PlatformError as e:
                if e.code != "unreachable" or deadline is None or time.monotonic() > deadline:
                    raise
                time.sleep(POLL)
                continue
            if deadline is None:
                per_replica = view.service.spec.rollout.start_timeout + view.service.spec.drain
                patience = timeout if timeout is not None else per_replica * max(1, view.wanted) + 10.0
                deadline = time.monotonic() + patience
            progress = rollout(view, past)
            if progress != last:
                report(progress)
                last = progress
            if progress.done and self._routed(view):
                return view
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"{progress.text} after {patience:.0f} s",
                    hint=f"see `leptonai status {key}` and `leptonai logs {key}`; it keeps trying",
                    code="timeout",
                )
            time.sleep(POLL)

    def _routed(self, view: ServiceView) -> bool:
        """Whether the gateway sends requests to the service already: it learns of a ready replica a moment later.

        True as well when the gateway cannot be asked from here.
        """
        if view.wanted == 0 or not view.url.startswith("http"):
            return True
        try:
            answer = httpx.get(f"{view.url}/v2/models/{view.service.spec.name}/ready", timeout=5.0, trust_env=False)
        except httpx.HTTPError:
            return True
        return answer.status_code not in (404, 503)

    def scale(self, key: Key, replicas: int, *, variant: str = "main", why: str = "scale") -> Proposal:
        """The replicas dial is set. Raises Denied when it is outside the bounds of the spec."""
        return self.wish(DialChange(service=key, set={f"{variant}.replicas": float(replicas)}), why)

    def restart(self, key: Key, *, why: str = "restart") -> Proposal:
        """The epoch of every variant rose by one: each replica is replaced, as many at a time as in a rollout."""
        dials = self.service(key).service.dials
        change = {f"{name}.epoch": float(dials.variants[name].epoch + 1) for name in dials.variants}
        return self.wish(DialChange(service=key, set=change), why)

    def undo(self, key: Key, to: int | None = None, *, why: str = "") -> Proposal:
        """The newest change of a person is taken back, whichever half of the wish it was; the proposal's why says it.

        With ``to``, the spec of that revision is wished again and dials are kept. Raises NotFound when there is
        nothing to go back to, Conflict when the change is not in force any more, Denied as ``wish``.
        """
        if to is None:
            proposal = self._admitted(self.send(calls.undo(key, why)))
        else:
            history = self.revisions(key)
            newest, chosen = history[-1], next((r for r in history if r.number == to), None)
            if chosen is None or chosen.spec is None:
                raise NotFound(
                    f"{key} has no revision {to} with a spec", hint=f"see `leptonai status {key}` for its history"
                )
            said = f"undo of revision {newest.number}: back to {to}"
            base = newest.number if newest.spec is not None else 0
            proposal = self.wish(SpecChange(spec=chosen.spec, base=base), f"{said}. {why}" if why else said)
        self._raise_if_pending(proposal)
        return proposal

    def delete(self, key: Key, *, why: str = "delete", wait: bool = True, timeout: float = 120.0) -> None:
        """The service is gone from the wish; with ``wait``, nothing of it runs any more. Its history is kept."""
        view = self.service(key)
        self._raise_if_pending(self.wish(DeleteChange(service=key, base=view.service.revision), why))
        deadline = time.monotonic() + timeout
        while wait:
            try:
                if not self.replicas(key):
                    return
            except NotFound:
                return
            if time.monotonic() > deadline:
                raise PlatformError(f"{key} still has replicas after {timeout:.0f} s", hint="see `leptonai ls`")
            time.sleep(POLL)

    # --- saying what was seen ----------------------------------------------------------------------------------

    def verify(self, key: Key, revision: int, detail: str = "") -> Revision:
        return self.send(calls.verify(key, revision, detail))

    def adopt(self, moved: Moved) -> Revision:
        """The service with its past is served here; its head. Conflict when it is or was served here already."""
        return self.send(calls.adopt(moved))

    def send_feedback(self, items: Sequence[FeedbackRequest]) -> int:
        return self.send(calls.send_feedback(items)).accepted

    def feedback(self, after: int = 0, limit: int = 1000) -> FeedbackPage:
        return self.send(calls.feedback(after, limit))

    def put_incident(self, incident: Incident) -> Incident:
        return self.send(calls.put_incident(incident))

    def record(self, kind: str, subject: str, detail: dict[str, Any]) -> Event:
        return self.send(calls.record(kind, subject, detail))

    def review(self, incident: int, request: ReviewRequest) -> Review:
        """It is kept in place of what the same caller said of the incident before.

        NotFound; SpecError for a cause or remedy that is not known, named or tried; Conflict when the incident was
        explained anew since ``request.analysis``.
        """
        return self.send(calls.review(incident, request))

    def change_issue(self, id: int, request: IssueRequest) -> Issue:
        return self.send(calls.change_issue(id, request))

    def reset_learnt(self, why: str, restore: bool = False) -> Reset:
        """What reviews taught so far is taken back; with ``restore`` it counts again."""
        return self.send(calls.reset_learnt(why, restore))

    def silence(
        self,
        matchers: Sequence[str],
        seconds: float,
        comment: str,
        starts: float | None = None,
        until_resolved: bool = False,
    ) -> Silence:
        """Nobody is told of alerts that agree with all ``matchers``, like ``service="digits"``, for that long."""
        request = SilenceRequest(
            matchers=tuple(matchers), seconds=seconds, comment=comment, starts=starts, until_resolved=until_resolved
        )
        return self.send(calls.silence(request))

    def end_silence(self, id: int) -> Silence:
        return self.send(calls.end_silence(id))

    def ack(self, incident: int, comment: str = "") -> Ack:
        """Somebody takes the incident: it is not escalated any further."""
        return self.send(calls.ack(incident, comment))

    def import_samples(self, body: bytes, workspace: str = "default") -> None:
        """Samples of any age, as a remote-write request; b"" ends the import, and all of it can be read then."""
        self.send(calls.import_samples(body, workspace))

    def write_samples(self, body: bytes, workspace: str = "default") -> None:
        """Samples of now, as a remote-write request; whoever sends them is watched (docs/detection.md)."""
        self.send(calls.write_samples(body, workspace))

    # --- callers -----------------------------------------------------------------------------------------------

    def tokens(self) -> list[TokenView]:
        return self.send(calls.tokens())

    def create_token(
        self, name: str, role: Role = "viewer", workspaces: Sequence[str] = ("default",), ttl: float | None = None
    ) -> TokenCreated:
        return self.send(calls.create_token(name, role, workspaces, ttl))

    def revoke_token(self, name: str) -> TokenView:
        return self.send(calls.revoke_token(name))

    def session(self) -> str:
        """A URL that opens the console once."""
        return self.send(calls.session()).url

    def _raise_if_pending(self, proposal: Proposal) -> None:
        if proposal.status == "pending":
            raise Conflict(
                f"proposal {proposal.id} for {proposal.service} waits for approval",
                hint=f"an admin approves it with `leptonai approve {proposal.id}`",
                code="pending",
                proposal=proposal.id,
                hash=proposal.hash,
            )
