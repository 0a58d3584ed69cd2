"""EnCodec on its authors' package behind the trait, as the reference for tests. Needs the extra `upstream`."""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np
import torch

from blazen_codec_core import CodecTokens, EngineNotAvailable
from blazen_codec_core.installation import install_command
from blazen_codec_core.torch_backend.segments import split_tokens
from blazen_codec_core.torch_backend.upstream import UpstreamBackend, stand_in
from blazen_codec_core.validation import Pcm
from blazen_codec_core.weights import RandomWeights, WeightFile

from .backend import EncodecBackend
from .checkpoint import to_published
from .specs import EncodecArchitecture

try:
    with stand_in("torchaudio"):  # used only by their file handling
        from encodec.model import EncodecModel
        from encodec.modules.seanet import SEANetDecoder, SEANetEncoder
        from encodec.quantization.vq import ResidualVectorQuantizer
except ImportError as error:
    raise EngineNotAvailable(
        f"engine 'upstream' needs the authors' package of EnCodec: "
        f"{install_command('encodec', 'blazen-codec-encodec', 'upstream')}"
    ) from error


def model(architecture: EncodecArchitecture, name: str) -> Any:
    """Build the authors' model for an architecture, with random weights; `name` is the name in their files."""
    a = architecture
    shape: dict[str, Any] = {
        "channels": a.audio_channels,
        "dimension": a.hidden_size,
        "n_filters": a.num_filters,
        "ratios": list(a.upsampling_ratios),
        "kernel_size": a.kernel_size,
        "last_kernel_size": a.last_kernel_size,
        "residual_kernel_size": a.residual_kernel_size,
        "compress": a.compress,
        "lstm": a.num_lstm_layers,
        "causal": a.use_causal_conv,
        "norm": a.norm_type,
        "n_residual_layers": a.num_residual_layers,
        "dilation_base": a.dilation_growth_rate,
        "true_skip": not a.use_conv_shortcut,
        "pad_mode": a.pad_mode,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # their use of torch.nn.utils.weight_norm
        encoder, decoder = SEANetEncoder(**shape), SEANetDecoder(**shape, trim_right_ratio=a.trim_right_ratio)
        return EncodecModel(
            encoder,
            decoder,
            ResidualVectorQuantizer(dimension=a.hidden_size, n_q=a.num_codebooks, bins=a.codebook_size),
            list(a.target_bandwidths),
            a.sampling_rate,
            a.audio_channels,
            normalize=a.normalize,
            segment=a.chunk_length_s,
            overlap=a.overlap or 0.0,
            name=name,
        ).eval()


class UpstreamEncodecBackend(UpstreamBackend, EncodecBackend):
    """EnCodec on the authors' package."""

    def build(self, found: RandomWeights | WeightFile) -> Any:
        theirs = model(self.spec.architecture, self.spec.name)
        state = to_published(super().build(found), weight_norm=self.spec.architecture.norm_type == "weight_norm")
        training = {name: tensor for name, tensor in theirs.state_dict().items() if name not in state}
        theirs.load_state_dict({**training, **state})
        return theirs

    def encode_whole(self, pcm: Pcm, num_codebooks: int) -> CodecTokens:
        loaded, setup = self.loaded(), self.setup(1)
        theirs = cast(Any, loaded.network)
        with self._model_lock.own, self.inference_guard():
            theirs.set_target_bandwidth(theirs.target_bandwidths[self.spec.usable_codebooks.index(num_codebooks)])
            x = torch.tensor(pcm, device=setup.device, dtype=setup.dtype).reshape(-1, self.channels, pcm.shape[1])
            frames = theirs.encode(x)
        codes = torch.cat([codes for codes, _ in frames], dim=2).cpu().numpy()
        scales = [scale[:, 0].cpu().numpy() for _, scale in frames if scale is not None]
        return CodecTokens.from_codes(
            self.spec,
            [codes[:, book] for book in range(num_codebooks)],
            num_samples=pcm.shape[1],
            weights=loaded.weights,
            scales=np.stack(scales, axis=1) if scales else None,
        )

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        loaded, setup = self.loaded(), self.setup(1)
        with self.inference_guard():
            frames = [
                (
                    torch.from_numpy(np.stack(piece.codes, axis=1)).long().to(setup.device),
                    None if piece.scales is None else torch.from_numpy(piece.scales.copy()).to(setup.device),
                )
                for piece in split_tokens(tokens)
            ]
            y = cast(Any, loaded.network).decode(frames)
        return np.ascontiguousarray(y.flatten(0, 1)[:, : tokens.num_samples].float().cpu().numpy())
