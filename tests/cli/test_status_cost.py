"""What ``leptonai status`` says of a replica's learnt cost."""

from __future__ import annotations

from msgspec.structs import replace

from leptonai.cli.status import cost
from leptonai.types import Replica


def test_the_learnt_cost_is_shown_in_milliseconds() -> None:
    replica = Replica(id="a-1", service="a", variant="main", digest="0" * 16, state="ready", since=0.0)
    assert cost(replica) == "-"
    assert cost(replace(replica, cost=(23e-6, 222e-6))) == "0.023 n + 0.222 ms"
