"""Followed files: every line once and in order, however the file is rotated, and in bounded memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
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


@given(st.lists(st.sampled_from(["write", "half", "cut", "rename", "copy", "look", "restart"]), max_size=30))
@example(["rename", "look", "write", "cut"])
@example(["rename", "look", "restart", "write", "cut"])
@settings(max_examples=40, deadline=None)
def test_a_place_that_was_kept_is_found_again_whatever_became_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    """Every line once and in order over restarts, with at most one rotation of any kind between two looks."""
    path = tmp_path_factory.mktemp("places") / "log"
    write(path, "first")
    follow, written, read, number, turned, open_line = Follow(path), ["first"], [], 0, False, ""
    read += seen(follow)
    for act in [*acts, "half", "look"]:
        if act == "write" or (act == "half" and open_line):
            lines = [open_line + "end"] if open_line else []
            lines += [f"line {number + i} {'x' * 60}" for i in range(2500 if act == "write" else 0)]
            with path.open("a") as file:
                file.write("\n".join([*lines, ""])[len(open_line) :])
            written += lines
            number, open_line = number + 2500, ""
        elif act == "half":
            open_line = f"half of {number} "
            with path.open("a") as file:
                file.write(open_line)
        elif act == "cut" and not turned:
            turned = bool(rotate(path, 100_000, 4))
        elif act in ("rename", "copy") and not turned and not open_line:
            for n in (2, 1):
                if (older := path.with_name(f"log.{n}")).exists():
                    older.rename(path.with_name(f"log.{n + 1}"))
            if act == "rename":
                path.rename(path.with_name("log.1"))
                path.touch()
            else:
                shutil.copy(path, path.with_name("log.1"))
                os.truncate(path, 0)
            turned = True
        elif act == "look":
            read += seen(follow)
            turned = False
        elif act == "restart":
            place = follow.place
            follow.close()
            follow = Follow(path, place)
    follow.close()
    assert len(read) == len(written) and read == written
    assert follow.lost == 0


def test_a_file_that_is_another_one_is_read_from_its_start_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, "one", "two")
    follow = Follow(path)
    assert seen(follow) == ["one", "two"]
    place = follow.place
    follow.close()
    path.write_text("ONE\nTWO\nTHREE\n")  # the same inode, and more bytes than before
    other = Follow(path, place)
    assert seen(other) == ["ONE", "TWO", "THREE"] and other.lost == 1
    other.close()
    path.unlink()
    gone = Follow(path, place)
    assert seen(gone) == [] and gone.lost == 1
    write(path, "anew")
    assert seen(gone) == ["anew"]
    gone.close()


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
