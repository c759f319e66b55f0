"""Words never read before are news, unless this log is full of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.ops.detect.words import Vocabulary

USERS = ("alice", "bob", "carol", "dave")


def steady(rng: np.random.Generator, lines: int) -> list[str]:
    return [f"session {i} of {USERS[rng.integers(4)]} opened after {rng.integers(900)} ms" for i in range(lines)]


def test_a_word_in_the_place_of_a_value_is_news_once() -> None:
    """The template is known and so is every other word: only the name is new."""
    words = Vocabulary()
    told = words.score(steady(np.random.default_rng(0), 2500))
    assert np.isnan(told[:300]).all() and (told[300:] < 1.0).all()
    assert words.score(["session 7 of mallory opened after 3 ms"])[0] >= 3.0
    again = words.score(["session 8 of mallory opened after 3 ms"] * 40)
    assert (again[-20:] < 3.0).all()


def test_where_new_words_are_usual_a_new_word_is_no_news() -> None:
    rng = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = Vocabulary()
    told = words.score([f"job {''.join(rng.choice(letters, 9))} finished" for _ in range(2000)])
    assert (told[301:] < 1.0).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=80), st.integers(0, 80))
def test_a_score_depends_on_earlier_lines_only(lines: list[str], cut: int) -> None:
    whole, part = Vocabulary().score(lines), Vocabulary().score(lines[:cut])
    np.testing.assert_array_equal(whole[: len(part)], part)
    known = whole[np.isfinite(whole)]
    assert (known >= 0.0).all()


def test_what_is_remembered_is_bounded_and_the_past_may_be_told() -> None:
    words = Vocabulary(kept=3)
    words.learn(["one two three four five"])
    assert len(words._lines) == 3
    told = Vocabulary()
    told.known(5000)
    told.learn(["all of these words are old"])
    assert told.score(["old are these words"])[0] < 3.0 < told.score(["entirely unheard of"])[0]
