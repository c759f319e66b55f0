"""The same image for who builds with a Dockerfile: the layers as they are, and the text that stacks them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from leptonai.image.archive import Image
from leptonai.image.layer import Blob

_TOP = """\
# Written by `leptonai build`; the layers beside it are those of its archive. The result holds the same files.
# To stand on another base with the same Python, replace the first lines up to the environment by a FROM of it.
"""


def write(images: Sequence[tuple[str, Image]], folder: Path) -> None:
    """A build context in ``folder``: ``Dockerfile`` with a stage for each lane, and ``layers/``; the rest stays."""
    (folder / "layers").mkdir(parents=True, exist_ok=True)
    for layer in {b.digest: b for _, x in images for b in x.blobs[1:]}.values():
        target = folder / _file(layer)
        if not target.exists():
            part = target.with_suffix(".part")
            shutil.copyfile(layer.path, part)
            part.replace(target)
    part = folder / ".Dockerfile.part"
    part.write_text(text(images))
    part.replace(folder / "Dockerfile")


def text(images: Sequence[tuple[str, Image]]) -> str:
    """``docker build --target LANE .`` builds one; without a target the last lane."""
    return _TOP + "".join(f"\n{stage(lane, made)}" for lane, made in images)


def stage(lane: str, made: Image) -> str:
    config = made.config["config"]
    lines = [f"FROM scratch AS {lane}"]
    lines += [f"ADD {_file(layer)} /" for layer in made.blobs[1:]]
    lines += [f"ENV {name}={json.dumps(value)}" for name, value in (v.split("=", 1) for v in config["Env"])]
    lines += [f"LABEL {name}={json.dumps(value)}" for name, value in sorted(config["Labels"].items())]
    lines += [f"EXPOSE {port}" for port in sorted(config["ExposedPorts"])]
    lines += [f"USER {config['User']}", f"WORKDIR {config['WorkingDir']}", f"STOPSIGNAL {config['StopSignal']}"]
    lines += [f"ENTRYPOINT {json.dumps(config['Entrypoint'])}", f"CMD {json.dumps(config['Cmd'])}"]
    return "\n".join(lines) + "\n"


def _file(layer: Blob) -> str:
    return f"layers/{layer.digest.removeprefix('sha256:')[:16]}.tar.gz"
