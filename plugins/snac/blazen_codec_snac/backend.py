"""The trait for SNAC."""

from __future__ import annotations

from typing import cast

from blazen_codec_core.nn import reset_parameters, state_dicts
from blazen_codec_core.nn.backend import TorchCodecBackend
from blazen_codec_core.weights import RandomWeights, WeightFile

from .checkpoint import from_published
from .network import SnacNetwork
from .specs import SnacSpec


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
        state_dicts.check_config(spec.architecture, found.config, spec.name)
    published = state_dicts.tensors(state_dicts.read(found.path), found.path)
    state_dicts.load(network, from_published(network, published, str(found.path)), str(found.path))
    return network
