"""create: a starter folder that is ready to deploy."""

from __future__ import annotations

from pathlib import Path

import click

from leptonai.cli.session import Session, json_option, print_json
from leptonai.errors import Conflict, SpecError
from leptonai.types import NAME

SERVICE = """\
# What is wished for. Every field: docs/spec.md
name: {name}
model: model.py     # a file or folder next to this text; a model file (.onnx, .skops, .pt2) works as well
replicas: 1
# resources: {{cpu: 1, memory: 512MiB}}
# slo: {{availability: 0.999, latency: 250ms}}
"""

MODEL = '''\
"""{title}: replace the body of ``predict`` by your model."""


class {title}:
    def setup(self) -> None:
        """Called once in each replica, before it takes requests: load weights here."""
        self.greeting = "hello"

    def predict(self, name: str = "world") -> str:
        """Called for each request; the type hints are the signature that callers see."""
        return f"{{self.greeting}}, {{name}}"
'''


@click.command()
@click.option("--name", required=True, metavar="NAME", help="Name of the new service, and of the folder.")
@click.option(
    "--type", "kind", type=click.Choice(["service"]), default="service", show_default=True, help="What it is."
)
@json_option
@click.pass_obj
def create(session: Session, name: str, kind: str, as_json: bool) -> None:
    """Write a folder with a service.yaml and a Python class, ready to deploy.

    \b
    Example:
      leptonai create --name recommendation --type service
      leptonai deploy recommendation
    """
    if not NAME.fullmatch(name):
        raise SpecError(
            f"name is {name!r}; it must be lower-case letters, digits and dashes, begin with a letter, at most 40 long",
            hint="for example: recommendation",
        )
    folder = Path(name)
    title = "".join(part.capitalize() for part in name.split("-"))
    files = {"service.yaml": SERVICE.format(name=name), "model.py": MODEL.format(title=title)}
    try:
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
    except FileExistsError as e:
        raise Conflict(f"{folder.absolute()} exists already", hint="choose another name, or remove it") from e
    except OSError as e:
        raise SpecError(f"{folder.absolute()} cannot be written: {e.strerror}", hint="change to another folder") from e
    if as_json:
        print_json({"folder": str(folder.absolute()), "files": sorted(files)})
        return
    click.echo(f"Wrote {folder}/service.yaml and {folder}/model.py.")
    click.echo(f"Serve it with `leptonai deploy {folder}`.")
