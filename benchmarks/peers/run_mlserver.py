"""MLServer in-process (its fastest way) or with workers: ``python run_mlserver.py noop|onnx PORT REPLICAS MODEL.onnx``.

The no-op answers the plain JSON body at ``/predict`` by a custom handler, which parallel workers cannot run (the
request does not cross the border of a process): with workers it is asked at ``/v2``, as the network always is.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

if __name__ == "__main__":
    kind, port, replicas, model = sys.argv[1:5]
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_FOLDER")))
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": int(port),
        "grpc_port": int(os.environ["BENCH_GRPC_PORT"]),
        "metrics_port": int(os.environ["BENCH_METRICS_PORT"]),
        "parallel_workers": 0 if replicas == "1" else int(replicas),
        "logging_settings": None,
        "metrics_dir": str(folder),
    }
    batching = {"max_batch_size": 32, "max_batch_time": 0.001} if kind == "onnx" else {}
    implementation = "runtimes.NoOp" if kind == "noop" else "runtimes.Mlp"
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(
        json.dumps(
            {"name": "model", "implementation": implementation, "parameters": {"uri": str(Path(model).resolve())}}
            | batching
        )
    )
    os.environ["PYTHONPATH"] = str(HERE / "mlserver_runtimes")
    program = str(Path(sys.executable).parent / "mlserver")
    os.execv(program, [program, "start", str(folder)])
