"""Remedies that turn where requests go: another variant, old answers, a refusal."""

from __future__ import annotations

from typing import ClassVar

from leptonai.ops.load import ROOM
from leptonai.ops.remedies.wishing import Risk, Seen, Wishing
from leptonai.types import MOST_RULES, QUARANTINE, Change, DialChange, InputRule, Service

LEAST_SHED, MOST_SHED = 0.1, 0.9
DRAIN = 8.0  # seconds in which what waits is to be worked off


class ShiftWeight(Wishing, frozen=True, kw_only=True):
    """Ask for ``share`` of the requests to go to the variant ``to``, for ``seconds``; the others keep their ratio."""

    name: ClassVar[str] = "shift_weight"
    risk: ClassVar[Risk] = "medium"
    to: str
    share: float = 1.0
    seconds: float = 1800.0

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None when the variant has no replicas wished for, or has that share already."""
        return _towards(seen.service, self.to, self.share, self.seconds, seen.cause.name)


class Degrade(Wishing, frozen=True, kw_only=True):
    """Ask for a cheaper variant to answer for ``seconds``: ``to``, else the only one declared with replicas and
    weight 0."""

    name: ClassVar[str] = "degrade"
    risk: ClassVar[Risk] = "medium"
    to: str = ""
    share: float = 1.0
    seconds: float = 1800.0

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        idle = [n for n, d in seen.service.dials.variants.items() if d.weight == 0 and d.replicas > 0]
        to = self.to or (idle[0] if len(idle) == 1 else "")
        return _towards(seen.service, to, self.share, self.seconds, seen.cause.name) if to else None


class FallbackOn(Wishing, frozen=True, kw_only=True):
    """Ask for the spec's fallback to be in force for ``seconds``: old answers, marked as such, where none can come."""

    name: ClassVar[str] = "fallback_on"
    seconds: float = 1800.0

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None without a fallback in the spec, and while it is in force."""
        if seen.service.spec.fallback is None or seen.service.dials.fallback:
            return None
        change = DialChange(service=seen.service.key, set={"fallback": 1.0}, ttl=self.seconds)
        return change, f"old answers where none can come: {seen.cause.name}"


class FallbackOff(Wishing, frozen=True, kw_only=True):
    """Ask for no old answers for ``seconds``: an error says more than what was right once."""

    name: ClassVar[str] = "fallback_off"
    risk: ClassVar[Risk] = "medium"
    seconds: float = 1800.0

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        if seen.service.spec.fallback is None or not seen.service.dials.fallback:
            return None
        change = DialChange(service=seen.service.key, set={"fallback": 0.0}, ttl=self.seconds)
        return change, f"no old answers: {seen.cause.name}"


class Shed(Wishing, frozen=True, kw_only=True):
    """Ask the gateway to refuse a share of the requests with 429 for ``seconds``, so that the rest is answered.

    ``share`` None: what came in addition to the load of before, by more requests and by repeating them, or what the
    replicas do not carry while they work off what waits, whichever is more; half where neither is known; between 10 and
    90 %. After ``seconds`` at the latest all are let in again; sooner, and by and by, as they are carried
    (``ops.respond.ease``).
    """

    name: ClassVar[str] = "shed"
    risk: ClassVar[Risk] = "medium"
    share: float | None = None
    seconds: float = 120.0

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None while as much is refused already."""
        share = round(self.share if self.share is not None else _surplus(seen), 2)
        if seen.service.dials.shed >= share:
            return None
        change = DialChange(service=seen.service.key, set={"shed": share}, ttl=self.seconds)
        return change, f"refuse {share:.0%} of the requests for {self.seconds:g} s: {seen.cause.name}"


