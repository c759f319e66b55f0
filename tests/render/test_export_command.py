"""``leptonai export kubernetes``: from a text to a file, the same bytes each time; errors name what is wrong."""

from pathlib import Path

import pytest
import yaml

from leptonai.cli.main import run

TEXT = "name: digits\nmodel: ./model.py\nreplicas: 2\noutlier: {errors: 3}\n"


def folder(tmp_path):
    (tmp_path / "model.py").write_text("class Noop:\n    def predict(self, x: float = 0.0):\n        return x\n")
    (tmp_path / "service.yaml").write_text(TEXT)
    return str(tmp_path / "service.yaml")


def test_a_text_becomes_a_file(tmp_path, capsys):
    text, out = folder(tmp_path), tmp_path / "cluster"
    assert run(["export", "kubernetes", text, "-o", str(out), "--version", "1.30", "--image", "r.io/{service}:1"]) == 0
    said = capsys.readouterr()
    assert "7 objects" in said.out and "outlier" in said.err
    first = (out / "digits.yaml").read_bytes()
    made = list(yaml.safe_load_all(first))
    (deployment,) = [o for o in made if o["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "r.io/digits:1"
    assert run(["export", "kubernetes", text, "--version", "1.30", "--image", "r.io/{service}:1"]) == 0
    assert capsys.readouterr().out.encode() == first
    assert [p.name for p in out.iterdir()] == ["digits.yaml"]


def test_errors_are_sentences(tmp_path, capsys):
    text = folder(tmp_path)
    for more, code, word in (
        (["--version", "1.12"], 6, "older than 1.20"),
        (["--version", "new"], 2, "no version"),
        (["--traffic", "gateway"], 2, "--gateway"),
        (["--image", "{nobody}"], 2, "{nobody}"),
        (["--workspace", "team"], 2, "service that runs"),
        (["-o", text], 2, "cannot write"),
    ):
        assert run(["export", "kubernetes", text, *more]) == code
        said = capsys.readouterr().err
        assert word in said and "Traceback" not in said, said
    assert run(["export", "kubernetes", str(tmp_path / "missing.yaml")]) != 0
    assert "missing.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["prometheus", "TEXT", "TEXT", "-o", "OUT"], "named twice"),
        (["otel", "TEXT", "TEXT"], "named twice"),
        (["otel", "TEXT", "--platform", "http://a b/"], "'http://a b' is no URL"),
        (["otel", "TEXT", "--platform", "http://x:port"], "'http://x:port' is no URL"),
        (["alertmanager", "--platform", "http://"], "is no URL"),
        (["jenkins", "digits", "--patience", "0"], "--patience"),
        (["github", "digits", "--patience", "-1"], "--patience"),
        (["resource", "TEXT", "--namespace", "Bad!"], "'Bad!' is no name of a namespace"),
        (["rbac", "--namespace", "Bad!"], "'Bad!' is no name of a namespace"),
        (["rbac", "--account", "a_b"], "'a_b' is no name of a ServiceAccount"),
    ],
)
def test_what_no_tool_could_read_is_refused(
    command: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.py").write_text("class Model:\n    def predict(self, x):\n        return x\n")
    (tmp_path / "service.yaml").write_text("name: digits\nmodel: ./model.py\n")
    places = {"TEXT": str(tmp_path / "service.yaml"), "OUT": str(tmp_path / "out")}
    assert run(["--home", str(tmp_path / "home"), "export", *(places.get(word, word) for word in command)]) == 2
    told = capsys.readouterr()
    assert said in told.err and "hint:" in told.err and not told.out
    assert not (tmp_path / "out").exists()
