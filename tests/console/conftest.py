"""The console over a whole control process but for the process, as the API's tests have it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from leptonai import console

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

from api_stage import stage as bare_stage  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from api_stage import Stage


@pytest.fixture
def stage(bare_stage: Stage) -> Stage:  # noqa: F811 - the fixture by its name
    console.mount(bare_stage.app)
    return bare_stage
