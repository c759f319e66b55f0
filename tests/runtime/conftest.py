"""Real replica processes on Unix sockets, and real models to run in them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from leptonai.types import Batching, Launch, Variant

NOOP = """
class Noop:
    def predict(self, x: float = 0.0):
        return {"y": x}
"""

EAGER = Batching()


class Running:
    """One replica process and a client on its socket."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], socket: str) -> None:
        self.folder = folder
        self.process = process
        self.socket = socket
        self.client = httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://replica", timeout=30)

    def ready(self) -> dict[str, Any]:
        try:
            with self.raw():  # httpx leaks its socket when a connect fails
                pass
            return dict(self.client.get("/-/ready").json())
        except (OSError, httpx.TransportError):
            return {"state": "none", "reason": "", "detail": ""}

    def until(self, done: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Poll until ``done`` gives something true; its value."""
        deadline = time.monotonic() + seconds
        while True:
            value = done()
            if value:
                return value
            assert time.monotonic() < deadline, f"not within {seconds} s; log:\n{self.log()}"
            time.sleep(0.02)

    def wait_ready(self) -> Running:
        # Importing scikit-learn or torch takes long on a machine that does twenty other things.
        self.until(lambda: self.ready()["state"] == "ready" or self.process.poll() is not None, 120.0)
        assert self.process.poll() is None, self.log()
        return self

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def failure(self) -> dict[str, Any]:
        """What failure.json says, once the process has ended with exit code 8."""
        assert self.process.wait(60) == 8, self.log()
        return dict(json.loads((self.folder / "failure.json").read_bytes()))

    def predict(self, body: Any, **headers: str) -> httpx.Response:
        return self.client.post("/predict", json=body, headers=headers)

    def infer(self, *inputs: dict[str, Any], **more: Any) -> httpx.Response:
        return self.client.post("/v2/models/m/infer", json={"inputs": list(inputs), **more})

    def metrics(self) -> dict[str, float]:
        """Samples by ``name{labels}``, parsed by the reference client."""
        from prometheus_client.parser import text_string_to_metric_families

        found = {}
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            for sample in family.samples:
                labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def predictions(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "predictions").glob("*.jsonl"))
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]

    def raw(self) -> socket.socket:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        try:
            s.connect(self.socket)
        except OSError:
            s.close()
            raise
        return s

    def talk(self, data: bytes, patience: float = 20.0) -> bytes:
        """Send bytes, read until the replica closes; TimeoutError when it is silent for so many seconds."""
        with self.raw() as s:
            s.settimeout(patience)
            s.sendall(data)
            got = b""
            while part := s.recv(65536):
                got += part
            return got

    def connection(self) -> http.client.HTTPConnection:
        c = http.client.HTTPConnection("replica", timeout=30)
        c.sock = self.raw()
        return c


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Running]]:
    """Start a replica of a folder of files ``{name: text or bytes}``; all are stopped at the end of the module."""
    root = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))  # short: a socket's path has 108 bytes
    started: list[Running] = []

    def begin(
        files: dict[str, str | bytes],
        *,
        batching: Batching = EAGER,
        environment: dict[str, str] | None = None,
        log_bytes: int = 8_000_000,
        timeout: float = 30.0,
        drain: float = 30.0,
        **variant: Any,
    ) -> Running:
        folder = root / str(len(started))
        artifact = folder / "model"
        artifact.mkdir(parents=True)
        for name, content in files.items():
            (artifact / name).write_bytes(content.encode() if isinstance(content, str) else content)
        launch = Launch(
            replica="m-1",
            service="m",
            variant=Variant(model="sha256:" + "0" * 64, batching=batching, **variant),
            revision=3,
            artifact=str(artifact),
            socket=str(folder / "s"),
            run_dir=str(folder),
            timeout=timeout,
            drain=drain,
            prediction_log_bytes=log_bytes,
        )
        (folder / "launch.json").write_bytes(msgspec.json.encode(launch))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "leptonai.runtime", str(folder)],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        started.append(Running(folder, process, launch.socket))
        return started[-1]

    yield begin
    for running in started:
        running.client.close()
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGKILL)
        running.process.wait()
    shutil.rmtree(root)


class Trained:
    """A scikit-learn classifier of real digits, and its spellings."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits
        from sklearn.linear_model import LogisticRegression

        x, self.y = load_digits(return_X_y=True)
        self.x = x.astype(np.float32)
        self.model = LogisticRegression(max_iter=50, tol=1e-2).fit(self.x / 16, self.y)

    def onnx(self) -> bytes:
        from skl2onnx import to_onnx

        return bytes(to_onnx(self.model, self.x[:1], options={"zipmap": False}).SerializeToString())

    def golden(self) -> str:
        labels = self.model.predict(self.x[:3] / 16)
        return json.dumps([{"inputs": {"X": (self.x[:3] / 16).tolist()}, "outputs": {"label": labels.tolist()}}])


@pytest.fixture(scope="session")
def digits() -> Trained:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Trained()


@pytest.fixture(scope="session")
def digits_onnx(digits: Trained) -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return digits.onnx()
