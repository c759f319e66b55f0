"""Binary tensors against JSON, and against an echo of bytes, through Envoy with the platform's own configuration.

    python benchmarks/protocol_binary.py [--rounds 5] [--seconds 2]

One replica whose ``predict`` returns its fp32 tensor, and beside it a server that returns the body it got and reads
nothing. Claims: 1x784 fp32 as binary >= 2 x the same as JSON; a tensor of 150,000 floats, in and out, >= 0.8 x the echo
of as many bytes. Measured in turn by wrk, medians of the rounds. Needs wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import gateway_cost as stage
import httptools
import httpx
import numpy as np
import uvloop

MODEL = """import numpy as np
from numpy.typing import NDArray

class Echo:
    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x
"""
LUA = """local f = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = f:read("*a")
wrk.headers["content-type"] = "{kind}"
{more}
"""
INFER = "/v2/models/replica/infer"


class Echo(asyncio.Protocol):
    """Gives back what it got: the least that any server must do with a body of this size."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.parts: list[bytes] = []
        self.on_body = self.parts.append
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        body = b"".join(self.parts)
        self.parts.clear()
        self.transport.writelines([b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body])


async def serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Echo, path)
    await server.serve_forever()


def script(folder: Path, name: str, body: bytes, json_size: int) -> Path:
    (folder / f"{name}.body").write_bytes(body)
    more = f'wrk.headers["inference-header-content-length"] = "{json_size}"' if json_size else ""
    kind = "application/octet-stream" if json_size else "application/json"
    path = folder / f"{name}.lua"
    path.write_text(LUA.format(body=folder / f"{name}.body", kind=kind, more=more))
    return path


def bodies(size: int) -> dict[str, tuple[bytes, int]]:
    """The same tensor as JSON and as binary, the JSON part of which asks for a binary answer."""
    x = np.random.default_rng(1).random((1, size), np.float32)
    about = {"name": "x", "shape": [1, size], "datatype": "FP32"}
    plain = json.dumps({"inputs": [{**about, "data": [float(v) for v in x[0].astype(float).round(6)]}]}).encode()
    asked = {
        "inputs": [{**about, "parameters": {"binary_data_size": x.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(asked).encode()
    return {"json": (plain, 0), "binary": (head + x.tobytes(), len(head))}


def main() -> None:
    if sys.argv[1:2] == ["echo"]:
        uvloop.run(serve(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sockets = {kind: folder / f"{kind}.sock" for kind in ("replica", "echo")}
        stage.NO_OP = MODEL
        ours = stack.enter_context(stage.process(stage.prepare_replica(folder, sockets["replica"]), folder / "r.log"))
        command = [sys.executable, __file__, "echo", str(sockets["echo"])]
        echo = stack.enter_context(stage.process(command, folder / "e.log"))
        port = stage.free_port()
        stack.enter_context(stage.process(stage.configure(folder / "envoy", port, sockets), folder / "envoy.log"))
        small, large = bodies(784), bodies(150_000)
        cases = {
            "1x784 JSON": (INFER, ours.pid, small["json"], 16),
            "1x784 binary": (INFER, ours.pid, small["binary"], 16),
            "150k binary": (INFER, ours.pid, large["binary"], 8),
            "150k byte echo": ("/services/echo/predict", echo.pid, large["binary"], 8),
        }
        rates: dict[str, list[stage.Sample]] = {case: [] for case in cases}
        scripts = {c: script(folder, str(i), *body) for i, (c, (_, _, body, _)) in enumerate(cases.items())}
        for path, _, (body, size), _ in cases.values():
            headers = {"inference-header-content-length": str(size)} if size else {}
            url = f"http://127.0.0.1:{port}{path}"
            stage.until(lambda u=url, b=body, h=headers: answered(u, b, h), path)  # type: ignore[misc]
        for _ in range(asked.rounds + 1):  # the first round warms up
            for case, (path, pid, _, connections) in cases.items():
                url = f"http://127.0.0.1:{port}{path}"
                rates[case].append(stage.measure(url, pid, scripts[case], asked.seconds, connections))
    medians = {case: statistics.median(s.rate for s in samples[1:]) for case, samples in rates.items()}
    for case, rate in medians.items():
        cpu = statistics.median(s.cpu for s in rates[case][1:])
        print(f"{case:16} {rate:9.0f} req/s  {cpu:7.1f} us CPU a request  {sum(s.errors for s in rates[case])} errors")
    print(f"1x784 binary / JSON  {medians['1x784 binary'] / medians['1x784 JSON']:.2f} (wanted >= 2)")
    print(f"150k binary / echo   {medians['150k binary'] / medians['150k byte echo']:.2f} (wanted >= 0.8)")


def answered(url: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        return httpx.post(url, content=body, headers=headers, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
