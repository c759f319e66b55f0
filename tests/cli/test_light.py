"""What must stay quick stays light: told by the modules that were loaded, not by a clock."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "numpy", "scipy", "httpx", "msgspec", "rich", "starlette", "uvicorn", "uvloop", "psutil", "sqlite3", "asyncio",
    "jinja2", "onnxruntime", "sklearn", "torch", "yaml", "prometheus_client",
}  # fmt: skip


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*{{m.partition('.')[0] for m in sys.modules}})"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import leptonai", set()),
        ("from leptonai.cli.main import run; run(['--help'])", {"msgspec"}),
        ("import leptonai.daemon.parent", {"msgspec"}),
        ("import leptonai.client", {"msgspec"}),
        ("import leptonai.runtime", {"msgspec", "numpy"}),
    ],
)
def test_no_heavy_module_is_loaded_before_it_is_needed(code: str, allowed: set[str]) -> None:
    assert loaded(code) & HEAVY <= allowed
