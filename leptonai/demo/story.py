"""The story: one drill after another, told while it goes, with a report at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from leptonai.drill.kinds import Fault
from leptonai.drill.outcome import Outcome, newest
from leptonai.drill.run import Chapter, begin, concerning, follow, judged, wait_until_calm
from leptonai.drill.screen import Screen
from leptonai.drill.stage import Place, Stage
from leptonai.types import Noun


class Report(Noun, frozen=True, kw_only=True):
    """All that the story showed. ``false_alarms``: incidents before anything was broken. ``stopped``: why it ended
    before its end."""

    seed: int
    accuracy: float  # of the good model on held-out images
    seconds: float  # from the first step of the demo to the last repair
    outcomes: tuple[Outcome, ...]
    false_alarms: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def repaired(self) -> bool:
        return not self.stopped and not self.false_alarms and all(o.repaired for o in self.outcomes)


def tell(stage: Stage, faults: Sequence[Fault], screen: Screen, seed: int, began: float) -> Report:
    """Every fault injected, followed and judged. ``began``: monotonic time at which the demo began."""
    place = stage.place()
    chapters: list[Chapter] = []
    stopped = ""
    for number, fault in enumerate(faults):
        stopped = wait_until_calm(place, screen)
        if stopped:
            break
        chapters.append(begin(place, [fault], seed + number, screen))
        chapters[-1].recovered = follow(place, chapters[-1], screen)
        screen.rows(outcomes(place, chapters))
    seconds = time.monotonic() - began
    if chapters and not stopped:
        time.sleep(place.quiet)  # the last requests come home, a late incident shows itself
    incidents = concerning(place)
    first = chapters[0].known if chapters else newest(incidents)
    return Report(
        seed=seed,
        accuracy=stage.trained.accuracy,
        seconds=seconds,
        outcomes=tuple(outcomes(place, chapters)),
        false_alarms=tuple(f"incident {i.id}: {i.title}" for i in incidents if i.id <= first),
        stopped=stopped,
    )


def outcomes(place: Place, chapters: Sequence[Chapter]) -> list[Outcome]:
    """The outcomes so far; each drill answers for all that happened until the next one."""
    told = []
    for chapter, following in zip(chapters, [*chapters[1:], None], strict=True):
        last = following.known if following else newest(concerning(place))
        until = following.injection.at if following else time.time()
        told += judged(place, chapter, last, until)
    return told
