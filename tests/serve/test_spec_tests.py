"""``tests`` of a service's text: examples in it or in a file beside it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leptonai.errors import SpecError
from leptonai.serve.spec import load, parse
from leptonai.types import Golden, ModelTests, canonical

ONE = [{"inputs": {"x": [1.5]}, "outputs": {"y": [3.0]}}]


def text(**tests: Any) -> dict[str, Any]:
    return {"name": "s", "model": "m.onnx", "tests": tests}


def test_examples_come_from_a_file_beside_the_text(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("class M:\n    def predict(self, x): return x\n")
    (tmp_path / "golden.json").write_text(json.dumps(ONE))
    said = "tests: {every: 5m, golden: golden.json, latency: 50ms, invariances: [noise]}"
    (tmp_path / "service.yaml").write_text(f"name: s\nmodel: model.py\n{said}\n")
    spec, _ = load(tmp_path)
    example = Golden(inputs={"x": [1.5]}, outputs={"y": [3.0]})
    assert spec.tests == ModelTests(every=300.0, golden=(example,), latency=0.05, invariances=("noise",))
    before = parse({"name": "s", "model": "m.onnx"})
    assert before.variants[0].digest == parse(text(golden=ONE)).variants[0].digest, "tests replace no process"
    (tmp_path / "golden.json").write_text("{")
    with pytest.raises(SpecError, match=r"service.yaml:3: tests.golden: golden.json: ") as refused:
        load(tmp_path)
    assert "JSON list" in refused.value.hint
    (tmp_path / "golden.json").unlink()
    with pytest.raises(SpecError, match=r"tests.golden: golden.json: No such file"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        ({}, r"tests.golden: is missing"),
        ({"golden": []}, r"tests.golden: is missing"),
        ({"golden": "golden.json"}, r"tests.golden: expected a list, got the text 'golden.json'"),
        ({"golden": [{"outputs": 1}]}, r"tests.golden\[0\].inputs: is missing"),
        ({"golden": [{"inputs": {}, "tolerance": -1}]}, r"tests.golden\[0\].tolerance: -1 is out of bounds"),
        ({"golden": [{"inputs": {}, "label": 1}]}, r"tests.golden\[0\].label: unknown field"),
        ({"golden": ONE * 101}, r"has 101 examples, the limit is 100"),
        ({"golden": [{"inputs": {"x": "a" * 70_000}}]}, r"bytes, the limit is 65536"),
        ({"golden": [{"inputs": {"x": float("inf")}}]}, r"tests.golden\[0\].inputs.x: inf is not a finite number"),
        ({"golden": ONE, "invariances": ["mirror"]}, r"tests.invariances\[0\].*mirror"),
        ({"golden": ONE, "invariances": ["case", "case"]}, r"one is named twice"),
        ({"golden": ONE, "every": 0.1}, r"tests.every: 0.1 is out of bounds; it may be 1 to 86400 seconds"),
        ({"golden": ONE, "failing": 1}, r"tests.failing: 1 is out of bounds"),
        ({"golden": ONE, "latency": 0}, r"tests.latency: 0 is out of bounds"),
    ],
)
def test_what_cannot_be_asked_is_refused(tests: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse(text(**tests))


def test_equal_text_gives_an_equal_spec() -> None:
    assert canonical(parse(text(golden=ONE))) == canonical(parse(text(golden=ONE)))
