"""DAC on its authors' package behind the trait, as the reference for tests.

Needs the extra `upstream`, or at least `descript-audio-codec` with argbind, einops and tqdm.
"""

from __future__ import annotations

import types
import warnings
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import nn

from blazen_codec_core import CodecTokens, EngineNotAvailable
from blazen_codec_core.installation import install_command
from blazen_codec_core.torch_backend.upstream import UpstreamBackend, stand_ins
from blazen_codec_core.validation import Pcm
from blazen_codec_core.weights import RandomWeights, WeightFile

from .backend import DacBackend
from .checkpoint import to_published
from .chunks import Windows
from .specs import DacArchitecture


class Model(nn.Module):
    """Stand-in for the base class of the authors' models, without loading and saving."""

    INTERN: ClassVar[list[str]] = []
    EXTERN: ClassVar[list[str]] = []

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


NETWORKS = types.SimpleNamespace(BaseModel=Model, Accelerator=type("Accelerator", (), {}))
SIGNALS = {name: type(name, (), {}) for name in ("AudioSignal", "STFTParams")}
AUDIOTOOLS = {"torchaudio": {}, "audiotools": {**SIGNALS, "ml": NETWORKS}, "audiotools.ml": vars(NETWORKS)}
"""Stand-ins for imports of audiotools, which depends on ninety packages; the networks need only a base class."""

try:
    with stand_ins(AUDIOTOOLS):
        from dac.model import DAC
except ImportError as error:
    raise EngineNotAvailable(
        f"engine 'upstream' needs the authors' package of DAC: "
        f"{install_command('dac', 'blazen-codec-dac', 'upstream')}. To leave out its ninety "
        "dependencies: pip install argbind einops tqdm && pip install --no-deps descript-audio-codec"
    ) from error


def model(architecture: DacArchitecture) -> Any:
    """Build the authors' model for an architecture, with random weights."""
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in architecture.model_dump().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # their use of torch.nn.utils.weight_norm
        return DAC(**settings).eval()


class UpstreamDacBackend(UpstreamBackend, DacBackend):
    """DAC on the authors' package; samples that its decoder does not yield are filled as in the native engine."""

    def build(self, found: RandomWeights | WeightFile) -> Any:
        theirs = model(self.spec.architecture)
        theirs.load_state_dict(to_published(super().build(found)))
        return theirs

    def encode_whole(self, pcm: Pcm, num_codebooks: int) -> CodecTokens:
        loaded, setup = self.loaded(), self.setup(1)
        theirs = cast(Any, loaded.network)
        with self.inference_guard():
            x = torch.tensor(pcm, device=setup.device, dtype=setup.dtype)[:, None]
            codes = theirs.encode(theirs.preprocess(x, self.sample_rate), num_codebooks)[1].cpu().numpy()
        return CodecTokens.from_codes(
            self.spec, [codes[:, book] for book in range(num_codebooks)], num_samples=pcm.shape[1], weights=loaded.weights
        )

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        loaded, setup = self.loaded(), self.setup(1)
        theirs, windows = cast(Any, loaded.network), Windows.of(self.spec, tokens)
        codes = torch.tensor(np.stack(tokens.codes, axis=1), dtype=torch.long, device=setup.device)
        with self._model_lock.own, self.inference_guard():
            parts = torch.split(codes, windows.frames if windows else tokens.frames, dim=2)
            theirs.padding = windows.padded if windows else True
            try:
                y = torch.cat([theirs.decode(theirs.quantizer.from_codes(part)[0]) for part in parts], dim=2)
            finally:
                theirs.padding = True  # after switching it off twice, it could not be switched on again
        pcm = y[:, 0].float().cpu().numpy()
        missing = max(0, tokens.num_samples - pcm.shape[1])
        return np.pad(pcm[:, : tokens.num_samples], ((0, 0), (0, missing)), mode="reflect")
