"""OCI image archives: images of one or several names in a tar, byte for byte the same for equal layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from leptonai.image.layer import Blob, blob
from leptonai.image.pack import pack

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EPOCH = "1970-01-01T00:00:00Z"  # no clock in an image: two builds of the same inputs are the same


class Image(NamedTuple):
    name: str  # with its tag, as Kubernetes writes it
    manifest: Blob
    blobs: tuple[Blob, ...]  # config, then layers from the base up
    config: dict[str, Any]


def image(name: str, layers: Sequence[Blob], machine: str, settings: dict[str, Any], folder: Path) -> Image:
    """``settings``: what a container starts with, as in the image specification's ``config``."""
    config = {
        "architecture": machine,
        "os": "linux",
        "created": EPOCH,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff for layer in layers]},
        "history": [{"created": EPOCH, "created_by": "leptonai build"} for _ in layers],
    }
    stored = blob(canonical(config), CONFIG, folder)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(stored),
        "layers": [descriptor(layer) for layer in layers],
    }
    return Image(name, blob(canonical(manifest), MANIFEST, folder), (stored, *layers), config)


def write(images: Sequence[Image], out: Path) -> None:
    """The archive at ``out``, as a whole or not at all: readable by containerd, podman, skopeo and ``docker load``."""
    listed = [
        descriptor(x.manifest)
        | {"annotations": {"io.containerd.image.name": x.name, "org.opencontainers.image.ref.name": x.name}}
        for x in images
    ]
    files: dict[str, bytes | Path] = {
        "oci-layout": canonical({"imageLayoutVersion": "1.0.0"}),
        "index.json": canonical({"schemaVersion": 2, "manifests": listed}),
        # What `docker load` read before it knew OCI archives.
        "manifest.json": canonical(
            [
                {
                    "Config": place(x.blobs[0]),
                    "RepoTags": [x.name],
                    "Layers": [place(layer) for layer in x.blobs[1:]],
                }
                for x in images
            ]
        ),
    }
    for x in images:
        files |= {place(b): b.path for b in (x.manifest, *x.blobs)}
    pack(out, {name: files[name] for name in sorted(files)}, folders=("blobs", "blobs/sha256"))


def place(stored: Blob) -> str:
    return "blobs/" + stored.digest.replace(":", "/")


def descriptor(stored: Blob) -> dict[str, Any]:
    return {"mediaType": stored.media, "digest": stored.digest, "size": stored.size}


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
