"""export helm, istio, prometheus, ...: a service as the tools around it want to have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from leptonai.cli.export import find, ground_of, prometheus_option, tell
from leptonai.cli.exports_control import export
from leptonai.cli.session import Number, Session, json_option, workspace_option
from leptonai.errors import SpecError

if TYPE_CHECKING:
    from leptonai.settings import Settings
    from leptonai.types import Service

__all__ = ["export"]

F = TypeVar("F", bound=Callable[..., Any])
out_option = click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write the files below it."
)
settings_option = click.option(
    "--settings", "settings", type=click.Path(path_type=Path), metavar="FILE", help="settings.yaml; else the home's."
)
namespace_option = click.option("--namespace", default="default", show_default=True, help="Of the service.")
version_option = click.option("--version", default="1.20", show_default=True, help="Of the cluster.")
image_option = click.option("--image", metavar="TEMPLATE", help="Image of a replica, as in `leptonai build`.")
scrape_option = click.option(
    "--scrape", type=Number(), default=15.0, show_default=True, metavar="SECONDS", help="Between two scrapes."
)


def platform_option(command: F) -> F:
    said = "The control API, as the tool reaches it."
    return click.option(
        "--platform", default="http://leptonai-control:8310", show_default=True, metavar="URL", help=said
    )(command)


@export.command()
@click.argument("service")
@version_option
@image_option
@click.option("--traffic", type=click.Choice(["service", "gateway", "istio"]), default="service", show_default=True)
@click.option("--gateway", default="", metavar="NAME", help="Of --traffic gateway: the Gateway, as in infra/public.")
@click.option("--from", "callers", multiple=True, metavar="NAMESPACE", help="Another namespace that may call.")
@prometheus_option
@out_option
@workspace_option
@json_option
@click.pass_obj
def helm(
    session: Session,
    service: str,
    version: str,
    image: str | None,
    traffic: str,
    gateway: str,
    callers: tuple[str, ...],
    prometheus: str,
    out: Path | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Write SERVICE as a Helm chart: its Kubernetes objects, with images, replicas, resources and places as values.

    \b
    Example:
      leptonai export helm service.yaml --version 1.30 -o chart/
      helm install digits chart/ --set lanes.main.replicas=3
    """
    from leptonai.export.helm import files

    ground = ground_of(version, traffic, "default", gateway, callers, image, prometheus)
    chart = files(find(session, service, workspace), ground)
    tell(chart.files, chart.lost, out, as_json)


