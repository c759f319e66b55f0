"""The routing tree of our settings for an Alertmanager: who is told what, in its own words."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from leptonai.export.site import Files, Site
from leptonai.ops.alert.rules import duration
from leptonai.plan.render import to_yaml
from leptonai.settings import AlertRoute, Alerts, Receiver
from leptonai.types import DEFAULT_WORKSPACE

Json = dict[str, Any]

TOKEN = "/etc/alertmanager/leptonai.token"  # noqa: S105 - where a file of a secret is mounted, not the secret
NOBODY = "nobody"
PLATFORM = "leptonai"


class Told(NamedTuple):
    """``lost``: a sentence for each part of the settings that an Alertmanager cannot be told."""

    files: Files
    lost: list[str]


def files(alerts: Alerts, site: Site, feed: bool = False) -> Told:
    """``alertmanager.yml``. ``feed``: it also hands each alert that is not ours to the platform, as an incident."""
    lost: list[str] = []
    receivers = [_receiver(r, lost) for r in alerts.receivers]
    route = _route(alerts.route, alerts, lost) | {
        "group_by": list(alerts.route.group_by or alerts.group_by),
        "group_wait": duration(alerts.route.group_wait or alerts.group_wait),
        "group_interval": duration(alerts.route.group_interval or alerts.group_interval),
        "repeat_interval": duration(alerts.route.repeat_interval or alerts.repeat_interval),
    }
    route["receiver"] = route.get("receiver", NOBODY)
    if feed:
        receivers.append(_platform(site))
        ours = {"matchers": ['alertname!~"Incident|Slo.*|HostDown"'], "receiver": PLATFORM, "continue": True}
        route["routes"] = [ours, *route.get("routes", [])]
    if alerts.escalation:
        lost.append("escalation: an Alertmanager knows of nobody who acknowledges")
    made = {
        "route": route,
        "receivers": [{"name": NOBODY}, *receivers],
        "inhibit_rules": [
            {"source_matchers": ['severity="critical"'], "target_matchers": ['severity="warning"']}
            | {"equal": ["alertname", "workspace", "service"]},
            *(
                {"source_matchers": list(x.source), "target_matchers": list(x.target), "equal": list(x.equal)}
                for x in alerts.inhibit
            ),
        ],
    }
    return Told({"alertmanager.yml": to_yaml([made]).removeprefix("---\n")}, lost)


def _route(route: AlertRoute, alerts: Alerts, lost: list[str]) -> Json:
    """``owner`` becomes a node for each owner: an Alertmanager looks nobody up."""
    made: Json = {}
    if route.matchers:
        made["matchers"] = list(route.matchers)
    if route.group_by is not None:
        made["group_by"] = list(route.group_by)
    for name in ("group_wait", "group_interval", "repeat_interval"):
        if getattr(route, name) is not None:
            made[name] = duration(getattr(route, name))
    if route.proceed:
        made["continue"] = True
    below = [_route(r, alerts, lost) for r in route.routes]
    if route.receiver == "owner":
        made["receiver"] = alerts.owners.get("*", NOBODY)
        below += [{"matchers": _of(key), "receiver": name} for key, name in _exact_first(alerts.owners)]
    elif route.receiver:
        made["receiver"] = route.receiver
    if below:
        made["routes"] = below
    return made


def _exact_first(owners: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(((k, v) for k, v in owners.items() if k != "*"), key=lambda pair: (pair[0].endswith("/*"), pair[0]))


def _of(key: str) -> list[str]:
    workspace, _, name = key.rpartition("/")
    found = [f'workspace="{workspace or DEFAULT_WORKSPACE}"']
    return found if name == "*" else [*found, f'service="{name}"']


def _receiver(receiver: Receiver, lost: list[str]) -> Json:
    made: dict[str, list[Json]] = {}
    for url in receiver.urls:
        kind, settings = _channel(url)
        if settings is None:
            lost.append(f"receiver {receiver.name}: an Alertmanager has no channel {kind}")
        else:
            made.setdefault(kind, []).append(settings | {"send_resolved": receiver.resolved})
    return {"name": receiver.name, **made}


def _channel(url: str) -> tuple[str, Json | None]:
    """An apprise URL as one of Alertmanager's channels: json, mail and slack. Passwords stay as they are in it."""
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    match parts.scheme:
        case "json" | "jsons":
            scheme = "https" if parts.scheme == "jsons" else "http"
            return "webhook_configs", {"url": f"{scheme}://{parts.netloc}{parts.path or '/'}"}
        case "mailto" | "mailtos":
            user = f"{unquote(parts.username or '')}@{parts.hostname or ''}"
            made: Json = {
                "to": query.get("to", user),
                "from": query.get("from", user),
                "smarthost": f"{query.get('smtp', parts.hostname or '')}:{parts.port or 587}",
                "require_tls": parts.scheme == "mailtos",
            }
            if parts.password:
                made |= {"auth_username": user, "auth_password": unquote(parts.password)}
            return "email_configs", made
        case "slack":
            tokens = [parts.netloc.rpartition("@")[2], *filter(None, parts.path.split("/"))]
            if len(tokens) >= 3:
                channel = f"#{parts.fragment}" if parts.fragment else "#".join(["", *tokens[3:4]]) or "#alerts"
                return "slack_configs", {
                    "api_url": f"https://hooks.slack.com/services/{'/'.join(tokens[:3])}",
                    "channel": channel,
                }
    return parts.scheme or "without a name", None


def _platform(site: Site) -> Json:
    url = f"{site.platform}/api/v1/alertmanager?workspace={DEFAULT_WORKSPACE}"
    bearer = {"authorization": {"credentials_file": TOKEN}}
    return {"name": PLATFORM, "webhook_configs": [{"url": url, "send_resolved": True, "http_config": bearer}]}
