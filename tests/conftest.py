"""What holds for every test."""

from typing import Any

from hypothesis import settings

settings.register_profile("busy", deadline=None)  # how long an example takes says nothing on a busy machine
settings.load_profile("busy")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What cannot be installed like a package, a real cluster first of all: the summary says what that leaves out."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    for what in ("NO CLUSTER", "NO IMAGE", "NO CUSTOM RESOURCES"):
        skipped = sum(what in reason for reason in reasons)
        if skipped:
            said = f"{what}: {skipped} tests on a real Kubernetes were left out; see tests/cluster.sh"
            terminalreporter.write_line(said, red=True, bold=True)
