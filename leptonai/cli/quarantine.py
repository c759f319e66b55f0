"""quarantine: refuse requests for what they bring, for a while; show what is refused, and lift it."""

from __future__ import annotations

import click

from leptonai.cli.services import why_option
from leptonai.cli.session import Number, Session, json_option, key_of, print_json, workspace_option


@click.command()
@click.argument("name")
@click.argument("rules", nargs=-1, metavar="[RULE]...")
@click.option("--seconds", type=Number(1, 86400), default=600.0, show_default=True, help="Until it ends.")
@click.option("--lift", is_flag=True, help="Let these requests in again; without a RULE all of them.")
@workspace_option
@why_option
@json_option
@click.pass_obj
def quarantine(
    session: Session, name: str, rules: tuple[str, ...], seconds: float, lift: bool, workspace: str | None, why: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Refuse requests of which a RULE about an input holds; without a RULE, show those in force.

    A rule is like image.high>508, image.low<-3, prompt.length>20000 or image.hash=<16 hex>: see docs/runbooks.md.

    \b
    Example:
      leptonai quarantine digits 'image.high>508' --seconds 600
      leptonai quarantine digits --lift
    """
    from leptonai.errors import SpecError
    from leptonai.types import QUARANTINE, DialChange, InputRule

    key = key_of(name, workspace)
    wanted = []
    for text in rules:
        rule = InputRule.parse(text)
        if rule is None:
            raise SpecError(f"{text[:120]!r} is no rule about an input", hint="as in 'image.high>508'")
        wanted.append(str(rule))
    with session.client() as client:
        held = client.service(key).service.dials.quarantine
        chosen = wanted or (list(held) if lift else [])
        if chosen:
            change = DialChange(
                service=key, set={f"{QUARANTINE}{text}": float(not lift) for text in chosen},
                ttl=None if lift else seconds,
            )  # fmt: skip
            client.wish(change, why or ("let in again" if lift else "found to make the model fail"))
            held = client.service(key).service.dials.quarantine
    if as_json:
        return print_json({"service": key, "quarantine": held})
    for text in held:
        click.echo(f"{key} refuses requests with {text}")
    if not held:
        click.echo(f"{key} refuses no request for what it brings.")
