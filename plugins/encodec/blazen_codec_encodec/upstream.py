"""EnCodec on its authors' own package, behind the same trait: the oracle that ours is held to. Needs the extra `upstream`."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from blazen_codec_core import CodecBackend, CodecTokens, EngineNotAvailable, NotYetImplemented
from blazen_codec_core.backend import Pcm
from blazen_codec_core.nn.backend import TorchCodecBackend
from blazen_codec_core.nn.segments import coded
from blazen_codec_core.nn.session import running
from blazen_codec_core.weights import RandomWeights, WeightFile

from .backend import build
from .checkpoint import to_published
from .specs import EncodecArchitecture, EncodecSpec


@contextmanager
def torchaudio_or_stand_in() -> Iterator[None]:
    """The authors' package imports torchaudio, but only its file handling uses it. Where it does not load beside the installed
    torch, an empty module takes its place during the import."""
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError):
        left_over = [name for name in sys.modules if name.split(".")[0] == "torchaudio"]
        for name in left_over:
            del sys.modules[name]
        stand_in = types.ModuleType("torchaudio")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = stand_in
        try:
            yield
        finally:
            del sys.modules["torchaudio"]
    else:
        yield


try:
    with torchaudio_or_stand_in():
        from encodec.model import EncodecModel
except ImportError as error:
    raise EngineNotAvailable(
        "engine 'upstream' runs EnCodec on its authors' package: pip install 'blazen-codec-encodec[upstream]'"
    ) from error


def model(architecture: EncodecArchitecture, name: str) -> Any:
    """Their model of this shape, with weights of its own; `name` is what their files say."""
    a = architecture
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # their use of torch.nn.utils.weight_norm
        return EncodecModel._get_model(
            list(a.target_bandwidths),
            a.sampling_rate,
            a.audio_channels,
            causal=a.use_causal_conv,
            model_norm=a.norm_type,
            audio_normalize=a.normalize,
            segment=a.chunk_length_s,
            name=name,
        ).eval()


class UpstreamEncodecBackend(TorchCodecBackend):
    """Whole signals only: the authors' code does not stream."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._choosing = threading.Lock()

    @property
    def spec(self) -> EncodecSpec:
        return cast(EncodecSpec, self._spec)

    def build(self, found: RandomWeights | WeightFile) -> Any:
        theirs = model(self.spec.architecture, self.spec.name)
        ours = build(self.spec, found)
        state = to_published(ours, weight_norm=self.spec.architecture.norm_type == "weight_norm")
        training = {name: tensor for name, tensor in theirs.state_dict().items() if name not in state}
        theirs.load_state_dict({**training, **state})
        return theirs

    def encode(
        self, pcm: Any, sample_rate: int, *, bandwidth: float | None = None, num_codebooks: int | None = None
    ) -> CodecTokens:
        pcm = self.check_pcm(pcm, sample_rate)
        books = self.spec.codebooks_for(bandwidth, num_codebooks)
        loaded, setup = self.loaded(), self.setup(1)
        theirs = cast(Any, loaded.network)
        with self._choosing, running():
            theirs.set_target_bandwidth(theirs.target_bandwidths[self.spec.usable_codebooks.index(books)])
            x = torch.tensor(pcm, device=setup.device, dtype=setup.dtype).reshape(-1, self.channels, pcm.shape[1])
            frames = theirs.encode(x)
        codes = torch.cat([codes for codes, _ in frames], dim=2).cpu().numpy()
        scales = [scale[:, 0].cpu().numpy() for _, scale in frames if scale is not None]
        return CodecTokens.from_codes(
            self.spec,
            [codes[:, book] for book in range(books)],
            num_samples=pcm.shape[1],
            weights=loaded.weights,
            scales=np.stack(scales, axis=1) if scales else None,
        )

    def decode(self, tokens: CodecTokens) -> Pcm:
        self.check_tokens(tokens)
        loaded, setup = self.loaded(), self.setup(1)
        with running():
            frames = [
                (
                    torch.from_numpy(np.stack(piece.codes, axis=1)).long().to(setup.device),
                    None if piece.scales is None else torch.from_numpy(piece.scales.copy()).to(setup.device),
                )
                for piece in coded(tokens)
            ]
            y = cast(Any, loaded.network).decode(frames)
        return np.ascontiguousarray(y.flatten(0, 1)[:, : tokens.num_samples].float().cpu().numpy())

    encode_batch = CodecBackend.encode_batch  # one by one
    decode_batch = CodecBackend.decode_batch

    def encoder_session(self, channels: int | None = None, **options: Any) -> Any:
        raise NotYetImplemented("EnCodec's own package does not stream; load the codec with engine='native'")

    def decoder_session(self, **options: Any) -> Any:
        raise NotYetImplemented("EnCodec's own package does not stream; load the codec with engine='native'")
