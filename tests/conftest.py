"""What holds for every test."""

from typing import Any

from hypothesis import settings

settings.register_profile("busy", deadline=None)  # how long an example takes says nothing on a busy machine
settings.load_profile("busy")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A real cluster cannot be installed like a package: where there is none, the summary says what that leaves out."""
    skipped = sum("NO CLUSTER" in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    if skipped:
        said = f"NO CLUSTER: {skipped} tests on a real Kubernetes were left out; see tests/cluster.sh"
        terminalreporter.write_line(said, red=True, bold=True)
