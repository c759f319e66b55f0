"""A bundle: a service as one file, with its models, golden examples and history."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from leptonai.cli.session import Session
from leptonai.client.wire import Moved
from leptonai.errors import Conflict, NotFound, SpecError
from leptonai.image.layer import disk
from leptonai.image.pack import pack
from leptonai.store.tree import files_of, tree_digest
from leptonai.types import Revision, parse_key

if TYPE_CHECKING:
    from leptonai.client import Client

ABOUT = "bundle.json"
INCIDENTS = 50  # the newest closed ones, some 30 kB each: a request of the API has 4 MB
FEEDBACK = 5_000  # the newest items


def write(session: Session, key: str, out: Path) -> Moved:
    """The bundle of ``key`` at ``out``, as a whole or not at all. Equal services give equal bytes.

    Conflict while a rollout is under way; NotFound when the files of the head's models are not on this machine.
    """
    with session.client() as client:
        moved = _gather(client, key)
    folder = session.folder().artifacts
    needed = sorted({v.model for r in moved.revisions if r.spec for v in r.spec.variants})
    kept = {digest: folder / digest.removeprefix("sha256:") / "files" for digest in needed}
    head = moved.revisions[-1].spec
    assert head is not None
    for variant in head.variants:
        if not kept[variant.model].is_dir():
            raise NotFound(
                f"the model {variant.model} of {key} is not in {folder}",
                hint="run this on the machine of the platform, with its --home",
            )
    files: dict[str, bytes | Path] = {ABOUT: msgspec.json.encode(moved)}
    for digest in needed:
        if kept[digest].is_dir():
            found = files_of(kept[digest])
            files |= {f"models/{digest.removeprefix('sha256:')}/{name}": file for name, file in found.items()}
    if out.is_dir():
        raise SpecError(f"cannot write {out}: it is a folder", hint="name a file with -o")
    with disk(f"the bundle {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        pack(out, files)
    return moved


def read(session: Session, path: Path) -> tuple[Moved, Revision]:
    """The service of the bundle at ``path`` is served by the platform of ``session``, with its past.

    Nothing is changed there when it is refused, but that models were stored.
    """
    import tempfile

    with opened(path) as tar, tempfile.TemporaryDirectory(prefix="leptonai-bundle-") as name:
        moved = about(tar, path)
        folder = Path(name)
        with disk(f"the bundle {path}"):
            members = [m for m in tar if m.isreg() and m.name.startswith("models/") and ".." not in m.name.split("/")]
            tar.extractall(folder, members, filter="data")
        head = moved.revisions[-1].spec
        needed = {v.model for v in head.variants} if head else set()
        with session.client() as client:
            models = folder / "models"
            for model in sorted(models.iterdir()) if models.is_dir() else []:
                if (got := tree_digest(model)) != f"sha256:{model.name}":
                    raise SpecError(
                        f"{path} is damaged: the model sha256:{model.name} is {got}", hint="export it again"
                    )
                client.upload(model)
                needed.discard(got)
            if needed:
                raise SpecError(f"{path} lacks the model {sorted(needed)[0]}", hint="export it again")
            return moved, client.adopt(moved)


def is_bundle(path: Path) -> bool:
    with contextlib.suppress(OSError, tarfile.TarError, EOFError):
        with tarfile.open(path) as tar:
            return tar.next() is not None and ABOUT in tar.getnames()
    return False


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path) as tar:
            yield tar
    except (tarfile.TarError, EOFError) as e:
        raise SpecError(f"{path} is no whole bundle: {e}", hint="`leptonai export bundle` writes one") from e


def about(tar: tarfile.TarFile, path: Path) -> Moved:
    file = tar.extractfile(ABOUT)
    try:
        moved = msgspec.json.decode(file.read() if file else b"", type=Moved)
    except (msgspec.ValidationError, msgspec.DecodeError) as e:
        raise SpecError(f"{path}: {ABOUT}: {e}", hint="is it of a newer version?") from e
    if not moved.revisions:
        raise SpecError(f"{path} holds no revision", hint="export the service again")
    return moved


def _gather(client: Client, key: str) -> Moved:
    view = client.service(key)
    if view.service.canary is not None:
        raise Conflict(f"a rollout of {key} is under way", hint=f"`leptonai wait {key} --judged`, then export")
    workspace, name = parse_key(key)
    subject = f"{workspace}/service/{name}"
    closed = [i for i in client.incidents(open=False) if i.subject == subject and i.closed is not None]
    feedback, after = [], 0
    while page := client.feedback(after, 10_000):
        feedback += [item for _, item in page.items if item.service == key]
        if len(page.items) < 10_000:
            break
        after = page.next
    return Moved(
        service=key,
        revisions=tuple(client.revisions(key)),
        dials={name: d for name, d in view.service.dials.variants.items()},
        incidents=tuple(sorted(closed, key=lambda i: i.id)[-INCIDENTS:]),
        feedback=tuple(feedback[-FEEDBACK:]),
    )
