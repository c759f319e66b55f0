"""A real platform on this machine, driven as a person does: by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from leptonai.client import Client

MODEL = """
class Doubler:
    def predict(self, x: int) -> int:
        return {factor} * x
"""


@dataclass
class Machine:
    home: Path
    work: Path

    def foreground(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "leptonai.cli", "--home", str(self.home), "up", "--foreground"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.work)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "leptonai.cli", "--home", str(self.home), *arguments],
            capture_output=True,
            text=True,
            timeout=280,
            cwd=self.work,
            env={k: v for k, v in os.environ.items() if not k.startswith("LEPTONAI_")},
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done

    def client(self) -> Client:
        return Client(home=self.home)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def model(self, factor: int, name: str = "doubler") -> Path:
        path = self.work / f"{name}.py"
        path.write_text(MODEL.format(factor=factor))
        return path

    def processes(self) -> list[psutil.Process]:
        """Whatever runs and names our home, or has a file of it open: ours."""
        found = []
        for process in psutil.process_iter():
            try:
                words = " ".join(process.cmdline())
                if str(self.home) in words and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    work = tmp_path / "work"
    work.mkdir()
    machine = Machine(tmp_path / "home", work)
    yield machine
    if machine.home.exists():
        machine.run("down")
    left = machine.processes()
    for process in left:
        process.kill()
    assert not left, [p.cmdline() for p in left]
