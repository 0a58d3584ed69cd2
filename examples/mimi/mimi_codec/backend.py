"""Backend for transformers' Mimi: core cuts the audio into tiles, and transformers' caches carry the state between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MimiConfig, MimiModel

from blazen_codec_core import CodecTokens, DecoderSession, NotYetImplemented, WeightsUnavailable
from blazen_codec_core.nn import State, StreamSetup
from blazen_codec_core.torch_backend.backend import TorchCodecBackend
from blazen_codec_core.torch_backend.guard import inference_guard
from blazen_codec_core.torch_backend.sessions import to_pcm
from blazen_codec_core.validation import Pcm
from blazen_codec_core.weights import RandomWeights, WeightFile

from .specs import SPEC


@dataclasses.dataclass
class Caches(State):
    """State of a stream in transformers, and the number of codebooks that it uses."""

    books: int
    attention: Any = None
    convolutions: Any = None


class MimiNetwork(nn.Module):
    """Mimi with the interface of core's encoder sessions."""

    def __init__(self, model: MimiModel) -> None:
        super().__init__()
        self.model = model

    def encoder_state(self, setup: StreamSetup, books: int | None = None) -> Caches:
        return Caches(books or SPEC.num_codebooks)

    def encode_step(self, x: Tensor, state: Caches, last: bool) -> list[Tensor]:
        """Encode whole frames of audio `(batch, samples, 1)` to indices `(batch, frames)` per codebook."""
        if not x.shape[1]:
            return [torch.zeros(x.shape[0], 0, dtype=torch.long)] * state.books
        caches = {"encoder_past_key_values": state.attention, "padding_cache": state.convolutions, "use_streaming": True}
        out = self.model.encode(x.transpose(1, 2), num_quantizers=state.books, **caches)
        state.attention, state.convolutions = out.encoder_past_key_values, out.padding_cache
        return list(out.audio_codes.unbind(1))

    def frames_encoded(self, samples: int, last: bool) -> int:
        return samples // SPEC.hop_length


class MimiBackend(TorchCodecBackend):
    """Mimi's backend; core provides loading, devices and encoder sessions."""

    def new_network(self) -> Any:
        return MimiNetwork(MimiModel(MimiConfig()))

    def from_published(self, network: Any, content: Any, origin: str) -> Mapping[str, Tensor]:
        raise NotYetImplemented("transformers loads its own files; see build")

    def build(self, found: RandomWeights | WeightFile) -> Any:
        if isinstance(found, RandomWeights):
            with torch.random.fork_rng():
                torch.manual_seed(found.seed)
                network = self.new_network()
                for name, buffer in network.named_buffers():
                    if name.endswith("embed_sum"):  # codebooks, which transformers initializes to zero
                        buffer.normal_()
            return network
        if found.config is None or found.path.suffix != ".safetensors":
            raise WeightsUnavailable(f"{found.path} cannot be loaded; expected a folder with config.json and model.safetensors")
        try:
            config = MimiConfig.from_json_file(found.config)
            model, info = MimiModel.from_pretrained(
                found.path.parent, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # safetensors, json and huggingface_hub raise different errors, as do other shapes
            raise WeightsUnavailable(f"{found.path.parent} is not a Mimi model: {type(error).__name__}: {error}") from error
        found_shape = (config.sampling_rate, config.frame_size, config.codebook_size, config.num_quantizers)
        expected = (SPEC.sample_rate, SPEC.hop_length, SPEC.codebook_size, SPEC.num_codebooks)
        wrong = [*info["missing_keys"], *info["mismatched_keys"]]
        if found_shape != expected or wrong:
            raise WeightsUnavailable(
                f"{found.path.parent} is another model: {found_shape}; expected {expected}. Missing: {wrong[:1]}"
            )
        return MimiNetwork(model)

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        model: Any = self.loaded().network
        with inference_guard():
            codes = torch.tensor(np.stack(tokens.codes, axis=1), dtype=torch.long, device=self.device)
            audio = model.model.decode(codes).audio_values
            return np.ascontiguousarray(to_pcm(audio.transpose(1, 2))[:, : tokens.num_samples])

    def new_decoder_session(self, tile_frames: int) -> DecoderSession:
        raise NotYetImplemented("transformers' Mimi decodes only whole signals. Use decode")
