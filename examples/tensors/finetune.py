"""Fine-tuning of a decoder in a plain training loop; `blazen-codec finetune` does it with all that a real run needs.

    python examples/tensors/finetune.py speech.wav tuned/

The encoder and the codebooks stay as they are, so tokens that were made before stay valid.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

import blazen_codec_core as bc


def spectral_distance(y: Tensor, x: Tensor) -> Tensor:
    """Mean distance of log-magnitude spectrograms of `(batch, 1, samples)`, over two window lengths."""
    terms = []
    for size in (256, 1024):
        window = torch.hann_window(size)
        one, other = (torch.stft(s[:, 0], size, size // 4, window=window, return_complex=True).abs() for s in (y, x))
        terms.append((one.clamp(min=1e-3).log() - other.clamp(min=1e-3).log()).abs().mean())
    return torch.stack(terms).mean()


def main(source: str, folder: str, steps: int = 100) -> tuple[float, float]:
    """Tune the decoder on a recording, write its weights, and return the distance before and after."""
    torch.manual_seed(0)
    codec = bc.load("encodec_tiny")
    module = codec.module
    pcm, rate = bc.read_audio(source)
    x = torch.from_numpy(bc.resample(pcm.mean(0, keepdims=True), rate, codec.sample_rate))[None]
    latents = module.embed(module.encode(x)).detach()  # what the decoder will be given
    hop, length = codec.spec.hop_length, 75

    module.train()
    weights = list(module.network.decoder.parameters())
    optimizer = torch.optim.AdamW(weights, 3e-4, betas=(0.8, 0.99))
    for _ in range(steps):
        starts = torch.randint(latents.shape[2] - length - 1, (4,)).tolist()
        z = torch.cat([latents[:, :, start : start + length] for start in starts])
        wanted = torch.cat([x[:, :, start * hop : (start + length) * hop] for start in starts])
        loss = spectral_distance(module.decode_latents(z), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    module.save_weights(folder)

    tuned = bc.load("encodec_tiny", weights=folder)
    tokens = codec.encode(x[0], codec.sample_rate)
    assert tuned.encode(x[0], codec.sample_rate).flat().tolist() == tokens.flat().tolist()
    with torch.no_grad():
        before, after = (spectral_distance(torch.from_numpy(each.decode(tokens))[None], x) for each in (codec, tuned))
    return before.item(), after.item()


if __name__ == "__main__":
    print("spectral distance {:.4f} to {:.4f}".format(*main(*sys.argv[1:3])))
