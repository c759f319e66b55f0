"""What diagnosis looks at: one service around the onset of an incident, in plain numbers."""

from __future__ import annotations

from typing import Literal

from leptonai.ops.convict import Leak, Wrong
from leptonai.ops.exits import Exit
from leptonai.ops.judge import Trigger
from leptonai.ops.load import Load
from leptonai.ops.logs.shifts import Shift
from leptonai.ops.modeltests import Round
from leptonai.ops.warned import Warned
from leptonai.types import Noun, Replica, Revision, Service, Variant


class Users(Noun, frozen=True, kw_only=True):
    """What users saw of the service over a stretch: medians of the signals; None where nothing was seen."""

    rate: float | None = None
    error: float | None = None
    slow: float | None = None
    p50: float | None = None
    p99: float | None = None


class Level(Noun, frozen=True, kw_only=True):
    """A signal around the onset: means over all its series, ``before`` None where nothing was seen then. ``apart``: the
    largest departure of one series from the median of all since the onset, with its sign; 0 for a single one."""

    before: float | None = None
    since: float
    apart: float = 0.0


class Former(Noun, frozen=True, kw_only=True):
    """What a digest did before the onset. ``seconds``: how long it had answered by then; medians of compute, mean of
    errors over the newest minute of that time; None where nothing was seen."""

    seconds: float
    compute: float | None = None
    error: float | None = None


class Blamed(Noun, frozen=True, kw_only=True):
    """Another service or dependency that explains ``share`` of the trouble, by the call graph (``ops.rank``).

    ``fails``: by errors or by being gone, else by being slow. ``told``: sentences with the numbers.
    """

    node: str
    share: float
    fails: bool = False
    told: tuple[str, ...] = ()


class Marked(Noun, frozen=True, kw_only=True):
    """What failing requests have in common: each of ``rules`` (texts of InputRule) holds of none of the ``answered``,
    together they hold of ``caught`` of the ``failed`` ones. Of both, those whose inputs the prediction log tells."""

    rules: tuple[str, ...]
    failed: int
    caught: int
    answered: int

    @property
    def share(self) -> float:
        return self.caught / self.failed


class Reading(Noun, frozen=True, kw_only=True):
    """What a declared signal says since the onset. ``subject``: a service or a replica."""

    feature: str
    about: Literal["service", "replica"]
    subject: str
    value: float
    before: float | None = None  # mean of the minute before; None: nothing was seen then
    text: str


class Scene(Noun, frozen=True, kw_only=True):
    """Everything diagnosis may use. ``revisions`` ascending. Stretches: before and since the onset."""

    service: Service
    revisions: tuple[Revision, ...]
    replicas: tuple[Replica, ...] = ()
    exits: tuple[Exit, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    onset: float
    now: float
    before: Users = Users()
    after: Users = Users()
    load: Load | None = None
    unanswered: dict[str, float] = {}  # replica -> seconds
    leaks: tuple[Leak, ...] = ()
    tested: tuple[Round, ...] = ()  # the newest model tests of its replicas
    wrong: tuple[Wrong, ...] = ()  # verdicts over digests that have labels
    compute: dict[str, float] = {}  # digest -> median seconds of compute, newest minute of its life
    errors: dict[str, float] = {}  # digest -> share of 5xx, newest minute of its life
    former: dict[str, Former] = {}  # digest -> how it did in the minute before the onset
    own_compute: tuple[float, float] | None = None  # compute of the digest that served before: (before, since) onset
    host_cpu: float | None = None  # busy share since the onset
    host_cpu_before: float | None = None
    own_cpu: tuple[float, float] | None = None  # the share of the machine's processors it took: (before, since) onset
    edge: dict[str, float] = {}  # signal of the edge -> its highest value since the onset
    gateway: str = ""  # why the gateway's newest configuration is not in force
    logs: tuple[Shift, ...] = ()  # what changed in the service's log around the onset, masked
    neighbour: tuple[str, float] | None = None  # the other service that took most processors: its share's rise
    readings: tuple[Reading, ...] = ()
    levels: dict[str, Level] = {}  # signal -> how it moved
    memory: dict[str, float] = {}  # replica -> share of its memory limit that it holds
    blamed: Blamed | None = None
    marked: Marked | None = None
    warned: tuple[Warned, ...] = ()  # by the cluster that the replicas run on


class Change(Noun, frozen=True, kw_only=True):
    """The newest revision that changed what runs, and what ran before it."""

    revision: Revision
    variant: Variant
    previous: str | None  # the digest before; None: there was none


def latest_change(revisions: tuple[Revision, ...]) -> Change | None:
    """Walks back over revisions that only changed numbers around the model, such as its SLO; None without a spec."""
    if not revisions or revisions[-1].spec is None:
        return None
    head = revisions[-1].spec.variants[0]
    for newer, older in zip(reversed(revisions), [*reversed(revisions[:-1]), None], strict=True):
        digest = older.spec.variants[0].digest if older is not None and older.spec is not None else None
        if digest != head.digest:
            return Change(revision=newer, variant=head, previous=digest)
    return None
