"""Take the picture of the console for the README, from a page that is really live.

    python docs/screenshot.py URL docs/console.png [--width 1280] [--wait 5]

URL is a one-time console address, as ``leptonai demo --stay`` prints it (or POST /api/v1/sessions). Needs the ``dev``
extra and a Chromium: Debian's is found at /usr/bin/chromium.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ARGUMENTS = [
    "--no-sandbox",  # containers have no user namespaces for it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def shoot(url: str, path: Path, width: int, wait: float) -> None:
    """``path`` holds a PNG of the page as it looks ``wait`` seconds after it was opened."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        raise SystemExit("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": 600}, device_scale_factor=1.25)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_timeout(wait * 1000)  # the charts fill as samples come in
        page.screenshot(path=str(path), full_page=True)
        browser.close()
    if problems:
        raise SystemExit(f"the page has errors: {problems}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("path", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--wait", type=float, default=5.0)
    asked = parser.parse_args()
    shoot(asked.url, asked.path, asked.width, asked.wait)


if __name__ == "__main__":
    main()
