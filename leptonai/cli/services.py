"""deploy, ls, scale, restart, undo, delete: what is served."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import (
    Number,
    Session,
    json_option,
    key_of,
    print_json,
    print_table,
    waiting,
    workspace_option,
)

if TYPE_CHECKING:
    from leptonai.client import Client
    from leptonai.types import Proposal

wait_option = click.option("--wait/--no-wait", default=True, help="Wait until it is done (the default), or not.")
why_option = click.option("--why", metavar="TEXT", default="", help="Your reason; it goes into the audit log.")


@click.command()
@click.argument("path")
@click.option("--name", metavar="NAME", help="Name of the service; by default that of the file or of its text.")
@click.option("--replicas", type=click.IntRange(0), help="How many replicas it has.")
@click.option(
    "--canary", is_flag=True, help="Give it to a few requests first and judge it; the old one stays until then."
)
@click.option("--timeout", type=Number(0, min_open=True), metavar="SECONDS", help="Wait at most this long.")
@workspace_option
@why_option
@wait_option
@json_option
@click.pass_obj
def deploy(
    session: Session,
    path: str,
    name: str | None,
    replicas: int | None,
    canary: bool,
    timeout: float | None,
    workspace: str | None,
    why: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Serve a model: PATH is a model file, a Python file with a class, a service.yaml, or a folder with one of them.

    Deploying again makes a new revision and replaces replicas one by one, losing no request. With --canary the new
    model is tried beside the old one, on copies of requests, then on 1, 5, 25, 50 and 100 % of them, and promoted or
    rolled back by what was measured (see docs/rollouts.md); all else of the service stays as it is.

    A deploy states the whole wish: what PATH does not say has its default again, and a note tells what that changed.
    --name only renames what PATH describes. `leptonai undo` takes it back.

    \b
    Example:
      leptonai deploy digits.onnx --replicas 2
      leptonai deploy new.onnx --name digits --canary
      leptonai deploy ./recommendation
    """
    import msgspec

    from leptonai.admit.world import reset
    from leptonai.errors import NotFound
    from leptonai.serve import spec as texts

    spec, _ = texts.load(path)
    before = None
    given = {k: v for k, v in {"name": name, "workspace": workspace}.items() if v is not None}
    if given:
        spec = msgspec.structs.replace(spec, **given)
        texts.validate(spec)
    with session.client() as client, waiting(as_json) as say:
        if canary:
            spec = client.as_canary(spec, whole=path.endswith((".yaml", ".yml")))
        with suppress(NotFound):
            before = client.service(spec.key).service.spec
        say(f"uploading {path}")
        view = client.deploy(
            spec,
            why=why or f"deploy {path}",
            replicas=replicas,
            wait=wait,
            timeout=timeout,
            report=lambda progress: say(progress.text),
        )
    if before is not None and (lines := reset(before, view.service.spec)):
        click.echo(f"note: {path} does not say, so {view.key} has the default again: {'; '.join(lines)}", err=True)
    if as_json:
        print_json(view)
        return
    click.echo(f"{view.key} revision {view.service.revision}: {view.status}.")
    if view.service.canary is not None:
        click.echo(f"`leptonai wait {view.key} --judged` tells how it ends, `leptonai undo {view.key}` ends it now.")
    click.echo(f"Ask it at {view.url}/predict")


@click.command()
@click.option("--workspace", metavar="NAME", help="Only this workspace; by default all that your token covers.")
@json_option
@click.pass_obj
def ls(session: Session, workspace: str | None, as_json: bool) -> None:
    """List the services.

    \b
    Example:
      leptonai ls
    """
    with session.client() as client:
        views = client.services(workspace)
    if as_json:
        print_json(views)
        return
    rows = [[v.key, str(v.service.revision), f"{v.ready}/{v.wanted}", v.status, v.url] for v in views]
    columns = ["service", "revision", "ready", "status", "url"]
    print_table(columns, rows, "No service yet. Serve a model with `leptonai deploy PATH`.")


