"""The requests: one small JSON body, and one row of 784 numbers in each spelling."""

import json

import numpy as np

_ROW = np.random.default_rng(0).random((1, 784)).astype(np.float32).round(4)

JSON = {"content-type": "application/json"}
NO_OP = b'{"x": 1}'
ROW = json.dumps({"x": [[round(float(v), 4) for v in _ROW[0]]]}).encode()
OIP_NO_OP = b'{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}'
OIP = json.dumps(
    {
        "inputs": [
            {"name": "x", "shape": [1, 784], "datatype": "FP32", "data": [round(float(v), 4) for v in _ROW[0]]},
        ]
    }
).encode()
_HEAD = json.dumps(
    {
        "inputs": [
            {"name": "x", "shape": [1, 784], "datatype": "FP32", "parameters": {"binary_data_size": _ROW.nbytes}}
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
BINARY = _HEAD + _ROW.tobytes()
BINARY_HEADERS = {
    "content-type": "application/octet-stream",
    "inference-header-content-length": str(len(_HEAD)),
}
