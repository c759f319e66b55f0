"""Remedies of an operator's own: a command or a webhook, run as a process that the door gave leave to."""

from __future__ import annotations

import sys
from string import Formatter
from typing import ClassVar

import msgspec

from leptonai.ops.remedies.wishing import Reversal, Risk, Seen, Wishing
from leptonai.types import Change, Job, JobChange

PLACES = ("service", "incident", "cause", "subject")  # what a command may name in braces


class Command(Wishing, frozen=True, kw_only=True):
    """Run ``run``, a program and its arguments; no shell reads it. ``{service}``, ``{incident}``, ``{cause}`` and
    ``{subject}`` in an argument are filled in; its whole environment is ours and the same as ``LEPTONAI_...``."""

    name: ClassVar[str] = "command"
    risk: ClassVar[Risk] = "high"
    reversal: ClassVar[Reversal] = "none"
    run: tuple[str, ...]
    timeout: float = 30.0
    output: int = 4096

    def __post_init__(self) -> None:
        if not self.run or not self.run[0].startswith("/"):
            raise ValueError("run is a list that begins with the absolute path of a program")
        for argument in self.run:
            _known(argument)

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        known = places(seen)
        job = Job(command=tuple(a.format(**known) for a in self.run), timeout=self.timeout, output=self.output)
        return JobChange(service=seen.service.key, job=job), f"run {self.run[0]}: {seen.cause.name}"


class Retrain(Wishing, frozen=True, kw_only=True):
    """Run the pipeline that ``pipeline`` describes (docs/pipeline.md): collect, train, evaluate, compress, canary. What
    it makes is one more proposal, which live traffic judges. A person approves unless the step says otherwise."""

    name: ClassVar[str] = "retrain"
    risk: ClassVar[Risk] = "high"
    reversal: ClassVar[Reversal] = "none"
    approved: ClassVar[bool] = True
    pipeline: str
    timeout: float = 3600.0
    output: int = 4096

    def __post_init__(self) -> None:
        if not self.pipeline.startswith("/"):
            raise ValueError(f"pipeline {self.pipeline[:80]!r} must be the absolute path of a text")
        _known(self.pipeline)

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        text = self.pipeline.format(**places(seen))
        command = (sys.executable, "-m", "leptonai.cli", "pipeline", "run", text)
        job = Job(command=command, timeout=self.timeout, output=self.output)
        return JobChange(service=seen.service.key, job=job), f"retrain by {text}: {seen.cause.name}"


class Webhook(Wishing, frozen=True, kw_only=True):
    """POST a JSON document about the incident to ``url``; an answer below 300 counts as taken."""

    name: ClassVar[str] = "webhook"
    risk: ClassVar[Risk] = "high"
    reversal: ClassVar[Reversal] = "none"
    url: str
    timeout: float = 10.0
    output: int = 4096

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url[:80]!r} must begin with http:// or https://")

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        body = msgspec.json.encode(places(seen) | {"title": seen.incident.title}).decode()
        job = Job(url=self.url, body=body, timeout=self.timeout, output=self.output)
        return JobChange(service=seen.service.key, job=job), f"tell {self.url}: {seen.cause.name}"


def _known(argument: str) -> None:
    """ValueError for a place in braces that there is not."""
    if unknown := {f for _, f, _, _ in Formatter().parse(argument) if f is not None} - {*PLACES}:
        raise ValueError(f"{argument!r} names {min(unknown)!r}; it may name {', '.join(PLACES)}")


def places(seen: Seen) -> dict[str, str]:
    said = (seen.service.key, str(seen.incident.id), seen.cause.name, seen.cause.subject)
    return dict(zip(PLACES, said, strict=True))
