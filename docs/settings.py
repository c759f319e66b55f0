"""Writes docs/settings.md from the defaults and the comments of leptonai/settings.py: `python docs/settings.py`."""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent / "leptonai" / "settings.py"
HEAD = """# Settings

Read from `<home>/settings.yaml` when the platform starts; what is not named there has its default. Made from the source
by `python docs/settings.py`.
"""


def page() -> str:
    """The page as it should be now: a table per section, each setting with its default and the reason for it."""
    source = SOURCE.read_text()
    lines = source.splitlines()
    sections = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    out = [HEAD]
    for field in sections["Settings"].body:
        assert isinstance(field, ast.AnnAssign)
        assert isinstance(field.target, ast.Name)
        out += [f"\n## {field.target.id}\n", "| setting | default | unit and reason |", "|---|---|---|"]
        for item in sections[ast.unparse(field.annotation)].body:
            if isinstance(item, ast.AnnAssign) and item.value is not None:
                out.append(f"| `{ast.unparse(item.target)}` | `{ast.unparse(item.value)}` | {_comment(lines, item)} |")
    return "\n".join(out) + "\n"


def _comment(lines: list[str], item: ast.AnnAssign) -> str:
    """What the source says of a setting: on its own lines, or on the lines right above."""
    assert item.end_lineno is not None
    same = [lines[n].split("#", 1)[1].strip() for n in range(item.lineno - 1, item.end_lineno) if "#" in lines[n]]
    above: list[str] = []
    n = item.lineno - 2
    while n >= 0 and lines[n].strip().startswith("#"):
        above.insert(0, lines[n].strip().lstrip("# "))
        n -= 1
    return " ".join(above + same).replace("|", "\\\\|")


if __name__ == "__main__":
    (HERE / "settings.md").write_text(page())
