"""A codec to train, as the PyTorch module that core provides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.plugins.registry import Registry
from blazen_codec_core.specs import CodecSpec, LoadOptions

from .forward_pass import Output
from .settings import Settings

if TYPE_CHECKING:
    from blazen_codec_core.torch_backend.module import CodecModule


def load(settings: Settings, device: str = "cpu") -> CodecModule:
    """Load the codec that a run starts from, in `train` mode.

    Raises:
        NotYetImplemented: The codec has no PyTorch module, or no codebooks.
        CodecError: The codec or its weights cannot be found.
    """
    provider = Registry().provider(settings.model, LoadOptions(device=device, weights=settings.weights))
    provider.spec.check_has_tokens()
    return provider.module.train()


def freeze(module: CodecModule, settings: Settings) -> None:
    """Freeze the parts that are not trained."""
    is_whole = settings.train == "whole"
    module.network.encoder.requires_grad_(is_whole)
    module.network.quantizer.requires_grad_(is_whole and not settings.freeze_codebooks)


def cut_samples(spec: CodecSpec, seconds: float) -> int:
    """Samples of a cut of about this length, in complete blocks of frames."""
    block = spec.block_frames * spec.hop_length
    return max(1, round(seconds * spec.sample_rate / block)) * block


class CodecPass(nn.Module):
    """Forward pass of a codec's module."""

    def __init__(self, module: CodecModule) -> None:
        super().__init__()
        self.module = module

    @property
    def network(self) -> CodecNetwork:
        return self.module.network

    def forward(self, x: Tensor, books: Tensor | None = None, quantize: bool = True) -> Output:
        """Encode and decode signals `(batch, channels, samples)`; see `ForwardPass.forward`."""
        result = self.module(x, num_codebooks=books)
        return Output(result.audio, result.latents, list(result.codes), result.commitment_loss, result.codebook_loss)
