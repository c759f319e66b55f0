"""Files into one plain tar that is there whole or not at all; equal files give equal bytes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def pack(out: Path, files: Mapping[str, bytes | Path], folders: Sequence[str] = ()) -> None:
    """``folders``, then ``files`` in their order, in the tar at ``out``, safe against a power cut. OSError: disk."""
    part = out.with_name(f".{out.name}.part")
    try:
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
            for name in folders:
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            for name, content in files.items():
                _add(tar, name, content)
        with part.open("rb") as f:
            os.fsync(f.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    if isinstance(content, bytes):
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    else:
        with content.open("rb") as f:
            info.size = os.fstat(f.fileno()).st_size
            tar.addfile(info, f)
