from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.narrow_qwen3tts import write_narrow


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> Path:
    """A folder with random weights of a model with the published one's rates and codebooks, but narrow layers."""
    return write_narrow(tmp_path_factory.mktemp("qwen3tts"))
