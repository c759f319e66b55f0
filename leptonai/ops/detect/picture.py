"""A plot of a series, its labels and the anomalies found."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from leptonai.errors import PluginError, SpecError
from leptonai.ops.detect.file import Found
from leptonai.ops.detect.stream import ALARM


def require() -> None:
    """Raises PluginError when there is no matplotlib: better before an hour of reading than after it."""
    if find_spec("matplotlib") is None:
        raise PluginError("a plot needs matplotlib", hint="pip install 'leptonai-platform[plot]'")


def plot(found: Found, path: str | Path) -> None:
    """Writes a picture (the type by its suffix) of values above and scores below.

    Raises PluginError without matplotlib, SpecError when the file cannot be written.
    """
    require()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shown = found.picture
    upper.plot(shown.row, shown.value, linewidth=0.7, color="#1f4e79")
    for first, last in found.label:
        upper.axvspan(first, last + 1, color="#f2c94c", alpha=0.35, linewidth=0)
    for span in found.anomalies:
        upper.axvline(span.row, color="#c0392b", linewidth=0.9, alpha=0.8)
    upper.set_ylabel(found.table.names["value"])
    upper.set_title(f"{found.table.path.name}: {len(found.anomalies)} anomalies in {found.rows:,} rows", loc="left")
    lower.plot(shown.row, shown.score, linewidth=0.7, color="#555555")
    lower.axhline(ALARM, color="#c0392b", linewidth=0.8, linestyle="--")
    lower.set_ylabel("score")
    lower.set_xlabel("row")
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as e:
        raise SpecError(f"{path} cannot be written: {e}", hint="--plot names a .png, .svg or .pdf file") from e
