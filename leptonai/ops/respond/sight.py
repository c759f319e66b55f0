"""What is known when the next act is decided."""

from __future__ import annotations

from leptonai.types import Action, Event, Key, Noun, Revision, Service


class Sight(Noun, frozen=True, kw_only=True):
    """What is known of the incident's service at this moment.

    ``collected``: when telemetry was last complete. ``firing``: one of the incident's triggers holds. ``quiet_since``
    and ``converged_since``: since when none holds, and since when what runs is what is wished; None: not now.
    ``samples``: what was seen since the last action, or since the incident was opened, of the kind the triggers are
    made of. ``serving``: its replicas that are ready. ``waiting``: ids of proposals that wait for a person.
    ``denied``: times at which the door refused since the last action. ``worse``: says how the last action did harm.

    ``others``: all other services. ``theirs``: services whose replicas somebody else than us sets. ``held``: service
    -> why nothing else may change it now: a change of it is being verified, or somebody's deploy is under way.
    ``acting``: actions of other incidents that are not judged yet. ``past``: actions of other incidents of this
    service, newest last. ``doubt``: why the diagnosis is not to be acted upon, such as a classifier that says
    otherwise. ``frozen``: why the kill switch is on. ``readings``: signals that the runbook wants for a verdict ->
    their mean over the time to settle, None: nothing was seen. ``running``: the process of the last action does;
    ``job``: how it failed. ``told``: hashes of plans that were recommended already. ``leads_since``: since when the
    first cause has been first.
    """

    service: Service | None
    revisions: tuple[Revision, ...] = ()
    history: tuple[Event, ...] = ()
    collected: float
    firing: bool
    quiet_since: float | None = None
    converged_since: float | None = None
    samples: float = 0.0
    serving: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    denied: tuple[float, ...] = ()
    worse: str = ""
    others: tuple[Service, ...] = ()
    theirs: frozenset[Key] = frozenset()
    held: dict[str, str] = {}
    acting: int = 0
    past: tuple[Action, ...] = ()
    doubt: str = ""
    frozen: str = ""
    readings: dict[str, float | None] = {}
    running: bool = False
    job: str = ""
    told: frozenset[str] = frozenset()
    leads_since: float = 0.0
