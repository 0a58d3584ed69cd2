"""The trait for EnCodec."""

from __future__ import annotations

from typing import cast

from blazen_codec_core.nn import reset_parameters, state_dicts
from blazen_codec_core.nn.backend import TorchCodecBackend
from blazen_codec_core.weights import RandomWeights, WeightFile

from .checkpoint import from_published
from .network import EncodecNetwork
from .specs import EncodecSpec


class EncodecBackend(TorchCodecBackend):
    """EnCodec on this project's layers."""

    @property
    def spec(self) -> EncodecSpec:
        return cast(EncodecSpec, self._spec)

    def build(self, found: RandomWeights | WeightFile) -> EncodecNetwork:
        return build(self.spec, found)


def build(spec: EncodecSpec, found: RandomWeights | WeightFile) -> EncodecNetwork:
    """A network with these weights.

    Raises:
        WeightsUnavailable: They, or the config beside them, are of another model.
    """
    network = EncodecNetwork(spec.architecture)
    if isinstance(found, RandomWeights):
        reset_parameters(network, found.seed)
        return network
    if found.config:
        state_dicts.check_config(spec.architecture, found.config, spec.name)
    state = state_dicts.tensors(state_dicts.read(found.path), found.path)
    state_dicts.load(network, from_published(network, state, str(found.path)), str(found.path))
    return network
