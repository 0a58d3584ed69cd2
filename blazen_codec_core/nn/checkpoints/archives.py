"""Zip archives as `torch.save` makes them: where each record lies, found before anything of it is read."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ...errors import WeightsUnavailable

LARGEST_DIRECTORY = 4 << 20
"""Bytes of an archive's list of records, which is read at once: some 50 000 records."""
LOCAL_HEADER = 30


@dataclass(frozen=True)
class Record:
    """A record in an archive.

    Attributes:
        header: Where it begins in the file.
        size: In bytes, as it is in the file.
        inflated: As its reader would have it; another number where it is compressed.
        is_stored: Whether it is neither compressed nor encrypted.
    """

    header: int
    size: int
    inflated: int
    is_stored: bool


class _Careful:
    """A file of which no more is read at once than a directory may have, whatever the file says of itself."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        count = left if count < 0 else min(count, left)
        if count > LARGEST_DIRECTORY:
            raise ValueError(f"its list of records has {count} bytes, and {LARGEST_DIRECTORY} at most are read")
        return self._file.read(count)


def records(path: Path) -> dict[str, Record]:
    """The records of an archive by their names; nothing of them is read.

    Raises:
        WeightsUnavailable: It is damaged, a record is compressed, or they claim more than the file holds.
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
            f"{path} is not a file of weights: the archive is damaged or did not come whole; fetch it again"
        ) from error
    claimed = sum(record.size for record in found.values())
    if claimed > size:
        raise WeightsUnavailable(f"{path}: its records claim {claimed} bytes, which a file of {size} cannot hold; fetch it again")
    return found


def check_stored(path: Path, found: dict[str, Record]) -> None:
    """Raises `WeightsUnavailable` where a record would be larger than it is in the file; PyTorch compresses none."""
    for name, record in found.items():
        if not record.is_stored or record.inflated != record.size:
            raise WeightsUnavailable(
                f"{path}: its record {name[:80]} is compressed, of {record.inflated} bytes to {record.size}, which torch.save "
                "never does. Where you trust it, save its state dict again with torch.save or safetensors"
            )


def start_of(file: BinaryIO, record: Record, size: int) -> int:
    """Offset of a record's first byte in a file of `size` bytes; `ValueError` if the record does not lie within the file."""
    file.seek(record.header)
    head = file.read(LOCAL_HEADER)
    if len(head) != LOCAL_HEADER or head[:4] != b"PK\x03\x04":
        raise ValueError("a record of the archive is not where it should be")
    start = record.header + LOCAL_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if start + record.size > size:
        raise ValueError("a record of the archive is cut off")
    return start
