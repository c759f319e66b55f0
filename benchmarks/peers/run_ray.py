"""Ray Serve as its documentation recommends for throughput: ``python run_ray.py noop|onnx PORT REPLICAS MODEL.onnx``.

RAY_SERVE_THROUGHPUT_OPTIMIZED and RAY_SERVE_ENABLE_HA_PROXY (set by the driver) bring the bundled HAProxy; the default
settings are an order of magnitude slower.
"""

import json
import sys
import time

import ray
from ray import serve
from starlette.requests import Request

kind, port, replicas, model = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


@serve.deployment(num_replicas=replicas, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.1})
class NoOp:
    async def __call__(self, request: Request) -> int:
        return json.loads(await request.body())["x"]


@serve.deployment(num_replicas=replicas, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.1})
class Mlp:
    def __init__(self) -> None:
        import numpy as np
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.np, self.session = np, ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.0)
    async def batched(self, rows: list) -> list:
        return self.session.run(None, {"x": self.np.asarray(rows, self.np.float32)})[0].tolist()

    async def __call__(self, request: Request) -> list:
        return await self.batched(json.loads(await request.body())["x"][0])


ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2)
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run((NoOp if kind == "noop" else Mlp).bind(), route_prefix="/predict")
print("serving", flush=True)
while True:
    time.sleep(3600)
