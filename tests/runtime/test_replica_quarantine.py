"""A replica refuses, for as long as it is told to, the requests that a rule about an input holds of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from leptonai.errors import SpecError
from leptonai.runtime.quarantine import Quarantine
from leptonai.types import Tuning
from tests.runtime.conftest import Running

FRAGILE = """
import numpy as np

class Fragile:
    batch = True

    def predict(self, image: np.ndarray):
        if image.max() > 100:
            raise IndexError("no such brightness")
        return [{"y": float(one.mean())} for one in image]
"""


@pytest.fixture(scope="module")
def replica(start: Callable[..., Running]) -> Running:
    return start({"model.py": FRAGILE}).wait_ready()


def lines(replica: Running) -> list[dict[str, Any]]:
    files = sorted((replica.folder / "predictions").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def tune(replica: Running, *rules: str) -> None:
    answer = replica.client.put("/-/batching", content=msgspec.json.encode(Tuning(refuse=rules)))
    assert answer.status_code == 200, answer.text


def test_what_fails_is_refused_by_bound_and_by_hash_and_the_rest_answered(replica: Running) -> None:
    good, bad = {"image": [1.0, 16.0]}, {"image": [1.0, 999.0]}
    assert replica.predict(bad, **{"x-request-id": "bad-1"}).status_code == 500
    assert replica.predict(good).status_code == 200
    failed = replica.until(lambda: [one for one in lines(replica) if one["id"] == "bad-1"])
    digest = failed[0]["input"]["image"]["hash"]
    for rule in ("image.high>508", f"image.hash={digest}"):
        tune(replica, rule)
        refused = replica.predict(bad)
        assert refused.status_code == 422, refused.text
        said = refused.json()
        assert (said["code"], said["retry"], said["detail"]) == ("quarantined", False, {"rule": rule})
        tensor = {"name": "image", "datatype": "FP64", "shape": [1, 2], "data": bad["image"]}
        infer = replica.infer(tensor)
        assert infer.status_code == 422, infer.text
        assert replica.predict(good).status_code == 200
    assert 'leptonai_errors_total{kind="quarantined"} 4' in replica.client.get("/metrics").text
    tune(replica)
    assert replica.predict(bad).status_code == 500, "lifted"


def test_a_rule_that_is_none_is_refused(replica: Running) -> None:
    for rules in (["image"], ["image.high>nan"], ["image.high>1"] * 9):
        wrong = replica.client.put("/-/batching", content=json.dumps({"refuse": rules}))
        assert wrong.status_code == 400 and "refuse has" in wrong.json()["error"]
    assert replica.predict({"image": [1.0]}).status_code == 200


def test_what_nobody_can_look_into_breaks_no_rule() -> None:
    quarantine = Quarantine(("x.high>1", "x.length>3"), b"key")
    for inputs in (None, {}, {"x": object()}, {"y": 9.0}, {"x": 1.0}, {"x": "abc"}):
        quarantine.check(inputs)
    for inputs in ({"x": 2.0}, {"x": [0, [5]]}, {"x": "abcd"}):
        with pytest.raises(SpecError, match="quarantine"):
            quarantine.check(inputs)
