"""token: who may call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import click

from leptonai.cli.session import Number, Session, ago, json_option, print_json, print_table

if TYPE_CHECKING:
    from leptonai.types import Role


@click.group()
def token() -> None:
    """Make, list and revoke tokens.

    \b
    Example:
      leptonai token create ana --role operator
    """


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), default="viewer", show_default=True)
@click.option("--workspace", multiple=True, metavar="NAME", help="Covered workspace; '*' for all. May be given again.")
@click.option("--ttl", type=Number(0, min_open=True), metavar="SECONDS", help="Expires after this long.")
@json_option
@click.pass_obj
def create(
    session: Session, name: str, role: str, workspace: tuple[str, ...], ttl: float | None, as_json: bool
) -> None:
    """Make a token and print its secret, which is shown this once.

    \b
    Example:
      leptonai token create ana --role operator --workspace team
    """
    with session.client() as client:
        made = client.create_token(name, cast("Role", role), workspace or ("default",), ttl)
    if as_json:
        print_json(made)
        return
    covered = ", ".join(made.token.workspaces)
    click.echo(f"Token {name}, {role} of {covered}. This is shown once:", err=True)
    click.echo(made.secret)


@token.command()
@json_option
@click.pass_obj
def ls(session: Session, as_json: bool) -> None:
    """List all tokens.

    \b
    Example:
      leptonai token ls
    """
    with session.client() as client:
        found = client.tokens()
    if as_json:
        print_json(found)
        return
    now = time.time()
    rows = [
        [t.name, t.role, ", ".join(t.workspaces), ago(t.created, now), "revoked" if t.revoked else ""] for t in found
    ]
    print_table(["token", "role", "workspaces", "age", ""], rows, "No token.")


@token.command()
@click.argument("name")
@json_option
@click.pass_obj
def revoke(session: Session, name: str, as_json: bool) -> None:
    """Refuse a token from now on.

    \b
    Example:
      leptonai token revoke ana
    """
    with session.client() as client:
        done = client.revoke_token(name)
    if as_json:
        print_json(done)
    else:
        click.echo(f"Token {done.name} is revoked.")
