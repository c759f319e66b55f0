"""Recorded requests, with real replicas: the old version is asked, the new one gets the same questions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from waiting import free_port

from leptonai.ops.recorded import Recorded, same
from leptonai.plan.rollout import Finding, Turn, Wait, decide
from leptonai.types import Canary, Dials, Launch, Replica, Rollout, Scale, Service, Spec, Variant, VariantDials

MODEL = """
class Adder:
    def predict(self, x: int):
        if x % 5 == 4 and {fails}:
            raise ValueError("no fives")
        return {{"sum": x + {add}}}
"""
OLD = Variant(model="old", idempotent=True)
CLEAR = [Finding(measure="errors", verdict="clear", text="0 of 500")]


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        (b'{"p": [1.0, 2]}', b'{"p": [1.04, 2]}', True),
        (b'{"p": [1.0, 2]}', b'{"p": [1.2, 2]}', False),
        (b'{"p": [1, 2]}', b'{"p": [1, 3]}', False),
        (b'{"id": "a", "outputs": [{"data": [0.5]}]}', b'{"id": "b", "outputs": [{"data": [0.5]}]}', True),
        (b'{"p": "cat"}', b'{"p": "dog"}', False),
        (b'{"p": 1}', b'{"q": 1}', False),
        (b"no JSON", b"no JSON", True),
        (b'{"p": null}', b'{"p": 0.0}', False),
    ],
)
def test_answers_are_alike_but_for_who_gave_them(a: bytes, b: bytes, alike: bool) -> None:
    assert same(a, b) is alike and same(b, a) is alike


def service(new: Variant, **canary: float) -> Service:
    spec = Spec(
        name="s",
        variants=(new,),
        scale=Scale(replicas=1),
        rollout=Rollout(strategy="canary", record=20, disagreement=0.1),
    )
    probation = Canary(stable=(OLD,), revision=1, **canary)  # type: ignore[arg-type]
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=1)}), revision=2, canary=probation)


@contextlib.contextmanager
def running(folder: Path, variant: Variant, add: int = 1, fails: bool = False, secret: str = "") -> Iterator[Replica]:
    """``secret``: as a pod, over TCP, where orders are for who knows it."""
    name = variant.model
    artifact, run = folder / f"{name}-model", folder / name
    artifact.mkdir()
    run.mkdir()
    (artifact / "model.py").write_text(MODEL.format(add=add, fails=fails))
    launch = Launch(
        replica=name, service="s", variant=variant, revision=1, artifact=str(artifact),
        socket=f"127.0.0.1:{free_port()}" if secret else str(folder / f"{name}.sock"), run_dir=str(run),
    )  # fmt: skip
    orders = {"LEPTONAI_ORDERS": secret} if secret else {}
    (run / "launch.json").write_bytes(msgspec.json.encode(launch))
    command = [sys.executable, "-m", "leptonai.runtime", str(run)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | orders) as process:
        try:
            end = time.monotonic() + 60
            with client(launch.socket) as http:
                while not (listens(launch.socket) and ready(http)):
                    assert time.monotonic() < end and process.poll() is None
                    time.sleep(0.05)
            yield Replica(
                id=name, service="s", variant="main", digest=variant.digest, state="ready", since=0.0,
                address=launch.socket if secret else f"unix:{launch.socket}",
            )  # fmt: skip
        finally:
            process.kill()


def client(path: str) -> httpx.Client:
    if not path.startswith("/"):
        return httpx.Client(base_url=f"http://{path}", timeout=30.0, trust_env=False)
    return httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://replica", timeout=30.0)


def listens(path: str) -> bool:
    if not path.startswith("/"):
        host, _, port = path.rpartition(":")
        with socket.socket() as tried:
            return tried.connect_ex((host, int(port))) == 0
    with socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(path) == 0


def ready(http: httpx.Client) -> bool:
    return http.get("/-/ready").status_code == 200


@pytest.mark.parametrize(
    ("name", "add", "fails", "verdict", "says"),
    [
        ("like", 1, False, "clear", "20 of 20 recorded requests were answered alike"),
        ("other", 2, False, "disagrees", 'recorded requests were answered alike, 20 differently; {"sum":'),
        ("broken", 1, True, "convicted", "which the old version answered, failed"),
    ],
)
def test_what_the_old_version_was_asked_is_put_to_the_new_one(
    short: Path, name: str, add: int, fails: bool, verdict: str, says: str
) -> None:
    new = Variant(model=name, idempotent=True)
    wish = service(new)
    with running(short, OLD) as old, running(short, new, add, fails) as fresh, client(old.address[5:]) as users:
        recorded, replicas = Recorded(), [old, fresh]

        def look() -> Finding:
            asyncio.run(recorded.step(wish, replicas))
            found = recorded.finding(wish)
            assert found is not None
            return found

        assert look().verdict == "not enough evidence", "nobody has asked since it is recorded"
        assert isinstance(decide(wish, replicas, [*CLEAR, look()], 10.0), Wait)
        for x in range(25):
            assert users.post("/predict", json={"x": x}).status_code == 200
        end = time.monotonic() + 30
        while (found := look()).verdict == "not enough evidence":
            assert time.monotonic() < end, found
        assert found.verdict == verdict and says in found.text
        move = decide(wish, replicas, [*CLEAR, found], 10.0)
        assert isinstance(move, Turn) is (verdict == "clear")
        begun = service(new, weight=0.01)
        if verdict == "disagrees":  # a person went on: the same answers do not stop it again
            assert isinstance(decide(begun, replicas, [*CLEAR, found], 1000.0), Turn)


def test_a_pod_says_what_it_was_asked_to_who_knows_the_secret(short: Path) -> None:
    new = Variant(model="like", idempotent=True)
    wish = service(new)
    with running(short, OLD, secret="s") as old, running(short, new, secret="s") as fresh, client(old.address) as users:
        known, guessed = Recorded(lambda: "s"), Recorded(lambda: "guessed")
        for recorded in (known, guessed):
            asyncio.run(recorded.step(wish, [old, fresh]))
        for x in range(25):
            assert users.post("/predict", json={"x": x}).status_code == 200
        asyncio.run(guessed.step(wish, [old, fresh]))
        assert not guessed.requests, "who does not know it hears nothing"
        end = time.monotonic() + 30
        while known.alike < 20:
            assert time.monotonic() < end
            asyncio.run(known.step(wish, [old, fresh]))


def test_it_is_only_for_those_who_want_it() -> None:
    wish = service(Variant(model="n"))
    without = msgspec.structs.replace(wish, spec=msgspec.structs.replace(wish.spec, rollout=Rollout()))
    assert Recorded().finding(without) is None
    assert Recorded().finding(service(Variant(model="n"), weight=0.05)) is None, "another watch asked before"
