"""Event files as TensorBoard itself reads them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.improve.train.board import Board, masked, record

pytest.importorskip("tensorboard", reason="tensorboard is not installed: event files are not read back here")


def test_crc_is_the_castagnoli_one() -> None:
    crc = ((masked(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF) << 15 & 0xFFFFFFFF
    crc |= ((masked(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF) >> 17
    assert crc == 0xE3069283  # RFC 3720, appendix B.4


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_was_told(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(tmp_path, clock=lambda: 1234.5)
    for step in range(300):
        board.tell(step, loss__train=1 / (1 + step), rate=0.25)
    board.close()
    seen = EventAccumulator(str(tmp_path), {"scalars": 0, "tensors": 0})
    seen.Reload()
    assert set(seen.Tags()["scalars"]) | set(seen.Tags()["tensors"]) == {"loss/train", "rate"}
    values = seen.Scalars("loss/train") if "loss/train" in seen.Tags()["scalars"] else seen.Tensors("loss/train")
    assert [e.step for e in values] == list(range(300)) and values[0].wall_time == 1234.5
    if hasattr(values[9], "value"):
        assert values[9].value == pytest.approx(0.1)


@given(st.binary(max_size=300))
def test_a_record_is_read_back_by_its_own_sums(data: bytes) -> None:
    made = record(data)
    assert len(made) == len(data) + 16 and made[12:-4] == data
