"""What is seen while the story runs: a live area in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from leptonai.drill.outcome import Outcome
from leptonai.drill.table import table


class Screen(Protocol):
    def __enter__(self) -> Screen: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def note(self, text: str) -> None:
        """Something has happened: the line stays."""

    def doing(self, text: str, traffic: str = "", since: float | None = None) -> None:
        """What is going on now, for how many seconds, and how the users fare."""

    def rows(self, outcomes: Sequence[Outcome]) -> None:
        """The table so far."""


class Plain:
    """Lines only: notes as they come, and what is going on when it changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._doing = ""

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def doing(self, text: str, traffic: str = "", since: float | None = None) -> None:
        if text != self._doing:
            self._doing = text
            self.note(f"  {text}")

    def rows(self, outcomes: Sequence[Outcome]) -> None:
        pass


class Living:
    """Notes scroll up; below them a spinner, the traffic and the table, redrawn four times a second."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._spinner = Spinner("dots")
        self._traffic = ""
        self._outcomes: Sequence[Outcome] = ()

    def __enter__(self) -> Living:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.__exit__(kind, error, tb)

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def doing(self, text: str, traffic: str = "", since: float | None = None) -> None:
        self._spinner.update(text=Text(text if since is None else f"{text}, {since:.0f} s"))
        self._traffic = traffic or self._traffic
        self._draw()

    def rows(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = list(outcomes)
        self._draw()

    def _draw(self) -> None:
        parts: list[RenderableType] = [Text(""), self._spinner, Text(f"  {self._traffic}", style="dim")]
        if self._outcomes:
            parts += [Text(""), table(self._outcomes, self._live.console.width)]
        self._live.update(Group(*parts))


def screen(console: Console) -> Screen:
    """A live one where there is a terminal to draw on."""
    return Living(console) if console.is_terminal else Plain(console)
