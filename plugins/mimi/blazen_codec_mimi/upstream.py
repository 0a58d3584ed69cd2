"""Mimi on its authors' package behind the trait, as the reference for tests.

`moshi` pins older releases of PyTorch and numpy than this project needs, and runs with newer ones: install it without what it
asks for, beside einops and tqdm.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

from blazen_codec_core import CodecTokens, EngineNotAvailable
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.nn.checkpoints.transformers_layout import SPLIT
from blazen_codec_core.torch_backend.upstream import UpstreamBackend, stand_ins
from blazen_codec_core.validation import Pcm
from blazen_codec_core.weights import RandomWeights, WeightFile

from .backend import MimiBackend
from .checkpoint import AUTHORS, attentions, paired, to_published
from .network import MimiNetwork
from .specs import MimiArchitecture

try:
    with stand_ins({"sentencepiece": {"SentencePieceProcessor": type("SentencePieceProcessor", (), {})}}):  # for text alone
        from moshi.models.compression import MimiModel
        from moshi.modules.seanet import SEANetDecoder, SEANetEncoder
        from moshi.modules.transformer import ProjectedTransformer
        from moshi.quantization.vq import SplitResidualVectorQuantizer
        from moshi.utils.compile import no_compile
except ImportError as error:
    raise EngineNotAvailable(
        "engine 'upstream' needs the authors' package of Mimi, without what it pins: pip install einops tqdm && "
        "pip install --no-deps moshi"
    ) from error


def model(architecture: MimiArchitecture) -> Any:
    """Build the authors' model for an architecture, with random weights."""
    a = architecture
    seanet: dict[str, Any] = {
        "dimension": a.hidden_size,
        "n_filters": a.num_filters,
        "n_residual_layers": a.num_residual_layers,
        "ratios": list(a.upsampling_ratios),
        "kernel_size": a.kernel_size,
        "last_kernel_size": a.last_kernel_size,
        "residual_kernel_size": a.residual_kernel_size,
        "dilation_base": a.dilation_growth_rate,
        "compress": a.compress,
        "true_skip": not a.use_conv_shortcut,
        "causal": a.use_causal_conv,
        "pad_mode": a.pad_mode,
    }
    transformer: dict[str, Any] = {
        "d_model": a.hidden_size,
        "num_heads": a.num_attention_heads,
        "num_layers": a.num_hidden_layers,
        "dim_feedforward": a.intermediate_size,
        "kv_repeat": a.num_attention_heads // a.num_key_value_heads,
        "causal": True,
        "context": a.sliding_window,
        "layer_scale": a.layer_scale_initial_scale,
        "max_period": a.rope_theta,
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "conv_layout": True,
        "input_dimension": a.hidden_size,
        "output_dimensions": [a.hidden_size],
    }
    quantizer = SplitResidualVectorQuantizer(
        dimension=a.codebook_dim,
        input_dimension=a.hidden_size,
        output_dimension=a.hidden_size,
        n_q=a.num_quantizers,
        n_q_semantic=a.num_semantic_quantizers,
        bins=a.codebook_size,
    )
    encoder = SEANetEncoder(**seanet)
    theirs = MimiModel(
        encoder,
        SEANetDecoder(**seanet),
        quantizer,
        frame_rate=a.frame_rate,
        encoder_frame_rate=a.sampling_rate / encoder.hop_length,
        sample_rate=a.sampling_rate,
        channels=a.audio_channels,
        causal=True,
        resample_method="conv",
        encoder_transformer=ProjectedTransformer(**transformer),
        decoder_transformer=ProjectedTransformer(**transformer),
    )
    return theirs.eval()


def load(theirs: Any, network: MimiNetwork) -> None:
    """Load a network's weights into the authors' model."""
    state = to_published(network)
    for path, attention in attentions(network).items():
        joined = torch.cat([state.pop(f"{path}.{part}.weight") for part in SPLIT])
        state[f"{path}.qkv_proj.weight"] = paired(joined, attention, neighbours=True)
    theirs.load_state_dict({name: state[conversion.rename(name, AUTHORS)] for name in theirs.state_dict()})


class UpstreamMimiBackend(UpstreamBackend, MimiBackend):
    """Mimi on the authors' package."""

    def build(self, found: RandomWeights | WeightFile) -> Any:
        theirs = model(self.spec.architecture)
        load(theirs, cast(MimiNetwork, super().build(found)))
        return theirs

    def encode_whole(self, pcm: Pcm, num_codebooks: int) -> CodecTokens:
        loaded, setup = self.loaded(), self.setup(1)
        theirs = cast(Any, loaded.network)
        with self._model_lock.own, self.inference_guard(), no_compile():
            theirs.set_num_codebooks(num_codebooks)
            codes = theirs.encode(torch.tensor(pcm, device=setup.device, dtype=setup.dtype)[:, None]).cpu().numpy()
        return CodecTokens.from_codes(
            self.spec, [codes[:, book] for book in range(num_codebooks)], num_samples=pcm.shape[1], weights=loaded.weights
        )

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        loaded, setup = self.loaded(), self.setup(1)
        with self._model_lock.own, self.inference_guard(), no_compile():
            codes = torch.from_numpy(np.stack(tokens.codes, axis=1)).long().to(setup.device)
            y = cast(Any, loaded.network).decode(codes)
        return np.ascontiguousarray(y[:, 0, : tokens.num_samples].float().cpu().numpy())
