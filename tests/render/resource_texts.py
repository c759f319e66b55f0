"""Specs of custom resources that are wrong in one way each, for every judge of them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

DIGEST = "sha256:" + "ab" * 32
OK: Json = {"model": DIGEST}
TWO: Json = {"variants": [{"model": DIGEST}, {"name": "new", "model": DIGEST}]}
WRONG: dict[str, Json] = {
    "no model": {},
    "unknown field": OK | {"replicsa": 2},
    "unknown field deep": OK | {"slo": {"latencyy": 1}},
    "unknown field of the model": OK | {"resources": {"ram": 1}},
    "unknown field of a variant": {"variants": [{"model": DIGEST, "weight": 1}]},
    "a path for a model": {"model": "./model.onnx"},
    "an image for a model": {"model": "registry.example/digits:1"},
    "half a digest": {"model": "sha256:12"},
    "a name that is none": OK | {"name": "My_Service"},
    "a long name": OK | {"name": "a" * 41},
    "a workspace that is none": OK | {"workspace": "A/B"},
    "words for a number": OK | {"replicas": "two"},
    "part of a replica": OK | {"replicas": 1.5},
    "truth for a number": OK | {"replicas": True},
    "truth for a duration": OK | {"timeout": True},
    "a list for a duration": OK | {"timeout": [1]},
    "fields for a duration": OK | {"timeout": {"seconds": 1}},
    "fewer than none": OK | {"replicas": -1},
    "too many": OK | {"scale": {"max": 10_001}},
    "no time at all": OK | {"timeout": 0},
    "a day too long": OK | {"timeout": 90_000},
    "another unit": OK | {"timeout": "3 parsecs"},
    "no size": OK | {"resources": {"memory": "lots"}},
    "part of a byte": OK | {"resources": {"memory": 2000000.5}},
    "certainty": OK | {"slo": {"availability": 1}},
    "a policy that is none": OK | {"balance": "luck"},
    "a number for a policy": OK | {"balance": 3},
    "trust nobody gives": OK | {"trust": "me"},
    "another interpreter": OK | {"python": "python3"},
    "a list of options": OK | {"options": [1]},
    "truth in env": OK | {"env": {"A": True}},
    "fields in env": OK | {"env": {"A": {"b": "c"}}},
    "nothing for fields": OK | {"slo": None},
    "text for fields": OK | {"scale": "big"},
    "a text for a truth": OK | {"idempotent": "yes"},
    "a rate without a rate": OK | {"rate_limit": {"burst": 3}},
    "another owner": OK | {"scale": {"owner": "nomad"}},
    "no golden examples": OK | {"tests": {"golden": []}},
    "an example that asks nothing": OK | {"tests": {"golden": [{"outputs": 1}]}},
    "an invariance that is none": OK | {"tests": {"golden": [{"inputs": {}}], "invariances": ["luck"]}},
    "no steps": OK | {"rollout": {"steps": []}},
    "half a scale": OK | {"survey": {"scale": [1]}},
    "a long question": OK | {"survey": {"question": "?" * 301}},
    "no variants": {"variants": []},
    "too many variants": {"variants": [{"name": f"v{n}", "model": DIGEST} for n in range(17)]},
    "a model beside variants": TWO | {"model": DIGEST},
    "the environment beside variants": TWO | {"env": {"A": "b"}},
    "variants that are texts": {"variants": ["a.onnx"]},
    "a variant without a model": {"variants": [{"name": "main"}]},
}
