"""What a Spec may say: every number has bounds, every name a form. One table, used for text and for the API alike."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any, NamedTuple

from leptonai.errors import SpecError
from leptonai.series.burn import windows
from leptonai.types import DIGEST, NAME, Balance, Golden, ModelTests, Noun, Spec, Survey, Variant, canonical

DAY = 86400.0
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_VARIANTS = 16
HASH_ON = re.compile(r"(header|cookie|query):[A-Za-z0-9!#$%&'*+.^_`|~-]{1,80}|source")  # tokens of RFC 9110
MAX_STEPS = 100
MAX_CHOICES = 20  # of a form: each rating is a button
MAX_QUESTION = 300  # characters
MAX_GOLDEN = 100  # examples of a spec
MAX_GOLDEN_BYTES = 64 << 10  # of them as JSON: the spec is read each second, and kept with every revision
NEW = "-new"  # ends the cluster of a version on probation (plan.lanes)


class Bound(NamedTuple):
    low: float
    high: float
    unit: str = ""
    open_high: bool = False  # high itself is not allowed


BOUNDS: dict[str, Bound] = {
    "timeout": Bound(0.01, DAY, "seconds"),
    "drain": Bound(0.0, 3600.0, "seconds"),
    "priority": Bound(-1000, 1000),
    "slo.availability": Bound(0.5, 1.0, open_high=True),  # 1.0 leaves no budget: nothing could ever burn it
    "slo.latency": Bound(0.001, 3600.0, "seconds"),
    "slo.latency_objective": Bound(0.5, 1.0, open_high=True),
    "slo.period": Bound(60.0, 366 * DAY, "seconds"),
    "scale.min": Bound(0, 10_000),
    "scale.max": Bound(1, 10_000),
    "scale.replicas": Bound(0, 10_000),
    "scale.idle": Bound(1.0, 366 * DAY, "seconds"),
    "hold.max_wait": Bound(0.0, 3600.0, "seconds"),
    "hold.max_count": Bound(1, 100_000, "requests"),
    "hold.max_bytes": Bound(1 << 10, 1 << 34, "bytes"),
    "fallback.max_age": Bound(1.0, 366 * DAY, "seconds"),
    "fallback.max_bytes": Bound(1 << 10, 1 << 34, "bytes"),
    "scale.auto.target": Bound(0.001, 100_000, "requests at once"),
    "scale.auto.concurrency": Bound(0.01, 100_000, "requests at once"),
    "scale.auto.window": Bound(2.0, 3600.0, "seconds"),
    "scale.auto.hold": Bound(0.0, DAY, "seconds"),
    "rollout.surge": Bound(0, 1000),
    "rollout.start_timeout": Bound(0.1, DAY, "seconds"),
    "rollout.step_seconds": Bound(0.0, DAY, "seconds"),
    "rollout.step_timeout": Bound(1.0, 30 * DAY, "seconds"),
    "rollout.alpha": Bound(1e-9, 0.5),
    "rollout.power": Bound(0.5, 1.0, open_high=True),
    "rollout.effect": Bound(0.001, 1.0),
    "rollout.slower": Bound(0.0, 10.0),
    "rollout.min_samples": Bound(1, 10**7),
    "rollout.disagreement": Bound(0.0, 1.0),
    "rollout.record": Bound(0, 1000, "requests"),
    "rollout.verify_seconds": Bound(0.0, DAY, "seconds"),
    "rollout.verify_requests": Bound(0, 10**9),
    "resources.cpu": Bound(0.01, 4096.0, "cores"),
    "resources.memory": Bound(1 << 20, 1 << 50, "bytes"),
    "resources.gpu": Bound(0, 64),
    "balance.cookie_ttl": Bound(0.0, 366 * DAY, "seconds"),
    "balance.load_factor": Bound(0.0, 100.0),
    "balance.slow_start": Bound(0.0, 3600.0, "seconds"),
    "outlier.errors": Bound(1, 10**6, "errors in a row"),
    "outlier.eject": Bound(0.1, 3600.0, "seconds"),
    "outlier.max_share": Bound(0.01, 0.5),  # so that one of one always stays
    "retry.attempts": Bound(0, 20),
    "retry.budget": Bound(0.0, 1.0),
    "retry.min": Bound(0, 100_000, "requests"),
    "limits.connections": Bound(1, 10**6),
    "limits.pending": Bound(0, 10**6, "requests"),
    "limits.requests": Bound(1, 10**6, "requests"),
    "limits.replica_connections": Bound(1, 10**6),
    "rate_limit.rate": Bound(0.01, 10**6, "requests per second"),
    "rate_limit.burst": Bound(1, 10**7, "requests"),
    "rate_limit.anonymous": Bound(0.01, 10**6, "requests per second"),
    "tests.every": Bound(1.0, DAY, "seconds"),
    "tests.failing": Bound(0.0, 1.0, open_high=True),
    "tests.noise": Bound(1e-6, 1.0),
    "tests.latency": Bound(0.001, 3600.0, "seconds"),
    "survey.satisfied": Bound(-1000.0, 1000.0),
    "survey.complaint": Bound(-1000.0, 1000.0),
    "batching.max_size": Bound(1, 65_536, "samples"),
    "batching.max_bytes": Bound(1, 1 << 40, "bytes"),
    "batching.max_wait": Bound(0.0, 60.0, "seconds"),
    "batching.max_queue": Bound(1, 10**7, "samples"),
}


class FieldError(SpecError):
    """A SpecError that knows its field; ``parse`` adds source and line."""

    def __init__(self, field: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{field}: {problem}", hint=hint, field=field)
        self.field, self.problem = field, problem


def validate(spec: Spec, *, admitted: bool = False) -> None:
    """Return when ``spec`` may be proposed; else SpecError names the field, its value and the limit.

    ``admitted``: every model must already be an artifact (``sha256:...``), as the control API requires.
    """
    _name("name", spec.name)
    _name("workspace", spec.workspace)
    _numbers(spec, "")
    _scale(spec)
    _balance(spec.balancing)
    _steps(spec.rollout.steps)
    if spec.survey is not None:
        _survey(spec.survey)
    if spec.tests is not None:
        _tests(spec.tests)
    for objective in ("availability", "latency_objective"):
        try:
            windows(getattr(spec.slo, objective), spec.slo.period)
        except SpecError as e:
            raise FieldError(f"slo.{objective}", e.message.removeprefix("slo: "), e.hint) from e
    if not 1 <= len(spec.variants) <= MAX_VARIANTS:
        raise FieldError("variants", f"{len(spec.variants)} variants; there must be 1 to {MAX_VARIANTS}")
    names = [v.name for v in spec.variants]
    for index, variant in enumerate(spec.variants):
        where = f"variants[{index}]"
        if variant.name.endswith(NEW) or variant.name == "rollout":
            raise FieldError(
                f"{where}.name",
                f"{variant.name!r} is taken by rollouts",
                f"a name may not be 'rollout' or end in {NEW}",
            )
        if names.index(variant.name) != index:
            raise FieldError(
                f"{where}.name", f"{variant.name!r} is also the name of variants[{names.index(variant.name)}]"
            )
        _variant(variant, where, admitted)


def _variant(variant: Variant, where: str, admitted: bool) -> None:
    _name(f"{where}.name", variant.name)
    if not variant.model.strip() or "\0" in variant.model:
        raise FieldError(f"{where}.model", f"{variant.model!r} is no path or digest")
    if (admitted or variant.model.startswith("sha256:")) and not DIGEST.fullmatch(variant.model):
        raise FieldError(
            f"{where}.model", f"{variant.model!r} is no artifact digest", "upload the model first: POST /artifacts"
        )
    if variant.python is not None and (not variant.python.startswith("/") or "\0" in variant.python):
        raise FieldError(f"{where}.python", f"{variant.python!r} is not an absolute path of an interpreter")
    if variant.batching.max_queue < variant.batching.max_size:
        raise FieldError(
            f"{where}.batching.max_queue",
            f"{variant.batching.max_queue} is under max_size {variant.batching.max_size}: no full batch could wait",
        )
    if variant.batching.max_wait and variant.batching.policy != "eager":
        raise FieldError(
            f"{where}.batching.max_wait",
            f"{variant.batching.max_wait:g} s, but policy {variant.batching.policy} finds out itself when to wait",
            "leave max_wait out, or say policy: eager",
        )
    for key, value in variant.env.items():
        if not ENV_NAME.fullmatch(key):
            raise FieldError(f"{where}.env", f"{key!r} is no name of an environment variable")
        if "\0" in value:
            raise FieldError(f"{where}.env.{key}", "holds a NUL character")
    _plain(variant.options, f"{where}.options")


def _scale(spec: Spec) -> None:
    scale = spec.scale
    if scale.min > scale.max:
        raise FieldError("scale.min", f"{scale.min} is over scale.max {scale.max}")
    if not scale.min <= scale.replicas <= scale.max:
        raise FieldError(
            "scale.replicas", f"{scale.replicas} is outside scale.min {scale.min} to scale.max {scale.max}"
        )
    if scale.idle is not None and scale.min > 0:
        raise FieldError(
            "scale.idle", f"{scale.idle:g} s beside scale.min {scale.min}", "set scale.min: 0, or leave idle"
        )
    if scale.idle is not None and scale.auto is not None:
        raise FieldError("scale.idle", "stands beside scale.auto", "with scale.min: 0, auto goes to zero by itself")
    if scale.auto is not None and scale.auto.policy == "hpa" and scale.min < 1:
        raise FieldError("scale.auto.policy", "'hpa' cannot scale to zero", "set scale.min to 1, or choose ours or kpa")


def _balance(balance: Balance) -> None:
    """Fields that their policy would silently ignore are refused."""
    hashes = balance.policy in ("ring_hash", "maglev")
    for field, given in (("hash_on", balance.hash_on), ("load_factor", balance.load_factor)):
        if given and not hashes:
            raise FieldError(
                f"balance.{field}",
                f"{balance.policy} does not hash requests",
                "policy: ring_hash or maglev keeps equal ones on one replica",
            )
    if balance.slow_start and balance.policy not in ("least_request", "round_robin"):
        raise FieldError(
            "balance.slow_start", f"{balance.policy} has no slow start", "least_request and round_robin have"
        )
    if balance.load_factor and balance.load_factor < 1.0:
        raise FieldError("balance.load_factor", f"{balance.load_factor:g} is under 1, the mean itself", "1.25 is usual")
    if balance.cookie_ttl is not None and not any(w.startswith("cookie:") for w in balance.hash_on):
        raise FieldError("balance.cookie_ttl", "no cookie is hashed on", "hash_on: [cookie:NAME]")
    for index, where in enumerate(balance.hash_on):
        if not HASH_ON.fullmatch(where):
            raise FieldError(
                f"balance.hash_on[{index}]",
                f"{where[:80]!r} is nothing to hash on",
                "header:NAME, cookie:NAME, query:NAME or source",
            )


def _survey(survey: Survey) -> None:
    low, high = survey.scale
    if not (-100 <= low < high <= 100 and high - low <= MAX_CHOICES):
        said = f"{low} to {high}: it must rise, within -100 to 100, by {MAX_CHOICES} at most"
        raise FieldError("survey.scale", said, "[1, 5] is usual")
    if not low <= survey.complaint < survey.satisfied <= high:
        said = f"{survey.complaint:g} beside survey.satisfied {survey.satisfied:g} on the scale {low} to {high}"
        raise FieldError("survey.complaint", said, "a complaint is below what satisfies, both on the scale")
    if len(survey.question) > MAX_QUESTION:
        raise FieldError("survey.question", f"has {len(survey.question)} characters, the limit is {MAX_QUESTION}")


def _tests(tests: ModelTests) -> None:
    if not tests.golden:
        said = "is missing: without examples nothing can be asked"
        raise FieldError("tests.golden", said, 'a file like golden.json: [{"inputs": {...}, "outputs": {...}}]')
    if len(tests.golden) > MAX_GOLDEN:
        raise FieldError("tests.golden", f"has {len(tests.golden)} examples, the limit is {MAX_GOLDEN}")
    if (size := len(canonical(tests.golden))) > MAX_GOLDEN_BYTES:
        said = f"has {size} bytes, the limit is {MAX_GOLDEN_BYTES}"
        raise FieldError("tests.golden", said, "take fewer examples; in the model's folder golden.json may be larger")
    if len(set(tests.invariances)) != len(tests.invariances):
        raise FieldError("tests.invariances", f"{', '.join(tests.invariances)}: one is named twice")
    for index, example in enumerate(tests.golden):
        _plain(example.inputs, f"tests.golden[{index}].inputs")
        _plain(example.outputs, f"tests.golden[{index}].outputs")
        if not 0.0 <= example.tolerance < math.inf:
            said = f"{example.tolerance:g} is out of bounds; it may be 0 or more"
            raise FieldError(f"tests.golden[{index}].tolerance", said)


def _steps(steps: tuple[float, ...]) -> None:
    ascending = all(a < b for a, b in pairwise(steps))
    if not (1 <= len(steps) <= MAX_STEPS and ascending and steps[0] > 0 and steps[-1] == 1.0):
        said = ", ".join(f"{s:g}" for s in steps[:10]) or "none"
        raise FieldError(
            "rollout.steps", f"{said}: shares must rise from above 0 to 1, {MAX_STEPS} at most", "as in [0.05, 0.25, 1]"
        )


def _name(field: str, value: str) -> None:
    if not NAME.fullmatch(value):
        raise FieldError(
            field, f"{value[:80]!r} is no name", "1 to 40 of a-z, 0-9 and '-', a letter first and no '-' last"
        )


def _numbers(noun: Noun, path: str) -> None:
    """Every number below ``noun`` against BOUNDS; a number without a bound is a mistake of ours."""
    for field in noun.__struct_fields__:
        value = getattr(noun, field)
        inner = f"{path}.{field}" if path else field
        if isinstance(value, Noun):
            _numbers(value, inner)
        elif isinstance(value, tuple):
            for index, part in enumerate(value):
                if isinstance(part, Noun) and not isinstance(part, Golden):  # whose numbers are a model's
                    _numbers(part, f"{inner}[{index}]")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            bound = BOUNDS[re.sub(r"^variants\[\d+\]\.", "", inner)]
            over = value >= bound.high if bound.open_high else value > bound.high
            if math.isnan(value) or value < bound.low or over:
                limit = f"{bound.low:g} to {'under ' if bound.open_high else ''}{bound.high:g} {bound.unit}".strip()
                raise FieldError(inner, f"{value:g} is out of bounds; it may be {limit}")


def _plain(value: Any, where: str) -> None:
    """Options must survive JSON unchanged, or the digest of a variant would not name what runs."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise FieldError(where, f"the key {key!r} is not text", "put quotes around it")
            _plain(part, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            _plain(part, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise FieldError(where, f"{value} is not a finite number")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise FieldError(where, f"{value} does not fit in 64 bits")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise FieldError(where, f"a {type(value).__name__} is no plain value", "put quotes around text")
