"""Record offsets in zip archives of `torch.save`, found without reading the records."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ...errors import WeightsUnavailable

LARGEST_DIRECTORY = 4 << 20
"""Largest central directory in bytes, for about 50 000 records; it is read at once."""
LOCAL_HEADER = 30


@dataclass(frozen=True)
class Record:
    """A record in an archive.

    Attributes:
        header: Offset of the local header.
        size: Stored size in bytes.
        inflated: Uncompressed size in bytes.
        is_stored: The record is neither compressed nor encrypted.
    """

    header: int
    size: int
    inflated: int
    is_stored: bool


class _Careful:
    """File wrapper that limits reads to the largest directory, independent of sizes in the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        count = left if count < 0 else min(count, left)
        if count > LARGEST_DIRECTORY:
            raise ValueError(f"its central directory has {count} bytes; at most {LARGEST_DIRECTORY} are read")
        return self._file.read(count)


def records(path: Path) -> dict[str, Record]:
    """List the records of an archive by name, without reading them.

    Raises:
        WeightsUnavailable: The archive is damaged, or its records claim more bytes than the file has.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(cast(BinaryIO, _Careful(file))) as archive:
            size = os.fstat(file.fileno()).st_size
            found = {
                info.filename: Record(
                    info.header_offset,
                    info.compress_size,
                    info.file_size,
                    info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1,
                )
                for info in archive.infolist()
            }
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise WeightsUnavailable(
            f"{path} is not a file of weights: the archive is damaged or incomplete; fetch it again"
        ) from error
    claimed = sum(record.size for record in found.values())
    if claimed > size:
        raise WeightsUnavailable(f"{path}: its records claim {claimed} bytes, but the file has {size}; fetch it again")
    return found


def check_stored(path: Path, found: dict[str, Record]) -> None:
    """Raise `WeightsUnavailable` if a record is compressed, which PyTorch never does."""
    for name, record in found.items():
        if not record.is_stored or record.inflated != record.size:
            raise WeightsUnavailable(
                f"{path}: its record {name[:80]} is compressed from {record.inflated} to {record.size} bytes, which torch.save "
                "never does. If you trust it, save its state dict again with torch.save or safetensors"
            )


def start_of(file: BinaryIO, record: Record, size: int) -> int:
    """Return the offset of a record's data in a file of `size` bytes; raise `ValueError` if it exceeds the file."""
    file.seek(record.header)
    head = file.read(LOCAL_HEADER)
    if len(head) != LOCAL_HEADER or head[:4] != b"PK\x03\x04":
        raise ValueError("a record of the archive is not at its offset")
    start = record.header + LOCAL_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if start + record.size > size:
        raise ValueError("a record of the archive is truncated")
    return start
