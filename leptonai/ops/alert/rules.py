"""Prometheus rules for the promises of services: the same windows, factors and low-traffic correction as ours. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from leptonai.ops.alert.page import BAD, REQUESTS
from leptonai.ops.slo import ALPHA, MIN_EVENTS, Rule
from leptonai.series.burn import Window, windows
from leptonai.settings import Alerts
from leptonai.types import Key, Service, Severity

RULES: tuple[Rule, ...] = ("errors", "latency")
ABSENT = 60.0  # seconds without a sample, and at least four scrapes, until the promise cannot be watched


class Promise(NamedTuple):
    """How a promise is counted, in PromQL: requests, and bad ones by rule, in a window ("5m").

    ``present``: a series that is there as long as anything is known of the service.
    """

    total: Callable[[str], str]
    bad: Mapping[Rule, Callable[[str], str]]
    present: str


def rules(
    services: Iterable[Service],
    settings: Alerts,
    scrape: float = 15.0,
    promises: Mapping[Key, Promise] | None = None,
) -> str:
    """A rule file (YAML): one group a service, an alert per rule and severity, one for absent data.

    ``scrape``: seconds between two scrapes of ``/api/v1/metrics``; windows hold at least 3 (short) and 6 (long) of
    them, as ours hold collections. ``promises``: by service, other counts than those of that page. SpecError when a
    promise cannot be kept watch of at that pace.
    """
    own = promises or {}
    groups = [_group(s, settings, scrape, own.get(s.key) or counted(s)) for s in services]
    return msgspec.yaml.encode({"groups": groups}).decode()


def counted(service: Service) -> Promise:
    """As the platform's own page counts it."""
    labels = f'workspace="{service.spec.workspace}",service="{service.spec.name}"'

    def bad(rule: Rule) -> Callable[[str], str]:
        return lambda window: f'increase({BAD}{{{labels},slo="{rule}"}}[{window}])'

    total = f"{REQUESTS}{{{labels}}}"
    return Promise(lambda window: f"increase({total}[{window}])", {rule: bad(rule) for rule in RULES}, total)


def _group(service: Service, settings: Alerts, scrape: float, promise: Promise) -> dict[str, Any]:
    slo, spec = service.spec.slo, service.spec
    named = {"workspace": spec.workspace, "service": spec.name}
    alerts: list[dict[str, Any]] = []
    for rule in RULES:
        objective = slo.availability if rule == "errors" else slo.latency_objective
        bad = promise.bad[rule]
        found = windows(objective, slo.period, scrape)
        severities: tuple[Severity, ...] = ("critical", "warning")
        for severity in severities:
            rows = [row for row in found if row.severity == severity]
            if not rows:
                continue
            expr = "\nor\n".join(_burns(bad, promise.total, row, 1.0 - objective) for row in rows)
            told = (
                f"{service.key} spends its error budget for {rule} too fast: "
                + " or ".join(f"more than {row.factor:.4g} times over {duration(row.long)}" for row in rows)
                + "; {{ $value | humanizePercentage }} of the requests were bad."
            )
            alerts.append(
                {
                    "alert": f"Slo{rule.capitalize()}Burn",
                    "expr": expr,
                    "for": duration(settings.hold),
                    "keep_firing_for": duration(settings.keep_firing),
                    "labels": {"severity": severity, **named},
                    "annotations": {"summary": told},
                }
            )
    silent = duration(max(ABSENT, 4 * scrape))
    alerts.append(
        {
            "alert": "SloDataAbsent",
            "expr": f"absent_over_time({promise.present}[{silent}])",
            "labels": {"severity": "critical", **named},
            "annotations": {"summary": f"Nothing is known of {service.key}: its promise cannot be watched."},
        }
    )
    return {"name": f"leptonai {service.key}", "interval": duration(scrape), "rules": alerts}


def _burns(bad: Callable[[str], str], total: Callable[[str], str], row: Window, budget: float) -> str:
    """True (the long ratio) where both windows burn, and no chance explains the long one (``series.proportion.bound``:
    requests x relative entropy above ln(1 / ALPHA))."""
    limit = row.factor * budget
    long, short = (f"({bad(w)} / ignoring(slo) {total(w)})" for w in
                   (duration(row.long), duration(row.short)))  # fmt: skip
    # A ratio of 1 would ask for 0 x ln 0; the difference that 1 - 1e-9 makes is below 1e-7 requests.
    q = f"clamp({long}, 1e-9, 0.999999999)"
    entropy = f"({q} * ln({q} / {limit:.12g}) + (1 - {q}) * ln((1 - {q}) / {1 - limit:.12g}))"
    events = total(duration(row.long))
    return (
        f"(\n  {long} > {limit:.12g}\n  and {short} > {limit:.12g}\n"
        f"  and ignoring(slo) ({events} >= {MIN_EVENTS - 0.5})\n"
        f"  and ({entropy} * ignoring(slo) {events} > {math.log(1 / ALPHA):.12g})\n)"
    )


def duration(seconds: float) -> str:
    """As Prometheus spells it, in the largest unit that is exact."""
    millis = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if millis and millis % size == 0:
            return f"{millis // size}{unit}"
    return f"{millis}ms" if millis else "0s"
