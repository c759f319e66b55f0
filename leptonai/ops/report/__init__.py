"""Incidents told in plain language, from recorded facts only."""

from leptonai.ops.report.story import Section, Sentence, Story, check, tell
from leptonai.ops.report.write import FORMATS, report

__all__ = ["FORMATS", "Section", "Sentence", "Story", "check", "report", "tell"]
