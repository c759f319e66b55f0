"""Every number that a command takes is finite: a clock never passes nan, and nothing ever comes to inf."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from leptonai.cli.main import COMMANDS, leptonai, run


def taking_numbers() -> list[tuple[str, ...]]:
    """Command and option of each number with a point, of all commands."""
    context, found = click.Context(leptonai), []

    def walk(command: click.Command | None, path: tuple[str, ...]) -> None:
        assert command is not None
        for name, part in command.commands.items() if isinstance(command, click.Group) else ():
            walk(part, (*path, name))
        kinds = (click.types.FloatParamType, click.FloatRange)
        found.extend((*path, p.opts[-1]) for p in command.params if isinstance(p.type, kinds))

    for name in sorted(COMMANDS):
        walk(leptonai.get_command(context, name), (name,))  # type: ignore[attr-defined]
    return found


def test_no_command_takes_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    options = taking_numbers()
    assert len(options) > 10
    for *command, option in options:
        for value in ("nan", "inf", "1e400"):
            assert run([*command, f"{option}={value}"]) == 2, (command, option)
            assert f"'{option}'" in capsys.readouterr().err, (command, option)


@pytest.mark.parametrize("out", ["", "folder"])
def test_a_folder_where_a_file_is_to_be_written_is_said(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert run(["export", "control", f"--out={out}"]) == 2
    assert "it is a folder" in capsys.readouterr().err
