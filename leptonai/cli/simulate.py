"""simulate: what an autoscaling policy would have done with traffic that was recorded."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import Number, json_option, print_json, print_table


@click.command()
@click.argument("trace", type=click.Path(path_type=Path), metavar="TRACE.csv")
@click.option("--policy", default="ours", show_default=True, metavar="ours|hpa|kpa|fixed:N|oracle", help="Who decides.")
@click.option("--target", type=Number(), metavar="X", help="Requests at once wanted per replica (0.7 x --concurrency).")
@click.option(
    "--service-time",
    type=Number(),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Of a request, on average.",
)
@click.option("--concurrency", type=int, default=1, show_default=True, help="Requests a replica serves at once.")
@click.option("--startup", type=Number(), default=30.0, show_default=True, metavar="SECONDS", help="Until it is ready.")
@click.option(
    "--slo-wait", type=Number(), default=1.0, show_default=True, metavar="SECONDS", help="A longer wait violates."
)
@click.option("--min-replicas", type=int, default=1, show_default=True, help="0: scale to zero.")
@click.option("--max-replicas", type=int, default=64, show_default=True, help="Never more than these.")
@click.option("--replicas", type=int, help="Ready at the first arrival (default 1; fixed and oracle: what they want).")
@click.option(
    "--spread", type=Number(), default=0.0, show_default=True, help="Of service times: coefficient of variation."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random service times.")
@json_option
def simulate(
    trace: Path,
    policy: str,
    target: float | None,
    service_time: float,
    concurrency: int,
    startup: float,
    slo_wait: float,
    min_replicas: int,
    max_replicas: int,
    replicas: int | None,
    spread: float,
    seed: int,
    as_json: bool,
) -> None:
    """Replay recorded arrivals against an autoscaling policy, much faster than they came.

    The first column of TRACE.csv is when each request arrived: seconds, or ISO date-times. The policies are those
    that run in production; docs/scaling.md says what each does, and what the oracle knows.

    \b
    Example:
      leptonai simulate arrivals.csv --policy ours --startup 30 --slo-wait 1
      leptonai simulate arrivals.csv --policy kpa --target 0.5 --json
    """
    from leptonai.plan.scale import Setup, read, simulate

    setup = Setup(
        service_time=service_time,
        concurrency=concurrency,
        startup=startup,
        slo_wait=slo_wait,
        least=min_replicas,
        most=max_replicas,
        initial=replicas,
        spread=spread,
        seed=seed,
    )
    found = read(trace)
    if found.unsorted:
        click.echo(f"note: {found.unsorted:,} rows of {trace} were earlier than the row before; sorted", err=True)
    if found.unit != "seconds":
        click.echo(f"note: the numbers of {trace} are taken as {found.unit} since 1970", err=True)
    outcome = simulate(found.arrivals, policy, setup, target)
    if as_json:
        print_json(outcome)
        return
    rows = [
        ["policy", policy if outcome.target is None else f"{policy}, target {outcome.target:g}"],
        ["requests", f"{outcome.requests:,} in {outcome.duration:,.0f} s"],
        [
            "SLO violations",
            f"{outcome.slo_violations:,} waited longer than {slo_wait:g} s ({outcome.violation_share:.2%})",
        ],
        ["replica-seconds", f"{outcome.replica_seconds:,.0f}, {outcome.utilization:.0%} of them used"],
        [
            "replicas",
            f"{outcome.mean_replicas:.2f} on average, {outcome.peak_replicas} at the peak, {outcome.starts} starts",
        ],
        ["wait", f"p50 {outcome.wait_p50:.2f} s, p99 {outcome.wait_p99:.2f} s, longest {outcome.wait_max:.2f} s"],
    ]
    print_table(["replay", ""], rows, "")