@export.command()
@click.argument("service")
@version_option
@image_option
@namespace_option
@click.option("--from", "callers", multiple=True, metavar="NAMESPACE", help="Another namespace that may call.")
@click.option("--behind-gateway", is_flag=True, help="A gateway of ours in front repeats: the mesh does not.")
@prometheus_option
@out_option
@workspace_option
@json_option
@click.pass_obj
def istio(
    session: Session,
    service: str,
    version: str,
    image: str | None,
    namespace: str,
    callers: tuple[str, ...],
    behind_gateway: bool,
    prometheus: str,
    out: Path | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Write SERVICE for a mesh of Istio: its objects, mutual TLS, who may call, traces and access logs.

    \b
    Example:
      leptonai export istio service.yaml --version 1.30 --from web -o mesh/
    """
    from leptonai.export.istio import files

    ground = ground_of(version, "istio", namespace, "", callers, image, prometheus)
    made = files(find(session, service, workspace), ground, behind_gateway)
    tell(made.files, made.lost, out, as_json)


@export.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@click.option("--operator", is_flag=True, help="ServiceMonitor and PrometheusRule of Prometheus' operator.")
@click.option(
    "--source",
    type=click.Choice(["platform", "replicas"]),
    default="platform",
    show_default=True,
    help="Who counts the promises: the platform, or the replicas where there is none.",
)
@namespace_option
@platform_option
@scrape_option
@settings_option
@out_option
@workspace_option
@json_option
@click.pass_obj
def prometheus(
    session: Session,
    services: tuple[str, ...],
    operator: bool,
    source: str,
    namespace: str,
    platform: str,
    scrape: float,
    settings: Path | None,
    out: Path | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Write what a Prometheus reads of SERVICEs: scrapes, and alert rules for their promises.

    \b
    Example:
      leptonai export prometheus service.yaml -o prometheus/
      leptonai export prometheus service.yaml --operator --source replicas | kubectl apply -f -
    """
    from leptonai.export import Site
    from leptonai.export import prometheus as made

    site = Site(namespace, platform.rstrip("/"), scrape, source).checked()
    wishes = _each(session, services, workspace)
    alerts = _settings(session, settings).alerts
    files = made.operator(wishes, site, alerts) if operator else made.files(wishes, site, alerts)
    tell(files, [], out, as_json)


@export.command()
@out_option
@json_option
def grafana(out: Path | None, as_json: bool) -> None:
    """Write dashboards for Grafana with the files that provision them.

    They ask a Prometheus that scrapes as `leptonai export prometheus` says; PROMETHEUS_URL is set in Grafana's
    environment.

    \b
    Example:
      leptonai export grafana -o /etc/grafana/provisioning
    """
    from leptonai.export import Site
    from leptonai.export.grafana import files

    tell(files(Site()), [], out, as_json)


@export.command()
@platform_option
@click.option("--feed", is_flag=True, help="Alerts that are not ours become incidents of the platform.")
@settings_option
@out_option
@json_option
@click.pass_obj
def alertmanager(
    session: Session, platform: str, feed: bool, settings: Path | None, out: Path | None, as_json: bool
) -> None:
    """Write the routes, receivers and inhibitions of settings.yaml for an Alertmanager.

    \b
    Example:
      leptonai export alertmanager --settings settings.yaml > alertmanager.yml
    """
    from leptonai.export import Site
    from leptonai.export.alertmanager import files

    told = files(_settings(session, settings).alerts, Site(platform=platform.rstrip("/")).checked(), feed)
    tell(told.files, told.lost, out, as_json)


@export.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@namespace_option
@platform_option
@scrape_option
@out_option
@workspace_option
@json_option
@click.pass_obj
def otel(
    session: Session,
    services: tuple[str, ...],
    namespace: str,
    platform: str,
    scrape: float,
    out: Path | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Write the configuration of an OpenTelemetry Collector (contrib) that sends everything to the platform.

    \b
    Example:
      leptonai export otel service.yaml --platform https://factory.example:8310 > collector.yaml
    """
    from leptonai.export import Site
    from leptonai.export.otel import files

    site = Site(namespace, platform.rstrip("/"), scrape).checked()
    tell(files(_each(session, services, workspace), site), [], out, as_json)


@export.command()
@settings_option
@out_option
@json_option
@click.pass_obj
def elk(session: Session, settings: Path | None, out: Path | None, as_json: bool) -> None:
    """Write what Elasticsearch and Kibana need for our logs: mapping, pipeline, keeping, views; and a script.

    \b
    Example:
      leptonai export elk -o elk/
      ELASTICSEARCH=http://127.0.0.1:9200 KIBANA=http://127.0.0.1:5601 sh elk/install.sh
    """
    from leptonai.export.elk import files

    tell(files(_settings(session, settings).logs), [], out, as_json)


def delivery_options(command: F) -> F:
    for option in (
        click.option("--text", default="service.yaml", show_default=True, help="The service, in the repository."),
        click.option("--model", default="model.onnx", show_default=True, help="What training writes."),
        click.option("--train", default="train.py", show_default=True, help="A program, or a text of `train`."),
        click.option("--data", default="test.npz", show_default=True, help="Labelled rows to evaluate on."),
        click.option("--at-least", default="accuracy=0.9", show_default=True, metavar="MEASURE=VALUE"),
        click.option(
            "--patience", type=click.IntRange(1), default=3600, show_default=True, help="Seconds for the judgement."
        ),
    ):
        command = option(command)
    return command


@export.command()
@click.argument("service")
@delivery_options
@platform_option
@out_option
@json_option
def jenkins(service: str, platform: str, out: Path | None, as_json: bool, **how: Any) -> None:
    """Write a Jenkinsfile: train, test, evaluate, build, push, deploy SERVICE as a canary, wait for its judgement.

    \b
    Example:
      leptonai export jenkins digits --platform https://factory.example:8310 > Jenkinsfile
    """
    from leptonai.export.ci import jenkins as made

    delivery, site = _delivery(service, platform, how)
    tell(made(delivery, site), [], out, as_json)


@export.command()
@click.argument("service")
@delivery_options
@platform_option
@out_option
@json_option
def github(service: str, platform: str, out: Path | None, as_json: bool, **how: Any) -> None:
    """Write a GitHub workflow: train, test, evaluate, build, push, deploy SERVICE as a canary, wait for its judgement.

    \b
    Example:
      leptonai export github digits --platform https://factory.example:8310 -o .
    """
    from leptonai.export.ci import github as made

    delivery, site = _delivery(service, platform, how)
    tell(made(delivery, site), [], out, as_json)


def _each(session: Session, names: tuple[str, ...], workspace: str | None) -> list[Service]:
    """The wishes of ``names``. SpecError when one is named twice: its rules would have one name."""
    found = [find(session, name, workspace) for name in names]
    for number, wish in enumerate(found):
        if wish.key in {w.key for w in found[:number]}:
            raise SpecError(f"{wish.key} is named twice", hint="name each service once")
    return found


def _delivery(service: str, platform: str, how: dict[str, Any]) -> Any:
    from leptonai.export import Site
    from leptonai.export.ci import Delivery
    from leptonai.types import NAME

    if not NAME.fullmatch(service):
        raise SpecError(f"{service!r} is no name of a service", hint="as in `leptonai ls`, of the default workspace")
    how["least"] = how.pop("at_least")
    return Delivery(service, **how), Site(platform=platform.rstrip("/")).checked()


def _settings(session: Session, given: Path | None) -> Settings:
    from leptonai.settings import load

    if given is not None and not given.is_file():
        raise SpecError(f"no settings {given}", hint="give the path of a settings.yaml")
    return load(given or session.folder().settings)
