"""Is a change well-formed, within its limits, and made from the head? Each refusal names the field, value and limit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from leptonai.admit.world import World, dialled
from leptonai.errors import Conflict, NotFound, SpecError
from leptonai.types import DIGEST, NAME, Change, DeleteChange, DialChange, Spec, SpecChange, parse_key

_REPLICA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


def check(change: Change, world: World) -> None:
    key = change.spec.key if isinstance(change, SpecChange) else change.service
    workspace, name = parse_key(key)
    for what, value in (("name", name), ("workspace", workspace)):
        if not NAME.fullmatch(value):
            raise SpecError(
                f"{what} {value!r} of a service is not allowed: a-z, 0-9 and -, from a letter, at most 40 characters",
                hint="choose another name",
            )
    head = world.head
    if isinstance(change, DialChange):
        if head is None or head.spec is None:
            raise NotFound(f"no service {key!r}", hint="leptonai ls shows every service")
        _check_dials(change, head.spec, world)
        return
    if isinstance(change, DeleteChange) and head is None:
        raise NotFound(f"no service {key!r} to delete", hint="leptonai ls shows every service")
    found = head.number if head else 0
    if change.base != found:
        raise Conflict(
            f"{key}: the change was made from revision {change.base}, but the head is {found}",
            hint="look at what changed (leptonai why), then propose again from the head",
            code="stale_revision",
            expected=change.base,
            head=found,
        )
    if isinstance(change, SpecChange):
        _check_spec(change.spec)


def _check_spec(spec: Spec) -> None:
    names = [v.name for v in spec.variants]
    if not names or len(set(names)) < len(names):
        raise SpecError(f"{spec.key}: variants must have at least one, each of another name, not {names}", hint="")
    for name, value, low, high in _bounds(spec):
        if not low <= value <= high:
            raise SpecError(
                f"{spec.key}: {name} is {value:g}; it must be between {low:g} and {high:g}", hint="see docs/spec.md"
            )
    for v in spec.variants:
        if not NAME.fullmatch(v.name) or v.name == "evict":
            raise SpecError(f"{spec.key}: variant name {v.name!r} is not allowed", hint="a-z, 0-9 and -, not 'evict'")
        if not DIGEST.fullmatch(v.model):
            raise SpecError(
                f"{spec.key}: {v.name}.model is {v.model!r}, not the digest of an artifact",
                hint="upload the model first (POST /api/v1/artifacts); leptonai deploy does both",
            )


def _bounds(spec: Spec) -> Iterator[tuple[str, float, float, float]]:
    """Every number of a spec with its lowest and highest value; nan fits no bounds."""
    tiny, huge, year = 1e-3, float(2**31), 366 * 86400.0
    slo, scale, rollout = spec.slo, spec.scale, spec.rollout
    yield "slo.availability", slo.availability, 0.0, 1 - 1e-9  # an objective of 1 leaves no error budget to burn
    yield "slo.latency", slo.latency, 1e-6, year
    yield "slo.latency_objective", slo.latency_objective, 0.0, 1 - 1e-9
    yield "slo.period", slo.period, 1.0, 10 * year
    yield "scale.min", scale.min, 0, huge
    yield "scale.max", scale.max, max(scale.min, 1), huge
    yield "scale.replicas", scale.replicas, scale.min, scale.max
    yield "rollout.surge", rollout.surge, 0, huge
    yield "rollout.start_timeout", rollout.start_timeout, tiny, year
    yield "rollout.verify_seconds", rollout.verify_seconds, 0, year
    yield "rollout.verify_requests", rollout.verify_requests, 0, huge
    yield "timeout", spec.timeout, tiny, year
    yield "drain", spec.drain, 0, year
    for v in spec.variants:
        yield f"{v.name}.batching.max_size", v.batching.max_size, 1, huge
        yield f"{v.name}.batching.max_wait", v.batching.max_wait, 0, year
        yield f"{v.name}.batching.max_queue", v.batching.max_queue, 1, huge
        yield f"{v.name}.resources.gpu", v.resources.gpu, 0, huge
        if v.resources.cpu is not None:
            yield f"{v.name}.resources.cpu", v.resources.cpu, tiny, huge
        if v.resources.memory is not None:
            yield f"{v.name}.resources.memory", v.resources.memory, 1, 2.0**60


def _check_dials(change: DialChange, spec: Spec, world: World) -> None:
    if not change.set:
        raise SpecError(f"{change.service}: no dial is set", hint='name one, as in {"main.replicas": 2}')
    if change.ttl is not None and not 0 < change.ttl < math.inf:
        raise SpecError(f"{change.service}: ttl is {change.ttl} s; it must be above 0", hint="leave it out to stay")
    variants = [v.name for v in spec.variants]
    was = dialled(world)
    for path, value in change.set.items():
        head, _, dial = path.partition(".")
        limits = {
            "replicas": (spec.scale.min, spec.scale.max, "scale.min and scale.max"),
            "weight": (0.0, 1e6, "the bounds of a weight"),
            "mirror": (0.0, 1.0, "a share"),
            "epoch": (0, 2**31, "the bounds of an epoch"),
        }
        if head == "evict":
            if not _REPLICA.fullmatch(dial) or dial.endswith(".epoch") or value != 1:
                raise SpecError(f"{path} = {value:g} is no evict", hint="evict.<replica id> is set to 1, and only that")
            continue
        if head not in variants or dial not in limits:
            raise SpecError(
                f"{change.service} has no dial {path!r}; its variants are {', '.join(variants)}",
                hint="a dial is <variant>.replicas, .weight, .mirror, .epoch, or evict.<replica id>",
            )
        low, high, said = limits[dial]
        if not low <= value <= high:
            raise SpecError(
                f"{path} is {value:g}; it must be between {low:g} and {high:g} ({said})",
                hint="change the spec's scale to go further" if dial == "replicas" else "",
            )
        if dial in ("replicas", "epoch") and value != int(value):
            raise SpecError(f"{path} is {value:g}; it must be a whole number", hint="")
        if dial == "epoch" and value <= was[path]:
            raise Conflict(
                f"{path} is already {was[path]:g}, it only rises: {value:g} is too low",
                hint=f"propose {was[path] + 1:g}",
                code="stale_epoch",
            )
