"""Pages that are made from the source stay what the source says; links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "examples").glob("**/*.md")])


def test_the_settings_page_is_made_from_the_settings_and_each_has_a_reason() -> None:
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs" / "settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.page()
    assert (ROOT / "docs" / "settings.md").read_text() == page, "run `python docs/settings.py`"
    assert not [line for line in page.splitlines() if line.endswith("|  |")], "a setting without a reason"


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub makes it."""
    titles = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()):
        page = path.parent / link if link else path
        assert page.exists(), f"{path.name} links to {link}, which is not there"
        if anchor and page.suffix == ".md":
            assert anchor in anchors(page), f"{path.name} links to #{anchor}, which {page.name} does not have"


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by name: two of one name would keep the whole suite from being collected."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
