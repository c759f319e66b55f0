"""leptonai templates FILE --out OUT.csv on good and on odd files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from leptonai.cli.main import run as leptonai
from leptonai.errors import NotFound, SpecError
from leptonai.ops.logs import file as room
from leptonai.ops.logs.file import mine_file


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("data", "templates"),
    [
        (b"took 5 ms\ntook 7 ms\n", ["took <*> ms"] * 2),
        (b"took 5 ms\r\ntook 7 ms\r\n", ["took <*> ms"] * 2),
        (b"took 5 ms\n\ntook 7 ms", ["took <*> ms", "", "took <*> ms"]),  # no end of the last line; an empty line
        (b"", []),
        (b"\n", [""]),
        (b"\xef\xbb\xbfhello\n", ["hello"]),
        ("grüße 5\n".encode(), ["grüße <*>"]),
        ("grüße 5\n".encode("latin-1"), ["gr\ufffd\ufffde <*>"]),
        ("grüße 5\r\nnoch 2".encode("utf-16"), ["grüße <*>", "noch <*>"]),
        (b'say "a, b"\n', ['say "a, b"']),
    ],
)
def test_files(tmp_path: Path, data: bytes, templates: list[str]) -> None:
    log, out = tmp_path / "a.log", tmp_path / "out.csv"
    log.write_bytes(data)
    mined = mine_file(log, out)
    assert rows(out)[0] == ["line", "template_id", "template"]
    assert [r[2] for r in rows(out)[1:]] == templates
    assert [int(r[0]) for r in rows(out)[1:]] == list(range(1, len(templates) + 1))
    assert mined.lines == len(templates)
    assert {t.id for t in mined.templates} == {int(r[1]) for r in rows(out)[1:]}


def test_blocks_and_lines_of_any_length_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BLOCK", 7)
    monkeypatch.setattr(room, "LONGEST", 20)
    log, out = tmp_path / "a.log", tmp_path / "out.csv"
    log.write_bytes(b"a\nbb\r\n" + b"c" * 100 + b"\nd\n\n" + b"e" * 20 + b"\n" + b"f" * 50)
    mined = mine_file(log, out)
    texts = [r[2] for r in rows(out)[1:]]
    assert [t[:1] for t in texts] == ["a", "b", "c", "d", "", "e", "f"]
    assert texts[5] == "e" * 20
    assert all(len(t) <= 40 for t in texts)
    assert mined.odd == {"lines longer than 20 bytes, cut": 2}


def test_what_is_no_log_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    log, out = tmp_path / "a.log", tmp_path / "out.csv"
    with pytest.raises(NotFound, match=r"no file .*a\.log"):
        mine_file(log, out)
    with pytest.raises(SpecError, match="cannot read"):
        mine_file(tmp_path, out)
    log.write_bytes(b"\x7fELF\0\0")
    with pytest.raises(SpecError, match="no text: a NUL byte at 4"):
        mine_file(log, out)
    log.write_bytes(b"x\n")
    with pytest.raises(SpecError, match="is the log itself"):
        mine_file(log, log)
    with pytest.raises(SpecError, match="cannot write"):
        mine_file(log, tmp_path / "none" / "out.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.log"]
    assert log.read_bytes() == b"x\n"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "a.log", tmp_path / "out.csv"
    log.write_text("took 5 ms\nbye\ntook 7 ms\n")
    assert leptonai(["templates", str(log), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "3 lines, 2 templates" in said
    assert "66.7 %" in said and "took <*> ms" in said
    assert leptonai(["templates", str(log), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["templates"][0] == {"template_id": 1, "count": 2, "template": "took <*> ms"}
    assert leptonai(["templates", str(tmp_path / "none"), "--out", str(out)]) == NotFound.exit_code
