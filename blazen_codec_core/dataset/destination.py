"""Output paths, validated to stay within a folder before anything is written."""

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
"""Folder of the run state, beside the shards."""
LONGEST_NAME = 255
"""Longest name of a file or a folder in bytes, on common file systems."""
BESIDE = 10
"""Bytes that a temporary file name adds to the final name, besides the suffix."""
MOST_LEVELS = 256
"""Largest number of path components in an id."""
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
"""Device names on Windows, with any suffix."""
UNWRITABLE = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$')
"""Characters that are not allowed in names on Windows."""


@dataclass(frozen=True)
class Destination:
    """A folder that a dataset is written into.

    Attributes:
        folder: Root folder. It may be a symbolic link; nothing below it may be.
        is_windows: Apply the naming rules of Windows.
    """

    folder: Path
    is_windows: bool = os.name == "nt"

    def shard(self, name: str) -> Path:
        """Return the path of a shard.

        Raises:
            InvalidInput: The path is a symbolic link.
        """
        return self._inside(PurePosixPath(name), name)

    def audio(self, id: str, suffix: str) -> Path:
        """Return the path of a row's audio file.

        Raises:
            InvalidInput: The id is not a valid or allowed file name, or the path contains a symbolic link.
        """
        name = file_name(id, suffix)
        if why := self._complaint(id, name):
            raise InvalidInput(f"the id {shortly(id)} is not a valid file name: {why}. Give the row another id")
        return self._inside(name, id)

    def _complaint(self, id: str, name: PurePosixPath) -> str:
        """Reason that an id cannot be the name of a file; empty if it can."""
        windows = PureWindowsPath(id)
        if not id:
            return "it is empty"
        if name.is_absolute() or windows.drive or windows.root:
            return "it is an absolute path"
        if ".." in name.parts or ".." in windows.parts:
            return "it leaves the output folder"
        if "\0" in id:
            return "it contains a NUL character"
        try:
            lengths = [len(part.encode()) for part in name.parts]
        except UnicodeEncodeError:
            return "it contains an unpaired surrogate"
        if max(lengths) > LONGEST_NAME or lengths[-1] > LONGEST_NAME - BESIDE - len(name.suffix.encode()):
            return f"a path component has {max(lengths)} bytes, which is too long"
        if len(name.parts) > MOST_LEVELS:
            return f"it has {len(name.parts)} path components; at most {MOST_LEVELS} are allowed"
        if _folded(name.parts[0]) == BOOKS:
            return f"{BOOKS} is the folder of the run state"
        if replaced_by(Path(name.name)) is not None:
            return "that name is reserved for temporary files"
        if self.is_windows and any(UNWRITABLE.search(part) or RESERVED.fullmatch(part) for part in name.parts):
            return "Windows does not allow that name"
        return ""

    def _inside(self, name: PurePosixPath, asked: str) -> Path:
        """Join a name to the folder; refuse symbolic links below the folder."""
        path = self.folder
        for part in name.parts:
            path = path / part
            if os.path.islink(path):
                raise InvalidInput(
                    f"{path} is a symbolic link, so {shortly(asked)} is not written. Remove the link or choose another folder"
                )
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:  # such as a path that is too long as a whole
            why = getattr(error, "strerror", None) or error
            raise InvalidInput(f"{self.folder} cannot hold {shortly(asked)}: {why}") from error
        return path


def file_name(id: str, suffix: str) -> PurePosixPath:
    """Return the relative path of a row's audio file."""
    return PurePosixPath(id if id.lower().endswith(suffix.lower()) else id + suffix)


def is_folding(folder: Path) -> tuple[bool, bool]:
    """Return whether a file system ignores case, and whether it ignores Unicode normalization.

    Args:
        folder: Folder of the run state; a probe file is created in it and removed.
    """
    probe = folder / ".probe-\u00e9"
    try:
        probe.touch()
        cases = os.path.lexists(folder / probe.name.upper())
        accents = os.path.lexists(folder / unicodedata.normalize("NFD", probe.name))
    except (OSError, UnicodeError):  # the file system has no accents
        return False, False
    finally:
        with suppress(OSError, UnicodeError):
            probe.unlink(missing_ok=True)
    return cases, accents


def same_file(name: PurePosixPath, folding: tuple[bool, bool]) -> str:
    """Return a key that is equal for names of the same file.

    Args:
        folding: Result of `is_folding`.
    """
    text = str(name)
    cases, accents = folding
    if cases:
        text = text.casefold()
    return unicodedata.normalize("NFC", text) if accents or cases else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().rstrip(". ")


def shortly(text: str) -> str:
    """Escape and shorten a name for messages."""
    return ascii(text) if len(text) < 80 else f"{text[:60]!a} …"
