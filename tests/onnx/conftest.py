from __future__ import annotations

import pytest

from blazen_codec_core.onnx.export import export
from tests.helpers.mixed_codec import mixed_codec


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/onnx/" in item.path.as_posix():
            item.add_marker(pytest.mark.onnx)


@pytest.fixture(scope="session")
def mixed():
    return mixed_codec()


@pytest.fixture(scope="session")
def exported(mixed, tmp_path_factory):
    """Folder of all graphs of the codec, in tiles of two blocks, and the report of their check."""
    folder = tmp_path_factory.mktemp("onnx") / "mixed"
    return folder, export(mixed, folder, tile_frames=8)
