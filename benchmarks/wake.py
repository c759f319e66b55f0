"""From zero: a request to a sleeping service until its answer, with the demo's ONNX digits. The bar is 1.5 s.

    python benchmarks/wake.py [--times 5]

The whole platform, brought up as a person does. Before each request a person lets the service go to zero; what the
seconds went to is read from the audit log. The exit code says whether the median holds the bar.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from control_idle import cli, wait

from leptonai.client import Client
from leptonai.drill.train import train
from leptonai.serve import spec as texts
from leptonai.types import SpecChange

BAR = 1.5  # seconds
STAGES = {"proposal.admitted": "asked for", "replica.started": "process started", "replica.ready": "ready"}


def wake(client: Client, url: str, image: list[float]) -> tuple[float, dict[str, float]]:
    """Seconds from the request to its answer, and until each stage."""
    began = time.time()
    answer = httpx.post(url, json={"image": [image]}, timeout=30.0, trust_env=False)
    seconds = time.time() - began
    answer.raise_for_status()
    return seconds, {e.kind: e.at - began for e in client.events(limit=100) if e.at >= began and e.kind in STAGES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    found: list[float] = []
    with tempfile.TemporaryDirectory(prefix="leptonai-bench-") as name:
        folder, home = Path(name), Path(name) / "home"
        digits = train(folder / "models")
        cli(home, "up", "--api-port", "0", "--gateway-port", "0")
        try:
            with Client(home=home) as client:
                model = client.upload(digits.good)
                scale = {"min": 0, "replicas": 1, "idle": "1h"}
                client.wish(
                    SpecChange(spec=texts.parse({"name": "digits", "model": model, "scale": scale}), base=0), ""
                )
                wait(lambda: client.service("digits").ready, "it is served once")
                url = f"{client.service('digits').url}/predict"
                for _ in range(asked.times):
                    client.scale("digits", 0)
                    wait(lambda: not client.service("digits").replicas, "it is at zero")
                    time.sleep(1.0)
                    seconds, stages = wake(client, url, digits.live.image[0].tolist())
                    found.append(seconds)
                    told = ", ".join(
                        f"{STAGES[kind]} {at:.2f}" for kind, at in sorted(stages.items(), key=lambda x: x[1])
                    )
                    print(f"{seconds:.2f} s ({told}; load average {os.getloadavg()[0]:.0f})", flush=True)
        finally:
            cli(home, "down")
    print(f"median {statistics.median(found):.2f} s (bar: < {BAR} s)")
    return 0 if statistics.median(found) < BAR else 1


if __name__ == "__main__":
    sys.exit(main())
