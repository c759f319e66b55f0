"""The wishes in memory are those of the store, whoever changes and reads them at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leptonai.api.wishes import Wishes
from leptonai.errors import NotFound
from leptonai.store import Store
from leptonai.types import Dial, Scale, Spec, Variant

NAMES = [f"s{i}" for i in range(4)]


def test_no_change_is_missed_while_others_read_and_change(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    wishes = Wishes(store)
    for name in NAMES:
        spec = Spec(name=name, variants=(Variant(model="m"),), scale=Scale(max=1000))
        store.append_revision(name, spec, expected=0, by="human:ana", why="", at=1.0)
        wishes.changed(name)

    def change(name: str) -> None:
        for value in range(1, 60):
            entry = Dial(path="main.replicas", value=value, owner="human:ana", reason="", at=float(value))
            store.append_dials(name, [entry])
            wishes.changed(name)
            assert wishes.get(name, 100.0).service.dials.variants["main"].replicas == value, (
                "one reads one's own change"
            )

    def read(_: int) -> None:
        for _ in range(200):
            assert [w.service.key for w in wishes.all(100.0)] == NAMES

    with ThreadPoolExecutor(8) as pool:
        for done in [*pool.map(change, NAMES), *pool.map(read, range(4))]:
            assert done is None
    assert wishes.services(100.0) == store.services(100.0)
    with pytest.raises(NotFound, match="s9"):
        wishes.get("s9", 100.0)
    store.close()
