"""Claim: an image of an ONNX service is the same file each time, and a pod of it is ready in under 10 s on its node.

python benchmarks/image.py                          two builds, in other folders
python benchmarks/image.py --load 'cluster load'    and pods on the cluster of KUBECONFIG; the command imports a tar
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "onnx_digits"
NAMESPACE = "leptonai-benchmark"
CLI = [sys.executable, "-m", "leptonai.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", default="", help="Imports an archive into the nodes; the file's path is added.")
    parser.add_argument("--pods", type=int, default=5, help="One after another.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digests, seconds = [], []
        first = folder / "one"
        for number in ("one", "two"):
            place = folder / number
            place.mkdir()
            if place == first:
                for file in ("service.yaml", "train.py"):
                    (place / file).write_bytes((EXAMPLE / file).read_bytes())
                subprocess.run([sys.executable, "train.py"], cwd=place, check=True, capture_output=True)
            else:
                for file in ("service.yaml", "digits.onnx", "digits.golden.json"):
                    (place / file).write_bytes((first / file).read_bytes())
            begun = time.perf_counter()
            command = [*CLI, "build", "service.yaml", "-o", "digits.tar"]
            subprocess.run(command, cwd=place, check=True, capture_output=True)
            seconds.append(time.perf_counter() - begun)
            digests.append(hashlib.sha256((place / "digits.tar").read_bytes()).hexdigest())
        archive = folder / "one" / "digits.tar"
        print(f"| builds | same file | MB | seconds |\n|---|---|---|---|\n| 2 | {digests[0] == digests[1]} "
              f"| {archive.stat().st_size / 1e6:.1f} | {seconds[0]:.1f}, {seconds[1]:.1f} |")  # fmt: skip
        if given.load:
            subprocess.run([*shlex.split(given.load), str(archive)], check=True, capture_output=True)
            pods(folder, given.pods)


def pods(folder: Path, count: int) -> None:
    """Seconds of each pod: from its place on the node to ready, and of these from the container's start."""
    command = [*CLI, "export", "kubernetes", "service.yaml", "--namespace", NAMESPACE]
    objects = subprocess.run(command, cwd=folder / "one", check=True, capture_output=True, text=True).stdout
    kubectl("create", "namespace", NAMESPACE)
    try:
        kubectl("apply", "-f", "-", text=objects.replace("replicas: 2\n", "replicas: 1\n"))
        whole, own = [], []
        for _ in range(count):
            kubectl("-n", NAMESPACE, "rollout", "status", "deployment", "--timeout=120s")
            (pod,) = json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
            status = pod["status"]
            ready = next(at(c["lastTransitionTime"]) for c in status["conditions"] if c["type"] == "Ready")
            whole.append(ready - at(status["startTime"]))
            own.append(ready - at(status["containerStatuses"][0]["state"]["running"]["startedAt"]))
            kubectl("-n", NAMESPACE, "delete", "pod", "--all", "--wait=true")
        print("\n| pods | on the node to ready, s | container started to ready, s |\n|---|---|---|")
        print(f"| {count} | {told(whole)} | {told(own)} |")
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def told(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def at(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def kubectl(*arguments: str, text: str | None = None) -> str:
    return subprocess.run(["kubectl", *arguments], input=text, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
