"""agent: watch this machine for a platform that runs elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from leptonai.cli.session import Number, Session, json_option


@click.command()
@click.option("--to", "url", metavar="URL", required=True, help="Control API of the platform.")
@click.option("--token", metavar="SECRET", envvar="LEPTONAI_TOKEN", help="Operator token of the workspace.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Read it from this file: ps(1) shows arguments.")
@click.option("--name", help="What this machine is called there; its host name unless given.")
@click.option("--workspace", metavar="NAME", default="default", show_default=True, help="Whose telemetry it is.")
@click.option("--log", "logs", type=click.Path(path_type=Path), multiple=True, help="Follow this log file. Repeatable.")
@click.option("--process", "processes", multiple=True, metavar="NAME", help="Watch processes of this name. Repeatable.")
@click.option("--interval", type=Number(0.1), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--buffer", type=click.Path(path_type=Path), help="Folder for what waits [~/.leptonai-agent].")
@click.option("--buffer-mb", type=click.IntRange(1), default=256, show_default=True, help="How much may wait there.")
@json_option
@click.pass_obj
def agent(
    session: Session,
    url: str,
    token: str | None,
    token_file: Path | None,
    name: str | None,
    workspace: str,
    logs: tuple[Path, ...],
    processes: tuple[str, ...],
    interval: float,
    buffer: Path | None,
    buffer_mb: int,
    as_json: bool,
) -> None:
    """Send what this machine says of itself to a platform: host, GPUs, processes, log files. Ends with Ctrl-C.

    --json writes its own log, on stderr, as JSON lines.

    \b
    Example:
      leptonai agent --to http://plant:8310 --token-file token --log /var/log/press.log --process nginx
    """
    import signal

    from leptonai.errors import SpecError
    from leptonai.ops.agent.buffer import Buffer
    from leptonai.ops.agent.run import Agent
    from leptonai.types import NAME

    if not url.startswith(("http://", "https://")):
        raise SpecError(f"--to {url!r} is no URL", hint="like http://plant:8310")
    secret = token_of(token or session.token, token_file)
    called = name or host_name()
    if not NAME.fullmatch(called):
        raise SpecError(f"--name {called!r} is no name", hint="lower case letters, digits and dashes, at most 40")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if as_json:
        logging.getLogger().handlers[0].format = json_line  # type: ignore[method-assign]
    logging.getLogger("httpx").setLevel(logging.WARNING)
    folder = buffer or Path.home() / ".leptonai-agent"
    watching = Agent(
        Buffer(folder, called, buffer_mb * 1_000_000),
        url,
        secret,
        workspace=workspace,
        logs=logs,
        processes=processes,
        interval=interval,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watching.stop())
    logging.getLogger("leptonai.agent").info("watching %s for %s", called, url)
    watching.run()


def json_line(record: logging.LogRecord) -> str:
    import msgspec

    line = {"at": record.created, "level": record.levelname.lower(), "message": record.getMessage()}
    return msgspec.json.encode(line).decode()


def token_of(given: str | None, file: Path | None) -> str:
    from leptonai.errors import SpecError

    if file is not None:
        try:
            return file.read_text().strip()
        except OSError as e:
            raise SpecError(f"--token-file {file} cannot be read: {e.strerror}") from e
    if not given:
        raise SpecError(
            "which token? none was given",
            hint="an admin makes one: leptonai token create AGENT --role operator --workspace NAME",
        )
    return given


def host_name() -> str:
    """The machine's name as the platform spells names."""
    import re
    import socket

    plain = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:40].strip("-")
    return plain if plain[:1].isalpha() else f"host-{plain}"[:40].strip("-")
