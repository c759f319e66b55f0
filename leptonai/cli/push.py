"""push: an image archive into a registry."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import json_option, print_json, waiting


@click.command()
@click.argument("archive", metavar="FILE.tar", type=click.Path(path_type=Path))
@click.argument("name", metavar="REGISTRY/NAME:TAG")
@click.option("--image", default="", metavar="NAME", help="Which image of the archive, where it holds several.")
@click.option("--mount", default="", metavar="REPOSITORY", help="Of the same registry, with layers to take over.")
@click.option("--plain-http", is_flag=True, envvar="REGISTRY_PLAIN_HTTP", help="The registry speaks HTTP.")
@json_option
def push(archive: Path, name: str, image: str, mount: str, plain_http: bool, as_json: bool) -> None:
    """Push an archive that `leptonai build` wrote. What the registry has is not sent again.

    Its name and password: REGISTRY_USER and REGISTRY_PASSWORD, else those of `docker login`.

    \b
    Example:
      leptonai push digits.tar registry.example/team/digits:v1
      leptonai push digits.tar localhost:5000/digits:v1 --plain-http
    """
    from leptonai.image.push import login, push
    from leptonai.image.registry import Registry, reference

    target = reference(name)
    user, password = login(target.host)
    registry = Registry(target.host, plain=plain_http, user=user, password=password)
    try:
        with waiting(as_json) as say:
            done = push(archive, target, registry, image=image, mount=mount, say=say)
    finally:
        registry.close()
    if as_json:
        print_json({"name": target.text, "digest": done.digest, "sent": done.sent, "there": done.there})
        return
    click.echo(f"{target.text}@{done.digest}: {done.sent / 1e6:.1f} MB sent, {done.there / 1e6:.1f} MB was there")
