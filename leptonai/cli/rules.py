"""rules: check and test what diagnosis is told, show fault trees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leptonai.cli.session import Session, json_option, print_json, print_table

if TYPE_CHECKING:
    from leptonai.ops.diagnosis.rules import RuleBook

FILE = click.Path(path_type=Path)
SHOWN = 30  # cut sets in the table; --json has all


@click.group()
def rules() -> None:
    """Check and test rules and fault trees.

    \b
    Example:
      leptonai rules check ~/.leptonai/rules/ours.yaml
    """


@rules.command()
@click.argument("files", nargs=-1, type=FILE)
@json_option
@click.pass_obj
def check(session: Session, files: tuple[Path, ...], as_json: bool) -> None:
    """Check rule files, each beside those that ship; without FILES, those in the home folder as ops reads them.

    \b
    Example:
      leptonai rules check ours.yaml
    """
    from leptonai.errors import PluginError
    from leptonai.ops.diagnosis.files import RuleFiles, book_with

    if files:
        book = [book_with(path)[0] for path in files][-1]
    else:
        read = RuleFiles(session.folder().path / "rules")
        read.look()
        if read.broken:
            raise PluginError(
                "; ".join(e.message for e in read.broken.values()), hint=next(iter(read.broken.values())).hint
            )
        book = read.book
    counts = {
        "rules": len(book.rules),
        "trees": len(book.trees),
        "signals": len(book.signals),
        "cases": len(book.cases),
    }
    if as_json:
        print_json(counts)
    else:
        click.echo("Nothing is wrong: " + ", ".join(f"{n} {what}" for what, n in counts.items()) + " in force.")


@rules.command()
@click.argument("file", type=FILE, required=False)
@json_option
@click.pass_context
def test(ctx: click.Context, file: Path | None, as_json: bool) -> None:
    """Run the cases of a rule file, evidence in and causes out; without FILE, those that ship.

    Ends with 1 when a case fails.

    \b
    Example:
      leptonai rules test ours.yaml
    """
    from leptonai.ops.diagnosis.cases import run, untested
    from leptonai.ops.diagnosis.files import book_with, shipped_book

    if file is None:
        book = shipped_book()
        own, cases = book.rules, book.cases
    else:
        book, document = book_with(file)
        own, cases = document.rules, document.cases
    outcomes = [run(case, book) for case in cases]
    bare = untested(own, book, cases)
    failed = [o for o in outcomes if o.wrong]
    if as_json:
        told = [{"case": o.case.name, "causes": o.causes, "wrong": o.wrong} for o in outcomes]
        print_json({"cases": told, "untested": [{"cause": r.cause, "when": r.when} for r in bare]})
    else:
        for outcome in failed:
            click.echo(f"FAILED  {outcome.case.name}")
            for sentence in outcome.wrong:
                click.echo(f"        {sentence}")
        for rule in bare:
            click.echo(f"no case: {rule.cause} of a {rule.about} when {rule.when}")
        click.echo(
            f"{len(outcomes) - len(failed)} of {len(outcomes)} cases pass; {len(bare)} of {len(own)} rules without."
        )
    if failed:
        ctx.exit(1)


@rules.command()
@click.argument("name", required=False)
@click.option("--file", type=FILE, help="A rule file that has the tree, or the case.")
@click.option("--case", metavar="NAME", help="Weigh the tree with the evidence of this case.")
@json_option
def tree(name: str | None, file: Path | None, case: str | None, as_json: bool) -> None:
    """Show a fault tree: minimal cut sets, probability of the top event, importance of each event.

    Without NAME, list the trees.

    \b
    Example:
      leptonai rules tree slow_answers
    """
    from leptonai.errors import NotFound
    from leptonai.ops.diagnosis.files import book_with, shipped_book

    book = book_with(file)[0] if file else shipped_book()
    if name is None:
        rows = [[n, str(len(t.events)), f"{t.probability():.4g}", t.tree.text] for n, t in sorted(book.trees.items())]
        if as_json:
            print_json([dict(zip(("name", "events", "probability", "text"), row, strict=True)) for row in rows])
        else:
            print_table(["TREE", "EVENTS", "P(TOP)", ""], rows, "No trees.")
        return
    if name not in book.trees:
        raise NotFound(f"no tree {name!r}", hint=f"known: {', '.join(sorted(book.trees))}")
    told = document(book, name, case)
    if as_json:
        print_json(told)
    else:
        show(told)


def document(book: RuleBook, name: str, case: str | None) -> dict[str, Any]:
    from leptonai.errors import NotFound
    from leptonai.ops.diagnosis.cases import weigh_case

    tree = book.trees[name]
    p, refuted, cuts = tree.p, frozenset[str](), [(s, tree.chance(s)) for s in tree.cut_sets]
    if case is not None:
        found = [c for c in book.cases if c.name == case]
        if not found:
            raise NotFound(f"no case {case!r}", hint="leptonai rules test --json lists them")
        weighed = [w for w in weigh_case(found[0], book)[1] if w.tree is tree]
        if not weighed:
            raise NotFound(f"the top event of {name!r} is not seen in the case {case!r}")
        p, refuted = list(weighed[0].p), weighed[0].refuted
        cuts = [(cut.events, cut.probability) for cut in weighed[0].cuts()]
    events = [
        {
            "event": e,
            "probability": own,
            "posterior": tree.posterior(e, p),
            "refuted": e in refuted,
            **tree.importance(e, p)._asdict(),
        }
        for e, own in zip(tree.events, p, strict=True)
    ]
    return {
        "name": name,
        "text": tree.tree.text,
        "probability": tree.probability(p),
        "cut_sets": [{"events": sorted(events), "probability": chance} for events, chance in cuts],
        "events": sorted(events, key=lambda e: -e["posterior"]),
    }


def show(told: dict[str, Any]) -> None:
    click.echo(f"{told['name']}: {told['text'] or 'a fault tree'}; P(top) = {told['probability']:.4g}")
    rows = [[" and ".join(c["events"]), f"{c['probability']:.4g}"] for c in told["cut_sets"]]
    print_table(["MINIMAL CUT SET", "PROBABILITY"], rows[:SHOWN], "The top event cannot happen.")
    if len(rows) > SHOWN:
        click.echo(f"... the {SHOWN} most probable of {len(rows)}; --json has all")
    columns = ["probability", "posterior", "birnbaum", "criticality", "fussell_vesely"]
    table = [
        [e["event"] + (" (refuted)" if e["refuted"] else ""), *(f"{e[c]:.4g}" for c in columns)] for e in told["events"]
    ]
    print_table(["EVENT", "P", "P(GIVEN TOP)", "BIRNBAUM", "CRITICALITY", "FUSSELL-VESELY"], table, "No events.")
