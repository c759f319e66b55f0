"""Taking the stage down, also for someone who is not root."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from leptonai.drill.pods import ending
from leptonai.drill.stage import PATIENCE, empty, remove, run_cli
from leptonai.errors import PlatformError, SpecError
from leptonai.plan.render.pod import grace
from leptonai.store import Artifacts

NOBODY = 65534


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with an artifact in it, owned by somebody for whom read-only means something."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # not below a folder that only root may enter
    Artifacts(folder / "artifacts").put_tree(Path(__file__))
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            shutil.chown(path, NOBODY, NOBODY)
    yield folder
    if folder.exists():
        remove(folder)


def test_read_only_artifacts_are_removed_too(home: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # nothing of our threads is used after the fork
        pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            remove(home)
        except PlatformError:
            pass  # the folder itself lies in /tmp, which has its own owner
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert list(home.rglob("*")) == []


def test_a_home_in_which_something_may_run_is_refused(tmp_path: Path) -> None:
    assert empty(tmp_path / "new" / "home").is_dir()
    assert empty(tmp_path / "new" / "home").is_dir()
    with pytest.raises(SpecError, match="holds new already"):
        empty(tmp_path)
    with pytest.raises(SpecError, match="--home"):
        empty(Path(__file__) / "below")


def test_what_takes_too_long_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="leptonai down: not done within"):
        run_cli(tmp_path, "down", patience=0.01)


def test_pods_have_their_whole_grace_to_end_and_a_busy_node_besides() -> None:
    assert all(ending(drain) >= grace(drain) + PATIENCE for drain in (0.0, 3.0, 600.0))
