"""A service as container images: one for each lane, in one archive, with all that a pod of ours expects."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from leptonai import __version__
from leptonai.errors import NotFound, SpecError
from leptonai.image import archive, base, debian, dockerfile, lock, needs, sbom
from leptonai.image.archive import Image
from leptonai.image.base import Base
from leptonai.image.bytecode import compiled
from leptonai.image.distributions import OURS, Distribution, installed
from leptonai.image.layer import Blob, Item, disk, layer
from leptonai.plan.lanes import Lane, lanes
from leptonai.plan.render import pod
from leptonai.plan.render.service import IMAGE
from leptonai.store.tree import files_of, tree_digest
from leptonai.types import Service, parse_key

HOME = "opt/leptonai"  # a virtual environment of the base's Python: its bin comes first on the path
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Inputs(NamedTuple):
    cache: Path  # where downloaded packages are kept
    base: str = "debian"  # or the path of a folder, a tar or an OCI archive
    lock: Path | None = None  # None: what is installed here
    require: tuple[str, ...] = ()  # further distributions, when there is no lock
    packages: tuple[str, ...] = ()  # further Debian packages
    image: str = IMAGE  # template of the names
    docker: Path | None = None  # a folder for the same layers with a Dockerfile


class Built(NamedTuple):
    images: tuple[Image, ...]
    lock: lock.Lock
    bill: dict[str, Any]
    python: str  # of the base, as 3.11 (amd64)


def build(
    service: Service, models: Mapping[str, Path], inputs: Inputs, out: Path, say: Callable[[str], object]
) -> Built:
    """Write the archive ``out``: equal inputs give equal bytes. ``models``: where the files of each digest lie.

    SpecError for what of the inputs cannot be, NotFound for what nobody has, ``disk_full``; ``out`` is then as before.
    """
    with disk(f"the image {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="leptonai-image-") as name:
            return _build(service, models, inputs, out, Path(name), say)


def _build(
    service: Service,
    models: Mapping[str, Path],
    inputs: Inputs,
    out: Path,
    scratch: Path,
    say: Callable[[str], object],
) -> Built:
    found = lanes(service)
    names = {lane.name: pod.image(inputs.image, service.key, lane.variant) for lane in found}
    twice = [n for n in names.values() if list(names.values()).count(n) > 1]
    if twice:
        raise SpecError(
            f"{inputs.image!r} gives several lanes of {service.key} the name {twice[0]}",
            hint="say {variant} and {model} in it: versions and variants differ in them",
        )
    for lane in found:
        _check(service, lane, models)
    locked = lock.read(inputs.lock) if inputs.lock is not None else None
    blobs = scratch / "blobs"
    blobs.mkdir()
    say(f"base {inputs.base}")
    ground = base_of(inputs, locked, blobs)
    kept: dict[tuple[str, ...], tuple[list[Distribution], Blob]] = {}
    own: Blob | None = None
    images, parts = [], {}
    for lane in found:
        model = models[lane.variant.model]
        wanted = _wanted(model, inputs, locked)
        if wanted not in kept:
            say(f"environment of {lane.name}: {', '.join(wanted) or inputs.lock}")
            got = lock.environment(locked, ground.python, scratch) if locked else taken(wanted, ground)
            kept[wanted] = got, layer(environment([d for d in got if d.name != OURS], ground, head=True), blobs)
            own = own or layer(environment([d for d in got if d.name == OURS], ground), blobs)
        distributions, made = kept[wanted]
        assert own is not None
        say(f"model of {lane.name}: {lane.variant.model}")
        layers = [*ground.layers, made, own, layer(_model(lane.variant.model, model), blobs)]
        layers.append(layer(_orders(service, lane), blobs))
        name = names[lane.name]
        images.append(archive.image(name, layers, ground.python.machine, _settings(service, lane, ground), blobs))
        parts[name] = distributions
    say(f"archive {out}")
    archive.write(images, out)
    if inputs.docker is not None:
        dockerfile.write([(lane.name, x) for lane, x in zip(found, images, strict=True)], inputs.docker)
    everything = {d.name: d for distributions, _ in kept.values() for d in distributions}
    digests = {names[lane.name]: lane.variant.model for lane in found}
    bill = sbom.bill(service.key, images, ground.packages, parts, digests)
    machine = f"3.{ground.python.minor} ({ground.python.machine})"
    return Built(tuple(images), lock.of(ground, list(everything.values())), bill, machine)


def _check(service: Service, lane: Lane, models: Mapping[str, Path]) -> None:
    digest = lane.variant.model
    if digest not in models:
        raise NotFound(f"no files of the model {digest} of {service.key}", hint="deploy it again on this machine")
    if (got := tree_digest(models[digest])) != digest:
        raise SpecError(
            f"the files in {models[digest]} are {got}, and {lane.name} of {service.key} wants {digest}",
            hint="they were changed: deploy the model again",
            code="lock_mismatch",
        )


def base_of(inputs: Inputs, locked: lock.Lock | str | None, blobs: Path) -> Base:
    if inputs.base == "debian":
        return debian.debian(blobs, inputs.cache, lock.packages(locked), inputs.packages)
    if inputs.packages:
        raise SpecError(
            f"packages {', '.join(inputs.packages)} cannot be added to the base {inputs.base}",
            hint="--package is for --base debian",
        )
    return base.read(inputs.base, blobs)


def _wanted(model: Path, inputs: Inputs, locked: lock.Lock | str | None) -> tuple[str, ...]:
    return () if locked else tuple(sorted({*needs.roots(model), *inputs.require}))


def taken(wanted: Iterable[str], ground: Base) -> list[Distribution]:
    return [installed(name, ground.python) for name in sorted({*needs.closure(wanted), OURS})]


def environment(distributions: Iterable[Distribution], ground: Base, head: bool = False) -> list[Item]:
    """Site-packages of ``distributions`` with their bytecode; ``head``: and what makes it an environment (PEP 405)."""
    python = f"python3.{ground.python.minor}"
    site = f"{HOME}/lib/{python}/site-packages"
    items = [item._replace(path=f"{site}/{item.path}") for d in distributions for item in d.files]
    if head:
        where = ground.python.path.rpartition("/")[0]
        text = f"home = {where}\ninclude-system-site-packages = false\nversion = 3.{ground.python.minor}\n"
        items += [Item(f"{HOME}/pyvenv.cfg", text.encode()), Item(f"{HOME}/bin/python", link=ground.python.path)]
        items += [Item(f"{HOME}/bin/{name}", link="python") for name in ("python3", python)]
    return [*items, *compiled(items, python)]


def _model(digest: str, path: Path) -> list[Item]:
    root = f"{pod.MODELS.lstrip('/')}/{digest.removeprefix('sha256:')}"
    return [Item(f"{root}/{name}", file, 0o444) for name, file in files_of(path).items()]


def _orders(service: Service, lane: Lane) -> list[Item]:
    """Where a replica works, and its orders when nothing else gives it any: a cluster mounts its own over them."""
    place, owner = pod.RUN_DIR.lstrip("/"), (pod.UID, pod.UID)
    orders = msgspec.json.encode(pod.launch(service, lane.variant))
    return [Item(place, mode=0o755, owner=owner), Item(f"{place}/launch.json", orders, owner=owner)]


def variables(ground: Base, home: str, **own: str) -> list[str]:
    """The environment of a container, as its configuration lists it."""
    found = ground.environment | {
        "PATH": f"/{HOME}/bin:{ground.environment.get('PATH', SYSTEM)}",
        "LANG": "C.UTF-8",
        "HOME": home,
        "PYTHONUNBUFFERED": "1",
    }
    return [f"{name}={value}" for name, value in sorted((found | own).items())]


def _settings(service: Service, lane: Lane, ground: Base) -> dict[str, Any]:
    return {
        "User": f"{pod.UID}:{pod.UID}",
        "WorkingDir": pod.RUN_DIR,
        # a pod says its own name
        "Env": variables(ground, pod.RUN_DIR, LEPTONAI_REPLICA=parse_key(service.key)[1]),
        "Entrypoint": ["python", "-P", "-m", "leptonai.runtime"],
        "Cmd": [pod.RUN_DIR],
        "ExposedPorts": {f"{pod.PORT}/tcp": {}},
        "StopSignal": "SIGTERM",
        "Labels": {
            "org.opencontainers.image.title": parse_key(service.key)[1],
            "org.opencontainers.image.version": lane.variant.model,
            "org.opencontainers.image.vendor": f"leptonai {__version__}",
            "dev.leptonai.service": service.key,
            "dev.leptonai.lane": lane.name,
            "dev.leptonai.model": lane.variant.model,
        },
    }
