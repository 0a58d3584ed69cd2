"""SNAC on its authors' package behind the trait, as the reference for tests. Needs the extra `upstream`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from blazen_codec_core import CodecTokens, EngineNotAvailable
from blazen_codec_core.installation import install_command
from blazen_codec_core.nn import StreamSetup
from blazen_codec_core.nn.checkpoints import conversion, state_dicts
from blazen_codec_core.torch_backend.upstream import UpstreamBackend
from blazen_codec_core.validation import Pcm
from blazen_codec_core.weights import RandomWeights, WeightFile

from .backend import SnacBackend
from .checkpoint import to_published

try:
    import snac
    from snac.layers import NoiseBlock
except ImportError as error:
    raise EngineNotAvailable(
        f"engine 'upstream' needs the authors' package of SNAC: {install_command('snac', 'blazen-codec-snac', 'upstream')}"
    ) from error


class SharedNoise(nn.Module):
    """The authors' noise block with this project's noise, so that the decoders can be compared."""

    def __init__(self, linear: nn.Module, layer: int) -> None:
        super().__init__()
        self.linear, self.layer = linear, layer
        self.setup: StreamSetup | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.setup is None or self.setup.noise is None:
            return x
        noise = self.setup.noise(self.layer, 0, x.shape[-1]).transpose(1, 2)
        return cast(Tensor, x + noise * self.linear(x))


def share_noise(model: nn.Module) -> list[SharedNoise]:
    """Replace the authors' noise by this project's."""
    blocks = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, NoiseBlock)
    ]
    shared = []
    for layer, (parent, name, child) in enumerate(blocks):
        shared.append(SharedNoise(child.linear, layer))
        setattr(parent, name, shared[-1])
    return shared


class UpstreamSnacBackend(UpstreamBackend, SnacBackend):
    """SNAC on the authors' package, with this project's noise."""

    def build(self, found: RandomWeights | WeightFile) -> Any:
        settings = self.spec.architecture.model_dump()
        model = snac.SNAC(**{k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()})
        state = None if isinstance(found, RandomWeights) else conversion.tensors(state_dicts.read(found.path), str(found.path))
        if state is None or not any(name.endswith(conversion.FACTORS[1]) for name in state):
            state = to_published(super().build(found))
        model.load_state_dict(state)
        self._noise = share_noise(model)
        return model

    def encode_whole(self, pcm: Pcm, num_codebooks: int) -> CodecTokens:
        loaded, setup = self.loaded(), self.setup(pcm.shape[0])
        with self.inference_guard():
            x = torch.tensor(pcm, device=setup.device, dtype=setup.dtype)[:, None]
            codes = [code.cpu().numpy() for code in cast(Any, loaded.network).encode(x)]
        return CodecTokens.from_codes(self.spec, codes, num_samples=pcm.shape[1], weights=loaded.weights)

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        loaded, setup = self.loaded(), self.setup(tokens.streams)
        with self._model_lock.own, self.inference_guard():
            for block in self._noise:
                block.setup = setup
            codes = [torch.tensor(code, dtype=torch.long, device=setup.device) for code in tokens.codes]
            y = cast(Any, loaded.network).decode(codes)
        return np.ascontiguousarray(y[:, 0, : tokens.num_samples].float().cpu().numpy())
