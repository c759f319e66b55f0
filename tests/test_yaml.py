"""Documents that are nested too deep are refused wherever a person's YAML is read, and do not end the process."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from leptonai.cli.main import run
from leptonai.yaml import DEEPEST, decode

DEEP = {"flow": b"[" * 900_000, "block": b"- " * 400_000, "mappings": b"{a: " * 200_000}


@pytest.mark.parametrize("name", sorted(DEEP))
def test_what_is_nested_too_deep_is_refused(name: str) -> None:
    with pytest.raises(msgspec.DecodeError, match=f"line 1: more than {DEEPEST}"):
        decode(DEEP[name])


def test_what_people_write_is_read() -> None:
    assert decode(b"a: {b: [1, 2.5, ~, x]}\n") == {"a": {"b": [1, 2.5, None, "x"]}}
    assert decode(b"[" * DEEPEST + b"]" * DEEPEST) is not None
    for broken in (b"a: [", b"\xff\xfe\x00", b"a: b: c"):
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            decode(broken)


@pytest.mark.parametrize("command", ["rules check", "runbook check", "drill --game-day"])
def test_commands_refuse_it_in_a_sentence(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deep.yaml"
    file.write_bytes(DEEP["flow"])
    assert run([*command.split(), str(file)]) in (2, 9)
    said = capsys.readouterr().err
    assert f"more than {DEEPEST}" in said and str(file) in said
