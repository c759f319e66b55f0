"""BentoML: ``python run_bentoml.py noop|onnx PORT REPLICAS MODEL.onnx``: ``bentoml serve`` with REPLICAS workers."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent

if __name__ == "__main__":
    kind, port, replicas, model = sys.argv[1:5]
    os.environ |= {"BENCH_MODEL": str(Path(model).resolve()), "BENCH_REPLICAS": replicas, "BENTOML_DO_NOT_TRACK": "1"}
    os.chdir(HERE / "bento")
    target = "service:NoOp" if kind == "noop" else "service:Mlp"
    program = str(Path(sys.executable).parent / "bentoml")
    os.execv(program, [program, "serve", target, "--host", "127.0.0.1", "--port", port])
