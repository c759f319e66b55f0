"""``leptonai``: finding commands, and the one place where errors become text and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

import click

from leptonai import __version__
from leptonai.cli.session import Session
from leptonai.errors import EXTRAS, LeptonError, NotInstalled, SpecError

# What `leptonai --help` shows, so that it need not load the commands: name -> (module, one line), in the order shown.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("platform", "Start a platform on this machine."),
    "create": ("create", "Write a starter folder, ready to deploy."),
    "deploy": ("services", "Serve a model: a file, a Python class or a service.yaml."),
    "wait": ("rollouts", "Wait until a service is ready, or its rollout is judged."),
    "promote": ("rollouts", "Move a rollout on: to a share of the requests, or to its end."),
    "ls": ("services", "List the services."),
    "status": ("status", "How the platform, or one service, stands."),
    "logs": ("records", "Print what the replicas of a service wrote, or search logs."),
    "scale": ("services", "Set how many replicas a service has."),
    "restart": ("services", "Replace every replica of a service by a fresh one."),
    "undo": ("services", "Take back the newest change that a person made."),
    "delete": ("services", "Stop serving a service; its history is kept."),
    "why": ("records", "What was decided about a service, and from what."),
    "incidents": ("incidents", "List incidents, or show one."),
    "review": ("review", "Say what an incident truly was, and what the remedies did."),
    "learnt": ("learnt", "What reviews have changed, and how to take it back."),
    "alerts": ("alerts", "What fires and who is told; rules for a Prometheus."),
    "silence": ("alerts", "Keep alerts quiet for a while, list and end silences."),
    "ack": ("alerts", "Take an incident: it is not escalated any further."),
    "diagnose": ("diagnose", "Rank root causes over a call graph, from metrics in files."),
    "classify": ("classify", "Train, judge and show the classifiers of incidents."),
    "rules": ("rules", "Check and test rules of diagnosis, show fault trees."),
    "runbook": ("runbook", "What is done about each cause: check, show, preview."),
    "quarantine": ("quarantine", "Refuse requests for what they bring, for a while."),
    "freeze": ("runbook", "The kill switch: no automatic change until thaw."),
    "thaw": ("runbook", "End a freeze: automatic changes are admitted again."),
    "report": ("report", "Tell an incident, a day or a week in plain language."),
    "availability": ("availability", "How available a service was, and what to expect."),
    "advise": ("advise", "Where a service ends, and the change that moves it."),
    "trace": ("trace", "Show where the time of a request went, or list traces."),
    "pipeline": ("pipeline", "Collect, train, evaluate, compress, canary, judge: one command."),
    "train": ("train", "Train a network or an estimator from a text."),
    "tune": ("tune", "Search parameters of training, classifying or serving."),
    "evaluate": ("evaluate", "Measure how good a model is on labelled rows."),
    "compress": ("compress", "Make a model smaller and faster within a budget."),
    "detect": ("detect", "Find anomalies in a CSV file."),
    "forecast": ("forecast", "Forecast a column of a CSV file, with bands."),
    "templates": ("templates", "Mine the templates of a log file, or show those of a service."),
    "unmask": ("logs", "Turn a masked value back, on the platform's machine."),
    "agent": ("agent", "Watch this machine for a platform that runs elsewhere."),
    "build": ("build", "Write a service as a container image."),
    "push": ("push", "Push a container image into a registry."),
    "export": ("exports", "Write a service as a bundle or for other tools."),
    "import": ("import_", "Read a bundled service, or samples (CSV, Parquet)."),
    "feedback": ("records", "Say how right a prediction or an incident was."),
    "issues": ("issues", "What users complain of, who sees to it, what repaired it."),
    "proposals": ("proposals", "List proposed changes."),
    "approve": ("proposals", "Approve a proposal that waits for it."),
    "store": ("store", "Copy the store into another database."),
    "simulate": ("simulate", "Replay recorded arrivals against an autoscaling policy."),
    "token": ("token", "Make, list and revoke tokens."),
    "console": ("platform", "Print a URL that opens the console once."),
    "down": ("platform", "Stop the platform on this machine and all it runs."),
}


class Commands(click.Group):
    """Our commands, and those of other packages in the entry points group ``leptonai.commands``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(e.name for e in entry_points(group="leptonai.commands") if e.name not in COMMANDS)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module = importlib.import_module(f"leptonai.cli.{COMMANDS[name][0]}")
            command = getattr(module, COMMANDS[name][0] if name == "import" else name)
        else:
            found = [e for e in entry_points(group="leptonai.commands") if e.name == name]
            if not found:
                return None
            command = found[0].load()
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, line) for name, (_, line) in COMMANDS.items()]
        for name in self.list_commands(ctx)[len(COMMANDS) :]:
            try:
                command = self.get_command(ctx, name)
                rows.append((name, command.get_short_help_str(80) if command else ""))
            except Exception as e:  # noqa: BLE001 - somebody else's package; our help must still be shown
                rows.append((name, f"cannot be loaded: {e}"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="leptonai")
@click.option("--home", metavar="FOLDER", help="Home folder of a local platform (LEPTONAI_HOME, else ~/.leptonai).")
@click.option("--host", metavar="URL", help="Control API of a platform (LEPTONAI_HOST, else that of the home folder).")
@click.option("--token", metavar="SECRET", help="Token for it (LEPTONAI_TOKEN, else that of the home folder).")
@click.pass_context
def leptonai(ctx: click.Context, home: str | None, host: str | None, token: str | None) -> None:
    """Serve models that keep themselves up.

    \b
    Begin with:
      leptonai up
      leptonai deploy model.onnx
      leptonai status
    """
    ctx.obj = Session(home, host, token)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and end the process. Errors go to stderr in one shape; the exit code is that of the error."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    try:
        code = leptonai.main(given, prog_name="leptonai", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except LeptonError as e:
        return say(e, as_json)
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.format_message())
        return 0
    except click.UsageError as e:
        path = e.ctx.command_path if e.ctx else "leptonai"
        return say(SpecError(e.format_message(), hint=f"see `{path} --help`", code="usage"), as_json)
    except click.ClickException as e:
        return say(SpecError(e.format_message(), code="usage"), as_json)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        named = Path(str(e.filename)).name
        if named and named in {Path(g.rpartition("=")[2]).name for g in given}:  # a path that a person gave
            said = SpecError(f"{str(e.filename)[:200]}: {e.strerror}", hint="is the path right, and may we use it?")
            return say(said, as_json)
        return say(unexpected(e, given), as_json)
    except ModuleNotFoundError as e:
        ours = (e.name or "").partition(".")[0] in EXTRAS  # an extra that was not asked for before it was needed
        return say(NotInstalled("this command", e.name) if ours else unexpected(e, given), as_json)
    except Exception as e:  # noqa: BLE001 - the boundary: a person gets a sentence, the log the traceback
        return say(unexpected(e, given), as_json)


def say(error: LeptonError, as_json: bool) -> int:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(error.body()).decode(), err=True)
    else:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code


def unexpected(error: Exception, given: list[str]) -> LeptonError:
    """What to say about a mistake of ours; its traceback is in a file."""
    import tempfile

    from leptonai.client.home import find_home

    text = "".join(traceback.format_exception(error))
    folder = find_home().logs
    try:
        with (folder / "cli.log").open("a") as log:
            log.write(f"leptonai {' '.join(given[:1])} ...\n{text}\n")
            where = log.name
    except OSError:
        with tempfile.NamedTemporaryFile("w", prefix="leptonai-", suffix=".log", delete=False) as file:
            file.write(text)
            where = str(Path(file.name))
    return LeptonError(f"unexpected {type(error).__name__}: {error}", hint=f"this is a mistake of ours; see {where}")
