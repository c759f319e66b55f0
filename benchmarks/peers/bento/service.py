"""The two services of run_bentoml.py; adaptive batching with its documented defaults, workers as told."""

import os

import bentoml
import numpy as np

WORKERS = int(os.environ.get("BENCH_REPLICAS", "1"))
MODEL = os.environ.get("BENCH_MODEL", "")


@bentoml.service(
    workers=WORKERS, traffic={"timeout": 30, "max_concurrency": 1000}, logging={"access": {"enabled": False}}
)
class NoOp:
    @bentoml.api
    async def predict(self, x: int) -> int:
        return x


@bentoml.service(workers=WORKERS, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Mlp:
    def __init__(self) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60000)
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"x": x.astype(np.float32)})[0]
