"""export control: the platform itself, to run in a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from leptonai.cli.export import export, tell, write
from leptonai.cli.session import json_option, print_json
from leptonai.errors import SpecError

__all__ = ["export"]


@export.command()
@click.option("--version", default="1.20", show_default=True, help="Of the cluster; no older one will do.")
@click.option("--namespace", default="default", show_default=True, help="Where the platform and its services run.")
@click.option("--image", metavar="NAME", help="Of the platform, as `leptonai build --control` writes it.")
@click.option("--account", default="leptonai", show_default=True, help="Name of the ServiceAccount and its Role.")
@click.option("--storage", default="10Gi", show_default=True, help="Size of the volume for the home.")
@click.option("--storage-class", default="", metavar="NAME", help="Of the volume; else the cluster's own.")
@click.option("--cpu", default="500m", show_default=True, help="Requested.")
@click.option("--memory", default="2Gi", show_default=True, help="Requested, and the limit.")
@click.option("--gateways", default=2, show_default=True, help="Pods of the gateway; 0: it is in the platform's pod.")
@click.option("--gateway-cpu", default="250m", show_default=True, help="Requested by each of them.")
@click.option("--gateway-memory", default="512Mi", show_default=True, help="Requested by each, and the limit.")
@click.option(
    "--settings", "file", type=click.Path(path_type=Path), metavar="FILE", help="settings.yaml for the platform."
)
@click.option("--helm", is_flag=True, help="As a Helm chart; the options are then what its values begin with.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="PATH", help="Write the file, or chart, there.")
@json_option
def control(
    version: str,
    namespace: str,
    image: str | None,
    account: str,
    storage: str,
    storage_class: str,
    cpu: str,
    memory: str,
    gateways: int,
    gateway_cpu: str,
    gateway_memory: str,
    file: Path | None,
    helm: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write the platform itself for a cluster: its pod with a volume, its settings, address, account and rights, and
    the gateway in pods of its own.

    \b
    Example:
      leptonai build --control -o control.tar
      leptonai export control --namespace models | kubectl apply -f -
      leptonai export control --helm -o chart/ && helm install leptonai chart/ --namespace models
    """
    import msgspec

    from leptonai.plan.render import Apis, to_yaml
    from leptonai.plan.render.control import IMAGE, Seat, checked
    from leptonai.plan.render.control import control as render
    from leptonai.platforms.kubernetes.rights import role
    from leptonai.yaml import decode

    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = decode(file.read_bytes()) or {}
        except (OSError, msgspec.DecodeError) as e:
            raise SpecError(f"cannot read {file}: {e}", hint="give a settings.yaml") from e
        if not isinstance(given, dict):
            raise SpecError(f"{file} holds no settings", hint="see docs/settings.md")
    apis = Apis.of(version)
    seat = Seat(namespace, image or IMAGE, storage, storage_class, cpu, memory, gateways, gateway_cpu, gateway_memory)
    checked(seat, account)
    if helm:
        from leptonai.export.platform import files

        tell(files(seat, given, account, apis), [], out, as_json)
        return
    made = role(apis, namespace, account) + render(seat, given, account, apis)
    if as_json:
        print_json({"objects": made})
    elif out is None:
        click.echo(to_yaml(made), nl=False)
    else:
        write(out, to_yaml(made))
        click.echo(f"{out}: {len(made)} objects for Kubernetes {version}")
