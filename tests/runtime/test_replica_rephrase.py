"""Reports said otherwise by a model that we serve ourselves, over its OpenAI API: what it may change, and what not."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from leptonai.ops.logs.privacy import Masker
from leptonai.ops.report import check, tell
from leptonai.ops.report.rephrase import rephrase
from leptonai.settings import Rephrase
from leptonai.types import Cause, Evidence, Incident
from tests.runtime.conftest import Running

WRITER = """
import json

class Writer:
    def chat(self, messages: list):
        said = json.loads(messages[1]["content"])
        said = [s.replace("It was over", "This was over") for s in said]
        lies = [s + " Nothing else happened." if "SIGKILL" in s else s for s in said]
        return json.dumps([s.replace("95%", "99%") for s in lies])
"""


@contextmanager
def reached(path: str) -> Iterator[str]:
    """The replica's socket at a port of this machine, as the gateway would show it."""

    class Pipe(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as there:
                there.connect(path)
                back = threading.Thread(target=copy, args=(there, self.request), daemon=True)
                back.start()
                copy(self.request, there)
                back.join(30)

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Pipe) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join(30)


def test_a_model_of_ours_may_say_a_report_otherwise_and_can_add_nothing(start: Callable[..., Running]) -> None:
    running = start({"model.py": WRITER}).wait_ready()
    plain = tell(
        Incident(
            id=7, subject="default/service/digits", severity="warning", title="Replica r1 was killed", began=1e9,
            opened=1e9 + 1.5, diagnosed=1e9 + 1.5, mitigated=1e9 + 4, closed=1e9 + 7,
            evidence=(Evidence(id="e1", kind="exit", at=1e9, text="Replica r1 was ended by SIGKILL."),),
            causes=(Cause(name="replica_killed", subject="r1", confidence=0.95, evidence=("e1",)),),
        )
    )  # fmt: skip
    with reached(running.socket) as url:
        told, outcome = rephrase(plain, Rephrase(url=url, model="m", timeout=60.0), Masker())
    check(told)
    before = [s.text for section in plain.sections for s in section.sentences]
    after = [s.text for section in told.sections for s in section.sentences]
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [("It was over 4.0 s after it began.", "This was over 4.0 s after it began.")]
    assert outcome.kept >= 2, "the added sentence and the moved number were refused"
    assert outcome.why
    assert "99%" not in " ".join(after) and "Nothing else" not in " ".join(after)
