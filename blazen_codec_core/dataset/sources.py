"""Sources of recordings: a folder, a tar, a list, a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from ..audio import SUFFIXES, container_of
from ..errors import InvalidInput
from . import tar_member
from .folders import in_folder, in_tar
from .items import AudioItem, Entry, printable
from .lists import kaldi, listing
from .passed_over import PassedOver


@dataclass(frozen=True)
class Source:
    """Recordings of an input, in an order that depends only on names.

    Attributes:
        root: Base folder of the items' paths.
        entries: Recordings and faults; can be iterated once.
        passed: Counts of skipped files, complete once `entries` is exhausted.
        is_typed: Values of columns have types.
        names: Column names of a list, filled while `entries` is iterated.
    """

    root: Path
    entries: Iterator[Entry]
    passed: PassedOver = field(default_factory=PassedOver)
    is_typed: bool = True
    names: dict[str, None] = field(default_factory=dict)


def find(source: str | PathLike[str], columns: Collection[str] = ()) -> Source:
    """Find the recordings of an input.

    Args:
        source: A folder tree of audio files and tars, a tar, an audio file, a Kaldi data directory, or a list in JSON, delimited
            text, plain text or Parquet, optionally compressed. A list has a column of paths relative to it (`path`,
            `audio_filepath`, `file_name` …), and optionally `id`, `start`, `end` and `duration`.
        columns: Names of the carried columns, or `all`.

    Raises:
        InvalidInput: There are no recordings, or the file is not a list of recordings.
        CorruptFile: The input cannot be read.
    """
    path, passed = Path(source), PassedOver()
    if path.is_dir() and kaldi.is_data_directory(path):
        path = path / (kaldi.SEGMENTS if (path / kaldi.SEGMENTS).is_file() else kaldi.SCRIPT)
    if path.is_file() and not tar_member.is_tar(path.name) and listing.is_list(path):
        names: dict[str, None] = {}
        return Source(path.parent, listing.entries(path, columns, names), passed, listing.is_typed(path), names)
    if columns:
        raise InvalidInput(f"{path} is not a list, so it has no columns to carry")
    if path.is_dir():
        return Source(path, in_folder(path, passed), passed)
    if not path.is_file():
        raise InvalidInput(f"{path} is not a file or a folder")
    if tar_member.is_tar(path.name):
        return Source(path.parent, in_tar(path, passed), passed)
    if path.suffix.lower() in SUFFIXES or _is_audio(path):
        return Source(path.parent, iter([AudioItem(printable(path.name), path.name)]), passed)
    kinds = sorted((*listing.READERS, listing.KALDI))
    raise InvalidInput(f"{path} is not audio; expected audio, a tar (.tar) or a list ({', '.join(kinds)})")


def _is_audio(path: Path) -> bool:
    try:
        return container_of(path) is not None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
