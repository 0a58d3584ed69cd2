from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import narrow_dac


@pytest.fixture(scope="module")
def narrow_networks() -> Iterator[None]:
    """The published models are narrow ones: for what is the same in networks of any width."""
    with narrow_dac.installed():
        yield
