"""create: a starter folder that is ready to deploy."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from leptonai.cli.session import Session, json_option, print_json
from leptonai.errors import Conflict, ModelError, SpecError
from leptonai.types import NAME

SCAFFOLD = Path(__file__).with_name("scaffold")  # TITLE and NAME stand for the service's
LEARNS = {"recommendation"}  # services whose folder is trained at once, where torch and pandas are installed


@click.command()
@click.option("--name", required=True, metavar="NAME", help="Name of the new service, and of the folder.")
@click.option(
    "--type", "kind", type=click.Choice(["service"]), default="service", show_default=True, help="What it is."
)
@json_option
@click.pass_obj
def create(session: Session, name: str, kind: str, as_json: bool) -> None:
    """Write a folder with a service.yaml, a Python class and a test, ready to deploy.

    The name `recommendation` gives a recommender with its training, trained once on sample ratings.

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
    source = SCAFFOLD / (name if name in LEARNS else kind)
    files = {f.name: f.read_text().replace("TITLE", title).replace("NAME", name) for f in sorted(source.iterdir())}
    try:
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
    except FileExistsError as e:
        raise Conflict(f"{folder.absolute()} exists already", hint="choose another name, or remove it") from e
    except OSError as e:
        raise SpecError(f"{folder.absolute()} cannot be written: {e.strerror}", hint="change to another folder") from e
    said = train(folder) if "train.py" in files else ""
    if as_json:
        print_json({"folder": str(folder.absolute()), "files": sorted(f.name for f in folder.iterdir())})
        return
    click.echo(f"Wrote {', '.join(f'{folder}/{file}' for file in files)}.")
    if said:
        click.echo(said)
    click.echo(f"Serve it with `leptonai deploy {folder}`.")


def train(folder: Path) -> str:
    """The folder's model is trained, in a process of its own; returns what it said, or what it needs."""
    if missing := [m for m in ("torch", "pandas") if find_spec(m) is None]:
        return f"Not trained yet, {' and '.join(missing)} is missing: pip install {' '.join(missing)}; python train.py."
    click.echo("training, about ten seconds ...", err=True)
    done = subprocess.run([sys.executable, "train.py"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"{folder}/train.py failed: {last}", hint=f"run python {folder}/train.py to see all of it")
    return done.stdout.strip()
