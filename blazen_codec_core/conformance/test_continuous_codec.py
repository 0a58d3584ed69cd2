"""Tests that `pytest --codec NAME` runs for continuous codecs."""

from __future__ import annotations

import pytest

from blazen_codec_core.conformance.contracts import ContinuousContracts
from blazen_codec_core.conformance.pytest_plugin import SUBJECTS


class TestContinuousCodec(ContinuousContracts):
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        type(self).subjects = [subject for subject in metafunc.config.stash[SUBJECTS] if subject.spec.is_continuous]
        super().pytest_generate_tests(metafunc)
