"""The published models with fewer channels: rates, strides and codebooks stay as they are, and what files say of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blazen_codec_dac import plugin, specs

WIDTHS = {"encoder_dim": 8, "latent_dim": 128, "decoder_dim": 96}


def narrow(spec: specs.DacSpec) -> specs.DacSpec:
    return spec.model_copy(update={"architecture": spec.architecture.model_copy(update=WIDTHS)})


AUTHORS = tuple(map(narrow, specs.AUTHORS))
BY_NAME = {spec.name: spec for spec in AUTHORS}


@contextmanager
def installed() -> Iterator[None]:
    """While they are what the plugin has under their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin, "SPECS", (*AUTHORS, *specs.SPECS[len(AUTHORS) :]))
        yield
