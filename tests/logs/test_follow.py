"""Followed files: every line once and in order, however the file is rotated, and in bounded memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.ops.logs import follow as room
from leptonai.ops.logs.follow import Follow
from leptonai.platforms.local.logs import rotate


def seen(follow: Follow) -> list[str]:
    blocks = list(follow.look())
    assert all(block.endswith(b"\n") for block in blocks)
    return b"".join(blocks).decode().splitlines()


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def test_a_line_is_given_when_its_end_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    follow = Follow(path)
    assert seen(follow) == []  # not there yet
    path.write_text("one\ntw")
    assert seen(follow) == ["one"]
    write(path, "o", "three")
    assert seen(follow) == ["two", "three"]
    assert b"".join(follow.finish()) == b""


@pytest.mark.parametrize("between", [0, 1])
@pytest.mark.parametrize("times", [1, 2])
def test_renamed_files_are_read_to_their_end(tmp_path: Path, between: int, times: int) -> None:
    path = tmp_path / "log"
    write(path, "1")
    follow = Follow(path)
    assert seen(follow) == ["1"]
    for n in range(times):
        write(path, f"late {n}")
        if (tmp_path / "log.1").exists():
            (tmp_path / "log.1").rename(tmp_path / "log.2")
        path.rename(tmp_path / "log.1")
        if between or n + 1 < times:
            write(path, f"new {n}")
    expected = [line for n in range(times) for line in (f"late {n}", f"new {n}")]
    assert seen(follow) == expected[: None if between else -1]
    write(path, "last")
    assert seen(follow) == ["last"] and follow.lost == 0


@given(st.lists(st.sampled_from(["write", "cut", "look"]), max_size=30))
@settings(max_examples=30, deadline=None)
def test_no_line_is_lost_or_told_twice_when_the_head_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    """The platform's own rotation, at most three between two looks."""
    path = tmp_path_factory.mktemp("cut") / "log"
    follow, written, read, cuts = Follow(path), [], [], 0
    for act in [*acts, "look"]:
        if act == "write":
            lines = [f"line {len(written) + i} {'x' * 60}" for i in range(2500)]
            write(path, *lines)
            written += lines
        elif act == "cut" and cuts < 3 and path.exists():
            cuts += bool(rotate(path, 100_000, 4))
        elif act == "look":
            read += seen(follow)
            cuts = 0
    assert read == written
    assert follow.lost == 0


def test_copied_and_truncated_and_a_foreign_truncation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "one", "two")
    follow = Follow(path)
    assert seen(follow) == ["one", "two"]
    write(path, "three")
    shutil.copy(path, tmp_path / "log.1")
    os.truncate(path, 0)
    write(path, "four")
    assert seen(follow) == ["three", "four"]
    os.truncate(path, 0)
    write(path, "5")
    assert seen(follow) == ["5"] and follow.lost == 1  # nobody can tell what was between


def test_deleted_under_us_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "one")
    follow = Follow(path)
    assert seen(follow) == ["one"]
    write(path, "two")
    path.unlink()
    assert seen(follow) == ["two"]
    write(path, "three")
    assert seen(follow) == ["three"]
    path.unlink()
    assert list(follow.finish()) == []


def test_a_huge_line_is_cut_with_a_mark_and_memory_stays(tmp_path: Path) -> None:
    path = tmp_path / "log"
    follow = Follow(path)
    with path.open("w") as file:
        for _ in range(50):
            file.write("x" * 100_000)
        file.write("\nnext\n")
    huge, after = seen(follow)
    assert after == "next"
    assert huge.startswith("xxx") and huge.endswith(" bytes cut") and len(huge) < 2 * room.LONGEST
    kept = len(huge) - len(huge.lstrip("x"))
    assert int(huge.split()[2].replace(",", "")) == 5_000_000 - kept


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    write(secret, "secret")
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    assert seen(Follow(tmp_path / "link")) == seen(Follow(tmp_path / "pipe")) == []
