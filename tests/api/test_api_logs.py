"""Search and templates through the API, the client and the command line; a token of some workspaces sees theirs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from test_api_signals import ops

from leptonai import console
from leptonai.cli.main import leptonai
from leptonai.errors import NotFound
from leptonai.ops.feeds import Feeds
from leptonai.ops.logs.privacy import Masker
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Settings
from leptonai.types import LogLine, LogRecord

if TYPE_CHECKING:
    from api_stage import Stage


def test_lines_are_found_masked_paged_and_unmasked_on_this_machine_only(stage: Stage, tmp_path: Path) -> None:
    kept = Embedded(tmp_path / "telemetry")
    feeds = Feeds(stage.home, Settings(), kept, time.time)
    assert feeds.pipeline is not None
    feeds.logs.put(
        [LogRecord(at=time.time(), source={"service": "till"}, body=f"sale {n} to ana@example.org") for n in range(30)]
    )
    source = {"service": "press", "workspace": "plant"}
    feeds.logs.put([LogRecord(at=time.time(), source=source, body="ERROR hot\x1b[2J", severity=17)])
    feeds.pipeline.step(time.time())
    with stage.client() as client, ops(stage.home / "ops.sock", kept, feeds):
        page = client.search_logs("SALE", service="till", limit=20)
        assert len(page.items) == 20 and page.next is not None
        assert "<email:" in page.items[0].body and "ana@" not in page.items[0].body
        assert len(client.search_logs("sale", before=page.next).items) == 10
        assert client.templates("till")[0].count == 30
        with pytest.raises(NotFound, match="nobody"):
            client.templates("nobody")
        with stage.http() as http:
            http.headers["authorization"] = f"Bearer {stage.token('mine', 'viewer', ('plant',))}"
            found = http.get("/logs").json()["items"]
            assert [f["service"] for f in found] == ["plant/press"]
            assert http.get("/logs/templates", params={"service": "till"}).status_code == 403
            assert http.get("/logs", params={"level": "loud"}).status_code == 400
        console.mount(stage.app)
        with stage.http() as http:
            http.headers["authorization"] = f"Bearer {stage.token('eyes', 'viewer')}"
            shown_page = http.get(f"{stage.url}/console/logs?search=sale&limit=5").text
            assert "sale 29 to &lt;email:" in shown_page and "ana@" not in shown_page
            assert "Nothing is kept" in http.get(f"{stage.url}/console/logs?search=nothing-such").text
        flags = ["--host", stage.url, "--token", stage.token("cli", "viewer")]
        run = CliRunner()
        shown = run.invoke(leptonai, [*flags, "logs", "--search", "hot", "--since", "1h", "--level", "error"])
        assert shown.exit_code == 0 and "ERROR hot\\x1b[2J" in shown.output, shown.output
        shown = run.invoke(leptonai, [*flags, "templates", "--live", "till"])
        assert "sale <*> to" in shown.output
    mark = page.items[0].body.split(" to ")[1]
    feeds.close()
    shown = CliRunner().invoke(leptonai, ["--home", str(stage.home), "unmask", mark])
    assert shown.output.strip() == "ana@example.org"
    kept.close()


def test_the_newest_lines_of_replicas_are_masked_like_all_others(stage: Stage) -> None:
    stage.service("digits")
    with stage.client() as client:
        until = time.monotonic() + 20
        while not (replicas := client.replicas("digits")):
            assert time.monotonic() < until
        text = "key sk-abcdefghijklmnopqrstuvwxyz of ana@example.org"
        stage.platform.world.lines.append(LogLine(at=time.time(), replica=replicas[0].id, text=text))
        (shown,) = [found.text for found in client.logs("digits") if "key" in found.text]
    assert shown.startswith("key <token:") and "ana" not in shown and "example" not in shown
    assert Masker.open(stage.home / "logs-store" / "vault.json").unmask(shown) == text