class Count(click.ParamType[int | str]):
    """A whole number from 0, or the word auto."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return "auto" if value == "auto" else click.IntRange(0).convert(value, param, ctx)


@click.command()
@click.argument("name")
@click.argument("replicas", metavar="REPLICAS|auto", type=Count())
@click.option("--variant", default="main", show_default=True, help="Variant whose dial is set.")
@workspace_option
@why_option
@wait_option
@json_option
@click.pass_obj
def scale(
    session: Session,
    name: str,
    replicas: int | str,
    variant: str,
    workspace: str | None,
    why: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Set how many replicas a service has, within the bounds of its spec. 0 stops serving and keeps everything else.

    Of a service with scale.auto, the number is taken out of the autoscaler's hands until `scale NAME auto`.

    \b
    Example:
      leptonai scale digits 3
      leptonai scale digits auto
    """
    key = key_of(name, workspace)
    with session.client() as client, waiting(as_json) as say:
        if isinstance(replicas, str):
            from leptonai.errors import SpecError
            from leptonai.types import DialChange

            if client.service(key).service.spec.scale.auto is None:
                hint = "give it one: `scale: {auto: {}}` in its text, see docs/scaling.md"
                raise SpecError(f"{key} has no scale.auto to hand its replicas to", hint=hint)
            proposal = client.wish(DialChange(service=key, set={f"{variant}.auto": 1.0}), why or "scale by load")
        else:
            proposal = client.scale(key, replicas, variant=variant, why=why or f"scale to {replicas}")
        end(client, key, proposal, wait, say, as_json)


@click.command()
@click.argument("name")
@workspace_option
@why_option
@wait_option
@json_option
@click.pass_obj
def restart(session: Session, name: str, workspace: str | None, why: str, wait: bool, as_json: bool) -> None:
    """Replace every replica of a service by a fresh one, losing no request.

    \b
    Example:
      leptonai restart digits --why "picks up new credentials"
    """
    key = key_of(name, workspace)
    with session.client() as client, waiting(as_json) as say:
        proposal = client.restart(key, why=why or "restart")
        end(client, key, proposal, wait, say, as_json)


@click.command()
@click.argument("name")
@click.option("--to", type=click.IntRange(1), metavar="REVISION", help="Go back to the spec of this one.")
@workspace_option
@why_option
@wait_option
@json_option
@click.pass_obj
def undo(
    session: Session, name: str, to: int | None, workspace: str | None, why: str, wait: bool, as_json: bool
) -> None:
    """Take back the newest change that a person made: a deploy, a scale or a delete. The next undo takes back this one.

    A restart has nothing to take back and is passed over. With --to, the spec of that revision is served again and
    the dials (how many replicas) stay as they are. What somebody else has changed since is not touched, but told.

    \b
    Example:
      leptonai undo digits
      leptonai undo digits --to 3
    """
    key = key_of(name, workspace)
    with session.client() as client, waiting(as_json) as say:
        taken = client.undo(key, to, why=why)
        if wait:
            client.wait_ready(key, report=lambda progress: say(progress.text))
        view = client.service(key)
    if as_json:
        print_json(view)
    else:
        click.echo(f"{taken.why}. {key} revision {view.service.revision}: {view.status}.")


@click.command()
@click.argument("name")
@workspace_option
@why_option
@wait_option
@json_option
@click.pass_obj
def delete(session: Session, name: str, workspace: str | None, why: str, wait: bool, as_json: bool) -> None:
    """Stop serving a service. Requests under way are finished; its history is kept, so `undo` brings it back.

    \b
    Example:
      leptonai delete digits
    """
    key = key_of(name, workspace)
    with session.client() as client, waiting(as_json) as say:
        say(f"draining {key}")
        client.delete(key, why=why or "delete", wait=wait)
    if as_json:
        print_json({"deleted": key})
    else:
        click.echo(f"{key} is deleted. `leptonai undo {key}` brings it back.")


def end(client: Client, key: str, proposal: Proposal, wait: bool, say: Callable[[str], None], as_json: bool) -> None:
    """Wait for what was admitted, where that is wanted, and say how the service stands."""
    if wait and proposal.status == "admitted":
        client.wait_ready(key, report=lambda progress: say(progress.text))
    view = client.service(key)
    if as_json:
        print_json(view)
    else:
        click.echo(f"{key}: {view.status}." if proposal.status == "admitted" else pending(proposal.id))


def pending(proposal: str) -> str:
    return f"Proposal {proposal} waits for an admin: `leptonai approve {proposal}`."
