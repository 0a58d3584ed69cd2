"""All contracts, for a plugin's own tests or for `pytest --codec`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from ..provider import DynCodecProvider
from .exactness import Exact
from .invalid_input import Refusals
from .latents import WithLatents, WithoutTokens
from .lifecycle import Lifecycle
from .spec_claims import Declared
from .subject import Subject, Whole


class OnSubjects:
    """Fixtures of all contracts."""

    subjects: ClassVar[Sequence[Any]] = ()
    """Subjects, or `pytest.param`s of them."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "subject" in metafunc.fixturenames:
            metafunc.parametrize("subject", self.subjects, ids=str, indirect=True, scope="session")

    @pytest.fixture(scope="session")
    @staticmethod
    def subject(request: pytest.FixtureRequest) -> Subject:
        """Return the model under test."""
        return request.param  # type: ignore[no-any-return]

    @pytest.fixture(scope="session")
    @staticmethod
    def codec(subject: Subject) -> Iterator[DynCodecProvider]:
        """Yield a provider of the subject, shared by all contracts."""
        codec = subject.load()
        yield codec
        codec.unload()


class Contracts(OnSubjects, Exact, Refusals, Lifecycle, Declared, WithLatents):
    """All contracts, as one test each per subject.

    class TestMine(Contracts):
        subjects = (Subject("mine_24khz"),)
    """

    @pytest.fixture(scope="session")
    @staticmethod
    def whole(subject: Subject, codec: DynCodecProvider) -> Whole:
        """Return a recording with its tokens and decoded audio."""
        return Whole.of(codec, subject.recording())

    @pytest.fixture(scope="session")
    @staticmethod
    def apart(subject: Subject, codec: DynCodecProvider) -> list[Whole]:
        """Return recordings of boundary lengths, each processed alone."""
        return [Whole.of(codec, pcm) for pcm in subject.recordings()]


class ContinuousContracts(OnSubjects, WithLatents, WithoutTokens):
    """All contracts of continuous codecs, which have latents and no tokens; used as `Contracts`."""

    test_the_registry = Declared.test_the_registry
    test_listing = Declared.test_listing
    test_constructing = Lifecycle.test_constructing
    test_pickling = Lifecycle.test_pickling
