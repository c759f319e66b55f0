"""An error keeps its class, and so its exit code, over the wire."""

from __future__ import annotations

import pytest

from leptonai import errors
from leptonai.errors import LeptonError, from_body

KINDS = [
    LeptonError, errors.SpecError, errors.Denied, errors.NotFound, errors.Conflict, errors.PlatformError,
    errors.CapacityError, errors.StartError, errors.TelemetryError, errors.ModelError, errors.PluginError,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_raised_there_is_raised_here(kind: type[LeptonError]) -> None:
    sent = kind("it is 7, the limit is 5", hint="less", retry_after=2.0, field="x")
    got = from_body(sent.status, sent.body())
    assert type(got) is kind
    assert got.exit_code == kind.exit_code
    assert got.body() == sent.body()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.SpecError),
        (401, errors.Denied),
        (403, errors.Denied),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.SpecError),
        (429, errors.SpecError),
        (500, errors.PlatformError),
        (502, errors.PlatformError),
        (503, errors.CapacityError),
    ],
)
def test_a_code_nobody_knows_is_classed_by_its_status(status: int, kind: type[LeptonError]) -> None:
    got = from_body(status, {"error": "e", "code": "its_own"})
    assert (type(got), got.status, got.code) == (kind, status, "its_own")
