"""Artifacts: equal bytes get one name, what is named is what is read, and a stranger's tar stays inside."""

from __future__ import annotations

import gzip
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import ModelError, NotFound, SpecError
from leptonai.store import Artifacts
from leptonai.store.tree import files_of, pack, tree_digest

FOREVER = float("inf")


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tree(tmp_path / "model", {"model.onnx": b"weights", "sub/labels.txt": b"", "模型 1.json": b"{}"})


def tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, **options: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# --- content -------------------------------------------------------------------------------------------------------


def test_a_tree_comes_back_byte_for_byte_read_only_and_readable_by_all(artifacts: Artifacts, model: Path) -> None:
    old = os.umask(0o077)
    try:
        digest = artifacts.put_tree(model)
    finally:
        os.umask(old)
    path = artifacts.path(digest)
    assert contents(path) == contents(model)
    for found in (path, *path.rglob("*")):
        assert found.stat().st_mode & 0o777 == (0o555 if found.is_dir() else 0o444), found
    assert path.parent.stat().st_mode & 0o005 == 0o005
    artifacts.verify(digest)
    assert artifacts.digests() == [digest]


def test_the_digest_is_of_names_and_bytes_only(artifacts: Artifacts, model: Path, tmp_path: Path) -> None:
    digest = artifacts.put_tree(model)
    (model / "model.onnx").chmod(0o755)
    os.utime(model / "model.onnx", (1, 1))
    tree(model, {"__pycache__/m.pyc": b"x", ".git/HEAD": b"x"})
    (model / "empty").mkdir()
    assert artifacts.put_tree(model) == tree_digest(model) == digest
    assert artifacts.put_tar(pack(model)) == digest
    assert b"".join(pack(model)) == b"".join(pack(tree(tmp_path / "copy", contents(artifacts.path(digest)))))
    by_hand = io.BytesIO()
    with tarfile.open(fileobj=by_hand, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(artifacts.path(digest), arcname=".")
    by_hand.seek(0)
    assert artifacts.put_tar(by_hand) == digest, "a plain `tar cf - .` is welcome too"
    assert artifacts.digests() == [digest]
    others = [
        {"model.onnx": b"weightz", "sub/labels.txt": b"", "模型 1.json": b"{}"},
        {"model.onnx": b"weights", "sub/labels": b"", "模型 1.json": b"{}"},
        {"model.onnx": b"weights", "sub/labels.txt": b""},
        {"model.onnx": b"", "sub/labels.txt": b"weights", "模型 1.json": b"{}"},
    ]
    found = {artifacts.put_tree(tree(tmp_path / f"other{i}", files)) for i, files in enumerate(others)}
    assert len(found | {digest}) == 5


NAMES = st.lists(st.text("abc._- é", min_size=1, max_size=9).filter(lambda s: s.strip(". ")), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES.map("/".join), st.binary(max_size=2000), min_size=1, max_size=6))
def test_packing_and_unpacking_keeps_any_tree(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    # a name cannot be a file and a folder
    files = {n: c for n, c in files.items() if not any(n.startswith(o + "/") for o in files)}
    folder = tmp_path_factory.mktemp("any")
    tree(folder / "model", files)
    artifacts = Artifacts(folder / "artifacts")
    digest = artifacts.put_tar(pack(folder / "model"))
    assert digest == tree_digest(folder / "model") == artifacts.put_tree(folder / "model")
    assert contents(artifacts.path(digest)) == files
    artifacts.verify(digest)


def test_a_model_file_takes_its_golden_examples_along(artifacts: Artifacts, tmp_path: Path) -> None:
    tree(tmp_path, {"digits.onnx": b"w", "digits.golden.json": b"[]", "other.golden.json": b"[]"})
    assert contents(artifacts.path(artifacts.put_tree(tmp_path / "digits.onnx"))) == {
        "digits.onnx": b"w",
        "digits.golden.json": b"[]",
    }
    assert list(files_of(tmp_path / "other.golden.json")) == ["other.golden.json"]


def test_a_tree_over_the_limits_is_refused(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts", max_bytes=10, max_files=2)
    for files, said in (
        ({"a": b"12345", "b": b"678901"}, "more than 10 bytes"),
        (dict.fromkeys("abc", b""), "3 files"),
    ):
        with pytest.raises(SpecError, match=said):
            artifacts.put_tree(tree(tmp_path / said, files))
    assert list(artifacts.folder.iterdir()) == []
    artifacts.verify(artifacts.put_tree(tree(tmp_path / "fits", {"a": b"12345", "b": b"67890"})))


def test_links_to_files_are_followed_and_other_oddities_refused(tmp_path: Path) -> None:
    model = tree(tmp_path / "model", {"a": b"1"})
    (model / "b").symlink_to(model / "a")
    assert list(files_of(model)) == ["a", "b"]
    for odd in ("broken", "folder", "pipe"):
        place = model / odd
        if odd == "pipe":
            os.mkfifo(place)
        else:
            place.symlink_to(tmp_path / "nowhere" if odd == "broken" else tmp_path)
        with pytest.raises(SpecError, match=f"{odd} is neither a file nor a folder"):
            files_of(model)
        place.unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match="holds no file"):
        files_of(tmp_path / "empty")
    with pytest.raises(NotFound, match="no model file or folder at"):
        pack(tmp_path / "missing")
    tree(model, {"new\nline": b""})
    with pytest.raises(SpecError, match="is not plain text"):
        files_of(model)


def test_a_file_that_grows_while_it_is_packed_is_an_error(tmp_path: Path) -> None:
    model = tree(tmp_path / "model", {"a": b"1" * 10})
    stream = pack(model)
    next(stream)
    (model / "a").write_bytes(b"1" * 20)
    with pytest.raises(SpecError, match="changed while it was read"):
        list(stream)


# --- damage and collection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["edit", "cut", "remove", "add", "link", "manifest", "no manifest"])
def test_a_changed_artifact_is_named_and_putting_it_again_repairs_it(
    artifacts: Artifacts, model: Path, damage: str
) -> None:
    digest = artifacts.put_tree(model)
    path = artifacts.path(digest)
    file, name = path / "model.onnx", "model.onnx"
    path.chmod(0o755)
    file.chmod(0o644)
    if damage == "edit":
        file.write_bytes(b"weightz")
    elif damage == "cut":
        file.write_bytes(b"")
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (path / "zz.pyc").write_bytes(b"")
        name = "zz.pyc"
    elif damage == "link":
        file.unlink()
        file.symlink_to(model / "model.onnx")
    else:
        name = "manifest.json"
        (path.parent / name).unlink()
        if damage == "manifest":
            (path.parent / name).write_bytes(b"[]")
    with pytest.raises(ModelError, match=name) as failed:
        artifacts.verify(digest)
    assert failed.value.code == "artifact_changed"
    assert failed.value.detail["file"] == name
    assert failed.value.detail["expected"] != failed.value.detail["found"]
    assert artifacts.put_tree(model) == digest
    artifacts.verify(digest)
    assert contents(artifacts.path(digest)) == contents(model)


def test_collect_removes_only_what_nobody_names_and_nobody_put_lately(artifacts: Artifacts, tmp_path: Path) -> None:
    old, kept, late = (artifacts.put_tree(tree(tmp_path / n, {"m": n.encode()})) for n in ("old", "kept", "late"))
    for digest in (old, kept, late):
        os.utime(artifacts.path(digest).parent, (100, 100))
    artifacts.put_tree(tmp_path / "late")  # put again: counts as put now
    assert artifacts.collect({kept}, before=100) == []
    assert artifacts.collect({kept}, before=200) == [old]
    assert artifacts.digests() == sorted([kept, late])
    with pytest.raises(NotFound, match="no artifact sha256:") as failed:
        artifacts.path(old)
    assert "upload the model again" in failed.value.hint
    assert artifacts.collect(set(), before=FOREVER) == sorted([kept, late])
    assert list(artifacts.folder.iterdir()) == []
    for wrong in ("", "sha256:..", old.removeprefix("sha256:"), "sha256:" + "A" * 64):
        with pytest.raises(SpecError, match="is not a digest"):
            artifacts.path(wrong)


def test_writers_of_one_digest_and_a_collect_do_not_clash(artifacts: Artifacts, model: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        puts = [pool.submit(artifacts.put_tree, model) for _ in range(24)]
        collects = [pool.submit(artifacts.collect, set(), before=0.0) for _ in range(8)]
        assert len({p.result() for p in puts}) == 1
        assert [c.result() for c in collects] == [[]] * 8
    artifacts.verify(artifacts.put_tree(model))
    assert len(list(artifacts.folder.iterdir())) == 1


def test_a_killed_writer_leaves_a_whole_artifact_or_none(artifacts: Artifacts, tmp_path: Path) -> None:
    model = tree(tmp_path / "model", {f"part{i}": os.urandom(20_000) for i in range(30)})
    digest, rng, none = tree_digest(model), random.Random(1), 0
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            try:
                artifacts.put_tree(model)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if artifacts.digests():
            artifacts.verify(digest)
        else:
            none += 1
        artifacts.collect(set(), before=FOREVER)
        assert list(artifacts.folder.iterdir()) == []
    assert none, "no writer was killed at work"


# --- tar from a stranger -------------------------------------------------------------------------------------------

HOSTILE = {
    "absolute": tar(("/etc/evil", b"x")),
    "climbing": tar(("a/../../evil", b"x")),
    "only dots": tar(("..", b"x")),
    "backslash": tar(("..\\evil", b"x")),
    "symlink": tar(special("link", tarfile.SYMTYPE, "/etc/passwd")),
    "write through a symlink": tar(special("d", tarfile.SYMTYPE, "/tmp"), ("d/evil", b"x")),
    "hard link": tar(("a", b"x"), special("link", tarfile.LNKTYPE, "/etc/passwd")),
    "device": tar(special("dev", tarfile.CHRTYPE)),
    "pipe": tar(special("fifo", tarfile.FIFOTYPE)),
    "twice": tar(("a", b"x"), ("./a", b"y")),
    "file as folder": tar(("a", b"x"), ("a/b", b"y")),
    "folder as file": tar(("a/b", b"y"), ("a", b"x")),
    "long name": tar(("a" * 300, b"x")),
    "too many": tar(*((f"f{i}", b"") for i in range(101))),
    "too large": tar(("a", bytes(60_000)), ("b", bytes(60_000))),
    "sparse": tar(special("s", tarfile.GNUTYPE_SPARSE)),
    "claims a gigantic header": tar(("x", b""), format=tarfile.PAX_FORMAT, pax_headers={"comment": "y" * 2_000_000}),
    "not unicode": tar((b"\xff\xfe".decode("utf-8", "surrogateescape"), b"x")),
    "control characters": tar(("a\x1b[2Jb", b"x")),
    "compressed": gzip.compress(tar(("a", b"x" * 1000))),
    "no tar": b"hello " * 1000,
    "empty": b"",
    "no file": tar(),
    "cut in a file": tar(("a", b"x" * 5000))[:2000],
    "cut between files": tar(("a", b"x" * 512), ("b", b"y"))[:1024],
    "cut in the end marker": tar(("a", b"x" * 512))[:1536],
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_tar_is_refused_and_leaves_nothing(tmp_path: Path, attack: str) -> None:
    artifacts = Artifacts(tmp_path / "artifacts", max_bytes=100_000, max_files=100)
    data = HOSTILE[attack]
    with pytest.raises(SpecError) as failed:
        artifacts.put_tar(data[i : i + 700] for i in range(0, len(data), 700))
    assert failed.value.hint
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["artifacts"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 5119), st.integers(0, 255))
def test_a_flipped_byte_never_makes_a_different_error_than_ours(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    artifacts = Artifacts(tmp_path_factory.mktemp("flip") / "artifacts", max_bytes=100_000)
    data = bytearray(tar(("a" * 120, b"x" * 700), ("b", b"y")))
    data[at] = byte
    try:
        artifacts.verify(artifacts.put_tar([bytes(data)]))
    except SpecError:
        assert list(artifacts.folder.iterdir()) == []


def test_packing_needs_no_sqlite() -> None:
    program = "import sys, leptonai.store.tree; sys.exit('sqlite3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
