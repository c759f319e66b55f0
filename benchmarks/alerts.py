"""What a round of alerts costs: from burns and incidents to who is told, by how many services and rules there are.

    python benchmarks/alerts.py [--rounds 200]

CPU of one round of ``Pager.decide`` with all conditions made anew, as ops does each second: healthy services, a tenth
of them firing, and the same with inhibition rules and silences of an operator. Burn rules are measured apart: one
count a service and second through all windows of both rules, healthy and with one bad request in a thousand. Limit: a
share of one core.
"""

from __future__ import annotations

import argparse
import time

from leptonai.client.wire import Desk
from leptonai.ops.alert.match import parse
from leptonai.ops.alert.pager import Pager
from leptonai.ops.alert.sources import all_conditions
from leptonai.ops.slo import Burn, BurnState
from leptonai.settings import Alerts, Inhibit, Receiver, Settings
from leptonai.types import Silence, Slo

NOW = 1_700_000_000.0


def burns(services: int, firing: int) -> dict[str, tuple[list[BurnState], bool]]:
    calm = [BurnState(rule="errors"), BurnState(rule="latency")]
    ill = [BurnState(rule="errors", severity="critical", burn_long=20.0, burn_short=20.0, factor=14.4), calm[1]]
    return {f"service-{i}": (ill if i < firing else calm, True) for i in range(services)}


def pager(rules: int, silences: int) -> Pager:
    inhibit = tuple(
        Inhibit(source=(f'alertname="A{i}"',), target=('severity="warning"',), equal=("workspace",))
        for i in range(rules)
    )
    wanted = Alerts(receivers=(Receiver(name="ana"),), owners={"*": "ana"}, inhibit=inhibit)
    found = Pager(Settings(alerts=wanted), None, None, str)  # type: ignore[arg-type] - nothing is asked of control
    found.desk = Desk(
        silences=tuple(
            Silence(
                id=i + 1, matchers=(parse(f'service=~"other-{i}.*"'),), starts=0.0, ends=2 * NOW, by="ana",
                comment="x", made=0.0,
            )
            for i in range(silences)
        ),
        acks=(),
        external=(),
    )  # fmt: skip
    found.sender.put = lambda message: None  # type: ignore[method-assign] - deciding is measured, not sending
    return found


def round_seconds(services: int, firing: int, rules: int, silences: int, rounds: int) -> float:
    """Seconds of CPU of one round, the median."""
    found, states, spent = pager(rules, silences), burns(services, firing), []
    calls = [(f"service-{i + 1}", f"service-{i}") for i in range(0, services - 1, 3)]
    for n in range(rounds):
        now = NOW + n
        begun = time.process_time()
        holding = all_conditions([], states, {}, now, 0.0, 60.0, "")
        found.decide(now, holding, lambda: calls, {})
        spent.append(time.process_time() - begun)
    return sorted(spent)[len(spent) // 2]


def burn_seconds(bad: bool, steps: int = 10_000) -> float:
    """Seconds of CPU of one count through both rules."""
    rules = Burn(Slo(), "errors"), Burn(Slo(), "latency")
    begun = time.process_time()
    for n in range(steps):
        for rule in rules:
            rule.step(NOW + n, 40.0, float(bad and n % 25 == 0))
    return (time.process_time() - begun) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args()
    print("| services | firing | own rules | silences | CPU a round | share of a core |\n|---|---|---|---|---|---|")
    for services in (10, 100, 1_000, 10_000):
        for firing, rules, silences in ((0, 0, 0), (services // 10, 0, 0), (services // 10, 20, 20)):
            spent = round_seconds(services, firing, rules, silences, given.rounds if services < 10_000 else 10)
            cells = f"{services:,} | {firing:,} | {rules} | {silences} | {1e3 * spent:.2f} ms | {spent:.2%}"
            print(f"| {cells} |", flush=True)
    for what, bad in (("healthy", False), ("with bad requests in their windows", True)):
        print(f"burn rules, {what}: {1e6 * burn_seconds(bad):.1f} us a service and second")


if __name__ == "__main__":
    main()
