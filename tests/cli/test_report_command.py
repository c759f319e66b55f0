"""``leptonai report``: the digest of the command line tells what that of the API tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leptonai.cli.main import run

if TYPE_CHECKING:
    from api_stage import Stage


@pytest.mark.parametrize(("language", "said"), [("en", "How good the diagnosis is"), ("zh", "诊断质量")])
def test_the_digest_says_how_good_the_classifiers_are(
    stage: Stage, language: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "viewer"))
    stage.service()
    assert run(["report", "--daily", "--lang", language]) == 0
    told = capsys.readouterr().out
    with stage.http("viewer") as http:
        page = http.get("/report", params={"lang": language, "format": "text"}).text
    sections = [line for line in told.splitlines() if line and not line.startswith(" ")]
    assert said in sections
    assert sections[1:] == [line for line in page.splitlines() if line and not line.startswith(" ")][1:]
