"""up, down, console: the platform on this machine."""

from __future__ import annotations

import click

from leptonai.cli.session import Session, json_option, print_json, waiting


@click.command()
@click.option("--api-port", type=click.IntRange(0, 65535), help="Port of the control API; 0: any. Kept in settings.")
@click.option("--gateway-port", type=click.IntRange(0, 65535), help="Port that users reach; 0: any. Kept in settings.")
@click.option("--on", type=click.Choice(["local", "kubernetes"]), help="Where replicas run. Kept in settings.")
@click.option("--foreground", is_flag=True, help="Stay, as systemd likes it; Ctrl-C leaves replicas serving.")
@click.option("--systemd", is_flag=True, help="Only print a systemd unit for this home.")
@json_option
@click.pass_obj
def up(
    session: Session,
    api_port: int | None,
    gateway_port: int | None,
    on: str | None,
    foreground: bool,
    systemd: bool,
    as_json: bool,
) -> None:
    """Start a platform on this machine; services of an earlier one serve again.

    With --on kubernetes replicas are pods of the cluster that KUBECONFIG names: docs/kubernetes.md.

    \b
    Example:
      leptonai up
      leptonai --home /srv/leptonai up --gateway-port 80
      leptonai up --on kubernetes
    """
    from leptonai.daemon import life

    home = session.folder()
    if systemd:
        click.echo(life.unit(home), nl=False)
        return
    life.prepare(home, api_port, gateway_port, orphans=foreground, on=on)
    if foreground:
        click.echo(
            f"Keeping the platform on {home.path} up. Ctrl-C leaves replicas serving; `leptonai down` stops all."
        )
        click.get_current_context().exit(life.foreground(home))
    with waiting(as_json) as say:
        running = life.up(home, say)
    if as_json:
        told = {"url": running.url, "gateway": running.gateway, "pid": running.pid, "home": str(home.path)}
        print_json(told | ({"standby": running.standby} if running.standby else {}))
        return
    if running.standby:
        click.echo(f"The platform stands by: {running.standby}.")
        click.echo(f"Users reach services at {running.gateway} too; its control API at {running.url} only tells.")
        return
    click.echo(f"The platform is up. Users reach it at {running.gateway}, its control API is at {running.url}.")
    click.echo("Serve a model with `leptonai deploy PATH`; watch it with `leptonai console`.")


@click.command()
@json_option
@click.pass_obj
def down(session: Session, as_json: bool) -> None:
    """Stop the platform on this machine and all it runs; services and their history are kept for the next `up`.

    Replicas finish their requests first. Works whichever processes of the platform are dead.

    \b
    Example:
      leptonai down
    """
    from leptonai.daemon import life

    with waiting(as_json) as say:
        stopped = life.down(session.folder(), say)
    if as_json:
        print_json({"processes": stopped.processes, "replicas": stopped.replicas, "gateway": stopped.gateway})
    elif not stopped.processes and not stopped.replicas and not stopped.gateway:
        click.echo("Nothing was running.")
    else:
        count = len(stopped.replicas)
        parts = [", ".join(stopped.processes)] if stopped.processes else []
        parts += [f"{count} replica{'' if count == 1 else 's'}"] + (["the gateway"] if stopped.gateway else [])
        click.echo(f"Stopped: {', '.join(parts)}. Nothing is left running.")


@click.command()
@json_option
@click.pass_obj
def console(session: Session, as_json: bool) -> None:
    """Print a URL that opens the console once, as the holder of your token.

    \b
    Example:
      leptonai console
    """
    with session.client() as client:
        url = client.session()
    if as_json:
        print_json({"url": url})
    else:
        click.echo(url)
