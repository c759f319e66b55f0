"""Two copies of the platform on one database and a real cluster, beside a gateway: either may go at any time."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gate_stage import loopback
from kube_stage import Namespace, image, needs_cluster
from waiting import eventually, free_port

from leptonai.client import Client
from leptonai.client.home import Home, read_json
from leptonai.errors import LeptonError
from leptonai.testing.postgres import PostgresServer, programs
from leptonai.types import DialChange, Scale, Spec, SpecChange, Variant

pytestmark = [needs_cluster, pytest.mark.world, pytest.mark.timeout(900)]
LEASE = 6.0


class Copy:
    """One copy, as its pod runs it: in the foreground, with its own address in its environment."""

    def __init__(self, home: Path, space: Namespace, store: str, template: str) -> None:
        self.home, self.address, self.port = home, loopback(), free_port()
        self.url = f"http://{self.address}:{self.port}"
        home.mkdir(mode=0o700)
        wanted = {"enabled": True, "namespace": space.name, "gateway_pods": True, "lease": LEASE, "image": template}
        chosen = {"api": {"host": self.address, "port": self.port}, "kubernetes": wanted, "store": {"url": store}}
        (home / "settings.yaml").write_text(json.dumps(chosen))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "leptonai.cli", "--home", str(self.home), "up", "--foreground"]
        self.process = subprocess.Popen(command, env=os.environ | {"LEPTONAI_ADDRESS": self.address})

    def ready(self) -> bool:
        """As the kubelet asks."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/api/v1/healthz", timeout=2.0, trust_env=False).status_code == 200
        return False

    def serves(self) -> bool:
        """Its own control answers, instead of leading elsewhere."""
        return read_json(Home(self.home).control) is not None and self.ready()

    def kill(self) -> None:
        """Its node is gone: all of it at once."""
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.home) in file.read_bytes().decode(errors="replace").split("\0"):
                    os.kill(int(file.parent.name), signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        Home(self.home).control.unlink(missing_ok=True)

    def end(self) -> None:
        """As a pod that is replaced is ended."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(60.0) == 0
        Home(self.home).control.unlink(missing_ok=True)


class Users:
    """Ask one after another, 20 a second, until ``stop``."""

    def __init__(self, url: str) -> None:
        self.sent, self.failed, self._url, self._stop = 0, list[str](), url, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with httpx.Client(timeout=30.0, trust_env=False) as client:
            while not self._stop.wait(0.05):
                self.sent += 1
                try:
                    answer = client.post(self._url, json={"x": 21})
                    if answer.status_code != 200:
                        self.failed.append(answer.text)
                except httpx.HTTPError as e:
                    self.failed.append(repr(e))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"standby-{secrets.token_hex(4)}")
    yield made
    made.delete()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip("NOT TESTED: no PostgreSQL server is installed; sh tests/setup.sh")
    with PostgresServer() as server:
        yield server


@contextlib.contextmanager
def gateway(home: Path, space: Namespace) -> Iterator[str]:
    """A gateway's own process, as its pod runs it; where it answers."""
    home.mkdir()
    host, port = loopback(), free_port()
    settings = {"gateway": {"host": host, "port": port}, "kubernetes": {"namespace": space.name}}
    (home / "settings.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-P", "-m", "leptonai.daemon.gateway", "--home", str(home), "--host", host]
    process = subprocess.Popen([*command, "--pages", str(free_port())])
    try:
        yield f"http://{host}:{port}"
    finally:
        process.terminate()
        process.wait(120.0)


def test_either_copy_may_go_both_are_ready_and_no_request_is_lost(
    space: Namespace, server: PostgresServer, tmp_path: Path
) -> None:
    template, digests = image()
    store = server.database()
    one, other = (Copy(tmp_path / name, space, store, template) for name in ("one", "other"))
    users: Users | None = None
    one.start()
    try:
        eventually(one.serves, "the first leads", 180)
        other.start()
        eventually(other.ready, "the other is ready, for it sees who leads", 180)
        assert not other.serves(), "and has no control of its own"
        with Client(one.url, token=(one.home / "token").read_text().strip()) as client:
            token = client.create_token("ana", "admin", ["*"]).secret  # a copy's own end with its lead

        def asked(copy: Copy) -> Client:
            return Client(copy.url, token=token)

        spec = Spec(
            name="digits", variants=(Variant(model=digests["a"], idempotent=True),),
            scale=Scale(replicas=1, max=4), drain=1.0,
        )  # fmt: skip
        with asked(other) as client:
            leader = client.platform()["leader"]
            assert leader["leads"], "led on to the first"
            client.propose(SpecChange(spec=spec, base=0), "by way of the one that stands by")
            eventually(lambda: [r.state for r in client.replicas("digits")] == ["ready"], "a pod is ready", 240)
        with gateway(tmp_path / "gateway", space) as url:
            asks = f"{url}/services/digits/predict"

            def answers() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return httpx.post(asks, json={"x": 21}, timeout=5.0, trust_env=False).status_code == 200
                return False

            def scaled(copy: Copy, replicas: int) -> bool:
                with contextlib.suppress(LeptonError), asked(copy) as client:
                    change = DialChange(service="digits", set={"main.replicas": float(replicas)})
                    return client.propose(change, "who leads acts").status == "admitted"
                return False

            def runs(copy: Copy, replicas: int) -> bool:
                with contextlib.suppress(LeptonError), asked(copy) as client:
                    return [r.state for r in client.replicas("digits")] == ["ready"] * replicas
                return False

            eventually(answers, "the gateway leads to it", 120)
            users = Users(asks)
            one.kill()
            began = time.monotonic()
            eventually(lambda: scaled(other, 2), "the other leads and takes wishes", 180)
            print(f"killed: the other led {time.monotonic() - began:.1f} s later")
            eventually(lambda: runs(other, 2), "and acts", 240)
            with asked(other) as client:
                assert client.platform()["leader"]["identity"] != leader["identity"]

            one.start()  # as rolled: first the one that stands by, then, once that is ready, the one that leads
            eventually(one.ready, "the first stands by", 180)
            assert not one.serves()
            began = time.monotonic()
            other.end()
            eventually(lambda: scaled(one, 1), "the first leads again", 180)
            print(f"ended: the first led {time.monotonic() - began:.1f} s later")
            other.start()
            eventually(other.ready, "rolled: both are ready", 180)
            eventually(lambda: runs(one, 1), "and the leader acts", 240)
            users.stop()
            print(f"{users.sent} requests, {len(users.failed)} failed")
            assert users.sent and users.failed == []
    finally:
        if users is not None:
            users.stop()
        for copy in (one, other):
            copy.kill()
