"""What error lines speak of: calls that fail, calls that are refused, or nothing of the kind."""

from typing import Any

import pytest

from leptonai.ops.logs.said import in_words, of_calls
from leptonai.ops.logs.shifts import Shift


def shift(template: str, **more: Any) -> Shift:
    given = {"kind": "new", "severity": 17, "count": 5, "rate": 1.0, "usual": 0.0, "at": 3.0} | more
    return Shift(template=template, sample=template, **given)


@pytest.mark.parametrize(
    ("line", "speaks"),
    [
        ("urllib.error.URLError: <urlopen error [Errno 111] Connection refused>", "fail"),
        ("requests.exceptions.ConnectionError: Max retries exceeded with url: <*>", "fail"),
        ("httpx.ConnectTimeout", "fail"),
        ("grpc: StatusCode.UNAVAILABLE", "fail"),
        ("OperationalError: could not connect to server <*>", "fail"),
        ("HTTPError: 401 Client Error: Unauthorized for url <*>", "denied"),
        ("ssl.SSLCertVerificationError: certificate verify failed: certificate has expired", "denied"),
        ("botocore: the security token included in the request is expired", "denied"),
        ("request <*> failed", ""),
        ("ValueError: shapes <*> and <*> not aligned", ""),
        ("timeout after <*> s", ""),
        ("batch of 403x401 pixels", ""),
    ],
)
def test_an_error_line_speaks_of_calls_by_the_words_of_clients(line: str, speaks: str) -> None:
    assert of_calls(shift(line)) == speaks


def test_only_errors_that_began_count_and_each_has_its_sentence() -> None:
    line = "Connection refused"
    assert of_calls(shift(line, severity=13)) == of_calls(shift(line, kind="silent")) == ""
    assert of_calls(shift(line, kind="more")) == "fail"
    assert in_words(shift(line)).startswith("The log has an error line that it never had before, 5 times")
