"""What a rendered pod runs, as a real process: its orders, command and environment, reached over TCP."""

import json
import os
import subprocess
import sys
import time

import httpx
import psutil
import pytest
from render_stage import by_kind, ground, service

from leptonai.plan.render import render

NOOP = "class Noop:\n    def predict(self, x: float = 0.0):\n        return {'y': x}\n"


def pod(tmp_path):
    """``(orders, command, environment)`` as the container has them, with folders of this machine for its mounts."""
    made = render(service(drain=5.0), ground()).objects
    orders = json.loads(by_kind(made, "ConfigMap")[0]["data"]["launch.json"])
    container = by_kind(made, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.py").write_text(NOOP)
    orders |= {"artifact": str(tmp_path / "model"), "run_dir": str(tmp_path), "socket": "127.0.0.1:0"}
    environment = {e["name"]: e.get("value", "digits-main-0-xyz") for e in container["env"]}
    command = [sys.executable, *container["command"][1:-1], str(tmp_path)]
    return orders, command, {**environment, "HOME": str(tmp_path), "PATH": os.environ["PATH"]}


def port_of(process):
    """The port it listens on, once it does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None
        seen = psutil.Process(process.pid)
        ask = getattr(seen, "net_connections", None) or seen.connections  # renamed in psutil 6
        found = [c for c in ask("tcp") if c.status == psutil.CONN_LISTEN]
        if found:
            return found[0].laddr.port
        time.sleep(0.02)
    raise AssertionError("it does not listen")


def test_a_replica_serves_over_tcp_and_takes_no_orders_there(tmp_path):
    orders, command, environment = pod(tmp_path)
    (tmp_path / "launch.json").write_text(json.dumps(orders))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port_of(process)}", timeout=30) as client:
            deadline = time.monotonic() + 60
            while client.get("/-/ready").status_code != 200:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.02)
            assert client.post("/predict", json={"x": 2.5}).json() == {"y": 2.5}
            for method, path in (("POST", "fault"), ("PUT", "batching"), ("POST", "answers"), ("POST", "recorded")):
                assert client.request(method, f"/-/{path}", json={}).status_code == 404
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_with_a_secret_a_replica_takes_orders_from_who_knows_it_and_from_nobody_else(tmp_path):
    orders, command, environment = pod(tmp_path)
    (tmp_path / "launch.json").write_text(json.dumps(orders))
    with (tmp_path / "log").open("w") as log:
        given = environment | {"LEPTONAI_ORDERS": "s3cret"}
        process = subprocess.Popen(command, env=given, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port_of(process)}", timeout=30) as client:
            deadline = time.monotonic() + 60
            while client.get("/-/ready").status_code != 200:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.02)
            known = {"authorization": "Bearer s3cret"}
            for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "Basic s3cret"}):
                for method, path in (
                    ("POST", "fault"),
                    ("PUT", "batching"),
                    ("POST", "recorded"),
                    ("GET", "predictions"),
                ):
                    answer = client.request(method, f"/-/{path}", headers=headers)
                    assert answer.status_code == 403 and "platform" in answer.json()["error"], path
            assert client.post("/predict", json={"x": 1.0}, headers={"x-request-id": "mine"}).status_code == 200
            place, lines = {"file": 0, "offset": 0}, b""
            while not lines:
                assert time.monotonic() < deadline
                after = f"{place['file']}:{place['offset']}"
                head, _, lines = client.get(f"/-/predictions?after={after}", headers=known).content.partition(b"\n")
                place = json.loads(head)
            assert json.loads(lines)["id"] == "mine" and place == {"file": 1, "offset": len(lines)}
            again = client.get(f"/-/predictions?after=1:{len(lines)}", headers=known).content
            assert again.partition(b"\n")[2] == b"", "what was read is not read again"
            assert client.get("/-/predictions?after=x", headers=known).status_code == 400
            halt = {"kind": "stop", "amount": 1.0, "heal_after": 600.0}
            assert client.post("/-/fault", json=halt, headers=known).status_code == 200
            with httpx.Client(base_url=client.base_url, timeout=0.5) as impatient, pytest.raises(httpx.ReadTimeout):
                impatient.get("/-/ready")
            assert client.post("/-/fault", json=halt | {"amount": 0.0}, headers=known).status_code == 200
            assert client.get("/-/ready").status_code == 200
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", [None, ""])
def test_a_replica_without_a_name_says_so(tmp_path, name):
    orders, command, environment = pod(tmp_path)
    (tmp_path / "launch.json").write_text(json.dumps(orders))
    del environment["LEPTONAI_REPLICA"]
    given = environment if name is None else environment | {"LEPTONAI_REPLICA": name}
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "LEPTONAI_REPLICA" in done.stderr and "Traceback" not in done.stderr
