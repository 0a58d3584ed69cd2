from __future__ import annotations

from collections.abc import Iterator

import dac_narrow
import pytest


@pytest.fixture(scope="module")
def narrow_networks() -> Iterator[None]:
    """The published models are narrow ones: for what is the same in networks of any width."""
    with dac_narrow.installed():
        yield
