"""Text that others wrote, made harmless before it is told: in a terminal, in Markdown, in HTML and for a model."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 2000  # characters of one foreign text in a report: a person reads no more, and a page must stay small

# ECMA-48 control sequences (colours, cursor), operating system commands (titles, links, clipboard) and the like.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def plain(text: str, longest: int = LONGEST) -> str:
    """One line without escapes, control and direction characters, and without brackets that could pass for a citation.

    Applied twice it changes nothing more.
    """
    text = _ESCAPE.sub("", text)
    kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    text = " ".join("".join(kept).replace("[", "(").replace("]", ")").split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def markdown(text: str) -> str:
    """``text`` that no Markdown reader takes for markup, nor for HTML, nor makes a link of."""
    return _SPECIAL.sub(r"\\\1", text).replace("://", ":\u200b//")
