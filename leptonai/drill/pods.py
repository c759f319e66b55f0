"""Drills on a Kubernetes cluster: a namespace of their own, an image for each of their models, faults in pods."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import PlatformError
from leptonai.plan.render.pod import grace

LOADING = 600.0  # seconds for an image to be built or to reach the nodes
KUBELET = 120.0  # seconds beyond its grace for which a busy node may keep a pod: one of 1.20 keeps its object a minute
_SELF = "leptonai-drill"


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A namespace of the cluster that KUBECONFIG names; gone, with all in it, when the block ends."""
    name = f"{_SELF}-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def settings(name: str) -> dict[str, Any]:
    """Of a platform whose pods run in that namespace, from the images that ``images`` made."""
    return {"kubernetes": {"enabled": True, "namespace": name, "image": f"localhost/{_SELF}:{{model}}"}}


def ending(drain: float) -> float:
    """Seconds within which pods that may drain for ``drain`` seconds are gone, their objects too."""
    return grace(drain) + KUBELET


def images(folder: Path, models: dict[str, Path], load: str, cli: Callable[..., str]) -> None:
    """The nodes have an image for each of ``models``. ``load``: the command that imports an OCI archive into them;
    the archive's path is added to it."""
    text, archive = folder / "service.yaml", folder / "images.tar"
    variants = [{"name": name, "model": str(path)} for name, path in sorted(models.items())]
    text.write_bytes(msgspec.yaml.encode({"name": "drill", "variants": variants}))
    cli("build", str(text), "--image", f"localhost/{_SELF}:{{model}}", "-o", str(archive), patience=LOADING)
    run([*shlex.split(load), str(archive)], "load the images into the nodes", "--load is a command like `cluster load`")
    archive.unlink()


def ask(space: str, kind: str, pod: str, amount: float, heal_after: float) -> None:
    """The fault is in force in the pod; ``amount`` 0 heals it."""
    command = [sys.executable, "-m", "leptonai.platforms.kubernetes.inject", kind, "--pod", pod, "--namespace", space]
    run([*command, "--amount", f"{amount:g}", "--heal-after", f"{heal_after:g}"], f"inject {kind}", "see leptonai logs")


def kubectl(*arguments: str) -> None:
    run(["kubectl", *arguments], f"kubectl {' '.join(arguments)}", "is KUBECONFIG set, and kubectl on the path?")


def run(command: list[str], what: str, hint: str) -> None:
    """It ran and said yes. PlatformError with what it complained of."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOADING)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise PlatformError(f"could not {what}: {e}", hint=hint) from e
    if done.returncode != 0:
        raise PlatformError(f"could not {what}: {done.stderr.strip() or done.stdout.strip()}", hint=hint)
