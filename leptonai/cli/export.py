"""export: a service as other tools want to have it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from leptonai.cli.session import Session, json_option, key_of, print_json, workspace_option
from leptonai.errors import SpecError

if TYPE_CHECKING:
    from leptonai.plan.render import Ground, Traffic
    from leptonai.types import Service


prometheus_option = click.option(
    "--prometheus", default="", metavar="URL", help="Of scale.owner keda: the Prometheus that KEDA asks."
)


@click.group()
def export() -> None:
    """Write a service as other tools want to have it.

    \b
    Example:
      leptonai export kubernetes service.yaml -o cluster/
      leptonai export grafana -o /etc/grafana/provisioning
    """


@export.command()
@click.argument("service")
@click.option("--traffic", type=click.Choice(["service", "gateway", "istio"]), default="service", show_default=True)
@click.option("--version", default="1.20", show_default=True, help="Of the cluster; no older one will do.")
@click.option("--image", metavar="TEMPLATE", help="Image of a replica, as in registry.example/{service}:{model}.")
@click.option("--namespace", default="default", show_default=True)
@click.option("--gateway", default="", metavar="NAME", help="Of --traffic gateway: the Gateway, as in infra/public.")
@click.option("--from", "callers", multiple=True, metavar="NAMESPACE", help="Another namespace that may call.")
@prometheus_option
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write DIR/SERVICE.yaml.")
@workspace_option
@json_option
@click.pass_obj
def kubernetes(
    session: Session,
    service: str,
    traffic: str,
    version: str,
    image: str | None,
    namespace: str,
    gateway: str,
    callers: tuple[str, ...],
    prometheus: str,
    out: Path | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Write the Kubernetes objects of SERVICE: one that runs, or a service.yaml.

    What of the service these objects do not hold is said on stderr.

    \b
    Example:
      leptonai export kubernetes service.yaml | kubectl apply -f -
      leptonai export kubernetes digits --version 1.30 --traffic istio -o cluster/
    """
    from leptonai.export.withhold import withheld
    from leptonai.plan.render import to_yaml

    ground = ground_of(version, traffic, namespace, gateway, callers, image, prometheus)
    wish = find(session, service, workspace)
    made = withheld(wish, ground)
    for sentence in made.lost:
        click.echo(f"note: not on the cluster: {sentence}", err=True)
    if as_json:
        print_json({"objects": made.objects, "lost": made.lost})
    elif out is None:
        click.echo(to_yaml(made.objects), nl=False)
    else:
        path = out / f"{wish.key.replace('/', '.')}.yaml"
        write(path, to_yaml(made.objects))
        click.echo(f"{path}: {len(made.objects)} objects for Kubernetes {version}")


@export.command()
@click.argument("service")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE.tar", required=True, help="The bundle.")
@workspace_option
@json_option
@click.pass_obj
def bundle(session: Session, service: str, out: Path, workspace: str | None, as_json: bool) -> None:
    """Write SERVICE as one file, to be read by `leptonai import` where another platform is to serve it.

    In it: every revision, the models of those with their golden examples, the dials, closed incidents, feedback.

    \b
    Example:
      leptonai export bundle digits -o digits.bundle.tar
      leptonai --host https://factory.example:8310 import digits.bundle.tar
    """
    from leptonai.cli import bundle as bundles

    moved = bundles.write(session, key_of(service, workspace), out)
    counts = {"revisions": len(moved.revisions), "incidents": len(moved.incidents), "feedback": len(moved.feedback)}
    if as_json:
        print_json({"bundle": str(out), "service": moved.service, **counts})
        return
    said = ", ".join(f"{n} {what}" for what, n in counts.items())
    click.echo(f"{out}: {moved.service} with {said}, {out.stat().st_size / 1e6:.1f} MB")


@export.command()
@click.option("--version", default="1.20", show_default=True, help="Of the cluster; no older one will do.")
@click.option("--namespace", default="default", show_default=True, help="In which services run.")
@click.option("--account", default="leptonai", show_default=True, help="Name of the ServiceAccount and its Role.")
@click.option("--nodes", is_flag=True, help="A ClusterRole besides: nodes may be watched, as evidence.")
@click.option("--room", is_flag=True, help="As --nodes, and pods of all namespaces: how many replicas fit.")
@json_option
def rbac(version: str, namespace: str, account: str, nodes: bool, room: bool, as_json: bool) -> None:
    """Write the account and the rights that a platform needs on a cluster, and no others.

    \b
    Example:
      leptonai export rbac --namespace models | kubectl apply -f -
      leptonai export rbac --namespace models --nodes | kubectl apply -f -
    """
    from leptonai.plan.render import Apis, to_yaml
    from leptonai.plan.render.names import DOTTED, legal
    from leptonai.platforms.kubernetes.rights import role

    legal(namespace, "namespace")
    legal(account, "ServiceAccount", DOTTED)
    made = role(Apis.of(version), namespace, account, nodes=nodes, room=room)
    if as_json:
        print_json({"objects": made})
    else:
        click.echo(to_yaml(made), nl=False)


