"""Recordings to train on, and held-out ones to measure with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blazen_codec_core.audio import AudioReader, is_audio
from blazen_codec_core.errors import CodecError, InvalidInput
from blazen_codec_core.files import contents, replacing, walk
from blazen_codec_core.foreign_json import parse_object

MIN_SECONDS = 0.1


@dataclass(frozen=True)
class Recording:
    path: str
    seconds: float


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class Recordings:
    """Recordings of a run."""

    trained: list[Recording]
    held_out: list[Recording]
    skipped: list[Skipped]

    def save(self, path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Recordings:
        saved: dict[str, list[Any]] = parse_object(contents(path), most=1 << 26, largest=1 << 30)
        trained, held_out = ([Recording(**row) for row in saved[name]] for name in ("trained", "held_out"))
        return cls(trained, held_out, [Skipped(**row) for row in saved["skipped"]])


def find(data: Path, held_out: Path | None, share: float) -> Recordings:
    """Find the recordings below a folder, and decide which are held out.

    Args:
        data: Folder of recordings to train on.
        held_out: Folder of held-out recordings. `None` holds out a share of `data`, chosen by a hash of the relative path, so
            that the choice does not depend on the other files.
        share: That share.

    Raises:
        InvalidInput: There are not enough recordings.
    """
    skipped: list[Skipped] = []
    found = dict(_in_folder(data, skipped))
    if held_out is not None:
        apart = [recording for _, recording in _in_folder(held_out, skipped)]
    else:
        ranks = {name: _rank(name) for name in found}
        least = min(ranks.values(), default=0.0)
        apart = [found.pop(name) for name, rank in ranks.items() if rank < share or rank == least]
    if not found or not apart:
        raise InvalidInput(
            f"{data} has {len(found) + (len(apart) if held_out is None else 0)} recordings that can be read; training needs one, "
            f"and a held-out one to measure with{_first(skipped)}"
        )
    return Recordings(list(found.values()), apart, skipped)


def _rank(name: str) -> float:
    """Return a number from 0 to 1 that a name has by its hash."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64


def _first(skipped: list[Skipped]) -> str:
    return f". {skipped[0].reason}" if skipped else ""


def _in_folder(folder: Path, skipped: list[Skipped]) -> Iterator[tuple[str, Recording]]:
    """Yield the relative path and the recording of each audio file in a folder tree."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder")

    def unreadable(name: str, error: OSError) -> None:
        skipped.append(Skipped(str(folder / name), f"{folder / name} cannot be read: {error.strerror or error}"))

    for name in walk(folder, unreadable=unreadable):
        path = folder / name
        if not is_audio(path):
            continue
        try:
            with AudioReader(path) as reader:
                seconds = reader.count() / reader.sample_rate
            if seconds < MIN_SECONDS:
                raise InvalidInput(f"{path} is {seconds:.2f} s of audio; expected at least {MIN_SECONDS} s")
        except CodecError as error:
            skipped.append(Skipped(str(path), str(error)))
            continue
        yield name, Recording(str(path.resolve()), seconds)
