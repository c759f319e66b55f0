"""The definition of the custom resource says what the parser of a service's text says, because it is made from it."""

from __future__ import annotations

import copy
import math
import types
import typing
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from render_stage import check
from resource_texts import DIGEST, OK, TWO, WRONG

from leptonai.admit.bounds import BOUNDS, Bound, validate
from leptonai.cli.main import run
from leptonai.errors import SpecError
from leptonai.plan.render import to_yaml
from leptonai.serve import units
from leptonai.serve.resource.form import read, resource
from leptonai.serve.resource.schema import OPEN, definition, schema
from leptonai.serve.spec import SUGAR, UNITS, parse
from leptonai.types import Noun, Spec, Variant

Json = dict[str, Any]


# --- the two judges --------------------------------------------------------------------------------------------------


def strict(node: Json) -> Json:
    """The JSON Schema of what an API server takes and prunes nothing of: OpenAPI's words in the other's."""
    out: Json = {k: v for k, v in node.items() if not k.startswith("x-") and k not in ("nullable", "format", "default")}
    if out.pop("exclusiveMaximum", False):
        out["exclusiveMaximum"] = out.pop("maximum")
    for word in ("not", "items"):
        if word in out:
            out[word] = strict(out[word])
    if "anyOf" in out:
        out["anyOf"] = [strict(part) for part in out["anyOf"]]
    if isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = strict(out["additionalProperties"])
    elif "properties" in out:
        out["properties"] = {name: strict(part) for name, part in out["properties"].items()}
        out["additionalProperties"] = bool(node.get(OPEN))
    return {"anyOf": [{"type": "null"}, out]} if node.get("nullable") else out


SERVER = jsonschema.Draft202012Validator(strict(schema()["properties"]["spec"]))


def served(fields: Json) -> bool:
    return bool(SERVER.is_valid(fields))


def parsed(fields: Json) -> Spec | None:
    """What a resource of that spec is, once its models are asked to be digests."""
    try:
        spec = parse({"name": "digits"} | fields)
        validate(spec, admitted=True)
    except SpecError:
        return None
    return spec


# --- random texts, from the types alone ------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
TEXTS = {
    "name": NAMES,
    "workspace": NAMES,
    "model": st.just(DIGEST),
    "python": st.sampled_from(["/usr/bin/python3", "/opt/py 3/bin/python"]),
    "hash_on": st.sampled_from(["header:x-user", "cookie:c", "query:q", "source"]),
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def number(hint: Any, path: str) -> st.SearchStrategy[Any]:
    bound = BOUNDS.get(path) or Bound(0.0, 1.0)
    if hint is int:
        made: st.SearchStrategy[Any] = st.integers(int(bound.low), int(bound.high))
        made |= st.integers(int(bound.low), min(int(bound.high), int(bound.low) + 10))
    else:
        made = st.floats(bound.low, bound.high, exclude_max=bound.open_high)
    unit = UNITS.get(path.rpartition(".")[2])
    if unit is units.duration:
        made |= made.map(lambda v: f"{v!r}s") | made.map(lambda v: f" {v * 1000:.9f} ms")
    if unit is units.size:
        made |= made.map(lambda v: f"{v}") | made.map(lambda v: f"{v >> 20} MiB") | made.map(lambda v: f"{v >> 10}kib")
    return made


def values(hint: Any, path: str) -> st.SearchStrategy[Any]:
    origin, args, leaf = typing.get_origin(hint), typing.get_args(hint), path.rpartition(".")[2]
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(st.none() if kind is types.NoneType else values(kind, path) for kind in args))
    if origin is typing.Literal:
        return st.sampled_from(args)
    if path == "survey.scale":
        return st.tuples(st.integers(-3, 1), st.integers(2, 9)).map(list)
    if path == "rollout.steps":
        return st.sets(st.floats(0.01, 0.99), max_size=4).map(lambda shares: [*sorted(shares), 1.0])
    if hint is Any:
        return PLAIN
    if origin is tuple and path == "tests.golden":
        return st.lists(values(args[0], path), min_size=1, max_size=2)
    if origin is tuple:
        return st.lists(values(args[0], path), max_size=3)
    if origin is dict and args[1] is Any:
        return st.dictionaries(st.text(max_size=4), PLAIN, max_size=3)
    if origin is dict:
        name = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
        return st.dictionaries(name, st.text(max_size=5) | st.integers() | st.floats(-9, 9), max_size=3)
    if isinstance(hint, type) and issubclass(hint, Noun):
        return fields(hint, path)
    if hint is bool:
        return st.booleans()
    if hint in (int, float):
        return number(hint, path)
    assert hint is str, path
    return TEXTS.get(leaf, st.text(max_size=20))


def fields(noun: type[Noun], path: str, most: int = 3) -> st.SearchStrategy[Json]:
    """Some fields of it, at most ``most`` of those that may be left out."""
    hints = typing.get_type_hints(noun)
    needed = {f.name for f in msgspec.structs.fields(noun) if f.required}
    of = {name: values(hints[name], f"{path}.{name}" if path else name) for name in noun.__struct_fields__}
    if noun.__name__ == "Scale":
        low = st.integers(0, 4)
        some = {"min": low, "replicas": st.integers(4, 8), "max": st.integers(8, 90), "idle": of["idle"]}
        of |= some
    optional = sorted(set(of) - needed)
    chosen = st.sets(st.sampled_from(optional), max_size=most)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({n: of[n] for n in sorted(needed | names)}))


HINTS = typing.get_type_hints(Spec)
VARIANT = fields(Variant, "")
ALONE = st.sampled_from(sorted(set(Spec.__struct_fields__) - {"variants"}))


