"""The cluster that KUBECONFIG names, and an image for it: this interpreter, this package, and models by digest.

``LEPTONAI_TEST_LOAD`` is a command that imports an OCI archive into the nodes: ``cluster load`` of the test cluster.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import Any

import pytest

from leptonai.store.tree import tree_digest

IMAGE = "localhost/leptonai-tests"
NEEDED = ("numpy", "msgspec", "orjson", "pysimdjson", "uvloop", "httptools")  # of a replica with a Python model
KUBECONFIG = os.environ.get("KUBECONFIG", "")
LOAD = os.environ.get("LEPTONAI_TEST_LOAD", "")

needs_cluster = pytest.mark.skipif(
    not KUBECONFIG, reason="NO CLUSTER: KUBECONFIG is not set, so nothing is tested on a real Kubernetes"
)

GOOD = """
class Double:
    def setup(self):
        print("loaded")

    def predict(self, x: float) -> float:
        return 2 * x
# {tag}
"""
FAILING = """
class Broken:
    def setup(self):
        raise RuntimeError("no such weights")

    def predict(self, x: float) -> float:
        return x
"""
ENDLESS = """
import time

class Slow:
    def setup(self):
        time.sleep(600)

    def predict(self, x: float) -> float:
        return x
"""
MODELS = {"a": GOOD.format(tag="a"), "b": GOOD.format(tag="b"), "failing": FAILING, "endless": ENDLESS}


def kubectl(*args: str, check: bool = True, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", KUBECONFIG, *args], capture_output=True, text=True, input=stdin, check=False
    )
    assert not check or done.returncode == 0, f"kubectl {args}: {done.stderr}"
    return done.stdout


@functools.cache
def image() -> tuple[str, dict[str, str]]:
    """``(name, {model: digest})`` of an image that the cluster has: built and loaded once in a process.

    Named after its content, so that what is loaded already is not loaded again.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "leptonai-tests"
    cache.mkdir(parents=True, exist_ok=True)
    digests = {}
    files: dict[str, bytes | Path] = {}
    for name, code in MODELS.items():
        folder = cache / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(code)
        digests[name] = tree_digest(folder)
        files[f"models/{digests[name].removeprefix('sha256:')}/model.py"] = code.encode()
    files |= _package()
    content = hashlib.sha256()
    for path, what in sorted(files.items()):
        content.update(f"{path}\n".encode() + (what if isinstance(what, bytes) else what.read_bytes()))
    name = f"{IMAGE}:{content.hexdigest()[:16]}"
    if not LOAD:
        pytest.skip("NO IMAGE: LEPTONAI_TEST_LOAD is not set: a command that loads an OCI archive into the nodes")
    marker = cache / f"loaded-{name.rpartition(':')[2]}-{hashlib.sha256(_server().encode()).hexdigest()[:8]}"
    if not marker.exists():
        archive = cache / "image.tar"
        base = cache / f"base-{hashlib.sha256(repr(sorted(_base())).encode()).hexdigest()[:16]}.tar"
        if not base.exists():
            _tar(_base(), base)
        top = cache / "top.tar"
        _tar(files, top)
        _oci([base, top], name, archive)
        subprocess.run([*shlex.split(LOAD), str(archive)], check=True, capture_output=True)
        archive.unlink()
        marker.touch()
    return name, digests


def _server() -> str:
    """The cluster's own identity: another one has not loaded anything yet."""
    return kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")


