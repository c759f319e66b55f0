"""Is a change well-formed, within its limits, and made from the head? Each refusal names the field, value and limit."""

from __future__ import annotations

import math
import re

from leptonai.admit.bounds import validate
from leptonai.admit.world import World, dialled
from leptonai.errors import Conflict, NotFound, SpecError
from leptonai.store.probation import probation
from leptonai.types import (
    MOST_RULES,
    NAME,
    QUARANTINE,
    Change,
    DeleteChange,
    DialChange,
    InputRule,
    Job,
    JobChange,
    Spec,
    SpecChange,
    parse_key,
)

MOST_SHED = 0.95  # of the requests; a service that refuses all of them is better scaled to 0, which says so
MOST_QUARANTINE = 86400.0  # seconds
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
    if isinstance(change, JobChange):
        if head is None:
            raise NotFound(f"no service {key!r}", hint="leptonai ls shows every service")
        _check_job(change.job)
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


def _check_job(job: Job) -> None:
    if bool(job.command) == bool(job.url):
        raise SpecError("a job has either a command or a url", hint="see docs/runbooks.md")
    if job.url and not job.url.startswith(("http://", "https://")):
        raise SpecError(f"job.url is {job.url[:80]!r}; it must begin with http:// or https://", hint="")
    for name, value, high in (("timeout", job.timeout, 3600.0), ("output", job.output, 1 << 20)):
        if not 0 < value <= high:
            raise SpecError(f"job.{name} is {value:g}; it must be above 0 and at most {high:g}", hint="")


def _check_spec(spec: Spec) -> None:
    validate(spec, admitted=True)
    for index, variant in enumerate(spec.variants):
        if variant.name in ("evict", "quarantine"):
            raise SpecError(
                f"variants[{index}].name: {variant.name!r} is taken by the dials {variant.name}.<...>", hint="rename it"
            )


def _check_dials(change: DialChange, spec: Spec, world: World) -> None:
    if not change.set:
        raise SpecError(f"{change.service}: no dial is set", hint='name one, as in {"main.replicas": 2}')
    if change.ttl is not None and not 0 < change.ttl < math.inf:
        raise SpecError(f"{change.service}: ttl is {change.ttl} s; it must be above 0", hint="leave it out to stay")
    for path, seconds in change.sooner.items():
        most = math.inf if change.ttl is None else change.ttl
        if path not in change.set or path.endswith(".epoch") or not 0 < seconds <= most or math.isinf(seconds):
            raise SpecError(
                f"{change.service}: sooner has {path} after {seconds:g} s",
                hint="name a dial that is set, and a time before ttl",
            )
    variants = [v.name for v in spec.variants]
    was = dialled(world.service) if world.service else {}
    for path, value in change.set.items():
        head, _, dial = path.partition(".")
        if head == "rollout":
            _check_rollout(change.service, path, value, world)
            continue
        if path == "fallback":
            if spec.fallback is None or value not in (0, 1):
                why = "has no fallback to switch" if spec.fallback is None else f"fallback = {value:g} is no switch"
                raise SpecError(f"{change.service}: {why}", hint="give the spec a fallback; the dial is 0 or 1")
            continue
        if head == "quarantine":
            _check_quarantine(change, path, value, was)
            continue
        if path == "shed":
            if not 0 <= value <= MOST_SHED:
                raise SpecError(
                    f"shed is {value:g}; it must be between 0 and {MOST_SHED:g} (a share of the requests)",
                    hint="to answer nobody, scale to 0",
                )
            continue
        limits = {
            "replicas": (spec.scale.min, spec.scale.max, "scale.min and scale.max"),
            "weight": (0.0, 1e6, "the bounds of a weight"),
            "mirror": (0.0, 1.0, "a share"),
            "auto": (0, 1, "1 lets the scaler set the replicas, 0 does not"),
            "epoch": (0, 2**31, "the bounds of an epoch"),
        }
        if head == "evict":
            if not _REPLICA.fullmatch(dial) or dial.endswith(".epoch") or value != 1:
                raise SpecError(f"{path} = {value:g} is no evict", hint="evict.<replica id> is set to 1, and only that")
            continue
        if head not in variants or dial not in limits:
            raise SpecError(
                f"{change.service} has no dial {path!r}; its variants are {', '.join(variants)}",
                hint="a dial is <variant>.replicas, .auto, .weight, .mirror, .epoch, evict.<id>, fallback, shed, "
                "quarantine.<rule>",
            )
        low, high, said = limits[dial]
        if not low <= value <= high:
            raise SpecError(
                f"{path} is {value:g}; it must be between {low:g} and {high:g} ({said})",
                hint="change the spec's scale to go further" if dial == "replicas" else "",
            )
        if dial in ("replicas", "epoch", "auto") and value != int(value):
            raise SpecError(f"{path} is {value:g}; it must be a whole number", hint="")
        if dial == "epoch" and value <= was[path]:
            raise Conflict(
                f"{path} is already {was[path]:g}, it only rises: {value:g} is too low",
                hint=f"propose {was[path] + 1:g}",
                code="stale_epoch",
            )


def _check_quarantine(change: DialChange, path: str, value: float, was: dict[str, float]) -> None:
    """A rule about an input, in the one spelling of it, for a time that ends, and not too many of them: each is looked
    at for every request."""
    text = path.removeprefix(QUARANTINE)
    rule = InputRule.parse(text)
    if rule is None or str(rule) != text:
        wanted = (
            f"write {QUARANTINE}{rule}" if rule else "as in quarantine.image.high>508 or quarantine.image.hash=<16 hex>"
        )
        raise SpecError(f"{change.service}: {text[:120]!r} is no rule about an input", hint=wanted)
    if value not in (0, 1):
        raise SpecError(f"{path} = {value:g} is no switch", hint="1 refuses such requests, 0 lets them in again")
    if value and (change.ttl is None or change.ttl > MOST_QUARANTINE):
        said = "has no ttl" if change.ttl is None else f"is for {change.ttl:g} s"
        raise SpecError(
            f"{path} {said}; it must end within {MOST_QUARANTINE:g} s",
            hint="what is to be refused for good is the model's",
        )
    after = {p for p, v in (was | change.set).items() if p.startswith(QUARANTINE) and v}
    if value and len(after) > MOST_RULES:
        raise SpecError(
            f"{change.service}: {len(after)} rules of quarantine; {MOST_RULES} at once are the most", hint=""
        )


def _check_rollout(key: str, path: str, value: float, world: World) -> None:
    """Only the rollout that is under way has dials, and it never takes back that it was promoted."""
    canary, _ = probation(world.history, world.dials, world.now)
    number = world.history[-1].number
    if canary is None or path.split(".")[1:2] != [str(number)]:
        raise Conflict(
            f"{key} has no rollout with a dial {path!r}: "
            + (f"that of revision {number} is under way" if canary else "none is under way"),
            hint=f"see `leptonai status {key}`",
            code="no_rollout",
        )
    limits = {"replicas": (1.0, 10_000.0), "weight": (0.0, 1.0), "mirror": (0.0, 1.0), "promoted": (1.0, 1.0)}
    dial = path.removeprefix(f"rollout.{number}.")
    if dial not in limits:
        raise SpecError(f"{key}: {path!r} is no dial of a rollout", hint=f"there are: {', '.join(limits)}")
    low, high = limits[dial]
    if not low <= value <= high or (dial == "replicas" and value != int(value)):
        raise SpecError(f"{path} is {value:g}; it must be between {low:g} and {high:g}", hint="shares are 0 to 1")
