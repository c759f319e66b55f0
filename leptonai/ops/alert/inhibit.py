"""Which firing alerts speak for others: by topology, and by Alertmanager's rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from leptonai.ops.alert.match import agrees, parse
from leptonai.settings import Inhibit
from leptonai.types import Alert, Key, Matcher, Noun, make_key

HOST_DOWN = "HostDown"


class Rule(Noun, frozen=True, kw_only=True):
    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()


# A host that is down speaks for everything on it; what pages speaks for the ticket about the same thing.
SHIPPED = (
    Rule(
        source=(parse(f"alertname={HOST_DOWN}"),),
        target=(parse(f"alertname!={HOST_DOWN}"), parse('host!=""')),
        equal=("host",),
    ),
    Rule(
        source=(parse("severity=critical"),),
        target=(parse('severity=~"warning|info"'),),
        equal=("alertname", "workspace", "service"),
    ),
)


def compile_rules(given: Iterable[Inhibit]) -> tuple[Rule, ...]:
    """The shipped rules and ``given`` ones. SpecError for a matcher that is none."""
    return (
        *SHIPPED,
        *(Rule(source=tuple(map(parse, i.source)), target=tuple(map(parse, i.target)), equal=i.equal) for i in given),
    )


def upstreams(calls: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Service -> every service it depends on, directly or through others, from (caller, callee) pairs.

    Services that call each other depend on each other; neither is upstream of itself.
    """
    direct: dict[str, set[str]] = {}
    for caller, callee in calls:
        direct.setdefault(caller, set()).add(callee)
    out: dict[str, set[str]] = {}
    for service in direct:
        seen: set[str] = set()
        todo = [service]
        while todo:
            fresh = direct.get(todo.pop(), set()) - seen
            seen |= fresh
            todo += fresh
        out[service] = seen - {service}
    return out


def inhibited(alerts: Mapping[str, Alert], rules: Iterable[Rule], depends: Mapping[str, set[str]]) -> dict[str, str]:
    """Fingerprint -> why it is muted, of the alerts for which another one speaks.

    A critical alert of a service mutes all alerts of the services that depend on it, unless those call each other in a
    circle: then nobody knows who began, and all are told. A rule mutes its targets while a source fires whose ``equal``
    labels agree (missing == empty); two alerts that are both on both sides of a rule do not mute each other, nor one
    itself. Firing is what counts, not what was sent.
    """
    firing = {name: a for name, a in alerts.items() if a.state == "firing"}
    why: dict[str, str] = {}
    broken: dict[Key, Alert] = {}
    for alert in firing.values():
        if (key := service_of(alert)) and alert.labels.get("severity") == "critical":
            broken.setdefault(key, alert)
    for name, alert in firing.items():
        mine = service_of(alert)
        above = sorted(u for u in depends.get(mine, ()) if u in broken and mine not in depends.get(u, ()))
        if above:
            why[name] = f"inhibited by {broken[above[0]].labels.get('alertname', '')} of {above[0]}, which it calls"
    for rule in rules:
        sources = [a for a in firing.values() if agrees(a.labels, rule.source)]
        for name, alert in firing.items():
            if name in why or not agrees(alert.labels, rule.target):
                continue
            both = agrees(alert.labels, rule.source)
            source = next((s for s in sources if _speaks(s, alert, rule, both)), None)
            if source is not None:
                why[name] = f"inhibited by {source.labels.get('alertname', '')}"
    return why


def _speaks(source: Alert, target: Alert, rule: Rule, both: bool) -> bool:
    if both and agrees(source.labels, rule.target):
        return False
    return all(source.labels.get(e, "") == target.labels.get(e, "") for e in rule.equal)


def service_of(alert: Alert) -> Key:
    name = alert.labels.get("service", "")
    return make_key(name, alert.labels.get("workspace", "default")) if name else ""
