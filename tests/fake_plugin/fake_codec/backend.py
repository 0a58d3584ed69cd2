import numpy as np

import blazen_codec_core as bc


class Encoder(bc.EncoderSession):
    latency_samples = 0
    first_samples = 1

    def __init__(self, backend):
        self.backend = backend

    def push(self, pcm):
        pcm = self.backend.check_pcm(pcm, self.backend.sample_rate, empty=True)
        curve = np.sign(pcm) * np.log1p(255 * np.minimum(np.abs(pcm), 1)) / np.log(256)
        return bc.CodecTokens.from_codes(self.backend.spec, [np.round(127.5 * (curve + 1)).astype(np.int32)])

    def finish(self):
        return self.push(np.zeros((1, 0), np.float32))


class Decoder(bc.DecoderSession):
    latency_samples = 0

    def push(self, tokens):
        curve = tokens.codes[0] / 127.5 - 1
        return (np.sign(curve) * (256 ** np.abs(curve) - 1) / 255).astype(np.float32)

    def finish(self):
        return np.zeros((1, 0), np.float32)


class MuLaw(bc.CodecBackend):
    is_loaded = True
    device = "cpu"

    def load(self):
        pass

    def unload(self):
        pass

    def encoder_session(self, channels=None, *, bandwidth=None, num_codebooks=None, tile_frames=None):
        return Encoder(self)

    def decoder_session(self, *, tile_frames=None):
        return Decoder()
