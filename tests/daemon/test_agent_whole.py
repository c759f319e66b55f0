"""The agent, the import and the export of traces as people run them: real commands, a real platform, real deaths."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from waiting import eventually

from leptonai.errors import LeptonError

if TYPE_CHECKING:
    from daemon_machine import Machine

pytestmark = pytest.mark.world


class Collector(http.server.BaseHTTPRequestHandler):
    """A collector of OTLP traces that is busy at first."""

    got: list[Any]
    busy: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if type(self).busy:
            self.send_response(type(self).busy.pop())
        else:
            assert self.headers["content-type"] == "application/x-protobuf" and self.headers["x-tenant"] == "shop"
            plain = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            type(self).got.append(ExportTraceServiceRequest.FromString(plain))
            self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    kind = type("Own", (Collector,), {"got": [], "busy": [503]})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", kind.got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Agent:
    """``leptonai agent`` as a process, started anew after each death."""

    def __init__(self, work: Path, url: str, token: str, log: Path) -> None:
        self.command = [sys.executable, "-m", "leptonai.cli", "agent", "--to", url, "--name", "till"]
        self.command += ["--token", token, "--buffer", str(work / "buffer"), "--log", str(log), "--interval", "0.2"]
        self.errors = work / "agent.err"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.errors.open("ab") as err:
            self.process = subprocess.Popen(self.command, stdout=err, stderr=err)

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)


def test_agent_import_and_trace_export_over_deaths_of_both_sides(machine: Machine) -> None:
    """What the agent saw while the link was down, and over its own ``kill -9``, arrives once and in order."""
    with collector() as (address, spans):
        machine.home.mkdir()
        (machine.home / "settings.yaml").write_text(
            f"api: {{port: 0}}\ngateway: {{port: 0, trace_share: 1.0}}\n"
            f"traces: {{export_url: '{address}', export_headers: {{x-tenant: shop}}}}\n"
        )
        machine.run("up")
        machine.run("deploy", str(machine.model(2)))
        secret = machine.run("token", "create", "till", "--role", "operator").stdout.strip()
        log = machine.work / "till.log"
        log.write_text("")
        with machine.client() as client:
            url = client.service("doubler").url
            agent = Agent(machine.work, client.url, secret, log)
            told(machine, client, agent, log)
            imported(machine, client)

            def names() -> set[str]:
                assert httpx.post(f"{url}/predict", json={"x": 3}, timeout=30.0).status_code == 200
                return {
                    span.name
                    for request in spans
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                }

            wanted = {"gateway doubler", "predict doubler", "compute"}
            eventually(lambda: wanted <= names(), "spans arrive at the collector, which was busy at first")


def told(machine: Machine, client: Any, agent: Agent, log: Path) -> None:
    number = 0

    def write(count: int) -> None:
        nonlocal number
        with log.open("a") as out:
            out.write("".join(f"sale {number + i} done\n" for i in range(count)))
        number += count

    def arrived() -> list[str]:
        page = client.search_logs("sale", limit=1000)
        return [e.body for e in reversed(page.items)]

    def all_of_it() -> bool:
        return arrived() == [f"sale {i} done" for i in range(number)]

    def waiting() -> int:
        return len(list((machine.work / "buffer").glob("*.batch")))

    control = json.loads((machine.home / "control.json").read_bytes())["pid"]
    agent.start()
    try:
        seen = {"host": "till"}
        eventually(lambda: client.signals("host_cpu_ratio", time.time() - 90, time.time() + 1, seen), "the agent")
        write(5)
        eventually(all_of_it, "lines of the agent arrive")
        os.kill(control, signal.SIGSTOP)  # the link is down: nothing answers any more
        try:
            write(5)
            eventually(lambda: waiting() >= 3, "batches wait on disk")
            agent.end(signal.SIGKILL)
            write(5)
            before = waiting()
            agent.start()
            eventually(lambda: waiting() > before, "a new agent goes on where the dead one was")
        finally:
            os.kill(control, signal.SIGCONT)
        eventually(all_of_it, "what waited arrives, once and in order", 90.0)
        os.kill(json.loads((machine.home / "ops.json").read_bytes())["pid"], signal.SIGKILL)
        write(5)
        eventually(lambda: quiet(all_of_it), "over the death of ops, too", 90.0)
        assert agent.end(signal.SIGTERM) == 0
    finally:
        if agent.process is not None and agent.process.poll() is None:
            agent.end(signal.SIGKILL)
    assert b"Traceback" not in agent.errors.read_bytes()


def quiet(true: Any) -> bool:
    try:
        return bool(true())
    except LeptonError:
        return False


def imported(machine: Machine, client: Any) -> None:
    now = time.time()
    rows = [f"{now - 600 + i},{i % 2},{20 + i}" for i in range(50)]
    (machine.work / "press.csv").write_text("\n".join(["when,line,press_celsius", *rows, "nonsense,1,1"]) + "\n")
    done = machine.run("import", "press.csv", "--time", "when", "--label", "line")
    assert "50 samples of 2 series" in done.stdout and "bad_time" in done.stderr
    found = client.signals("press_celsius", now - 700, now, {"line": "1"})
    assert found[0].value == [20.0 + i for i in range(1, 50, 2)]
    assert "there is no" in machine.run("import", "none.csv", check=False).stderr
