import pytest

from leptonai.types import Batching, Dial, Scale, Spec, Variant, effective_dials, make_key, parse_key


@pytest.mark.parametrize(
    ("name", "workspace", "key"), [("digits", "default", "digits"), ("digits", "team", "team/digits")]
)
def test_key_elides_the_default_workspace_and_parses_back(name: str, workspace: str, key: str) -> None:
    assert make_key(name, workspace) == key
    assert parse_key(key) == (workspace, name)


def dial(path: str, value: float, at: float = 0.0, expires: float | None = None) -> Dial:
    return Dial(path=path, value=value, owner="human:ana", reason="", at=at, expires=expires)


def test_dials_last_unexpired_entry_wins_within_bounds_and_epoch_only_rises() -> None:
    spec = Spec(name="d", variants=(Variant(model="m"),), scale=Scale(min=1, max=4, replicas=2))
    assert effective_dials(spec, [], 0).variants["main"].replicas == 2
    log = [dial("main.replicas", 3), dial("main.replicas", 9, expires=5), dial("main.epoch", 2), dial("main.epoch", 1)]
    assert effective_dials(spec, log, 1).variants["main"].replicas == 4
    later = effective_dials(spec, log, 6)
    assert later.variants["main"].replicas == 3
    assert later.variants["main"].epoch == 2
    assert effective_dials(spec, [dial("evict.r1", 1), dial("evict.r2", 1), dial("evict.r2", 0)], 0).evict == ("r1",)


def test_digest_changes_with_every_field_that_needs_new_processes() -> None:
    one = Variant(model="sha256:a")
    assert one.digest == Variant(model="sha256:a").digest
    assert one.digest != Variant(model="sha256:b").digest
    assert one.digest != Variant(model="sha256:a", env={"A": "1"}).digest
    assert one.digest == Variant(model="sha256:a", batching=Batching(max_size=1)).digest  # told while it runs
