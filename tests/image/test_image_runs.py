"""An image is proven by what it runs: a root file system of Debian packages, an ONNX model, a request answered."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from image_stage import build, unpack

pytestmark = [
    pytest.mark.world,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the root"),
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt, so no Debian packages"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model that tells which of 64 numbers is the largest, built on Debian packages."""
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("digits")
    told = helper.make_node("ArgMax", ["image"], ["label"], axis=1, keepdims=0)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 64])
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
    model = helper.make_model(helper.make_graph([told], "digits", [image], [label]), ir_version=10)
    model.opset_import[0].version = 17
    onnx.save(model, folder / "digits.onnx")
    done = build(folder / "digits.onnx", "-o", folder / "digits.tar", cwd=folder)
    if done.returncode == 4 or "has no lists" in done.stderr:
        pytest.skip(f"no Debian archive here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def asked(folder: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of the image's entry point, run as its user in its file system, with nothing of this machine's."""
    root = unpack(folder / "digits.tar", tmp_path / "root")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    orders = root / "run/leptonai/launch.json"
    launch = json.loads(orders.read_text())
    orders.write_text(json.dumps(launch | {"socket": f"127.0.0.1:{port}"}))
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))  # every container has it from its engine
    (root / "dev/null").chmod(0o666)
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [
            "/usr/sbin/chroot",
            "--userspec=61184:61184",
            str(root),
            "python",
            "-P",
            "-m",
            "leptonai.runtime",
            "/run/leptonai",
        ],
        env={"PATH": "/opt/leptonai/bin:/usr/bin", "LEPTONAI_REPLICA": "one", "HOME": "/run/leptonai"},
        cwd="/",
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            deadline = time.monotonic() + 60
            while True:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                try:
                    if client.get("/-/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            yield client
    finally:
        process.kill()
        process.wait()
        log.close()


def test_it_answers_as_the_model_does(asked: httpx.Client) -> None:
    image = np.eye(64, dtype=np.float32)[[3, 41]].tolist()
    body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [2, 64], "data": image}]}
    answer = asked.post("/v2/models/digits/infer", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [3, 41]


def test_it_holds_no_shell_and_no_packager_and_says_what_it_holds(folder: Path, tmp_path: Path) -> None:
    root = unpack(folder / "digits.tar", tmp_path / "root")
    for program in ("sh", "bash", "dpkg", "apt-get", "perl"):
        assert not (root / "usr/bin" / program).exists()
    lock = json.loads((folder / "digits.lock.json").read_text())
    packages = {p["name"] for p in lock["debian"]}
    assert {"libc6", f"python3.{sys.version_info.minor}-minimal"} <= packages or "libc6" in packages
    assert {p.name for p in (root / "var/lib/dpkg/status.d").iterdir()} == packages
    assert "onnxruntime" in {p["name"] for p in lock["python"]}
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 50
