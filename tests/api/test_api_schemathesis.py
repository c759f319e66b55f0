"""Our OpenAPI document, and the API held to it by schemathesis: a fixed seed, a bounded time."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leptonai.api import alerts, logs, reports, telemetry
from leptonai.api.app import ROUTES

if TYPE_CHECKING:
    from api_stage import Stage

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# What ops answers is 502 here, where it does not run; bodies that are no JSON cannot be made up from a schema.
ASKED = [*telemetry.ROUTES, *logs.ROUTES, *reports.ROUTES]  # and a report is a page, no JSON
ELSEWHERE = "|".join(f"v1{r.path}$" for r in ROUTES if r.stream or r in ASKED or r.run is alerts.alerts)


@pytest.mark.world
def test_no_call_that_the_document_allows_or_forbids_breaks_the_api(stage: Stage, tmp_path: Path) -> None:
    """Whatever is asked, by the schema or against it: no 5xx, and every answer is of a described shape and status."""
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed: the API is not held to its document")
    stage.service()
    options = {
        "--header": f"Authorization: Bearer {stage.token('st', 'admin')}",
        "--checks": CHECKS,
        "--exclude-path-regex": ELSEWHERE,
        "--phases": "coverage,fuzzing",
        "--seed": "20261121",
        "--max-time": "15",
        "--generation-database": "none",
    }
    command = [str(Path(sys.executable).with_name("st")), "run", f"{stage.url}/api/v1/openapi.json", "--no-color"]
    done = subprocess.run(
        [*command, *(part for pair in options.items() for part in pair)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Tested:" in done.stdout