@st.composite
def texts(draw: st.DrawFn) -> Json:
    """As people write them: one model at the top, or several variants."""
    made: Json = {name: draw(values(HINTS[name], name)) for name in sorted(draw(st.sets(ALONE, max_size=3)))}
    if draw(st.booleans()):
        made |= {k: v for k, v in draw(VARIANT).items() if k != "name"}
    else:
        made["variants"] = draw(st.lists(VARIANT, min_size=1, max_size=3, unique_by=lambda v: v.get("name", "main")))
    if draw(st.booleans()) and "scale" not in made:
        made["replicas"] = draw(st.integers(0, 64))
    return made


JUNK = st.sampled_from([None, True, False, "", "x", "-1s", -1, 0, 1.5, 10**9, [], [1], {}, {"policy": "x"}])
many = settings(max_examples=100, suppress_health_check=list(HealthCheck))


@st.composite
def spoilt(draw: st.DrawFn) -> Json:
    """A text with one wrong thing in it, or one that only looks wrong."""
    made = copy.deepcopy(draw(texts()))
    node: Any = made
    for _ in range(draw(st.integers(0, 2))):
        inner = [v for v in (node.values() if isinstance(node, dict) else node) if isinstance(v, dict | list) and v]
        if not inner:
            break
        node = inner[draw(st.integers(0, len(inner) - 1))]
    if isinstance(node, list):
        node[draw(st.integers(0, len(node) - 1))] = draw(JUNK)
    else:
        known = [*sorted(node), "nobody", *SUGAR, *Spec.__struct_fields__]
        node[draw(st.sampled_from(known))] = draw(JUNK)
    return made


@many
@given(texts() | spoilt())
def test_what_the_parser_takes_a_cluster_takes(said: Json) -> None:
    if parsed(said) is not None:
        assert served(said), [e.message for e in SERVER.iter_errors(said)]


def test_that_is_no_empty_promise() -> None:
    """Most of the random texts are good ones, and most of the spoilt ones are not."""
    taken = {"good": 0, "spoilt": 0}

    @settings(max_examples=50, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(texts(), spoilt())
    def count(good: Json, bad: Json) -> None:
        taken["good"] += parsed(good) is not None
        taken["spoilt"] += parsed(bad) is not None

    count()
    assert taken["good"] >= 25 > taken["spoilt"]


@many
@given(texts())
def test_a_spec_written_as_a_resource_is_read_as_the_same(said: Json) -> None:
    spec = parsed(said)
    if spec is None:
        return
    made = resource(spec, "models")
    assert served(made["spec"])
    again = read(made)
    assert again.spec == spec, again.problem
    assert to_yaml([made]) == to_yaml([resource(spec, "models")])


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_by_both(what: str) -> None:
    assert not served(WRONG[what])
    assert parsed(WRONG[what]) is None


@pytest.mark.parametrize("said", [OK, TWO, OK | {"name": "other", "replicas": 2.0}], ids=["one", "two", "named"])
def test_what_is_right_is_taken_by_both(said: Json) -> None:
    assert served(said) and parsed(said) is not None


# --- the definition as an object -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.20", "1.21", "1.25", "1.28"])
def test_the_definition_is_valid_in_every_version(version: str) -> None:
    check(definition(), version)


def test_the_schema_is_structural() -> None:
    """Every node says its kind or that it is open, and conditions on it say none: else a cluster serves no status."""

    def walk(node: Json, path: str) -> None:
        assert ("type" in node) != bool(node.get(OPEN)) or node.get("type") == "object", path
        assert not (node.get("properties") and node.get("additionalProperties")), path
        assert "type" in node or "properties" not in node, f"{path}: to server-side apply it would be a map"
        for name, part in node.get("properties", {}).items():
            walk(part, f"{path}.{name}")
        for word in ("items", "additionalProperties"):
            if isinstance(node.get(word), dict):
                walk(node[word], f"{path}[]")
        conditions = [node.get("not", {}), *node.get("anyOf", [])]
        for said in conditions:
            bare(said, path)

    def bare(said: Json, path: str) -> None:
        assert not {"type", "nullable", "default", "additionalProperties", "description"} & set(said), path
        for part in (
            *([said["not"]] if "not" in said else []),
            *said.get("anyOf", []),
            *said.get("properties", {}).values(),
        ):
            bare(part, path)

    walk(schema(), "")


def test_every_number_of_the_schema_is_finite() -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for value in node.values():
                walk(value)
        elif isinstance(node, float):
            assert math.isfinite(node)

    walk(schema())


def test_the_commands_write_what_a_cluster_reads(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert run(["export", "crd"]) == 0
    (made,) = yaml.safe_load_all(capsys.readouterr().out)
    assert made == definition()
    (tmp_path / "model.py").write_text("class Noop:\n    def predict(self, x: float = 0.0):\n        return x\n")
    text = tmp_path / "service.yaml"
    text.write_text("name: digits\nworkspace: team\nmodel: ./model.py\nreplicas: 2\nslo: {latency: 100ms}\n")
    out = tmp_path / "git" / "digits.yaml"
    assert run(["export", "resource", str(text), "--namespace", "models", "-o", str(out)]) == 0
    capsys.readouterr()
    (written,) = yaml.safe_load_all(out.read_text())
    assert written["metadata"] == {"name": "team-digits", "namespace": "models"}
    again = read(written).spec
    assert again is not None and again.key == "team/digits" and again.slo.latency == 0.1
    assert served(written["spec"]) and written["spec"]["idempotent"] is False
    assert run(["export", "resource", str(tmp_path / "nothing.yaml")]) != 0
    assert "Traceback" not in capsys.readouterr().err
