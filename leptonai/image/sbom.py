"""The bill of materials of images, as CycloneDX 1.5 JSON: Debian packages, Python distributions, the models."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from leptonai import __version__
from leptonai.image.archive import Image
from leptonai.image.base import Package
from leptonai.image.distributions import OURS, Distribution

Json = dict[str, Any]
_SPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of URLs, RFC 9562


def bill(
    service: str,
    images: Sequence[Image],
    packages: Sequence[Package],
    distributions: Mapping[str, Sequence[Distribution]],
    models: Mapping[str, str],
) -> Json:
    """``distributions`` and ``models`` (digests) by the image's name. Equal images, equal bill: it holds no time."""
    components: dict[str, Json] = {}
    depends = []
    system = [_debian(p) for p in packages]
    for made in images:
        inside = [*system, *map(_python, distributions[made.name])]
        if made.name in models:
            inside.append(_model(service, models[made.name]))
        components |= {c["bom-ref"]: c for c in inside}
        name, _, tag = made.name.rpartition(":")
        own = {
            "type": "container",
            "bom-ref": made.name,
            "name": name,
            "version": tag,
            "hashes": _sha(made.manifest.digest),
            "purl": f"pkg:oci/{name.rpartition('/')[2]}@{quote(made.manifest.digest, safe='')}?tag={quote(tag)}",
        }
        components[made.name] = own
        depends.append({"ref": made.name, "dependsOn": sorted({c["bom-ref"] for c in inside})})
    digests = " ".join(x.manifest.digest for x in images)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.uuid5(_SPACE, digests).urn,
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": OURS, "version": __version__}]},
            "component": {"type": "application", "bom-ref": f"service:{service}", "name": service},
        },
        "components": [components[ref] for ref in sorted(components)],
        "dependencies": [{"ref": f"service:{service}", "dependsOn": sorted(x.name for x in images)}, *depends],
    }


def _debian(package: Package) -> Json:
    version = quote(package.version, safe="")
    return {
        "type": "library",
        "bom-ref": f"pkg:deb/debian/{quote(package.name)}@{version}?arch={package.architecture}",
        "name": package.name,
        "version": package.version,
        "purl": f"pkg:deb/debian/{quote(package.name)}@{version}?arch={package.architecture}",
        "hashes": _sha(package.sha256),
    }


def _python(distribution: Distribution) -> Json:
    purl = f"pkg:pypi/{distribution.name}@{quote(distribution.version)}"
    made: Json = {
        "type": "library",
        "bom-ref": purl,
        "name": distribution.name,
        "version": distribution.version,
        "purl": purl,
        "properties": [{"name": "leptonai:from", "value": distribution.wheel or "installed"}],
    }
    if distribution.wheel:  # of what was installed there is no file whose digest others could know
        made["hashes"] = _sha(distribution.sha256)
    if distribution.license:
        made["licenses"] = [{"license": {"name": distribution.license}}]
    return made


def _model(service: str, digest: str) -> Json:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{digest}",
        "name": service,
        "version": digest,
        "hashes": _sha(digest),
    }


def _sha(digest: str) -> list[Json]:
    return [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}]
