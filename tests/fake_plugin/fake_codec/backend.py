"""The whole trait without PyTorch: what a codec that does not run on core's layers has to see to itself."""

import numpy as np

import blazen_codec_core as bc
from blazen_codec_core.checks import check_blocks, check_channels, check_piece


class Encoder(bc.EncoderSession):
    latency_samples = 0
    first_samples = 1

    def __init__(self, backend, channels):
        self.backend, self.channels = backend, channels
        self.pushed, self.ended = 0, False

    def push(self, pcm):
        if self.ended:
            raise bc.InvalidInput("this session has ended; open another one")
        pcm = check_piece(self.backend.spec, pcm, self.channels)
        self.pushed += pcm.shape[1]
        curve = np.sign(pcm) * np.log1p(255 * np.minimum(np.abs(pcm), 1)) / np.log(256)
        codes = np.round(127.5 * (curve + 1)).astype(np.int32)
        return bc.CodecTokens.from_codes(self.backend.spec, [codes], weights="none")

    def finish(self):
        rest = self.push(np.zeros((self.channels, 0), np.float32))
        if not self.pushed:
            raise bc.InvalidInput("the audio is empty: nothing was pushed")
        self.ended = True
        return rest


class Decoder(bc.DecoderSession):
    latency_samples = 0

    def __init__(self, backend):
        self.backend = backend
        self.first, self.frames, self.ended = None, 0, False

    def push(self, tokens):
        if self.ended:
            raise bc.InvalidInput("this session has ended; open another one")
        self.backend.check_tokens(tokens, part=True)
        self.first = self.first or tokens
        self.first.check_joins(tokens)
        self.frames += tokens.frames
        curve = tokens.codes[0] / 127.5 - 1
        return (np.sign(curve) * (256 ** np.abs(curve) - 1) / 255).astype(np.float32)

    def finish(self):
        if self.ended:
            raise bc.InvalidInput("this session has ended; open another one")
        if not self.first:
            raise bc.InvalidTokens("there are no tokens: nothing was pushed")
        check_blocks(self.backend.spec, self.frames)
        self.ended = True
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

    def encoder_session(self, channels=None, *, bandwidth=None, num_codebooks=None, tile_frames=None):
        channels = self.channels if channels is None else channels
        check_channels(self.spec, channels)
        self.spec.codebooks_for(bandwidth, num_codebooks)
        self.check_tile(tile_frames)
        self.load()
        return Encoder(self, channels)

    def decoder_session(self, *, tile_frames=None):
        self.check_tile(tile_frames)
        self.load()
        return Decoder(self)

    def check_tile(self, frames):
        if frames is not None and (not isinstance(frames, int) or frames < 1):
            raise bc.InvalidInput(f"tile_frames is a positive number, not {frames!r}")
