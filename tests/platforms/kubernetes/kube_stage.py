"""The cluster that KUBECONFIG names, and images for it, made by ``leptonai build``.

``LEPTONAI_TEST_LOAD`` is a command that imports an OCI archive into the nodes: ``cluster load`` of the test cluster.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from suite_models import ENDLESS, FAILING, GOOD

import leptonai
from leptonai.image import Inputs, build
from leptonai.store.tree import tree_digest
from leptonai.types import Dials, Service, Spec, Variant

IMAGE = "localhost/leptonai-tests"
KUBECONFIG = os.environ.get("KUBECONFIG", "")
LOAD = os.environ.get("LEPTONAI_TEST_LOAD", "")

needs_cluster = pytest.mark.skipif(
    not KUBECONFIG, reason="NO CLUSTER: KUBECONFIG is not set, so nothing is tested on a real Kubernetes"
)

MODELS = {"a": f"{GOOD}# a\n", "b": f"{GOOD}# b\n", "failing": FAILING, "endless": ENDLESS}


def kubectl(*args: str, check: bool = True, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", KUBECONFIG, *args], capture_output=True, text=True, input=stdin, check=False
    )
    assert not check or done.returncode == 0, f"kubectl {args}: {done.stderr}"
    return done.stdout


@functools.cache
def image() -> tuple[str, dict[str, str]]:
    """``(template, {model: digest})`` of images that the cluster has: built by us and loaded once in a process.

    Named after what we put in, so that what is loaded already is not loaded again.
    """
    if not LOAD:
        pytest.skip("NO IMAGE: LEPTONAI_TEST_LOAD is not set: a command that loads an OCI archive into the nodes")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "leptonai"
    folders = {name: cache / "tests" / name for name in MODELS}
    content = hashlib.sha256(_server().encode())  # another cluster has not loaded anything yet
    for name, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(MODELS[name])
    package = Path(leptonai.__file__).parent
    for file in sorted(package.rglob("*.py")):
        content.update(file.read_bytes())
    digests = {name: tree_digest(folder) for name, folder in folders.items()}
    template = f"{IMAGE}-{content.hexdigest()[:16]}:{{model}}"
    marker = cache / "tests" / f"loaded-{content.hexdigest()[:16]}"
    if not marker.exists():
        variants = tuple(Variant(name=name, model=digest) for name, digest in digests.items())
        service = Service(spec=Spec(name="tests", variants=variants), dials=Dials(), revision=1)
        archive = cache / "tests" / f"images-{os.getpid()}.tar"
        models = {digests[name]: folder for name, folder in folders.items()}
        build(service, models, Inputs(cache=cache / "debs", image=template), archive, lambda text: None)
        subprocess.run([*shlex.split(LOAD), str(archive)], check=True, capture_output=True)
        archive.unlink()
        marker.touch()
    return template, digests


def _server() -> str:
    """The cluster's own identity: another one has not loaded anything yet."""
    return kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")


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


def token(space: Namespace, account: str) -> str:
    """Of clusters before 1.24, which make a Secret for each account; of later ones by request."""
    for _ in range(100):
        for secret in space.json("get", "secrets")["items"]:
            if secret["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name") == account:
                return base64.b64decode(secret["data"]["token"]).decode()
        made = kubectl("-n", space.name, "create", "token", account, check=False).strip()
        if made:
            return made
        time.sleep(0.1)
    raise AssertionError("no token")


async def until(done: Any, seconds: float = 60.0) -> Any:
    """What ``done()`` gives once it is true; fails at the deadline."""
    end = asyncio.get_running_loop().time() + seconds
    while not (found := done()):
        assert asyncio.get_running_loop().time() < end, "not reached in time"
        await asyncio.sleep(0.1)
    return found
