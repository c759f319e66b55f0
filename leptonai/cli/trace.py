"""trace: where the time of one request went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from leptonai.cli.session import Number, Session, clock, json_option, print_json, print_table

if TYPE_CHECKING:
    from leptonai.types import Span

BAR = 40  # characters of the time line


@click.command()
@click.argument("id", required=False)
@click.option("--service", metavar="NAME", default="", help="List: only traces that passed this service.")
@click.option("--failed", is_flag=True, help="List: only traces with a failed span.")
@click.option("--slower-than", type=Number(0), default=0.0, metavar="SECONDS", help="List: only slower ones.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="List: how many.")
@json_option
@click.pass_obj
def trace(
    session: Session, id: str | None, service: str, failed: bool, slower_than: float, limit: int, as_json: bool
) -> None:
    """Show the spans of one request (ID: its x-request-id, or a trace id), or list the newest traces.

    \b
    Example:
      leptonai trace --failed
      leptonai trace 0b7c9b6e-41d3-4b1e-9d4e-9a0c2f3e4d5a
    """
    with session.client() as client:
        if id is not None:
            spans = client.trace(id)
            if as_json:
                print_json(spans)
            else:
                show(spans)
            return
        found = client.traces(service=service, failed=failed, slower_than=slower_than, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = [
        [clock(t.start), t.request or t.trace, t.name, spell(t.seconds), "failed" if t.failed else "", str(t.spans)]
        for t in found
    ]
    print_table(["WHEN", "REQUEST", "NAME", "TOOK", "", "SPANS"], rows, "No trace is kept.")


def show(spans: list[Span]) -> None:
    """The tree, each span with its part of the whole time."""
    begin = min(s.start for s in spans)
    whole = max(s.start + s.seconds for s in spans) - begin
    click.echo(f"trace {spans[0].trace}  {clock(begin)}  {spell(whole)}")
    rows = []
    for depth, span in tree(spans):
        failed = "failed" if span.failed else ""
        rows.append(["  " * depth + span.name, span.service, spell(span.seconds), bar(span, begin, whole), failed])
    print_table(["SPAN", "SERVICE", "TOOK", "", ""], rows, "")


def tree(spans: list[Span]) -> list[tuple[int, Span]]:
    """``(depth, span)`` in the order of reading; a span whose parent was not seen is a root. Safe against loops."""
    ids = {s.id for s in spans}
    below: dict[str, list[Span]] = {}
    for span in spans:
        parent = span.parent if span.parent in ids and span.parent != span.id else ""
        below.setdefault(parent, []).append(span)
    out: list[tuple[int, Span]] = []
    todo = [(0, s) for s in reversed(below.pop("", []))]
    while todo or below:
        if not todo:  # only loops are left: begin anywhere
            todo = [(0, s) for s in reversed(below.pop(next(iter(below))))]
        depth, span = todo.pop()
        out.append((depth, span))
        todo += [(depth + 1, s) for s in reversed(below.pop(span.id, []))]
    return out


def bar(span: Span, begin: float, whole: float) -> str:
    if whole <= 0:
        return ""
    first = min(BAR - 1, int(BAR * (span.start - begin) / whole))
    length = max(1, min(BAR - first, round(BAR * span.seconds / whole)))
    return "·" * first + "█" * length + "·" * (BAR - first - length)


def spell(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1.0 else f"{1000 * seconds:.1f} ms"
