"""Run with ``pytest`` in this folder."""

from model import TITLE


def test_it_answers() -> None:
    model = TITLE()
    model.setup()
    assert model.predict("ada") == "hello, ada"
