"""`leptonai build`: what lies in the archive, that it depends on its inputs alone, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from image_stage import build, document, lock, parts, rootfs, service, unpack, wheel

from leptonai.errors import SpecError
from leptonai.image.needs import closure
from leptonai.store.tree import tree_digest

BETA = {"beta/__init__.py": "X = 1\n", "beta/bin/run": "#!/bin/sh\n"}
MINOR = sys.version_info.minor


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/, wheels/, lock.txt and doubler/service.yaml."""
    folder = tmp_path_factory.mktemp("inputs")
    rootfs(folder / "base")
    made = [wheel(folder / "wheels", "alpha"), wheel(folder / "wheels", "beta", files=BETA)]
    lock(folder / "lock.txt", *made)
    service(folder / "doubler")
    return folder


@pytest.fixture(scope="module")
def archive(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "doubler.tar"
    done = build(
        inputs / "doubler/service.yaml", "--base", inputs / "base", "--lock", inputs / "lock.txt", "-o", out,
        "--docker", out.parent / "docker",
        wheels=inputs / "wheels", PYTHONHASHSEED="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_its_lock_gives_the_same_file_in_another_folder_at_another_time(
    inputs: Path, archive: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "inputs"
    copy.mkdir(parents=True)
    subprocess.run(["cp", "-r", "--no-preserve=timestamps", f"{inputs}/.", str(copy)], check=True)
    done = subprocess.run(
        [
            *("sh", "-c", f'umask 077; exec "$@" -o {tmp_path}/again.tar --lock {archive.parent}/doubler.lock.json'),
            *("sh", sys.executable, "-m", "leptonai.cli", "build", "doubler/service.yaml", "--base", "base"),
        ],
        cwd=copy,
        capture_output=True,
        text=True,
        env={
            "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2",
            "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(copy / "wheels"), "PIP_CONFIG_FILE": "/dev/null",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    for name in ("lock.json", "cdx.json"):
        assert (tmp_path / f"again.{name}").read_text() == (archive.parent / f"doubler.{name}").read_text()


def test_what_the_objects_for_kubernetes_expect_lies_in_it(inputs: Path, archive: Path, tmp_path: Path) -> None:
    manifest, config = parts(archive)
    root = unpack(archive, tmp_path / "root")
    digest = tree_digest(inputs / "doubler/model.py")
    model = root / "models" / digest.removeprefix("sha256:") / "model.py"
    assert model.read_text() == (inputs / "doubler/model.py").read_text()
    assert stat.S_IMODE(model.stat().st_mode) & stat.S_IROTH
    site = root / f"opt/leptonai/lib/python3.{MINOR}/site-packages"
    assert (site / "leptonai/runtime/__main__.py").is_file() and (site / "alpha.py").is_file()
    assert os.access(site / "beta/bin/run", os.X_OK) and not os.access(site / "beta/__init__.py", os.X_OK)
    assert (root / "opt/leptonai/bin/python").readlink() == Path(f"/usr/bin/python3.{MINOR}")
    started = config["config"]
    assert [*started["Entrypoint"], *started["Cmd"]] == ["python", "-P", "-m", "leptonai.runtime", "/run/leptonai"]
    assert started["User"] == "61184:61184"
    assert "PATH=/opt/leptonai/bin:" in " ".join(started["Env"])
    if os.geteuid() == 0:  # nobody else may give files away
        assert (root / "run/leptonai").stat().st_uid == 61184
    launch = json.loads((root / "run/leptonai/launch.json").read_text())
    assert launch["artifact"] == f"/models/{digest.removeprefix('sha256:')}"
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == 5
    named = document(archive)["manifests"][0]["annotations"]["io.containerd.image.name"]
    assert named == f"localhost/doubler-main:{digest.removeprefix('sha256:')[:16]}"


def test_every_digest_says_what_it_names(archive: Path) -> None:
    _, config = parts(archive)
    manifest, _ = parts(archive)
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isreg() and member.name.startswith("blobs/"):
                stored = tar.extractfile(member)
                assert stored is not None
                assert hashlib.sha256(stored.read()).hexdigest() == member.name.rpartition("/")[2]
        for described, diff in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
            blob = tar.extractfile("blobs/" + described["digest"].replace(":", "/"))
            assert blob is not None
            assert "sha256:" + hashlib.sha256(gzip.decompress(blob.read())).hexdigest() == diff


def test_bytecode_is_trusted_without_its_source(archive: Path, tmp_path: Path) -> None:
    root = unpack(archive, tmp_path / "root")
    site = root / f"opt/leptonai/lib/python3.{MINOR}/site-packages"
    code = next((site / "__pycache__").glob("alpha.*.pyc"))
    assert int.from_bytes(code.read_bytes()[4:8], "little") == 1  # PEP 552: hash-based, unchecked
    (site / "alpha.py").write_text("WORDS = 'from the source'\n")
    told = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = [{str(site)!r}]; import alpha; print(alpha.WORDS)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "alpha" in told.stdout


def test_the_bill_names_every_part(archive: Path) -> None:
    bill = json.loads((archive.parent / "doubler.cdx.json").read_text())
    by_name = {c["name"]: c for c in bill["components"] if c["type"] == "library"}
    assert by_name["alpha"]["purl"] == "pkg:pypi/alpha@1.0" and by_name["alpha"]["licenses"]
    assert {"alpha", "beta", "leptonai-platform"} == by_name.keys()
    refs = {c["bom-ref"] for c in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert all({d["ref"], *d["dependsOn"]} <= refs for d in bill["dependencies"])
    image = next(c for c in bill["components"] if c["type"] == "container")
    assert image["hashes"][0]["content"] == document(archive)["manifests"][0]["digest"].removeprefix("sha256:")


def test_the_dockerfile_stacks_the_same_layers(archive: Path) -> None:
    text = (archive.parent / "docker/Dockerfile").read_text()
    manifest, config = parts(archive)
    added = [line.split()[1] for line in text.splitlines() if line.startswith("ADD ")]
    digests = [hashlib.sha256((archive.parent / "docker" / a).read_bytes()).hexdigest() for a in added]
    assert [f"sha256:{d}" for d in digests] == [layer["digest"] for layer in manifest["layers"]]
    assert f"ENTRYPOINT {json.dumps(config['config']['Entrypoint'])}" in text and "USER 61184:61184" in text


def test_an_archive_of_ours_can_be_the_base_of_another(inputs: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "second.tar"
    done = build(
        inputs / "doubler/service.yaml", "--base", archive, "--lock", inputs / "lock.txt", "-o", out,
        wheels=inputs / "wheels",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    below = [layer["digest"] for layer in parts(archive)[0]["layers"]]
    assert [layer["digest"] for layer in parts(out)[0]["layers"]][: len(below)] == below


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("missing base", 2, "no base /nowhere"),
        ("base is no tar", 2, "is no tar of a root file system"),
        ("base without Python", 2, "has no Python"),
        ("unhashed lock", 2, "is not name==version with --hash"),
        ("another digest", 2, "a wheel is not the one that the lock names"),
        ("no such wheel", 4, "no wheel for what the lock names"),
        ("wheel for another Python", 2, "is built for cp27-cp27m-manylinux1_x86_64"),
        ("unknown service", 4, "nosuch"),
        ("import nobody brings", 2, "imports nosuchmodule"),
        ("package on a base of one's own", 2, "--package is for --base debian"),
        ("one name for two variants", 2, "several lanes"),
    ],
)
def test_refusals_name_the_thing_and_leave_no_file(
    what: str, code: int, says: str, inputs: Path, tmp_path: Path
) -> None:
    base, locked, text, wheels = (
        inputs / "base",
        inputs / "lock.txt",
        inputs / "doubler/service.yaml",
        inputs / "wheels",
    )
    more: list[str] = []
    out = tmp_path / "out.tar"
    match what:
        case "missing base":
            base = Path("/nowhere")
        case "base is no tar":
            base = inputs / "lock.txt"
        case "base without Python":
            base = tmp_path / "empty"
            (base / "usr/bin").mkdir(parents=True)
        case "unhashed lock":
            locked = tmp_path / "lock.txt"
            locked.write_text("alpha==1.0\n")
        case "another digest":
            locked = tmp_path / "lock.txt"
            locked.write_text(f"alpha==1.0 --hash=sha256:{'0' * 64}\n")
        case "no such wheel":
            locked = tmp_path / "lock.txt"
            locked.write_text(f"gamma==1.0 --hash=sha256:{'0' * 64}\n")
        case "wheel for another Python":
            wheels = tmp_path / "wheels"
            made = wheel(wheels, "old", tag="cp27-cp27m-manylinux1_x86_64")
            made[0].rename(wheels / "old-1.0-py3-none-any.whl")
            locked = lock(tmp_path / "lock.txt", (wheels / "old-1.0-py3-none-any.whl", made[1]))
        case "unknown service":
            text = Path("nosuch")
        case "import nobody brings":
            text = service(tmp_path / "other")
            (tmp_path / "other/model.py").write_text(
                "import nosuchmodule\n\n" + (tmp_path / "other/model.py").read_text()
            )
        case "package on a base of one's own":
            more = ["--package", "libgomp1"]
        case "one name for two variants":
            text = service(tmp_path / "two")
            lines = "variants:\n  - {name: a, model: model.py}\n  - {name: b, model: model.py}\n"
            text.write_text(f"name: doubler\n{lines}")
            more = ["--image", "example.org/{service}:{model}"]
    given = [] if what == "import nobody brings" else ["--lock", locked]
    home = {"LEPTONAI_HOME": str(tmp_path / "home")}
    if what == "unknown service":
        home = {"LEPTONAI_HOST": "http://127.0.0.1:9", "LEPTONAI_TOKEN": "x"}
        code, says = 6, "127.0.0.1:9"
    done = build(text, "--base", base, "-o", out, *given, *more, wheels=wheels, **home)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "hint" in done.stderr.lower() and "Traceback" not in done.stderr
    assert not out.exists() and not list(tmp_path.glob("*.part"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_said_and_the_file_before_stays(inputs: Path, tmp_path: Path) -> None:
    small, out = tmp_path / "small", tmp_path / "out.tar"
    small.mkdir()
    out.write_text("as before")
    mount = f'mount -t tmpfs -o size=512k small {small} && exec "$@"'
    command = [
        sys.executable,
        "-m",
        "leptonai.cli",
        "build",
        inputs / "doubler/service.yaml",
        "--base",
        inputs / "base",
    ]
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            mount,
            "sh",
            *map(str, command),
            "--lock",
            str(inputs / "lock.txt"),
            "-o",
            str(out),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(small), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(inputs / "wheels")},
    )
    if "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.returncode == 6, done.stderr
    assert "the disk is full" in done.stderr and "Traceback" not in done.stderr
    assert out.read_text() == "as before"


@pytest.mark.parametrize(
    ("name", "said"), [("a b", "'a b' is no name of"), ("no-such-thing-here", "not installed here")]
)
def test_what_can_be_no_requirement_is_refused(name: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        closure([name])
