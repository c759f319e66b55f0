"""The front of a search as a picture: size and latency against what is lost."""

from __future__ import annotations

from pathlib import Path

from leptonai.errors import NotInstalled, SpecError
from leptonai.improve.compress.front import Report, front

BLUE, GREY, GREEN = "#1f6feb", "#b0b7c0", "#1a7f37"


def possible(path: Path) -> None:
    """SpecError, NotInstalled when no picture could be drawn into ``path``: said before the search, not after it."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError as e:
        raise NotInstalled("a picture", e.name) from e
    if path.suffix[1:] not in FigureCanvasBase.get_supported_filetypes():
        raise SpecError(f"{path}: no picture has such a suffix", hint="name a .png, .svg or .pdf file")


def plot(report: Report, path: Path) -> None:
    """Two panels are in ``path``: size, and latency beside the original's, each against the loss.

    SpecError as ``possible`` says it, or when the file cannot be written.
    """
    possible(path)
    from matplotlib.figure import Figure

    seen = [c for c in report.candidates if c.measured]
    judged = [c for c in report.candidates if c.file and not c.measured and not c.error]  # sizes, but no replica
    best = {c.steps for c in front(report.candidates)}
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, label in ((axes[0], "size, KB"), (axes[1], "median request over the original's, asked in turn")):
        # not in seconds: candidates are measured one after the other, and the machine has moods
        at = {c.steps: c.size / 1e3 if ax is axes[0] else 1 / c.speedup for c in seen}
        for c in judged if ax is axes[0] else ():
            ax.scatter(c.size / 1e3, 100 * c.loss, s=14, color=GREY)
        for c in seen:
            on = c.steps in best
            ax.scatter(at[c.steps], 100 * c.loss, s=36 if on else 14, color=BLUE if on else GREY, zorder=2 + on)
        ax.axhline(100 * report.budget.loss, color="#cf222e", linewidth=1, linestyle="--")
        for c in (report.candidates[0], *([] if report.kept else [report.chosen])):
            if c.steps not in at and ax is axes[1]:  # not measured in time
                continue
            mark, spot = GREEN if c.steps else "black", (at.get(c.steps, c.size / 1e3), 100 * c.loss)
            ax.scatter(*spot, s=90, facecolors="none", edgecolors=mark, linewidths=2, zorder=4)
            ax.annotate(c.name, spot, xytext=(6, 7), textcoords="offset points", color=mark)
        ax.set_xlabel(label)
        ax.set_xscale("log")
        ax.grid(alpha=0.25)
    axes[0].set_ylabel(f"{report.budget.quality} lost, % (dashed: the budget)")
    figure.suptitle(report.said, fontsize=9)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as e:
        raise SpecError(f"{path} cannot be written: {e.strerror or e}", hint="choose another place") from e
