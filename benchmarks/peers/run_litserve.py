"""LitServe: ``python run_litserve.py noop|onnx PORT REPLICAS MODEL.onnx``; REPLICAS workers of the device ``cpu``."""

import sys

import litserve as ls

kind, port, replicas, model = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


class NoOp(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def decode_request(self, request: dict) -> int:
        return request["x"]

    def predict(self, x: int) -> int:
        return x

    def encode_response(self, output: int) -> dict:
        return {"output": output}


class Mlp(NoOp):
    def setup(self, device: str) -> None:
        import numpy as np
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.np, self.session = np, ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict) -> list:
        return request["x"][0]

    def batch(self, inputs: list) -> object:
        return self.np.asarray(inputs, self.np.float32)

    def predict(self, x: object) -> object:
        return self.session.run(None, {"x": x})[0]

    def unbatch(self, output: object) -> list:
        return list(output.tolist())


if __name__ == "__main__":
    api = NoOp() if kind == "noop" else Mlp(max_batch_size=32, batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=replicas, fast_queue=True)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")
