"""Tests that `pytest --codec NAME` runs."""

from __future__ import annotations

import pytest

from blazen_codec_core.conformance.contracts import Contracts
from blazen_codec_core.conformance.pytest_plugin import SUBJECTS


class TestCodec(Contracts):
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        type(self).subjects = [subject for subject in metafunc.config.stash[SUBJECTS] if not subject.spec.is_continuous]
        super().pytest_generate_tests(metafunc)
