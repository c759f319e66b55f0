"""Jobs that hang, lie, flood, leave children behind or never answer; each in real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from guard_stage import Guarded, settings_of
from waiting import until

from leptonai.ops.jobs import GRACE, Jobs
from leptonai.ops.jobs.form import Asked, Ended
from leptonai.ops.remedies import OURS
from leptonai.ops.runbook import bind
from leptonai.ops.runbook.form import Text
from leptonai.types import Job


def run(job: Job, about: dict[str, str] | None = None) -> Ended:
    """How it ended, by way of the process that watches it."""

    async def story() -> Ended:
        jobs = Jobs()
        jobs.start("p-1", job, about or {})
        assert jobs.running("p-1") and jobs.ended("p-1") is None
        await until(lambda: not jobs.running("p-1"))
        found = jobs.ended("p-1")
        assert found is not None and jobs.ended("p-1") is None, "told once"
        await jobs.close()
        return found

    return asyncio.run(story())


def python(text: str, **more: Any) -> Job:
    return Job(command=(sys.executable, "-c", text), **more)


def test_a_command_is_told_what_it_is_for_and_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEPTONAI_TOKEN", "do not tell")
    job = python("import os; print(sorted(k for k in os.environ if k.startswith('LEPTONAI')))")
    found = run(job, {"service": "digits"})
    assert (found.code, found.failed) == (0, "")
    assert found.output.strip() == "['LEPTONAI_SERVICE']"


def test_one_that_fails_says_so() -> None:
    assert run(python("print('no such host'); raise SystemExit(3)")).failed == "it ended with 3: 'no such host'"
    assert "could not be started" in run(Job(command=("/no/such/program",))).failed


def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    text = (
        "import subprocess, sys, time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']);"
        f"open({str(note)!r}, 'w').write(str(p.pid)); print('begun', flush=True); time.sleep(300)"
    )
    found = run(python(text, timeout=8.0))
    assert found.failed == "it was ended after 8 s without an end" and found.output == "begun\n"
    assert gone(int(note.read_text()))


def test_what_it_leaves_behind_is_ended_and_not_waited_for(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    text = (
        "import subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']);"
        f"open({str(note)!r}, 'w').write(str(p.pid))"
    )
    found = run(python(text, timeout=60.0))
    assert found.code == 0 and found.seconds < 50.0
    assert gone(int(note.read_text()))


def test_of_a_flood_only_the_beginning_is_kept() -> None:
    found = run(python("import sys\nfor _ in range(20000): print('x' * 100)", output=50))
    assert found.code == 0 and found.output == "x" * 50


def test_when_we_end_it_ends(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    text = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(300)"

    async def story() -> None:
        jobs = Jobs()
        jobs.start("p-1", python(text, timeout=300.0), {})
        await until(lambda: note.exists() and bool(note.read_text()))
        await jobs.close()

    asyncio.run(story())
    assert gone(int(note.read_text()))


def test_when_we_are_killed_it_ends_itself_in_time(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    text = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    asked = Asked(job=python(text, timeout=5.0), env={"PATH": os.environ["PATH"]})
    with subprocess.Popen(
        [sys.executable, "-m", "leptonai.ops.jobs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as watcher:
        assert watcher.stdin is not None
        watcher.stdin.write(msgspec.json.encode(asked))
        watcher.stdin.close()  # nobody is there any more who would end it
        assert watcher.wait(60) == 0
    assert gone(int(note.read_text()))


def test_there_are_only_so_many_at_once() -> None:
    async def story() -> list[str]:
        jobs = Jobs()
        for n in range(6):
            jobs.start(f"p-{n}", python("import time; time.sleep(300)", timeout=300.0), {})
        await until(lambda: sum(jobs.running(f"p-{n}") for n in range(6)) <= 4)
        found = [jobs.ended(f"p-{n}") for n in range(6)]
        await jobs.close()
        return [f.failed for f in found if f is not None]

    assert asyncio.run(story()) == ["4 jobs run already"] * 2


def gone(pid: int) -> bool:
    """Within a generous while."""
    for _ in range(500):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def hook(answer: Answer, timeout: float = 20.0) -> Ended:
    """A webhook to a server that does ``answer``."""

    async def story() -> Ended:
        tasks: set[asyncio.Task[Any]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await answer(reader, writer)
            except (OSError, EOFError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        jobs = Jobs()
        jobs.start("p-1", Job(url=f"http://127.0.0.1:{port}/hook", body='{"a": 1}', timeout=timeout), {})
        await until(lambda: not jobs.running("p-1"))
        found = jobs.ended("p-1")
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert found is not None
        return found

    return asyncio.run(story())


def test_a_webhook_is_told_and_answers() -> None:
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b'{"a": 1}'))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    assert hook(answer).code == 0
    assert got[0].startswith(b"POST /hook HTTP/1.1") and b"application/json" in got[0]


def test_a_webhook_that_refuses_has_failed() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'{"a": 1}')
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy")
        await writer.drain()

    assert hook(answer).failed == "it ended with 503: 'busy'"


def test_a_webhook_that_never_answers_is_given_up() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    found = hook(answer, timeout=1.0)
    assert found.failed == "it did not answer within 1 s"
    assert found.seconds < 1.0 + GRACE


def test_a_webhook_to_nobody_has_failed() -> None:
    assert "cannot be reached" in run(Job(url="http://127.0.0.1:1/hook", body="{}")).failed


# --- in the engine: leave is the door's, and what a job says of itself is no verdict ------------------------------


def staged(step: str) -> Guarded:
    rows = f"hung_replica: {{steps: [{step}], limits: {{attempts: 1}}}}"
    stage = Guarded(settings_of(1, 3, False, 10), bind(msgspec.yaml.decode(rows, type=Text), "x", OURS))
    stage.step(1.0)
    stage.open("pair", "hung_replica", "replica", 0.9)
    return stage


def settled(stage: Guarded) -> None:
    """Until no job runs any more; the stage's own clock stands still meanwhile."""

    async def wait() -> None:
        await until(lambda: not stage.book.hand.running(stage.book.cases))

    stage.loop.run_until_complete(wait())


