"""The example notebook runs from top to bottom, as a reader would run it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[3] / "examples" / "notebook" / "anomalies.ipynb"


@pytest.mark.world
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook client, not ours
def test_the_notebook_runs_and_finds_what_it_says(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = ["".join(str(o.get("text", o.get("data", ""))) for o in c.get("outputs", [])) for c in notebook.cells]
    assert "'windows_found': 1" in said[3]
    assert "mahalanobis" in said[7] or "pca" in said[7]
    assert "rows ahead" in said[9]
