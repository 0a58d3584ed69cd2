from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.narrow_mimi import write_narrow


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> Path:
    """A folder with random weights of a Mimi with Mimi's rates and codebooks, but narrow layers."""
    return write_narrow(tmp_path_factory.mktemp("mimi"))
