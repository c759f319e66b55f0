"""One thread for small matrices: more wait for each other on a busy machine."""

import os
from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # of processes that are started
    try:
        import torch

        torch.set_num_threads(1)
    except ModuleNotFoundError:
        assert os.environ["OMP_NUM_THREADS"] == "1"
    with threadpool_limits(1):
        yield
