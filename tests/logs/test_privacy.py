"""Masking: what is a secret, what is not, and that only the vault turns it back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.ops.logs import Masker
from leptonai.ops.logs import privacy as room
from leptonai.ops.logs.privacy import luhn


def shown(text: str, **patterns: str) -> str:
    """The masked text without the letters of the marks."""
    return re.sub(r":[a-p]{15}>", ">", Masker(patterns, key=b"k").mask(text))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail ana.b+c@mail.example.org, please", "mail <email>, please"),
        ("no mail: a@b", "no mail: a@b"),
        ("Authorization: Bearer abc.def-ghi_123", "Authorization: Bearer <token>"),
        ("password=hunter2&x=1", "password=<token>&x=1"),
        ('{"api_key": "a b c", "n": 1}', '{"api_key": "<token>", "n": 1}'),
        ("DB_PASSWORD='x y'", "DB_PASSWORD='<token>'"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "jwt <token>"),
        ("key AKIAIOSFODNN7EXAMPLE", "key <token>"),
        ("postgres://ana:pw@db/x", "postgres://ana:<url_password>@db/x"),  # the user's name is no secret
        ("card 4111 1111 1111 1111 ok", "card <card> ok"),
        ("order 4111 1111 1111 1112", "order 4111 1111 1111 1112"),  # fails the check
        ("call +49 30 901820 now", "call <phone> now"),
        ("call (030) 901-8200", "call <phone>"),
        ("call 555 010 9999", "call <phone>"),
        ("took 1234567890 ns at 10.0.0.1:8080", "took 1234567890 ns at 10.0.0.1:8080"),
        ("2026-11-21 09:45:01,123 pid 4321", "2026-11-21 09:45:01,123 pid 4321"),
        ("a@b.cd+4930901820a@b.cd", "<email><email>"),  # the second is free to be seen once the first is gone
        ("", ""),
    ],
)
def test_table(text: str, masked: str) -> None:
    assert shown(text) == masked


def test_configured_patterns() -> None:
    assert shown("order A-17 of ana", order=r"A-[0-9]+") == "order <order> of ana"
    assert shown("badge no 17", badge=r"badge no (?P<s>[0-9]+)") == "badge no <badge>"
    with pytest.raises(SpecError, match="mask pattern bad is no regular expression"):
        Masker({"bad": "("})
    with pytest.raises(SpecError, match="'No good'"):
        Masker({"No good": "x"})


secretive = st.lists(
    st.sampled_from(
        ["a@b.cd", "+4930901820", "4111111111111111", "token=abcdef", " ", "x", "<email:aaa>", "é", "=", ":"]
    )
    | st.text(max_size=5)
).map("".join)


@given(secretive)
def test_unmasking_gives_back_what_was_masked_and_masking_twice_is_masking_once(text: str) -> None:
    masker = Masker(key=b"k")
    masked = masker.mask(text)
    assert masker.mask(masked) == masked
    assert masker.unmask(masked) == text


def test_equal_secrets_stay_equal_and_other_keys_say_other_marks() -> None:
    one, two = Masker(key=b"1"), Masker(key=b"2")
    assert one.mask("a@b.cd") == one.mask("a@b.cd") != two.mask("a@b.cd")
    assert one.mask("a@b.cd") != one.mask("c@b.cd")
    assert two.unmask(one.mask("a@b.cd")) == one.mask("a@b.cd")  # not its vault


def test_the_vault_is_kept_in_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "vault.json"
    masker = Masker.open(path)
    masked = masker.mask("mail a@b.cd")
    masker.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Masker.open(path)
    assert again.unmask(masked) == "mail a@b.cd"
    assert again.mask("mail a@b.cd") == masked
    path.write_text("{")
    with pytest.raises(SpecError, match="no vault"):
        Masker.open(path)


def test_processes_share_a_vault_and_none_forgets_what_another_put_there(tmp_path: Path) -> None:
    path = tmp_path / "logs-store" / "vault.json"
    ops, control = Masker.open(path), Masker.open(path)
    assert ops.mask("a@b.cd") == control.mask("a@b.cd")  # one key from the first moment on
    one, two = ops.mask("from x@b.cd"), control.mask("from y@b.cd")
    control.save(path)
    ops.save(path)
    assert [Masker.open(path).unmask(m) for m in (one, two)] == ["from x@b.cd", "from y@b.cd"]
    assert ops.unmask(two) == "from y@b.cd"
    assert [p.name for p in path.parent.iterdir() if p.stat().st_mode & 0o077] == []


def test_the_vault_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "VAULT", 3)
    masker = Masker(key=b"k")
    marks = [masker.mask(f"u{i}@b.cd") for i in range(5)]
    assert [masker.unmask(m) for m in marks] == [*marks[:2], "u2@b.cd", "u3@b.cd", "u4@b.cd"]


@pytest.mark.parametrize(
    ("number", "good"), [("4111111111111111", True), ("79927398713", True), ("79927398710", False)]
)
def test_luhn(number: str, good: bool) -> None:
    assert luhn(number) is good
