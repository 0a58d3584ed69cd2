"""The whole trait without PyTorch: what a codec that does not run on core's layers has to see to itself."""

import numpy as np

import blazen_codec_core as bc
from blazen_codec_core.checks import check_blocks, check_piece


class Encoder(bc.EncoderSession):
    latency_samples = 0
    first_samples = 1

    def __init__(self, backend, channels):
        super().__init__()
        self.backend, self.channels, self.pushed = backend, channels, 0

    def _push(self, chunk):
        pcm = check_piece(self.backend.spec, chunk, self.channels)
        self.pushed += pcm.shape[1]
        curve = np.sign(pcm) * np.log1p(255 * np.minimum(np.abs(pcm), 1)) / np.log(256)
        codes = np.round(127.5 * (curve + 1)).astype(np.int32)
        return bc.CodecTokens.from_codes(self.backend.spec, [codes], weights="none")

    def _finish(self):
        if not self.pushed:
            raise bc.InvalidInput("the audio is empty: nothing was pushed")
        return self._push(np.zeros((self.channels, 0), np.float32))


class Decoder(bc.DecoderSession):
    latency_samples = 0
    first_frames = 1

    def __init__(self, backend):
        super().__init__()
        self.backend, self.first, self.frames = backend, None, 0

    def _push(self, chunk):
        self.backend.check_tokens(chunk, part=True)
        self.first = self.first or chunk
        self.first.check_joins(chunk)
        self.frames += chunk.frames
        curve = chunk.codes[0] / 127.5 - 1
        return (np.sign(curve) * (256 ** np.abs(curve) - 1) / 255).astype(np.float32)

    def _finish(self):
        if not self.first:
            raise bc.InvalidTokens("there are no tokens: nothing was pushed")
        check_blocks(self.backend.spec, self.frames)
        return np.zeros((self.first.channels, 0), np.float32)


class MuLaw(bc.CodecBackend):
    is_loaded = False

    @property
    def device(self):
        if self.options.device not in ("auto", "cpu"):
            raise bc.DeviceUnavailable(f"{self.spec.name} runs on cpu, not on {self.options.device}")
        return "cpu"

    def load(self):
        if self.options.dtype != "float32":
            raise bc.DeviceUnavailable(f"{self.spec.name} runs in float32, not {self.options.dtype}")
        self.is_loaded = self.device == "cpu"

    def unload(self):
        self.is_loaded = False

    def new_encoder_session(self, channels, num_codebooks, tile_frames):
        self.load()
        return Encoder(self, channels)

    def new_decoder_session(self, tile_frames):
        self.load()
        return Decoder(self)
