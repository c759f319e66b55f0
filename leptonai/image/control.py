"""The platform itself as an image: this package with all it needs, the gateway included, on the same base."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from leptonai import __version__
from leptonai.errors import SpecError
from leptonai.image import archive, dockerfile, lock, sbom
from leptonai.image.build import Built, Inputs, base_of, environment, taken, variables
from leptonai.image.distributions import OURS
from leptonai.image.layer import Item, disk, layer
from leptonai.plan.render.control import API, GATEWAY, IMAGE, PLACE
from leptonai.plan.render.pod import UID

WANTED = f"{OURS}[kubernetes]"  # runs where its replicas are pods


def build(inputs: Inputs, out: Path, say: Callable[[str], object]) -> Built:
    """Write the archive ``out`` with one image: equal inputs give equal bytes. Raises as ``build`` of a service."""
    name = IMAGE if inputs.image == Inputs._field_defaults["image"] else inputs.image
    if "{" in name:
        raise SpecError(f"{name!r} names no image", hint="as in --image registry.example/leptonai-control:1")
    with disk(f"the image {out}"), tempfile.TemporaryDirectory(prefix="leptonai-image-") as folder:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(folder)
        blobs = scratch / "blobs"
        blobs.mkdir()
        locked = lock.read(inputs.lock) if inputs.lock is not None else None
        say(f"base {inputs.base}")
        ground = base_of(inputs, locked, blobs)
        say(f"environment: {inputs.lock or WANTED}")
        found = lock.environment(locked, ground.python, scratch) if locked else taken((WANTED, *inputs.require), ground)
        layers = [
            *ground.layers,
            layer(environment([d for d in found if d.name != OURS], ground, head=True), blobs),
            layer(environment([d for d in found if d.name == OURS], ground), blobs),
            layer([Item(PLACE.lstrip("/"), mode=0o700, owner=(UID, UID))], blobs),
        ]
        config = {
            "User": f"{UID}:{UID}",
            "WorkingDir": PLACE,
            # LEPTONAI_TELL: logs go to the container's output too
            "Env": variables(ground, PLACE, LEPTONAI_HOME=PLACE, LEPTONAI_TELL="1"),
            "Entrypoint": ["python", "-P", "-m", "leptonai.cli"],
            "Cmd": ["up", "--foreground"],
            "ExposedPorts": {f"{port}/tcp": {} for port in (API, GATEWAY)},
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "leptonai-control",
                "org.opencontainers.image.version": __version__,
                "org.opencontainers.image.vendor": f"leptonai {__version__}",
            },
        }
        image = archive.image(name, layers, ground.python.machine, config, blobs)
        say(f"archive {out}")
        archive.write([image], out)
        if inputs.docker is not None:
            dockerfile.write([("control", image)], inputs.docker)
        bill = sbom.bill("leptonai-control", [image], ground.packages, {name: found}, {})
        machine = f"3.{ground.python.minor} ({ground.python.machine})"
        return Built((image,), lock.of(ground, found), bill, machine)
