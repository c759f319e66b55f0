"""What ops shows Prometheus of promises and alerts: the counters that the generated rules are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from leptonai.ops.page import Family
from leptonai.types import Alert, Key, parse_key

REQUESTS = "leptonai_slo_requests_total"
BAD = "leptonai_slo_bad_requests_total"


def families(promises: Mapping[Key, tuple[float, Mapping[str, float]]], alerts: Iterable[Alert]) -> list[Family]:
    """``promises``: per service all requests that its SLO counts, and those that broke each of its rules."""
    named = {key: dict(zip(("workspace", "service"), parse_key(key), strict=True)) for key in sorted(promises)}
    states = Counter((a.labels.get("severity", ""), a.state) for a in alerts)
    return [
        Family(
            REQUESTS, "counter", "Requests that a service's promise counts.",
            [(labels, promises[key][0]) for key, labels in named.items()],
        ),
        Family(
            BAD, "counter", "Of these, those that broke the promise, by rule.",
            [({**labels, "slo": rule}, n) for key, labels in named.items() for rule, n in promises[key][1].items()],
        ),
        Family(
            "leptonai_alerts", "gauge", "Alerts by severity and state.",
            [({"severity": severity, "state": state}, float(n)) for (severity, state), n in sorted(states.items())],
        ),
    ]  # fmt: skip
