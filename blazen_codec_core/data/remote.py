"""Shards in remote folders, through fsspec. A shard is fetched whole when its rows are first read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..dataset.row_groups import TAR, RowGroup, outline_of_parquet, outline_of_tar
from ..dataset.shards import FORMATS
from ..errors import CodecError, CorruptFile, EngineNotAvailable, InvalidInput, reason
from ..files import replacing

SUFFIXES = tuple(kind.suffix for kind in FORMATS.values())


@dataclass(frozen=True)
class RemoteShard:
    """A shard in a remote folder.

    Attributes:
        folder: Address of the folder, `protocol://path`.
        path: Path in the folder's file system.
        size: Size in bytes.
        cache: Local folder in which fetched shards are kept.
        storage: Options of the file system.
    """

    folder: str
    path: str
    size: int
    cache: Path
    storage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.folder.partition('://')[0]}://{self.path}"

    def local(self) -> Path:
        """Return a local path of the shard, which is fetched unless it is there.

        Raises:
            InvalidInput: The shard cannot be fetched.
            CorruptFile: The shard has another size than when it was listed.
        """
        key = hashlib.blake2b(f"{self.folder}\n{self.path}\n{self.size}".encode(), digest_size=8).hexdigest()
        target = self.cache / f"{key}-{PurePosixPath(self.path).name}"
        if not target.is_file():
            with _translated(self.name), replacing(target) as temporary:
                file_system(self.folder, self.storage)[0].get_file(self.path, str(temporary))
                if (size := temporary.stat().st_size) != self.size:
                    raise CorruptFile(f"{self.name} has {size} bytes, and had {self.size} when it was listed")
        return target

    def outline(self) -> tuple[list[RowGroup], list[str]]:
        """Return the row groups and column names: of Parquet from its footer, of a tar from the fetched shard."""
        if self.path.endswith(TAR):
            return outline_of_tar(self.local())
        system, _ = file_system(self.folder, self.storage)  # which closes its files when it goes
        with _translated(self.name), system.open(self.path, "rb") as file:
            return outline_of_parquet(file, self.size, self.name)


def is_remote(folder: str) -> bool:
    """Tell whether a folder is an address of fsspec, and not a local path."""
    return "://" in folder or "::" in folder


def file_system(folder: str, storage: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the file system and path of an address. File systems are not shared by forked processes, so they are found anew.

    Raises:
        EngineNotAvailable: A package for the protocol is missing.
        InvalidInput: The address is invalid.
    """
    import fsspec

    try:
        found: tuple[Any, str] = fsspec.url_to_fs(folder, **storage)
    except ImportError as error:
        raise EngineNotAvailable(f"{folder} needs another package: {reason(error)}") from error
    except Exception as error:  # whatever the file system raises
        raise InvalidInput(f"{folder} cannot be opened: {reason(error)}") from error
    return found


def list_shards(folder: str, cache: Path, storage: Mapping[str, Any]) -> Iterator[RemoteShard]:
    """Yield the shards of a remote folder by name.

    Raises:
        EngineNotAvailable: A package for the protocol is missing.
        InvalidInput: The folder cannot be listed, or has no shards.
    """
    system, path = file_system(folder, storage)
    with _translated(folder):
        entries = system.ls(path, detail=True)
        found = sorted((entry["name"], entry["size"]) for entry in entries if entry["type"] == "file")
    found = [(name, size) for name, size in found if name.endswith(SUFFIXES) and not PurePosixPath(name).name.startswith(".")]
    if not found:
        raise InvalidInput(f"{folder} has no shards of tokens (*{', *'.join(SUFFIXES)})")
    for name, size in found:
        yield RemoteShard(folder, name, int(size), cache, storage)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Translate errors of file systems, which are of many kinds, to `InvalidInput`."""
    try:
        yield
    except CodecError:
        raise
    except Exception as error:
        raise InvalidInput(f"{where} cannot be read: {reason(error)}") from error
