"""Services to render, and the official schemas that the objects must keep to."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
from hypothesis import strategies as st
from referencing import Registry, Resource

from leptonai.plan.render import Apis, Ground
from leptonai.types import (
    Auto,
    Balance,
    Canary,
    Dials,
    Limits,
    Outlier,
    Resources,
    Retry,
    Rollout,
    Scale,
    Service,
    Spec,
    Variant,
    VariantDials,
)

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
VERSIONS = ("1.20", "1.21", "1.25", "1.28")
OURS = ("networking.istio.io", "gateway.networking.k8s.io", "keda.sh")  # custom resources: no schema of Kubernetes' own


@functools.cache
def _validator(version: str, kind: str, api: str) -> Any:
    """Strict: an unknown field is refused."""
    folder = SCHEMAS / f"v{version}.0-local-strict"
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = json.loads((folder / f"{kind.lower()}-{short}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=_definitions(folder))


@functools.cache
def _definitions(folder: Path) -> Registry[Any]:
    content = json.loads((folder / "_definitions.json").read_text())
    import referencing.jsonschema

    resource = Resource.from_contents(content, referencing.jsonschema.DRAFT202012)
    return Registry().with_resource("_definitions.json", resource)


def check(made: dict[str, Any], version: str) -> None:
    if not made["apiVersion"].startswith(OURS):
        _validator(version, made["kind"], made["apiVersion"]).validate(made)


def model(digit: str = "a") -> str:
    return "sha256:" + digit * 64


def service(**spec: Any) -> Service:
    variants = spec.pop("variants", (Variant(model=model(), resources=spec.pop("resources", Resources())),))
    dials = spec.pop("dials", None) or Dials(variants={v.name: VariantDials() for v in variants})
    canary, revision = spec.pop("canary", None), spec.pop("revision", 1)
    wish = Spec(name=spec.pop("name", "digits"), variants=variants, **spec)
    return Service(spec=wish, dials=dials, revision=revision, canary=canary)


def ground(version: str = "1.28", **more: Any) -> Ground:
    more.setdefault("gateway", "infra/public")
    more.setdefault("prometheus", "http://prometheus.monitoring:9090")
    return Ground(Apis.of(version), **more)


def by_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [o for o in objects if o["kind"] == kind]


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
RESOURCES = st.builds(
    Resources,
    cpu=st.none() | st.floats(0.01, 4096.0),
    memory=st.none() | st.integers(1 << 20, 1 << 50),
    gpu=st.integers(0, 64),
)
ENV = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    max_size=3,
)
VARIANTS = st.builds(
    Variant,
    name=NAMES.filter(lambda n: not n.endswith("-new")),
    model=st.sampled_from([model(d) for d in "abc"]),
    options=st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    env=ENV,
    python=st.none() | st.just("/opt/py $(HOME)/bin/python"),
    resources=RESOURCES,
    idempotent=st.none() | st.booleans(),
)
HASHES = st.lists(st.sampled_from(["header:x-a", "cookie:c", "query:q", "source"]), max_size=2).map(tuple)


@st.composite
def specs(draw: st.DrawFn, name: str | None = None) -> Spec:
    low = draw(st.integers(0, 3))
    return Spec(
        name=name or draw(NAMES),
        workspace=draw(st.just("default") | NAMES),
        variants=tuple(draw(st.lists(VARIANTS, min_size=1, max_size=3, unique_by=lambda v: v.name))),
        scale=Scale(
            min=low,
            max=draw(st.integers(max(1, low), 10_000)),
            replicas=low,
            auto=draw(st.none() | st.builds(Auto, hold=st.none() | st.floats(0.0, 86400.0))),
            owner=draw(st.sampled_from(["leptonai", "kubernetes", "keda"])),
        ),
        rollout=Rollout(surge=draw(st.integers(0, 1000)), start_timeout=draw(st.floats(0.1, 86400.0))),
        balance=Balance(
            policy=draw(st.sampled_from(["least_request", "round_robin", "random", "ring_hash", "maglev"])),
            hash_on=draw(HASHES),
            slow_start=draw(st.sampled_from([0.0, 30.0])),
        ),
        outlier=draw(st.none() | st.builds(Outlier, max_share=st.floats(0.0, 1.0))),
        retry=draw(st.builds(Retry, attempts=st.none() | st.integers(0, 10))),
        limits=draw(st.builds(Limits, pending=st.none() | st.integers(0, 100), requests=st.none() | st.integers(1, 9))),
        timeout=draw(st.floats(0.01, 86400.0)),
        drain=draw(st.floats(0.0, 3600.0)),
    )


@st.composite
def services(draw: st.DrawFn, name: str | None = None) -> Service:
    """Any wish: several variants, dials of every kind, with and without a canary."""
    spec = draw(specs(name))
    shares = st.sampled_from([0.0, 0.01, 0.25, 1.0])
    dials = Dials(
        variants={
            v.name: VariantDials(
                replicas=draw(st.integers(0, 50)),
                weight=draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
                mirror=draw(shares),
                epoch=draw(st.integers(0, 1_000_000)),
            )
            for v in spec.variants
        },
        shed=draw(shares),
    )
    canary = None
    if draw(st.booleans()):
        old = tuple(Variant(name=v.name, model=model("0"), resources=v.resources) for v in spec.variants)
        canary = Canary(
            stable=old, revision=4, replicas=draw(st.integers(0, 3)), weight=draw(shares), mirror=draw(shares)
        )
    return Service(spec=spec, dials=dials, revision=5, canary=canary)


@st.composite
def possible(draw: st.DrawFn, name: str | None = None) -> tuple[Service, Ground]:
    """A wish and a cluster that can hold it: what each traffic and version cannot do is left out, and nothing else."""
    wish = draw(services(name))
    traffic = draw(st.sampled_from(["service", "gateway", "istio"]))
    version = draw(st.sampled_from(VERSIONS[2:] if traffic == "gateway" else VERSIONS))
    spec, dials, canary = wish.spec, wish.dials, wish.canary
    first, alone = spec.variants[0].name, traffic == "service"
    turned = {
        n: msgspec.structs.replace(
            d,
            weight=float(n == first) if alone else d.weight + (n == first),
            mirror=0.0 if alone or n != first or canary else d.mirror,
        )
        for n, d in dials.variants.items()
    }
    if canary:
        weight = float(canary.weight >= 1) if alone else draw(st.sampled_from([0.0, 0.25, 1.0]))
        mirror = 0.0 if alone or len(spec.variants) > 1 else canary.mirror
        canary = msgspec.structs.replace(canary, weight=weight, mirror=mirror)
    if spec.scale.owner == "kubernetes":
        some = Resources(cpu=2.0)
        spec = msgspec.structs.replace(
            spec, variants=tuple(msgspec.structs.replace(v, resources=some) for v in spec.variants)
        )
        if canary:
            old = tuple(msgspec.structs.replace(v, resources=some) for v in canary.stable)
            canary = msgspec.structs.replace(canary, stable=old)
    balance = spec.balancing
    if balance.policy not in ("least_request", "round_robin") or version < "1.25":
        policy = "ring_hash" if balance.policy == "maglev" and version < "1.25" else balance.policy
        spec = msgspec.structs.replace(spec, balance=msgspec.structs.replace(balance, policy=policy, slow_start=0.0))
    dials = msgspec.structs.replace(dials, variants=turned)
    wish = msgspec.structs.replace(wish, spec=spec, dials=dials, canary=canary)
    return wish, ground(version, traffic=traffic)
