"""The last good answers of one cluster, found by what was asked."""

from __future__ import annotations

from typing import NamedTuple

from leptonai.edge.http import Header, Request
from leptonai.types import Standby


class Answer(NamedTuple):
    body: bytes
    headers: list[Header]
    content_type: bytes


class Answers:
    def __init__(self) -> None:
        self.on = False

    def configure(self, standby: Standby) -> None:
        self.on = False

    def find(self, request: Request) -> Answer | None:
        return None
