from __future__ import annotations

import pytest

from blazen_codec_core.dataset import row_groups, shards

GROUP = 5


@pytest.fixture(scope="module", autouse=True)
def _small_row_groups():
    """Row groups of a few rows, so that small datasets have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "TOGETHER", GROUP)
        patch.setattr(row_groups, "TOGETHER", GROUP)
        yield
