"""Qwen3-TTS-Tokenizer-12Hz on its authors' code behind the trait, as the reference for tests.

The decoder is that of `qwen-tts-hf`, the authors' `qwen-tts` for transformers 5. The package imports librosa, onnxruntime, sox
and others, which its modules of this tokenizer do not use, so only these modules are imported. The encoder is transformers'
`MimiModel`, from which the authors' class derives; that class cannot be built with the `MimiModel` of transformers 5.23.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from blazen_codec_core import CodecTokens, EngineNotAvailable
from blazen_codec_core.torch_backend.upstream import UpstreamBackend, stand_in
from blazen_codec_core.validation import Pcm
from blazen_codec_core.weights import RandomWeights, WeightFile

from .backend import Qwen3TtsBackend
from .checkpoint import to_published
from .network import Qwen3TtsNetwork
from .specs import Qwen3TtsArchitecture


@contextmanager
def without_code_of(packages: tuple[str, ...]) -> Iterator[None]:
    """Context in which modules of packages can be imported, but the packages' own code does not run."""
    added = []
    try:
        for package in packages:
            if package not in sys.modules:
                spec = importlib.util.find_spec(package)
                if spec is None or spec.submodule_search_locations is None:
                    raise ImportError(f"there is no package {package}")
                module = types.ModuleType(package)
                module.__path__ = list(spec.submodule_search_locations)
                sys.modules[package] = module
                added.append(package)
        yield
    finally:
        for package in added:
            del sys.modules[package]


try:
    with without_code_of(("qwen_tts", "qwen_tts.core")), stand_in("torchaudio"):
        from qwen_tts._transformers_compat import _default_rope_parameters
        from qwen_tts.core.tokenizer_12hz.configuration_qwen3_tts_tokenizer_v2 import Qwen3TTSTokenizerV2DecoderConfig
        from qwen_tts.core.tokenizer_12hz.modeling_qwen3_tts_tokenizer_v2 import Qwen3TTSTokenizerV2Decoder
        from transformers import MimiConfig, MimiModel
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
except ImportError as error:
    raise EngineNotAvailable(
        "engine 'upstream' needs the authors' package for transformers 5, without what it pins: "
        "pip install 'transformers>=5.20,<6' && pip install --no-deps qwen-tts-hf"
    ) from error


@contextmanager
def rotary_positions() -> Iterator[None]:
    """Context in which transformers knows the kind of rotary positions that the authors' decoder names."""
    is_missing = "default" not in ROPE_INIT_FUNCTIONS
    ROPE_INIT_FUNCTIONS.setdefault("default", _default_rope_parameters)
    try:
        yield
    finally:
        if is_missing:
            del ROPE_INIT_FUNCTIONS["default"]


class Model(nn.Module):
    """The two halves, with weights in the published layout."""

    def __init__(self, architecture: Qwen3TtsArchitecture, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        config = architecture.model_dump(mode="json")
        settings = MimiConfig(**config["encoder_config"])
        settings.decoder_config = None
        self.encoder = MimiModel.from_pretrained(None, config=settings, state_dict=part_of(state, "encoder"))
        with rotary_positions():
            self.decoder = Qwen3TTSTokenizerV2Decoder._from_config(Qwen3TTSTokenizerV2DecoderConfig(**config["decoder_config"]))
        self.decoder.load_state_dict(part_of(state, "decoder"))


def part_of(state: Mapping[str, Tensor], half: str) -> dict[str, Tensor]:
    """Tensors of a half, by the names in it."""
    return {name.removeprefix(f"{half}."): tensor for name, tensor in state.items() if name.startswith(f"{half}.")}


class UpstreamQwen3TtsBackend(UpstreamBackend, Qwen3TtsBackend):
    """Qwen3-TTS-Tokenizer-12Hz on the authors' code, which decodes whole signals here, not in windows."""

    def build(self, found: RandomWeights | WeightFile) -> Any:
        return Model(self.spec.architecture, to_published(cast(Qwen3TtsNetwork, super().build(found)))).eval()

    def encode_whole(self, pcm: Pcm, num_codebooks: int) -> CodecTokens:
        loaded, setup = self.loaded(), self.setup(1)
        with self.inference_guard():
            x = torch.tensor(pcm, device=setup.device, dtype=setup.dtype)
            codes = cast(Any, loaded.network).encoder.encode(x[:, None]).audio_codes.cpu().numpy()
        books = [codes[:, book] for book in range(num_codebooks)]
        return CodecTokens.from_codes(self.spec, books, num_samples=pcm.shape[1], weights=loaded.weights)

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        return self._decode(tokens, "forward")

    def other_decodings(self, tokens: CodecTokens) -> Mapping[str, Pcm]:
        return {"in windows of 300 frames with 25 of context": self._decode(tokens, "chunked_decode")}

    def _decode(self, tokens: CodecTokens, method: str) -> Pcm:
        decoder = cast(Any, self.loaded().network).decoder
        with self.inference_guard():
            codes = torch.from_numpy(np.stack(tokens.codes, axis=1)).long().to(self.device)
            y = getattr(decoder, method)(codes)
        return np.ascontiguousarray(y[:, 0, : tokens.num_samples].float().cpu().numpy())
