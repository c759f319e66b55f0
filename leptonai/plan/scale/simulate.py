"""A policy by its name, against an arrival trace."""

from __future__ import annotations

import math

import msgspec

from leptonai.errors import SpecError
from leptonai.plan.scale.hpa import DOWN, Hpa, Rules
from leptonai.plan.scale.kpa import Kpa
from leptonai.plan.scale.learn import Learner
from leptonai.plan.scale.oracle import Oracle
from leptonai.plan.scale.ours import Ours
from leptonai.plan.scale.policy import Fixed, Policy
from leptonai.plan.scale.replay import Outcome, Setup, Watch, replay, service_times
from leptonai.protocols import Floats
from leptonai.types import Auto

UTILIZATION = 0.7  # of a replica's concurrency, where no target is given: Knative's default
SAMPLES = 100_000  # of a replay that are forecast: 11 days at ten seconds; a longer trace is forecast in coarser ones
NAMES = "ours, hpa, kpa, fixed:N or oracle"


def made(auto: Auto) -> Policy:
    """The policy that ``scale.auto`` of a service describes; its window and hold stand where the policy has its own."""
    wanted = auto.target if auto.target is not None else UTILIZATION * auto.concurrency
    if auto.policy == "hpa":
        return Hpa(wanted) if auto.hold is None else Hpa(wanted, down=Rules(auto.hold, DOWN.limits))
    if auto.policy == "kpa":
        return Kpa(wanted, capacity=auto.concurrency, stable=auto.window, delay=auto.hold or 0.0)
    return Ours(wanted, stable=auto.window) if auto.hold is None else Ours(wanted, stable=auto.window, hold=auto.hold)


def simulate(
    arrivals: Floats, name: str, setup: Setup, target: float | None = None, watch: Watch | None = None
) -> Outcome:
    """Replay ascending ``arrivals`` against the policy ``name``. Raises SpecError for a name or number that is wrong.

    ``target``: concurrency wanted per replica; None: 0.7 x the concurrency of a replica, for the oracle all of it.
    """
    setup.check()
    if len(arrivals) == 0:
        raise SpecError("no arrivals to replay", hint="the trace holds no time stamp")
    if target is not None and not (0 < target < math.inf):
        raise SpecError(f"target is {target}, wanted a concurrency above 0", hint="0.7 x --concurrency is a good start")
    kind, colon, number = name.partition(":")
    policy: Policy
    learner: Learner | None = None
    initial = setup.initial
    if kind == "fixed" and colon:
        count = int(number) if number.isdecimal() else 0
        if not 1 <= count <= setup.most:
            raise SpecError(f"policy {name!r}: {number!r} replicas, wanted 1 to {setup.most}", hint="as in fixed:4")
        policy = Fixed(count)
        initial = count if initial is None else initial
    elif name in ("ours", "hpa", "kpa"):
        policy = made(msgspec.convert({"policy": name, "target": target, "concurrency": setup.concurrency}, Auto))
        if name == "ours":
            learner = Learner(setup.startup, float(arrivals[-1] - arrivals[0]) / SAMPLES)
    elif name == "oracle":
        full = float(setup.concurrency) if target is None else target
        policy = oracle = Oracle(arrivals, service_times(setup, len(arrivals)), setup.startup, full)
        initial = min(oracle.at(0.0), setup.most) if initial is None else initial
    else:
        raise SpecError(f"policy {name!r} is not known, wanted {NAMES}")
    if name == "hpa" and setup.least < 1:
        raise SpecError("the least replicas are 0, and hpa cannot scale to zero", hint="set --min-replicas 1")
    return replay(arrivals, policy, msgspec.structs.replace(setup, initial=initial), learner, watch)
