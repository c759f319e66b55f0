"""The file under the store: kill -9, a full disk, damage, a second platform, a newer version."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leptonai.errors import Conflict, LeptonError
from leptonai.store import Artifacts, Store, sqlite
from leptonai.types import Feedback

DURABILITY = Path(__file__).parents[2] / "benchmarks" / "store_durability.py"


def note(n: int = 0, size: int = 0) -> Feedback:
    return Feedback(about=str(n), by="human:ana", at=0.0, note="x" * size)


def durability(*options: str) -> tuple[int, dict[str, object]]:
    command = [sys.executable, str(DURABILITY), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_what_was_acknowledged_survives_kill_9() -> None:
    code, out = durability("--kills", "40")
    assert (code, out["problem"], out["kills"]) == (0, "", 40), out
    assert int(str(out["transactions"])) > 40, "the writer was killed at work, not before"


@pytest.mark.parametrize(("sabotage", "problem"), [("early", "was acknowledged"), ("torn", "half a transaction")])
def test_the_durability_check_can_fail(sabotage: str, problem: str) -> None:
    code, out = durability("--kills", "200", "--sabotage", sabotage)
    assert code == 1
    assert problem in str(out["problem"])


def test_every_commit_is_synced(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        assert store._one("PRAGMA synchronous") == 2, "FULL"
        assert store._one("PRAGMA journal_mode") == "wal"


def test_two_platforms_on_one_store_the_second_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    program = f"from leptonai.store import Store\nStore({str(path)!r})"
    with Store(path) as store:
        with pytest.raises(Conflict, match="held by another process") as failed:
            Store(path)
        assert failed.value.code == "store_locked"
        # the failed attempt in this process must not have dropped the lock that others see
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert "held by another process" in done.stderr
        store.append_feedback(note())
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_the_file_is_private_and_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    assert (tmp_path / "store.db").stat().st_mode & 0o777 == 0o600
    store.close()
    store.close()
    with pytest.raises(LeptonError, match="closed"):
        store.heads()


@pytest.mark.parametrize("damage", ["header", "pages", "truncated", "body"])
def test_a_damaged_store_is_a_clear_error_and_is_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "store.db"
    with Store(path) as store:
        for n in range(300):
            store.append_feedback(note(n, 200))
    data = path.read_bytes()
    if damage == "header":
        path.write_bytes(b"not a database " * 300)
    elif damage == "pages":
        path.write_bytes(data[:4096] + os.urandom(len(data) - 4096))
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data.replace(b'"about":"7"', b'"abxut":"7"'))
    before = path.read_bytes()
    with pytest.raises(LeptonError) as failed:
        with Store(path) as store:
            store.feedback()
    assert failed.value.code == "store_corrupt"
    assert "backup" in failed.value.hint
    assert path.read_bytes() == before


def test_a_store_of_another_program_or_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    foreign, newer = tmp_path / "foreign.db", tmp_path / "newer.db"
    with sqlite3.connect(foreign) as raw:
        raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    Store(newer).close()
    with sqlite3.connect(newer) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    for path, code in ((foreign, "store_foreign"), (newer, "store_newer")):
        before = path.read_bytes()
        with pytest.raises(LeptonError) as failed:
            Store(path)
        assert failed.value.code == code
        assert path.read_bytes() == before


def test_an_older_store_is_migrated_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    with Store(path) as store:
        store.append_feedback(note(7))
    released = sqlite.MIGRATIONS
    good = "CREATE TABLE later (x);\nINSERT INTO later SELECT seq FROM feedback;\n"
    monkeypatch.setattr(sqlite, "MIGRATIONS", (*released, good + "INSERT INTO missing VALUES (1);\n"))
    before = path.read_bytes()
    with pytest.raises(LeptonError, match="no such table: missing"):
        Store(path)
    assert path.read_bytes() == before
    monkeypatch.setattr(sqlite, "MIGRATIONS", (*released, good))
    with Store(path) as store:
        assert store._rows("SELECT x FROM later") == [(1,)]
        assert store._one("PRAGMA user_version") == len(released) + 1
        assert store.feedback() == ([(1, note(7))], 1)
    monkeypatch.setattr(sqlite, "MIGRATIONS", released)
    with pytest.raises(LeptonError, match=f"has schema {len(released) + 1}; this version"):
        Store(path)


def test_a_folder_that_is_missing_or_no_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing" / "store.db", tmp_path / "file" / "store.db"):
        with pytest.raises(LeptonError, match="cannot create the store") as failed:
            Store(path)
        assert failed.value.code == "store_unwritable"
    with pytest.raises(LeptonError) as failed:
        Store(tmp_path)
    assert failed.value.code == "store_unwritable"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("NOT TESTED: a full disk needs root and mount -t tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_a_write_whole_and_goes_on_when_there_is_room_again(small_disk: Path) -> None:
    with Store(small_disk / "store.db") as store:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(300_000))
        kept = 0
        with pytest.raises(LeptonError) as failed:
            while True:
                with store.transaction():
                    store.append_feedback(note(kept, 2000))
                    store.record("feedback", "digits", {"n": kept}, actor="x", at=0.0)
                kept += 1
        assert (failed.value.code, failed.value.status, failed.value.retry) == ("disk_full", 507, True)
        assert "free space" in failed.value.hint
        with pytest.raises(LeptonError):  # still full: refused again, nothing hangs
            store.append_feedback(note(kept, 200_000))
        assert len(store.feedback(limit=9999)[0]) == len(store.events(limit=9999)) == kept > 0
        ballast.unlink()
        store.append_feedback(note(kept))
        kept += 1
    with Store(small_disk / "store.db") as store:
        assert [int(f.about) for _, f in store.feedback(limit=9999)[0]] == list(range(kept))
        assert store.check_chain() is None


def test_a_full_disk_refuses_an_artifact_and_leaves_nothing_of_it(small_disk: Path, tmp_path: Path) -> None:
    artifacts = Artifacts(small_disk / "artifacts")
    (tmp_path / "large.onnx").write_bytes(os.urandom(2_000_000))
    with pytest.raises(LeptonError, match="is full: nothing was stored") as failed:
        artifacts.put_tree(tmp_path / "large.onnx")
    assert (failed.value.code, failed.value.status) == ("disk_full", 507)
    assert list(artifacts.folder.iterdir()) == []
    (tmp_path / "small.onnx").write_bytes(os.urandom(200_000))
    artifacts.verify(artifacts.put_tree(tmp_path / "small.onnx"))
