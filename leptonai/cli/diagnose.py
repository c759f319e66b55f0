"""diagnose: which services' own trouble explains the trouble of a target, from files alone."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import json_option, print_json

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("metrics", type=FILE, metavar="METRICS.csv")
@click.option("--normal", type=FILE, required=True, metavar="NORMAL.csv", help="The same series in normal times.")
@click.option("--graph", type=FILE, required=True, metavar="GRAPH.csv", help="Who calls whom, as adjacency matrix.")
@click.option("--target", required=True, metavar="SERVICE,METRIC,STATISTIC", help="What was seen to go wrong.")
@json_option
def diagnose(metrics: Path, normal: Path, graph: Path, target: str, as_json: bool) -> None:
    """Rank the services that may have caused what TARGET shows in METRICS.csv, most probable first.

    Nothing is printed as a suspect when the target did nothing that it does not also do in NORMAL.csv.

    \b
    Example:
      leptonai diagnose now.csv --normal lastweek.csv --graph graph.csv --target shop,latency,Average
    """
    from leptonai.ops.rank import rank, read_graph, read_metrics, read_target

    key = read_target(target)
    suspects = rank(read_metrics(metrics), read_metrics(normal), read_graph(graph), key)
    if as_json:
        print_json(suspects)
        return
    if not suspects:
        click.echo(f"{key} is not anomalous: it does the same in {normal}.")
        return
    for place, suspect in enumerate(suspects, start=1):
        click.echo(f"{place}. {suspect.node}  ({suspect.metric}, score {suspect.score:.2f})")
        for sentence in suspect.evidence:
            click.echo(f"     {sentence}")
