"""Serving beside the peers: BentoML, LitServe, MLServer and Ray Serve, each at its best documented setting.

    make bench-serving                                     everything: makes the peers' environments first
    python benchmarks/serving.py --peers DIR [--rounds 3] [--seconds 3] [--only noop-64,onnx] [--json FILE]
    python benchmarks/serving.py --read FILE [FILE ...]    the tables of docs/benchmarks.md from such files

``DIR/<peer>/bin/python`` are the peers' own environments, from ``benchmarks/peers/requirements-<peer>.txt``. A peer
without one is left out, loudly. Ours is the whole platform (gateway, control, ops), from the ``leptonai`` beside this
interpreter; ``lean`` is the limit: our gateway in front of ``bare_server.py``. One scenario at a time every server is
started, measured by wrk with one thread, and stopped, round by round; medians over the rounds are printed with the
ratio to the best peer. All traffic is loopback TCP, keep-alive; nothing else of ours runs. Everyone's network runs
with one thread of onnxruntime and batches of at most 32.

Scenarios: noop-1, noop-64 (JSON in and out, one replica), two-64 (two replicas), onnx (784-512-512-10 fp32 with
batching, 64 connections), oip-json and oip-binary (one row of 784 to the same network, 16 connections). Beside speed
each row has the memory of the whole process tree after the traffic (PSS; "of the path": Envoy and replicas only) and
the seconds to the first 200: of the peers from nothing, of ours from ``deploy`` on a running platform.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from peers.measure import Run, table
from peers.mlp import write as write_mlp
from peers.others import OTHERS, other
from peers.ours import lean, ours
from peers.report import markdown

SCENARIOS = {
    # name: (kind, replicas, path of the request, connections)
    "noop-1": ("noop", 1, "predict", 1),
    "noop-64": ("noop", 1, "predict", 64),
    "two-64": ("noop", 2, "predict", 64),
    "onnx": ("onnx", 1, "predict", 64),
    "oip-json": ("onnx", 1, "oip-json", 16),
    "oip-binary": ("onnx", 1, "oip-binary", 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", type=Path, nargs="+")
    options = parser.parse_args()
    if options.read:
        print(markdown([Run(**run) for file in options.read for run in json.loads(file.read_text())]))
        return
    folder = Path(__file__).parent / "peers"
    network = write_mlp(options.peers / "mlp.onnx")
    servers = {"leptonai": ours, "lean": lean}
    for name in OTHERS:
        if (options.peers / name / "bin" / "python").exists():
            servers[name] = other(name, options.peers / name, folder)
        else:
            print(
                f"LEFT OUT: {name}: no {options.peers / name}/bin/python (make bench-serving makes it)", file=sys.stderr
            )
    runs: list[Run] = []
    for scenario in options.only.split(","):
        kind, replicas, body, connections = SCENARIOS[scenario]
        for number in range(options.rounds):
            for name, start in servers.items():
                with start(kind, replicas, body, network) as server:
                    if server is None:  # it has no such door
                        continue
                    run = server.measure(scenario, name, connections, options.seconds)
                runs.append(run)
                print(f"{scenario:11} round {number + 1} {run.line()}", file=sys.stderr, flush=True)
        table(scenario, [r for r in runs if r.scenario == scenario])
    if options.json:
        options.json.write_text(json.dumps([r.__dict__ for r in runs], indent=1))
    errors = sum(r.errors for r in runs if r.server == "leptonai")
    print(f"answers of ours other than 200: {errors}")
    print(markdown(runs))


if __name__ == "__main__":
    main()
