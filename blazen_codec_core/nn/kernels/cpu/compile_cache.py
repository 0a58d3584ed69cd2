"""Compiled kernels, cached on disk beside numba's own cache.

Numba trusts its cache: a truncated file ends the import, and a modified one runs. Here each file begins with the digest of what
follows; a file with another digest is ignored and rewritten.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from ....errors import CodecError, SlowerNotice
from ....files import replacing

_DIGEST = hashlib.sha256
_SIZE = _DIGEST().digest_size
troubles: list[str] = []
"""Reasons why kernels of this process could not be cached or read, which are not warned of yet."""
_reported: list[str] = []


def warn_of_troubles() -> None:
    """Warn of the first trouble of this process."""
    if troubles and not _reported:
        _reported.extend(troubles)
        warnings.warn(
            f"compiled kernels cannot be cached, so every process compiles them for a minute: {troubles[0]}. Free disk space, "
            "delete damaged files, or set NUMBA_CACHE_DIR to a writable folder",
            SlowerNotice,
            stacklevel=2,
        )
    troubles.clear()


class KernelCache(FunctionCache):  # type: ignore[misc]
    """Cache of one function's compiled kernels, one for each signature.

    Raises:
        RuntimeError: There is no folder to write to.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _CacheFiles(Path(self.cache_path), self._impl.filename_base)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except (CodecError, OSError) as error:
            troubles.append(str(error))


class _CacheFiles:
    """Files of compiled kernels, one for each key, with the interface of `numba.core.caching.IndexDataCacheFile`."""

    def __init__(self, folder: Path, base: str) -> None:
        self._folder, self._base = folder, base

    def _path(self, key: Any) -> Path:
        key_text = repr((numba.__version__, llvmlite.__version__, key))
        return self._folder / f"{self._base}.{_DIGEST(key_text.encode()).hexdigest()[:16]}.loop"

    def load(self, key: Any) -> Any:
        """Load the value saved for a key; `None` if there is none, or the file cannot be read or has changed."""
        path = self._path(key)
        try:
            if not path.is_file():  # such as a pipe, which never ends
                return None
            data = path.read_bytes()
            return pickle.loads(data[_SIZE:]) if _DIGEST(data[_SIZE:]).digest() == data[:_SIZE] else None
        except Exception as error:  # unpickling raises anything where a module has changed
            troubles.append(f"{path} cannot be read: {error}")
            return None

    def save(self, key: Any, value: Any) -> None:
        """Write the file for a key atomically."""
        data = dumps(value)
        with replacing(self._path(key)) as temporary:
            temporary.write_bytes(_DIGEST(data).digest() + data)

    def flush(self) -> None:
        """Delete all files of this function."""
        for path in self._folder.glob(f"{self._base}.*.loop"):
            path.unlink(missing_ok=True)
