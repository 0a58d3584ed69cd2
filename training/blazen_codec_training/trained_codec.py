"""A codec to train: its network, and the file of weights that it becomes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from blazen_codec_core import weights
from blazen_codec_core.errors import NotYetImplemented
from blazen_codec_core.files import replacing
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.plugins.registry import Registry
from blazen_codec_core.specs import CodecSpec, LoadOptions

from .forward_pass import ForwardPass
from .settings import Settings


@dataclass(frozen=True)
class TrainedCodec:
    """A codec to train."""

    spec: CodecSpec
    network: CodecNetwork
    _published: Any

    @property
    def forward_pass(self) -> ForwardPass:
        return ForwardPass(self.network)

    @property
    def choices(self) -> Sequence[int]:
        """Numbers of codebooks that a signal may use."""
        return self.spec.usable_codebooks

    def samples(self, seconds: float) -> int:
        """Samples of a cut of about this length, in complete blocks of frames."""
        block = self.spec.block_frames * self.spec.hop_length
        return max(1, round(seconds * self.spec.sample_rate / block)) * block

    def freeze(self, train: Literal["whole", "decoder"], freeze_codebooks: bool) -> None:
        """Freeze the parts that are not trained."""
        is_whole = train == "whole"
        self.network.encoder.requires_grad_(is_whole)
        self.network.quantizer.requires_grad_(is_whole and not freeze_codebooks)

    def save(self, network: CodecNetwork, path: Path) -> None:
        """Write a network's weights in the published layout, whole, so that they are read back as they are."""
        from safetensors.torch import save_file

        state = self._published(network, weight_norm=False)
        with replacing(path) as temporary:
            save_file({name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}, temporary)


def load(settings: Settings) -> TrainedCodec:
    """Load the codec that a run starts from, on the CPU.

    Raises:
        NotYetImplemented: The codec cannot be trained.
        CodecError: The codec or its weights cannot be found.
    """
    options = LoadOptions(device="cpu", weights=settings.weights)
    backend = cast(Any, Registry().provider(settings.model, options).backend)
    if backend.spec.segment or not hasattr(backend, "build"):
        raise NotYetImplemented(f"{settings.model} cannot be trained; native codecs without segments can")
    network = backend.build(weights.locate(backend.spec, options)).requires_grad_(True)
    package = type(backend).__module__.rpartition(".")[0]
    return TrainedCodec(backend.spec, network, importlib.import_module(f"{package}.checkpoint").to_published)