def _package() -> dict[str, bytes | Path]:
    import leptonai

    root = Path(leptonai.__file__).parent
    found = [p for p in sorted(root.rglob("*.py")) if "scaffold" not in p.parts]
    return {f"opt/python/lib/python{_version()}/site-packages/leptonai/{p.relative_to(root)}": p for p in found}


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def _base() -> dict[str, Path | bytes]:
    """The interpreter, its library, the packages of NEEDED, and every shared library that these link to."""
    made: dict[str, Path | bytes] = {}
    lib = f"opt/python/lib/python{_version()}"
    binary = Path(sys.executable).resolve()
    made["opt/python/bin/python"] = binary
    stdlib = Path(sysconfig.get_path("stdlib"))
    skipped = {"test", "site-packages", "__pycache__", "idlelib", "tkinter", "ensurepip", "lib2to3"}
    for path in stdlib.rglob("*"):
        inside = path.relative_to(stdlib)
        if path.is_file() and not skipped & set(inside.parts) and not inside.parts[0].startswith("config-"):
            made[f"{lib}/{inside}"] = path
    for name in NEEDED:
        for file in importlib.metadata.files(name) or []:
            at = Path(str(file.locate()))
            if at.is_file() and not str(file).startswith("..") and "tests" not in file.parts:
                made[f"{lib}/site-packages/{file}"] = at
    linked = {p for p in made.values() if isinstance(p, Path) and (".so" in p.name or p == binary)}
    told = subprocess.run(["ldd", *map(str, sorted(linked))], capture_output=True, text=True, check=False).stdout
    for library in sorted(set(re.findall(r"(/[^\s:]+\.so[^\s:]*)", told))):
        if not any(str(p) == library for p in linked):
            made[f"lib64/{Path(library).name}"] = Path(library).resolve()
    made["etc/passwd"] = b"root:x:0:0:root:/:/bin/false\n"
    return made


def _tar(files: dict[str, Path | bytes], out: Path) -> None:
    with tarfile.open(out, "w") as tar:
        for folder in ("tmp", "run", "models"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(info)
        for name, what in sorted(files.items()):
            data = what if isinstance(what, bytes) else what.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o755 if isinstance(what, Path) and os.access(what, os.X_OK) else 0o644
            tar.addfile(info, io.BytesIO(data))


def _oci(layers: list[Path], name: str, out: Path) -> None:
    blobs: dict[str, bytes | Path] = {}

    def put(what: bytes | Path) -> dict[str, Any]:
        data = what if isinstance(what, bytes) else what.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = what
        return {"digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image."
    stored = [put(layer) for layer in layers]
    env = ["PATH=/opt/python/bin", "LD_LIBRARY_PATH=/lib64", "PYTHONDONTWRITEBYTECODE=1"]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": env},
        "rootfs": {"type": "layers", "diff_ids": [s["digest"] for s in stored]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}manifest.v1+json",
        "config": {"mediaType": f"{kind}config.v1+json"} | put(json.dumps(config).encode()),
        "layers": [{"mediaType": f"{kind}layer.v1.tar"} | s for s in stored],
    }
    listed = put(json.dumps(manifest).encode())
    named = {"annotations": {"io.containerd.image.name": name}}
    index = {"schemaVersion": 2, "manifests": [{"mediaType": f"{kind}manifest.v1+json"} | listed | named]}
    content: dict[str, bytes | Path] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    content["index.json"] = json.dumps(index).encode()
    content |= {f"blobs/sha256/{digest}": what for digest, what in blobs.items()}
    with tarfile.open(out, "w") as tar:
        for path, what in content.items():
            data = what if isinstance(what, bytes) else what.read_bytes()
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


class Namespace:
    """A namespace of its own for one test; gone, with everything in it, afterwards."""

    def __init__(self, name: str) -> None:
        self.name = name
        kubectl("create", "namespace", name)

    def delete(self, wait: bool = False) -> None:
        kubectl("delete", "namespace", self.name, f"--wait={str(wait).lower()}", check=False)

    def kubectl(self, *args: str, check: bool = True, stdin: str | None = None) -> str:
        return kubectl("-n", self.name, *args, check=check, stdin=stdin)

    def json(self, *args: str) -> Any:
        return json.loads(self.kubectl(*args, "-o", "json"))


async def until(done: Any, seconds: float = 60.0) -> Any:
    """What ``done()`` gives once it is true; fails at the deadline."""
    end = asyncio.get_running_loop().time() + seconds
    while not (found := done()):
        assert asyncio.get_running_loop().time() < end, "not reached in time"
        await asyncio.sleep(0.1)
    return found
