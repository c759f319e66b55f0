"""Our platform, whole, as a user starts it; and the limit: the same gateway in front of a bare server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import gateway_cost
import msgspec

from peers.bodies import BINARY, BINARY_HEADERS, JSON, NO_OP, OIP, ROW
from peers.measure import Server, free_port, processes, until_answered

CLASS = """class NoOp:
    def predict(self, x: int) -> int:
        return x
"""


@contextlib.contextmanager
def ours(kind: str, replicas: int, body: str, network: Path) -> Iterator[Server | None]:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, processes(Path(scratch)) as (mark, env):
        folder = Path(scratch)

        def leptonai(*words: str) -> dict[str, object]:
            command = [sys.executable, "-m", "leptonai.cli", "--home", str(folder / "home"), *words, "--json"]
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(words)}: {done.stderr}")
            return dict(json.loads(done.stdout))

        (folder / "home").mkdir()
        settings = {"gateway": {"port": free_port()}, "api": {"port": 0}}
        (folder / "home" / "settings.yaml").write_bytes(msgspec.json.encode(settings))
        leptonai("up")
        model = folder / "model.py" if kind == "noop" else network
        if kind == "noop":
            model.write_text(CLASS)
        began = time.monotonic()
        view = leptonai("deploy", str(model), "--name", "model", "--replicas", str(replicas))
        base = str(view["url"])
        content, headers, path = {
            "predict": (NO_OP if kind == "noop" else ROW, JSON, "/predict"),
            "oip-json": (OIP, JSON, "/v2/models/model/infer"),
            "oip-binary": (BINARY, BINARY_HEADERS, "/v2/models/model/infer"),
        }[body]
        url = base.removesuffix("/services/model") + path if path.startswith("/v2") else base + path
        until_answered(url, content, headers, "ours")
        start = time.monotonic() - began
        try:
            yield Server(url, content, headers, mark, start, folder, ("leptonai.runtime", "envoy"))
        finally:
            with contextlib.suppress(SystemExit):
                leptonai("down")


@contextlib.contextmanager
def lean(kind: str, replicas: int, body: str, network: Path) -> Iterator[Server | None]:
    if kind != "noop" or replicas != 1:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, processes(Path(scratch)) as (mark, env):
        folder = Path(scratch)
        port, socket = free_port(), folder / "bare.sock"
        (folder / "envoy").mkdir()
        began = time.monotonic()
        bare = [sys.executable, str(Path(__file__).parent.parent / "bare_server.py"), str(socket)]
        for command in (bare, gateway_cost.configure(folder / "envoy", port, {"model": socket})):
            subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}/services/model/predict"
        until_answered(url, NO_OP, JSON, "the bare server")
        yield Server(url, NO_OP, JSON, mark, time.monotonic() - began, folder)
