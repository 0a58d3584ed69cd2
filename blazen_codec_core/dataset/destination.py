"""Output names, mapped into a folder before any of them touches the disk."""

from __future__ import annotations

import os
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import InvalidInput
from ..files import replaced_by

BOOKS = ".run"
"""The folder of what a run keeps beside its shards."""
LONGEST_NAME = 255
"""Bytes of the name of a file or a folder, on any file system of today."""
BESIDE = 10
"""Bytes that the name of a file has before and after it while it is written, beside its suffix."""
MOST_LEVELS = 256
"""Folders that a name has, each in the one before."""
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, whatever suffix they have."""
UNWRITABLE = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$')
"""Characters that no name has on Windows."""


@dataclass(frozen=True)
class Destination:
    """A folder that a dataset is written into.

    Attributes:
        folder: It may be a link; nothing below it may be.
        is_windows: Whether names are those of Windows.
    """

    folder: Path
    is_windows: bool = os.name == "nt"

    def shard(self, name: str) -> Path:
        """Return where a file of the dataset itself goes.

        Raises:
            InvalidInput: A link stands there.
        """
        return self._inside(PurePosixPath(name), name)

    def audio(self, id: str, suffix: str) -> Path:
        """Return where the audio of a row goes.

        Raises:
            InvalidInput: The id cannot be the name of a file, is one of ours, or a link leads it elsewhere.
        """
        name = file_name(id, suffix)
        if why := self._complaint(id, name):
            raise InvalidInput(f"the id {shortly(id)} cannot be the name of a file: {why}. Give the row another id")
        return self._inside(name, id)

    def _complaint(self, id: str, name: PurePosixPath) -> str:
        """Reason that an id cannot be the name of a file; empty if it can."""
        windows = PureWindowsPath(id)
        if not id:
            return "it is empty"
        if name.is_absolute() or windows.drive or windows.root:
            return "it is an absolute path"
        if ".." in name.parts or ".." in windows.parts:
            return "it leads out of the folder"
        if "\0" in id:
            return "it has a NUL in it"
        try:
            lengths = [len(part.encode()) for part in name.parts]
        except UnicodeEncodeError:
            return "it has half a character in it"
        if max(lengths) > LONGEST_NAME or lengths[-1] > LONGEST_NAME - BESIDE - len(name.suffix.encode()):
            return f"it is {max(lengths)} bytes long between two strokes"
        if len(name.parts) > MOST_LEVELS:
            return f"it is {len(name.parts)} levels deep, and {MOST_LEVELS} at most are made"
        if _folded(name.parts[0]) == BOOKS:
            return f"{BOOKS} is the folder of what the run keeps"
        if replaced_by(Path(name.name)) is not None:
            return "files that are being written are called so"
        if self.is_windows and any(UNWRITABLE.search(part) or RESERVED.fullmatch(part) for part in name.parts):
            return "Windows has no such names"
        return ""

    def _inside(self, name: PurePosixPath, asked: str) -> Path:
        """The path of a name, on which no link is."""
        path = self.folder
        for part in name.parts:
            path = path / part
            if os.path.islink(path):
                raise InvalidInput(
                    f"{path} is a link, which {shortly(asked)} would be written through: remove it, or write elsewhere"
                )
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:  # such as of a path that is too long, though no part of it is
            why = getattr(error, "strerror", None) or error
            raise InvalidInput(f"{self.folder} cannot hold {shortly(asked)}: {why}") from error
        return path


def file_name(id: str, suffix: str) -> PurePosixPath:
    """Return the name of the audio of a row, below the folder of all."""
    return PurePosixPath(id if id.lower().endswith(suffix.lower()) else id + suffix)


def is_folding(folder: Path) -> tuple[bool, bool]:
    """Return whether a file system takes names for the same that differ in case, and in how accents are composed.

    Args:
        folder: One of ours, which a file is made in for a moment.
    """
    probe = folder / ".probe-\u00e9"
    try:
        probe.touch()
        cases = os.path.lexists(folder / probe.name.upper())
        accents = os.path.lexists(folder / unicodedata.normalize("NFD", probe.name))
    except (OSError, UnicodeError):  # of a file system without accents
        return False, False
    finally:
        with suppress(OSError, UnicodeError):
            probe.unlink(missing_ok=True)
    return cases, accents


def same_file(name: PurePosixPath, folding: tuple[bool, bool]) -> str:
    """Return what two names have in common that are the same file.

    Args:
        folding: What `is_folding` says.
    """
    text = str(name)
    cases, accents = folding
    if cases:
        text = text.casefold()
    return unicodedata.normalize("NFC", text) if accents or cases else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().rstrip(". ")


def shortly(text: str) -> str:
    """Return a name as messages have it."""
    return ascii(text) if len(text) < 80 else f"{text[:60]!a} …"
