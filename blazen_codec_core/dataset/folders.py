"""Recordings in folders and tars, recognized by a well-known suffix or else by their first bytes."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .. import files
from ..audio import SUFFIXES, Container, container_of, identify
from ..errors import CodecError, InvalidInput
from . import tar_member
from .items import AudioItem, Entry, Fault, printable
from .passed_over import PassedOver


def in_folder(folder: Path, passed: PassedOver) -> Iterator[Entry]:
    """Yield audio files and tar members in a folder tree, and faults for what cannot be read.

    Args:
        passed: Counter of skipped files.

    Raises:
        InvalidInput: The folder has no audio.
    """
    faults: list[Fault] = []
    found = False

    def unreadable(name: str, error: OSError) -> None:
        faults.append(Fault.of(name, name, InvalidInput(f"{folder / name} cannot be read: {error.strerror or error}")))

    for name in files.walk(folder, unreadable=unreadable):
        for entry in (*faults, *([] if tar_member.is_tar(name) else _file(folder, name, passed))):
            found = True
            yield entry
        faults.clear()
        if tar_member.is_tar(name):
            for entry in _tar_below(folder / name, name, passed):
                found = True
                yield entry
    for fault in faults:
        found = True
        yield fault
    if not found:
        raise InvalidInput(f"{folder} has no audio{_but(passed)}")


def in_tar(path: Path, passed: PassedOver) -> Iterator[Entry]:
    """Yield the audio members of a tar, and a fault if the tar is truncated after the first one.

    Raises:
        InvalidInput: The tar has no audio, or is compressed.
        CorruptFile: The file is not a tar.
    """
    found = False
    try:
        for item in _members(path, path.name, "", passed):
            found = True
            yield item
    except CodecError as error:
        if not found:
            raise
        yield Fault.of(path.name, path.name, error)
    if not found:
        raise InvalidInput(f"{path} has no audio{_but(passed)}")


def _tar_below(path: Path, name: str, passed: PassedOver) -> Iterator[Entry]:
    """Yield the members of a tar in a folder; any error becomes a fault."""
    found = False
    try:
        for item in _members(path, name, f"{name}/", passed):
            found = True
            yield item
        if not found:
            raise InvalidInput(f"{path} has no audio")
    except CodecError as error:
        yield Fault.of(name, name, error)


def _file(folder: Path, name: str, passed: PassedOver) -> list[Entry]:
    """Return the entry of a file; empty if the file is skipped."""
    item = AudioItem(printable(name), name)
    if Path(name).suffix.lower() in SUFFIXES:
        return [item]
    path = folder / name
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would block
            passed.add(name)
            return []
        container = container_of(path)
    except OSError as error:
        why = InvalidInput(f"{path} cannot be read: {error.strerror or error}")
        return [Fault.of(name, name, why)]
    return [item] if _is_taken(name, container, passed) else []


def _members(path: Path, name: str, prefix: str, passed: PassedOver) -> Iterator[Entry]:
    with _opened(path) as tar:
        for member in tar_member.members(path):
            known = Path(member.name).suffix.lower() in SUFFIXES
            if member.problem and known:
                named = f"{prefix}{member.name}"
                yield Fault.of(named, f"{name}:{member.name}", InvalidInput(f"{path}:{member.name}: {member.problem}"))
            elif member.problem:
                passed.add(member.name)
            elif known or _is_taken(member.name, identify(member.content(tar))[0], passed):
                yield AudioItem(printable(f"{prefix}{member.name}"), name, member.name, member.offset, member.size)


def _opened(path: Path) -> BinaryIO:
    try:
        return files.opened(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error


def _is_taken(name: str, container: Container | None, passed: PassedOver) -> bool:
    if container is not None and container.is_available:
        return True
    passed.add(name, is_audio=container is not None, extra=None if container is None else container.extra)
    return False


def _but(passed: PassedOver) -> str:
    return f": {passed.everything}" if passed.everything else ": it is empty"
