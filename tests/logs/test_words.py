"""What of a word is a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.ops.logs.words import collapse, join, matches, read


@pytest.mark.parametrize(
    ("line", "display"),
    [
        ("took 12 ms", "took <*> ms"),
        ("delta -1.25 and +3", "delta <*> and <*>"),
        ("from 10.0.0.1:8080 to 10.0.0.2", "from <*> to <*>"),
        ("from fe80::1:22ff:fe33:4455", "from <*>"),
        ("mac 00:1b:44:11:3a:b7,", "mac <*>,"),
        ("open /var/log/syslog.1 failed", "open <*> failed"),
        ('"GET /v1/models?x=1 HTTP/1.1"', '"GET <*> HTTP/<*>"'),
        (r"load C:\Windows\system32\a.dll now", "load <*> now"),
        ("see https://example.org/a?b=c)", "see https://<*>)"),
        ("id b9000564-fe1a-409b-b8cc-1e88b294cd1d.", "id <*>."),
        ("id 12345678-1234-1234-1234-123456789012", "id <*>"),
        ("at 0xdeadBEEF", "at <*>"),
        ("commit 3f2a9bc1 by", "commit <*> by"),
        ("decade facade added", "decade facade added"),  # hex letters alone are words
        ("interface en0 up", "interface en0 up"),
        ("at 12:30:05,123", "at <*>:<*>:<*>"),
        ("node-246 rdd_2_2", "node-<*> rdd_<*>_<*>"),
        ("peers 10.0.0.1,10.0.0.2,10.0.0.3", "peers <*>"),
        ("x=1, y=2", "x=<*>, y=<*>"),
    ],
)
def test_values(line: str, display: str) -> None:
    assert " ".join(read(collapse(line))[0]) == display
    assert matches(display, line)


@pytest.mark.parametrize(
    ("a", "b", "key"),
    [
        ("en0", "en12", "en#"),
        ("tag=RIL,", "tag=Audio,", "tag=?,"),
        ("Jan", "Dec", "?D"),
    ],
)
def test_words_with_one_key(a: str, b: str, key: str) -> None:
    assert [read(w)[1] for w in (a, b)] == [(key,), (key,)]


def test_units_of_sizes_share_a_key() -> None:
    assert read("size 0 KB,")[1] == read("size 0 B,")[1]
    assert read("plan B,")[1] != read("plan KB,")[1]


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        ("en0", "en1", "en<*>"),
        ("a1b1", "a1b2", "a1b<*>"),
        ("(foo)", "(bar)", "(<*>)"),
        ("name=foo,", "name=bar,", "name=<*>,"),
        ("foo", "bar", "<*>"),
        ("com.a.b", "com.a.c", "com.a.<*>"),
        ("node-<*>", "node-[<*>]", "node-<*>"),
        ("x", "x", "x"),
    ],
)
def test_join(a: str, b: str, both: str) -> None:
    assert join(a, b) == both


word = st.text(st.sampled_from("ab01#<*>-_=,."), min_size=1, max_size=8)


@given(word, word, word)
def test_a_join_matches_what_it_joins_and_learns_nothing_from_it_again(a: str, b: str, c: str) -> None:
    both = join(join(a, b), c)
    assert all(matches(both, w) for w in (a, b, c))
    assert join(both, c) == both


@pytest.mark.parametrize(
    ("template", "line", "yes"),
    [
        ("a <*> c", "a b c", True),
        ("a <*> c", "a  b\tc", True),
        ("a <*>", "a", True),
        ("a b", "a c", False),
        ("a.b", "axb", False),
        ("a", "a b", False),
    ],
)
def test_matches(template: str, line: str, yes: bool) -> None:
    assert matches(template, line) is yes
