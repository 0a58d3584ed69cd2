"""Atomic file writing, and helpers for paths and folders."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from os import PathLike
from pathlib import Path

from .errors import DiskTrouble, InvalidInput
from .forks import Anew

_unfinished: Anew[set[Path]] = Anew(set)
"""Existing temporary files of `replacing`, in all threads."""
OF_THE_DISK = frozenset({
    errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENXIO, errno.ENODEV, errno.EMFILE, errno.ENFILE,
    *(getattr(errno, name) for name in ("EDQUOT", "ESTALE") if hasattr(errno, name)),
})  # fmt: skip
"""Errors that are independent of the file name, and would recur with the next file."""


REPLACE_WITHIN = 2.0 if os.name == "nt" else 0.0
"""Timeout in seconds of replacing a file. On Windows that fails while another process reads it, such as a virus scanner."""


def existing(path: str | PathLike[str]) -> Path:
    """Return a path after checking that it is a file.

    Raises:
        InvalidInput: There is no file.
    """
    if not isinstance(path, str | PathLike) or not os.path.isfile(path):
        raise InvalidInput(f"{path!s} is not a file")
    return Path(path)


def contents(path: str | PathLike[str]) -> bytes:
    """Read a whole file.

    Raises:
        InvalidInput: The file does not exist or cannot be read.
    """
    try:
        return existing(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error


def opened(path: str | PathLike[str]) -> BufferedReader:
    """Open a regular file for reading, following links. Other kinds, such as pipes, which would block, are refused.

    Raises:
        OSError: The path is not a regular file, or cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return open(path, "rb")


def unwritten(path: str | PathLike[str], error: OSError, what: str = "cannot be written") -> InvalidInput:
    """Return the error for a file that cannot be written: `DiskTrouble` if it would affect any file."""
    kind = DiskTrouble if error.errno in OF_THE_DISK else InvalidInput
    return kind(f"{path} {what}: {error.strerror or error}")


def _replaceable(path: str | PathLike[str]) -> Path:
    """Resolve symbolic links of a path to write; refuse devices, pipes and folders.

    Raises:
        InvalidInput: The path is not that of a regular or new file.
    """
    try:
        target = Path(os.path.realpath(path))
        taken = os.path.lexists(target)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{path!r} cannot be written: {error}") from error
    if taken and not os.path.isfile(target):
        raise InvalidInput(f"{path} cannot be written: it exists and is not a regular file")
    return target


def replaced_by(temporary: Path) -> Path | None:
    """Return the target of a temporary path of `replacing`; `None` for other paths."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}", temporary.stem, re.DOTALL)
    return temporary.with_name(found[1]) if found and Path(found[1]).suffix == temporary.suffix else None


def walk(
    folder: str | PathLike[str],
    suffixes: Collection[str] | None = None,
    unreadable: Callable[[str, OSError], object] | None = None,
) -> Iterator[str]:
    """Yield the relative paths of files with given suffixes (case-insensitive) in a folder tree.

    Paths are sorted per folder, so that only one folder is in memory at a time. Hidden entries, and links to a parent folder, are
    skipped.

    Args:
        folder: Root folder.
        suffixes: Suffixes with the dot, in lower case; all files if not given.
        unreadable: Called with a subfolder that cannot be read, and the error, instead of raising.

    Raises:
        InvalidInput: A folder cannot be read.
    """
    return _walk(Path(folder), "", suffixes, unreadable, ())


def _walk(
    folder: Path,
    below: str,
    suffixes: Collection[str] | None,
    unreadable: Callable[[str, OSError], object] | None,
    above: tuple[tuple[int, int], ...],
) -> Iterator[str]:
    """Walk the subfolder `below`; `above` has the device and inode of its parents."""
    try:
        status = os.stat(folder / below)
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder / below) as entries:
            there = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        if below and unreadable is not None:
            unreadable(below, error)
            return
        raise InvalidInput(f"{folder / below} cannot be read: {error.strerror or error}") from error
    for name, is_folder in there:
        if is_folder:
            yield from _walk(folder, f"{below}{name}/", suffixes, unreadable, (*above, here))
        elif suffixes is None or Path(name).suffix.lower() in suffixes:
            yield f"{below}{name}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def make_folder(path: str | PathLike[str]) -> None:
    """Create a folder unless it exists.

    Raises:
        InvalidInput: The folder cannot be created.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be created: {error.strerror or error}") from error


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block succeeds, and is removed otherwise.

    If `path` is a symbolic link, its target is replaced.

    Raises:
        InvalidInput: The file cannot be written; `DiskTrouble` if no other file could be either.
    """
    path = _replaceable(path)
    temporary, is_ours = path.with_name(f".{path.name}.{os.urandom(4).hex()}{path.suffix}"), True
    try:
        _unfinished.own.add(temporary)  # registered before it exists, because an interrupt may follow its creation
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # minus the umask
        except FileExistsError:
            is_ours = False
            raise
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        _replace(temporary, path)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        if is_ours:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        _unfinished.own.discard(temporary)


def _replace(temporary: Path, path: Path) -> None:
    end = time.monotonic() + REPLACE_WITHIN
    while True:
        try:
            return os.replace(temporary, path)
        except PermissionError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.02)


def discard_unfinished() -> None:
    """Remove unfinished files, for a process that ends without unwinding."""
    for temporary in list(_unfinished.own):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