def test_a_command_that_lies_is_ineffective_and_a_person_is_called(tmp_path: Path) -> None:
    """It ends with 0 and has done nothing: verification decides."""
    stage = staged("{do: command, with: {run: [/bin/echo, all is well]}}")
    stage.step(1.0)
    settled(stage)
    for _ in range(8):
        stage.step(10.0)
    (incident,) = (c.incident for c in stage.book.cases)
    assert [(a.remedy, a.verdict) for a in incident.actions] == [("command", "ineffective")]
    assert "the trouble goes on" in incident.actions[0].detail and incident.escalated is not None
    assert any(e.kind == "job" and "'all is well'" in e.text for e in incident.evidence)
    stage.close()


def test_a_command_that_fails_is_ineffective_at_once() -> None:
    stage = staged("{do: command, with: {run: [/bin/sh, -c, 'exit 3']}}")
    stage.step(1.0)
    settled(stage)
    stage.step(1.0)
    (incident,) = (c.incident for c in stage.book.cases)
    assert (incident.actions[0].verdict, incident.actions[0].detail) == ("ineffective", "it ended with 3")
    stage.close()


def test_nothing_runs_before_its_approval_or_under_the_kill_switch(tmp_path: Path) -> None:
    note = tmp_path / "ran"
    stage = staged(f"{{do: command, approval: always, with: {{run: [/usr/bin/touch, {note}]}}}}")
    stage.door.frozen = "human:ana: enough"
    stage.step(1.0)
    assert not stage.door.proposals
    stage.door.frozen = ""
    stage.step(1.0)
    (made,) = stage.door.proposals.values()
    assert made.status == "pending"
    stage.step(1.0)
    settled(stage)
    assert not note.exists()
    assert stage.door.approve(made.id, made.hash)
    stage.step(1.0)
    settled(stage)
    assert note.exists()
    stage.close()
