"""Text, model files and Python files to a Spec; and every way they can be wrong, with what the error says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.admit.bounds import BOUNDS
from leptonai.errors import SpecError
from leptonai.serve import units
from leptonai.serve.spec import from_model_file, from_python, load, parse, validate
from leptonai.types import Batching, Resources, Rollout, Scale, Slo, Spec, Variant

DIGEST = "sha256:" + "a" * 64
FULL = """
name: digits
workspace: team
model: ./digits.onnx
options: {threads: 2, nested: [1, {a: b}]}
env: {MODE: fast, LEVEL: 3}
python: /usr/bin/python3
resources: {cpu: 0.5, memory: 512MB}
batching: {policy: eager, max_size: 8, max_bytes: 1MiB, max_wait: 5ms}
trust: none
replicas: 2
scale: {min: 1, max: 5}
slo: {availability: 0.99, latency: 100ms, period: 7d}
rollout: {start_timeout: 2m, verify_seconds: 1.5h}
balance: maglev
timeout: 10
drain: 5s
"""


def test_sugar_and_units() -> None:
    assert parse(FULL) == Spec(
        name="digits",
        workspace="team",
        variants=(
            Variant(
                model="./digits.onnx",
                options={"threads": 2, "nested": [1, {"a": "b"}]},
                env={"MODE": "fast", "LEVEL": "3"},
                python="/usr/bin/python3",
                resources=Resources(cpu=0.5, memory=512_000_000),
                batching=Batching(policy="eager", max_size=8, max_bytes=1 << 20, max_wait=0.005),
                idempotent=True,
            ),
        ),
        scale=Scale(min=1, max=5, replicas=2),
        slo=Slo(availability=0.99, latency=0.1, period=7 * 86400.0),
        rollout=Rollout(start_timeout=120.0, verify_seconds=5400.0),
        balance="maglev",
        timeout=10.0,
        drain=5.0,
    )


def test_variants_by_name_or_as_a_list() -> None:
    by_name = parse("{name: d, variants: {main: {model: a.py}, canary: {model: b.onnx, idempotent: false}}}")
    as_list = parse("{name: d, variants: [{model: a.py}, {name: canary, model: b.onnx, idempotent: false}]}")
    assert by_name == as_list
    assert [(v.name, v.idempotent) for v in by_name.variants] == [("main", False), ("canary", False)]


def test_a_spec_survives_being_written_and_read() -> None:
    spec = parse(FULL)
    assert parse(msgspec.yaml.encode(spec).decode()) == spec
    assert parse(msgspec.to_builtins(spec)) == spec


def test_what_repeats_a_request_is_known_only_from_the_models_name() -> None:
    assert parse(f"{{name: d, model: '{DIGEST}'}}").variants[0].idempotent is None


OK = {"name": "d", "model": "m.onnx"}
BAD: dict[str, tuple[str, list[str]]] = {
    "empty": ("", ["is empty"]),
    "only a comment": ("# nothing\n", ["is empty"]),
    "not fields": ("- a\n- b\n", ["expected fields", "a list"]),
    "malformed": ("name: d\nmodel: [a\n", ["f.yaml:3", "expected ',' or ']'"]),
    "tab": ("name: d\n\tmodel: a\n", ["f.yaml:2"]),
    "bad character": ("name: d\nmodel: a\x07\n", ["f.yaml", "special characters"]),
    "two documents": ("name: d\n---\nname: e\n", ["f.yaml:2"]),
    "key twice": ("name: d\nmodel: a\nname: e\n", ["f.yaml:3", "'name' is given twice"]),
    "Python tag": ("name: !!python/object/apply:os.system [ls]\nmodel: a\n", ["f.yaml:1", "could not determine"]),
    "unhashable key": ("? [a]\n: b\n", ["f.yaml:1"]),
    "impossible date": ("name: d\nmodel: 2020-13-45\n", ["f.yaml"]),
    "no name": ("model: a\n", ["name: is missing"]),
    "no model": ("name: d\n", ["model: is missing"]),
    "unknown field": ("name: d\nmodel: a\nreplicsa: 2\n", ["f.yaml:3: replicsa: unknown field", "'replicas'"]),
    "unknown deep": ("name: d\nmodel: a\nslo:\n  latencyy: 1\n", ["f.yaml:4: slo.latencyy: unknown", "'latency'"]),
    "unknown in model": ("name: d\nmodel: a\nresources: {ram: 1}\n", ["f.yaml:3: resources.ram", "cpu, memory, gpu"]),
    "field is a number": ("name: d\nmodel: a\n7: 2\n", ["f.yaml:3: 7: unknown field"]),
    "bad name": ("name: My_Service\nmodel: a\n", ["f.yaml:1: name: 'My_Service'", "letter first"]),
    "long name": (f"name: {'a' * 41}\nmodel: a\n", ["name: 'aaa", "1 to 40"]),
    "name no": ("name: no\nmodel: a\n", ["name: expected text, got false", "quote"]),
    "date": ("name: d\nmodel: 2020-01-01\n", ["model: expected text", "quote"]),
    "bad workspace": ("name: d\nmodel: a\nworkspace: A/B\n", ["workspace: 'A/B'"]),
    "bad duration": ("name: d\nmodel: a\ntimeout: 3 parsecs\n", ["f.yaml:3: timeout: '3 parsecs'", "30s"]),
    "bad size": ("name: d\nmodel: a\nresources: {memory: lots}\n", ["resources.memory: 'lots'", "512MB"]),
    "number as text": ("name: d\nmodel: a\nreplicas: two\n", ["f.yaml:3: replicas: expected a number", "'two'"]),
    "part of a replica": ("name: d\nmodel: a\nreplicas: 1.5\n", ["replicas: expected a whole number, got 1.5"]),
    "truth for a number": ("name: d\nmodel: a\nreplicas: true\n", ["replicas: expected a number, got true"]),
    "negative": ("name: d\nmodel: a\nreplicas: -1\n", ["replicas: -1 is out of bounds", "0 to 10000"]),
    "too many": (
        "name: d\nmodel: a\nreplicas: 65\n",
        ["f.yaml:3: replicas: 65 is outside scale.min 0 to scale.max 64"],
    ),
    "min over max": ("name: d\nmodel: a\nscale: {min: 3, max: 2}\n", ["f.yaml:3: scale.min: 3 is over scale.max 2"]),
    "replicas twice": ("{name: d, model: a, replicas: 1, scale: {replicas: 1}}", ["given at the top and in scale"]),
    "nan": ("name: d\nmodel: a\ntimeout: .nan\n", ["timeout: expected a finite number"]),
    "past all floats": ("name: d\nmodel: a\ntimeout: 1e400\n", ["timeout: expected a finite number"]),
    "a size past all floats": ("name: d\nmodel: a\nresources: {memory: 1e400B}\n", ["resources.memory", "any number"]),
    "inf": ("name: d\nmodel: a\ntimeout: .inf\n", ["timeout: expected a finite number"]),
    "huge": (f"name: d\nmodel: a\nreplicas: 1{'0' * 400}\n", ["replicas: expected a finite number"]),
    "never pages": (
        "name: d\nmodel: a\nslo: {latency_objective: 0.6}\n",
        ["slo.latency_objective: an objective of 0.6 leaves a budget of 0.4", "raise the objective"],
    ),
    "too short to count": ("name: d\nmodel: a\nslo: {period: 60s}\n", ["too short for counts every 1 s"]),
    "certainty": ("name: d\nmodel: a\nslo: {availability: 1}\n", ["slo.availability: 1 is out", "under 1"]),
    "zero time": ("name: d\nmodel: a\ntimeout: 0\n", ["timeout: 0 is out of bounds; it may be 0.01 to 86400 seconds"]),
    "wait of a policy that finds out": (
        "{name: d, model: a, batching: {max_wait: 5ms}}",
        ["max_wait: 0.005 s", "policy adaptive", "policy: eager"],
    ),
    "queue under batch": ("{name: d, model: a, batching: {max_queue: 1}}", ["max_queue: 1 is under max_size 32"]),
    "balance": ("name: d\nmodel: a\nbalance: luck\n", ["f.yaml:3: balance", "luck"]),
    "trust": ("name: d\nmodel: a\ntrust: me\n", ["f.yaml:3: trust", "me"]),
    "env truth": ("name: d\nmodel: a\nenv: {A: yes}\n", ["env.A: expected text, got true"]),
    "env name": ("name: d\nmodel: a\nenv: {'A=B': x}\n", ["env: 'A=B'"]),
    "env nul": ('name: d\nmodel: a\nenv: {A: "x\\0y"}\n', ["env.A: holds a NUL"]),
    "python": ("name: d\nmodel: a\npython: python3\n", ["python: 'python3' is not an absolute path"]),
    "options list": ("name: d\nmodel: a\noptions: [1]\n", ["options: expected fields, got a list"]),
    "options key": ("name: d\nmodel: a\noptions: {1: 2}\n", ["f.yaml:3: options: the key 1 is not text"]),
    "options nan": ("name: d\nmodel: a\noptions: {a: .nan}\n", ["options.a: expected a finite number"]),
    "options date": ("name: d\nmodel: a\noptions: {a: 2020-01-01}\n", ["options.a: a date is no plain value"]),
    "digest": ("name: d\nmodel: 'sha256:12'\n", ["model: 'sha256:12' is no artifact digest"]),
    "empty model": ("name: d\nmodel: ''\n", ["model: '' is no path"]),
    "variants and model": ("{name: d, model: a, variants: []}", ["model: stands beside 'variants'"]),
    "no variants": ("{name: d, variants: []}", ["variants: 0 variants", "1 to 16"]),
    "same variant": ("{name: d, variants: [{model: a}, {model: b}]}", ["variants[1].name: 'main' is also"]),
    "variant is text": ("{name: d, variants: {main: a.onnx}}", ["variants.main: expected fields"]),
    "scale is text": ("{name: d, model: a, scale: big, replicas: 1}", ["scale: expected fields, got the text 'big'"]),
    "slo is null": ("{name: d, model: a, slo: }", ["slo: expected fields, got nothing"]),
    "itself": ("&a {name: d, model: a, options: {x: *a}}", ["nested too deeply"]),
    "deep": ("{name: d, model: a, options: " + "{a: " * 500 + "1" + "}" * 500 + "}", ["nested too deeply"]),
    "very deep": ("[" * 100_000, ["f.yaml"]),
    "billions": (
        "name: d\nmodel: a\noptions:\n  a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"  a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
        ["over 100000 values"],
    ),
    "big": ("name: d\nmodel: " + "a" * 2_000_000, ["over the limit of 1048576"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_text_is_named_with_its_place(case: str) -> None:
    text, said = BAD[case]
    with pytest.raises(SpecError) as caught:
        parse(text, "f.yaml")
    for part in said:
        assert part in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.startswith("f.yaml")
    assert caught.value.body()["code"] == "spec"


PIECES = [
    "name",
    ":",
    " ",
    "\n",
    "d",
    "model",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a",
    "*a",
    "!!",
    "'",
    '"',
    "#",
    "|",
    "<<",
    "1",
]


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text())
def test_no_text_at_all_raises_anything_else(text: str) -> None:
    try:
        parse(text)
    except SpecError as e:
        assert e.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({*Spec.__struct_fields__, *Variant.__struct_fields__, "replicas"})


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_no_value_in_any_field_raises_anything_else(fields: dict[str, Any]) -> None:
    try:
        spec = parse({**OK, **fields})
    except SpecError as e:
        assert e.message
    else:
        validate(spec)


def test_every_number_of_a_spec_has_bounds() -> None:
    validate(Spec(name="d", variants=(Variant(model="m", resources=Resources(cpu=1.0, memory=1 << 30)),)))
    needed = {"rate_limit": {"rate": 1.0}}
    for field, bound in BOUNDS.items():
        head, _, leaf = field.rpartition(".")
        value: Any = bound.high * 2 + 1
        with pytest.raises(SpecError) as caught:
            given: dict[str, Any] = {**needed.get(head, {}), leaf: value}
            for name in reversed(head.split(".") if head else []):
                given = {name: given}
            parse({**OK, **given})
        assert field in caught.value.message and "out of bounds" in caught.value.message


def test_the_api_admits_only_artifacts() -> None:
    validate(parse(f"{{name: d, model: '{DIGEST}'}}"), admitted=True)
    with pytest.raises(SpecError, match="no artifact digest"):
        validate(parse("{name: d, model: a.onnx}"), admitted=True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1", 1), ("1.5s", 1.5), ("250ms", 0.25), ("2 m", 120), ("1h", 3600), ("30d", 2592000)]
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1KB", 1000), ("1KiB", 1024), ("1Gi", 1 << 30), ("1.5 mb", 1_500_000), ("2TB", 2 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert units.size(text) == size


# --- files -----------------------------------------------------------------------------------------------------------

CLASS = "class Model:\n    def predict(self, x: float) -> float:\n        return x\n"


def write(path: Path, content: str | bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_model_file_is_a_service_of_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "My Model_v2.onnx")
    spec, model = load(path)
    assert (spec.name, model, spec.variants[0].idempotent) == ("my-model-v2", path, True)
    assert spec == from_model_file(path)
    assert from_model_file(path, "other").name == "other"
    assert load(write(tmp_path / "7.onnx"))[0].name == "model-7"


def test_a_python_file_is_read_and_never_run(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(1)\n" + CLASS
    spec, model = load(write(tmp_path / "echo.py", code))
    assert (spec.name, model, spec.variants[0].idempotent) == ("echo", tmp_path / "echo.py", False)
    assert not (tmp_path / "ran").exists()
    assert "echo" not in sys.modules


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\n", "it has: none"),
        (CLASS + CLASS.replace("Model", "Other"), "it has: Model, Other"),
        ("def predict(x): ...\n", "it has: none"),
        ("class Model:\n  def predict(self\n", "model.py:2"),
        ("x = '\0'\n", "null bytes"),
        (b"# caf\xe9\n", "is not UTF-8"),
        ("", "is empty"),
    ],
)
def test_a_python_file_without_one_class_is_refused(tmp_path: Path, code: str | bytes, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        from_python(write(tmp_path / "model.py", code))


@pytest.mark.parametrize(
    "code",
    [
        CLASS,
        "class A:\n  async def predict(self, x): ...\n",
        "class Net:\n  def forward(self, x): ...\n",
        "class Base:\n  def predict(self, x): ...\nclass Mine(Base):\n  def setup(self): ...\n",
    ],
)
def test_classes_that_predict(tmp_path: Path, code: str) -> None:
    assert from_python(write(tmp_path / "model.py", code)).name == "model"


def test_a_text_beside_its_model(tmp_path: Path) -> None:
    write(tmp_path / "models" / "a.onnx")
    text = write(tmp_path / "s.yaml", "name: d\nmodel: models/a.onnx\n")
    spec, model = load(text)
    assert model == tmp_path / "models" / "a.onnx"
    assert spec.variants[0].model == str(model)
    both = write(tmp_path / "b.yml", f"{{name: d, variants: {{main: {{model: '{DIGEST}'}}, b: {{model: models}}}}}}")
    spec, model = load(both)
    assert model == tmp_path / "models"
    assert [v.idempotent for v in spec.variants] == [None, True]
    assert load(write(tmp_path / "c.yml", f"{{name: d, model: '{DIGEST}'}}"))[1] is None


def test_a_folder_with_a_text_or_with_one_model(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "service.yaml", "name: d\n")
    write(tmp_path / "mine" / "model.py", CLASS)
    write(tmp_path / "mine" / "weights.pt")
    spec, model = load(tmp_path / "mine")
    assert (spec.name, model, spec.variants[0].idempotent) == ("d", tmp_path / "mine", False)
    write(tmp_path / "bare" / "m.onnx")
    assert load(tmp_path / "bare")[0].name == "bare"
    write(tmp_path / "bare" / "n.onnx")
    with pytest.raises(SpecError, match=r"several models: m\.onnx, n\.onnx"):
        load(tmp_path / "bare")


def test_options_choose_among_classes(tmp_path: Path) -> None:
    write(tmp_path / "m.py", CLASS + CLASS.replace("Model", "Other"))
    ok = write(tmp_path / "ok.yaml", "name: d\nmodel: m.py\noptions: {class: Other}\n")
    assert load(ok)[0].variants[0].options == {"class": "Other"}
    with pytest.raises(SpecError, match=r"bad\.yaml:2: model: .*no class 'Third'"):
        load(write(tmp_path / "bad.yaml", "name: d\nmodel: m.py\noptions: {class: Third}\n"))


def test_pickles_need_trust(tmp_path: Path) -> None:
    path = write(tmp_path / "m.pkl")
    with pytest.raises(SpecError, match="can run any code") as caught:
        load(path)
    assert "trust: pickle" in caught.value.hint
    load(write(tmp_path / "s.yaml", "name: d\nmodel: m.pkl\ntrust: pickle\n"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.onnx", None, "no such file"),
        ("none.yaml", None, "no such file"),
        ("none.py", None, "no such file"),
        ("empty.onnx", b"", "is empty"),
        ("empty.yaml", b"", "is empty"),
        ("latin.yaml", b"name: d\nmodel: caf\xe9\n", r"latin\.yaml:2: is not UTF-8"),
        ("what.zip", b"x", r"\.zip suffix is not known"),
        ("bare", b"x", "no suffix is not known"),
        ("s.yaml", b"name: d\nmodel: none.onnx\n", r"s\.yaml:2: model: .*none\.onnx: no such file"),
        ("s.yaml", b"name: d\nmodel: ..\n", r"s\.yaml:2: model: .*holds no model"),
    ],
)
def test_files_that_cannot_be_served(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / "sub" / name
    path.parent.mkdir()
    if content is not None:
        write(path, content)
    with pytest.raises(SpecError, match=said):
        load(path)


def test_the_documented_text_is_all_defaults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "services.md").read_text()
    text = page.split("```yaml\n")[1].split("```")[0]
    assert parse(text, "docs/services.md") == parse("name: digits\nmodel: ./digits.onnx\n")
