"""Reading a tar stream from somebody we do not trust: plain files below one folder, and nothing else."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from leptonai.errors import SpecError

_READ_MAX = 1 << 20  # bytes at once: tarfile takes a header into memory whole, as large as it claims to be
_HINT = "pack the folder with `leptonai deploy`, or with plain `tar cf` (no compression, no links)"


def members(stream: Iterable[bytes], max_files: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Each file of the tar as ``(relative path, chunks)``; take the chunks before asking for the next.

    Folders are implied by their files. Raises SpecError for absolute or climbing paths, links, devices, sparse files,
    more than ``max_files`` members, headers over 1 MiB, compression, and an archive cut off before its end marker.
    Two members of one name are the writer's to refuse, as is their size.
    """
    reader = _Forward(stream)
    count = end = 0
    try:
        with tarfile.TarFile(fileobj=reader, mode="r", encoding="utf-8", errors="strict") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                count += 1
                if count > max_files:
                    raise SpecError(
                        f"the tar holds more than {max_files} members", hint="upload the model's files only"
                    )
                name = _safe(member)
                if member.isdir():
                    continue
                reader.seek(member.offset_data)
                yield name, reader.chunks(member.size)
                end = member.offset_data + member.size + -member.size % tarfile.BLOCKSIZE
            # tarfile takes the end of a stream that was cut off between two members for the end of the archive
            if reader.drain() < end + 2 * tarfile.BLOCKSIZE:
                raise SpecError("the tar ends before its end marker: the upload was cut off", hint="upload it again")
    except (tarfile.TarError, EOFError, UnicodeError) as e:
        raise SpecError(f"not a whole, plain tar archive: {e}", hint=_HINT) from e


def _safe(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not member.name.isprintable() or "\\" in member.name:
        raise SpecError(f"the tar member {member.name!a} would lie outside the model's folder", hint=_HINT)
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise SpecError(f"the tar member {member.name!a} is neither a plain file nor a folder", hint=_HINT)
    if member.isreg() and not path.parts:
        raise SpecError(f"the tar member {member.name!a} has no file name", hint=_HINT)
    return path.as_posix()


class _Forward(io.RawIOBase):
    """A stream of chunks as the file that tarfile wants: it tells, and seeks forward only."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._chunks = iter(stream)
        self._rest = b""
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._at:
            raise tarfile.ReadError("the archive asks to read backwards")
        while self._at < offset and self.read(min(offset - self._at, _READ_MAX)):
            pass
        return self._at

    def read(self, size: int = -1) -> bytes:
        if size > _READ_MAX:
            raise SpecError(f"a header of the tar claims {size} bytes, over the limit of {_READ_MAX}", hint=_HINT)
        parts = [self._rest]
        have = len(self._rest)
        while have < size and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        data, self._rest = data[:size], data[size:]
        self._at += len(data)
        return data

    def chunks(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes. SpecError when the stream ends before."""
        while size:
            chunk = self.read(min(size, _READ_MAX))
            if not chunk:
                raise SpecError("the tar ends in the middle of a file: the upload was cut off", hint="upload it again")
            size -= len(chunk)
            yield chunk

    def drain(self) -> int:
        """Read to the end; returns the length of the whole stream."""
        while self.read(_READ_MAX):
            pass
        return self._at
