"""Incidents and periods told in plain language, from recorded facts only."""

from leptonai.ops.report.digest import Member, digest
from leptonai.ops.report.facts import Question, Seen, questions, seen_of
from leptonai.ops.report.story import Section, Sentence, Story, check, tell
from leptonai.ops.report.voice import languages
from leptonai.ops.report.write import FORMATS, report, write

__all__ = [
    "FORMATS", "Member", "Question", "Section", "Seen", "Sentence", "Story", "check", "digest", "languages",
    "questions", "report", "seen_of", "tell", "write",
]  # fmt: skip
