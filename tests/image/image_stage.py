"""Small real inputs of images: a root file system that has a Python, wheels, a model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

MODEL = """class Doubler:
    def predict(self, x: list[float]) -> list[float]:
        return [2 * v for v in x]
"""


def rootfs(folder: Path) -> Path:
    """As little as `build` accepts for a base: the program of this Python where Debian has it."""
    (folder / "usr/bin").mkdir(parents=True)
    shutil.copyfile(Path(sys.executable).resolve(), folder / f"usr/bin/python3.{sys.version_info.minor}")
    (folder / f"usr/bin/python3.{sys.version_info.minor}").chmod(0o755)
    (folder / "bin").symlink_to("usr/bin")
    return folder


def service(folder: Path, **fields: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODEL)
    lines = "".join(f"{k}: {json.dumps(v)}\n" for k, v in fields.items())
    (folder / "service.yaml").write_text(f"name: doubler\nmodel: model.py\n{lines}")
    return folder / "service.yaml"


def wheel(
    folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", files: dict[str, str] | None = None
) -> tuple[Path, str]:
    """A wheel in ``folder`` and its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as z:
        for file, text in (files or {f"{name}.py": f"WORDS = {{'a', 'b', '{name}'}}\n"}).items():
            info_of = zipfile.ZipInfo(file)
            info_of.external_attr = (0o100755 if text.startswith("#!") else 0o100644) << 16
            z.writestr(info_of, text)
        z.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n")
        z.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        z.writestr(f"{info}/RECORD", "")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def lock(path: Path, *wheels: tuple[Path, str]) -> Path:
    lines = []
    for file, sha in wheels:
        name, version = file.name.split("-")[:2]
        lines.append(f"{name}=={version} \\\n    --hash=sha256:{sha}\n")
    path.write_text("# written by a tool\n" + "".join(lines))
    return path


def build(
    *arguments: str | Path, cwd: Path | None = None, wheels: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    more = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull} if wheels else {}
    return subprocess.run(
        [sys.executable, "-m", "leptonai.cli", "build", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | more | env,
    )


def document(archive: Path, digest: str = "") -> Any:
    """A JSON document of an archive: of a digest, else its index."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("blobs/" + digest.replace(":", "/") if digest else "index.json")
        assert member is not None
        return json.load(member)


def parts(archive: Path, image: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and configuration of one image of an archive."""
    manifest = document(archive, document(archive)["manifests"][image]["digest"])
    return manifest, document(archive, manifest["config"]["digest"])


def unpack(archive: Path, root: Path, image: int = 0) -> Path:
    """The file system of an image, below ``root``."""
    manifest, _ = parts(archive, image)
    with tarfile.open(archive) as tar:
        for layer in manifest["layers"]:
            stream = tar.extractfile("blobs/" + layer["digest"].replace(":", "/"))
            with tarfile.open(fileobj=stream, mode="r:gz") as inner:
                inner.extractall(root, filter="fully_trusted")
    return root
