"""How a text says which replica gets a request and how many, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leptonai.errors import SpecError
from leptonai.serve.spec import parse
from leptonai.types import Balance, Limits, Outlier, RateLimit, Retry, Spec

OK = {"name": "d", "model": "./d.onnx"}
TRAFFIC = """
name: d
model: ./d.onnx
balance: {policy: maglev, hash_on: ["cookie:who", "header:x-prefix", "query:user", source], cookie_ttl: 1h, load_factor: 1.25}
outlier: {errors: 3, eject: 10s, max_share: 0.4}
retry: {attempts: 2, budget: 0.2, min: 5}
limits: {connections: 10, pending: 20, requests: 30, replica_connections: 4}
rate_limit: {rate: 5, burst: 10, anonymous: 1}
"""  # noqa: E501


def test_every_field_of_traffic() -> None:
    spec = parse(TRAFFIC)
    hashed = ("cookie:who", "header:x-prefix", "query:user", "source")
    assert spec.balancing == Balance(policy="maglev", hash_on=hashed, cookie_ttl=3600.0, load_factor=1.25)
    assert spec.outlier == Outlier(errors=3, eject=10.0, max_share=0.4)
    assert spec.retry == Retry(attempts=2, budget=0.2, min=5)
    assert spec.limits == Limits(connections=10, pending=20, requests=30, replica_connections=4)
    assert spec.rate_limit == RateLimit(rate=5.0, burst=10, anonymous=1.0)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec) == spec, "it is kept as it was said"


def test_a_policy_alone_is_the_short_form_and_what_was_kept_before_is_read() -> None:
    assert parse({**OK, "balance": "random"}).balancing == Balance(policy="random")
    assert parse({**OK, "balance": {"slow_start": "20s"}}).balancing == Balance(slow_start=20.0)
    old = msgspec.to_builtins(parse(OK))
    for field in ("outlier", "retry", "limits", "rate_limit"):
        del old[field]
    assert msgspec.convert(old, Spec) == parse(OK)


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "hash without hashing": ({"balance": {"policy": "round_robin", "hash_on": ["source"]}}, ["hash_on", "round_robin"]),
    "nothing to hash on": ({"balance": {"policy": "maglev", "hash_on": ["moon"]}}, ["hash_on[0]", "moon"]),
    "no name": ({"balance": {"policy": "maglev", "hash_on": ["header:"]}}, ["hash_on[0]", "header:"]),
    "not a list": ({"balance": {"policy": "maglev", "hash_on": "source"}}, ["hash_on", "list"]),
    "smuggled header": ({"balance": {"policy": "maglev", "hash_on": ["header:a\r\nb"]}}, ["hash_on[0]"]),
    "ttl of no cookie": ({"balance": {"policy": "maglev", "cookie_ttl": "1h"}}, ["cookie_ttl", "no cookie"]),
    "slow hash": ({"balance": {"policy": "maglev", "slow_start": "1s"}}, ["slow_start", "maglev"]),
    "slow luck": ({"balance": {"policy": "random", "slow_start": "1s"}}, ["slow_start", "random"]),
    "factor without hashing": ({"balance": {"load_factor": 1.5}}, ["load_factor", "least_request"]),
    "factor under the mean": ({"balance": {"policy": "maglev", "load_factor": 0.5}}, ["load_factor", "0.5"]),
    "unknown policy": ({"balance": {"policy": "luck"}}, ["balance", "luck"]),
    "a number": ({"balance": 3}, ["balance"]),
    "everything out": ({"outlier": {"max_share": 1.0}}, ["outlier.max_share", "0.5"]),
    "more than all": ({"retry": {"budget": 1.5}}, ["retry.budget", "1.5"]),
    "no rate": ({"rate_limit": {"burst": 3}}, ["rate_limit.rate", "missing"]),
    "falling scale": ({"survey": {"scale": [5, 1]}}, ["survey.scale", "5 to 1"]),
    "endless scale": ({"survey": {"scale": [1, 100]}}, ["survey.scale", "1 to 100"]),
    "complaints that satisfy": ({"survey": {"complaint": 4, "satisfied": 3}}, ["survey.complaint", "4 beside"]),
    "long question": ({"survey": {"question": "x" * 301}}, ["survey.question", "301"]),
    "no requests": ({"limits": {"requests": 0}}, ["limits.requests", "0"]),
}


@pytest.mark.parametrize("fields, words", WRONG.values(), ids=WRONG.keys())
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse({**OK, **fields}, "f.yaml")
    for word in ("f.yaml", *words):
        assert word in caught.value.message
