"""One example from its data to a judged canary, on a platform of its own: ``python examples/run.py NAME``.

Everything is typed as a person would type it, and printed. Nothing is left afterwards, unless --keep names a folder.
Exit code 0: the improvement ended as the example's README says.

    python examples/run.py sentiment|support|recommendation|faults|risk [--keep FOLDER] [--rate 40] [--no-drill]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leptonai.client import Client

HERE = Path(__file__).parent
DRILLS = {"sentiment": "kill", "support": "stop", "recommendation": "kill", "faults": "sick", "risk": "kill"}
ENDS = {"risk": "rolled back"}  # the others are promoted


class Story:
    """One example in ``folder``, on the platform whose home is ``home``."""

    def __init__(self, name: str, folder: Path, home: Path) -> None:
        self.name, self.folder, self.home = name, folder, home
        plain = {k: v for k, v in os.environ.items() if not k.startswith("LEPTONAI_")}
        self.environment = {**plain, "LEPTONAI_HOME": str(home), "OMP_NUM_THREADS": "1"}

    def python(self, *arguments: str) -> None:
        print(f"\n$ python {' '.join(arguments)}", flush=True)
        subprocess.run([sys.executable, *arguments], cwd=self.folder, env=self.environment, check=True)

    def leptonai(self, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        """The exit code; RuntimeError when it is not ``allowed``."""
        print(f"\n$ leptonai {' '.join(arguments)}", flush=True)
        command = [sys.executable, "-m", "leptonai.cli", *arguments]
        code = subprocess.run(command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL).returncode
        if code not in allowed:
            raise RuntimeError(f"leptonai {arguments[0]} ended with {code}")
        return code

    @contextmanager
    def platform(self) -> Iterator[None]:
        """It is up while the block runs, on any free ports, and gone afterwards."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / "settings.yaml").write_text("api: {port: 0}\ngateway: {port: 0}\n")
        self.leptonai("up")
        try:
            yield
        finally:
            self.leptonai("down")

    @contextmanager
    def users(self, rate: float, labels: float) -> Iterator[None]:
        """They ask while the block runs, and say of this share of the answers what was right."""
        with Client(home=str(self.home)) as client:
            url, token = (
                client.service(self.name).url,
                client.create_token(f"users-{time.time_ns()}", role="operator").secret,
            )
        print(f"\n{rate:g} requests a second from now on; of {labels:.0%} somebody says what was right", flush=True)
        command = [sys.executable, str(HERE / "users.py"), self.name, "--folder", str(self.folder)]
        command += ["--rate", str(rate), "--labels", str(labels), "--url", url, "--token", token]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield
        finally:
            said, _ = process.communicate(timeout=60)
            print(f"\nusers: {said.strip()}", flush=True)

    def ended(self) -> str:
        """How the improvement ended, as the pipeline's report has it."""
        for file in (self.folder / "pipeline-run" / "done").glob("report-*/values.json"):
            return str(json.loads(file.read_text()).get("outcome", ""))
        return ""


def copied(name: str, folder: Path) -> Path:
    """The example's files in ``folder``, without what earlier runs left."""
    made = shutil.ignore_patterns("data", "model", "first*", "*-run", "__pycache__")
    return Path(shutil.copytree(HERE / name, folder / name, ignore=made))


def play(name: str, root: Path, rate: float, drill: bool) -> str:
    story = Story(name, copied(name, root), root / "home")
    story.python("train.py")
    with story.platform():
        story.leptonai("deploy", "service.yaml")
        if drill:  # before anybody says how wrong the first model is: a drill needs calm, and that opens an incident
            with story.users(rate, 0.0):
                story.leptonai("drill", DRILLS[name], "--live", name, "--yes", allowed=(0, 1))
        with story.users(rate, 0.5):
            story.leptonai("pipeline", "run", "pipeline.yaml", allowed=(0, 10))
            story.leptonai("status", name)
            story.leptonai("incidents")
    return story.ended()


def main() -> int:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("name", choices=sorted(DRILLS))
    told.add_argument("--keep", type=Path, help="a folder for everything; else a temporary one")
    told.add_argument("--rate", type=float, default=40.0, help="requests a second")
    told.add_argument("--no-drill", dest="drill", action="store_false")
    o = told.parse_args()
    root = (o.keep or Path(tempfile.mkdtemp(prefix="leptonai-example-"))).resolve()
    try:
        outcome, wanted = play(o.name, root, o.rate, o.drill), ENDS.get(o.name, "promoted")
    finally:
        if o.keep is None:
            for path in root.rglob("*"):
                if path.is_dir():
                    path.chmod(0o700)  # artifacts are read-only
            shutil.rmtree(root, ignore_errors=True)
    print(f"\nThe improvement of {o.name} was {outcome or 'not judged'}; its README says {wanted}.")
    return 0 if outcome == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
