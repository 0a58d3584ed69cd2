"""Codec trait over exported graphs, run by ONNX Runtime. It needs no PyTorch."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from ..backend import CodecBackend
from ..errors import DeviceUnavailable, InvalidInput, NotYetImplemented
from ..forks import Anew
from ..sessions import DecoderSession, EncoderSession
from ..specs import CodecSpec, DeviceCapabilities, Direction, Half, LoadOptions
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .manifest import Manifest, Part
from .runtime import CPU, Runtime, load_onnxruntime, run_whole, seed_of
from .sessions import GraphDecoderSession, GraphEncoderSession, audio_of, codes_of, decoder_inputs, encoder_inputs

PROVIDERS = {"cuda": "CUDAExecutionProvider", "coreml": "CoreMLExecutionProvider", "dml": "DmlExecutionProvider", "cpu": CPU}
"""Execution providers by device, best first."""
AUTOMATIC = ("cuda", "cpu")
"""Devices that `auto` chooses from; the others may compute in half precision."""
DIRECTIONS: dict[Half, Direction] = {"encoder": "encode", "decoder": "decode"}


def exported_spec(manifest: Manifest) -> CodecSpec:
    """Spec of the codec as its graphs run: their tiles, and what they can do."""
    streams = {half: part.stream for half, part in manifest.parts.items() if part.stream}
    tiles = [stream.step.blocks * manifest.codec.block_frames for stream in streams.values()]
    capabilities = DeviceCapabilities(
        devices=tuple(PROVIDERS), streams=tuple(DIRECTIONS[half] for half in streams), batches=False
    )
    tile_frames = max(tiles, default=manifest.codec.tile_frames)
    return manifest.codec.model_copy(
        update={"capabilities": capabilities, "tile_frames": tile_frames, "token_extras": (), "upstream": None}
    )


class OnnxBackend(CodecBackend):
    """A codec from a folder that `blazen-codec export` has written, the option `weights`.

    Signals run in the tiles that were exported, whatever tiles are asked for; without graphs of streams, they run as a whole.
    """

    def __init__(self, spec: CodecSpec, options: LoadOptions | None = None) -> None:
        super().__init__(spec, options)
        self._loaded: Runtime | None = None
        self._lock = Anew(threading.Lock)

    @property
    def device(self) -> str:
        providers = load_onnxruntime().get_available_providers()
        available = [device for device, provider in PROVIDERS.items() if provider in providers]
        wanted = AUTOMATIC if self.options.device == "auto" else (self.options.device,)
        found = [device for device in available if device in wanted]
        if not found:
            raise DeviceUnavailable(f"device is {self.options.device!r}; this ONNX Runtime has auto, {', '.join(available)}")
        return found[0]

    def load(self) -> None:
        self.loaded()

    def loaded(self) -> Runtime:
        """Load the description of the graphs, if it is not loaded; each graph is loaded at its first use."""
        with self._lock.own:
            if self._loaded is None:
                device = self.device
                if self.options.dtype not in self.spec.capabilities.dtypes:
                    raise DeviceUnavailable(f"dtype is {self.options.dtype}; exported graphs run in the type of their export")
                if self.spec.segment:
                    raise NotYetImplemented(
                        f"engine='onnx' does not cut signals into segments, which {self.spec.name} needs; run its graphs as "
                        "their README says, or load it with engine='native'"
                    )
                folder = Path(str(self.options.weights))
                self._loaded = Runtime(folder, Manifest.read(folder), list(dict.fromkeys((PROVIDERS[device], CPU))))
            return self._loaded

    def unload(self) -> None:
        with self._lock.own:
            self._loaded = None

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def weights_label(self) -> str:
        return self.loaded().manifest.label

    def _part(self, half: Half) -> tuple[Runtime, Part]:
        """Graphs of a half, which was exported and is not left out."""
        runtime = self.loaded()
        if self.options.parts not in (None, half) or half not in runtime.manifest.parts:
            raise InvalidInput(f"{self.spec.name} was exported or loaded without its {half}; export or load it with both parts")
        return runtime, runtime.manifest.parts[half]

    @property
    def _seed(self) -> int | None:
        return seed_of(self.options.noise, self.options.noise_seed)

    def new_encoder_session(self, channels: int, num_codebooks: int, tile_frames: int) -> EncoderSession:
        return GraphEncoderSession(self, *self._part("encoder"), channels, num_codebooks)

    def new_decoder_session(self, tile_frames: int) -> DecoderSession:
        return GraphDecoderSession(self, *self._part("decoder"), self._seed)

    def encode_whole(self, pcm: Pcm, num_codebooks: int) -> CodecTokens:
        runtime, part = self._part("encoder")
        if part.stream:
            return super().encode_whole(pcm, num_codebooks)
        padded = np.pad(pcm, ((0, 0), (0, self.spec.missing_samples(pcm.shape[1]))))
        outputs = [[run_whole(runtime, part, inputs, None)] for inputs in encoder_inputs(self.spec, padded)]
        codes = codes_of(self.spec, outputs, num_codebooks)
        return CodecTokens.from_codes(self.spec, codes, num_samples=pcm.shape[1], weights=runtime.manifest.label)

    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        runtime, part = self._part("decoder")
        if part.stream:
            return super().decode_whole(tokens)
        seed = self._seed
        outputs = [[run_whole(runtime, part, inputs, seed)] for inputs in decoder_inputs(self.spec, tokens.codes)]
        return audio_of(self.spec, outputs)[:, : tokens.num_samples]
