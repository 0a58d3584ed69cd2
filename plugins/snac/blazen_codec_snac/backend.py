"""The trait for SNAC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from blazen_codec_core import WeightsUnavailable
from blazen_codec_core.errors import reason
from blazen_codec_core.nn import reset_parameters, state_dicts
from blazen_codec_core.nn.backend import TorchCodecBackend
from blazen_codec_core.weights import RandomWeights, WeightFile

from .checkpoint import from_published
from .network import SnacNetwork
from .specs import SnacArchitecture, SnacSpec


class SnacBackend(TorchCodecBackend):
    """SNAC on this project's layers."""

    @property
    def spec(self) -> SnacSpec:
        return cast(SnacSpec, self._spec)

    def build(self, found: RandomWeights | WeightFile) -> SnacNetwork:
        return build(self.spec, found)


def build(spec: SnacSpec, found: RandomWeights | WeightFile) -> SnacNetwork:
    """A network with these weights.

    Raises:
        WeightsUnavailable: They, or the config beside them, are of another model.
    """
    network = SnacNetwork(spec.architecture)
    if isinstance(found, RandomWeights):
        reset_parameters(network, found.seed)
        return network
    if found.config:
        check_config(spec, found.config)
    published = state_dicts.tensors(state_dicts.read(found.path), found.path)
    state_dicts.load(network, from_published(network, published, str(found.path)), str(found.path))
    return network


def check_config(spec: SnacSpec, path: Path) -> None:
    """Raises `WeightsUnavailable` unless a published `config.json` describes the model of the spec."""
    try:
        described = SnacArchitecture.model_validate(json.loads(path.read_text()))
    except (ValidationError, ValueError, OSError) as error:
        raise WeightsUnavailable(f"{path} is not a SNAC config: {reason(error)}") from error
    ours, theirs = (a.model_copy(update={"latent_dim": a.latent_channels}) for a in (spec.architecture, described))
    for name in SnacArchitecture.model_fields:
        if getattr(ours, name) != getattr(theirs, name):
            raise WeightsUnavailable(
                f"{path} is of another model: {name} is {getattr(theirs, name)}, but {spec.name} has {getattr(ours, name)}"
            )
