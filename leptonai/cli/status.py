"""status: the platform, or one service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import Session, ago, json_option, key_of, print_json, print_table, workspace_option

if TYPE_CHECKING:
    from leptonai.client import Client
    from leptonai.types import Replica

RECENT = 10.0  # seconds in which a replica's newest model tests are told anew


@click.command()
@click.argument("name", required=False)
@workspace_option
@json_option
@click.pass_obj
def status(session: Session, name: str | None, workspace: str | None, as_json: bool) -> None:
    """How the platform stands, or one service with its replicas and revisions.

    \b
    Example:
      leptonai status
      leptonai status digits
    """
    with session.client() as client:
        if name is None:
            show_platform(client, as_json)
        else:
            show_service(client, key_of(name, workspace), as_json)


def show_platform(client: Client, as_json: bool) -> None:
    platform, views = client.platform(), client.services()
    store: dict[str, Any] = platform.get("store") or {}
    incidents = [] if store.get("trouble") else client.incidents(open=True)
    if as_json:
        print_json({"platform": platform, "services": views, "incidents": incidents})
        return
    now = time.time()
    gateway: dict[str, Any] = platform.get("gateway") or {}
    ops: dict[str, Any] = platform.get("ops") or {}
    click.echo(f"platform  {client.url}, leptonai {platform['version']}, up for {ago(platform['started'], now)}")
    click.echo(f"gateway   {gateway.get('url', '-')}, {'healthy' if gateway.get('healthy') else 'NOT ANSWERING'}")
    if gateway.get("trouble"):
        click.echo(f"          ITS NEWEST CONFIGURATION IS NOT IN FORCE: {gateway['trouble']}")
    cluster: dict[str, Any] = platform.get("cluster") or {}
    if cluster.get("trouble"):
        click.echo(f"cluster   IS NOT SEEN AS IT IS: {cluster['trouble']}")
    if cluster.get("blind"):
        click.echo(f"cluster   not watched, for want of rights: {', '.join(cluster['blind'])}")
    if store.get("trouble"):
        click.echo(f"store     NOTHING CAN BE CHANGED, AND INCIDENTS ARE NOT KNOWN: {store['trouble']}")
    elif store.get("full"):
        click.echo(f"store     NOTHING CAN BE CHANGED OR RECORDED: {store['full']}")
    silent = f"NO SIGN OF IT for {ago(ops['seen'], now)}" if ops.get("seen") else "NO SIGN OF IT since control started"
    click.echo(f"ops       {'watching' if ops.get('alive') else silent}")
    for path, said in (ops.get("broken") or {}).items():
        text = " ".join(said.removeprefix(f"{path}: ").split())
        click.echo(f"          A FILE IS BROKEN, its last good version is in force: {path}: {text}")
    if platform.get("frozen"):
        click.echo(f"          FROZEN, no automatic change is admitted: {platform['frozen']}")
    behind = sum(v.ready < v.wanted for v in views)
    said = f", {behind} not as wished" if behind else ", all as wished" if views else ""
    click.echo(f"services  {len(views)}{said}")
    if not store.get("trouble"):
        click.echo(f"incidents {len(incidents)} open")
    for incident in incidents:
        click.echo(f"          {incident.id}: {incident.title} ({ago(incident.opened, now)})")
    if views:
        rows = [[v.key, str(v.service.revision), f"{v.ready}/{v.wanted}", v.status] for v in views]
        print_table(["service", "revision", "ready", "status"], rows, "")


def cost(replica: Replica) -> str:
    """The learnt cost of a batch of n samples, in milliseconds."""
    if replica.cost is None:
        return "-"
    sample, batch = (seconds * 1e3 for seconds in replica.cost)
    return f"{sample:.3g} n + {batch:.3g} ms"


def tested(client: Client, key: str, now: float) -> str:
    """The newest model tests, over all replicas."""
    found: dict[str, list[float]] = {}
    for series in client.signals("model_test_failed_ratio", now - RECENT, now, {"service": key}):
        if series.value:
            found.setdefault(series.labels.get("test", ""), []).append(series.value[-1])
    said = [
        f"{test}: {max(shares):.0%} FAIL on {sum(map(bool, shares))} of {len(shares)} replicas"
        if any(shares)
        else f"{test}: passed on {len(shares)} replicas"
        for test, shares in sorted(found.items())
    ]
    return "; ".join(said) or "none yet"


def show_service(client: Client, key: str, as_json: bool) -> None:
    view, revisions = client.service(key), client.revisions(key)
    if as_json:
        print_json({"service": view, "revisions": revisions})
        return
    now = time.time()
    click.echo(f"{key}: {view.status}")
    click.echo(f"url       {view.url}")
    if view.scaled_by:
        click.echo(f"replicas  set by {view.scaled_by}, {view.service.spec.scale.min} to {view.service.spec.scale.max}")
    good = f"verified-good: {view.verified}" if view.verified else "none verified yet"
    click.echo(f"revision  {view.service.revision} ({good})")
    rows = [
        [r.id, r.variant, r.digest[:8], r.state, r.reason, ago(r.since, now), str(r.pid or "-"), cost(r), r.detail]
        for r in view.replicas
    ]
    names = ["replica", "variant", "digest", "state", "reason", "for", "pid", "n samples take", "detail"]
    print_table(names, rows, "No replica runs.")
    if view.service.spec.tests is not None:
        click.echo(f"tests     {tested(client, key, now)}")
    history = [
        [str(r.number), ago(r.at, now), r.by, r.why, "deleted" if r.spec is None else "verified" if r.verified else ""]
        for r in revisions[-10:]
    ]
    print_table(["revision", "ago", "by", "why", ""], history, "")
