"""A service moves from one platform to another by a file: models, golden examples, revisions, dials, the past."""

from __future__ import annotations

import tarfile
import time
from pathlib import Path

import msgspec
import pytest
from api_stage import Stage, open_stage

from leptonai.cli.main import run
from leptonai.client.wire import Moved
from leptonai.types import Canary, DialChange, Feedback, Incident, Rollout, SpecChange, Token, Variant

ADMIN = Token(name="ana", role="admin", secret_sha256="", created=0.0)
GOLDEN = '[{"inputs": {"x": 1}, "outputs": {"y": 2}}]'


def call(stage: Stage, *arguments: str | Path, role: str = "admin") -> int:
    if role not in stage.secrets:
        stage.token(role, role)  # type: ignore[arg-type]
    where = ["--home", str(stage.home), "--host", stage.url, "--token", stage.secrets[role]]
    return run([*where, *map(str, arguments)])


def grown(stage: Stage) -> str:
    """A service with two revisions, the first found good, three replicas, a closed incident and a label."""
    stage.service("digits", rollout=Rollout(strategy="canary"))
    folder = stage.model("digits.py", "class Model: ...\n# two\n")
    (folder / "digits.golden.json").write_text(GOLDEN)
    digest = stage.artifacts.put_tree(folder)
    head = stage.store.head("digits")
    assert head is not None and head.spec is not None
    stage.store.verify("digits", 1, time.time())
    spec = msgspec.structs.replace(head.spec, variants=(Variant(model=digest),))
    stage.door.propose(SpecChange(spec=spec, base=1), ADMIN, "a better model")
    stage.door.propose(DialChange(service="digits", set={"rollout.2.promoted": 1.0}), ADMIN, "it is good")
    stage.door.propose(DialChange(service="digits", set={"main.replicas": 3.0}), ADMIN, "many ask")
    now = time.time()
    stage.store.put_incident(
        Incident(
            id=0,
            subject="default/service/digits",
            severity="critical",
            title="slow",
            opened=now,
            began=now,
            closed=now + 9,
        )
    )
    stage.store.append_feedback(Feedback(about="r-1", by="human:bo", at=now, service="digits", label=7))
    return digest


def test_a_service_goes_on_elsewhere_with_all_its_past(
    stage: Stage, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = grown(stage)
    out = tmp_path / "digits.bundle.tar"
    assert call(stage, "export", "bundle", "digits", "-o", out) == 0, capsys.readouterr().err
    assert call(stage, "export", "bundle", "digits", "-o", tmp_path / "again.tar") == 0
    assert out.read_bytes() == (tmp_path / "again.tar").read_bytes()
    with open_stage(tmp_path_factory.mktemp("there")) as there:
        assert call(there, "import", out) == 0, capsys.readouterr().err
        assert there.store.revisions("digits") == stage.store.revisions("digits")
        before, after = (s.store.service("digits", time.time()) for s in (stage, there))
        assert before is not None and after is not None
        assert after.dials.variants["main"].replicas == 3 and after.canary is None
        assert (after.spec, after.revision) == (before.spec, 2)
        assert (there.artifacts.path(digest) / "digits.golden.json").read_text() == GOLDEN
        mine, theirs = (s.store.incidents(open=False)[0] for s in (stage, there))
        assert (theirs.subject, theirs.opened, theirs.closed) == (mine.subject, mine.opened, mine.closed)
        assert [item for _, item in there.store.feedback()[0]] == [item for _, item in stage.store.feedback()[0]]
        adopted = there.store.events(subject="digits", kind="service.adopted")
        assert len(adopted) == 1 and adopted[0].actor == "human:admin"
        # what was served before can be served again there
        assert call(there, "undo", "digits", "--to", "1") == 0, capsys.readouterr().err
        head = there.store.head("digits")
        assert head is not None and head.number == 3
        capsys.readouterr()
        assert call(there, "import", out) == 5
        assert "digits is known here" in capsys.readouterr().err


def test_nobody_below_an_admin_brings_a_history(
    stage: Stage, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.service("digits")
    out = tmp_path / "digits.tar"
    assert call(stage, "export", "bundle", "digits", "-o", out) == 0
    with open_stage(tmp_path_factory.mktemp("there")) as there:
        assert call(there, "import", out, role="operator") == 3
        assert "this needs admin" in capsys.readouterr().err or there.store.head("digits") is None
        assert there.store.head("digits") is None


@pytest.mark.parametrize("what", ["cut off", "another model", "no model", "newer", "no revision", "another's name"])
def test_a_bundle_that_is_not_whole_changes_nothing(
    what: str,
    stage: Stage,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage.service("digits")
    out = tmp_path / "digits.tar"
    assert call(stage, "export", "bundle", "digits", "-o", out) == 0
    if what == "cut off":
        out.write_bytes(out.read_bytes()[:-9000])
    else:
        folder = tmp_path / "bundle"
        with tarfile.open(out) as tar:
            tar.extractall(folder, filter="data")
        about = folder / "bundle.json"
        model = next((folder / "models").iterdir())
        match what:
            case "another model":
                next(p for p in model.rglob("*") if p.is_file()).write_text("other")
            case "no model":
                next(p for p in model.rglob("*") if p.is_file()).unlink()
                model.rmdir()
            case "newer":
                about.write_text(about.read_text().replace('"bundle":1', '"bundle":1,"unheard":2', 1))
            case "no revision":
                about.write_bytes(msgspec.json.encode(Moved(service="digits", revisions=())))
            case "another's name":
                about.write_text(
                    about.read_text().replace('{"bundle":1,"service":"digits"', '{"bundle":1,"service":"x"')
                )
        with tarfile.open(out, "w") as tar:
            for path in [about, *sorted(p for p in folder.rglob("models/**/*") if p.is_file())]:
                tar.add(path, str(path.relative_to(folder)))
    with open_stage(tmp_path_factory.mktemp("there")) as there:
        code = call(there, "import", out)
        said = capsys.readouterr().err
        assert code in (2, 3, 4) and "hint" in said and "mistake of ours" not in said, said
        assert there.store.heads() == []


def test_while_a_rollout_is_under_way_nothing_moves(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.service("digits", rollout=Rollout(strategy="canary"))
    head = stage.store.head("digits")
    assert head is not None and head.spec is not None
    other = stage.artifacts.put_tree(stage.model("m.py", "class Model: ...\n# other\n"))
    spec = msgspec.structs.replace(head.spec, variants=(Variant(model=other),))
    stage.door.propose(SpecChange(spec=spec, base=1), ADMIN, "try it")
    assert isinstance(stage.store.service("digits", time.time()).canary, Canary)  # type: ignore[union-attr]
    assert call(stage, "export", "bundle", "digits", "-o", tmp_path / "x.tar") == 5
    assert "a rollout of digits is under way" in capsys.readouterr().err
    assert not (tmp_path / "x.tar").exists()


def test_models_no_longer_here_are_named(stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = stage.service("digits")
    stage.artifacts.collect(set(), before=time.time() + 1e6)
    assert call(stage, "export", "bundle", "digits", "-o", tmp_path / "x.tar") == 4
    assert spec.variants[0].model in capsys.readouterr().err
