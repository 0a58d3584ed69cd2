"""Compiled loops that are kept for the processes to come, where numba keeps its own.

What numba keeps it believes: a file that was cut ends the import, and one that was changed runs. Here each file begins with the
digest of what follows; one that has another is as good as none, and is written anew.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from ....errors import CodecError
from ....files import replacing

_DIGEST = hashlib.sha256
_SIZE = _DIGEST().digest_size
troubles: list[str] = []
"""Why loops of this process could not be kept or read."""


class KeptLoops(FunctionCache):  # type: ignore[misc]
    """Those of one function, one a signature.

    Raises:
        RuntimeError: There is no folder that they could be kept in.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _Files(Path(self.cache_path), self._impl.filename_base)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except (CodecError, OSError) as error:
            troubles.append(str(error))


class _Files:
    """Files of compiled loops, one for each key, with the interface of `numba.core.caching.IndexDataCacheFile`."""

    def __init__(self, folder: Path, base: str) -> None:
        self._folder, self._base = folder, base

    def _path(self, key: Any) -> Path:
        known = repr((numba.__version__, llvmlite.__version__, key))
        return self._folder / f"{self._base}.{_DIGEST(known.encode()).hexdigest()[:16]}.loop"

    def load(self, key: Any) -> Any:
        """Load the value saved for a key; `None` if there is none, or the file cannot be read or has changed."""
        path = self._path(key)
        try:
            if not path.is_file():  # a pipe, or a device that never ends
                return None
            data = path.read_bytes()
            return pickle.loads(data[_SIZE:]) if _DIGEST(data[_SIZE:]).digest() == data[:_SIZE] else None
        except Exception as error:  # whatever unpickling raises where a module is another one than when it was written
            troubles.append(f"{path} cannot be read: {error}")
            return None

    def save(self, key: Any, value: Any) -> None:
        """Write a file that is there whole or not at all."""
        data = dumps(value)
        with replacing(self._path(key)) as temporary:
            temporary.write_bytes(_DIGEST(data).digest() + data)

    def flush(self) -> None:
        """Forget what there is of this function, for every key."""
        for path in self._folder.glob(f"{self._base}.*.loop"):
            path.unlink(missing_ok=True)
