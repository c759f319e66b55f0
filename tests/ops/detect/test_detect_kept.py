"""What the watcher keeps between two lives of ops: bytes that were damaged cost what was learnt, never the process."""

from pathlib import Path

import numpy as np
import pytest

from leptonai.ops.detect.memory import restore, write
from leptonai.ops.detect.watcher import Learnt, Watcher


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "detect.npz"
    noise = np.random.default_rng(0).normal(size=4000).round(2)  # compresses, so most bytes are of the archive's stream
    write(path, Learnt([], {}, 0.0, {"noise": noise}))
    return path


def test_no_damaged_byte_raises(kept: Path) -> None:
    whole = kept.read_bytes()
    for at in np.random.default_rng(1).integers(0, len(whole), 400):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        kept.write_bytes(broken)
        assert restore(kept, Watcher(), 1.0) == 0
    for end in range(0, len(whole), len(whole) // 20):
        kept.write_bytes(whole[:end])
        assert restore(kept, Watcher(), 1.0) == 0


def test_a_file_of_another_kind_is_passed_over(kept: Path) -> None:
    with kept.open("wb") as file:
        np.save(file, np.zeros(3))  # one array without a name
    assert restore(kept, Watcher(), 1.0) == 0