@export.command()
@json_option
def crd(as_json: bool) -> None:
    """Write the definition of the custom resource `Service`, for a cluster where services are to be declared.

    \b
    Example:
      leptonai export crd | kubectl apply -f -
    """
    from leptonai.plan.render import to_yaml
    from leptonai.serve.resource.schema import definition

    if as_json:
        print_json({"objects": [definition()]})
    else:
        click.echo(to_yaml([definition()]), nl=False)


@export.command()
@click.argument("service")
@click.option("--namespace", default="", help="In which the platform serves; else that of who applies it.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there.")
@workspace_option
@json_option
@click.pass_obj
def resource(
    session: Session, service: str, namespace: str, out: Path | None, workspace: str | None, as_json: bool
) -> None:
    """Write SERVICE as a custom resource, to be applied by kubectl or kept in Git.

    The model is named by its digest; the image of `leptonai build` holds it.

    \b
    Example:
      leptonai export resource service.yaml | kubectl apply -f -
    """
    from leptonai.plan.render import to_yaml
    from leptonai.plan.render.names import legal
    from leptonai.serve.resource.form import resource as said

    made = said(find(session, service, workspace).spec, namespace and legal(namespace, "namespace"))
    if as_json:
        print_json({"objects": [made]})
    elif out is None:
        click.echo(to_yaml([made]), nl=False)
    else:
        write(out, to_yaml([made]))
        click.echo(str(out))


def ground_of(
    version: str,
    traffic: str,
    namespace: str,
    gateway: str,
    callers: tuple[str, ...],
    image: str | None,
    prometheus: str,
) -> Ground:
    """What a cluster serves, as the options say; SpecError when there is no such version."""
    from leptonai.plan.render import Apis, Ground

    ground = Ground(
        Apis.of(version), cast("Traffic", traffic), namespace=namespace, gateway=gateway, callers=callers,
        prometheus=prometheus,
    )  # fmt: skip
    return ground if image is None else ground._replace(image=image)


def find(session: Session, service: str, workspace: str | None) -> Service:
    """The wish as a platform holds it; of a text or a model file, as it would first be: revision 1, dials at rest."""
    if not Path(service).exists() and Path(service).suffix not in (".yaml", ".yml"):
        with session.client() as client:
            return client.service(key_of(service, workspace)).service
    if workspace is not None:
        raise SpecError(f"--workspace is about a service that runs, not about {service}", hint="say it in the text")
    from msgspec.structs import replace

    from leptonai.serve.spec import load
    from leptonai.store.tree import tree_digest
    from leptonai.types import DIGEST, Service, effective_dials

    spec, _ = load(service)
    variants = tuple(v if DIGEST.fullmatch(v.model) else replace(v, model=tree_digest(v.model)) for v in spec.variants)
    spec = replace(spec, variants=variants)
    return Service(spec=spec, dials=effective_dials(spec, [], 0.0), revision=1)


def write(path: Path, text: str) -> None:
    """The file as a whole or not at all. SpecError when it cannot be written."""
    if path.is_dir():
        raise SpecError(f"cannot write {path}: it is a folder", hint="name a file, or another folder, with -o")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        part.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            part.unlink()
        raise SpecError(f"cannot write {path}: {e.strerror}", hint="choose another folder with -o") from e


def tell(files: Mapping[str, str], lost: list[str], out: Path | None, as_json: bool) -> None:
    """Files below ``out``, or the only one on stdout; what they do not hold as notes. SpecError for several nowhere."""
    for sentence in lost:
        click.echo(f"note: not told: {sentence}", err=True)
    if out is not None:
        for name, text in files.items():
            write(out / name, text)
    if as_json:
        print_json({"files": files if out is None else [str(out / name) for name in files], "lost": lost})
    elif out is not None:
        for name in files:
            click.echo(str(out / name))
    elif len(files) == 1:
        click.echo(next(iter(files.values())), nl=False)
    else:
        raise SpecError(f"there are {len(files)} files: {', '.join(files)}", hint="say where to write them with -o DIR")
