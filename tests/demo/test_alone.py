"""The platform cannot play along: no code of it knows the demo."""

import ast
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


def imported(root: Path) -> set[str]:
    """The modules of ours, outside the demo, that its files import anywhere."""
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""] if node.module != "leptonai" else [f"leptonai.{a.name}" for a in node.names]
            found |= {n for n in names if n.split(".")[0] == "leptonai" and not n.startswith("leptonai.demo")}
    return found


def test_the_demo_leaves_the_work_to_the_drills() -> None:
    """One code breaks, follows and judges, for a newcomer's five faults and for all kinds."""
    found = imported(PACKAGE / "demo")
    assert "leptonai.drill.run" in found
    allowed = {"leptonai.types", "leptonai.errors", "leptonai.cli.session"}  # the last: how commands read numbers
    assert {n for n in found if not n.startswith("leptonai.drill")} <= allowed
