"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from os import PathLike
from pathlib import Path

from .errors import DiskTrouble, InvalidInput
from .forks import Anew

_unfinished: Anew[set[Path]] = Anew(set)
"""Temporary files of `replacing` that exist now, in all threads."""
OF_THE_DISK = frozenset({
    errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENXIO, errno.ENODEV, errno.EMFILE, errno.ENFILE,
    *(getattr(errno, name) for name in ("EDQUOT", "ESTALE") if hasattr(errno, name)),
})  # fmt: skip
"""Errors that have nothing to do with the name of a file, and would come back with the next one."""


def existing(path: str | PathLike[str]) -> Path:
    """A path at which there is a file.

    Raises:
        InvalidInput: There is none.
    """
    if not isinstance(path, str | PathLike) or not os.path.isfile(path):
        raise InvalidInput(f"{path!s} is not a file")
    return Path(path)


def contents(path: str | PathLike[str]) -> bytes:
    """All that is in a file.

    Raises:
        InvalidInput: There is none, or it cannot be read.
    """
    try:
        return existing(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error


def opened(path: str | PathLike[str]) -> BufferedReader:
    """Open a regular file, or what links lead to, to be read; others, such as a pipe that would be waited for, are not opened.

    Raises:
        OSError: It is none, or cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return open(path, "rb")


def unwritten(path: str | PathLike[str], error: OSError, what: str = "cannot be written") -> InvalidInput:
    """Return the error of a file that is not written: `DiskTrouble` where any other would not be either."""
    kind = DiskTrouble if error.errno in OF_THE_DISK else InvalidInput
    return kind(f"{path} {what}: {error.strerror or error}")


def _replaceable(path: str | PathLike[str]) -> Path:
    """Resolve the path of a file to write, through symbolic links; never a device, a pipe or a folder.

    Raises:
        InvalidInput: It is one of those, or no path at all.
    """
    try:
        target = Path(os.path.realpath(path))
        taken = os.path.lexists(target)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{path!r} cannot be written: {error}") from error
    if taken and not os.path.isfile(target):
        raise InvalidInput(f"{path} cannot be written: it is there, and is no regular file that could be replaced")
    return target


def replaced_by(temporary: Path) -> Path | None:
    """The file, whose name has a suffix, that a temporary path of `replacing` was to replace; `None` if it is no such path."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}", temporary.stem, re.DOTALL)
    return temporary.with_name(found[1]) if found and Path(found[1]).suffix == temporary.suffix else None


def walk(
    folder: str | PathLike[str],
    suffixes: Collection[str] | None = None,
    unreadable: Callable[[str, OSError], object] | None = None,
) -> Iterator[str]:
    """Names, relative to a folder, of the files in it and below that have one of those suffixes, in whatever case.

    They are sorted folder by folder, so that only one is in memory at a time. What is hidden is passed over, and so is a link
    back to a folder that it is in.

    Args:
        suffixes: Those of all files if not given.
        unreadable: Told the name of a folder below that cannot be read, and why, instead of raising.

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
    """`above` are the folders that it is in, by device and inode."""
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
    """Sees to it that there is a folder.

    Raises:
        InvalidInput: It cannot be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be made: {error.strerror or error}") from error


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` if the block ends well, else it goes away.

    Where `path` is a symbolic link, it takes the place of what that points to.

    Raises:
        InvalidInput: The file cannot be written there; `DiskTrouble` where no other can be either.
    """
    path = _replaceable(path)
    temporary, is_ours = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}"), True
    try:
        _unfinished.own.add(temporary)  # before it is there: an interrupt may come as soon as it is
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # less what the umask takes
        except FileExistsError:
            is_ours = False
            raise
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        if is_ours:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        _unfinished.own.discard(temporary)


def discard_unfinished() -> None:
    """Remove half-written files, for a process that ends without unwinding."""
    for temporary in list(_unfinished.own):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
