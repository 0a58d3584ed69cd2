from __future__ import annotations

import pytest

from blazen_codec_core.dataset import row_groups, shards

GROUP = 5


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    """Row groups of a few rows, so that small datasets have many."""
    monkeypatch.setattr(shards, "TOGETHER", GROUP)
    monkeypatch.setattr(row_groups, "TOGETHER", GROUP)
