"""The peers, each started by its own file and interpreter. What a scenario asks of them, in their own words."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from peers.bodies import JSON, NO_OP, OIP, OIP_NO_OP, ROW
from peers.measure import Server, free_port, processes, until_answered

OTHERS = ("ray", "mlserver", "litserve", "bentoml")
BEST = {"ray": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}}

Start = Callable[[str, int, str, Path], contextlib.AbstractContextManager[Server | None]]


def other(name: str, environment: Path, folder: Path) -> Start:
    @contextlib.contextmanager
    def start(kind: str, replicas: int, body: str, network: Path) -> Iterator[Server | None]:
        if body == "oip-binary" or (body == "oip-json" and name != "mlserver"):
            yield None
            return
        port = free_port()
        ports = {"BENCH_GRPC_PORT": str(free_port()), "BENCH_METRICS_PORT": str(free_port())}
        content, path = NO_OP if kind == "noop" else ROW, "/predict"
        if name == "mlserver" and (kind == "onnx" or replicas > 1):  # its only way to batches and to workers
            content, path = OIP if kind == "onnx" else OIP_NO_OP, "/v2/models/model/infer"
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch, processes(Path(scratch)) as (mark, env):
            command = [str(environment.absolute() / "bin" / "python"), str(folder / f"run_{name}.py")]
            began = time.monotonic()
            with Path(scratch, "log").open("wb") as log:
                subprocess.Popen(
                    [*command, kind, str(port), str(replicas), str(network.absolute())],
                    env=env | ports | BEST.get(name, {}),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            url = f"http://127.0.0.1:{port}{path}"
            until_answered(url, content, JSON, f"{name}, see {scratch}/log")
            yield Server(url, content, JSON, mark, time.monotonic() - began, Path(scratch))

    return start