class Quarantine(Wishing, frozen=True, kw_only=True):
    """Ask replicas to refuse, with 422 and for ``seconds``, the requests whose input makes the model fail.

    Which: those of which a rule of ``where`` holds, else one of those that the evidence found (``ops.marks``), unless
    these would take more than ``most`` of all requests: what so many send is not at fault.
    """

    name: ClassVar[str] = "quarantine"
    risk: ClassVar[Risk] = "medium"
    where: tuple[str, ...] = ()
    seconds: float = 600.0
    most: float = 0.3

    def __post_init__(self) -> None:
        for text in self.where:
            if InputRule.parse(text) is None:
                raise ValueError(f"where has {text[:80]!r}; a rule is like image.high>508 or image.hash=<16 hex>")
        if len(self.where) > MOST_RULES:
            raise ValueError(f"where has {len(self.where)} rules; {MOST_RULES} are the most")

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None where nothing is known that only failing requests have, it is too common, or is refused already."""
        found = next(iter(seen.facts("marked")), {})
        rules = self.where or tuple(str(found.get("rules", "")).split())
        if not self.where and float(found.get("refused_share", 1.0)) > self.most:
            return None
        held = seen.service.dials.quarantine
        texts = sorted({str(rule) for text in rules if (rule := InputRule.parse(text)) is not None} - {*held})
        if not texts or len(texts) + len(held) > MOST_RULES:
            return None
        change = DialChange(
            service=seen.service.key, set={f"{QUARANTINE}{text}": 1.0 for text in texts}, ttl=self.seconds
        )
        return change, f"refuse requests with {' or '.join(texts)} for {self.seconds:g} s: {seen.cause.name}"


def uncarried(seen: Seen) -> float | None:
    """The share of the requests that is too much for the replicas there are, which work off in DRAIN seconds what
    waits; None where their load is not known, 0 where they carry all."""
    fact = next((f for f in seen.facts("load") if "carried_per_second" in f), None)
    if fact is None:
        return None
    arrivals, waiting = float(fact["arrivals_per_second"]) / admitted(seen), float(fact["waiting_count"])
    tries = max(arrivals, 1e-9) * _tries(seen)
    able = ROOM * float(fact["carried_per_second"]) - waiting / DRAIN
    return min(max(1.0 - able / tries, 0.0), MOST_SHED)


def admitted(seen: Seen) -> float:
    """The share of what comes that is let in now, at least a tenth: only that is counted."""
    return max(1.0 - seen.service.dials.shed, 0.1)


def _tries(seen: Seen) -> float:
    """How often the gateway asks for one request, where that makes work: what fails is computed again. A request that
    only waits is asked of another replica too, and dropped unread by who is later (docs/benchmarks/serving.md)."""
    return 1.0 + max(seen.latest("retry_share") or 0.0, 0.0) if seen.cause.name == "retry_storm" else 1.0


def _surplus(seen: Seen) -> float:
    """The tries that came in addition, as a share of all, or what is too much for the replicas."""
    load = max(seen.latest("traffic_ratio") or 1.0, 1.0) * _tries(seen)
    known = max(seen.latest("repeated_share") or 0.0, 1.0 - 1.0 / load)  # of clients, among them
    known = max(known, uncarried(seen) or 0.0)
    return min(max(known or 0.5, LEAST_SHED), MOST_SHED)


def _towards(service: Service, to: str, share: float, seconds: float, cause: str) -> tuple[Change, str] | None:
    variants = service.dials.variants
    if to not in variants or variants[to].replicas < 1 or len(variants) < 2:
        return None
    rest = {n: d.weight for n, d in variants.items() if n != to}
    total = sum(rest.values())
    if total <= 0 or variants[to].weight / (variants[to].weight + total) >= share - 1e-6:
        return None
    wanted = {f"{n}.weight": round((1.0 - share) * w / total, 6) for n, w in rest.items()} | {f"{to}.weight": share}
    change = DialChange(service=service.key, set=wanted, ttl=seconds)
    return change, f"{share:.0%} of the requests to {to} for {seconds:g} s: {cause}"
