"""build: a service as a container image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leptonai.cli.export import find, write
from leptonai.cli.session import Session, json_option, print_json, waiting, workspace_option
from leptonai.errors import SpecError

if TYPE_CHECKING:
    from leptonai.types import Service


@click.command()
@click.argument("service", required=False)
@click.option("--control", is_flag=True, help="The platform itself, to run in a cluster, in place of a service.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE.tar", required=True, help="The archive.")
@click.option(
    "--base",
    default="debian",
    show_default=True,
    metavar="PATH|debian",
    help="A folder or tar with a root file system, an OCI archive, or Debian packages by this machine's apt.",
)
@click.option("--lock", type=click.Path(path_type=Path), metavar="FILE", help="Exactly this environment: see below.")
@click.option("--image", metavar="TEMPLATE", help="Names of the images, as in registry.example/{service}:{model}.")
@click.option("--require", multiple=True, metavar="NAME", help="Another distribution of this machine's Python.")
@click.option("--package", "packages", multiple=True, metavar="NAME", help="Another Debian package.")
@click.option(
    "--docker", type=click.Path(path_type=Path), metavar="DIR", help="Write a Dockerfile with its context too."
)
@workspace_option
@json_option
@click.pass_obj
def build(
    session: Session,
    service: str | None,
    control: bool,
    out: Path,
    base: str,
    lock: Path | None,
    image: str | None,
    require: tuple[str, ...],
    packages: tuple[str, ...],
    docker: Path | None,
    workspace: str | None,
    as_json: bool,
) -> None:
    """Write SERVICE as an OCI archive: a base, Python and this package, the model. No daemon is needed.

    SERVICE is one that runs on this machine's platform, a service.yaml or a model file. Equal inputs give equal bytes.
    Beside FILE.tar lie FILE.lock.json, what it is made of, and FILE.cdx.json, the bill of materials (CycloneDX).
    --lock takes such a lock, or requirements with hashes as pip-compile and uv write them; without one, the
    distributions that the model needs are taken as they are installed here.

    --control writes the platform with its gateway instead: what `leptonai export control` runs.

    \b
    Example:
      leptonai build service.yaml -o digits.tar
      leptonai build --control -o control.tar
      leptonai build digits -o digits.tar --image registry.example/{service}:{model} --lock digits.lock.json
    """
    import msgspec

    from leptonai.image import Inputs
    from leptonai.image import build as make
    from leptonai.image.control import build as platform

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leptonai" / "debs"
    inputs = Inputs(cache, base, lock, require, packages, docker=docker)
    if image is not None:
        inputs = inputs._replace(image=image)
    if control != (service is None):
        raise SpecError("build takes a SERVICE or --control", hint="one of the two", code="usage")
    with waiting(as_json) as say:
        if service is None:
            built = platform(inputs, out, say)
        else:
            wish = find(session, service, workspace)
            built = make(wish, models(session, service, wish), inputs, out, say)
    stem = out.name.removesuffix(".tar")
    write(out.with_name(f"{stem}.lock.json"), msgspec.json.format(msgspec.json.encode(built.lock)).decode() + "\n")
    write(out.with_name(f"{stem}.cdx.json"), msgspec.json.format(msgspec.json.encode(built.bill)).decode() + "\n")
    size = out.stat().st_size
    made = {x.name: x.manifest.digest for x in built.images}
    if as_json:
        print_json({"archive": str(out), "bytes": size, "python": built.python, "images": made})
        return
    for name, digest in made.items():
        click.echo(f"{name} {digest}")
    what = f"{len(built.lock.python)} distributions on Python {built.python}"
    if built.lock.debian:
        what += f", {len(built.lock.debian)} Debian packages"
    click.echo(f"{out}: {size / 1e6:.1f} MB, {what}")


def models(session: Session, service: str, wish: Service) -> dict[str, Path]:
    """Where the files of each model of ``wish`` lie: where its text says, or among this machine's artifacts."""
    from leptonai.plan.lanes import lanes
    from leptonai.store.tree import tree_digest
    from leptonai.types import DIGEST

    found: dict[str, Path] = {}
    if Path(service).exists():
        from leptonai.serve.spec import load

        for variant in load(service)[0].variants:
            if not DIGEST.fullmatch(variant.model):
                found[tree_digest(variant.model)] = Path(variant.model)
    artifacts = session.folder().artifacts
    for lane in lanes(wish):
        digest = lane.variant.model
        kept = artifacts / digest.removeprefix("sha256:") / "files"
        if digest not in found and kept.is_dir():
            found[digest] = kept
    return found
