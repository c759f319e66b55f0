"""What is kept of good answers, for whom, how long, and how."""

from __future__ import annotations

import gc
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leptonai.edge.answers import Answers
from leptonai.edge.http import Request
from leptonai.types import Answered, Fallback, Hold, Standby

SECRET = "the-patient-is-ill"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def standby(fallback: Fallback | None, digest: str = "d1") -> Standby:
    return Standby(
        service="s", variant="main", digest=digest, idempotent=True, asleep=False, hold=Hold(), fallback=fallback
    )


def answers(clock: Clock, **fields: Any) -> Answers:
    made = Answers(clock)
    made.configure(standby(Fallback(**fields)))
    return made


def good(x: Any, y: Any, at: float = 1000.0, token: bytes = b"") -> Answered:
    return Answered(
        at=at,
        target=b"/predict",
        authorization=token,
        json_size=b"",
        body=json.dumps({"x": x}).encode(),
        content_type=b"application/json",
        answer=json.dumps(y).encode(),
    )


def request(x: Any, token: bytes = b"", method: bytes = b"POST") -> Request:
    headers = [(b"authorization", token)] if token else []
    body = json.dumps({"x": x}, indent=2).encode()
    return Request(None, method, b"/predict", headers, body, True, len(body), 0.0)  # type: ignore[arg-type]


def found(store: Answers, x: Any, token: bytes = b"") -> Any:
    answer = store.find(request(x, token))
    return None if answer is None else json.loads(answer.body)


def test_an_answer_is_marked_with_its_age_and_never_given_past_it() -> None:
    clock = Clock()
    store = answers(clock, max_age=60.0)
    store.add([good(1, "one")])
    clock.now = 1060.0
    answer = store.find(request(1))
    assert answer is not None and answer.body == b'"one"'
    assert dict(answer.headers) == {
        b"x-leptonai-stale": b"60.000",
        b"age": b"60",
        b"warning": b'110 leptonai "Response is Stale"',
    }
    clock.now = 1060.1
    assert store.find(request(1)) is None and len(store) == 0 and store.bytes == 0
    store.add([good(1, "too old", at=1000.0)])
    assert len(store) == 0


def test_the_newer_answer_counts_whatever_comes_last() -> None:
    store = answers(Clock())
    store.add([good(1, "new", at=999.0), good(1, "old", at=998.0)])
    assert found(store, 1) == "new" and len(store) == 1


def test_no_answer_crosses_tokens_unless_shared() -> None:
    store = answers(Clock())
    store.add([good(1, "ana's", token=b"Bearer ana"), good(2, "nobody's")])
    assert (found(store, 1, b"Bearer ana"), found(store, 2)) == ("ana's", "nobody's")
    assert [found(store, 1, b"Bearer bob"), found(store, 1), found(store, 2, b"Bearer ana")] == [None] * 3
    shared = answers(Clock(), shared=True)
    shared.add([good(1, "all's", token=b"Bearer ana")])
    assert found(shared, 1) == found(shared, 1, b"Bearer bob") == "all's"
    shared.configure(standby(Fallback(shared=False)))
    assert len(shared) == 0, "what was kept for all is not given to one"


def test_another_revision_finds_nothing_and_the_old_one_its_own_again() -> None:
    store = answers(Clock())
    store.add([good(1, "one")])
    store.configure(standby(Fallback(), "d2"))
    assert found(store, 1) is None
    store.configure(standby(Fallback()))
    assert found(store, 1) == "one"
    store.configure(standby(None))
    assert not store.on and len(store) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.text(max_size=400)), max_size=60))
def test_the_bound_of_bytes_is_kept_and_the_oldest_go_first(given: list[tuple[int, str]]) -> None:
    """After any history at most ``max_bytes`` are kept, counted right, and the newest answer is among them."""
    store = answers(Clock(), max_bytes=8192)
    for n, (x, y) in enumerate(given):
        store.add([good(x, y, at=900.0 + n)])
        assert store.bytes == sum(e.size for e in store._entries.values()) <= 8192
        assert found(store, x) == y


def test_sensitive_answers_lie_encrypted() -> None:
    """No object that the store holds has a plain word of question or answer in it; plain ones do: the test can see."""

    def holds(store: Answers) -> bool:
        seen: set[int] = set()
        todo: list[Any] = [store._entries]
        while todo:
            one = todo.pop()
            if id(one) in seen or isinstance(one, type):
                continue
            seen.add(id(one))
            if isinstance(one, bytes | str) and SECRET in (one if isinstance(one, str) else one.decode("latin-1")):
                return True
            todo += gc.get_referents(one)
            todo += [getattr(one, s) for s in getattr(type(one), "__slots__", ())]
        return False

    plain, sealed = answers(Clock()), answers(Clock(), sensitive=True)
    for store in (plain, sealed):
        store.add([good(SECRET, SECRET)])
        assert found(store, SECRET) == SECRET
    assert holds(plain) and not holds(sealed)
