"""Which receivers an alert goes to, and with which others it is told: Alertmanager's routing tree. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from leptonai.errors import SpecError
from leptonai.ops.alert.inhibit import Rule, compile_rules, service_of
from leptonai.ops.alert.match import agrees, parse
from leptonai.settings import AlertRoute, Alerts
from leptonai.types import Alert, Key, Matcher, Noun, parse_key

OWNER = "owner"  # as a receiver: whoever is on call for the alert's service


class Node(Noun, frozen=True, kw_only=True):
    """A node of the tree with everything inherited filled in. ``path`` tells nodes apart."""

    path: str
    matchers: tuple[Matcher, ...]
    receiver: str
    group_by: tuple[str, ...]
    group_wait: float
    group_interval: float
    repeat_interval: float
    proceed: bool
    routes: tuple[Node, ...]


class Policy(Noun, frozen=True, kw_only=True):
    """The settings of alerts, checked and ready to decide by."""

    root: Node
    rules: tuple[Rule, ...]


def compile_policy(settings: Alerts) -> Policy:
    """SpecError names a matcher that is none, a receiver that is not there, or a time that is none."""
    names = [r.name for r in settings.receivers]
    for name in names:
        if not name or name == OWNER or names.count(name) > 1:
            raise SpecError(
                f"alerts.receivers: the name {name!r} is empty, taken twice or {OWNER!r}", hint="names tell them apart"
            )
    wanted = [f"alerts.owners.{k}\0{v}" for k, v in settings.owners.items()]
    wanted += [f"alerts.escalation\0{step.receiver}" for step in settings.escalation if step.receiver != OWNER]
    for where, _, name in (w.partition("\0") for w in wanted):
        _known(name, names, where)
    for what in ("group_wait", "group_interval", "repeat_interval"):
        if not getattr(settings, what) >= 0:
            raise SpecError(f"alerts.{what} is {getattr(settings, what)}, wanted seconds of 0 or more")
    top = Node(
        path="alerts.route",
        matchers=(),
        receiver=OWNER,
        group_by=settings.group_by,
        group_wait=settings.group_wait,
        group_interval=settings.group_interval,
        repeat_interval=settings.repeat_interval,
        proceed=False,
        routes=(),
    )
    if settings.route.matchers:
        raise SpecError("alerts.route.matchers: the root takes every alert", hint="put them under alerts.route.routes")
    return Policy(root=_node(settings.route, top, names), rules=compile_rules(settings.inhibit))


def _known(name: str, names: list[str], where: str) -> None:
    if name not in names:
        raise SpecError(
            f"{where}: there is no receiver {name!r}", hint=f"alerts.receivers has {', '.join(names) or 'none'}"
        )


def _node(route: AlertRoute, above: Node, names: list[str], path: str = "alerts.route") -> Node:
    if route.receiver and route.receiver != OWNER:
        _known(route.receiver, names, f"{path}.receiver")
    try:
        matchers = tuple(map(parse, route.matchers))
    except SpecError as e:
        raise SpecError(f"{path}.matchers: {e.message}", hint=e.hint) from None
    node = Node(
        path=path,
        matchers=matchers,
        receiver=route.receiver or above.receiver,
        group_by=above.group_by if route.group_by is None else route.group_by,
        group_wait=above.group_wait if route.group_wait is None else route.group_wait,
        group_interval=above.group_interval if route.group_interval is None else route.group_interval,
        repeat_interval=above.repeat_interval if route.repeat_interval is None else route.repeat_interval,
        proceed=route.proceed,
        routes=(),
    )
    below = tuple(_node(r, node, names, f"{path}.routes[{n}]") for n, r in enumerate(route.routes))
    return Node(**{f: getattr(node, f) for f in node.__struct_fields__ if f != "routes"}, routes=below)


def routes_of(node: Node, labels: Mapping[str, str]) -> Iterator[Node]:
    """The nodes that take an alert: the deepest first match, more where ``continue`` is set; the node itself when none
    below it does."""
    found = False
    for below in node.routes:
        if agrees(labels, below.matchers):
            found = True
            yield from routes_of(below, labels)
            if not below.proceed:
                break
    if not found:
        yield node


def owner_of(service: Key, owners: Mapping[str, str]) -> str:
    """The receiver on call for a service: its own, else that of its workspace, else that of all; "" when nobody is."""
    workspace = parse_key(service)[0] if service else ""
    return owners.get(service) or owners.get(f"{workspace}/*") or owners.get("*") or ""


def receiver_of(name: str, alert: Alert, owners: Mapping[str, str]) -> str:
    return owner_of(service_of(alert), owners) if name == OWNER else name
