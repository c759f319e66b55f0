"""Groups: what is told together, and when. Wait, dedup and notification log as Alertmanager's. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from leptonai.ops.alert.route import Node, Policy, receiver_of, routes_of
from leptonai.settings import Alerts
from leptonai.types import Alert, Noun, canonical


class Told(Noun, frozen=True, kw_only=True):
    """The newest line of the notification log for a group: what its receiver knows. Names are ``fingerprint:severity``,
    so that a rising severity is news."""

    at: float
    firing: frozenset[str]
    resolved: frozenset[str]


class Group(Noun, frozen=True, kw_only=True):
    """``due``: when it is looked at next. ``told`` None: nobody knows of it. ``sending``: a message of this process on
    its way, which may arrive yet."""

    receiver: str
    labels: dict[str, str]
    due: float
    members: frozenset[str] = frozenset()  # fingerprints
    told: Told | None = None
    sending: Told | None = None


class Notification(Noun, frozen=True, kw_only=True):
    """One message to one receiver. ``group`` "": an escalation, which is of no group."""

    receiver: str
    group: str
    labels: dict[str, str]
    firing: tuple[Alert, ...]
    resolved: tuple[Alert, ...]
    made: float
    told: Told
    why: str = ""


Groups = dict[str, Group]


def dispatch(
    groups: Mapping[str, Group], alerts: Mapping[str, Alert], policy: Policy, settings: Alerts, now: float
) -> tuple[Groups, list[Notification]]:
    """The groups after ``now``, and the messages that are due.

    An alert of which nobody is to be told (``muted``) is kept in its group and left out of messages. A new group is
    first looked at after ``group_wait``, then each ``group_interval``; a look that finds nothing new says nothing until
    ``repeat_interval`` has gone by. The log is written by ``delivered``, once a message has arrived.
    """
    after = dict(groups)
    nodes: dict[str, Node] = {}
    for name, alert in alerts.items():
        if alert.state == "pending":
            continue
        for node in routes_of(policy.root, alert.labels):
            receiver = receiver_of(node.receiver, alert, settings.owners)
            if not receiver:
                continue
            labels = {k: alert.labels[k] for k in node.group_by if alert.labels.get(k)}
            key = f"{node.path} {receiver} {canonical(labels).decode()}"
            nodes[key] = node
            group = after.get(key)
            if group is None:
                if alert.state != "firing":
                    continue
                group = Group(receiver=receiver, labels=labels, due=now + node.group_wait)
            if alert.state == "firing" and name not in group.members:
                group = replace(group, members=group.members | {name})
            after[key] = group
    out: list[Notification] = []
    for key, group in list(after.items()):
        node_of = nodes.get(key)
        if node_of is None:  # nothing of it is left, or the tree has changed
            del after[key]
        elif now >= group.due:
            message, group = _look(key, group, alerts, node_of, settings, now)
            out += [message] if message else []
            after[key] = group
            if not group.members:
                del after[key]
    return after, out


def _look(
    key: str, group: Group, alerts: Mapping[str, Alert], node: Node, settings: Alerts, now: float
) -> tuple[Notification | None, Group]:
    mine = {name: alerts[name] for name in sorted(group.members) if name in alerts}
    firing = {_name(f, a): a for f, a in mine.items() if a.state == "firing" and not a.muted}
    resolved = {_name(f, a): a for f, a in mine.items() if a.state == "resolved" and not a.muted}
    told = Told(at=now, firing=frozenset(firing), resolved=frozenset(resolved))
    says_end = next((r.resolved for r in settings.receivers if r.name == group.receiver), True)
    known = frozenset().union(*(t.firing for t in (group.told, group.sending) if t))
    before = group.told if firing or (group.told and group.told.firing) else group.sending
    why = _news(told, before, says_end, node.repeat_interval)
    # What has resolved leaves once its end was told, or when its beginning never was.
    stay = {f for f, a in mine.items() if a.state == "firing" or (_name(f, a) in known and says_end)}
    group = replace(group, due=now + max(node.group_interval, 1e-3), members=frozenset(stay))
    if not why:
        return None, group
    over = tuple(a for name, a in resolved.items() if says_end and name in known)
    if not firing and not over:
        return None, group
    group = replace(group, sending=told)
    return Notification(
        receiver=group.receiver, group=key, labels=group.labels, firing=tuple(firing.values()), resolved=over,
        made=now, told=told, why=why,
    ), group  # fmt: skip


def _news(now: Told, before: Told | None, says_end: bool, repeat: float) -> str:
    """Why a message is due; "": it is not. The rule is that of Alertmanager's dedup stage."""
    if before is None:
        return "new" if now.firing else ""
    if not now.firing <= before.firing:
        return "more fires"
    if not now.firing:
        return "resolved" if before.firing and says_end else ""
    if says_end and now.resolved & before.firing:
        return "some resolved"
    return "repeated" if now.at - before.at >= repeat else ""


def _name(fingerprint: str, alert: Alert) -> str:
    return f"{fingerprint}:{alert.labels.get('severity', '')}"


def audience(
    name: str, alert: Alert, groups: Mapping[str, Group], policy: Policy, settings: Alerts, called: int = -1
) -> Alert:
    """The alert with who is to be told of it and who knows. ``called``: the last escalation step that was taken."""
    routed = [receiver_of(node.receiver, alert, settings.owners) for node in routes_of(policy.root, alert.labels)]
    steps = [receiver_of(step.receiver, alert, settings.owners) for step in settings.escalation[: called + 1]]
    knows = {g.receiver for g in groups.values() if g.told and _name(name, alert) in g.told.firing}
    receivers = tuple(dict.fromkeys(r for r in (*routed, *steps) if r))
    return replace(alert, receivers=receivers, told=tuple(r for r in receivers if r in knows or r in steps))


def delivered(groups: Mapping[str, Group], sent: Notification) -> Groups:
    """The groups after a message has arrived. What it said of ends is known and forgotten."""
    group = groups.get(sent.group)
    if group is None or (group.told is not None and group.told.at > sent.told.at):
        return dict(groups)
    gone = {name.partition(":")[0] for name in sent.told.resolved}
    after = replace(_landed(group, sent), told=sent.told, members=group.members - gone)
    return {**groups, sent.group: after}


def given_up(groups: Mapping[str, Group], sent: Notification) -> Groups:
    """The groups after a message will not be tried again: the next look may make another one."""
    group = groups.get(sent.group)
    return dict(groups) if group is None else {**groups, sent.group: _landed(group, sent)}


def _landed(group: Group, sent: Notification) -> Group:
    newer = group.sending if group.sending and group.sending.at > sent.told.at else None
    return replace(group, sending=newer)
