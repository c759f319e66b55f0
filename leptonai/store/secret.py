"""What an address of a database may give away."""

from __future__ import annotations

import re

_SAID = re.compile(r"//[^/?]*:[^/?]*@|[?&]\w*(password|secret)\w*=")


def misread(url: str) -> bool:
    """Whether an ``@`` stands where no login ends: a part of a password may then be taken for a host or a path."""
    who, _, path = url.partition("://")[2].partition("/")
    return "@" in path or who.count("@") > 1


def may_hold_password(url: str) -> bool:
    """Whether a password may stand in ``url``, as one or misread."""
    return misread(url) or _SAID.search(url) is not None
