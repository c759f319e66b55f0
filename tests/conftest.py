"""What holds for every test."""

from typing import Any

from hypothesis import settings

# How long an example takes says nothing on a busy machine. The same examples each time: what is refused for a test is
# refused for what was changed, not for a history that nobody had met before. `explore` looks for those.
settings.register_profile("busy", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("busy")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What cannot be installed like a package, a real cluster first of all: the summary says what that leaves out."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    for what in ("NO CLUSTER", "NO IMAGE", "NO CUSTOM RESOURCES"):
        skipped = sum(what in reason for reason in reasons)
        if skipped:
            said = f"{what}: {skipped} tests on a real Kubernetes were left out; see tests/cluster.sh"
            terminalreporter.write_line(said, red=True, bold=True)
