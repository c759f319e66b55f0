"""The platform cannot play along: no code of it knows the demo."""

import re
from pathlib import Path

import leptonai

PACKAGE = Path(leptonai.__file__).parent
TEXT = (".py", ".yaml", ".yml", ".json", ".html", ".js", ".css", ".j2", ".md", ".txt", ".lua", ".sql")


def mentions(root: Path) -> list[str]:
    files = [p for p in sorted(root.rglob("*")) if p.suffix in TEXT and "__pycache__" not in p.parts]
    assert len(files) > 50
    outside = [p for p in files if p.relative_to(root).parts[0] != "demo"]
    return [str(p.relative_to(root)) for p in outside if re.search(r"(?i)(?<![a-z])demo(?![a-z])", p.read_text())]


def test_no_file_outside_the_demo_mentions_it() -> None:
    assert mentions(PACKAGE) == []
