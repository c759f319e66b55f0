"""Batching in a real replica behind Envoy: adaptive against eager and a fixed window, on an ONNX network.

    python benchmarks/batching.py [--rounds 3] [--seconds 3] [--connections 1 16 64] [--threads 1]

The model is a fully connected network 784-512-512-10, fp32, relu, random weights of a fixed seed, written by this file
(``--model PATH`` leaves it there for peers). A request is one sample as JSON, ``{"inputs": {"x": [[784 numbers]]}}``,
the numbers those of a picture (most are 0). One replica for each policy behind one Envoy as the platform configures it;
wrk asks them in turn, and medians are compared. onnxruntime computes with ``--threads`` threads (default 1: two cores
are shared by wrk, Envoy, the replica's I/O loop and the model), Envoy has its usual threads. Wanted: adaptive at
>= 0.95 of the best of the others at every number of connections.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import httpx
import msgspec
import numpy as np
from gateway_cost import Sample, configure, cpu_seconds, free_port, measure, process, until

from leptonai.types import Batching, Launch, Variant

POLICIES = {
    "adaptive": Batching(),
    "eager": Batching(policy="eager"),
    "window": Batching(policy="eager", max_wait=5e-3),
}
LAYERS = (784, 512, 512, 10)


def network() -> bytes:
    """The ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    r = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for i, (n, m) in enumerate(itertools.pairwise(LAYERS)):
        w = (r.standard_normal((n, m)) / n**0.5).astype(np.float32)
        weights += [
            numpy_helper.from_array(w, f"w{i}"),
            numpy_helper.from_array(np.zeros(m, np.float32), f"b{i}"),
        ]
        last = i == len(LAYERS) - 2
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], ["y" if last else f"g{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"g{i}"], [f"r{i}"]))
            name = f"r{i}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", LAYERS[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", LAYERS[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def sample() -> str:
    """One request: 784 numbers, one in five of them not 0, as in a picture of a digit."""
    r = np.random.default_rng(1)
    row = np.where(r.random(LAYERS[0]) < 0.2, r.random(LAYERS[0]).round(3), 0.0)
    return json.dumps({"inputs": {"x": [[float(v) if v else 0 for v in row]]}}, separators=(",", ":"))


def prepare(folder: Path, name: str, batching: Batching, threads: int, socket: Path) -> list[str]:
    """A run directory as the platform makes it; returns the command that starts the replica."""
    run, model = folder / name, folder / f"{name}-model"
    run.mkdir()
    model.mkdir()
    (model / "mlp.onnx").write_bytes(network())
    variant = Variant(model="mlp", options={"threads": threads}, batching=batching, idempotent=True)
    launch = Launch(
        replica=f"{name}-1",
        service=name,
        variant=variant,
        revision=1,
        artifact=str(model),
        socket=str(socket),
        run_dir=str(run),
    )
    (run / "launch.json").write_bytes(msgspec.json.encode(launch))
    return [sys.executable, "-m", "leptonai.runtime", str(run)]


def metrics(socket: Path) -> dict[str, float]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
        lines = client.get("http://x/metrics").text.splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, help="write the model there and stop")
    asked = parser.parse_args()
    if asked.model:
        asked.model.write_bytes(network())
        return
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        script = folder / "post.lua"
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = '{sample()}'\nwrk.headers['content-type'] = 'application/json'\n"
        )
        sockets = {name: folder / f"{name}.sock" for name in POLICIES}
        pids = {}
        for name, batching in POLICIES.items():
            command = prepare(folder, name, batching, asked.threads, sockets[name])
            pids[name] = stack.enter_context(process(command, folder / f"{name}.log")).pid
        port = free_port()
        stack.enter_context(process(configure(folder / "envoy", port, sockets), folder / "envoy.log"))
        urls = {name: f"http://127.0.0.1:{port}/services/{name}/predict" for name in POLICIES}

        def answers(url: str) -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.post(url, content=sample(), trust_env=False).status_code == 200
            return False

        for url in urls.values():
            until(lambda url=url: answers(url), url)  # type: ignore[misc]
        for connections in asked.connections:
            got: dict[str, list[Sample]] = {name: [] for name in POLICIES}
            sizes = {}
            for name, url in urls.items():
                measure(url, pids[name], script, 1, connections)
            before = {name: metrics(socket) for name, socket in sockets.items()}
            for _ in range(asked.rounds):
                for name, url in urls.items():
                    got[name].append(measure(url, pids[name], script, asked.seconds, connections))
            for name, socket in sockets.items():
                after = metrics(socket)
                runs, samples = (
                    after[f"leptonai_batch_size_{what}"] - before[name][f"leptonai_batch_size_{what}"]
                    for what in ("count", "sum")
                )
                sizes[name] = samples / max(1.0, runs)
            show(connections, got, sizes)
        learnt = metrics(sockets["adaptive"])
        a, b = (learnt[f"leptonai_batch_cost_{what}"] for what in ("seconds_per_sample", "fixed_seconds"))
        print(f"learnt: t(n) = {a * 1e6:.1f} us n + {b * 1e6:.1f} us; intra-op threads {asked.threads}")
        assert all(cpu_seconds(pid) > 0 for pid in pids.values())


def show(connections: int, got: dict[str, list[Sample]], sizes: dict[str, float]) -> None:
    medians = {name: [statistics.median(values) for values in zip(*g, strict=True)] for name, g in got.items()}
    print(f"{connections} connections, medians of {len(got['eager'])} interleaved rounds")
    for name, (rate, p99, cpu, errors) in medians.items():
        print(
            f"  {name:9}{rate:9.0f} req/s  p99 {p99 * 1e3:6.1f} ms  {cpu:5.1f} us CPU a request"
            f"  {sizes[name]:4.1f} samples a batch  {errors:g} errors"
        )
    best = max(medians["eager"][0], medians["window"][0])
    print(f"  adaptive / best of the others: {medians['adaptive'][0] / best:.2f} (wanted >= 0.95)")


if __name__ == "__main__":
    main()
